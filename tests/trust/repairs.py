"""Damages every part of small databases, repairs them, and compares with what they held.

    python tests/trust/repairs.py [--cases N] [--seed N]

The account of each repair is compared with a model that knows nothing of checksums: which bytes of which
record were changed, and which records the database held after each frame of its log.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from damaged_databases import ROWS, SHAPES, Case, Subject, cases
from workloads import contents

from iqdb_core import Iqdb, repair
from iqdb_core.errors import NotADatabaseError, NotRepairableError, UnsupportedVersionError


@dataclass
class Tally:
    """What was tried and what came out."""

    cases: int = 0
    complete: int = 0
    partial: int = 0
    impossible: int = 0
    records_kept: int = 0
    records_lost: int = 0
    ids_restored: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def check(subject: Subject, case: Case, folder: Path) -> Tally:
    """Repair one damaged database and compare the new one, and the account, with the model.

    Raises:
        AssertionError: something is missing from the account, invented, altered, or lost without need.
    """
    path, output = folder / "damaged.iqdb", folder / "new.iqdb"
    log_path = Path(f"{path}.wal")
    output.unlink(missing_ok=True)
    log_path.unlink(missing_ok=True)
    path.write_bytes(case.image)
    if case.log:
        log_path.write_bytes(case.log)
    try:
        report = repair(path, output, threads=1)
    except (NotRepairableError, NotADatabaseError, UnsupportedVersionError):
        assert case.may_be_impossible
        assert not output.exists()
        return Tally(cases=1, impossible=1)
    finally:
        assert path.read_bytes() == case.image, "the damaged file was changed"
        assert not case.log or log_path.read_bytes() == case.log, "the damaged log was changed"
        assert sorted(item.name for item in folder.glob("*damaged*")) == sorted(
            item.name for item in (path, log_path) if item.exists()
        )
    assert (
        report.snapshot_rows
        == ROWS
        == (
            report.rows_kept
            + report.rows_replaced
            + report.rows_deleted
            + report.rows_lost
            + report.rows_without_ids
            + report.rows_doubled
        )
    )
    lost_rows, bare_rows = _accounted(subject, report)
    want = subject.expected(set(case.lost_frames))
    touched = {item for frame in subject.frames for item in (*frame.deletes, *(u[0] for u in frame.upserts))}
    for row in lost_rows:
        if subject.ids[row] not in touched:
            del want[subject.ids[row]]
    with Iqdb.open_existing(output, read_only=True) as db:
        found = contents(db)
    assert len(found) == report.n_records == len({record_id for record_id, _, _ in found})
    bare = {subject.ids[row] for row in bare_rows}
    have = {}
    for record_id, vector, metadata in found:
        assert record_id in want, f"{record_id!r} was invented"
        assert vector == want[record_id][0], f"the vector of {record_id!r} was altered"
        if record_id in bare:
            assert metadata is None
        else:
            assert _same(metadata, want[record_id][1]), f"the metadata of {record_id!r} were altered"
        have[record_id] = True
    missing = [record_id for record_id in want if record_id not in have]
    assert not missing, f"{missing[:5]!r} are missing without a word"
    if not lost_rows:
        assert list(have) == list(want), "the records stand in another order"
    _check_need(subject, case, report, lost_rows, bare_rows)
    if report.proved:
        assert not lost_rows
    return Tally(
        1, int(report.complete), int(not report.complete), 0, len(found), len(lost_rows), report.ids_restored
    )


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and (
        one is None or list(map(type, one.values())) == [type(other[key]) for key in one]
    )


def _of(report: Any, what: str) -> set[int]:
    return {
        row
        for loss in report.losses
        if loss.what == what
        for row in range(loss.first, loss.first + loss.count)
    }


def _accounted(subject: Subject, report: Any) -> tuple[set[int], set[int]]:
    """Return the rows that the account calls lost, and without metadata; check what it says of them."""
    lost, nameless, bare = (_of(report, what) for what in ("records", "ids", "metadata"))
    assert len(lost) == report.rows_lost
    assert len(nameless) == report.rows_without_ids
    assert len(bare) == report.rows_without_metadata
    assert not lost & nameless
    assert not bare & (lost | nameless)
    for loss in report.losses:
        if loss.what in ("records", "ids", "metadata"):
            assert len(loss.ids) == loss.count
            for row, record_id in enumerate(loss.ids, loss.first):
                assert record_id in (None, subject.ids[row])
            assert loss.ranges, loss
            assert all(start < stop for start, stop in loss.ranges)
    return lost | nameless, bare


def _check_need(subject: Subject, case: Case, report: Any, lost: set[int], bare: set[int]) -> None:
    """Compare what was lost with what the damage can have cost."""
    names = [entry.name for entry in subject.sections]
    if case.section in names:
        rows = subject.rows_of(case.section, case.start, case.stop)
        derived = case.section.partition(".")[0] in ("hnsw", "ivf")
        if derived or case.section in ("ids.order", "meta.rows", "meta.groups", "config"):
            assert not lost
            assert not bare
        elif case.section == "meta.data":
            assert not lost
        elif rows is not None:
            assert lost <= rows
            assert not bare
            touched = {item for frame in subject.frames for item in frame.deletes}
            touched |= {item[0] for frame in subject.frames for item in frame.upserts}
            if case.section == "vectors":
                assert {row for row in rows if subject.ids[row] not in touched} == lost
            else:
                assert len(rows) - report.ids_restored == len(lost)
        assert report.complete == (not lost and not bare and case.section != "config")
    elif case.section in ("header", "table", "end"):
        # Either everything is found again, or the repair says that it cannot be.
        assert not lost
        assert not bare
        assert report.complete
    elif case.section == "log":
        assert not lost
        last = len(subject.frames) - 1
        tail = case.lost_frames == {last} or case.what.startswith("log cut")
        assert report.complete == (not case.lost_frames or tail)


def run(name: str, seed: int, limit: int | None) -> Tally:
    """Try cases of one database; None: all of them."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subject = Subject(name, work)
        tried = cases(subject, seed)
        if limit is not None and limit < len(tried):
            tried = random.Random(seed).sample(tried, limit)
        for case in tried:
            try:
                tally = tally.plus(check(subject, case, work))
            except BaseException as error:
                error.add_note(f"{name}, seed {seed}: {case.what}")
                raise
    return tally


def main() -> int:
    """Try everything, or a sample, and print what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, help="of each database; default all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    total = Tally()
    for name in SHAPES:
        total = total.plus(run(name, options.seed, options.cases))
        print(f"{name}: {total}", file=sys.stderr, flush=True)
    print("| what | figure |\n|---|---|")
    for field in fields(total):
        print(f"| {field.name.replace('_', ' ')} | {getattr(total, field.name):,} |")
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
