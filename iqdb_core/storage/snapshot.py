"""The mapped reader of snapshot format 3. Opening costs the same whatever the number of records.

Nothing but the header, the section table and the configuration is read at open. Everything else is
verified, and where it is compressed decoded, in the 4 KiB blocks that an access touches, before a
byte of it is used.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, NamedTuple

from iqdb_core.errors import (
    DatabaseNotFoundError,
    FileIOError,
    UnsupportedFeatureError,
)
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    CONFIG,
    HEADER_BYTES,
    KNOWN_FEATURES_RO_COMPAT,
    VECTORS,
    Header,
)
from iqdb_core.storage.section import Blocks, Section, Sections
from iqdb_core.storage.stored_ids import StoredIds
from iqdb_core.storage.stored_metadata import StoredMetadata
from iqdb_core.storage.structure import check_config, check_header, check_section_table

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.records import Ids, MetadataColumns, RecordBatch
    from iqdb_core.storage.columns import GroupView
    from iqdb_core.storage.columns_reader import NumberPart
    from iqdb_core.types import VectorId


class VectorBlock(NamedTuple):
    """The vectors as kernels take them.

    Attributes:
        buffer: f32[n_rows, dim]; an empty one-dimensional array when there is no row.
        block_crcs: u32 per 4096-byte block of `buffer`, for kernels that verify what they use;
            None when `ensure_vectors` is what verifies.
        verified: a byte per block, shared with everything else that reads this snapshot.
        crc_prefix: the value with which the block checksums begin.
    """

    buffer: memoryview
    block_crcs: memoryview | None
    verified: bytearray | None
    crc_prefix: int


class Snapshot:
    """An open snapshot file, or the image of one in memory. Immutable; safe to use from several threads.

    The mapping lives as long as anything that was taken out of it, `close` or not. Truncating the
    file under the mapping (which no iqdb process does) makes the system end the process.
    """

    def __init__(
        self, image: memoryview, path: str = "<memory>", inode: tuple[int, int] | None = None
    ) -> None:
        """Check and index an image. Use `open` or `from_buffer`."""
        self.path = path
        self.inode = inode
        self.header: Header = check_header(bytes(image[:HEADER_BYTES]), len(image), path)
        self.n_rows = self.header.n_rows
        self.dim = self.header.dim
        self.metric = self.header.metric
        self.database_id = self.header.database_id
        self.identity = self.header.identity
        self.digest = ContentDigest.from_bytes(self.header.content_digest)
        table = image[self.header.section_table_offset :]
        self.sections = Sections(
            path,
            [
                Section(entry, image, self.database_id, path)
                for entry in check_section_table(bytes(table), self.header, path)
            ],
        )
        self.config: dict[str, Any] = check_config(bytes(self.sections[CONFIG].array()), self.header, path)
        self._ids = StoredIds(self.sections, self.header)
        self._metadata = StoredMetadata(self.sections, self.header)
        self.has_metadata = self._metadata.exists

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        files: FileSystem = OS_FILES,
        *,
        file: OpenFile | None = None,
    ) -> Snapshot:
        """Map the snapshot at `path` and check its header, section table and configuration.

        Args:
            path: the snapshot, or a symbolic link to it.
            files: the file layer.
            file: the snapshot, open already; it stays open and the caller closes it.

        Raises:
            DatabaseNotFoundError: there is no file.
            NotADatabaseError, UnsupportedVersionError, UnsupportedFeatureError, TruncatedError,
            ChecksumError, StructureError: what is there is no whole snapshot of this format.
            FileIOError: the system refused.
        """
        opened = None
        if file is None:
            resolved = files.resolve(path)
            try:
                file = opened = files.open_read(resolved)
            except FileIOError as error:
                if error.errno in {errno.ENOENT, errno.ENOTDIR}:
                    raise DatabaseNotFoundError(path) from error
                raise
        try:
            status = files.status(file)
            # An empty file cannot be mapped; the check of the header says what is wrong with it.
            image = memoryview(files.map_read(file, status.st_size) if status.st_size else b"")
        finally:
            if opened is not None:
                files.close(opened)
        return cls(image, file.path, (status.st_dev, status.st_ino))

    @classmethod
    def from_buffer(cls, buffer: bytes | bytearray | memoryview, path: str = "<memory>") -> Snapshot:
        """Open the image of a snapshot in memory, which must not change from then on."""
        return cls(memoryview(buffer).toreadonly(), path)

    def close(self) -> None:
        """Let go of the file. Arrays that were handed out stay valid; the snapshot does not."""
        self.sections.close()
        self._metadata.close()

    def check_writable(self) -> None:
        """Refuse to write to a database that uses features which this release does not know.

        Raises:
            UnsupportedFeatureError: an unknown ro_compat bit is set.
        """
        unknown = self.header.feature_ro_compat & ~KNOWN_FEATURES_RO_COMPAT
        if unknown:
            raise UnsupportedFeatureError(self.path, "ro_compat", unknown)

    def section(self, name: str) -> Section:
        """Return a section that must be there.

        Raises:
            ClosedError: the snapshot was closed.
        """
        return self.sections.part(name)

    def array(self, name: str, *, threads: int = 1) -> memoryview:
        """Return a whole section, verified and decoded, in its type and shape."""
        return self.section(name).array(threads=threads)

    # --- Vectors --------------------------------------------------------------------------------

    def vectors(self) -> VectorBlock:
        """Return all vectors for a kernel, without touching them.

        When `block_crcs` is None (the section is compressed), call `ensure_vectors` for the rows
        in question first: rows that were not asked for there are still zero.
        """
        section = self.section(VECTORS)
        if section.compressed:
            return VectorBlock(section.shaped(section.decoded()), None, None, 0)
        crcs, verified, prefix = section.blocks() if self.n_rows else Blocks(memoryview(b""), bytearray(), 0)
        return VectorBlock(section.shaped(section.unverified()), crcs, verified, prefix)

    def ensure_vectors(self, rows: Iterable[int] | None = None, *, threads: int = 1) -> None:
        """Verify and decode the vectors of `rows` (None: of all), so that their values may be used.

        Raises:
            ChecksumError, StructureError: they are damaged.
        """
        section = self.section(VECTORS)
        if rows is None:
            section.read(0, section.raw_bytes, threads=threads)
            return
        width = 4 * self.dim
        for row in rows:
            section.read(row * width, (row + 1) * width)

    def vector_bytes(self, row: int) -> memoryview:
        """Return the f32 components of one row as verified bytes."""
        width = 4 * self.dim
        return self.section(VECTORS).read(row * width, (row + 1) * width)

    def take_vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of `rows`, in that order, verified, as a new f32[len(rows), dim]."""
        import numpy as np

        self.ensure_vectors(rows.tolist())
        section = self.section(VECTORS)
        raw = section.decoded() if section.compressed else section.unverified()
        vectors: NDArray[np.float32] = np.frombuffer(raw, np.float32).reshape(self.n_rows, self.dim)[rows]
        return vectors

    def vectors_slice(self, start: int, stop: int, *, threads: int = 1) -> NDArray[np.float32]:
        """Return the vectors of rows start..stop, verified, as f32[stop - start, dim] without a copy."""
        import numpy as np

        width = 4 * self.dim
        raw = self.section(VECTORS).read(start * width, stop * width, threads=threads)
        return np.frombuffer(raw, np.float32).reshape(stop - start, self.dim)

    # --- Ids ------------------------------------------------------------------------------------

    def id_at(self, row: int) -> VectorId:
        """Return the id of a row in 0..n_rows-1."""
        return self._ids.at(row)

    def find(self, record_id: VectorId) -> int:
        """Return the row of an id, or -1. Only the blocks that a binary search touches are verified."""
        return self._ids.find(record_id)

    def find_many(self, ids: Ids) -> NDArray[np.int64]:
        """Return the row of each id, -1 where there is none, as i64[len(ids)].

        Raises:
            ChecksumError, StructureError: the stored ids are damaged.
        """
        return self._ids.find_many(ids)

    def ids_slice(self, start: int, stop: int) -> Ids:
        """Return the ids of rows start..stop; integers without a copy.

        Raises:
            ChecksumError, StructureError: they are damaged.
        """
        return self._ids.slice(start, stop)

    def ids_at(self, rows: NDArray[np.int64]) -> NDArray[np.uint64] | list[VectorId]:
        """Return the ids of `rows`: u64[len(rows)] when all stored ids are integers, else a list."""
        return self._ids.take(rows)

    # --- Metadata -------------------------------------------------------------------------------

    @property
    def n_groups(self) -> int:
        """The number of metadata groups, 0 when no record has metadata."""
        return self._metadata.n_groups

    def group_rows(self, group: int) -> tuple[int, int]:
        """Return the first row of a group and the one after its last."""
        return self._metadata.group_rows(group)

    def group_of(self, row: int) -> int:
        """Return the number of the group that holds a row in 0..n_rows-1."""
        return self._metadata.group_of(row)

    def group(self, group: int) -> GroupView:
        """Return the metadata of one group, of which nothing is read before it is asked for."""
        return self._metadata.group(group)

    def groups(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, GroupView]]:
        """Yield first row, end row and view of every group that has rows in start..stop."""
        return self._metadata.groups(start, stop)

    def numbers(self, key: str) -> list[NumberPart]:
        """Return all numbers that rows have under a key, group by group."""
        return self._metadata.numbers(key)

    def group_blob(self, group: int) -> memoryview:
        """Return the stored form of one group, verified and decoded, as it was encoded."""
        return self._metadata.group_blob(group)

    def metadata_at(self, row: int) -> dict[str, Any] | None:
        """Return the metadata of a row in 0..n_rows-1, None when it has none."""
        return self._metadata.at(row)

    def metadata_slice(self, start: int, stop: int) -> MetadataColumns | None:
        """Return the metadata of rows start..stop; None when no record of the snapshot has any."""
        return self._metadata.slice(start, stop)

    # --- Records --------------------------------------------------------------------------------

    def slice(self, start: int, stop: int, *, threads: int = 1) -> RecordBatch:
        """Return the records of rows start..stop, verified. Vectors and integer ids are not copied."""
        from iqdb_core.records import RecordBatch

        vectors = self.vectors_slice(start, stop, threads=threads)
        return RecordBatch(self.ids_slice(start, stop), vectors, self.metadata_slice(start, stop), start)

    def take(self, rows: NDArray[np.int64]) -> RecordBatch:
        """Return the records at `rows`, in that order, verified.

        Memory is bounded by the records and by one metadata group.
        """
        from iqdb_core.records import Ids, RecordBatch

        vectors = self.take_vectors(rows)
        ids_at = self.ids_at(rows)
        ids = Ids.from_list(ids_at) if isinstance(ids_at, list) else Ids.from_u64(ids_at)
        return RecordBatch(ids, vectors, self._metadata.take(rows))
