"""Opening the file of a database for reading, and what it means when there is none."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from iqdb_core.errors import DatabaseNotFoundError, FileIOError, SnapshotMissingError
from iqdb_core.storage.layout import LOG_SUFFIX

if TYPE_CHECKING:
    import os

    from iqdb_core.storage.files import FileSystem, OpenFile


def open_database_file(path: str | os.PathLike[str], real: str, files: FileSystem) -> OpenFile:
    """Open the snapshot at `real` for reading; `path` is how messages name what was asked for.

    Raises:
        SnapshotMissingError: there is none, but there is its log.
        DatabaseNotFoundError: there is nothing.
        FileIOError, NotADatabaseError: it cannot be opened, or is no regular file.
    """
    try:
        return files.open_read(real)
    except FileIOError as error:
        refuse_missing(error, real, path, files)
        raise


def refuse_missing(error: FileIOError, real: str, path: str | os.PathLike[str], files: FileSystem) -> None:
    """Say what is missing, if that is why a database could not be opened; see `open_database_file`."""
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        refuse_orphaned_log(real, files)
        raise DatabaseNotFoundError(path) from error


def refuse_orphaned_log(real: str, files: FileSystem) -> None:
    """Refuse to take a place where a log waits for its snapshot.

    Raises:
        SnapshotMissingError: one does.
    """
    if files.exists(real + LOG_SUFFIX):
        raise SnapshotMissingError(real, real + LOG_SUFFIX)
