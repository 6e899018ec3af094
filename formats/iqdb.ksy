meta:
  id: iqdb
  title: iqdb snapshot, format 3, and write-ahead log, format 2
  file-extension:
    - iqdb
    - iqdb.wal
  license: MIT
  ks-version: '0.10'
  endian: le
  encoding: ASCII
doc: |
  What snapshot-3.md and log-2.md say in words, as a Kaitai Struct description. It describes where things
  are and of which type. What it cannot say, those pages do, and a reader must check it: checksums (CRC-32C), the
  ranges of fields and their relations, the chunks of compressed sections (section 7), and which bad frame is a
  torn tail and which is damage (log-2.md, section 5). A metadata group of a snapshot is found by the sections
  meta.groups and meta.data, which may be compressed: its bytes are a metadata_group by themselves.
doc-ref: snapshot-3.md, log-2.md
seq:
  - id: snapshot
    type: snapshot
    if: _io.size >= 8 and kind == kind::snapshot
  - id: log
    type: log
    if: _io.size >= 8 and kind == kind::log
instances:
  kind:
    doc: The second half of the magic; both kinds of file begin with IQDB.
    pos: 4
    type: u4
    enum: kind
enums:
  kind:
    0x54535250: snapshot # PRST
    0x004c4157: log # WAL and a zero
  metric:
    0: cosine
    1: dot
    2: euclidean
    3: manhattan
    4: hamming
  index_kind:
    0: flat
    1: hnsw
    2: ivf
  id_encoding:
    0: u64
    1: var
  dtype:
    1: u8
    2: u16
    3: u32
    4: u64
    5: i8
    6: i16
    7: i32
    8: i64
    9: f32
    10: f64
  codec:
    0: none
    1: lz4
    2: zstd
  frame_type:
    1: upsert
    2: delete
    3: fold
  mappings:
    0: all
    1: bitmap
    2: none
  column_type:
    1: 'null'
    2: bool
    3: int64
    4: float64
    5: string
  presence:
    0: all
    1: bitmap
    2: list
  string_encoding:
    0: plain
    1: dictionary
types:
  snapshot:
    seq:
      - id: header
        type: header
        size: 4096
    instances:
      sections:
        pos: header.section_table_offset
        type: section_entry
        size: 96
        repeat: expr
        repeat-expr: header.section_count
  header:
    doc: snapshot-3.md, section 3
    seq:
      - id: magic
        contents: IQDBPRST
      - id: version
        type: u4
        valid: 3
      - id: header_bytes
        type: u4
        valid: 4096
      - id: file_bytes
        type: u8
      - id: feature_compat
        type: u8
      - id: feature_ro_compat
        type: u8
      - id: feature_incompat
        type: u8
      - id: database_id
        size: 16
      - id: section_table_offset
        type: u8
      - id: section_count
        type: u4
      - id: section_table_crc
        type: u4
      - id: n_rows
        type: u8
      - id: dim
        type: u4
      - id: metric
        type: u1
        enum: metric
      - id: index_kind
        type: u1
        enum: index_kind
      - id: id_encoding
        type: u1
        enum: id_encoding
      - id: block_log2
        type: u1
        valid: 12
      - id: content_digest
        size: 16
      - id: reserved
        size: 3980
      - id: header_crc
        type: u4
  section_entry:
    doc: snapshot-3.md, section 5
    seq:
      - id: name
        type: strz
        size: 24
      - id: dtype
        type: u1
        enum: dtype
      - id: codec
        type: u1
        enum: codec
      - id: flags
        type: u1
      - id: ndim
        type: u1
      - id: chunk_bytes
        type: u4
      - id: shape0
        type: u8
      - id: shape1
        type: u8
      - id: offset
        type: u8
      - id: stored_bytes
        type: u8
      - id: raw_bytes
        type: u8
      - id: checksums_offset
        type: u8
      - id: checksums_crc
        type: u4
      - id: reserved
        size: 12
    instances:
      is_derived:
        value: (flags & 1) != 0
      item_bytes:
        value: >-
          dtype == dtype::u8 or dtype == dtype::i8 ? 1 :
          dtype == dtype::u16 or dtype == dtype::i16 ? 2 :
          dtype == dtype::u64 or dtype == dtype::i64 or dtype == dtype::f64 ? 8 : 4
      stored:
        io: _root._io
        pos: offset
        size: stored_bytes
      block_crcs:
        doc: One CRC-32C for every 4096 bytes stored (section 6).
        io: _root._io
        pos: checksums_offset
        type: u4
        repeat: expr
        repeat-expr: (stored_bytes + 4095) / 4096
      chunk_offsets:
        doc: Where the chunks of a compressed section begin, and where the last ends (section 7).
        io: _root._io
        pos: offset + stored_bytes - 8 * ((raw_bytes + chunk_bytes - 1) / chunk_bytes + 1)
        type: u8
        repeat: expr
        repeat-expr: (raw_bytes + chunk_bytes - 1) / chunk_bytes + 1
        if: codec != codec::none
      values:
        doc: The elements of a section that is not compressed, in C order.
        io: _root._io
        pos: offset
        type:
          switch-on: dtype
          cases:
            dtype::u8: u1
            dtype::u16: u2
            dtype::u32: u4
            dtype::u64: u8
            dtype::i8: s1
            dtype::i16: s2
            dtype::i32: s4
            dtype::i64: s8
            dtype::f32: f4
            dtype::f64: f8
        repeat: expr
        repeat-expr: raw_bytes / item_bytes
        if: codec == codec::none
  log:
    seq:
      - id: header
        type: log_header
        size: 64
        if: _root._io.size >= 64
      - id: frames
        doc: |
          Up to the first that is not complete: the end of the log, or a torn tail. A frame that is complete
          counts only when its frame_crc is right, and so are those of all before it (log-2.md, section 2).
        type: frame(_io.size - _io.pos, header.dim)
        repeat: until
        repeat-until: not _.is_complete or _io.eof
        if: _root._io.size > 64
  log_header:
    doc: log-2.md, section 1
    seq:
      - id: magic
        size: 8
      - id: version
        type: u4
      - id: header_bytes
        type: u4
      - id: database_id
        size: 16
      - id: snapshot_identity
        type: u8
      - id: dim
        type: u4
      - id: reserved
        size: 16
      - id: header_crc
        type: u4
  frame:
    doc: log-2.md, section 2
    params:
      - id: left
        doc: Bytes of the log from the frame's first on.
        type: u8
      - id: dim
        type: u4
    seq:
      - id: header
        type: frame_header
        size: 40
        if: left >= 40
      - id: body
        size: header.body_bytes
        type:
          switch-on: header.type
          cases:
            frame_type::upsert: upsert_body(header.n_records, dim)
            frame_type::delete: delete_body(header.n_records)
            frame_type::fold: fold_body
        if: is_complete
    instances:
      is_complete:
        value: left >= 40 and header.is_known and left - 40 >= header.body_bytes
  frame_header:
    seq:
      - id: marker
        size: 4
      - id: body_bytes
        type: u4
      - id: sequence
        type: u8
      - id: settled_bytes
        type: u8
      - id: previous_crc
        type: u4
      - id: type
        type: u1
        enum: frame_type
      - id: reserved
        size: 3
      - id: n_records
        type: u4
      - id: frame_crc
        type: u4
    instances:
      is_known:
        value: marker == [0x49, 0x51, 0x46, 0x52] and type.to_i >= 1 and type.to_i <= 3
  upsert_body:
    doc: log-2.md, section 3
    params:
      - id: n_records
        type: u4
      - id: dim
        type: u4
    seq:
      - id: ids_bytes
        type: u8
      - id: metadata_bytes
        type: u8
      - id: ids
        type: ids_block(n_records)
        size: ids_bytes
      - id: vectors
        size: 4 * n_records * dim
      - id: padding
        size: (8 - _io.pos % 8) % 8
      - id: metadata
        type: metadata_block(n_records)
        size: metadata_bytes
        if: metadata_bytes != 0
  delete_body:
    params:
      - id: n_records
        type: u4
    seq:
      - id: ids_bytes
        type: u8
      - id: reserved
        size: 8
      - id: ids
        type: ids_block(n_records)
        size: ids_bytes
  fold_body:
    seq:
      - id: snapshot_identity
        type: u8
      - id: reserved
        size: 8
  ids_block:
    params:
      - id: n_records
        type: u4
    seq:
      - id: encoding
        type: u4
        enum: id_encoding
      - id: reserved
        size: 4
      - id: integers
        type: u8
        repeat: expr
        repeat-expr: n_records
        if: encoding == id_encoding::u64
      - id: offsets
        type: u8
        repeat: expr
        repeat-expr: n_records + 1
        if: encoding == id_encoding::var
      - id: kinds
        type: u1
        repeat: expr
        repeat-expr: n_records
        if: encoding == id_encoding::var
      - id: padding
        size: (8 - _io.pos % 8) % 8
        if: encoding == id_encoding::var
      - id: payloads
        size: offsets[n_records]
        if: encoding == id_encoding::var
  metadata_block:
    params:
      - id: n_records
        type: u4
    seq:
      - id: offsets
        type: u8
        repeat: expr
        repeat-expr: (n_records + 16383) / 16384 + 1
      - id: groups
        size: offsets[_index + 1] - offsets[_index]
        type: metadata_group
        repeat: expr
        repeat-expr: (n_records + 16383) / 16384
  metadata_group:
    doc: snapshot-3.md, section 9. A bitmap is of words of 64 bits, the first in the least significant.
    seq:
      - id: n_rows
        type: u4
      - id: n_columns
        type: u4
      - id: has_metadata
        type: u1
        enum: mappings
      - id: reserved
        size: 3
      - id: blob_bytes
        type: u4
      - id: columns
        type: column
        repeat: expr
        repeat-expr: n_columns
    instances:
      keys_end:
        value: 'n_columns == 0 ? 16 : columns[n_columns - 1].key_offset + columns[n_columns - 1].key_bytes'
      mappings:
        doc: Which rows have a mapping, when some have and some have not.
        pos: (keys_end + 7) / 8 * 8
        type: u8
        repeat: expr
        repeat-expr: (n_rows + 63) / 64
        if: has_metadata == mappings::bitmap
  column:
    seq:
      - id: key_offset
        type: u4
      - id: key_bytes
        type: u2
      - id: type
        type: u1
        enum: column_type
      - id: presence
        type: u1
        enum: presence
      - id: count
        type: u4
      - id: encoding
        type: u1
        enum: string_encoding
      - id: reserved
        size: 3
      - id: data_offset
        type: u4
      - id: data_bytes
        type: u4
      - id: reserved2
        size: 8
    instances:
      key:
        pos: key_offset
        size: key_bytes
        type: str
        encoding: UTF-8
      payload:
        pos: data_offset
        size: data_bytes
        type: column_payload(_parent.n_rows, type, presence, count, encoding)
  column_payload:
    params:
      - id: n_rows
        type: u4
      - id: type
        type: u1
        enum: column_type
      - id: presence
        type: u1
        enum: presence
      - id: count
        type: u4
      - id: encoding
        type: u1
        enum: string_encoding
    seq:
      - id: row_bits
        doc: Which rows have a value.
        type: u8
        repeat: expr
        repeat-expr: (n_rows + 63) / 64
        if: presence == presence::bitmap
      - id: row_numbers
        type: u2
        repeat: expr
        repeat-expr: count
        if: presence == presence::list
      - id: padding
        size: (8 - _io.pos % 8) % 8
      - id: bools
        type: u8
        repeat: expr
        repeat-expr: (count + 63) / 64
        if: type == column_type::bool
      - id: integers
        type: s8
        repeat: expr
        repeat-expr: count
        if: type == column_type::int64
      - id: floats
        type: f8
        repeat: expr
        repeat-expr: count
        if: type == column_type::float64
      - id: strings
        type: plain_strings(count)
        if: type == column_type::string and encoding == string_encoding::plain
      - id: dictionary
        type: dictionary_strings(count)
        if: type == column_type::string and encoding == string_encoding::dictionary
  plain_strings:
    params:
      - id: count
        type: u4
    seq:
      - id: offsets
        type: u4
        repeat: expr
        repeat-expr: count + 1
      - id: texts
        size: offsets[_index + 1] - offsets[_index]
        type: str
        encoding: UTF-8
        repeat: expr
        repeat-expr: count
  dictionary_strings:
    params:
      - id: count
        type: u4
    seq:
      - id: n_entries
        type: u4
      - id: reserved
        size: 4
      - id: offsets
        type: u4
        repeat: expr
        repeat-expr: n_entries + 1
      - id: padding
        size: (8 - _io.pos % 8) % 8
      - id: entries
        size: offsets[_index + 1] - offsets[_index]
        type: str
        encoding: UTF-8
        repeat: expr
        repeat-expr: n_entries
      - id: entries_padding
        size: (8 - _io.pos % 8) % 8
      - id: codes
        doc: Value i is entry codes[i].
        type: u2
        repeat: expr
        repeat-expr: count
