"""Says what a database file and its log hold, and what each of their bytes is for.

Only bytes whose checksums are right are believed. In a damaged file that is as far as one comes: what cannot
be known is None, and its bytes are `unknown` in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from iqdb_core.errors import (
    DamagedError,
    LogDamagedError,
    LogMismatchError,
    PersistError,
    UnsupportedVersionError,
)
from iqdb_core.storage.database_file import open_database_file
from iqdb_core.storage.files import OS_FILES, FileSystem
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    CODEC_NAMES,
    DTYPE_BY_TAG,
    FLAG_DERIVED,
    HEADER_BYTES,
    ID_ORDER,
    IDS,
    LOG_HEADER_BYTES,
    LOG_SUFFIX,
    META_DATA,
    PAGE_BYTES,
    VECTORS,
    Header,
    LogHeader,
    SectionEntry,
    padded,
)
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.verify import Verifier, problem_of
from iqdb_core.storage.wal import LogContents, read_log

if TYPE_CHECKING:
    import os

    from iqdb_core.records import RecordBatch
    from iqdb_core.storage.digest_value import ContentDigest
    from iqdb_core.storage.verify_report import Finding
    from iqdb_core.types import VectorId

Facts: TypeAlias = dict[str, Any]

KINDS = ("live", "dead", "index", "structure", "padding", "log", "unknown")
_ATTEMPTS = 10
# A longer log is counted, but the digest of what it leads to is not computed: that takes memory and time.
_DIGEST_LOG_BYTES = 256 << 20


def inspect_file(path: str | os.PathLike[str], files: FileSystem = OS_FILES) -> Facts:
    """Return what a database holds, as values that JSON can hold.

    The keys, which are always there:

    - path, file_bytes, log_bytes (0 without a log)
    - snapshot_identity, content_digest (of the snapshot), content_digest_with_log (None when it was not
      computed): hexadecimal
    - header: the fields of the format's header; config: the stored configuration
    - counts: n_rows (records now), snapshot_rows, dead_rows (rows of the snapshot that the log has replaced
      or deleted), log_frames, log_upserts, log_deletes (records named in frames), log_torn_bytes
    - log: None, or header, frames, torn_bytes, room_bytes (zeros behind them), stale
    - sections: name, dtype, codec, derived, shape, chunk_bytes, offset, stored_bytes, raw_bytes, ratio
    - ledger: file ("snapshot" or "log"), part, kind, offset_bytes, bytes. Every byte of both files is in it
      once. A section with dead rows has two entries: rows of a fixed width are counted, other bytes are
      divided in proportion to the rows
    - totals: for each kind KIND_bytes. Kinds are live, dead, index, structure, padding, log, unknown
    - problems: file, part, problem

    Raises:
        DatabaseNotFoundError, NotADatabaseError, UnsupportedVersionError, UnsupportedFeatureError: there is
            nothing here that could be inspected.
        FileIOError: the system refused to read.
    """
    resolved = files.resolve(path)
    facts: Facts = {}
    for attempt in range(_ATTEMPTS):
        facts, moved = _inspect(resolved, path, files)
        # A compaction may have put another snapshot in place between the two files.
        if not moved or attempt == _ATTEMPTS - 1:
            break
    return facts


def _inspect(resolved: str, path: str | os.PathLike[str], files: FileSystem) -> tuple[Facts, bool]:
    file = open_database_file(path, resolved, files)
    try:
        verifier = Verifier(file, files, "checksums", 1, None)
        facts = _nothing_known(resolved, verifier.size)
        header = verifier.read_header()
        entries = None
        if header is not None:
            _add_header(facts, header)
            entries = verifier.read_table(header)
        facts["problems"] += [_problem(finding) for finding in verifier.report.findings]
        snapshot = None
        if header is not None and entries is not None and not verifier.report.findings:
            try:
                snapshot = Snapshot.open(resolved, files, file=file)
                facts["config"] = snapshot.config
            except DamagedError as error:
                facts["problems"].append(
                    {"file": "snapshot", "part": "section config", "problem": problem_of(error)}
                )
        log = _Log(resolved + LOG_SUFFIX, files)
        if snapshot is not None:
            log.read(snapshot, facts)
        facts["log_bytes"] = log.size
        facts["sections"] = [_section(entry) for entry in entries or ()]
        ledger = _Ledger()
        if entries is None:
            ledger.add(
                "snapshot",
                "header",
                "structure" if header else "unknown",
                0,
                min(HEADER_BYTES, verifier.size),
            )
            ledger.add("snapshot", "everything else", "unknown", HEADER_BYTES, verifier.size - HEADER_BYTES)
        else:
            assert header is not None
            _snapshot_ledger(ledger, header, entries, facts["counts"]["dead_rows"] or 0)
            end = header.file_bytes
            ledger.add("snapshot", "behind the end", "unknown", end, verifier.size - end)
        log.account(ledger)
        facts["ledger"] = ledger.lines
        facts["totals"] = {f"{kind}_bytes": ledger.total(kind) for kind in KINDS}
        there, mine = files.status_at(resolved), files.status(file)
        moved = there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
        return facts, moved
    finally:
        files.close(file)


def _nothing_known(path: str, file_bytes: int) -> Facts:
    counts = (
        "n_rows",
        "snapshot_rows",
        "dead_rows",
        "log_frames",
        "log_upserts",
        "log_deletes",
        "log_torn_bytes",
    )
    return {
        "path": path,
        "file_bytes": file_bytes,
        "log_bytes": 0,
        "snapshot_identity": None,
        "content_digest": None,
        "content_digest_with_log": None,
        "header": None,
        "config": None,
        "counts": dict.fromkeys(counts),
        "log": None,
        "sections": [],
        "ledger": [],
        "totals": {},
        "problems": [],
    }


def _add_header(facts: Facts, header: Header) -> None:
    facts["header"] = _plain(header)
    facts["snapshot_identity"] = f"{header.identity:016x}"
    facts["content_digest"] = _digest(header).hex()
    facts["counts"]["snapshot_rows"] = header.n_rows


def _digest(header: Header) -> ContentDigest:
    from iqdb_core.storage.digest_value import ContentDigest

    return ContentDigest.from_bytes(header.content_digest)


def _plain(header: Header | LogHeader) -> Facts:
    plain = {
        name: value.hex() if isinstance(value, bytes) else value for name, value in header._asdict().items()
    }
    plain["magic"] = header.magic.rstrip(b"\0").decode("ascii")
    if isinstance(header, LogHeader):
        plain["snapshot_identity"] = f"{header.snapshot_identity:016x}"
    return plain


def _problem(finding: Finding) -> Facts:
    return {"file": "snapshot", "part": finding.part, "problem": finding.problem}


def _section(entry: SectionEntry) -> Facts:
    return {
        "name": entry.name,
        "dtype": DTYPE_BY_TAG[entry.dtype].name,
        "codec": CODEC_NAMES[entry.codec],
        "derived": bool(entry.flags & FLAG_DERIVED),
        "shape": [entry.shape0] if entry.ndim == 1 else [entry.shape0, entry.shape1],
        "chunk_bytes": entry.chunk_bytes,
        "offset": entry.offset,
        "stored_bytes": entry.stored_bytes,
        "raw_bytes": entry.raw_bytes,
        "ratio": round(entry.raw_bytes / entry.stored_bytes, 4) if entry.stored_bytes else None,
    }


class _Ledger:
    """Accounts for bytes, each once."""

    def __init__(self) -> None:
        self.lines: list[Facts] = []

    def add(self, file: str, part: str, kind: str, offset: int, size: int) -> None:
        if size > 0:
            self.lines.append(
                {"file": file, "part": part, "kind": kind, "offset_bytes": offset, "bytes": size}
            )

    def total(self, kind: str) -> int:
        return sum(line["bytes"] for line in self.lines if line["kind"] == kind)


def _snapshot_ledger(ledger: _Ledger, header: Header, entries: list[SectionEntry], dead_rows: int) -> None:
    add = ledger.add
    add("snapshot", "header", "structure", 0, HEADER_BYTES)
    end = HEADER_BYTES
    for entry in entries:
        if entry.flags & FLAG_DERIVED:
            add("snapshot", entry.name, "index", entry.offset, entry.stored_bytes)
        else:
            dead = _dead_bytes(entry, header.n_rows, dead_rows)
            add("snapshot", entry.name, "live", entry.offset, entry.stored_bytes - dead)
            add("snapshot", entry.name, "dead", entry.offset, dead)
        end = entry.offset + entry.stored_bytes
        add("snapshot", f"padding behind {entry.name}", "padding", end, padded(end) - end)
        end = padded(end)
    for entry in entries:
        size = 4 * -(-entry.stored_bytes // BLOCK_BYTES)
        add("snapshot", f"checksums of {entry.name}", "structure", entry.checksums_offset, size)
        end = entry.checksums_offset + size
        add("snapshot", f"padding behind checksums of {entry.name}", "padding", end, padded(end, 8) - end)
        end = padded(end, 8)
    add("snapshot", "padding behind checksums", "padding", end, padded(end, PAGE_BYTES) - end)
    start = header.section_table_offset
    add("snapshot", "section table", "structure", start, header.file_bytes - start)


def _dead_bytes(entry: SectionEntry, n_rows: int, dead_rows: int) -> int:
    """Return how many bytes of a section belong to rows that a search does not see any more."""
    if not dead_rows:
        return 0
    if entry.name in {VECTORS, IDS, "ids.kinds", ID_ORDER} and not entry.codec:
        return entry.stored_bytes // n_rows * dead_rows
    if entry.name in {VECTORS, IDS, "ids.kinds", "ids.offsets", "ids.bytes", META_DATA}:
        return entry.stored_bytes * dead_rows // n_rows
    return 0


class _Log:
    """What is known of the log."""

    def __init__(self, path: str, files: FileSystem) -> None:
        self._path = path
        self._files = files
        status = files.status_at(path)
        self.size = 0 if status is None else status.st_size
        self._contents: LogContents | None = None

    def read(self, snapshot: Snapshot, facts: Facts) -> None:
        """Add what the log says to the facts, its problem if it has one."""
        counts = facts["counts"]
        try:
            contents = read_log(
                self._path, snapshot.database_id, snapshot.identity, snapshot.dim, self._files
            )
        except (LogDamagedError, LogMismatchError, UnsupportedVersionError) as error:
            facts["problems"].append({"file": "log", "part": "log", "problem": error.message})
            return
        with contents:
            # More may have been appended since its length was taken.
            self.size = contents.valid_bytes + contents.torn_bytes + contents.room_bytes
            counts |= {"n_rows": snapshot.n_rows, "dead_rows": 0, "log_frames": contents.n_frames}
            counts |= {"log_upserts": 0, "log_deletes": 0, "log_torn_bytes": contents.torn_bytes}
            facts["content_digest_with_log"] = facts["content_digest"]
            if contents.exists:
                header = contents.scan.header
                facts["log"] = {
                    "header": None if header is None else _plain(header),
                    "frames": contents.n_frames,
                    "torn_bytes": contents.torn_bytes,
                    "room_bytes": contents.room_bytes,
                    "stale": contents.stale,
                }
            self._contents = contents
            if contents.n_frames and not contents.stale:
                try:
                    _replay(snapshot, contents, facts)
                except PersistError as error:
                    facts["problems"].append({"file": "log", "part": "frames", "problem": error.message})
                    counts |= dict.fromkeys(("n_rows", "dead_rows", "log_upserts", "log_deletes"))
                    facts["content_digest_with_log"] = None

    def account(self, ledger: _Ledger) -> None:
        """Account for the bytes of the log."""
        contents = self._contents
        if contents is None:
            ledger.add("log", "everything", "unknown", 0, self.size)
            return
        header_bytes = LOG_HEADER_BYTES if contents.scan.header is not None else 0
        frames = "dead" if contents.stale else "log"
        ledger.add("log", "header", "structure", 0, header_bytes)
        ledger.add("log", "frames", frames, header_bytes, contents.valid_bytes - header_bytes)
        ledger.add("log", "torn tail", "dead", contents.valid_bytes, contents.torn_bytes)
        end = contents.valid_bytes + contents.torn_bytes
        ledger.add("log", "room", "padding", end, contents.room_bytes)


def _replay(snapshot: Snapshot, contents: LogContents, facts: Facts) -> None:
    """Count what the log does to the snapshot, and compute the digest of what comes out."""
    from iqdb_core.storage.frames import UpsertFrame

    counts = facts["counts"]
    # For every id in the log: where its record stands by now, None once it is deleted.
    state: dict[VectorId, tuple[RecordBatch | None, int] | None] = {}
    keep = contents.valid_bytes <= _DIGEST_LOG_BYTES
    touched: dict[VectorId, int] = {}
    upserts = deletes = 0
    for frame in contents.frames():
        ids = frame.batch.ids if isinstance(frame, UpsertFrame) else frame.ids
        values = ids.to_list()
        unknown = [number for number, value in enumerate(values) if value not in touched]
        rows = snapshot.find_many(ids).tolist() if unknown else []
        for number in unknown:
            touched[values[number]] = rows[number]
        if isinstance(frame, UpsertFrame):
            upserts += len(values)
            batch = frame.batch if keep else None
            state.update((value, (batch, number)) for number, value in enumerate(values))
        else:
            deletes += len(values)
            state.update(dict.fromkeys(values))
    dead = sorted(row for row in touched.values() if row >= 0)
    living = [place for place in state.values() if place is not None]
    counts["dead_rows"] = len(dead)
    counts["n_rows"] = snapshot.n_rows - len(dead) + len(living)
    counts["log_upserts"], counts["log_deletes"] = upserts, deletes
    places = [(batch, number) for batch, number in living if batch is not None]
    facts["content_digest_with_log"] = _digest_with(snapshot, dead, places).hex() if keep else None


def _digest_with(snapshot: Snapshot, dead: list[int], living: list[tuple[RecordBatch, int]]) -> ContentDigest:
    import numpy as np

    from iqdb_core.digest import batch_digest, record_hashes
    from iqdb_core.storage.digest_value import ContentDigest

    digest = snapshot.digest
    if dead:
        digest = digest.minus(batch_digest(snapshot.take(np.array(dead, np.int64))))
    rows_of: dict[int, tuple[RecordBatch, list[int]]] = {}
    for batch, number in living:
        rows_of.setdefault(id(batch), (batch, []))[1].append(number)
    for batch, numbers in rows_of.values():
        total = record_hashes(batch)[numbers].sum(axis=0, dtype=np.uint64)
        digest = digest.plus(ContentDigest(int(total[0]), int(total[1])))
    return digest
