"""Golden files are read with exactly what their JSON says: by the independent reader and by the program."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from generate_golden import GOLDEN, batch, files_of, hex_digest, identity, json_record, json_value, typed
from golden_cases import CASES, Case
from independent_index import check_index
from independent_log import Log, read_database
from independent_reader import Record, Snapshot

from iqdb_core.config import FsyncPolicy
from iqdb_core.database import Iqdb
from iqdb_core.digest import batch_digest
from iqdb_core.errors import UnsupportedFeatureError
from iqdb_core.records import Ids
from iqdb_core.storage import layout
from iqdb_core.storage import snapshot as product
from iqdb_core.storage.verify import verify_file
from iqdb_core.storage.wal import LogWriter

NAMES = sorted(path.stem for path in GOLDEN.glob("*.iqdb"))


def expected(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return content


@cache
def independently(name: str) -> tuple[Snapshot, list[Record], Log | None]:
    return read_database(GOLDEN / f"{name}.iqdb")


def plain_header(header: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value.hex() if isinstance(value, bytes) else value for key, value in header.items()}
    return plain | {"magic": header["magic"].decode("ascii")}


def test_no_golden_file_is_missing() -> None:
    names = (GOLDEN / "MANIFEST").read_text().split()

    assert sorted([*names, "MANIFEST"]) == sorted(path.name for path in GOLDEN.iterdir())
    assert {f"{case.name}.iqdb" for case in CASES} == {name for name in names if name.endswith(".iqdb")}


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_written_from_the_pages_reads_a_golden_file(name: str) -> None:
    want = expected(name)
    snapshot, records, log = independently(name)

    assert plain_header(snapshot.header) == want["header"]
    assert f"{snapshot.identity:016x}" == want["identity"]
    assert snapshot.config == want["config"]
    assert snapshot.sections == want["sections"]
    if log is None:
        assert want["log"] is None
    else:
        types = [layout.FRAME_TYPES[type_] for type_ in log.types]
        facts = {"frames": log.frames, "types": types, "torn_bytes": log.torn_bytes, "stale": log.stale}
        assert facts == want["log"]
        assert hex_digest(records) == want["content_digest_with_log"]
    assert len(records) == want["n_records"]
    assert [json_record(item["row"], records[item["row"]]) for item in want["records"]] == want["records"]


INDEXED = [name for name in NAMES if expected(name)["config"]["index"]["kind"] != "flat"]


@pytest.mark.parametrize("name", INDEXED)
def test_a_reader_written_from_the_pages_finds_the_index_that_they_describe(name: str) -> None:
    snapshot, _, _ = independently(name)
    n_sections = check_index((GOLDEN / f"{name}.iqdb").read_bytes(), snapshot)

    assert n_sections == sum(section.startswith(("hnsw.", "ivf.")) for section in expected(name)["sections"])
    assert bool(n_sections) == (name not in {"hnsw-hamming", "ivf-hamming"})


@pytest.mark.parametrize("name", NAMES)
def test_the_program_reads_the_snapshot_of_a_golden_file(name: str) -> None:
    want = expected(name)
    found = product.Snapshot.open(GOLDEN / f"{name}.iqdb")

    header = found.header._asdict()
    assert plain_header(header) == want["header"]
    assert f"{found.identity:016x}" == want["identity"]
    assert found.config == want["config"]
    assert list(found.sections) == want["sections"]
    assert found.digest.hex() == want["content_digest"]
    assert batch_digest(found.slice(0, found.n_rows)).hex() == want["content_digest"]


def json_id(value: object) -> object:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


@pytest.mark.parametrize("name", NAMES)
def test_the_program_finds_the_records_of_a_golden_database(name: str) -> None:
    want = expected(name)
    with Iqdb.open_existing(GOLDEN / f"{name}.iqdb", read_only=True) as db:
        assert len(db) == want["n_records"]
        ids = list(db.ids())
        for item in want["records"]:
            assert json_id(ids[item["row"]]) == item["id"]
            record = db.get(ids[item["row"]])
            assert record is not None
            vector, metadata = record
            assert vector.dtype == np.float32
            bits = struct.unpack(f"<{len(vector)}I", vector.tobytes())
            assert " ".join(f"{word:08x}" for word in bits) == item["vector_f32_bits"]
            typed_metadata = None
            if metadata is not None:
                typed_metadata = {key: json_value(*typed(value)) for key, value in metadata.items()}
            assert typed_metadata == item["metadata"]
        assert db.get("no such id") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_passes_verification(name: str) -> None:
    want = expected(name)
    report = verify_file(GOLDEN / f"{name}.iqdb")

    assert report.findings == []
    assert report.content_digest == want["content_digest"]
    if want["log"] is not None and not want["log"]["stale"]:
        assert report.log_frames == want["log"]["frames"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_writing_a_golden_file_again_gives_the_same_bytes(case: Case, tmp_path: Path) -> None:
    """Holds for compressed files, too, as long as the compressor's version is the one that wrote them."""
    snapshot, log = files_of(case)
    path = GOLDEN / f"{case.name}.iqdb"
    if case.compression == "none" or snapshot == path.read_bytes():
        assert snapshot == path.read_bytes()
        assert log is None or log == path.with_name(f"{path.name}.wal").read_bytes()
        return
    # Another version of the compressor: the content must be the same all the same.
    again = tmp_path / path.name
    again.write_bytes(snapshot)
    written, found = product.Snapshot.open(path), product.Snapshot.open(again)
    assert found.digest == written.digest
    for name, section in written.sections.items():
        assert bytes(found.sections[name].read(0, section.raw_bytes)) == bytes(
            section.read(0, section.raw_bytes)
        )


@pytest.mark.parametrize("case", [c for c in CASES if c.log and not c.ending], ids=lambda case: case.name)
def test_the_log_writer_writes_the_bytes_of_a_golden_log(case: Case, tmp_path: Path) -> None:
    snapshot, log = files_of(case)
    path = str(tmp_path / "db.iqdb.wal")
    writer = LogWriter.create(path, case.database_id, identity(snapshot), case.width, FsyncPolicy.ALWAYS)
    for kind, argument in case.log or []:
        if kind == "upsert":
            records = batch(argument, case.width)
            writer.append_upsert(records.ids, records.vectors, records.metadata)
        elif kind == "delete":
            writer.append_delete(Ids.from_list(argument))
        else:
            writer.append_fold(0x0123456789ABCDEF)
    writer.close()

    assert Path(path).read_bytes() == log


def test_a_file_with_an_unknown_ro_compat_feature_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "db.iqdb"
    path.write_bytes((GOLDEN / "feature-ro-compat.iqdb").read_bytes())

    with pytest.raises(UnsupportedFeatureError, match="ro_compat"):
        Iqdb.open_existing(path)
    assert path.read_bytes() == (GOLDEN / "feature-ro-compat.iqdb").read_bytes()
