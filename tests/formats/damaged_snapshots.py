"""Snapshots with one thing wrong that their header, table or checksums give away."""

from __future__ import annotations

from damaged_kinds import Damage, Damaged
from images import SnapshotImage

# --- Snapshot: the file as a whole ----------------------------------------------------------------


def cut(size: int) -> Damage:
    def damage(image: SnapshotImage) -> None:
        del image.data[size:]

    return damage


def append(data: bytes) -> Damage:
    def damage(image: SnapshotImage) -> None:
        image.data += data

    return damage


def replace(data: bytes) -> Damage:
    def damage(image: SnapshotImage) -> None:
        image.data[:] = data

    return damage


def put(offset: int, data: bytes) -> Damage:
    return lambda image: image.put(offset, data)


FILE = [
    Damaged("empty-file", "No bytes.", "NotADatabaseError", "open", "not a database", cut(0)),
    Damaged(
        "text-file",
        "A text.",
        "NotADatabaseError",
        "open",
        "not a database",
        replace(b"not a database\n" * 9),
    ),
    Damaged("magic", "One letter of the magic.", "NotADatabaseError", "open", "not a database", put(0, b"J")),
    Damaged(
        "magic-only", "The magic, and no version.", "NotADatabaseError", "open", "not a database", cut(8)
    ),
    Damaged("version-1", "Version 1.", "LegacyDamagedError", "open", "version", put(8, b"\1")),
    Damaged("version-2", "Version 2.", "LegacyDamagedError", "open", "version", put(8, b"\2")),
    Damaged("version-4", "Version 4.", "UnsupportedVersionError", "open", "version", put(8, b"\4")),
    Damaged("cut-12", "Magic and version only.", "TruncatedError", "open", "truncated", cut(12)),
    Damaged("cut-4095", "One byte less than the header.", "TruncatedError", "open", "truncated", cut(4095)),
    Damaged("cut-4096", "The header only.", "TruncatedError", "open", "truncated", cut(4096)),
    Damaged("cut-in-section", "Cut in the middle.", "TruncatedError", "open", "truncated", cut(9000)),
    Damaged("cut-last-byte", "The last byte is missing.", "TruncatedError", "open", "truncated", cut(-1)),
    Damaged("one-byte-more", "A byte behind the end.", "TruncatedError", "open", "truncated", append(b"\0")),
    Damaged(
        "page-more",
        "A page of zeros behind the end.",
        "TruncatedError",
        "open",
        "truncated",
        append(bytes(4096)),
    ),
]

# --- Snapshot: header -----------------------------------------------------------------------------


def header(field: str, value: int | bytes) -> Damage:
    return lambda image: image.set_header(**{field: value})


def structure(name: str, says: str, damage: Damage, base: str = "plain") -> Damaged:
    return Damaged(name, says, "StructureError", "open", "structure", damage, base=base)


def flip(offset: int, bit: int = 3) -> Damage:
    return lambda image: image.flip(offset, bit)


HEADER = [
    Damaged("header-bit", "A bit of the header.", "ChecksumError", "open", "checksum", flip(90)),
    Damaged(
        "header-reserved-bit", "A bit of a reserved byte.", "ChecksumError", "open", "checksum", flip(2000)
    ),
    Damaged("header-crc-bit", "A bit of header_crc.", "ChecksumError", "open", "checksum", flip(4093)),
    structure("header-bytes", "header_bytes is 8192.", header("header_bytes", 8192)),
    Damaged(
        "file-bytes-less",
        "file_bytes is too small.",
        "TruncatedError",
        "open",
        "truncated",
        header("file_bytes", 9),
    ),
    Damaged(
        "file-bytes-huge",
        "file_bytes is 2^63.",
        "TruncatedError",
        "open",
        "truncated",
        header("file_bytes", 2**63),
    ),
    Damaged(
        "feature-incompat",
        "An unknown bit of feature_incompat.",
        "UnsupportedFeatureError",
        "open",
        "feature",
        header("feature_incompat", 1 << 5),
    ),
    Damaged(
        "database-id",
        "Another database id: every block is misplaced.",
        "ChecksumError",
        "open",
        "checksum",
        header("database_id", bytes(16)),
    ),
    structure(
        "section-table-offset",
        "section_table_offset is a page too low.",
        header("section_table_offset", 4096),
    ),
    structure("section-count-none", "section_count is 0.", header("section_count", 0)),
    structure("section-count-huge", "section_count is 2^32 - 1.", header("section_count", 2**32 - 1)),
    Damaged(
        "section-table-crc",
        "section_table_crc.",
        "ChecksumError",
        "open",
        "checksum",
        header("section_table_crc", 7),
    ),
    structure("n-rows-more", "n_rows is one more than the rows.", header("n_rows", 4)),
    structure("n-rows-huge", "n_rows is 2^64 - 1.", header("n_rows", 2**64 - 1)),
    structure("dim-zero", "dim is 0.", header("dim", 0)),
    structure("dim-other", "dim is not that of the vectors.", header("dim", 3)),
    structure("dim-huge", "dim is 2^32 - 1.", header("dim", 2**32 - 1)),
    structure("metric-unknown", "metric is 5.", header("metric", 5)),
    structure("metric-not-config", "metric is not that of config.", header("metric", 2)),
    structure("index-kind-unknown", "index_kind is 3.", header("index_kind", 3)),
    structure("index-kind-not-config", "index_kind is not that of config.", header("index_kind", 1)),
    structure("id-encoding-unknown", "id_encoding is 2.", header("id_encoding", 2)),
    structure(
        "id-encoding-other", "id_encoding is 1, the sections are those of 0.", header("id_encoding", 1)
    ),
    structure("block-log2", "block_log2 is 13.", header("block_log2", 13)),
    Damaged(
        "content-digest",
        "Another content digest.",
        "",
        "never",
        "checksum",
        header("content_digest", bytes(16)),
    ),
    structure(
        "header-reserved",
        "A reserved byte, under a right checksum.",
        lambda image: image.set_header_byte(3000, 1),
    ),
]

# --- Snapshot: section table ----------------------------------------------------------------------


def entry(section: str, **fields: int | str) -> Damage:
    return lambda image: image.set_entry(section, **fields)


def exchange(image: SnapshotImage) -> None:
    image.set_entry("meta.rows", name="x")
    image.set_entry("meta.groups", name="meta.rows")
    image.set_entry("x", name="meta.groups")


TABLE = [
    Damaged(
        "table-bit", "A bit of the section table.", "ChecksumError", "open", "checksum", lambda i: i.flip(-50)
    ),
    structure("section-unknown", "An unknown section that is not derived.", entry("ids", name="secret")),
    structure(
        "section-missing", "The ids are named as a derived section.", entry("ids", name="idz", flags=1)
    ),
    structure("section-twice", "Two sections have one name.", entry("ids", name="vectors")),
    structure("sections-exchanged", "meta.groups stands before meta.rows.", exchange, base="described"),
    structure("section-name-space", "A blank in a name.", lambda i: i.set_entry_byte("ids", 3, 0x20)),
    structure(
        "section-name-behind",
        "A letter behind the zeros of a name.",
        lambda i: i.set_entry_byte("ids", 20, 65),
    ),
    structure("dtype-unknown", "dtype is 11.", entry("vectors", dtype=11)),
    structure("dtype-other", "The vectors are i32.", entry("vectors", dtype=7)),
    structure("codec-unknown", "codec is 3.", entry("vectors", codec=3)),
    structure("codec-of-config", "config is compressed.", entry("config", codec=1, chunk_bytes=65536)),
    structure("flags-unknown", "An unknown flag.", entry("ids", flags=2)),
    structure("flags-derived", "The vectors are flagged as derived.", entry("vectors", flags=1)),
    structure("ndim", "ndim is 3.", entry("ids", ndim=3)),
    structure("shape1", "ndim is 1 and shape1 is 2.", entry("ids", shape1=2)),
    structure("shape-overflow", "shape0 * shape1 * 4 is 2^64.", entry("vectors", shape0=2**31, shape1=2**31)),
    structure("chunk-bytes-none", "codec none with chunk_bytes.", entry("ids", chunk_bytes=65536)),
    structure("offset-hole", "A hole before a section.", entry("ids", offset=12288)),
    structure("offset-overlap", "Two sections overlap.", entry("ids", offset=4096)),
    structure("stored-bytes", "stored_bytes is not raw_bytes.", entry("ids", stored_bytes=16)),
    structure("stored-bytes-huge", "stored_bytes is 2^64 - 1.", entry("ids", stored_bytes=2**64 - 1)),
    structure("raw-bytes", "raw_bytes is not the product of the shape.", entry("ids", raw_bytes=16)),
    structure("checksums-offset", "checksums_offset is 8 too high.", entry("ids", checksums_offset=99 * 8)),
    structure("table-reserved", "A reserved byte of an entry.", lambda i: i.set_entry_byte("ids", 90, 1)),
    Damaged(
        "checksums-crc",
        "checksums_crc of the ids.",
        "ChecksumError",
        "read",
        "checksum",
        entry("ids", checksums_crc=1),
    ),
]


# --- Snapshot: blocks -----------------------------------------------------------------------------


def flip_in(section: str, offset: int) -> Damage:
    return lambda image: image.flip(image.entry(section).offset + offset)


def bit(name: str, section: str, offset: int, when: str, base: str = "mixed") -> Damaged:
    says = f"A bit of {section}."
    return Damaged(name, says, "ChecksumError", when, "checksum", flip_in(section, offset), base=base)


def flip_checksum(image: SnapshotImage) -> None:
    image.flip(image.entry("vectors").checksums_offset)


def exchange_blocks(image: SnapshotImage) -> None:
    start = image.entry("vectors").offset
    image.data[start : start + 4096], image.data[start + 4096 : start + 8192] = (
        image.data[start + 4096 : start + 8192],
        image.data[start : start + 4096],
    )


def pad_section(image: SnapshotImage) -> None:
    entry = image.entry("ids")
    image.put(entry.offset + entry.stored_bytes + 5, b"!")


def pad_checksums(image: SnapshotImage) -> None:
    image.flip(image.header.section_table_offset - 1)


BLOCKS = [
    bit("vectors-bit", "vectors", 9, "read"),
    bit("vectors-second-block", "vectors", 5000, "read", base="wide"),
    bit("ids-bit", "ids", 9, "read", base="plain"),
    bit("ids-kinds-bit", "ids.kinds", 2, "read"),
    bit("ids-offsets-bit", "ids.offsets", 17, "read"),
    bit("ids-bytes-bit", "ids.bytes", 30, "read"),
    bit("ids-order-bit", "ids.order", 4, "read"),
    bit("meta-rows-bit", "meta.rows", 8, "read", base="described"),
    bit("meta-groups-bit", "meta.groups", 8, "read", base="described"),
    bit("meta-data-bit", "meta.data", 200, "read", base="described"),
    bit("config-bit", "config", 10, "open"),
    bit("compressed-bit", "vectors", 10, "read", base="lz4"),
    Damaged("checksums-bit", "A bit of a checksum.", "ChecksumError", "read", "checksum", flip_checksum),
    Damaged(
        "blocks-exchanged", "Two blocks of the vectors are exchanged.", "ChecksumError", "read", "checksum",
        exchange_blocks, base="wide",
    ),
    Damaged("padding", "A byte between two sections.", "", "never", "structure", pad_section),
    Damaged("padding-checksums", "A byte behind the checksums.", "", "never", "structure", pad_checksums),
]  # fmt: skip
