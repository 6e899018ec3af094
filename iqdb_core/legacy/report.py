"""Says of a database of iqdb 1.x what it holds, what each byte is for, and what is damaged.

The reports have the shape of those for format 3, so that one program can show both.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

from iqdb_core.digest import batch_digest
from iqdb_core.errors import (
    DamagedError,
    LegacyDamagedError,
    NotRepresentableError,
)
from iqdb_core.legacy import layout
from iqdb_core.legacy.database import LegacyDatabase, read_log, readable
from iqdb_core.legacy.snapshot import LegacySnapshot
from iqdb_core.storage.database_file import open_database_file
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import LOG_SUFFIX
from iqdb_core.storage.verify_report import Finding, VerifyReport

if TYPE_CHECKING:
    import os

    from iqdb_core.legacy.log import LogScan

Facts: TypeAlias = dict[str, Any]

KINDS = ("live", "dead", "index", "structure", "padding", "log", "unknown")
_NOT_OPENED = "the database cannot be opened"
_UNBOUND = (
    "nothing in formats 1 and 2 says which snapshot a log belongs to: that these two belong together cannot "
    "be checked beyond the length of the vectors"
)


class _Examined:
    """Both files, as far as they can be understood."""

    def __init__(self, path: str | os.PathLike[str], files: FileSystem) -> None:
        real = files.resolve(path)
        file = open_database_file(path, real, files)
        try:
            self._examine(file, files)
        finally:
            files.close(file)

    def _examine(self, file: OpenFile, files: FileSystem) -> None:
        self.path = file.path
        self.file_bytes = files.status(file).st_size
        self.snapshot: LegacySnapshot | None = None
        self.snapshot_error: DamagedError | NotRepresentableError | None = None
        self.scan: LogScan | None = None
        self.database: LegacyDatabase | None = None
        self.records_error: DamagedError | NotRepresentableError | None = None
        self.digest: ContentDigest | None = None
        self.log_bytes = 0
        status = files.status_at(file.path + LOG_SUFFIX)
        if status is not None:
            self.log_bytes = status.st_size
        image = memoryview(files.map_read(file, self.file_bytes) if self.file_bytes else b"")
        try:
            self.snapshot = LegacySnapshot(image, file.path)
        except (DamagedError, NotRepresentableError) as error:
            self.snapshot_error = error
            return
        scan, log = read_log(file.path + LOG_SUFFIX, self.snapshot.dim, files)
        self.scan = scan
        if scan is not None:
            self.log_bytes = scan.size
        try:
            self.database = LegacyDatabase(self.snapshot, None if scan is None else readable(scan), log)
            digest = ContentDigest()
            for batch in self.database.batches():
                digest = digest.plus(batch_digest(batch))
            self.digest = digest
        except (DamagedError, NotRepresentableError) as error:
            self.records_error = error

    @property
    def log_problem(self) -> Any:
        """What keeps the log from being read, None when nothing does."""
        return None if self.scan is None else self.scan.problem()


# --- verify -------------------------------------------------------------------------------------


def verify_legacy(
    path: str | os.PathLike[str], *, level: Any = "structure", files: FileSystem = OS_FILES
) -> VerifyReport:
    """Check a database of iqdb 1.x and its log, and say what 1.x itself would have lost without a word.

    Everything is checked at every level: the one checksum of the snapshot covers it all.

    Raises:
        DatabaseNotFoundError: there is no file.
        NotADatabaseError: it is of another kind.
        FileIOError: the system refused.
    """
    found = _Examined(path, files)
    report = VerifyReport(found.path, level)
    report.checked_bytes = report.file_bytes = found.file_bytes + found.log_bytes
    if found.snapshot is None:
        assert found.snapshot_error is not None
        _add(report, found.snapshot_error, found.path, found.file_bytes, _NOT_OPENED)
        report.notes.append("the log was not checked: what it holds depends on the snapshot")
        report.works.append("nothing: no record can be trusted")
        return report
    report.n_rows = found.snapshot.n_rows
    report.whole.append("snapshot: header, checksum and the place of every row")
    if found.records_error is not None:
        _add(report, found.records_error, found.path, found.file_bytes, _NOT_OPENED)
    if found.scan is not None:
        _verify_log(report, found.scan)
        if found.scan.n_frames:
            report.notes.append(_UNBOUND)
    if report.ok:
        assert found.digest is not None
        report.content_digest = found.digest.hex()
        assert found.database is not None
        report.notes += found.database.config()[1]
    elif found.records_error is None:
        report.works.append("everything, of the snapshot alone, once the log is moved away")
    return report


def _verify_log(report: VerifyReport, scan: LogScan) -> None:
    """Add what is wrong with a log, and what of it 1.x would not tell."""
    report.log_frames = scan.n_frames
    findings = report.findings
    if scan.unreadable is not None:
        effect = "none of its frames can be found; 1.x refuses to open the database too"
        findings.append(Finding(scan.path, "log header", 0, scan.size, _problem(scan.unreadable), effect))
        return
    frames = scan.n_frames
    # The bytes of the frames behind each one.
    sizes = (scan.bodies[2 * number + 1] - scan.frame_start(number) for number in range(frames))
    ends = [0, *accumulate(sizes)]
    for start, stop, reason in scan.damage:
        before = scan.frames_before(start)
        behind = ends[-1] - ends[before]
        effect = (
            f"1.x opens the database without a word and drops this and the {frames - before} whole frames "
            f"({behind} bytes) behind it, though they were acknowledged"
        )
        findings.append(Finding(scan.path, f"frame {before}", start, stop - start, reason, effect))
    for number, reason in scan.malformed:
        start = scan.frame_start(number)
        size = scan.bodies[2 * number + 1] - start
        effect = "1.x refuses to open the database, or drops this frame and those behind it"
        findings.append(Finding(scan.path, f"frame {number}", start, size, reason, effect))
    if scan.torn is not None:
        start, stop, reason = scan.torn
        if scan.undecided:
            effect = "too much in it looks like frames to say that none is one"
            findings.append(Finding(scan.path, f"frame {frames}", start, stop - start, reason, effect))
        else:
            report.notes.append(
                f"the log ends in {stop - start} bytes that are no whole frame, at byte {start} ({reason}); "
                "they are left out as an unfinished write. A damaged last frame looks the same"
            )
    if not findings:
        report.whole.append(f"log: {frames} frames")


def _add(report: VerifyReport, error: Any, path: str, size: int, effect: str) -> None:
    at = getattr(error, "offset_bytes", 0)
    where = getattr(error, "path", path)
    part = getattr(error, "part", "file")
    report.findings.append(Finding(where, part, at, max(0, size - at), _problem(error), effect))


def _problem(error: Any) -> str:
    if isinstance(error, (LegacyDamagedError, NotRepresentableError)):
        return f"{error.part} is {error.found}, expected {error.expected}"
    message: str = error.message
    return message


# --- inspect ------------------------------------------------------------------------------------


def inspect_legacy(path: str | os.PathLike[str], files: FileSystem = OS_FILES) -> Facts:
    """Return what a database of iqdb 1.x holds; the keys are those of `storage.inspect.inspect_file`.

    Raises:
        DatabaseNotFoundError: there is no file.
        NotADatabaseError: it is of another kind.
        FileIOError: the system refused.
    """
    found = _Examined(path, files)
    snapshot, database, scan = found.snapshot, found.database, found.scan
    names = (
        "n_rows",
        "snapshot_rows",
        "dead_rows",
        "log_frames",
        "log_upserts",
        "log_deletes",
        "log_torn_bytes",
    )
    counts: dict[str, int | None] = dict.fromkeys(names)
    facts: Facts = {
        "path": found.path,
        "file_bytes": found.file_bytes,
        "log_bytes": found.log_bytes,
        "snapshot_identity": None,
        "content_digest": None,
        "content_digest_with_log": None if found.digest is None else found.digest.hex(),
        "header": None,
        "config": None,
        "counts": counts,
        "log": None,
        "sections": [],
        "problems": [],
    }
    for file, error in (
        ("snapshot", found.snapshot_error),
        ("snapshot", found.records_error),
        ("log", found.log_problem),
    ):
        if error is not None:
            part = getattr(error, "part", "frames" if file == "log" else "file")
            facts["problems"].append({"file": file, "part": part, "problem": _problem(error)})
    ledger: list[Facts] = []

    def add(file: str, part: str, kind: str, offset: int, size: int) -> None:
        if size > 0:
            ledger.append({"file": file, "part": part, "kind": kind, "offset_bytes": offset, "bytes": size})

    if snapshot is None:
        add("snapshot", "everything", "unknown", 0, found.file_bytes)
        add("log", "everything", "unknown", 0, found.log_bytes)
    else:
        header = {"magic": layout.SNAPSHOT_MAGIC.decode(), **snapshot.header._asdict()}
        facts["header"] = header | {"compression": layout.SCHEMES[snapshot.scheme]}
        facts["config"] = _config(snapshot, database)
        counts["snapshot_rows"] = snapshot.n_rows
        _snapshot_ledger(add, snapshot, database, counts)
        if scan is not None:
            _log_facts(add, facts, scan, database)
        else:
            counts |= {"log_frames": 0, "log_upserts": 0, "log_deletes": 0, "log_torn_bytes": 0}
        if database is not None and found.records_error is None and found.log_problem is None:
            counts["n_rows"] = database.n_records
        else:
            facts["content_digest_with_log"] = None
    facts["ledger"] = ledger
    facts["totals"] = {
        f"{kind}_bytes": sum(line["bytes"] for line in ledger if line["kind"] == kind) for kind in KINDS
    }
    return facts


def _config(snapshot: LegacySnapshot, database: LegacyDatabase | None) -> Facts | None:
    if database is None:
        return None
    try:
        stored = database.config()[0].stored_dict()
    except NotRepresentableError:
        return None
    scheme = layout.SCHEMES[snapshot.scheme]
    return {**stored, "compression": scheme}


def _snapshot_ledger(
    add: Any, snapshot: LegacySnapshot, database: LegacyDatabase | None, counts: dict[str, int | None]
) -> None:
    add("snapshot", "header", "structure", 0, snapshot.region_offset)
    at = snapshot.region_offset
    dead_rows = dead_bytes = 0
    if database is not None and database.order is not None:
        living = {place for place in database.order if place >= 0}
        for row in range(snapshot.n_rows):
            if snapshot.row_start(row) not in living:
                dead_rows += 1
                dead_bytes += snapshot.row_bytes(row)
    counts["dead_rows"] = dead_rows
    if snapshot.payload_offset is None:
        add("snapshot", "preamble", "structure", at, layout.PREAMBLE.size)
        at += layout.PREAMBLE.size
        stored = snapshot.file_bytes - at
        dead = stored * dead_bytes // max(1, len(snapshot.payload))
        add("snapshot", "compressed payload", "live", at, stored - dead)
        add("snapshot", "compressed payload", "dead", at, dead)
        return
    add("snapshot", "preamble", "structure", at, snapshot.payload_offset - at)
    add("snapshot", "configuration", "structure", snapshot.payload_offset, snapshot.rows_start)
    at = snapshot.payload_offset + snapshot.rows_start
    rows = snapshot.file_bytes - at
    add("snapshot", "rows", "live", at, rows - dead_bytes)
    add("snapshot", "rows", "dead", at, dead_bytes)


def _log_facts(add: Any, facts: Facts, scan: LogScan, database: LegacyDatabase | None) -> None:
    header_bytes = layout.LOG_HEADER.size if scan.has_header else 0
    torn = 0 if scan.torn is None else scan.torn.stop - scan.torn.start
    facts["log"] = {
        "header": {"magic": "IQDBWAL", "version": layout.LOG_VERSION} if scan.has_header else None,
        "frames": scan.n_frames,
        "torn_bytes": torn,
        "stale": False,
    }
    counts = facts["counts"]
    counts |= {"log_frames": scan.n_frames, "log_torn_bytes": torn}
    if database is not None:
        counts |= {"log_upserts": database.upserts, "log_deletes": database.deletes}
    if scan.unreadable is not None:
        add("log", "everything", "unknown", 0, scan.size)
        return
    add("log", "header", "structure", 0, header_bytes)
    add("log", "frames", "log", header_bytes, scan.frame_bytes)
    for start, stop, _ in scan.damage:
        add("log", "damaged bytes", "unknown", start, stop - start)
    if scan.torn is not None:
        add("log", "torn tail", "unknown" if scan.undecided else "dead", scan.torn.start, torn)
