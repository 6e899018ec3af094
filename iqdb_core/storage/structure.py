"""The rules that a snapshot's header, section table and configuration obey. Nothing here does I/O.

Everything is checked before a byte of it is used or an allocation depends on it (snapshot format,
"Opening"): a file that passes accounts for each of its bytes.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from iqdb_core._kernels import crc32c
from iqdb_core.errors import (
    ChecksumError,
    NotADatabaseError,
    StructureError,
    TruncatedError,
    UnsupportedFeatureError,
    UnsupportedVersionError,
)
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    BLOCK_LOG2,
    CODEC_NAMES,
    CODEC_NONE,
    COMPRESSIBLE_SECTIONS,
    CONFIG,
    CONFIG_KEYS,
    DTYPE_BY_TAG,
    FLAG_DERIVED,
    HEADER_BYTES,
    HEADER_CRC_OFFSET,
    ID_BYTES,
    ID_ENCODING_U64,
    ID_ENCODING_VAR,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
    INDEX_KIND_TAGS,
    INDEX_SETTINGS,
    KNOWN_FEATURES_INCOMPAT,
    KNOWN_FLAGS,
    LOG_MAGIC,
    MAX_CHUNK_BYTES,
    MAX_CONFIG_BYTES,
    MAX_DIM,
    MAX_EXPANSION,
    MAX_ROWS,
    MAX_SECTIONS,
    META_DATA,
    META_GROUPS,
    META_ROWS,
    METRIC_TAGS,
    NULL_SETTINGS,
    PAGE_BYTES,
    RECORD_SECTIONS,
    SECTION_ENTRY_BYTES,
    SNAPSHOT_MAGIC,
    SNAPSHOT_VERSION,
    VECTORS,
    Header,
    ReservedError,
    SectionEntry,
    decode_header,
    decode_section_table,
    padded,
)

_PREAMBLE_BYTES = 12
"""Magic and version: what every version of the format begins with."""

RECORD_DTYPES = {
    VECTORS: "f32",
    IDS: "u64",
    ID_KINDS: "u8",
    ID_OFFSETS: "u64",
    ID_BYTES: "u8",
    ID_ORDER: "u32",
    META_ROWS: "u64",
    META_GROUPS: "u64",
    META_DATA: "u8",
    CONFIG: "u8",
}
_RECORD_PLACES = {name: place for place, name in enumerate(RECORD_SECTIONS)}


def check_header(page: bytes, file_bytes: int, path: str) -> Header:
    """Decode the header page of a file that is `file_bytes` long.

    Args:
        page: the first 4096 bytes of the file, or all of it when it is shorter.
        file_bytes: the real length of the file.
        path: names the file in errors.

    Raises:
        NotADatabaseError, UnsupportedVersionError, TruncatedError, ChecksumError,
        UnsupportedFeatureError, StructureError: in this order of checks.
    """
    if len(page) < _PREAMBLE_BYTES:
        raise NotADatabaseError(path, f"it has only {file_bytes} bytes")
    if page[:8] == LOG_MAGIC:
        raise NotADatabaseError(path, "it is the log of one; name the file without .wal")
    if page[:8] != SNAPSHOT_MAGIC:
        raise NotADatabaseError(path, 'it does not begin with "IQDBPRST"')
    version = int.from_bytes(page[8:12], "little")
    if version != SNAPSHOT_VERSION:
        raise UnsupportedVersionError(path, version, str(SNAPSHOT_VERSION))
    if len(page) < HEADER_BYTES:
        raise TruncatedError(path, HEADER_BYTES, file_bytes)
    found = crc32c(page[:HEADER_CRC_OFFSET])
    expected = int.from_bytes(page[HEADER_CRC_OFFSET:HEADER_BYTES], "little")
    if found != expected:
        raise ChecksumError(path, "header", 0, expected=expected, found=found)
    try:
        header = decode_header(page)
    except ReservedError as error:
        raise StructureError(path, str(error), "zero", "not zero") from error
    if header.file_bytes != file_bytes:
        raise TruncatedError(path, header.file_bytes, file_bytes)
    unknown = header.feature_incompat & ~KNOWN_FEATURES_INCOMPAT
    if unknown:
        raise UnsupportedFeatureError(path, "incompat", unknown)

    def require(*, holds: bool, field: str, rule: str) -> None:
        if not holds:
            raise StructureError(path, f"header.{field}", rule, getattr(header, field))

    require(holds=header.header_bytes == HEADER_BYTES, field="header_bytes", rule=str(HEADER_BYTES))
    require(holds=header.block_log2 == BLOCK_LOG2, field="block_log2", rule=str(BLOCK_LOG2))
    require(holds=header.n_rows <= MAX_ROWS, field="n_rows", rule=f"at most {MAX_ROWS}")
    require(holds=1 <= header.dim <= MAX_DIM, field="dim", rule=f"1..{MAX_DIM}")
    require(holds=header.metric < len(METRIC_TAGS), field="metric", rule="a known metric")
    require(holds=header.index_kind < len(INDEX_KIND_TAGS), field="index_kind", rule="a known index kind")
    require(holds=header.id_encoding <= ID_ENCODING_VAR, field="id_encoding", rule="0 or 1")
    require(holds=header.section_count <= MAX_SECTIONS, field="section_count", rule=f"at most {MAX_SECTIONS}")
    table_bytes = header.section_count * SECTION_ENTRY_BYTES
    require(
        holds=header.section_table_offset % PAGE_BYTES == 0
        and header.section_table_offset >= HEADER_BYTES
        and header.section_table_offset + table_bytes == file_bytes,
        field="section_table_offset",
        rule=f"a multiple of {PAGE_BYTES} from which {table_bytes} bytes reach the end of the file",
    )
    return header


def check_section_table(table: bytes, header: Header, path: str) -> list[SectionEntry]:
    """Decode the section table and check that the sections fill the file as the format says.

    Raises:
        ChecksumError: the table is damaged.
        StructureError: an entry breaks a rule or contradicts the header.
    """
    found = crc32c(table)
    if found != header.section_table_crc:
        raise ChecksumError(
            path, "section table", header.section_table_offset, expected=header.section_table_crc, found=found
        )
    try:
        entries = decode_section_table(table)
    except ReservedError as error:
        raise StructureError(
            path, str(error), "zero padding and a printable name", "something else"
        ) from error
    _check_places(entries, header, path)
    for entry in entries:
        check_entry(entry, path)
    _check_records(entries, header, path)
    return entries


def _check_places(entries: list[SectionEntry], header: Header, path: str) -> None:
    """Check that sections, then their checksums, follow one another without hole or overlap."""
    end = HEADER_BYTES
    for entry in entries:
        if entry.offset != end:
            raise StructureError(path, f"section {entry.name}: offset", str(end), entry.offset)
        end = padded(end + entry.stored_bytes)
        if end > header.section_table_offset:
            raise StructureError(
                path,
                f"section {entry.name}: stored_bytes",
                f"an end before byte {header.section_table_offset}",
                entry.stored_bytes,
            )
    for entry in entries:
        if entry.checksums_offset != end:
            raise StructureError(
                path, f"section {entry.name}: checksums_offset", str(end), entry.checksums_offset
            )
        end += padded(4 * -(-entry.stored_bytes // BLOCK_BYTES), 8)
    if padded(end) != header.section_table_offset:
        raise StructureError(
            path, "header.section_table_offset", str(padded(end)), header.section_table_offset
        )


def check_entry(entry: SectionEntry, path: str) -> None:
    """Check what one entry says about itself."""

    def wrong(field: str, rule: str) -> NoReturn:
        raise StructureError(path, f"section {entry.name}: {field}", rule, getattr(entry, field))

    dtype = DTYPE_BY_TAG.get(entry.dtype)
    if dtype is None:
        wrong("dtype", "a known element type")
    if entry.codec not in CODEC_NAMES:
        wrong("codec", "a known codec")
    if entry.flags & ~KNOWN_FLAGS:
        wrong("flags", "no unknown flag")
    if entry.ndim not in {1, 2}:
        wrong("ndim", "1 or 2")
    if entry.ndim == 1 and entry.shape1 != 1:
        wrong("shape1", "1 in a one-dimensional section")
    if entry.raw_bytes != entry.shape0 * entry.shape1 * dtype.itemsize:
        wrong("raw_bytes", f"{entry.shape0} x {entry.shape1} x {dtype.itemsize}")
    if entry.codec == CODEC_NONE:
        if entry.chunk_bytes:
            wrong("chunk_bytes", "0 without a codec")
        if entry.stored_bytes != entry.raw_bytes:
            wrong("stored_bytes", f"raw_bytes ({entry.raw_bytes}) without a codec")
        return
    if not entry.raw_bytes:
        wrong("codec", "none for an empty section")
    if not 0 < entry.chunk_bytes <= MAX_CHUNK_BYTES:
        wrong("chunk_bytes", f"1..{MAX_CHUNK_BYTES}")
    if entry.raw_bytes > MAX_EXPANSION * entry.stored_bytes:
        wrong("raw_bytes", f"at most {MAX_EXPANSION} x stored_bytes ({entry.stored_bytes})")
    n_chunks = -(-entry.raw_bytes // entry.chunk_bytes)
    offsets_bytes = 8 * (n_chunks + 1)
    least = padded(n_chunks, 8) + offsets_bytes
    most = padded(entry.raw_bytes, 8) + offsets_bytes
    if entry.stored_bytes % 8 or not least <= entry.stored_bytes <= most:
        wrong("stored_bytes", f"a multiple of 8 in {least}..{most} for {n_chunks} chunks")


def _check_records(entries: list[SectionEntry], header: Header, path: str) -> None:
    """Check which sections there are, in which order, and that their shapes agree with the header."""
    sections: dict[str, SectionEntry] = {}
    last_place = -1
    for entry in entries:
        if entry.name in sections:
            raise StructureError(path, f"section {entry.name}", "once", "there twice")
        sections[entry.name] = entry
        place = _RECORD_PLACES.get(entry.name, len(RECORD_SECTIONS))
        if place < last_place:
            raise StructureError(path, f"section {entry.name}", "in the order of the format", "out of place")
        last_place = place
        if entry.name not in RECORD_DTYPES:
            if not entry.flags & FLAG_DERIVED:
                raise StructureError(
                    path, f"section {entry.name}", "one that this release knows, or derived", "unknown"
                )
            continue
        dtype = DTYPE_BY_TAG[entry.dtype].name
        if dtype != RECORD_DTYPES[entry.name]:
            raise StructureError(path, f"section {entry.name}: dtype", RECORD_DTYPES[entry.name], dtype)
        if entry.flags:
            raise StructureError(path, f"section {entry.name}: flags", "0", entry.flags)
        if entry.codec and entry.name not in COMPRESSIBLE_SECTIONS:
            raise StructureError(path, f"section {entry.name}: codec", "none", CODEC_NAMES[entry.codec])

    n_rows = header.n_rows
    shapes: dict[str, tuple[int, ...] | None] = {VECTORS: (n_rows, header.dim), CONFIG: None}
    if header.id_encoding == ID_ENCODING_U64:
        shapes[IDS] = (n_rows,)
    else:
        shapes |= {ID_KINDS: (n_rows,), ID_OFFSETS: (n_rows + 1,), ID_BYTES: None}
    if ID_ORDER in sections:
        shapes[ID_ORDER] = (n_rows,)
    if META_ROWS in sections:
        shapes |= {META_ROWS: None, META_GROUPS: (sections[META_ROWS].shape0,), META_DATA: None}
        if not 2 <= sections[META_ROWS].shape0 <= n_rows + 1:
            raise StructureError(
                path, "section meta.rows: shape0", f"2..{n_rows + 1}", sections[META_ROWS].shape0
            )
    for name in RECORD_DTYPES:
        if (name in shapes) != (name in sections):
            state = ("absent", "there") if name in sections else ("there", "absent")
            raise StructureError(path, f"section {name}", *state)
    for name, shape in shapes.items():
        entry = sections[name]
        found = (entry.shape0,) if entry.ndim == 1 else (entry.shape0, entry.shape1)
        if (len(found) != 1) if shape is None else (found != shape):
            raise StructureError(path, f"section {name}: shape", str(shape or "one dimension"), str(found))
    if sections[CONFIG].raw_bytes > MAX_CONFIG_BYTES:
        raise StructureError(
            path, "section config: raw_bytes", f"at most {MAX_CONFIG_BYTES}", sections[CONFIG].raw_bytes
        )


def encode_config(config: dict[str, Any]) -> bytes:
    """Return a configuration as canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def check_config(data: bytes, header: Header, path: str) -> dict[str, Any]:
    """Decode the configuration and check that it agrees with the header.

    Raises:
        StructureError: it is no canonical JSON object or contradicts the header.
    """
    try:
        config: Any = json.loads(data.decode())
        canonical = isinstance(config, dict) and encode_config(config) == data
    except (ValueError, RecursionError) as error:
        raise StructureError(path, "section config", "a JSON object", f"unreadable ({error})") from error
    if not canonical:
        raise StructureError(path, "section config", "a canonical JSON object", "something else")
    if sorted(config) != sorted(CONFIG_KEYS):
        raise StructureError(
            path, "config", f"the keys {', '.join(CONFIG_KEYS)}", f"one with {', '.join(config)}"
        )
    index = config["index"]
    facts = {
        "dim": (config.get("dim"), header.dim),
        "metric": (METRIC_TAGS.get(_text(config.get("metric"))), header.metric),
        "index.kind": (
            INDEX_KIND_TAGS.get(_text(index.get("kind") if isinstance(index, dict) else None)),
            header.index_kind,
        ),
    }
    for name, (said, meant) in facts.items():
        if type(said) is not int or said != meant:
            raise StructureError(path, f"config.{name}", f"what the header says ({meant})", said)
    _check_index_settings(index, path)
    return dict(config)


def _check_index_settings(index: dict[str, Any], path: str) -> None:
    """Check the settings of the index, which a search uses as they are."""
    settings = INDEX_SETTINGS[index["kind"]]
    if index.keys() != {"kind", *settings}:
        expected = f"the keys {', '.join(sorted(settings))}" if settings else "no settings"
        raise StructureError(path, "config.index", expected, f"one with {', '.join(sorted(index))}")
    for name, limits in settings.items():
        value = index[name]
        if value is None and name in NULL_SETTINGS:
            continue
        if limits is None:
            right, expected = type(value) is bool, "true or false"
        else:
            right = type(value) is int and limits[0] <= value <= limits[1]
            expected = f"an integer in {limits[0]}..{limits[1]}"
        if not right:
            raise StructureError(path, f"config.index.{name}", expected, value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
