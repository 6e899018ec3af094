"""Says whether a database file and its log are whole, and if not, what is damaged and what still works.

Unlike a reader this goes on after the first problem. Nothing that has not been checked is trusted: what can
only be found through a damaged part is reported as not checked. Memory is bounded by a few pieces of the
file, and by the ids where these do not ascend by row.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeAlias

from iqdb_core.errors import (
    ChecksumError,
    DamagedError,
    StructureError,
    TruncatedError,
)
from iqdb_core.storage.database_file import open_database_file
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    CODEC_NONE,
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
from iqdb_core.storage.structure import check_config, check_header, check_section_table
from iqdb_core.storage.verify_blocks import check_blocks
from iqdb_core.storage.verify_report import Finding, Level, Progress, SectionResult, VerifyReport

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

Beyond: TypeAlias = "Callable[[Verifier, Header, list[SectionEntry], dict[str, set[int]]], None]"
"""What looks at the parts that storage knows nothing of; it adds to the verifier's report."""

_NOT_OPENED = "the database cannot be opened"


def verify_file(
    path: str | os.PathLike[str],
    *,
    level: Level = "structure",
    threads: int | None = None,
    progress: Progress | None = None,
    beyond: Beyond | None = None,
    files: FileSystem = OS_FILES,
) -> VerifyReport:
    """Check a database file and its log, all but its index; `iqdb_core.verification.verify` checks that too.

    Args:
        path: the snapshot.
        level: "checksums" reads every byte and compares the checksums; any other also decodes every
            record, checks all rules of the format and computes the content digest again.
        threads: how many to use; None is `IQDB_NUM_THREADS` or all cores.
        progress: is called now and then, from any thread but one at a time, with the bytes done and to do.
        beyond: is called when the records were checked, unless the level is "checksums".
        files: the file layer.

    Raises:
        DatabaseNotFoundError, NotADatabaseError, UnsupportedVersionError, UnsupportedFeatureError: there is
            nothing here that could be verified.
        FileIOError: the system refused to read.
    """
    from iqdb_core.threads import resolve_threads

    resolved = files.resolve(path)
    file = open_database_file(path, resolved, files)
    try:
        started = time.perf_counter()
        verifier = Verifier(file, files, level, resolve_threads(threads), progress)
        verifier.run(beyond)
        verifier.report.seconds = time.perf_counter() - started
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
        self.size = self.report.file_bytes = files.status(file).st_size
        self._progress = progress
        self.misled = False  # whether exact search, too, goes by codes that are wrong
        self._done = self._total = 0
        self._guard = threading.Lock()

    def found(self, part: str, offset: int, length: int, problem: str, effect: str) -> None:
        """Add a problem of the snapshot to the report."""
        self.report.findings.append(Finding(self.path, part, offset, length, problem, effect))

    def expect(self, size_bytes: int) -> None:
        """Add to the bytes that are to be gone through; a part that is read twice counts twice."""
        self._total += size_bytes

    def advance(self, size_bytes: int) -> None:
        """Say that so many more of the expected bytes are done."""
        with self._guard:
            self._done += size_bytes
            if self._progress is not None:
                self._progress(min(self._done, self._total), self._total)

    def run(self, beyond: Beyond | None = None) -> None:
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
        self.expect(sum(entry.stored_bytes for entry in entries))
        if self.report.level != "checksums":
            # Vectors are read once more for the index, a third time through the reader, and where they are
            # compressed also to be decoded.
            again = (beyond is not None) + (self.report.level == "records")
            again += any(entry.name == VECTORS and entry.codec != CODEC_NONE for entry in entries)
            self.expect(again * 4 * header.n_rows * header.dim)
        sections = check_blocks(self, header, entries, with_vectors=self.report.level == "checksums")
        bad = {section.entry.name: section.bad for section in sections}
        findings = self.report.findings
        behind_blocks = len(findings)
        self._padding(entries)
        self._config(header, entries, bad)
        if self.report.level != "checksums":
            from iqdb_core.storage.verify_records import verify_records

            verify_records(self, header, sections)
        findings[behind_blocks:behind_blocks] = [
            finding for section in sections for finding in section.findings(header)
        ]
        if self.report.level != "checksums" and beyond is not None:
            beyond(self, header, entries, bad)
        for entry in entries:
            self._sum_up(entry, bad[entry.name])
        self._conclude(header, entries)
        from iqdb_core.storage.verify_log import verify_log

        before = len(self.report.findings)
        verify_log(self, header)
        if self._done < self._total:
            self.advance(self._total - self._done)
        if len(self.report.findings) > before:
            works = self.report.works
            works[:] = [f"{what}, of the snapshot alone, once the log is moved away" for what in works]

    def _sum_up(self, entry: SectionEntry, bad: set[int]) -> None:
        """Add what was found in one section to the report."""
        part = f"section {entry.name}"
        count = sum(finding.part.split(":")[0] == part for finding in self.report.findings)
        damaged = BLOCK_BYTES * len(bad)
        if -(-entry.stored_bytes // BLOCK_BYTES) - 1 in bad:
            damaged -= -entry.stored_bytes % BLOCK_BYTES
        self.report.sections.append(SectionResult(entry.name, entry.stored_bytes, damaged, count))
        if not count:
            self.report.whole.append(part)

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

    # --- Padding ------------------------------------------------------------------------------------

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
        if VECTORS not in damaged and not self.misled:
            works.append(f"searches: all {header.n_rows:,} vectors are whole")
        elif VECTORS in damaged:
            works.append("reading records by id, but for those whose vectors are damaged")
        if not ids and ID_ORDER not in damaged:
            works.append("looking up ids")
        elif not ids:
            works.append("reading records by row: the ids are whole, only their order is not")
        if not meta:
            works.append("metadata and filters")
        if damaged & derived:
            if not damaged - derived - {"padding"}:
                works.insert(0, "all records: they are whole, only the index is damaged")
            if not self.misled:
                works.append("exact search (search --exact)")
            works.append("rebuilding the index from the records (optimize)")


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
