"""Golden files with one thing wrong in an index section: by a fault, or as a dishonest writer would have it.

Written by generate_damaged_index, checked by test_damaged_index. Whatever is wrong, all records can be read
and exact search works; but with right checksums over wrong codes or bounds it may find less.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from damaged_kinds import Damage
from damaged_snapshots import flip_in
from images import SnapshotImage


def f32(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def f64(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def i32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}i", *values)


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


NAN, INFINITY = float("nan"), float("inf")
NONE = 0xFFFFFFFF


@dataclass(frozen=True)
class DamagedIndex:
    """One golden file with a damaged index.

    Attributes:
        name: of its JSON file.
        base: the golden file.
        says: what is wrong.
        error: the class of the error that searches through the index give; "" when they need not notice.
        strict: what a reader that checks everything calls it: a kind of independent_reader.FormatError.
        damage: what is done to the file.
    """

    name: str
    base: str
    says: str
    error: str
    strict: str
    damage: Damage


# --- What is done to a section, under right checksums ---------------------------------------------


def write(section: str, offset: int, data: bytes) -> Damage:
    return lambda image: image.write(section, offset, data)


def rename(section: str) -> Damage:
    """Leave a section out, as far as a reader can tell."""
    return lambda image: image.set_entry(section, name=f"{section[:-1]}~")


def shape(section: str, shape0: int, shape1: int | None = None) -> Damage:
    """Give a section another shape with as many items, or fewer."""

    def damage(image: SnapshotImage) -> None:
        entry = image.entry(section)
        width = entry.raw_bytes // (entry.shape0 * entry.shape1)
        size = shape0 * (shape1 or 1) * width
        assert size <= entry.raw_bytes
        image.put(entry.offset + size, bytes(entry.raw_bytes - size))
        sizes: dict[str, Any] = {"raw_bytes": size, "stored_bytes": size}
        image.set_entry(section, ndim=2 if shape1 else 1, shape0=shape0, shape1=shape1 or 1, **sizes)
        image.seal_section(section)

    return damage


def dtype(section: str, tag: int) -> Damage:
    return lambda image: image.set_entry(section, dtype=tag)


def links_of(node: int, *neighbours: int) -> Damage:
    return write("hnsw.links", 4 * 8 * node, u32(*neighbours))


def exchange_lists(image: SnapshotImage) -> None:
    """Exchange the first rows of the first and the last list, with all that stands in their order."""
    last = struct.unpack_from("<Q", image.stored("ivf.offsets"), 8 * 3)[0]
    for name in ("ivf.rows", "ivf.codes", "ivf.lengths", "ivf.norms"):
        entry = image.entry(name)
        width = entry.raw_bytes // 40
        stored = image.stored(name)
        image.write(name, 0, stored[width * last : width * (last + 1)])
        image.write(name, width * last, stored[:width])


def rows_descend(image: SnapshotImage) -> None:
    stored = image.stored("ivf.rows")
    image.write("ivf.rows", 0, stored[4:8] + stored[:4])


def drop_block(image: SnapshotImage) -> None:
    entry = image.entry("ivf.pq_codes")
    shape("ivf.pq_codes", entry.shape0 - 1, entry.shape1)(image)


def code_behind_list(image: SnapshotImage) -> None:
    first = struct.unpack_from("<Q", image.stored("ivf.offsets"), 8)[0]
    assert 0 < first < 32
    image.write("ivf.pq_codes", 31, b"\x03")


def code_of_no_part(image: SnapshotImage) -> None:
    at = 32 * 16
    image.write("ivf.pq_codes", at, bytes([image.stored("ivf.pq_codes")[at] | 0x30]))


def as_product(image: SnapshotImage) -> None:
    image.set_entry("ivf.codes", name="ivf.pq_codes")
    image.set_entry("ivf.lengths", name="ivf.pq_books", dtype=9)
    image.seal_section("ivf.pq_codes")
    image.seal_section("ivf.pq_books")


# --- Cases ----------------------------------------------------------------------------------------


BASES = {
    "hnsw": "hnsw-dot",
    "coarse": "hnsw-coarse",
    "ivf": "ivf-dot",
    "unit": "ivf-cosine",
    "pq": "ivf-pq-euclidean",
    "halves": "ivf-pq-manhattan",
}


def bit(base: str, section: str, error: str = "ChecksumError") -> DamagedIndex:
    """A fault that a checksum gives away, at the first use of the block."""
    name = f"{base}-{section.partition('.')[2].replace('_', '-')}-bit"
    return DamagedIndex(name, BASES[base], f"A bit of {section}.", error, "checksum", flip_in(section, 2))


def refused(name: str, says: str, damage: Damage) -> DamagedIndex:
    """A search through the index must refuse it."""
    return DamagedIndex(name, BASES[name.partition("-")[0]], says, "StructureError", "structure", damage)


def passed(name: str, says: str, damage: Damage) -> DamagedIndex:
    """A search need not notice: it passes over what is wrong, or finds less."""
    return DamagedIndex(name, BASES[name.partition("-")[0]], says, "", "structure", damage)


GRAPH = [
    *(bit("hnsw", f"hnsw.{name}") for name in ("model", "codes", "lengths", "norms", "links", "entries")),
    bit("hnsw", "hnsw.bounds", error=""),
    bit("coarse", "hnsw.coarse"),
    bit("coarse", "hnsw.coarse-lengths"),
    bit("coarse", "hnsw.codes"),
    passed("hnsw-model-missing", "There is no hnsw.model.", rename("hnsw.model")),
    passed("hnsw-links-missing", "There is no hnsw.links.", rename("hnsw.links")),
    passed("hnsw-norms-missing", "There are no norms, though the metric is dot.", rename("hnsw.norms")),
    passed("coarse-lengths-missing", "hnsw.coarse without its lengths.", rename("hnsw.coarse-lengths")),
    refused("hnsw-model-dtype", "hnsw.model is u64.", dtype("hnsw.model", 4)),
    refused("hnsw-model-short", "hnsw.model has a mean too few.", shape("hnsw.model", 42)),
    refused("hnsw-model-head", "hnsw.model is shorter than its head.", shape("hnsw.model", 2)),
    refused("hnsw-model-nan", "A mean is NaN.", write("hnsw.model", 24, f64(NAN))),
    refused("hnsw-model-scale", "The scale is 0.", write("hnsw.model", 8, f64(0.0))),
    refused("hnsw-model-norm-unit", "The norm unit is negative.", write("hnsw.model", 16, f64(-1.0))),
    refused("hnsw-model-mean-huge", "A mean is greater than any f32.", write("hnsw.model", 24, f64(1e300))),
    passed("hnsw-model-scale-huge", "The scale is nearly infinite.", write("hnsw.model", 8, f64(1.7e308))),
    passed("hnsw-model-unit", "u is 0 under the metric dot.", write("hnsw.model", 0, f64(0.0))),
    passed("hnsw-codes-dtype", "hnsw.codes are i8.", dtype("hnsw.codes", 5)),
    refused("hnsw-codes-rows", "Codes of half of the rows.", shape("hnsw.codes", 20, 64)),
    refused("hnsw-codes-stride", "Codes are twice as wide.", shape("hnsw.codes", 20, 128)),
    passed("hnsw-codes-wrong", "A code is not that of its row.", write("hnsw.codes", 64 * 3, b"\x7f" * 5)),
    passed("hnsw-codes-beyond", "Codes of more than seven bits.", write("hnsw.codes", 0, b"\xff" * 64 * 40)),
    refused("hnsw-lengths-dtype", "hnsw.lengths are f32.", dtype("hnsw.lengths", 9)),
    refused("hnsw-lengths-rows", "A length too few.", shape("hnsw.lengths", 39)),
    passed("hnsw-lengths-wrong", "A length is not that of its code.", write("hnsw.lengths", 8, i32(7))),
    passed("hnsw-lengths-least", "Lengths of -2^31.", write("hnsw.lengths", 0, i32(*[-(2**31)] * 40))),
    refused("hnsw-norms-rows", "A norm too few.", shape("hnsw.norms", 39)),
    passed("hnsw-norms-nan", "A norm is NaN.", write("hnsw.norms", 4, f32(NAN))),
    passed("hnsw-norms-infinite", "A norm is infinite.", write("hnsw.norms", 4, f32(INFINITY))),
    passed("hnsw-norms-negative", "A norm is negative.", write("hnsw.norms", 4, f32(-1.0))),
    passed("hnsw-bounds-shape", "hnsw.bounds is n x 2.", shape("hnsw.bounds", 40, 2)),
    passed("hnsw-bounds-rows", "Bounds of half of the rows.", shape("hnsw.bounds", 2, 20)),
    passed("hnsw-bounds-nan", "A bound is NaN.", write("hnsw.bounds", 4 * 40, f32(NAN))),
    passed("hnsw-bounds-small", "A bound that its row exceeds.", write("hnsw.bounds", 160, f32(*[0.0] * 40))),
    refused("hnsw-links-rows", "Links of half of the nodes.", shape("hnsw.links", 20, 8)),
    refused("hnsw-links-flat", "hnsw.links has one dimension.", shape("hnsw.links", 40 * 8)),
    passed("hnsw-links-degree", "Links of half the degree.", shape("hnsw.links", 40, 4)),
    passed("hnsw-links-beyond", "A neighbour that there is not.", links_of(3, 40)),
    passed("hnsw-links-huge", "All neighbours are 2^32 - 2.", write("hnsw.links", 0, u32(*[NONE - 1] * 320))),
    passed("hnsw-links-own", "A node is its own neighbour.", links_of(3, 3)),
    passed("hnsw-links-twice", "A node has a neighbour twice.", links_of(3, 5, 5)),
    passed("hnsw-links-gap", "A neighbour behind an empty place.", links_of(3, NONE, 5)),
    refused("hnsw-entries-dtype", "hnsw.entries are i32.", dtype("hnsw.entries", 7)),
    passed("hnsw-entries-beyond", "An entry that there is not.", write("hnsw.entries", 0, u32(40))),
    passed("hnsw-entries-twice", "An entry stands twice.", write("hnsw.entries", 0, u32(5, 5))),
    refused("coarse-rows", "Coarse codes of half of the rows.", shape("hnsw.coarse", 12, 96)),
    refused("coarse-lengths-rows", "A coarse length too few.", shape("hnsw.coarse-lengths", 23)),
    passed("coarse-wrong", "A coarse code is not that of its code.", write("hnsw.coarse", 96, b"\xff" * 96)),
    passed("coarse-lengths-wrong", "A length of 2^31 - 1.", write("hnsw.coarse-lengths", 0, i32(2**31 - 1))),
]  # fmt: skip

LISTS = [
    *(
        bit("ivf", f"ivf.{name}")
        for name in ("model", "centroids", "offsets", "rows", "codes", "lengths", "norms")
    ),
    bit("ivf", "ivf.changes", error=""),
    passed("ivf-rows-missing", "There is no ivf.rows.", rename("ivf.rows")),
    passed("ivf-norms-missing", "There are no norms, though the metric is dot.", rename("ivf.norms")),
    refused("ivf-model-short", "ivf.model has a mean too few.", shape("ivf.model", 42)),
    refused("ivf-model-nan", "A mean is NaN.", write("ivf.model", 24, f64(NAN))),
    refused("ivf-model-scale", "The scale is negative.", write("ivf.model", 8, f64(-1.0))),
    refused("ivf-model-mean-huge", "A mean is greater than any f32.", write("ivf.model", 24, f64(1e300))),
    passed("ivf-model-unit", "u is 0 under the metric dot.", write("ivf.model", 0, f64(0.0))),
    refused("ivf-centroids-dim", "Centroids of one component.", shape("ivf.centroids", 4, 1)),
    refused("ivf-centroids-count", "A centroid too few.", shape("ivf.centroids", 3, 40)),
    passed("ivf-centroids-nan", "A centroid is NaN.", write("ivf.centroids", 0, f32(NAN))),
    passed("ivf-centroids-huge", "A centroid is infinite.", write("ivf.centroids", 0, f32(INFINITY))),
    passed("ivf-centroids-wrong", "Lists of other centroids.", write("ivf.centroids", 0, f32(*[9.0] * 40))),
    refused("ivf-changes-dtype", "ivf.changes is f64.", dtype("ivf.changes", 10)),
    refused("ivf-offsets-short", "An offset too few.", shape("ivf.offsets", 4)),
    refused("ivf-offsets-first", "Offsets begin with 1.", write("ivf.offsets", 0, u64(1))),
    refused("ivf-offsets-last", "Offsets end beyond the rows.", write("ivf.offsets", 32, u64(41))),
    refused("ivf-offsets-descend", "Offsets descend.", write("ivf.offsets", 8, u64(30, 3))),
    refused("ivf-offsets-huge", "An offset of 2^64 - 1.", write("ivf.offsets", 8, u64(2**64 - 1))),
    refused("ivf-rows-short", "A row too few.", shape("ivf.rows", 39)),
    passed("ivf-rows-beyond", "A row that there is not.", write("ivf.rows", 4, u32(40))),
    passed("ivf-rows-huge", "All rows are row 2^32 - 1.", write("ivf.rows", 0, b"\xff" * 160)),
    passed("ivf-rows-twice", "A row stands twice, another nowhere.", write("ivf.rows", 0, u32(7, 7))),
    passed("ivf-rows-descend", "Rows of a list do not ascend.", rows_descend),
    passed("ivf-rows-exchanged", "Rows are in the lists of others.", exchange_lists),
    refused("ivf-codes-rows", "Codes of half of the rows.", shape("ivf.codes", 20, 64)),
    passed("ivf-codes-wrong", "A code is not that of its row.", write("ivf.codes", 64 * 3, b"\x7f" * 5)),
    passed("ivf-codes-beyond", "Codes of more than seven bits.", write("ivf.codes", 0, b"\xff" * 64 * 40)),
    refused("ivf-lengths-rows", "A length too few.", shape("ivf.lengths", 39)),
    passed("ivf-lengths-least", "Lengths of -2^31.", write("ivf.lengths", 0, i32(*[-(2**31)] * 40))),
    refused("ivf-norms-rows", "A norm too few.", shape("ivf.norms", 39)),
    passed("ivf-norms-nan", "A norm is NaN.", write("ivf.norms", 4, f32(NAN))),
]  # fmt: skip

PRODUCT = [
    bit("pq", "ivf.pq_codes"),
    bit("pq", "ivf.pq_terms"),
    bit("pq", "ivf.pq_books"),
    bit("halves", "ivf.pq_codes"),
    passed("pq-books-missing", "There is no ivf.pq_books.", rename("ivf.pq_books")),
    passed("pq-terms-missing", "No terms, though the metric is euclidean.", rename("ivf.pq_terms")),
    refused("pq-books-columns", "A word's width does not divide dim.", shape("ivf.pq_books", 30, 4)),
    refused("pq-books-words", "A word too few.", shape("ivf.pq_books", 149, 2)),
    refused("pq-books-flat", "ivf.pq_books has one dimension.", shape("ivf.pq_books", 150 * 2)),
    passed("pq-books-nan", "A word is NaN.", write("ivf.pq_books", 0, f32(NAN))),
    passed("pq-books-huge", "A word is as large as f32 can be.", write("ivf.pq_books", 0, f32(3e38, 3e38))),
    refused("pq-codes-rows", "Product codes of half of the rows.", shape("ivf.pq_codes", 30, 3)),
    refused("pq-codes-parts", "Product codes of one part.", shape("ivf.pq_codes", 60, 1)),
    passed("pq-codes-beyond", "A word that there is not.", write("ivf.pq_codes", 4, b"\xff")),
    passed("pq-codes-wrong", "Words that are not the nearest.", write("ivf.pq_codes", 0, bytes(180))),
    refused("pq-terms-rows", "A term too few.", shape("ivf.pq_terms", 59)),
    passed("pq-terms-wrong", "A term is not that of its row.", write("ivf.pq_terms", 4, f32(-5.0))),
    passed("pq-terms-nan", "A term is NaN.", write("ivf.pq_terms", 4, f32(NAN))),
    refused("halves-codes-blocks", "A block of half-byte codes too few.", drop_block),
    passed("halves-codes-padding", "A code behind the rows of a list.", code_behind_list),
    passed("halves-codes-part", "A code of a part that there is not.", code_of_no_part),
    passed("halves-codes-wrong", "Words that are not the nearest.", write("ivf.pq_codes", 0, b"\x5a" * 9)),
    refused("unit-product", "Product codes under the metric cosine.", as_product),
]  # fmt: skip

CASES = [*GRAPH, *LISTS, *PRODUCT]
assert len({case.name for case in CASES}) == len(CASES)
