"""The bodies of log frames as pure bytes: records in, bytes out, and back with every check.

Log format, section 3. A body that breaks a rule, whatever its checksum says, gives a `FrameError`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from iqdb_core import _kernels
from iqdb_core.errors import StructureError
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage.columns import GroupView, encode_group
from iqdb_core.storage.layout import (
    FRAME_DELETE,
    FRAME_FOLD,
    FRAME_UPSERT,
    GROUP_ROWS,
    ID_ENCODING_U64,
    ID_ENCODING_VAR,
    padded,
)
from iqdb_core.storage.single_record import decode_single_upsert

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.types import MetadataValue, VectorId

Part: TypeAlias = bytes | memoryview

_UPSERT = struct.Struct("<QQ")
_DELETE = struct.Struct("<QQ")
_FOLD = struct.Struct("<QQ")
_IDS = struct.Struct("<II")
_BODY_HEADER_BYTES = 16
_GATHERED_ROWS = 4096
_GATHERED_COMPONENTS = 4 << 20


class FrameError(ValueError):
    """A body is not what its frame's header says, or holds what may not be stored."""


class UpsertFrame(NamedTuple):
    """Records to insert or replace, in this order; the last of those with one id decides."""

    batch: RecordBatch


class DeleteFrame(NamedTuple):
    """Ids of records to remove where they are there."""

    ids: Ids


class FoldFrame(NamedTuple):
    """All frames before this one are in the snapshot with this identity."""

    snapshot_identity: int


Frame: TypeAlias = UpsertFrame | DeleteFrame | FoldFrame


class SingleUpserts:
    """Upserts of one record each, gathered from frames that follow one another into one batch.

    Replaying them one by one would spend most of the time on making arrays of length one.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._ids: list[VectorId] = []
        self._vectors: list[memoryview] = []
        self._mappings: list[dict[str, MetadataValue] | None] = []

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def full(self) -> bool:
        """True when the batch should be taken before more is added."""
        return len(self._ids) >= _GATHERED_ROWS or len(self._ids) * self._dim >= _GATHERED_COMPONENTS

    def add(self, body: memoryview) -> bool:
        """Add the record of an upsert's body; False when it is one for the general decoder."""
        record = decode_single_upsert(body, 4 * self._dim)
        if record is None or _kernels.check_finite(record[1].cast("f")) >= 0:
            return False
        record_id, vector, mapping = record
        self._ids.append(record_id)
        self._vectors.append(vector)
        self._mappings.append(mapping)
        return True

    def take(self) -> UpsertFrame:
        """Return the records so far, in order, and begin anew."""
        ids, vectors, mappings = self._ids, self._vectors, self._mappings
        self._ids, self._vectors, self._mappings = [], [], []
        metadata = None
        if any(mapping is not None for mapping in mappings):
            metadata = MetadataColumns.from_dicts(mappings)
        array = np.frombuffer(b"".join(vectors), np.float32).reshape(len(ids), self._dim)
        return UpsertFrame(RecordBatch(Ids.from_list(ids), array, metadata))


def encode_upsert(ids: Ids, vectors: NDArray[np.float32], metadata: MetadataColumns | None) -> list[Part]:
    """Return the parts of an upsert's body, to be written one after the other."""
    id_parts = _encode_ids(ids)
    metadata_parts = _encode_metadata(metadata)
    raw = np.ascontiguousarray(vectors, np.float32).data.cast("B")
    return [
        _UPSERT.pack(_size(id_parts), _size(metadata_parts)),
        *id_parts,
        raw,
        bytes(-len(raw) % 8),
        *metadata_parts,
    ]


def encode_delete(ids: Ids) -> list[Part]:
    """Return the parts of a deletion's body."""
    parts = _encode_ids(ids)
    return [_DELETE.pack(_size(parts), 0), *parts]


def encode_fold(snapshot_identity: int) -> list[Part]:
    """Return the body of a fold frame."""
    return [_FOLD.pack(snapshot_identity, 0)]


def decode_body(type_: int, n_records: int, body: memoryview, dim: int, path: str) -> Frame:
    """Decode and check the body of a frame whose checksum is right.

    Arrays of the result are views of `body` where they can be.

    Raises:
        FrameError: it breaks a rule of the format, or a limit.
    """
    try:
        if type_ == FRAME_UPSERT:
            return _decode_upsert(n_records, body, dim, path)
        if type_ == FRAME_DELETE:
            return _decode_delete(n_records, body)
        if type_ == FRAME_FOLD:
            return _decode_fold(n_records, body)
    except StructureError as error:
        raise FrameError(f"{error.part} is {error.found}, expected {error.expected}") from error
    raise FrameError(f"unknown type {type_}")


def _decode_upsert(n_records: int, body: memoryview, dim: int, path: str) -> UpsertFrame:
    if len(body) < _BODY_HEADER_BYTES or not n_records:
        raise FrameError(f"an upsert of {n_records} records in {len(body)} bytes")
    ids_bytes, metadata_bytes = _UPSERT.unpack_from(body)
    vectors_at = _BODY_HEADER_BYTES + ids_bytes
    vectors_end = vectors_at + 4 * dim * n_records
    metadata_at = padded(vectors_end, 8)
    if ids_bytes % 8 or metadata_bytes % 8 or metadata_at + metadata_bytes != len(body):
        raise FrameError(f"parts of {ids_bytes} and {metadata_bytes} bytes do not fill the body")
    ids = _decode_ids(n_records, body[_BODY_HEADER_BYTES:vectors_at])
    vectors = np.frombuffer(body[vectors_at:vectors_end], np.float32).reshape(n_records, dim)
    component = _kernels.check_finite(vectors)
    if component >= 0:
        raise FrameError(f"component {component % dim} of record {component // dim} is not finite")
    if any(body[vectors_end:metadata_at]):
        raise FrameError("padding behind the vectors is not zero")
    metadata = None
    if metadata_bytes:
        metadata = _decode_metadata(n_records, body[metadata_at:], path)
    return UpsertFrame(RecordBatch(ids, vectors, metadata))


def _decode_delete(n_records: int, body: memoryview) -> DeleteFrame:
    if len(body) < _BODY_HEADER_BYTES or not n_records:
        raise FrameError(f"a deletion of {n_records} ids in {len(body)} bytes")
    ids_bytes, reserved = _DELETE.unpack_from(body)
    if ids_bytes != len(body) - _BODY_HEADER_BYTES or reserved:
        raise FrameError(f"ids of {ids_bytes} bytes do not fill the body")
    return DeleteFrame(_decode_ids(n_records, body[_BODY_HEADER_BYTES:]))


def _decode_fold(n_records: int, body: memoryview) -> FoldFrame:
    if len(body) != _FOLD.size or n_records:
        raise FrameError(f"a fold frame of {n_records} records in {len(body)} bytes")
    snapshot_identity, reserved = _FOLD.unpack(body)
    if reserved:
        raise FrameError("reserved bytes of the fold frame are not zero")
    return FoldFrame(snapshot_identity)


def _encode_ids(ids: Ids) -> list[Part]:
    if ids.u64 is not None:
        return [_IDS.pack(ID_ENCODING_U64, 0), np.ascontiguousarray(ids.u64).data.cast("B")]
    kinds, offsets, data = ids.as_var()
    stored = np.ascontiguousarray(data[int(offsets[0]) : int(offsets[-1])])
    return [
        _IDS.pack(ID_ENCODING_VAR, 0),
        (offsets - offsets[0]).data.cast("B"),
        np.ascontiguousarray(kinds).data.cast("B"),
        bytes(-len(kinds) % 8),
        stored.data.cast("B"),
        bytes(-len(stored) % 8),
    ]


def _decode_ids(count: int, block: memoryview) -> Ids:
    if len(block) < _IDS.size:
        raise FrameError(f"ids of {len(block)} bytes")
    encoding, reserved = _IDS.unpack_from(block)
    if reserved or encoding > ID_ENCODING_VAR:
        raise FrameError(f"ids of encoding {encoding}")
    rest = block[_IDS.size :]
    if encoding == ID_ENCODING_U64:
        if len(rest) != 8 * count:
            raise FrameError(f"{len(rest)} bytes for {count} integer ids")
        return Ids.from_u64(np.frombuffer(rest, np.uint64))
    kinds_at = 8 * (count + 1)
    data_at = kinds_at + padded(count, 8)
    if data_at > len(rest):
        raise FrameError(f"{len(rest)} bytes for {count} ids")
    offsets = np.frombuffer(rest[:kinds_at], np.uint64)
    kinds = np.frombuffer(rest[kinds_at : kinds_at + count], np.uint8)
    data_bytes = int(offsets[-1])
    if padded(data_bytes, 8) != len(rest) - data_at:
        raise FrameError(f"{data_bytes} bytes of ids in {len(rest) - data_at}")
    if any(rest[kinds_at + count : data_at]) or any(rest[data_at + data_bytes :]):
        raise FrameError("padding of the ids is not zero")
    data = np.frombuffer(rest[data_at : data_at + data_bytes], np.uint8)
    stored = Ids(None, kinds, offsets, data)
    problem = stored.first_problem()
    if problem is not None:
        raise FrameError("the id of record {} {}".format(*problem))
    ids = Ids.from_var(kinds, offsets, data)
    if ids.u64 is not None:
        raise FrameError("integer ids in the encoding for others")
    return ids


def _encode_metadata(metadata: MetadataColumns | None) -> list[Part]:
    if metadata is None or not metadata.any_mapping:
        return []
    blobs: list[Part] = []
    for start in range(0, metadata.n_rows, GROUP_ROWS):
        stop = min(start + GROUP_ROWS, metadata.n_rows)
        whole = (start, stop) == (0, metadata.n_rows)
        blobs.append(encode_group(metadata if whole else metadata.slice(start, stop)))
    offset = 8 * (len(blobs) + 1)
    offsets = [offset]
    for blob in blobs:
        offset += len(blob)
        offsets.append(offset)
    return [struct.pack(f"<{len(offsets)}Q", *offsets), *blobs]


def _decode_metadata(n_records: int, block: memoryview, path: str) -> MetadataColumns:
    n_groups = -(-n_records // GROUP_ROWS)
    if len(block) < 8 * (n_groups + 1):
        raise FrameError(f"metadata of {len(block)} bytes for {n_groups} groups")
    offsets = struct.unpack_from(f"<{n_groups + 1}Q", block)
    ascending = all(offsets[i] < offsets[i + 1] for i in range(n_groups))
    if offsets[0] != 8 * (n_groups + 1) or offsets[-1] != len(block) or not ascending:
        raise FrameError("offsets of the metadata do not fill it")
    parts = []
    for group in range(n_groups):
        n_rows = min(GROUP_ROWS, n_records - group * GROUP_ROWS)
        view = GroupView(block[offsets[group] : offsets[group + 1]], path, f"metadata group {group}")
        if view.n_rows != n_rows:
            raise FrameError(f"metadata group {group} has {view.n_rows} rows, not {n_rows}")
        parts.append(view.to_columns())
    metadata = MetadataColumns.concat(parts)
    if not metadata.any_mapping:
        raise FrameError("metadata without any mapping")
    return metadata


def _size(parts: list[Part]) -> int:
    return sum(map(len, parts))
