"""What verification says of an index and of records, whose checksums are right or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import FlatConfig, HnswConfig, Iqdb, IqdbConfig, IvfConfig, VerifyReport, verify
from iqdb_core._kernels import crc32c, crc32c_blocks
from iqdb_core.errors import InvalidParameterError
from iqdb_core.storage.layout import (
    HEADER_BYTES,
    HEADER_CRC_OFFSET,
    decode_header,
    decode_section_table,
    encode_header,
    encode_section_table,
)
from iqdb_core.storage.section import block_prefix
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.verification import records

ROWS, DIM = 600, 16
KINDS = {
    "flat": FlatConfig(),
    "hnsw": HnswConfig(m=4, ef_construction=20),
    "hnsw-bits": HnswConfig(m=4, ef_construction=20),
    "ivf": IvfConfig(n_clusters=12),
    "ivf-pq": IvfConfig(n_clusters=6, use_pq=True, pq_subvectors=4),
    "ivf-half": IvfConfig(n_clusters=6, use_pq=True, pq_subvectors=32),
}
Change = Callable[[Any], None]


def make(path: Path, kind: str, metric: str = "euclidean") -> Path:
    dim = 64 if kind == "ivf-half" else DIM
    vectors = np.random.default_rng(5).standard_normal((ROWS, dim), np.float32)
    if kind == "hnsw-bits":
        vectors, metric = np.sign(vectors), "hamming"
    config = IqdbConfig(dim=dim, metric=metric, index=KINDS[kind], database_id=bytes(16))
    with Iqdb.create(path, config) as db:
        db.upsert_many(np.arange(ROWS)[::-1].copy(), vectors, [{"n": row} for row in range(ROWS)])
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("verification")
    return {kind: make(folder / f"{kind}.iqdb", kind).read_bytes() for kind in KINDS}


def sealed(image: bytes, name: str, change: Change) -> bytes:
    """Return the file with one section changed and every checksum computed again."""
    out = bytearray(image)
    header = decode_header(image[:HEADER_BYTES])
    entries = decode_section_table(image[header.section_table_offset :])
    for number, entry in enumerate(entries):
        if entry.name != name:
            continue
        dtypes = {1: "u1", 3: "u4", 4: "u8", 6: "i2", 7: "i4", 9: "f4", 10: "f8"}
        raw = out[entry.offset : entry.offset + entry.stored_bytes]
        array = np.frombuffer(raw, dtypes[entry.dtype])
        change(array.reshape(entry.shape0, entry.shape1) if entry.ndim == 2 else array)
        out[entry.offset : entry.offset + entry.stored_bytes] = raw
        sums = np.zeros(-(-entry.stored_bytes // 4096), np.uint32)
        crc32c_blocks(bytes(raw), block_prefix(header.database_id, name), 0, sums)
        out[entry.checksums_offset : entry.checksums_offset + sums.nbytes] = sums.tobytes()
        entries[number] = entry._replace(checksums_crc=crc32c(sums.tobytes()))
    table = encode_section_table(entries)
    out[header.section_table_offset :] = table
    page = encode_header(header._replace(section_table_crc=crc32c(table)))[:HEADER_CRC_OFFSET]
    out[:HEADER_BYTES] = page + crc32c(page).to_bytes(4, "little")
    return bytes(out)


def altered(
    tmp_path: Path, images: dict[str, bytes], kind: str, name: str, change: Change, **options: Any
) -> VerifyReport:
    path = tmp_path / "a.iqdb"
    path.write_bytes(sealed(images[kind], name, change))
    return verify(path, **options)


def put(place: Any, value: Any) -> Change:
    def change(array: Any) -> None:
        array[place] = value

    return change


def add(place: Any, value: Any) -> Change:
    def change(array: Any) -> None:
        array[place] += value

    return change


def copy(place: Any, source: Any) -> Change:
    def change(array: Any) -> None:
        array[place] = array[source]

    return change


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("level", ["checksums", "structure", "records"])
def test_a_whole_index_of_any_kind_is_whole(
    tmp_path: Path, images: dict[str, bytes], kind: str, level: Any
) -> None:
    report = altered(tmp_path, images, kind, "", lambda _: None, level=level)
    assert report.ok, report.findings
    assert report.notes == []
    assert report.works == ["everything"]
    assert report.level == level
    assert [section.findings for section in report.sections] == [0] * len(report.sections)
    json.dumps(report.to_dict())
    if level == "checksums":
        assert report.index == {}
        return
    assert report.index["kind"] == kind.partition("-")[0]
    if report.index["kind"] == "hnsw":
        assert (report.index["nodes"], report.index["unreachable_nodes"]) == (ROWS, 0)
    if level == "records":
        found = report.records
        assert (found["n_records"], found["found_by_id"]) == (ROWS, ROWS)
        assert (found["n_sampled"], found["found_themselves"]) == (200, 200)
        if kind == "flat":
            assert found["recall_mean"] is None
        else:
            assert 0.3 < found["recall_mean"] <= 1
            assert 0 <= found["recall_worst"] <= found["recall_mean"]


@pytest.mark.parametrize("metric", ["cosine", "dot", "manhattan", "hamming"])
@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_an_index_of_any_metric_that_was_updated_is_whole(tmp_path: Path, kind: str, metric: str) -> None:
    path = make(tmp_path / "a.iqdb", kind, metric)
    with Iqdb.open_existing(path) as db:
        db.delete_many(range(0, 60, 3))
        db.upsert_many([1, 2, 9000], np.random.default_rng(1).standard_normal((3, DIM), np.float32))
    report = verify(path, level="records")
    assert report.ok, report.findings
    assert report.records["found_by_id"] == ROWS - 20 + 1


CHANGES = [
    ("hnsw", "hnsw.links", put((7, 0), 7), "has 1 links that name their own node; the first is of node 7"),
    ("hnsw", "hnsw.links", put((9, 0), ROWS), "name a node that there is not; the first is of node 9"),
    ("hnsw", "hnsw.links", copy((5, 1), (5, 0)), "name a neighbour twice; the first is of node 5"),
    ("hnsw", "hnsw.links", put((3, 0), 0xFFFFFFFF), "stand behind an empty place; the first is of node 3"),
    ("hnsw", "hnsw.entries", put(0, ROWS), f"names node {ROWS} of {ROWS}"),
    ("hnsw", "hnsw.entries", copy(1, 0), "names a node twice"),
    ("hnsw", "hnsw.model", put(1, np.nan), "holds what is no finite number"),
    ("hnsw", "hnsw.model", put(0, 1.0), "begins with 1, expected 0 under this metric"),
    ("hnsw", "hnsw.model", put(1, -1.0), "has the scales -1"),
    ("hnsw", "hnsw.codes", add((44, 3), 1), "is not what the vectors give, for 1 row; the first is row 44"),
    ("hnsw", "hnsw.lengths", add(slice(10, 12), 1), "for 2 rows; the first is row 10"),
    ("hnsw", "hnsw.bounds", put((1, 5), 0.0), "is not what the vectors give, for 1 row; the first is row 5"),
    ("hnsw-bits", "hnsw.bits", add((44, 1), 1), "what the vectors give, for 1 row; the first is row 44"),
    ("hnsw-bits", "hnsw.bits", add((5, 7), 1), "is not what the vectors give, for 1 row; the first is row 5"),
    ("hnsw-bits", "hnsw.links", put((9, 0), ROWS), "name a node that there is not; the first is of node 9"),
    ("hnsw-bits", "hnsw.entries", put(0, ROWS), f"names node {ROWS} of {ROWS}"),
    ("ivf", "ivf.offsets", put(1, ROWS + 1), f"does not ascend from 0 to {ROWS}"),
    ("ivf", "ivf.rows", put(4, ROWS), f"names row {ROWS} of {ROWS}"),
    ("ivf", "ivf.rows", copy(4, 5), "lacks 1 rows"),
    ("ivf", "ivf.centroids", put((0, 0), np.inf), "holds what is no finite number"),
    ("ivf", "ivf.codes", add((8, 0), 1), "is not what the vectors give, for 1 row"),
    ("ivf", "ivf.lengths", add(8, 1), "is not what the vectors give, for 1 row"),
    ("ivf-half", "ivf.pq_books", put((0, 0), np.nan), "no books of vectors"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "change", "problem"), CHANGES)
def test_a_wrong_index_under_right_checksums_is_found(
    tmp_path: Path, images: dict[str, bytes], kind: str, name: str, change: Change, problem: str
) -> None:
    assert altered(tmp_path, images, kind, name, change, level="checksums").ok
    report = altered(tmp_path, images, kind, name, change)
    assert [finding.part for finding in report.findings] == [f"section {name}"]
    assert problem in report.findings[0].problem
    assert report.works[0] == "all records: they are whole, only the index is damaged"
    assert report.works[-1] == "rebuilding the index from the records (optimize)"
    misleads = name in {"hnsw.model", "hnsw.codes", "hnsw.bounds", "hnsw.bits"}
    assert ("exact search (search --exact)" in report.works) != misleads
    # Codes that are wrong may lead exact search astray, so records are not asked for through them.
    asked = altered(tmp_path, images, kind, name, change, level="records").records
    assert bool(asked) != misleads


@pytest.mark.parametrize("row", [0, 1])
def test_bits_that_stand_for_other_values_are_found(
    tmp_path: Path, images: dict[str, bytes], row: int
) -> None:
    report = altered(tmp_path, images, "hnsw-bits", "hnsw.values", put((row, 2), 0.25))
    assert [finding.part for finding in report.findings] == ["section hnsw.bits"]
    assert "is not what the vectors give" in report.findings[0].problem
    assert "exact search (search --exact)" not in report.works


@pytest.mark.parametrize(
    ("kind", "name", "change", "problem"),
    [
        ("ivf-pq", "ivf.pq_codes", put((3, 1), 1), "is not what the vectors give"),
        ("ivf-half", "ivf.pq_codes", put((0, 0), 0x5A), "is not what the vectors give"),
        ("ivf-pq", "ivf.pq_terms", put(3, 1.0), "is not what the vectors give, for 1 row"),
        ("ivf", "ivf.centroids", lambda array: array.__setitem__((0, slice(None)), 100.0), "is not what"),
    ],
)
def test_lists_and_product_codes_are_computed_again_at_level_records(
    tmp_path: Path, images: dict[str, bytes], kind: str, name: str, change: Change, problem: str
) -> None:
    assert altered(tmp_path, images, kind, name, change).ok
    report = altered(tmp_path, images, kind, name, change, level="records")
    part = "section ivf.rows" if name == "ivf.centroids" else f"section {name}"
    assert [finding.part for finding in report.findings] == [part]
    assert problem in report.findings[0].problem


def test_nodes_that_no_path_leads_to_are_counted(tmp_path: Path, images: dict[str, bytes]) -> None:
    def isolate(links: Any) -> None:
        for row in links:
            kept = row[(row != 17) & (row != 23) & (row != 0xFFFFFFFF)]
            row[:] = 0xFFFFFFFF
            row[: len(kept)] = kept

    def leave(entries: Any) -> None:
        entries[np.isin(entries, [17, 23])] = 0

    path = tmp_path / "a.iqdb"
    path.write_bytes(sealed(sealed(images["hnsw"], "hnsw.links", isolate), "hnsw.entries", leave))
    report = verify(path)
    assert report.ok
    assert report.index["unreachable_nodes"] == 2
    assert "2 nodes of the graph cannot be reached from its entries (the first is row 17)" in report.notes[0]


def test_a_damaged_index_leaves_the_records_whole(tmp_path: Path, images: dict[str, bytes]) -> None:
    path = tmp_path / "a.iqdb"
    image = bytearray(images["hnsw"])
    table = decode_section_table(image[decode_header(bytes(image[:4096])).section_table_offset :])
    links = next(entry for entry in table if entry.name == "hnsw.links")
    image[links.offset + 77] ^= 4
    path.write_bytes(image)
    report = verify(path, level="records")
    assert [finding.part for finding in report.findings] == ["section hnsw.links: block 0"]
    assert report.works[0] == "all records: they are whole, only the index is damaged"
    assert "exact search (search --exact)" in report.works
    assert (report.records["found_by_id"], report.records["found_themselves"]) == (ROWS, 200)
    assert report.records["recall_mean"] is None
    result = {section.name: section for section in report.sections}["hnsw.links"]
    assert (result.damaged_bytes, result.findings) == (4096, 1)


def test_a_record_that_its_own_vector_does_not_lead_to_is_reported(
    tmp_path: Path, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.iqdb"
    path.write_bytes(images["flat"])
    true_search = records.search
    # A search that forgets every nearest record.
    monkeypatch.setattr(records, "search", lambda *args: [hits[1:] for hits in true_search(*args)])
    report = verify(path, level="records", sample=50)
    assert not report.ok
    assert "for 50 of 50" in report.findings[0].problem


def test_ids_that_lead_to_another_record_are_reported(
    tmp_path: Path, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.iqdb"
    path.write_bytes(images["flat"])
    find_many = Snapshot.find_many

    def find_wrongly(self: Snapshot, ids: Any) -> Any:
        rows = find_many(self, ids)
        rows[3] = rows[4]
        return rows

    monkeypatch.setattr(Snapshot, "find_many", find_wrongly)
    report = verify(path, level="records", sample=0)
    assert not report.ok
    assert report.findings[0].problem == "1 ids lead to another record or none; the first is that of row 3"
    assert report.records["found_by_id"] == ROWS - 1


def test_records_that_are_doubled_or_zero_find_themselves(tmp_path: Path) -> None:
    vectors = np.zeros((40, DIM), np.float32)
    vectors[:20, 0] = 1
    with Iqdb.create(tmp_path / "a.iqdb", IqdbConfig(dim=DIM, metric="cosine")) as db:
        db.upsert_many(range(40), vectors)
    report = verify(tmp_path / "a.iqdb", level="records")
    assert report.ok, report.findings
    assert report.records["found_themselves"] == 40


def test_the_log_is_part_of_what_is_asked_for(tmp_path: Path, images: dict[str, bytes]) -> None:
    path = tmp_path / "a.iqdb"
    path.write_bytes(images["flat"])
    db = Iqdb.open_existing(path)
    db.upsert("new", np.ones(DIM))
    db.close(compact=False)
    report = verify(path, level="records")
    assert report.ok
    assert report.records["n_records"] == ROWS + 1


def test_progress_counts_every_pass_and_ends_complete(tmp_path: Path, images: dict[str, bytes]) -> None:
    for level in ("checksums", "structure", "records"):
        told: list[tuple[int, int]] = []
        path = tmp_path / "a.iqdb"
        path.write_bytes(images["hnsw"])
        verify(path, level=level, progress=lambda done, total, told=told: told.append((done, total)))
        assert told == sorted(told)
        assert told[-1][0] == told[-1][1]


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="level"):
        verify(tmp_path / "a.iqdb", level="everything")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match="sample"):
        verify(tmp_path / "a.iqdb", sample=-1)
