"""Every golden file of 1.x holds what its JSON says; none is touched by being read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from iqdb_core import Error, Iqdb, LegacyFormatError, errors
from iqdb_core.legacy.report import inspect_legacy, verify_legacy
from iqdb_core.legacy_opening import convert

GOLDEN = Path(__file__).parent.parent.parent / "formats" / "golden-1x"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
# Files that 1.x refuses although nothing in them is lost.
READ_HERE = {"damaged-wal-zeros": 41}
# Files that 1.x opens although records that it had acknowledged are missing from what it shows.
HIDDEN_LOSS = {"damaged-wal-midcrc", "made-way-1", "made-way-11", "made-way-16", "made-way-22"}


def test_the_manifest_names_every_file_and_its_bytes() -> None:
    listed = dict(reversed(line.split("  ")) for line in (GOLDEN / "MANIFEST").read_text().splitlines())
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in GOLDEN.iterdir()
        if path.name not in {"MANIFEST", "README.md"}
    }
    assert found == listed
    assert len(NAMES) == 46


def record_id(value: dict[str, str]) -> int | bytes:
    return int(value["u64"]) if "u64" in value else bytes.fromhex(value["bytes"])


def typed(value: Any) -> Any:
    if isinstance(value, float):
        import struct

        return "float", struct.pack(">d", value).hex()
    return type(value).__name__, value


def expected_value(kind: str, text: Any) -> Any:
    if kind == "float":
        return "float", text
    return {"int": lambda: ("int", int(text)), "string": lambda: ("str", text)}.get(
        kind, lambda: typed(text)
    )()


def test_every_golden_file_is_as_1x_says(golden: Any, facts: Any, words: Any) -> None:
    opened = refused = 0
    for name in NAMES:
        said = facts(name)
        path = golden(name)
        before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.parent.glob(f"{name}.*")}
        if name in HIDDEN_LOSS or (said["open"] == "error" and name not in READ_HERE):
            with pytest.raises((errors.DamagedError, errors.NotADatabaseError)):
                Iqdb.open_existing(path, read_only=True)
            refused += 1
        else:
            with Iqdb.open_existing(path, read_only=True) as db:
                check_contents(name, db, said, words)
            opened += 1
        with pytest.raises(Error):
            Iqdb.open_existing(path)
        after = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in path.parent.glob(f"{name}.*")}
        assert after == before, name
    assert (opened, refused) == (32, 14)


def check_contents(name: str, db: Iqdb, said: dict[str, Any], words: Any) -> None:
    assert db.format_version == (1 if name.startswith("v1") else 2)
    assert db.dim == said["dim"]
    assert db.metric.value == said["metric"]
    assert len(db) == READ_HERE.get(name, said.get("n_rows")), name
    if "index" in said:
        index = {k: int(v) if k == "seed" else v for k, v in said["index"].items()}
        assert db.config.index.to_dict() == index, name
    if "rows" in said:
        assert list(db.ids()) == [record_id(row["id"]) for row in said["rows"]], name
        for row in said["rows"]:
            vector, metadata = db.get(record_id(row["id"]))  # type: ignore[misc]
            assert vector.tobytes() == words(row["vector"]).tobytes()
            if row["meta"] is None:
                assert metadata is None
            else:
                found = {key: typed(value) for key, value in (metadata or {}).items()}
                assert metadata is not None
                assert found == {key: expected_value(kind, text) for key, kind, text in row["meta"]}, name
    if said.get("flat_top5") and not name.startswith("extreme-cosine"):
        hits = db.search(words(said["query"]), 5)
        assert [hit.id for hit in hits] == [record_id(hit["id"]) for hit in said["flat_top5"]], name
        for hit, row in zip(hits, said["flat_top5"], strict=True):
            assert hit.distance == pytest.approx(row["distance"], rel=1e-5, abs=1e-6)
    if name.startswith("made"):
        shown = {f"u64:{i}" if isinstance(i, int) else f"hex:{i.hex()}": i for i in db.ids()}
        assert sorted(shown) == sorted(row.split(" ")[0] for row in said["found"])
        for row in said["found"]:
            key, vector, _ = row.split(" ", 2)
            assert db.vector_bytes(shown[key]) == words(vector.split(",")).tobytes()
        hits = [shown[key] for key in said["hits"]]
        # Under hamming most distances are the same, and 1.x orders such hits in its own way.
        if said["metric"] != "hamming":
            assert [hit.id for hit in db.search(words(said["query"]), 5)] == hits, name


def test_extreme_vectors_are_ordered_finitely_where_1x_puts_nan_first(
    golden: Any, facts: Any, words: Any
) -> None:
    said = facts("extreme-cosine-flat")
    with Iqdb.open_existing(golden("extreme-cosine-flat"), read_only=True) as db:
        distances = [hit.distance for hit in db.search(words(said["query"]), 13)]
    assert distances == sorted(distances)
    assert all(0 <= distance <= 2 for distance in distances)


@pytest.mark.parametrize(
    "kind", ["cosine-flat", "cosine-hnsw", "euclidean-ivf", "euclidean-ivfpq", "lz4-cosine-hnsw"]
)
def test_a_converted_database_has_the_same_records_in_order_and_the_same_index(
    tmp_path: Path, golden: Any, kind: str
) -> None:
    old, new = golden(f"{kind}-wal"), tmp_path / "new.iqdb"
    report = convert(old, new)
    with Iqdb.open_existing(old, read_only=True) as before, Iqdb.open_existing(new) as after:
        assert after.format_version == 3
        assert list(after.ids()) == list(before.ids())
        assert after.info()["snapshot_digest"] == before.info()["snapshot_digest"] == report.digest
        assert after.config.index == before.config.index
        assert after.metric is before.metric
        after.upsert(1, [0.5] * 8)
    assert any("compressed" in note for note in report.notes) == kind.startswith("lz4")


def test_a_search_may_be_filtered_and_is_exact_on_every_kind(golden: Any) -> None:
    for kind in ("cosine-flat", "cosine-hnsw", "cosine-ivf"):
        with Iqdb.open_existing(golden(f"{kind}-wal"), read_only=True) as db:
            exact = db.search([1.0] * 8, 41, exact=True)
            found = db.search([1.0] * 8, 41)
            # Metadata with NaN in them are not equal to themselves.
            assert [(hit.id, hit.distance) for hit in found] == [(hit.id, hit.distance) for hit in exact]
            red = db.search([1.0] * 8, 41, filter="tag = 'red'")
            assert [hit.id for hit in red] == [h.id for h in exact if (h.metadata or {}).get("tag") == "red"]
            assert red


def test_opening_one_for_writing_says_how_to_convert_it(golden: Any) -> None:
    path = golden("cosine-hnsw-wal")
    for attempt in (
        lambda: Iqdb.open_existing(path),
        lambda: Iqdb.open(path, 8),
        lambda: Iqdb.open_with(path, Iqdb.open_existing(path, read_only=True).config),
    ):
        with pytest.raises(LegacyFormatError, match=r'can only be read; "iqdb compact .* -o NEW.iqdb"'):
            attempt()
    db = Iqdb.open_existing(path, read_only=True)
    for write in (lambda: db.upsert(1, [1] * 8), lambda: db.delete(7), db.compact, db.optimize):
        with pytest.raises(errors.ReadOnlyError):
            write()


def test_a_reader_sees_what_1x_has_written_since_after_a_refresh(golden: Any) -> None:
    path, newer = golden("cosine-flat-wal"), golden("cosine-flat-snap", "newer")
    with Iqdb.open_existing(path, read_only=True) as db:
        assert len(db) == 41
        assert not db.refresh()
        newer.rename(path)
        Path(f"{newer}.wal").rename(f"{path}.wal")
        assert db.refresh()
        assert len(db) == 39


@pytest.mark.parametrize("name", NAMES)
def test_inspect_accounts_for_every_byte_and_verify_agrees_with_opening(golden: Any, name: str) -> None:
    path = golden(name)
    version = int.from_bytes(path.read_bytes()[8:12], "little")
    if path.read_bytes()[:8] != b"IQDBPRST" or version > 2:
        return
    facts = inspect_legacy(path)
    for file, suffix in (("snapshot", ""), ("log", ".wal")):
        at = 0
        lines = [line for line in facts["ledger"] if line["file"] == file]
        for line in sorted(lines, key=lambda line: line["offset_bytes"]):
            at = max(at, line["offset_bytes"])
        whole = Path(f"{path}{suffix}")
        assert sum(line["bytes"] for line in lines) == (whole.stat().st_size if whole.exists() else 0)
    assert sum(facts["totals"].values()) == facts["file_bytes"] + facts["log_bytes"]
    report = verify_legacy(path)
    try:
        with Iqdb.open_existing(path, read_only=True) as db:
            assert report.ok
            assert facts["counts"]["n_rows"] == len(db)
            assert facts["content_digest_with_log"] == report.content_digest == db.info()["snapshot_digest"]
    except errors.DamagedError:
        assert not report.ok
        assert report.content_digest is None
        assert facts["problems"]


def test_salvaging_reads_every_whole_frame_of_a_damaged_log_and_says_what_was_lost(
    tmp_path: Path, golden: Any
) -> None:
    for name, n_rows, lost in (
        ("made-way-1", 12, "98 bytes of the log from byte 99 on are no frame and were lost"),
        ("made-way-11", 15, "of the log from byte 12 on"),
        ("damaged-wal-midcrc", 40, "of the log from byte 306 on"),
        ("made-way-22", 9, "frame 0 of the log, at byte 12, was left out"),
        ("made-way-2", 8, "all 87 bytes of the log were left out"),
    ):
        new = tmp_path / f"{name}-new.iqdb"
        report = convert(golden(name), new, salvage=True)
        assert report.n_rows == n_rows, name
        assert lost in report.notes[0]
