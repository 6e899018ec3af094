"""`LogLink`: the log beside one snapshot, made at the first write and removed once it is folded in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_core.storage.layout import LOG_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.config import FsyncPolicy
    from iqdb_core.records import Ids, MetadataColumns
    from iqdb_core.storage.files import FileSystem, OpenFile
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.storage.wal import LogContents, LogWriter
    from iqdb_core.types import MetadataValue, VectorId


def log_path(path: str) -> str:
    """Return the path of the log beside a snapshot."""
    return path + LOG_SUFFIX


class LogLink:
    """The writer's hold on the log of one snapshot. Used under the store's write lock."""

    def __init__(
        self,
        snapshot: Snapshot,
        snapshot_file: OpenFile,
        files: FileSystem,
        fsync: FsyncPolicy,
        contents: LogContents | None,
    ) -> None:
        self._path = log_path(snapshot.path)
        self._snapshot = snapshot
        self._snapshot_file = snapshot_file
        self._files = files
        self._fsync = fsync
        self._contents = contents
        self._writer: LogWriter | None = None

    @property
    def exists(self) -> bool:
        """Whether there is a log file."""
        return self._writer is not None or self._contents is not None

    @property
    def n_frames(self) -> int:
        """Frames that were appended or found."""
        if self._writer is not None:
            return self._writer.n_frames
        return 0 if self._contents is None else self._contents.n_frames

    @property
    def open(self) -> bool:
        """Whether something was, or could have been, appended through this object."""
        return self._writer is not None

    def size_bytes(self) -> int:
        """Return the length of the log, 0 when there is none; without the room for frames to come."""
        if self._writer is not None:
            return self._writer.size
        status = self._files.status_at(self._path) if self.exists else None
        return 0 if status is None else status.st_size

    def append_upsert(self, ids: Ids, vectors: NDArray[np.float32], metadata: MetadataColumns | None) -> None:
        """Append one frame of upserted records; what is durable then is for the policy to say."""
        self._ready().append_upsert(ids, vectors, metadata)

    def append_single_upsert(
        self, record_id: VectorId, vector: bytes, metadata: Mapping[str, MetadataValue] | None
    ) -> None:
        """Append one upserted record, as `append_upsert` would."""
        writer = self._writer
        if writer is None:
            writer = self._ready()
        writer.append_single_upsert(record_id, vector, metadata)

    def append_delete(self, ids: Ids) -> None:
        """Append one frame of deleted ids."""
        self._ready().append_delete(ids)

    def append_fold(self, identity: int) -> None:
        """Say in the log, durably, which snapshot has it folded in. No log needs no word."""
        if self.exists:
            self._ready().append_fold(identity)

    def remove(self) -> None:
        """Remove the log for good; its snapshot holds everything, durably."""
        if not self.exists:
            return
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close(cut=False)
        self._contents = None
        self._files.unlink(self._path)
        self._files.sync_directory(self._path)

    def close(self) -> None:
        """Sync as the policy says and close the log file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def leave_to_parent(self) -> None:
        """Close the log file and touch nothing of it: called in a forked child."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.leave_to_parent()

    def _ready(self) -> LogWriter:
        writer = self._writer
        if writer is None:
            from iqdb_core.storage.wal import LogWriter

            snapshot = self._snapshot
            contents = self._contents
            if contents is None or not contents.exists or contents.torn_creation:
                self._files.unlink(self._path)
                writer = LogWriter.create(
                    self._path,
                    snapshot.database_id,
                    snapshot.identity,
                    snapshot.dim,
                    self._fsync,
                    self._files,
                    like=self._files.status(self._snapshot_file),
                )
            else:
                writer = LogWriter.open_for_append(contents, self._fsync, self._files)
            self._writer, self._contents = writer, None
        return writer
