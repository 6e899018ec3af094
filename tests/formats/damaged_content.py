"""Snapshots whose checksums are right and whose content is wrong: what a dishonest writer makes."""

from __future__ import annotations

import struct

from damaged_kinds import Damage, Damaged
from damaged_snapshots import entry
from images import SnapshotImage


def write(section: str, offset: int, data: bytes) -> Damage:
    return lambda image: image.write(section, offset, data)


def dishonest(name: str, says: str, damage: Damage, base: str = "mixed", when: str = "read") -> Damaged:
    return Damaged(
        name, says, "StructureError" if when != "never" else "", when, "structure", damage, base=base
    )


def in_metadata(name: str, says: str, damage: Damage, when: str = "read") -> Damaged:
    return dishonest(name, says, damage, "described", when)


def in_config(old: bytes, new: bytes) -> Damage:
    assert len(old) == len(new)

    def damage(image: SnapshotImage) -> None:
        at = image.stored("config").index(old)
        image.write("config", at, new)

    return damage


def config_order(image: SnapshotImage) -> None:
    dim, kind = b'"dim":2', b'"index":{"kind":"flat"}'
    at = image.stored("config").index(dim)
    image.write("config", at, kind + b"," + dim)


def in_group(old: bytes, new: bytes) -> Damage:
    """Replace bytes of the only metadata group, which occur once."""

    def damage(image: SnapshotImage) -> None:
        blob = image.stored("meta.data")
        assert blob.count(old) == 1
        image.write("meta.data", blob.index(old), new)

    return damage


def column(number: int, offset: int, data: bytes) -> Damage:
    """Write into the entry of a column."""
    return write("meta.data", 16 + 32 * number + offset, data)


def payload(number: int, offset: int, data: bytes) -> Damage:
    """Write into the payload of a column."""

    def damage(image: SnapshotImage) -> None:
        start = struct.unpack_from("<I", image.stored("meta.data"), 16 + 32 * number + 16)[0]
        image.write("meta.data", start + offset, data)

    return damage


def chunk_offset(number: int, value: int) -> Damage:
    def damage(image: SnapshotImage) -> None:
        stored = image.stored("vectors")
        image.write("vectors", len(stored) - 16 + 8 * number, struct.pack("<Q", value))

    return damage


U64 = struct.Struct("<Q").pack
U32 = struct.Struct("<I").pack


def last_code(image: SnapshotImage, code: bytes) -> None:
    """Change the first code of the dictionary of the column `word`, the last payload of the group."""
    blob = image.stored("meta.data")
    start, length = struct.unpack_from("<II", blob, 16 + 32 * 2 + 16)
    count = struct.unpack_from("<I", blob, 16 + 32 * 2 + 8)[0]
    image.write("meta.data", start + length - -(-2 * count // 8) * 8, code)


def expand(image: SnapshotImage) -> None:
    rows = 2**30
    image.set_header(n_rows=rows)
    entry = image.entry("vectors")
    image.set_entry("vectors", shape0=rows, raw_bytes=rows * entry.shape1 * 4)


def zstd_size(image: SnapshotImage) -> None:
    # The frame header's content size: two bytes behind magic and descriptor, less 256.
    stored = image.stored("vectors")
    assert stored[4] >> 6 == 1
    at = 5 if stored[4] & 0x20 else 6
    size = struct.unpack_from("<H", stored, at)[0]
    image.write("vectors", at, struct.pack("<H", size - 1))


def chunk_padding(image: SnapshotImage) -> None:
    stored = image.stored("vectors")
    end = struct.unpack_from("<Q", stored, len(stored) - 8)[0]
    assert end % 8, "the chunk ends at a multiple of 8: there is no padding to spoil"
    image.write("vectors", end, b"\1")


# The columns of "described" are n (int64), text (string, plain) and word (string, dictionary).
CONTENT = [
    dishonest(
        "vector-nan",
        "A component is NaN.",
        write("vectors", 8, struct.pack("<f", float("nan"))),
        when="never",
    ),
    dishonest(
        "vector-infinite", "A component is infinite.", write("vectors", 0, U32(0x7F800000)), when="never"
    ),
    dishonest(
        "ids-not-ascending",
        "Ids do not ascend, and there is no ids.order.",
        write("ids", 0, U64(9)),
        "plain",
        "never",
    ),
    dishonest("ids-twice", "Two records have one id.", write("ids", 8, U64(3)), "unordered", "never"),
    dishonest(
        "order-range", "ids.order names a row that is not there.", write("ids.order", 0, U32(3)), "unordered"
    ),
    dishonest(
        "order-wrong",
        "ids.order is in another order.",
        write("ids.order", 0, U32(0) + U32(1)),
        "unordered",
        "never",
    ),
    dishonest("id-kind", "An id has kind 3.", write("ids.kinds", 1, b"\3")),
    dishonest("id-int-short", "An id of kind int has one byte.", write("ids.kinds", 0, b"\0")),
    dishonest("id-not-utf8", "A text id is not UTF-8.", write("ids.bytes", 0, b"\xff")),
    dishonest("id-empty", "An id has no bytes.", write("ids.offsets", 8, U64(0))),
    dishonest("id-offsets-descend", "ids.offsets descends.", write("ids.offsets", 16, U64(1) + U64(0))),
    dishonest("id-offsets-beyond", "ids.offsets leaves ids.bytes.", write("ids.offsets", 8, U64(2**40))),
    in_metadata("meta-rows-descend", "meta.rows does not end with n_rows.", write("meta.rows", 8, U64(5))),
    in_metadata("meta-groups-beyond", "meta.groups leaves meta.data.", write("meta.groups", 8, U64(2**33))),
    in_metadata("group-n-rows", "A group has another number of rows.", write("meta.data", 0, U32(2))),
    in_metadata("group-n-rows-huge", "A group has 2^32 - 1 rows.", write("meta.data", 0, U32(2**32 - 1))),
    in_metadata(
        "group-n-columns-huge", "A group has 2^32 - 1 columns.", write("meta.data", 4, U32(2**32 - 1))
    ),
    in_metadata("group-has-metadata", "has_metadata is 3.", write("meta.data", 8, b"\3")),
    in_metadata("group-reserved", "A reserved byte of a group.", write("meta.data", 10, b"\1")),
    in_metadata("group-blob-bytes", "blob_bytes is not the group's length.", write("meta.data", 12, U32(64))),
    in_metadata("column-key-offset", "A key begins elsewhere.", column(1, 0, U32(16))),
    in_metadata("column-type", "A column has type 6.", column(0, 6, b"\6")),
    in_metadata("column-presence", "A column has the presence of another.", column(0, 7, b"\0")),
    in_metadata("column-count", "A column counts more values than rows.", column(0, 8, U32(99))),
    in_metadata("column-encoding", "A column of integers has a dictionary.", column(0, 12, b"\1")),
    in_metadata("column-data-offset", "A payload begins elsewhere.", column(1, 16, U32(8))),
    in_metadata("column-data-bytes", "A payload reaches beyond the group.", column(2, 20, U32(2**32 - 8))),
    in_metadata("column-keys-order", "Keys do not ascend.", in_group(b"ntextword", b"ztextword")),
    in_metadata("column-key-not-utf8", "A key is not UTF-8.", in_group(b"ntextword", b"ntextwor\xff")),
    in_metadata("presence-count", "A bitmap has more bits than values.", payload(0, 0, b"\xff")),
    in_metadata("presence-no-mapping", "A value in a row without a mapping.", payload(0, 0, b"\xfb")),
    in_metadata("string-offsets", "Offsets of strings descend.", payload(1, 8 + 4, U32(99) + U32(0))),
    in_metadata("string-not-utf8", "A value is not UTF-8.", in_group(b"text 0", b"text\xff0")),
    in_metadata(
        "dictionary-entries", "A dictionary has more entries than values.", payload(2, 8, U32(2**31))
    ),
    in_metadata(
        "dictionary-order",
        "Entries of a dictionary do not ascend.",
        in_group(b"w0w1w2", b"w1w0w2"),
        when="never",
    ),
    in_metadata("dictionary-code", "A code names no entry.", lambda image: last_code(image, b"\x09\x00")),
    dishonest("config-not-json", "config is not JSON.", in_config(b"{", b"["), "plain", "open"),
    dishonest("config-dim", "config has another dim.", in_config(b'"dim":2', b'"dim":7'), "plain", "open"),
    dishonest(
        "config-metric", "config has another metric.", in_config(b'"cosine"', b'"cosinu"'), "plain", "open"
    ),
    dishonest("config-index", "config has another index.", in_config(b'"flat"', b'"hnsw"'), "plain", "open"),
    dishonest(
        "config-key",
        "config has an unknown key.",
        in_config(b'"provenance"', b'"provenancf"'),
        "plain",
        "open",
    ),
    dishonest("config-order", "The keys of config do not ascend.", config_order, "plain", "open"),
    dishonest(
        "chunk-bytes",
        "chunk_bytes is more than 2^20.",
        entry("vectors", chunk_bytes=2**20 + 1),
        "lz4",
        "open",
    ),
    dishonest("chunk-expansion", "Few bytes stand for many.", expand, "lz4", "open"),
    dishonest("chunk-offset-first", "chunk_offsets[0] is 8.", chunk_offset(0, 8), "lz4"),
    dishonest("chunk-offset-beyond", "A chunk ends behind the section.", chunk_offset(1, 2**40), "lz4"),
    dishonest("chunk-offset-hole", "A hole behind the last chunk.", chunk_offset(1, 8), "lz4"),
    dishonest("chunk-lz4", "A chunk that is no LZ4 block.", write("vectors", 0, b"\xff" * 9), "lz4"),
    dishonest("chunk-zstd-size", "A frame states another size.", zstd_size, "zstd"),
    dishonest("chunk-zstd", "A chunk that is no Zstandard frame.", write("vectors", 0, bytes(4)), "zstd"),
    dishonest("chunk-padding", "A byte behind the chunks.", chunk_padding, "zstd", "never"),
]
