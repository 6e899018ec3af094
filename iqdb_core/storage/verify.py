"""Says whether a database file and its log are whole, and if not, what is damaged and what still works.

Unlike a reader this goes on after the first problem. Nothing that has not been checked is trusted: what can
only be found through a damaged part is reported as not checked. Memory is bounded by a few pieces of the
file, and by the ids where these do not ascend by row.
"""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from iqdb_core import _kernels
from iqdb_core.errors import (
    ChecksumError,
    DamagedError,
    DatabaseNotFoundError,
    FileIOError,
    StructureError,
    TruncatedError,
)
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    CONFIG,
    FLAG_DERIVED,
    HEADER_BYTES,
    ID_ORDER,
    META_DATA,
    META_GROUPS,
    META_ROWS,
    PAGE_BYTES,
    VECTORS,
    Header,
    SectionEntry,
    padded,
)
from iqdb_core.storage.section import block_prefix
from iqdb_core.storage.structure import check_config, check_header, check_section_table

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

Level: TypeAlias = Literal["checksums", "structure"]
Progress: TypeAlias = "Callable[[int, int], None]"

_WINDOW_BYTES = 4 << 20
_NOT_OPENED = "the database cannot be opened"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Attributes:
        path: the file that has it: the snapshot or its log.
        part: what is wrong there, such as "header", "section vectors" or "frame 3".
        offset_bytes: where it begins in the file.
        length_bytes: how far it reaches.
        problem: what is wrong.
        effect: what does not work because of it.
    """

    path: str
    part: str
    offset_bytes: int
    length_bytes: int
    problem: str
    effect: str


@dataclass(slots=True)
class VerifyReport:
    """What `verify_file` has found.

    Attributes:
        path: the snapshot.
        level: "checksums" or "structure".
        findings: the problems, in the order in which they were met.
        notes: what is normal but worth knowing, such as a torn tail of the log.
        whole: the parts that were checked and are whole.
        works: what can be done with the database as it is, one sentence each.
        n_rows: records of the snapshot; None when the header cannot be trusted.
        content_digest: computed from the records; None when that was not done or not possible.
        log_frames: whole frames of the log.
        checked_bytes: how many bytes of both files were looked at.
    """

    path: str
    level: Level
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    works: list[str] = field(default_factory=list)
    n_rows: int | None = None
    content_digest: str | None = None
    log_frames: int = 0
    checked_bytes: int = 0

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {"ok": self.ok, **asdict(self)}


def verify_file(
    path: str | os.PathLike[str],
    *,
    level: Level = "structure",
    threads: int | None = None,
    progress: Progress | None = None,
    files: FileSystem = OS_FILES,
) -> VerifyReport:
    """Check a database file and its log.

    Args:
        path: the snapshot.
        level: "checksums" reads every byte and compares the checksums; "structure" also decodes every
            record, checks all rules of the format and computes the content digest again.
        threads: how many to use; None is `IQDB_NUM_THREADS` or all cores.
        progress: is called now and then with the bytes of the snapshot done and to do.
        files: the file layer.

    Raises:
        DatabaseNotFoundError, NotADatabaseError, UnsupportedVersionError, UnsupportedFeatureError: there is
            nothing here that could be verified.
        FileIOError: the system refused to read.
    """
    from iqdb_core.threads import resolve_threads

    resolved = files.resolve(path)
    try:
        file = files.open_read(resolved)
    except FileIOError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise DatabaseNotFoundError(path) from error
        raise
    try:
        verifier = Verifier(file, files, level, resolve_threads(threads), progress)
        verifier.run()
        return verifier.report
    finally:
        files.close(file)


class Verifier:
    """One run over one file. The parts of the check that live in other modules add to its report."""

    def __init__(
        self, file: OpenFile, files: FileSystem, level: Level, threads: int, progress: Progress | None
    ) -> None:
        self.file = file
        self.files = files
        self.path = file.path
        self.threads = threads
        self.report = VerifyReport(file.path, level)
        self.size = files.status(file).st_size
        self._progress = progress

    def found(self, part: str, offset: int, length: int, problem: str, effect: str) -> None:
        """Add a problem of the snapshot to the report."""
        self.report.findings.append(Finding(self.path, part, offset, length, problem, effect))

    def run(self) -> None:
        """Check everything that the level asks for."""
        header = self.read_header()
        entries = self.read_table(header) if header is not None else None
        if header is None or entries is None:
            self.report.notes.append(
                "sections, records and log were not checked: they are found through what is damaged"
            )
            self.report.works.append("nothing: no part can be found without header and section table")
            return
        self.report.n_rows = header.n_rows
        bad = self._sections(header, entries)
        self._padding(entries)
        self._config(header, entries, bad)
        if self.report.level == "structure":
            from iqdb_core.storage.verify_records import verify_records

            verify_records(self, header, entries, bad)
        for entry in entries:
            if not any(
                finding.part.split(":")[0] == f"section {entry.name}" for finding in self.report.findings
            ):
                self.report.whole.append(f"section {entry.name}")
        self._conclude(header, entries)
        from iqdb_core.storage.verify_log import verify_log

        before = len(self.report.findings)
        verify_log(self, header)
        if len(self.report.findings) > before:
            works = self.report.works
            works[:] = [f"{what}, of the snapshot alone, once the log is moved away" for what in works]

    # --- Header, table, configuration ---------------------------------------------------------------

    def read_header(self) -> Header | None:
        """Return the header when it can be trusted, whatever the length of the file."""
        page = self.files.read(self.file, HEADER_BYTES, 0)
        self.report.checked_bytes += len(page)
        try:
            header = check_header(page, self.size, self.path)
        except TruncatedError as error:
            expected = error.expected_bytes
            start, stop = min(expected, self.size), max(expected, self.size)
            what = "missing" if expected > self.size else "too many"
            self.found("file", start, stop - start, f"bytes {what} at the end: {stop - start}", _NOT_OPENED)
            if len(page) < HEADER_BYTES:
                return None
            try:
                # With bytes appended, everything can still be found; with bytes missing, only perhaps.
                header = check_header(page, expected, self.path)
            except DamagedError as other:
                self._damaged("header", 0, HEADER_BYTES, other, _NOT_OPENED)
                return None
            return header
        except DamagedError as error:
            self._damaged("header", 0, HEADER_BYTES, error, _NOT_OPENED)
            return None
        self.report.whole.append("header")
        return header

    def read_table(self, header: Header) -> list[SectionEntry] | None:
        """Return the section table when it is there and can be trusted."""
        offset, length = header.section_table_offset, header.file_bytes - header.section_table_offset
        if header.file_bytes > self.size:
            self.found("section table", offset, length, "lies behind the end of the file", _NOT_OPENED)
            return None
        table = self.files.read(self.file, length, offset)
        self.report.checked_bytes += len(table)
        try:
            entries = check_section_table(table, header, self.path)
        except DamagedError as error:
            self._damaged("section table", offset, length, error, _NOT_OPENED)
            return None
        self.report.whole.append("section table")
        return entries

    def _config(self, header: Header, entries: list[SectionEntry], bad: dict[str, set[int]]) -> None:
        (entry,) = (entry for entry in entries if entry.name == CONFIG)
        if bad[CONFIG]:
            return
        from iqdb_core.config import IqdbConfig
        from iqdb_core.errors import ConfigError, VectorIndexError

        data = self.files.read(self.file, entry.stored_bytes, entry.offset)
        try:
            IqdbConfig.from_dict(check_config(data, header, self.path))
        except DamagedError as error:
            self._damaged("section config", entry.offset, entry.stored_bytes, error, _NOT_OPENED)
        except (ConfigError, VectorIndexError) as error:
            self.found("section config", entry.offset, entry.stored_bytes, str(error), _NOT_OPENED)

    def _damaged(self, part: str, offset: int, length: int, error: DamagedError, effect: str) -> None:
        self.found(part, offset, length, problem_of(error), effect)

    # --- Block checksums ----------------------------------------------------------------------------

    def _sections(self, header: Header, entries: list[SectionEntry]) -> dict[str, set[int]]:
        """Check every block of every section, and return the bad ones by the section's name."""
        bad: dict[str, set[int]] = {}
        total = sum(entry.stored_bytes for entry in entries)
        done = 0
        with ThreadPoolExecutor(self.threads, "iqdb-verify") as pool:
            for entry in entries:
                blocks = bad[entry.name] = set()
                count = -(-entry.stored_bytes // BLOCK_BYTES)
                table = self.files.read(self.file, 4 * count, entry.checksums_offset)
                self.report.checked_bytes += len(table)
                if _kernels.crc32c(table) != entry.checksums_crc:
                    blocks.update(range(count))
                    self.found(
                        f"section {entry.name}: block checksums",
                        entry.checksums_offset,
                        len(table),
                        "checksum wrong",
                        "no block of the section can be trusted: " + effect_of(entry, header, 0, count),
                    )
                    done += entry.stored_bytes
                    continue
                crcs = np.frombuffer(table, np.uint32)
                prefix = block_prefix(header.database_id, entry.name)
                starts = range(0, entry.stored_bytes, _WINDOW_BYTES)
                for start, wrong in zip(
                    starts,
                    pool.map(lambda s, e=entry, c=crcs, p=prefix: self._window(e, c, p, s), starts),
                    strict=True,
                ):
                    blocks.update(wrong)
                    done += min(_WINDOW_BYTES, entry.stored_bytes - start)
                    if self._progress is not None:
                        self._progress(done, total)
                self.report.checked_bytes += entry.stored_bytes
                for first, stop in _runs(blocks):
                    offset = first * BLOCK_BYTES
                    length = min(stop * BLOCK_BYTES, entry.stored_bytes) - offset
                    what = f"block {first}" if stop == first + 1 else f"blocks {first} to {stop - 1}"
                    self.found(
                        f"section {entry.name}: {what}",
                        entry.offset + offset,
                        length,
                        "checksum wrong",
                        effect_of(entry, header, first, stop),
                    )
        return bad

    def _window(self, entry: SectionEntry, crcs: Any, prefix: int, start: int) -> list[int]:
        """Return which blocks of one piece of a section are bad."""
        data = self.files.read(
            self.file, min(_WINDOW_BYTES, entry.stored_bytes - start), entry.offset + start
        )
        first = start // BLOCK_BYTES
        expected = crcs[first : first + _WINDOW_BYTES // BLOCK_BYTES]
        found = np.zeros(len(expected), np.uint32)
        whole = -(-len(data) // BLOCK_BYTES)
        _kernels.crc32c_blocks(data, prefix, first, found[:whole])
        wrong = found != expected
        # The file became shorter while it was read.
        wrong[whole:] = True
        return [first + int(block) for block in np.flatnonzero(wrong)]

    def _padding(self, entries: list[SectionEntry]) -> None:
        """Check that whatever belongs to no part is zero."""
        gaps = [
            (entry.offset + entry.stored_bytes, padded(entry.offset + entry.stored_bytes))
            for entry in entries
        ]
        end = 0
        for entry in entries:
            end = entry.checksums_offset + 4 * -(-entry.stored_bytes // BLOCK_BYTES)
            gaps.append((end, padded(end, 8)))
        gaps.append((padded(end, 8), padded(end, PAGE_BYTES)))
        for start, stop in gaps:
            data = self.files.read(self.file, stop - start, start)
            self.report.checked_bytes += len(data)
            if data.strip(b"\0"):
                self.found(
                    "padding",
                    start,
                    stop - start,
                    "not zero",
                    "none: nothing is read from there, but something other than iqdb has written to the file",
                )
        if not any(finding.part == "padding" for finding in self.report.findings):
            self.report.whole.append("padding")

    # --- Conclusion ---------------------------------------------------------------------------------

    def _conclude(self, header: Header, entries: list[SectionEntry]) -> None:
        """Say what works, from what was found."""
        findings = self.report.findings
        works = self.report.works
        if any(finding.effect == _NOT_OPENED for finding in findings):
            works.append("nothing: it cannot be opened")
            return
        damaged = {finding.part.split(":")[0].removeprefix("section ") for finding in findings}
        derived = {entry.name for entry in entries if entry.flags & FLAG_DERIVED}
        ids = damaged & {"ids", "ids.kinds", "ids.offsets", "ids.bytes"}
        meta = damaged & {META_ROWS, META_GROUPS, META_DATA}
        if not damaged - {"padding"}:
            works.append("everything")
            return
        if VECTORS not in damaged:
            works.append(f"searches: all {header.n_rows} vectors are whole")
        else:
            works.append("reading records by id, but for those whose vectors are damaged")
        if not ids and ID_ORDER not in damaged:
            works.append("looking up ids")
        elif not ids:
            works.append("reading records by row: the ids are whole, only their order is not")
        if not meta:
            works.append("metadata and filters")
        if damaged & derived:
            works.append("exact search, and rebuilding the index from the records")


def problem_of(error: DamagedError) -> str:
    """Return what an error says without the path and the advice in it."""
    if isinstance(error, ChecksumError):
        return "checksum wrong"
    if isinstance(error, StructureError):
        return f"{error.part} is {error.found}, expected {error.expected}"
    return error.message


def effect_of(entry: SectionEntry, header: Header, first: int, stop: int) -> str:
    """Return what does not work when the blocks first..stop of a section cannot be read."""
    name = entry.name
    if name == CONFIG:
        return _NOT_OPENED
    if entry.flags & FLAG_DERIVED:
        return "the index has to be rebuilt; the records are whole, and exact search works"
    if name == ID_ORDER:
        return "looking up ids fails where the search passes this block; searches work"
    if name in {META_ROWS, META_GROUPS, META_DATA}:
        return "metadata that are kept there cannot be read, and filters that touch them fail"
    row_bytes = {VECTORS: 4 * header.dim, "ids": 8, "ids.kinds": 1, "ids.offsets": 8}.get(name)
    if entry.codec or row_bytes is None:
        rows = "some rows"
    else:
        last = min(stop * BLOCK_BYTES, entry.raw_bytes) - 1
        low, high = first * BLOCK_BYTES // row_bytes, min(last // row_bytes, header.n_rows - 1)
        rows = f"row {low}" if low >= high else f"rows {low} to {high}"
    if name == VECTORS:
        return f"searches that come to {rows} fail; the other records can be read"
    return f"the ids of {rows} cannot be read"


def _runs(blocks: set[int]) -> list[tuple[int, int]]:
    """Return maximal ranges of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for block in sorted(blocks):
        if runs and runs[-1][1] == block:
            runs[-1] = (runs[-1][0], block + 1)
        else:
            runs.append((block, block + 1))
    return runs
