"""Every offset, size, tag and limit of snapshot format 3 and log format 2, and nothing that does I/O.

The field tables are data: the specification's tables are compared with them by a test, and the
packed forms are derived from them. `encode_`/`decode_` here translate between bytes and fields and
check only what has one right value by itself (magic, reserved bytes); whoever reads a file checks
checksums, ranges and relations. All integers are little-endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple


class Field(NamedTuple):
    """One row of a field table. `type` is u8/u16/u32/u64, `bytes`, `ascii` or `zero` (reserved)."""

    name: str
    offset: int
    size: int
    type: str


_CODES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}


def _packed(fields: tuple[Field, ...]) -> struct.Struct:
    """Derive the packed form of a table. Fields must follow one another without a hole."""
    end = 0
    codes = "<"
    for field in fields:
        assert field.offset == end, f"{field.name} leaves a hole or overlaps"
        codes += _CODES.get(field.type) or f"{field.size}s"
        end = field.offset + field.size
    packed = struct.Struct(codes)
    assert packed.size == end
    return packed


# --- Snapshot: header ---------------------------------------------------------------------------

SNAPSHOT_MAGIC = b"IQDBPRST"
SNAPSHOT_VERSION = 3
HEADER_BYTES = 4096
HEADER_CRC_OFFSET = 4092
BLOCK_LOG2 = 12
BLOCK_BYTES = 1 << BLOCK_LOG2
PAGE_BYTES = 4096
"""Sections, the checksum area and the section table begin at multiples of this."""
DATABASE_ID_BYTES = 16

# No feature bit is defined in this release. An unknown compat bit changes nothing, an unknown
# ro_compat bit forbids writing, an unknown incompat bit forbids reading.
KNOWN_FEATURES_RO_COMPAT = 0
KNOWN_FEATURES_INCOMPAT = 0

HEADER_FIELDS = (
    Field("magic", 0, 8, "bytes"),
    Field("version", 8, 4, "u32"),
    Field("header_bytes", 12, 4, "u32"),
    Field("file_bytes", 16, 8, "u64"),
    Field("feature_compat", 24, 8, "u64"),
    Field("feature_ro_compat", 32, 8, "u64"),
    Field("feature_incompat", 40, 8, "u64"),
    Field("database_id", 48, 16, "bytes"),
    Field("section_table_offset", 64, 8, "u64"),
    Field("section_count", 72, 4, "u32"),
    Field("section_table_crc", 76, 4, "u32"),
    Field("n_rows", 80, 8, "u64"),
    Field("dim", 88, 4, "u32"),
    Field("metric", 92, 1, "u8"),
    Field("index_kind", 93, 1, "u8"),
    Field("id_encoding", 94, 1, "u8"),
    Field("block_log2", 95, 1, "u8"),
    Field("content_digest", 96, 16, "bytes"),
    Field("reserved", 112, 3980, "zero"),
    Field("header_crc", 4092, 4, "u32"),
)


class Header(NamedTuple):
    """The snapshot's header, field by field, without the reserved bytes."""

    magic: bytes
    version: int
    header_bytes: int
    file_bytes: int
    feature_compat: int
    feature_ro_compat: int
    feature_incompat: int
    database_id: bytes
    section_table_offset: int
    section_count: int
    section_table_crc: int
    n_rows: int
    dim: int
    metric: int
    index_kind: int
    id_encoding: int
    block_log2: int
    content_digest: bytes
    header_crc: int

    @property
    def identity(self) -> int:
        """The number by which a log names the snapshot that it extends."""
        return self.section_table_crc << 32 | self.header_crc


METRIC_TAGS = {"cosine": 0, "dot": 1, "euclidean": 2, "manhattan": 3, "hamming": 4}
INDEX_KIND_TAGS = {"flat": 0, "hnsw": 1, "ivf": 2}
ID_ENCODING_U64 = 0
ID_ENCODING_VAR = 1
ID_KIND_INT = 0
ID_KIND_BYTES = 1
ID_KIND_STR = 2

# --- Snapshot: section table --------------------------------------------------------------------

SECTION_ENTRY_BYTES = 96
SECTION_NAME_BYTES = 24

SECTION_FIELDS = (
    Field("name", 0, 24, "ascii"),
    Field("dtype", 24, 1, "u8"),
    Field("codec", 25, 1, "u8"),
    Field("flags", 26, 1, "u8"),
    Field("ndim", 27, 1, "u8"),
    Field("chunk_bytes", 28, 4, "u32"),
    Field("shape0", 32, 8, "u64"),
    Field("shape1", 40, 8, "u64"),
    Field("offset", 48, 8, "u64"),
    Field("stored_bytes", 56, 8, "u64"),
    Field("raw_bytes", 64, 8, "u64"),
    Field("checksums_offset", 72, 8, "u64"),
    Field("checksums_crc", 80, 4, "u32"),
    Field("reserved", 84, 12, "zero"),
)


class SectionEntry(NamedTuple):
    """One entry of the section table, without the reserved bytes. `name` has lost its padding."""

    name: str
    dtype: int
    codec: int
    flags: int
    ndim: int
    chunk_bytes: int
    shape0: int
    shape1: int
    offset: int
    stored_bytes: int
    raw_bytes: int
    checksums_offset: int
    checksums_crc: int


class DType(NamedTuple):
    """An element type: its tag in the file, its name, its size and its code in `memoryview.cast`."""

    tag: int
    name: str
    itemsize: int
    code: str


DTYPES = (
    DType(1, "u8", 1, "B"),
    DType(2, "u16", 2, "H"),
    DType(3, "u32", 4, "I"),
    DType(4, "u64", 8, "Q"),
    DType(5, "i8", 1, "b"),
    DType(6, "i16", 2, "h"),
    DType(7, "i32", 4, "i"),
    DType(8, "i64", 8, "q"),
    DType(9, "f32", 4, "f"),
    DType(10, "f64", 8, "d"),
)
DTYPE_BY_TAG = {dtype.tag: dtype for dtype in DTYPES}
DTYPE_BY_NAME = {dtype.name: dtype for dtype in DTYPES}

CODEC_NONE = 0
CODEC_LZ4 = 1
CODEC_ZSTD = 2
CODEC_NAMES = {CODEC_NONE: "none", CODEC_LZ4: "lz4", CODEC_ZSTD: "zstd"}

FLAG_DERIVED = 1
"""The section can be dropped and rebuilt from the records; a reader that does not know it ignores it."""
KNOWN_FLAGS = FLAG_DERIVED

VECTORS = "vectors"
IDS = "ids"
ID_KINDS = "ids.kinds"
ID_OFFSETS = "ids.offsets"
ID_BYTES = "ids.bytes"
ID_ORDER = "ids.order"
META_ROWS = "meta.rows"
META_GROUPS = "meta.groups"
META_DATA = "meta.data"
CONFIG = "config"

RECORD_SECTIONS = (
    VECTORS,
    IDS,
    ID_KINDS,
    ID_OFFSETS,
    ID_BYTES,
    ID_ORDER,
    META_ROWS,
    META_GROUPS,
    META_DATA,
    CONFIG,
)
"""The sections of the records themselves, in the order in which they stand in a file."""
CONFIG_KEYS = ("compression", "dim", "index", "metric", "provenance")
"""The keys of the JSON object in `config`, no more and no fewer."""
INDEX_SETTINGS: dict[str, dict[str, tuple[int, int] | None]] = {
    "flat": {},
    "hnsw": {
        "m": (2, 512),
        "ef_construction": (1, 65_536),
        "ef_search": (1, 65_536),
        "filter_widen": (1, 1_024),
        "seed": (0, 2**64 - 1),
    },
    "ivf": {
        "n_clusters": (1, 2**24),
        "n_probes": (1, 2**24),
        "training_sample_size": (1, 2**32 - 1),
        "use_pq": None,
        "pq_subvectors": (1, 65_536),
        "pq_refine_factor": (0, 65_536),
        "seed": (0, 2**64 - 1),
    },
}
"""The other keys of `index` by its kind: the least and the greatest integer, or None for a boolean."""
NULL_SETTINGS = frozenset({"pq_subvectors"})
"""Settings that may be null."""
COMPRESSIBLE_SECTIONS = frozenset({VECTORS, IDS, ID_KINDS, ID_OFFSETS, ID_BYTES, META_DATA})

# --- Snapshot: limits ---------------------------------------------------------------------------

MAX_ROWS = 2**32 - 1
MAX_DIM = 65536
MAX_SECTIONS = 4096
MAX_CONFIG_BYTES = 1 << 20
MAX_CHUNK_BYTES = 1 << 20
WRITTEN_CHUNK_BYTES = 1 << 16
"""The chunk size that this release writes. At 64 KiB the shortest zstd frame and its offset still
keep a section below MAX_EXPANSION, so that no input is refused when it is read again."""
MAX_EXPANSION = 4096
"""raw_bytes of a compressed section is at most this many times its stored_bytes."""
GROUP_ROWS = 16384
"""A group of the metadata closes after the row with which it reaches this many rows ..."""
MAX_GROUP_WEIGHT = 16 << 20
"""... or this weight, so that a group stays small whatever its strings are."""
KEY_WEIGHT = 16
"""A row's weight is the sum over its keys of this, the key's bytes and a string value's bytes."""
MAX_RECORD_WEIGHT = 64 << 20

MAX_ID_BYTES = 65535
MAX_KEY_BYTES = 65535
MAX_STRING_BYTES = 16 << 20
MAX_KEYS_PER_RECORD = 4096

# --- Log ----------------------------------------------------------------------------------------

LOG_SUFFIX = ".wal"
LOG_MAGIC = b"IQDBWAL\0"
LOG_VERSION = 2
LOG_HEADER_BYTES = 64
LOG_HEADER_CRC_OFFSET = 60

LOG_HEADER_FIELDS = (
    Field("magic", 0, 8, "bytes"),
    Field("version", 8, 4, "u32"),
    Field("header_bytes", 12, 4, "u32"),
    Field("database_id", 16, 16, "bytes"),
    Field("snapshot_identity", 32, 8, "u64"),
    Field("dim", 40, 4, "u32"),
    Field("reserved", 44, 16, "zero"),
    Field("header_crc", 60, 4, "u32"),
)


class LogHeader(NamedTuple):
    """The log's header, field by field, without the reserved bytes."""

    magic: bytes
    version: int
    header_bytes: int
    database_id: bytes
    snapshot_identity: int
    dim: int
    header_crc: int


FRAME_MARKER = b"IQFR"
FRAME_HEADER_BYTES = 40
FRAME_CRC_OFFSET = 36
FRAME_ALIGNMENT = 8
MAX_FRAME_BYTES = 256 << 20
"""The longest body of a frame."""

FRAME_UPSERT = 1
FRAME_DELETE = 2
FRAME_FOLD = 3
FRAME_TYPES = {FRAME_UPSERT: "upsert", FRAME_DELETE: "delete", FRAME_FOLD: "fold"}

FRAME_FIELDS = (
    Field("marker", 0, 4, "bytes"),
    Field("body_bytes", 4, 4, "u32"),
    Field("sequence", 8, 8, "u64"),
    Field("settled_bytes", 16, 8, "u64"),
    Field("previous_crc", 24, 4, "u32"),
    Field("type", 28, 1, "u8"),
    Field("reserved", 29, 3, "zero"),
    Field("n_records", 32, 4, "u32"),
    Field("frame_crc", 36, 4, "u32"),
)


class FrameHeader(NamedTuple):
    """A frame's header, field by field, without the reserved bytes."""

    marker: bytes
    body_bytes: int
    sequence: int
    settled_bytes: int
    previous_crc: int
    type: int
    n_records: int
    frame_crc: int


UPSERT_BODY_FIELDS = (
    Field("ids_bytes", 0, 8, "u64"),
    Field("metadata_bytes", 8, 8, "u64"),
)
DELETE_BODY_FIELDS = (
    Field("ids_bytes", 0, 8, "u64"),
    Field("reserved", 8, 8, "zero"),
)
FOLD_BODY_FIELDS = (
    Field("snapshot_identity", 0, 8, "u64"),
    Field("reserved", 8, 8, "zero"),
)
IDS_BLOCK_FIELDS = (
    Field("encoding", 0, 4, "u32"),
    Field("reserved", 4, 4, "zero"),
)

# --- Packed forms -------------------------------------------------------------------------------

_HEADER = _packed(HEADER_FIELDS)
_SECTION = _packed(SECTION_FIELDS)
_LOG_HEADER = _packed(LOG_HEADER_FIELDS)
_FRAME = _packed(FRAME_FIELDS)
assert _HEADER.size == HEADER_BYTES
assert _SECTION.size == SECTION_ENTRY_BYTES
assert _LOG_HEADER.size == LOG_HEADER_BYTES
assert _FRAME.size == FRAME_HEADER_BYTES

_HEADER_ZEROS = bytes(3980)
_SECTION_ZEROS = bytes(12)
_LOG_ZEROS = bytes(16)
_FRAME_ZEROS = bytes(3)


class ReservedError(ValueError):
    """Reserved bytes are not zero, or a name is not padded with zeros alone."""


def encode_header(header: Header) -> bytes:
    """Return the header page. `header_crc` is written as given: see `Header._replace`."""
    return _HEADER.pack(*header[:-1], _HEADER_ZEROS, header.header_crc)


def decode_header(page: bytes) -> Header:
    """Split the 4096 bytes of a header page into its fields.

    Raises:
        ReservedError: the reserved bytes are not zero.
    """
    *fields, reserved, header_crc = _HEADER.unpack(page)
    if reserved != _HEADER_ZEROS:
        raise ReservedError("header.reserved")
    return Header._make((*fields, header_crc))


def encode_section_table(entries: tuple[SectionEntry, ...] | list[SectionEntry]) -> bytes:
    """Return the section table: one 96-byte entry after the other."""
    return b"".join(_SECTION.pack(e.name.encode("ascii"), *e[1:], _SECTION_ZEROS) for e in entries)


def decode_section_table(table: bytes) -> list[SectionEntry]:
    """Split a section table, whose length is a multiple of 96, into its entries.

    Raises:
        ReservedError: reserved bytes are not zero, or a name is empty, not printable ASCII, or
            followed by anything but zeros.
    """
    entries = []
    # Not by an `iter_unpack` that lives on: with one, CPython 3.11 crashed in its garbage collector.
    for number in range(len(table) // SECTION_ENTRY_BYTES):
        padded_name, *fields, reserved = _SECTION.unpack_from(table, number * SECTION_ENTRY_BYTES)
        name = padded_name.rstrip(b"\0")
        if reserved != _SECTION_ZEROS:
            raise ReservedError(f"sections[{number}].reserved")
        if not name or not all(0x21 <= byte <= 0x7E for byte in name):
            raise ReservedError(f"sections[{number}].name")
        entries.append(SectionEntry(name.decode("ascii"), *fields))
    return entries


def encode_section_name(name: str) -> bytes:
    """Return the 24 bytes of a section's name, as they enter its block checksums."""
    return name.encode("ascii").ljust(SECTION_NAME_BYTES, b"\0")


def encode_log_header(header: LogHeader) -> bytes:
    """Return the 64 bytes of a log's header. `header_crc` is written as given."""
    return _LOG_HEADER.pack(*header[:-1], _LOG_ZEROS, header.header_crc)


def decode_log_header(data: bytes) -> LogHeader:
    """Split the 64 bytes of a log's header into its fields.

    Raises:
        ReservedError: the reserved bytes are not zero.
    """
    *fields, reserved, header_crc = _LOG_HEADER.unpack(data)
    if reserved != _LOG_ZEROS:
        raise ReservedError("log_header.reserved")
    return LogHeader._make((*fields, header_crc))


def encode_frame_header(header: FrameHeader) -> bytes:
    """Return the 40 bytes of a frame's header. `frame_crc` is written as given."""
    return _FRAME.pack(*header[:6], _FRAME_ZEROS, header.n_records, header.frame_crc)


def new_frame_header(
    body_bytes: int, sequence: int, settled_bytes: int, previous_crc: int, type_: int, n_records: int
) -> bytes:
    """Return the header of a frame to be written; `frame_crc` is left to `_kernels.encode_frame`."""
    return _FRAME.pack(
        FRAME_MARKER, body_bytes, sequence, settled_bytes, previous_crc, type_, _FRAME_ZEROS, n_records, 0
    )


def decode_frame_header(data: bytes) -> FrameHeader:
    """Split the 40 bytes of a frame's header into its fields.

    Raises:
        ReservedError: the reserved bytes are not zero.
    """
    *fields, reserved, n_records, frame_crc = _FRAME.unpack(data)
    if reserved != _FRAME_ZEROS:
        raise ReservedError("frame.reserved")
    return FrameHeader._make((*fields, n_records, frame_crc))


def padded(size: int, alignment: int = PAGE_BYTES) -> int:
    """Return `size` rounded up to a multiple of `alignment`, a power of two."""
    return (size + alignment - 1) & -alignment
