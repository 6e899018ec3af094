"""Writes a snapshot of format 2 that iqdb 1.x opens, index configuration included.

The records are gone through twice: first everything is checked and measured, so that what 1.x cannot hold
is refused before a byte is written, then they are written. The file gets its name when it is complete,
durable and read back.
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core import _kernels
from iqdb_core.config import HnswConfig, IqdbConfig, IvfConfig
from iqdb_core.errors import DatabaseExistsError, LegacyDamagedError, NotRepresentableError
from iqdb_core.legacy import layout
from iqdb_core.legacy.values import encode_id, encode_metadata
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.layout import LOG_SUFFIX

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from iqdb_core.records import RecordBatch

    Batches = Callable[[], Iterator[RecordBatch]]

_VERSION = 2
_BUFFER_BYTES = 4 << 20
# 1.x quantises with 256 centroids, and cannot search before it has as many rows.
_PQ_CENTROIDS = 256


@dataclass(frozen=True, slots=True)
class LegacyExport:
    """What was written.

    Attributes:
        n_rows: the number of records.
        file_bytes: the length of the file.
        notes: what 1.x will not have or do, a sentence each.
    """

    n_rows: int
    file_bytes: int
    notes: tuple[str, ...]


def write_legacy(
    path: str | os.PathLike[str],
    config: IqdbConfig,
    batches: Batches,
    *,
    progress: Callable[[int], object] | None = None,
    files: FileSystem = OS_FILES,
) -> LegacyExport:
    """Write a snapshot of format 2, uncompressed, for iqdb 1.x.

    Args:
        path: where nothing may be yet, nor a log beside it.
        config: dimension, metric and index.
        batches: returns the records, the same at each call.
        progress: is called now and then with the number of records written.
        files: the file layer.

    Raises:
        DatabaseExistsError: something is at the path, or a log that 1.x would replay onto the snapshot.
        NotRepresentableError: 1.x cannot hold something; nothing was written.
        FileIOError: the system refused; nothing is left.
    """
    real = files.resolve(path)
    for taken in (real, real + LOG_SUFFIX):
        if files.exists(taken):
            raise DatabaseExistsError(taken)
    head = encode_index(config, real)
    survey = _Survey(real)
    for batch in batches():
        survey.add(batch)
    survey.check_ids(batches)
    payload_bytes = len(head) + layout.PAYLOAD_TAIL.size + survey.row_bytes
    start = b"".join(
        (
            layout.PREAMBLE.pack(layout.SCHEME_NONE, payload_bytes),
            head,
            layout.PAYLOAD_TAIL.pack(config.dim, config.metric.tag, survey.n_rows),
        )
    )
    files.sweep_temporaries(real)
    file = files.create_temporary(real)
    try:
        out = _Region(file, files)
        out.write(start)
        written = 0
        for batch in batches():
            for piece in _encoded(batch):
                out.write(piece)
            written += len(batch)
            if progress is not None:
                progress(written)
        out.flush()
        assert written == survey.n_rows, "the records are the same at each call"
        assert out.size == layout.PREAMBLE.size + payload_bytes, "what was measured is what was written"
        header = layout.HEADER_HEAD.pack(layout.SNAPSHOT_MAGIC, _VERSION, len(layout.INDEX_TYPE))
        header += layout.INDEX_TYPE
        header += layout.HEADER_TAIL.pack(config.dim, config.metric.tag, survey.n_rows, out.crc32)
        files.write(file, header, 0)
        files.sync(file)
        _read_back(file, files, header, out)
        files.install_new(file.path, real)
        file.path = real
        files.sync_directory(real)
    except BaseException:
        if file.path != real:
            files.unlink(file.path)
        raise
    finally:
        files.release(file)
    notes = (*survey.notes(), *_index_notes(config, survey.n_rows), *_other_notes(config))
    return LegacyExport(survey.n_rows, len(header) + out.size, notes)


# --- Index configuration ------------------------------------------------------------------------


def encode_index(config: IqdbConfig, path: str) -> bytes:
    """Return what begins the payload, up to the index settings.

    Raises:
        NotRepresentableError: 1.x refuses to open a database with these settings.
    """
    index = config.index
    head = layout.PAYLOAD_HEAD.pack(layout.PAYLOAD_MAGIC, layout.PAYLOAD_VERSION, index.kind.tag)
    hint = '"iqdb optimize" changes it'
    if isinstance(index, HnswConfig):
        if index.ef_construction < index.m:
            found, most = index.ef_construction, f"at least m ({index.m}) in iqdb 1.x"
            raise NotRepresentableError(path, "index setting ef_construction", found, most, hint=hint)
        return head + layout.HNSW_SETTINGS.pack(
            index.m, index.ef_construction, index.ef_search, index.filter_widen, index.seed
        )
    if isinstance(index, IvfConfig):
        if index.n_probes > index.n_clusters:
            found, most = index.n_probes, f"at most n_clusters ({index.n_clusters}) in iqdb 1.x"
            raise NotRepresentableError(path, "index setting n_probes", found, most, hint=hint)
        if index.use_pq and index.pq_subvectors is None:
            expected = "a number in iqdb 1.x, which does not choose one"
            raise NotRepresentableError(
                path, "index setting pq_subvectors", "left to be chosen", expected, hint=hint
            )
        head += layout.IVF_SETTINGS.pack(
            index.n_clusters,
            index.n_probes,
            index.training_sample_size,
            index.use_pq,
            index.pq_subvectors is not None,
        )
        if index.pq_subvectors is not None:
            head += layout.U64.pack(index.pq_subvectors)
        return head + layout.IVF_SETTINGS_END.pack(index.pq_refine_factor, index.seed)
    return head


def _index_notes(config: IqdbConfig, n_rows: int) -> list[str]:
    """Return what 1.x cannot do with an index, although it opens the file."""
    index = config.index
    if not isinstance(index, IvfConfig) or n_rows == 0:
        return []
    notes = []
    if n_rows < index.n_clusters:
        notes.append(f"1.x refuses to search: ivf has {index.n_clusters} lists and {n_rows} records")
    if index.use_pq and n_rows < _PQ_CENTROIDS:
        notes.append(f"1.x refuses to search: product quantisation needs {_PQ_CENTROIDS} records there")
    return notes


def _other_notes(config: IqdbConfig) -> list[str]:
    if not config.provenance:
        return []
    return [f"1.x has no place for {', '.join(sorted(config.provenance))}; left out"]


# --- Records ------------------------------------------------------------------------------------


class _Survey:
    """What is known of the records before they are written: that 1.x can hold them, and their length."""

    def __init__(self, path: str) -> None:
        self.n_rows = 0
        self.row_bytes = 0
        self._path = path
        # Eight bytes an id rather than the id: enough to see that no two are the same.
        self._numbers = array("Q")
        self._text_hashes = array("q")
        self._byte_hashes = array("q")

    def add(self, batch: RecordBatch) -> None:
        """Take the records of a batch."""
        self.n_rows += len(batch)
        if batch.ids.u64 is not None:
            self._numbers.frombytes(np.ascontiguousarray(batch.ids.u64, np.uint64).tobytes())
        if _plain(batch):
            self.row_bytes += len(batch) * (10 + 4 * batch.vectors.shape[1])
            return
        self.row_bytes += 4 * batch.vectors.size
        for value in batch.ids.to_list():
            self.row_bytes += len(encode_id(value))
            if isinstance(value, str):
                self._text_hashes.append(hash(value.encode()))
            elif isinstance(value, bytes):
                self._byte_hashes.append(hash(value))
            elif batch.ids.u64 is None:
                self._numbers.append(value)
        if batch.metadata is None:
            self.row_bytes += len(batch)
        else:
            self.row_bytes += sum(len(encode_metadata(row)) for row in batch.metadata.to_dicts())

    def check_ids(self, batches: Batches) -> None:
        """Compare the ids with one another: those of a damaged database may be the same, too.

        Raises:
            NotRepresentableError: two ids are or become the same.
        """
        if not _kernels.ids_ascend(self._numbers, None):
            numbers, counts = np.unique(np.frombuffer(self._numbers, np.uint64), return_counts=True)
            if len(numbers) != len(self._numbers):
                raise self._doubled(int(numbers[np.argmax(counts > 1)]))
        hashes, counts = np.unique(
            np.array(self._text_hashes + self._byte_hashes, np.int64), return_counts=True
        )
        several = set(hashes[counts > 1].tolist())
        if not several:
            return
        seen: dict[bytes, type] = {}
        for batch in batches():
            for value in batch.ids.to_list():
                if isinstance(value, int):
                    continue
                raw = value.encode() if isinstance(value, str) else value
                if hash(raw) not in several:
                    continue
                if raw not in seen:
                    seen[raw] = type(value)
                elif seen[raw] is type(value):
                    raise self._doubled(value)
                else:
                    raise NotRepresentableError(
                        self._path,
                        "id",
                        f"the text {raw.decode()!r} and the bytes {raw!r}",
                        "one of them: in iqdb 1.x a text is its bytes",
                        hint="delete or rename one of the two records",
                    )

    def _doubled(self, record_id: object) -> NotRepresentableError:
        hint = 'the database is damaged; "iqdb verify" says where'
        return NotRepresentableError(self._path, "id", f"{record_id!r} twice", "each id once", hint=hint)

    def notes(self) -> list[str]:
        """Return what the records lose."""
        if not self._text_hashes:
            return []
        return [f"{len(self._text_hashes)} text ids are written as bytes, which is what 1.x has for them"]


def _plain(batch: RecordBatch) -> bool:
    return batch.ids.is_u64 and (batch.metadata is None or not batch.metadata.any_mapping)


def _encoded(batch: RecordBatch) -> Iterator[bytes]:
    """Yield the rows of a batch as a snapshot holds them, in pieces."""
    vectors = np.ascontiguousarray(batch.vectors, "<f4")
    if _plain(batch):
        dtype = [("kind", "u1"), ("id", "<u8"), ("vector", "<f4", (vectors.shape[1],)), ("has", "u1")]
        rows: Any = np.zeros(len(batch), np.dtype(dtype))
        rows["id"] = batch.ids.u64
        rows["vector"] = vectors
        yield rows.tobytes()
        return
    ids = batch.ids.to_list()
    metadata = [None] * len(batch) if batch.metadata is None else batch.metadata.to_dicts()
    for record_id, vector, mapping in zip(ids, vectors, metadata, strict=True):
        yield encode_id(record_id) + vector.tobytes() + encode_metadata(mapping)


class _Region:
    """The payload region on its way into the file, behind the place of the header."""

    def __init__(self, file: OpenFile, files: FileSystem) -> None:
        self._file = file
        self._files = files
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self.size = 0
        self.crc32 = 0

    def write(self, data: bytes) -> None:
        """Take bytes."""
        self._pending.append(data)
        self._pending_bytes += len(data)
        if self._pending_bytes >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is still here."""
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        self._files.write(self._file, data, layout.HEADER_BYTES + self.size)
        self.crc32 = zlib.crc32(data, self.crc32)
        self.size += len(data)


def _read_back(file: OpenFile, files: FileSystem, header: bytes, region: _Region) -> None:
    """Compare what is in the file with what was written, before it gets its name."""
    crc32 = 0
    at = len(header)
    stop = at + region.size
    while at < stop:
        data = files.read(file, min(_BUFFER_BYTES, stop - at), at)
        if not data:
            break
        crc32 = zlib.crc32(data, crc32)
        at += len(data)
    found = files.read(file, len(header), 0)
    size = files.status(file).st_size
    if found != header or crc32 != region.crc32 or size != stop:
        raise LegacyDamagedError(
            file.shown,
            "the file just written",
            0,
            expected=f"{stop} bytes with CRC-32 {region.crc32:08x}",
            found=f"{size} bytes with CRC-32 {crc32:08x}",
            hint="it was thrown away; the disk does not keep what is written",
        )
