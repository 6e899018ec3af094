"""Writes formats/damaged-index: golden files with a damaged index, and what a reader must say of each.

Run it after adding a case: `python tests/formats/generate_damaged_index.py`. A file is a golden file with
some bytes changed, so only these are stored. The case states the class of the error; the rest is taken from
the program, and the tests compare it from then on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import numpy as np
from damaged_index import CASES, DamagedIndex
from generate_damaged import facts_of
from generate_golden import GOLDEN
from images import SnapshotImage

from iqdb_core import errors
from iqdb_core.database import Iqdb
from iqdb_core.index import codes, hnsw, ivf
from iqdb_core.index.check import MISLEADS
from iqdb_core.verification import verify

DAMAGED_INDEX = Path(__file__).parents[2] / "formats" / "damaged-index"
K = 3
FEW = "length < 6"
FILTERS = (None, "pos != 'noun'", FEW)
# Settings under which a search through the index pays however few rows there are.
SMALL: dict[Any, dict[str, int]] = {
    hnsw: {
        "_VISITS_AT_LEAST": 1,
        "_VISITS_PER_EF": 1,
        "_CODED_VISITS_PER_EF": 1,
        "_MATCHING_VISITS_PER_EF": 0,
        "_CODED_MATCHING_VISITS_PER_EF": 0,
    },
    ivf: {"_SCANNED_AT_MOST": 1, "_CODES_PER_VECTOR": 1 << 40},
    codes: {"_PAYS_FROM": 1},
}
Found: TypeAlias = list[list[tuple[Any, float]]]


@contextmanager
def small_databases_use_their_index() -> Iterator[None]:
    with ExitStack() as stack:
        for module, values in SMALL.items():
            stack.enter_context(mock.patch.multiple(module, **values))
        yield


def image_of(case: DamagedIndex) -> bytes:
    """Return the damaged file."""
    before = (GOLDEN / f"{case.base}.iqdb").read_bytes()
    image = SnapshotImage(before)
    case.damage(image)
    assert len(image.data) == len(before)
    assert image.data != before, f"{case.name} changes nothing"
    return bytes(image.data)


def changes(before: bytes, after: bytes) -> list[list[Any]]:
    """Return where bytes differ: offsets, and the new bytes as hexadecimal digits."""
    old, new = np.frombuffer(before, np.uint8), np.frombuffer(after, np.uint8)
    at = np.flatnonzero(old != new)
    runs = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    return [[int(run[0]), after[run[0] : run[-1] + 1].hex()] for run in runs]


def changed(before: bytes, found: list[list[Any]]) -> bytes:
    after = bytearray(before)
    for offset, digits in found:
        data = bytes.fromhex(digits)
        after[offset : offset + len(data)] = data
    return bytes(after)


def records_of(path: Path) -> list[Any]:
    """Return all records, by their ids."""
    with Iqdb.open_existing(path, read_only=True) as db:
        found = []
        for id_ in db.ids():
            record = db.get(id_)
            assert record is not None
            found.append((id_, record[0].tobytes(), record[1]))
        return found


def exact_hits(path: Path) -> Found:
    """Return what exact searches find, by codes where the index has them."""
    found: Found = []
    with Iqdb.open_existing(path, read_only=True) as db, small_databases_use_their_index():
        queries = queries_of(path)
        for condition in FILTERS:
            hits = db.search_batch(queries, K, exact=True, filter=condition)
            found += [[(hit.id, hit.distance) for hit in some] for some in hits]
    return found


@cache
def right(base: str) -> tuple[list[Any], Found]:
    path = GOLDEN / f"{base}.iqdb"
    return records_of(path), exact_hits(path)


def queries_of(path: Path) -> np.ndarray:
    """Return vectors of records, moved a little."""
    with Iqdb.open_existing(path, read_only=True) as db:
        rows = [record[0] for record in map(db.get, db.ids()) if record is not None]
    return np.array(rows[::3], np.float32) + np.float32(0.25)


def search_error(path: Path) -> errors.Error | None:
    """Search through the index in all ways, and return the error, which must be the same each time.

    Where few records match, these may be compared without the index.

    Hits must be in order and have the distances of exact search, whatever the index says.
    """
    queries = queries_of(path)
    breadth = {"ef": K} if "hnsw" in SnapshotImage(path.read_bytes()).stored("config").decode() else {}
    with Iqdb.open_existing(path, read_only=True) as db, small_databases_use_their_index():
        # More hits than there are come from a plain scan.
        every = db.search_batch(queries, len(db), exact=True, max_distance=float("inf"))
        distance = [{hit.id: hit.distance for hit in hits} for hits in every]

    def single(db: Iqdb, condition: str | None) -> list[Any]:
        return [db.search(query, K, filter=condition, **breadth) for query in queries]

    def batch(db: Iqdb, condition: str | None) -> list[Any]:
        return db.search_batch(queries, K, filter=condition, **breadth)

    met: list[errors.Error | None] = []
    for search in (single, batch):
        for condition in FILTERS:
            # Each time anew: what a handle has verified it does not verify again.
            with Iqdb.open_existing(path, read_only=True) as db, small_databases_use_their_index():
                try:
                    for number, hits in enumerate(search(db, condition)):
                        assert len(hits) == K
                        assert [hit.distance for hit in hits] == sorted(hit.distance for hit in hits)
                        for hit in hits:
                            if hit.id in distance[number]:
                                assert hit.distance == distance[number][hit.id]
                    if condition != FEW:
                        met.append(None)
                except errors.Error as error:
                    met.append(error)
    kinds = {(type(error).__name__, str(error)) for error in met}
    assert len(kinds) == 1, f"one search says this, another that: {kinds}"
    return met[0]


def expectation(case: DamagedIndex, path: Path) -> dict[str, Any]:
    """Return the content of the JSON file of a case, but for its changes."""
    records, exact = right(case.base)
    assert records_of(path) == records, "the records are not what they were"
    error = search_error(path)
    if (type(error).__name__ if error else "") != case.error:
        raise AssertionError(f"expected {case.error or 'nothing'}, found {error!r}")
    report = verify(path, level="records")
    assert not report.ok, "verification finds nothing"
    is_exact = exact_hits(path) == exact
    if not is_exact and all(finding.effect != MISLEADS for finding in report.findings):
        raise AssertionError("exact search goes wrong, and verification does not say so")
    return {
        "says": case.says,
        "base": case.base,
        "error": case.error or None,
        "facts": facts_of(error),
        "strict": case.strict,
        "exact_search": is_exact,
        "verify": [[finding.part, finding.offset_bytes] for finding in report.findings],
    }


def main() -> None:
    """Write all cases anew, and remove those that are gone."""
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "out"
        target.mkdir()
        path = Path(directory) / "case.iqdb"
        names = []
        for case in CASES:
            after = image_of(case)
            path.write_bytes(after)
            try:
                content = expectation(case, path)
            except (AssertionError, errors.Error) as error:
                failures.append(f"{case.name}: {error!r}")
                continue
            content["changes"] = changes((GOLDEN / f"{case.base}.iqdb").read_bytes(), after)
            text = json.dumps(content, ensure_ascii=False)
            names.append(f"{case.name}.json")
            (target / names[-1]).write_text(text.replace(', "', ',\n "') + "\n", encoding="utf-8")
        if failures:
            raise SystemExit("\n".join(failures))
        (target / "MANIFEST").write_text("".join(f"{name}\n" for name in sorted(names)))
        shutil.rmtree(DAMAGED_INDEX, ignore_errors=True)
        shutil.copytree(target, DAMAGED_INDEX)


if __name__ == "__main__":
    main()
