"""Opening and converting the databases of iqdb 1.x: their records as a snapshot of format 3.

An opened one is converted in memory and read-only: every search compares with all records, since 1.x
stored no index and building one takes longer than a few exact searches. A converted one is a new file; the
old ones are only read.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iqdb_core.errors import (
    FileIOError,
    NotRepresentableError,
)
from iqdb_core.legacy import LEGACY_VERSIONS
from iqdb_core.legacy.database import LegacyDatabase
from iqdb_core.legacy.layout import SCHEMES, SNAPSHOT_MAGIC
from iqdb_core.storage.database_file import open_database_file
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.snapshot_writer import SnapshotWriter
from iqdb_core.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from iqdb_core.config import Compression
    from iqdb_core.opening import HandleSettings

MAX_MEMORY_BYTES = 8 << 30
"""The longest uncompressed payload that is opened in memory. Converting has no such limit."""
_ATTEMPTS = 100
_NO_DATABASE_ID = bytes(16)


@dataclass(frozen=True, slots=True)
class LegacyFacts:
    """What is known of the files behind a store that was opened from iqdb 1.x.

    Attributes:
        version: of the snapshot, 1 or 2.
        file_bytes: the length of the snapshot.
        notes: what was left out or is not as it was, a sentence each.
    """

    version: int
    file_bytes: int
    notes: tuple[str, ...]


def legacy_store(file: OpenFile, settings: HandleSettings, files: FileSystem) -> Store:
    """Return a read-only store of the database of iqdb 1.x in an open file, and of its log.

    Raises:
        DamagedError: a leaf says what is wrong with it.
        NotRepresentableError: it is too large to be held in memory, or a record of it for format 3.
    """
    database = LegacyDatabase.open(file, files)
    payload_bytes = len(database.snapshot.payload)
    if payload_bytes > MAX_MEMORY_BYTES:
        raise NotRepresentableError(
            database.path,
            "length of the records",
            payload_bytes,
            f"at most {MAX_MEMORY_BYTES} bytes, which are read into memory",
            hint=f'"iqdb compact {database.path} -o NEW.iqdb" has no such limit',
        )
    config, notes = database.config()
    with SnapshotWriter(
        bytearray(), config.stored_dict(), _NO_DATABASE_ID, threads=settings.threads
    ) as writer:
        for batch in database.batches():
            writer.append(batch)
        writer.finish()
        snapshot = Snapshot.from_buffer(writer.memory, database.path)
    status = files.status(file)
    snapshot.inode = status.st_dev, status.st_ino
    store = Store(snapshot, files=files, read_only=True, **settings.arguments())
    facts = LegacyFacts(database.snapshot.version, status.st_size, (*database.notes(), *notes))
    store.legacy = facts
    return store


def open_legacy(
    path: str | os.PathLike[str], files: FileSystem = OS_FILES, *, salvage: bool = False
) -> LegacyDatabase:
    """Open a database of iqdb 1.x, as it is at one moment although a program of 1.x may be writing to it.

    Raises:
        DatabaseNotFoundError: there is no file.
        DamagedError: a leaf says what is wrong with it.
        FileIOError: the system refused.
    """
    real = files.resolve(path)
    for _ in range(_ATTEMPTS):
        file = open_database_file(path, real, files)
        try:
            database = LegacyDatabase.open(file, files, salvage=salvage)
            mine, there = files.status(file), files.status_at(real)
            if there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return database
        finally:
            files.close(file)
    raise FileIOError(real, "read", OSError(errno.EBUSY, "the file is being replaced all the time"))


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        version: of the old snapshot, 1 or 2.
        bytes_before: of the old snapshot and its log.
        bytes_after: of the new file.
        n_rows: records in both.
        digest: the content digest of the new one.
        notes: what was left out or is not as it was, a sentence each.
        lost: of these, what could not be read of a damaged log.
    """

    version: int
    bytes_before: int
    bytes_after: int
    n_rows: int
    digest: str
    notes: tuple[str, ...]
    lost: tuple[str, ...] = ()


def convert(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    compression: Compression | str | None = None,
    threads: int | None = None,
    salvage: bool = False,
    progress: Callable[[int], object] | None = None,
    files: FileSystem = OS_FILES,
) -> ConversionReport:
    """Make a database of format 3 out of one of iqdb 1.x, or leave nothing behind.

    Order, ids, vectors, metadata and the index with its settings are carried over, and the index is built.
    The new file has the mode of the old one, is read back and compared before it gets its name, and is
    durable when this returns. The old files are only read. With `salvage` a damaged log is read as far as
    its frames are whole, and the notes say what was lost.

    Raises:
        DatabaseExistsError: something is at the target, or a log is beside it.
        DamagedError: the old database is damaged; a leaf says what and where.
        NotRepresentableError: format 3 cannot hold something that is in it.
    """
    from iqdb_core.bulk import create_from

    database = open_legacy(path, files, salvage=salvage)
    config, notes = database.config()
    scheme = SCHEMES[database.snapshot.scheme]
    if scheme != "none" and compression is None:
        notes.append(f"the old file is compressed ({scheme}), the new one is not; --compression changes that")
    config = replace(config, threads=threads)
    if compression is not None:
        config = config.with_compression(compression)
    like = files.open_read(database.path)
    try:
        report = create_from(
            target,
            config,
            database.batches(),
            on_duplicate="error",
            progress=progress,
            files=files,
            like=like,
        )
    finally:
        files.close(like)
    after = files.status_at(files.resolve(target))
    return ConversionReport(
        version=database.snapshot.version,
        bytes_before=database.snapshot.file_bytes + database.log_bytes,
        bytes_after=0 if after is None else after.st_size,
        n_rows=report.n_rows,
        digest=report.digest,
        notes=(*database.notes(), *notes),
        lost=tuple(database.lost),
    )


def legacy_version(path: str | os.PathLike[str], files: FileSystem = OS_FILES) -> int | None:
    """Return the version of a snapshot of iqdb 1.x, None for any other file.

    Raises:
        DatabaseNotFoundError: there is no file.
        FileIOError: the system refused.
    """
    file = open_database_file(path, files.resolve(path), files)
    try:
        head = files.read(file, 12, 0)
    finally:
        files.close(file)
    version = int.from_bytes(head[8:], "little")
    return version if head[:8] == SNAPSHOT_MAGIC and version in LEGACY_VERSIONS else None
