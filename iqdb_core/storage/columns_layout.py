"""One metadata group: the metadata of up to 16,384 consecutive records as typed columns.

A group is a self-contained blob. Snapshots keep one after the other in the section `meta.data`, log
frames in their metadata block. All integers are little-endian, all offsets count from the start of the
blob, every part below begins at a multiple of 8, and `pad8(x)` is x rounded up to a multiple of 8. Bytes
that are reserved or only pad are zero. The encoding is canonical: one content has one encoding.

The blob is, without holes:

1. Header, 16 bytes (`GROUP_FIELDS`):

   ======  ====  ================  ============================================================
   offset  size  field             meaning
   ======  ====  ================  ============================================================
   0       4     n_rows            1..16384
   4       4     n_columns         columns, each a pair of key and type that occurs
   8       1     has_metadata      0: every row has a mapping; 1: those of the bitmap have one;
                                   2: none has (then n_columns is 0)
   9       3     reserved          zero
   12      4     blob_bytes        the length of the blob, a multiple of 8
   ======  ====  ================  ============================================================

2. Directory: `n_columns` entries of 32 bytes (`COLUMN_FIELDS`), strictly ascending by (key as bytes, type):

   ======  ====  ================  ============================================================
   0       4     key_offset        where the key begins
   4       2     key_bytes         its length, 0..65535; UTF-8
   6       1     type              1 null, 2 bool, 3 int64, 4 float64, 5 string
   7       1     presence          0: every row has a value; 1: bitmap; 2: sparse
   8       4     count             rows that have a value, 1..n_rows
   12      1     encoding          0 plain; 1 dictionary (strings only)
   13      3     reserved          zero
   16      4     data_offset       where the payload begins
   20      4     data_bytes        its length, a multiple of 8
   24      8     reserved          zero
   ======  ====  ================  ============================================================

3. Keys: the distinct keys one after the other in ascending order, then zeros to `pad8`. Entries of one
   key (of different types) have the same `key_offset`.
4. When `has_metadata` is 1: a bitmap of n_rows bits. At least one bit is set and one is not.
5. The payloads, in the order of the directory. Each is its presence, then its values:

   - presence 0: nothing. presence 1: a bitmap of n_rows bits, `count` of them set. presence 2: u16[count],
     the rows, strictly ascending, below n_rows, then zeros to `pad8`. Presence is 0 when count = n_rows, else
     2 when pad8(2 * count) is less than the bitmap's bytes, else 1.
   - values, one for each row that has one, in row order: null: nothing. bool: a bitmap of `count` bits.
     int64, float64: 8 bytes each; a float's bits are kept as they are, NaN included.
   - string, plain: u32 offsets[count + 1], then the bytes, then zeros to `pad8`. offsets[0] is 0, offsets
     never descend, and value i is the bytes offsets[i]..offsets[i + 1] behind the offsets, in UTF-8.
   - string, dictionary: u32 n_entries, u32 reserved, u32 offsets[n_entries + 1] and zeros to `pad8`, the
     entries' bytes and zeros to `pad8`, u16 codes[count] and zeros to `pad8`. Entries are distinct and
     ascend as bytes, value i is entry codes[i], every entry is used. A string column is stored in this
     way exactly when 2 * n_entries <= count.

A bitmap of b bits is u64[ceil(b / 64)]; bit i is bit i mod 64 of word i div 64; bits from b on are zero.
No row has values in two columns of one key, and a row without a mapping has none at all. The weights
of the rows (per key: 16 + the key's bytes + a string value's bytes) add up to at most 256 MiB.
"""

from __future__ import annotations

import struct

from iqdb_core.storage.layout import MAX_FRAME_BYTES, Field

GROUP_HEADER_BYTES = 16
COLUMN_ENTRY_BYTES = 32

GROUP_FIELDS = (
    Field("n_rows", 0, 4, "u32"),
    Field("n_columns", 4, 4, "u32"),
    Field("has_metadata", 8, 1, "u8"),
    Field("reserved", 9, 3, "zero"),
    Field("blob_bytes", 12, 4, "u32"),
)
COLUMN_FIELDS = (
    Field("key_offset", 0, 4, "u32"),
    Field("key_bytes", 4, 2, "u16"),
    Field("type", 6, 1, "u8"),
    Field("presence", 7, 1, "u8"),
    Field("count", 8, 4, "u32"),
    Field("encoding", 12, 1, "u8"),
    Field("reserved", 13, 3, "zero"),
    Field("data_offset", 16, 4, "u32"),
    Field("data_bytes", 20, 4, "u32"),
    Field("reserved2", 24, 8, "zero"),
)
GROUP_HEADER = struct.Struct("<IIB3sI")
COLUMN_ENTRY = struct.Struct("<IHBBIB3sII8s")
assert GROUP_HEADER.size == GROUP_HEADER_BYTES
assert COLUMN_ENTRY.size == COLUMN_ENTRY_BYTES

ALL, BITMAP, SPARSE = 0, 1, 2
"""Presence of a column's values."""
HAS_ALL, HAS_BITMAP, HAS_NONE = 0, 1, 2
"""Presence of the mappings themselves."""
PLAIN, DICTIONARY = 0, 1
"""Encodings."""

MAX_BLOB_WEIGHT = MAX_FRAME_BYTES
"""The most that the weights of a group's rows may add up to; bounds what decoding allocates."""


def pad8(size: int) -> int:
    """Return `size` rounded up to a multiple of 8."""
    return (size + 7) & -8


def bitmap_bytes(bits: int) -> int:
    """Return how many bytes a bitmap of that many bits takes."""
    return (bits + 63) // 64 * 8


def presence_of(count: int, n_rows: int) -> int:
    """Return which presence a column of `count` values in `n_rows` rows must have."""
    if count == n_rows:
        return ALL
    return SPARSE if pad8(2 * count) < bitmap_bytes(n_rows) else BITMAP


def presence_bytes(presence: int, count: int, n_rows: int) -> int:
    """Return how many bytes a column's presence takes."""
    if presence == ALL:
        return 0
    return bitmap_bytes(n_rows) if presence == BITMAP else pad8(2 * count)
