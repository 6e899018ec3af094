"""The mapped reader of snapshot format 3. Opening costs the same whatever the number of records.

Nothing but the header, the section table and the configuration is read at open. Everything else is
verified, and where it is compressed decoded, in the 4 KiB blocks that an access touches, before a
byte of it is used.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from iqdb_core.errors import (
    ClosedError,
    DatabaseNotFoundError,
    FileIOError,
    StructureError,
    UnsupportedFeatureError,
)
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import (
    CONFIG,
    HEADER_BYTES,
    ID_BYTES,
    ID_ENCODING_U64,
    ID_KIND_BYTES,
    ID_KIND_INT,
    ID_KIND_STR,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
    KNOWN_FEATURES_RO_COMPAT,
    MAX_ID_BYTES,
    META_DATA,
    META_GROUPS,
    META_ROWS,
    VECTORS,
    Header,
)
from iqdb_core.storage.section import Blocks, Section
from iqdb_core.storage.structure import check_config, check_header, check_section_table

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from iqdb_core.records import Ids, MetadataColumns, RecordBatch
    from iqdb_core.storage.columns import GroupView
    from iqdb_core.types import VectorId

_U32 = Struct("<I")
_U64 = Struct("<Q")
_U64_PAIR = Struct("<QQ")
_MAX_U64 = 2**64 - 1
_CACHED_GROUPS = 64
# Up to this many ids, a binary search each touches less than verifying all ids does.
_FEW_IDS = 64


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
        self.sections: dict[str, Section] = {
            entry.name: Section(entry, image, self.database_id, path)
            for entry in check_section_table(bytes(table), self.header, path)
        }
        self.config: dict[str, Any] = check_config(bytes(self.sections[CONFIG].array()), self.header, path)
        self.has_metadata = META_DATA in self.sections
        self._groups: dict[int, GroupView] = {}
        self._group_bounds: tuple[memoryview, memoryview] | None = None

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
        self.sections = {}
        self._groups = {}
        self._group_bounds = None

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
        try:
            return self.sections[name]
        except KeyError:
            if not self.sections:
                raise ClosedError(self.path) from None
            raise

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

    def vectors_slice(self, start: int, stop: int, *, threads: int = 1) -> NDArray[np.float32]:
        """Return the vectors of rows start..stop, verified, as f32[stop - start, dim] without a copy."""
        import numpy as np

        width = 4 * self.dim
        raw = self.section(VECTORS).read(start * width, stop * width, threads=threads)
        return np.frombuffer(raw, np.float32).reshape(stop - start, self.dim)

    # --- Ids ------------------------------------------------------------------------------------

    def id_at(self, row: int) -> VectorId:
        """Return the id of a row in 0..n_rows-1."""
        if self.header.id_encoding == ID_ENCODING_U64:
            number: int = _U64.unpack(self.section(IDS).read(8 * row, 8 * row + 8))[0]
            return number
        kind, data = self._var_id(row)
        if kind == ID_KIND_INT:
            return int.from_bytes(data, "little")
        if kind == ID_KIND_BYTES:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise StructureError(self.path, f"the id of row {row}", "UTF-8", str(error)) from error

    def find(self, record_id: VectorId) -> int:
        """Return the row of an id, or -1. Only the blocks that a binary search touches are verified."""
        ordered = ID_ORDER in self.sections
        order = self.section(ID_ORDER) if ordered else None
        low, high = 0, self.n_rows
        if self.header.id_encoding == ID_ENCODING_U64:
            if type(record_id) is not int or not 0 <= record_id <= _MAX_U64:
                return -1
            ids = self.section(IDS)
            if order is None and high:
                # Strictly ascending integers: row r holds at least ids[0] + r. Where they are
                # consecutive, as row numbers are, the first probe hits.
                first: int = _U64.unpack(ids.read(0, 8))[0]
                high = min(high, record_id - first + 1)
            probe = high - 1
            while low < high:
                row = self._ordered_row(order, probe)
                found: int = _U64.unpack(ids.read(8 * row, 8 * row + 8))[0]
                if found == record_id:
                    return row
                if found < record_id:
                    low = probe + 1
                else:
                    high = probe
                probe = (low + high) >> 1
            return -1
        key = _id_key(record_id)
        while low < high:
            probe = (low + high) >> 1
            row = self._ordered_row(order, probe)
            kind, data = self._var_id(row)
            # Integers order by value: their bytes reversed compare as big-endian numbers do.
            found_key = (kind, data[::-1] if kind == ID_KIND_INT else data)
            if found_key == key:
                return row
            if found_key < key:
                low = probe + 1
            else:
                high = probe
        return -1

    def find_many(self, ids: Ids) -> NDArray[np.int64]:
        """Return the row of each id, -1 where there is none, as i64[len(ids)].

        Raises:
            ChecksumError, StructureError: the stored ids are damaged.
        """
        import numpy as np

        from iqdb_core import _kernels

        rows = np.full(len(ids), -1, np.int64)
        if not len(ids) or not self.n_rows:
            return rows
        if len(ids) <= _FEW_IDS:
            rows[:] = [self.find(record_id) for record_id in ids.to_list()]
            return rows
        order = self.array(ID_ORDER) if ID_ORDER in self.sections else None
        try:
            if self.header.id_encoding == ID_ENCODING_U64:
                if ids.u64 is not None:
                    _kernels.lookup_u64(self.array(IDS), order, np.ascontiguousarray(ids.u64), rows)
                else:
                    self._find_integers(ids, order, rows)
            else:
                kinds, offsets, data = map(np.ascontiguousarray, ids.as_var())
                _kernels.lookup_var(
                    self.array(ID_KINDS),
                    self.array(ID_OFFSETS),
                    self.array(ID_BYTES),
                    order,
                    kinds,
                    offsets,
                    data,
                    rows,
                )
        except ValueError as error:
            raise StructureError(self.path, "ids", "offsets and rows in range", str(error)) from error
        return rows

    def ids_slice(self, start: int, stop: int) -> Ids:
        """Return the ids of rows start..stop; integers without a copy.

        Raises:
            ChecksumError, StructureError: they are damaged.
        """
        import numpy as np

        from iqdb_core.records import Ids

        if self.header.id_encoding == ID_ENCODING_U64:
            return Ids.from_u64(np.frombuffer(self.section(IDS).read(8 * start, 8 * stop), np.uint64))
        kinds = np.frombuffer(self.section(ID_KINDS).read(start, stop), np.uint8)
        offsets = np.frombuffer(self.section(ID_OFFSETS).read(8 * start, 8 * stop + 8), np.uint64)
        if np.any(offsets[1:] < offsets[:-1]):
            raise StructureError(self.path, "ids.offsets", "ascending offsets", f"others in {start}..{stop}")
        first, last = int(offsets[0]), int(offsets[-1])
        data = np.frombuffer(self.section(ID_BYTES).read(first, last), np.uint8)
        # The stored form is kept even when all ids here are integers; `from_var` normalises it.
        relative = offsets - offsets[0]
        problem = Ids(None, kinds, relative, data).first_problem()
        if problem is not None:
            row, reason = problem
            raise StructureError(self.path, f"the id of row {start + row}", "an id", f"one that {reason}")
        return Ids.from_var(kinds, relative, data)

    def ids_at(self, rows: NDArray[np.int64]) -> NDArray[np.uint64] | list[VectorId]:
        """Return the ids of `rows`: u64[len(rows)] when all stored ids are integers, else a list."""
        import numpy as np

        if self.header.id_encoding != ID_ENCODING_U64:
            return [self.id_at(row) for row in rows.tolist()]
        if len(rows) <= _FEW_IDS:
            return np.array([self.id_at(row) for row in rows.tolist()], np.uint64)
        ids: NDArray[np.uint64] = np.frombuffer(self.array(IDS), np.uint64)[rows]
        return ids

    def _find_integers(self, ids: Ids, order: memoryview | None, rows: NDArray[np.int64]) -> None:
        """Look up ids of several kinds where all stored ones are integers."""
        import numpy as np

        from iqdb_core import _kernels

        kinds, _, _ = ids.as_var()
        places = np.flatnonzero(kinds == ID_KIND_INT)
        if len(places):
            integers = ids.take(places).u64
            assert integers is not None
            found = np.empty(len(places), np.int64)
            _kernels.lookup_u64(self.array(IDS), order, np.ascontiguousarray(integers), found)
            rows[places] = found

    def _ordered_row(self, order: Section | None, place: int) -> int:
        if order is None:
            return place
        row: int = _U32.unpack(order.read(4 * place, 4 * place + 4))[0]
        if row >= self.n_rows:
            raise StructureError(self.path, f"ids.order[{place}]", f"a row below {self.n_rows}", row)
        return row

    def _var_id(self, row: int) -> tuple[int, bytes]:
        kind = self.section(ID_KINDS).read(row, row + 1)[0]
        start, stop = _U64_PAIR.unpack(self.section(ID_OFFSETS).read(8 * row, 8 * row + 16))
        size = stop - start
        if kind > ID_KIND_STR or not 1 <= size <= MAX_ID_BYTES or (kind == ID_KIND_INT and size != 8):
            raise StructureError(self.path, f"the id of row {row}", "an id", f"kind {kind} of {size} bytes")
        return kind, bytes(self.section(ID_BYTES).read(start, stop))

    # --- Metadata -------------------------------------------------------------------------------

    @property
    def n_groups(self) -> int:
        """The number of metadata groups, 0 when no record has metadata."""
        return self.section(META_ROWS).shape[0] - 1 if self.has_metadata else 0

    def group_rows(self, group: int) -> tuple[int, int]:
        """Return the first row of a group and the one after its last."""
        rows, _ = self._bounds()
        return rows[group], rows[group + 1]

    def group_of(self, row: int) -> int:
        """Return the number of the group that holds a row in 0..n_rows-1."""
        return bisect_right(self._bounds()[0], row) - 1

    def group(self, group: int) -> GroupView:
        """Return the metadata of one group, of which nothing is read before it is asked for."""
        view = self._groups.get(group)
        if view is None:
            view = self._open_group(group)
            if len(self._groups) >= _CACHED_GROUPS:
                self._groups = {}
            self._groups[group] = view
        return view

    def groups(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, int, GroupView]]:
        """Yield first row, end row and view of every group that has rows in start..stop."""
        stop = self.n_rows if stop is None else stop
        if not self.has_metadata or start >= stop:
            return
        for number in range(self.group_of(start), self.n_groups):
            first, last = self.group_rows(number)
            if first >= stop:
                return
            yield first, last, self.group(number)

    def group_blob(self, group: int) -> memoryview:
        """Return the stored form of one group, verified and decoded, as it was encoded."""
        _, offsets = self._bounds()
        return self.section(META_DATA).read(offsets[group], offsets[group + 1])

    def metadata_at(self, row: int) -> dict[str, Any] | None:
        """Return the metadata of a row in 0..n_rows-1, None when it has none."""
        if not self.has_metadata:
            return None
        group = self.group_of(row)
        first, last = self.group_rows(group)
        if not first <= row < last:
            raise StructureError(self.path, "meta.rows", f"a group that holds row {row}", f"{first}..{last}")
        metadata: dict[str, Any] | None = self.group(group).row(row - first)
        return metadata

    def metadata_slice(self, start: int, stop: int) -> MetadataColumns | None:
        """Return the metadata of rows start..stop; None when no record of the snapshot has any."""
        from iqdb_core.records import MetadataColumns

        if not self.has_metadata:
            return None
        if start >= stop:
            return MetadataColumns.none(0)
        parts = [
            view.to_columns().slice(max(start - first, 0), min(stop, last) - first)
            for first, last, view in self.groups(start, stop)
        ]
        return MetadataColumns.concat(parts)

    def _bounds(self) -> tuple[memoryview, memoryview]:
        """Return the first rows and the byte offsets of the groups, which are checked once."""
        bounds = self._group_bounds
        if bounds is None:
            rows, offsets = self.array(META_ROWS), self.array(META_GROUPS)
            for name, array, end in (
                (META_ROWS, rows, self.n_rows),
                (META_GROUPS, offsets, self.section(META_DATA).raw_bytes),
            ):
                ascending = all(array[i] < array[i + 1] for i in range(len(array) - 1))
                if array[0] != 0 or array[-1] != end or not ascending:
                    raise StructureError(self.path, name, f"ascending from 0 to {end}", "something else")
            bounds = self._group_bounds = rows, offsets
        return bounds

    def _open_group(self, group: int) -> GroupView:
        from iqdb_core.storage.columns import GroupView

        rows, offsets = self._bounds()
        start, stop = offsets[group], offsets[group + 1]
        section = self.section(META_DATA)

        def ensure(first: int, last: int) -> None:
            section.read(start + first, start + last)

        blob = section.decoded() if section.compressed else section.unverified()
        view = GroupView(blob[start:stop], self.path, f"metadata group {group}", ensure)
        if view.n_rows != rows[group + 1] - rows[group]:
            raise StructureError(
                self.path, f"metadata group {group}", f"{rows[group + 1] - rows[group]} rows", view.n_rows
            )
        return view

    # --- Records --------------------------------------------------------------------------------

    def slice(self, start: int, stop: int, *, threads: int = 1) -> RecordBatch:
        """Return the records of rows start..stop, verified. Vectors and integer ids are not copied."""
        from iqdb_core.records import RecordBatch

        return RecordBatch(
            self.ids_slice(start, stop),
            self.vectors_slice(start, stop, threads=threads),
            self.metadata_slice(start, stop),
            start,
        )

    def take(self, rows: NDArray[np.int64]) -> RecordBatch:
        """Return the records at `rows`, in that order, verified.

        Memory is bounded by the records and by one metadata group. `rows` in about ascending order
        read each group once.
        """
        import numpy as np

        from iqdb_core.records import Ids, MetadataColumns, RecordBatch

        self.ensure_vectors(rows.tolist())
        section = self.section(VECTORS)
        raw = section.decoded() if section.compressed else section.unverified()
        vectors = np.frombuffer(raw, np.float32).reshape(self.n_rows, self.dim)[rows]
        ids_at = self.ids_at(rows)
        ids = Ids.from_list(ids_at) if isinstance(ids_at, list) else Ids.from_u64(ids_at)
        if not self.has_metadata:
            return RecordBatch(ids, vectors)
        first_rows = np.frombuffer(self._bounds()[0], np.uint64).astype(np.int64)
        groups = np.searchsorted(first_rows, rows, side="right") - 1
        order = np.argsort(groups, kind="stable")
        parts = []
        for number in np.unique(groups).tolist():
            wanted = rows[groups == number] - first_rows[number]
            parts.append(self.group(number).to_columns().take(wanted))
        if not parts:
            return RecordBatch(ids, vectors, MetadataColumns.none(0))
        places = np.empty(len(rows), np.int64)
        places[order] = np.arange(len(rows))
        return RecordBatch(ids, vectors, MetadataColumns.concat(parts).take(places))


def _id_key(record_id: VectorId) -> tuple[int, bytes]:
    """Return what orders ids: the kind, then bytes that compare as the ids do."""
    if isinstance(record_id, str):
        return ID_KIND_STR, record_id.encode()
    if isinstance(record_id, bytes):
        return ID_KIND_BYTES, record_id
    return ID_KIND_INT, record_id.to_bytes(8, "big")
