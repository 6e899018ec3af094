"""Writes formats/damaged: golden-like databases with one thing wrong, and what a reader must say of each.

Run it after adding a case: `python tests/formats/generate_damaged.py`. The case states the class of the
error; the facts that the error carries are taken from the program, and the tests compare them from then on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from damaged_cases import BASES, CASES, Damaged
from generate_golden import files_of
from images import LogPart, SnapshotImage

from iqdb_core import errors
from iqdb_core.database import Iqdb
from iqdb_core.storage.verify import verify_file

DAMAGED = Path(__file__).parents[2] / "formats" / "damaged"
FACTS = (
    *("part", "offset_bytes", "expected_bytes", "found_bytes", "found", "feature_set", "bits"),
    *("frame", "reason", "what"),
)


@cache
def base_files(name: str) -> tuple[bytes, bytes | None]:
    return files_of(BASES[name])


def files_of_damaged(case: Damaged) -> tuple[bytes, bytes | None]:
    """Return the snapshot and the log of a case."""
    snapshot, log = base_files(case.base)
    image = SnapshotImage(snapshot)
    if case.snapshot is not None:
        case.snapshot(image)
    if case.log is not None:
        assert log is not None
        part = LogPart(log, BASES[case.base].database_id)
        case.log(part)
        log = bytes(part.data)
    assert (bytes(image.data), log) != base_files(case.base), f"{case.name} changes nothing"
    return bytes(image.data), log


def read_everything(path: Path) -> None:
    """Use every record in every way: by its id, by search, with its metadata."""
    with Iqdb.open_existing(path, read_only=True) as db:
        ids = list(db.ids())
        for id_ in ids:
            # In a dishonest file a lookup may miss what is there; it must not fail in another way.
            db.get(id_)
        hits = db.search([1.0] * db.dim, len(ids))
        assert len(hits) == len(ids)
        for hit in hits:
            dict(hit.metadata or {})


def stage(path: Path) -> tuple[str, errors.Error | None]:
    """Return at which stage the program refuses a file, and with which error."""
    try:
        Iqdb.open_existing(path, read_only=True).close()
    except errors.Error as error:
        return "open", error
    try:
        read_everything(path)
    except errors.Error as error:
        return "read", error
    return "never", None


def facts_of(error: errors.Error | None) -> dict[str, Any]:
    """Return what an error says about the place and the kind of the fault, as JSON can hold it."""
    facts = {name: getattr(error, name) for name in FACTS if hasattr(error, name)}
    # What was found is a number, or a text that may come from a decompressor and change with its version.
    return {name: fact for name, fact in facts.items() if isinstance(fact, int) or name != "found"}


def expectation(case: Damaged, path: Path) -> dict[str, Any]:
    found, error = stage(path)
    name = type(error).__name__ if error is not None else ""
    result: dict[str, Any] = {
        "says": case.says,
        "error": case.error or None,
        "when": case.when,
        "facts": facts_of(error),
        "strict": case.strict,
        "records_readable": case.when == "never",
    }
    if (found, name) != (case.when, case.error):
        raise AssertionError(
            f"{case.name}: expected {case.error or 'nothing'} at {case.when}, got {name} at {found}: {error}"
        )
    try:
        report = verify_file(path)
    except errors.PersistError as refused:
        result["verify"] = type(refused).__name__
    else:
        result["verify"] = [[finding.part, finding.offset_bytes] for finding in report.findings]
        if report.ok:
            raise AssertionError(f"{case.name}: verification finds nothing")
    return result


def main() -> None:
    """Write all damaged files anew, and remove those of cases that are gone."""
    failures = []
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory)
        names = []
        for case in CASES:
            snapshot, log = files_of_damaged(case)
            path = target / f"{case.name}.iqdb"
            path.write_bytes(snapshot)
            names += [path.name, f"{case.name}.json"]
            if log is not None:
                names.append(f"{path.name}.wal")
                path.with_name(names[-1]).write_bytes(log)
            try:
                text = json.dumps(expectation(case, path), indent=1, ensure_ascii=False)
            except AssertionError as error:
                failures.append(f"{case.name}: {error!r}")
                continue
            path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        if failures:
            raise SystemExit("\n".join(failures))
        (target / "MANIFEST").write_text("".join(f"{name}\n" for name in sorted(names)))
        shutil.rmtree(DAMAGED, ignore_errors=True)
        shutil.copytree(target, DAMAGED)


if __name__ == "__main__":
    main()
