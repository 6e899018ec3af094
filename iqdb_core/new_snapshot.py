"""A snapshot that is being written beside the place it is meant for, and is proved before it gets there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from iqdb_core.errors import ContentMismatchError, StructureError
from iqdb_core.storage.files import OpenFile
from iqdb_core.storage.read_back import ReadBack, sync_and_read_back
from iqdb_core.storage.snapshot import Snapshot

if TYPE_CHECKING:
    from types import TracebackType

    from iqdb_core.storage.digest_value import ContentDigest
    from iqdb_core.storage.files import FileSystem
    from iqdb_core.storage.snapshot_assembly import SnapshotSummary


class NewSnapshot:
    """A snapshot being written, in a temporary file or in memory. It vanishes unless it is installed."""

    def __init__(self, path: str | None, files: FileSystem, *, like: OpenFile | None = None) -> None:
        self.files = files
        self.file: OpenFile | None = None
        self.memory = bytearray()
        self._installed = False
        if path is not None:
            files.sweep_temporaries(path)  # of a creation that was killed: no open has swept them
            # Not even for a moment may others open what they could not open before.
            self.file = files.create_temporary(path, 0o666 if like is None else 0o600)
            if like is not None:
                try:
                    files.copy_permissions(self.file, files.status(like))
                except BaseException:
                    self._remove()
                    raise

    @property
    def path(self) -> str:
        """The name of the file for messages."""
        return "<memory>" if self.file is None else self.file.shown

    @property
    def sink(self) -> OpenFile | bytearray:
        """Where a `SnapshotWriter` writes."""
        return self.memory if self.file is None else self.file

    def open(self, path: str) -> Snapshot:
        """Open what was written, as the snapshot at `path` that it is going to be."""
        if self.file is None:
            return Snapshot.from_buffer(self.memory)
        return Snapshot.open(path, self.files, file=OpenFile(self.file.fd, path))

    def prove(
        self, summary: SnapshotSummary, expected: ContentDigest, sequence: int, n_rows: int, threads: int
    ) -> None:
        """Make the file durable, read it back and compare it with what it must hold.

        Args:
            summary: of the file.
            expected: the content digest of its records.
            sequence: the `sequence_sum` of their ids: the order in which they must stand.
            n_rows: their number.
            threads: threads to use.

        Raises:
            ContentMismatchError: it holds something else.
            StructureError: it holds the same in another order.
        """
        self.check_rows(summary, n_rows)
        if summary.kept_rows is not None:
            raise StructureError(
                self.path, "the rewritten file", f"{n_rows} distinct records", summary.n_rows
            )
        found = ReadBack(summary.digest, sequence)
        if self.file is not None:
            found = sync_and_read_back(self.file, self.files, threads=threads)
        if found.digest != expected:
            raise ContentMismatchError(self.path, expected.hex(), found.digest.hex())
        self.check_sequence(found.sequence, sequence)

    def check_sequence(self, found: int, expected: int) -> None:
        """Compare the order of the records that were written with that of those that were given.

        Raises:
            StructureError: records have changed places.
        """
        if found != expected:
            raise StructureError(
                self.path, "the rewritten file", "the records in their order", "another order"
            )

    def check_rows(self, summary: SnapshotSummary, n_rows: int) -> None:
        """Compare the number of rows with what was given to the writer, before anything builds upon it.

        Raises:
            StructureError: records were lost or doubled on the way.
        """
        if summary.n_rows != n_rows:
            raise StructureError(self.path, "the rewritten file", f"{n_rows} records", summary.n_rows)

    def installed(self, path: str) -> None:
        """Say that the file is at `path` now and belongs to a store."""
        assert self.file is not None
        self.file.path = path
        self._installed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._installed:
            self._remove()

    def _remove(self) -> None:
        if self.file is not None:
            try:
                self.files.unlink(self.file.path)
            finally:
                self.files.close(self.file)
