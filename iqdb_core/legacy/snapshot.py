"""The reader of snapshots of formats 1 and 2: checked completely, rows decoded when they are asked for."""

from __future__ import annotations

import struct
import zlib
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core.errors import (
    LegacyDamagedError,
    NotADatabaseError,
    NotRepresentableError,
    UnsupportedVersionError,
)
from iqdb_core.legacy import LEGACY_VERSIONS, layout
from iqdb_core.legacy.compressed import decompress
from iqdb_core.legacy.values import MalformedError, cut_off, id_end, metadata_end
from iqdb_core.types import MAX_DIM, MAX_ROWS, IndexKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.legacy.values import Buffer

_PREAMBLE_BYTES = 12
_MIN_ID_BYTES = 6
_MIN_METADATA_BYTES = 1
_PLAIN_ID_BYTES = 9


class LegacySnapshot:
    """A snapshot of iqdb 1.x, checked but for the content of its rows.

    Attributes:
        path: the file.
        version: 1 or 2.
        dim, metric: as `DistanceMetric` tag.
        index: the index settings, named as in `IqdbConfig`, with their kind. Not checked for sense.
        scheme: the compression, `layout.SCHEMES`.
        payload: the uncompressed payload; a view of the image where it is stored as it is.
        payload_offset: where the payload begins in the file; None when it is compressed.
        region_offset: where the header ends.
        file_bytes: the length of the file.
        n_rows: the number of rows.
        starts: for each row where it begins in the payload; None when all rows are `plain`.
        rows_start: where the first row begins in the payload.
        plain: whether every row has an integer id and no metadata, so that all are of one length.
    """

    def __init__(self, image: memoryview, path: str) -> None:
        """Check an image.

        Raises:
            NotADatabaseError, UnsupportedVersionError: it is of another kind.
            LegacyDamagedError: it contradicts itself.
            NotRepresentableError: it is beyond what this release can hold.
        """
        self.path = path
        self.file_bytes = len(image)
        self.header = self._header(image)
        self.version = self.header.version
        self.dim = self.header.dim
        self.metric = self.header.metric
        region = image[self.region_offset :]
        self._check_crc(region)
        self.payload_offset: int | None = None
        self.scheme = layout.SCHEME_NONE
        self.payload = self._payload(region)
        try:
            at = self._payload_head()
            self.rows_start = at
            self._index_rows(at)
        except MalformedError as error:
            raise self.damaged(error) from None

    # --- Header ---------------------------------------------------------------------------------

    def _header(self, image: memoryview) -> layout.LegacyHeader:
        if len(image) < _PREAMBLE_BYTES or bytes(image[:8]) != layout.SNAPSHOT_MAGIC:
            raise NotADatabaseError(self.path, 'it does not begin with "IQDBPRST"')
        version = int.from_bytes(image[8:_PREAMBLE_BYTES], "little")
        if version not in LEGACY_VERSIONS:
            raise UnsupportedVersionError(self.path, version, "1 and 2 here")
        head, tail = layout.HEADER_HEAD, layout.HEADER_TAIL
        if len(image) < head.size:
            raise self._wrong("file", len(image), f"{len(image)} bytes long", f"at least {head.size}")
        size = head.unpack_from(image)[2]
        if size > layout.MAX_INDEX_TYPE_BYTES:
            most = f"at most {layout.MAX_INDEX_TYPE_BYTES}"
            raise self._wrong("length of the index type", _PREAMBLE_BYTES, size, most)
        self.region_offset = head.size + size + tail.size
        if len(image) < self.region_offset:
            found = f"{len(image)} bytes long"
            raise self._wrong("file", len(image), found, f"at least {self.region_offset}")
        kind = bytes(image[head.size : head.size + size])
        if kind != layout.INDEX_TYPE:
            shown = repr(kind[:32].decode("utf-8", "backslashreplace"))
            raise self._wrong("index type", head.size, shown, "'iqdb-core', which a database has")
        dim, metric, n_vectors, crc32 = tail.unpack_from(image, head.size + size)
        if metric not in layout.METRICS:
            raise self._wrong("metric", head.size + size + 8, metric, "0 to 4")
        return layout.LegacyHeader(version, kind.decode(), dim, metric, n_vectors, crc32)

    def _check_crc(self, region: memoryview) -> None:
        found = zlib.crc32(region)
        if found != self.header.crc32:
            raise LegacyDamagedError(
                self.path,
                "payload",
                self.region_offset,
                expected=f"{self.header.crc32:08x}",
                found=f"of CRC-32 {found:08x}",
                hint="format 1 and 2 have one checksum for everything, so no part of it can be trusted",
            )

    def _payload(self, region: memoryview) -> memoryview:
        if self.version == 1:
            self.payload_offset = self.region_offset
            return region
        preamble = layout.PREAMBLE
        if len(region) < preamble.size:
            found = f"{len(region)} bytes long"
            raise self._wrong("payload region", self.region_offset, found, f"at least {preamble.size}")
        scheme, raw_bytes = preamble.unpack_from(region)
        try:
            raw = decompress(scheme, region[preamble.size :], raw_bytes)
        except MalformedError as error:
            place = self.region_offset + error.offset
            raise self._wrong(error.part, place, error.found, error.expected) from None
        self.scheme = scheme
        if scheme == layout.SCHEME_NONE:
            self.payload_offset = self.region_offset + preamble.size
        return memoryview(raw)

    # --- Payload --------------------------------------------------------------------------------

    def _payload_head(self) -> int:
        data = self.payload
        try:
            magic, version, kind = layout.PAYLOAD_HEAD.unpack_from(data)
            if magic != layout.PAYLOAD_MAGIC:
                raise MalformedError(0, "payload magic", magic, repr(layout.PAYLOAD_MAGIC))
            if version != layout.PAYLOAD_VERSION:
                raise MalformedError(4, "payload version", version, str(layout.PAYLOAD_VERSION))
            self.index, at = _index_settings(data, kind)
            dim, metric, n_rows = layout.PAYLOAD_TAIL.unpack_from(data, at)
        except struct.error:
            raise cut_off(len(data), "payload") from None
        for part, offset, found, said in (
            ("dim", at, dim, self.header.dim),
            ("metric", at + 8, metric, self.header.metric),
            ("n_rows", at + 9, n_rows, self.header.n_vectors),
        ):
            if found != said:
                raise MalformedError(offset, part, found, f"{said}, as the header says")
        if dim == 0:
            raise MalformedError(at, "dim", dim, "at least 1")
        at += layout.PAYLOAD_TAIL.size
        least = _MIN_ID_BYTES + 4 * dim + _MIN_METADATA_BYTES
        if n_rows * least > len(data) - at:
            found = f"{n_rows} in {len(data) - at} bytes"
            raise MalformedError(at - 8, "n_rows", found, f"at least {least} bytes a row")
        for part, size, most in (("dim", dim, MAX_DIM), ("number of records", n_rows, MAX_ROWS)):
            if size > most:
                raise NotRepresentableError(self.path, part, size, f"at most {most} in this release")
        self.n_rows: int = n_rows
        return at

    def _index_rows(self, at: int) -> None:
        """Find where every row begins, and that they end where the payload does."""
        data = self.payload
        self.starts: array[int] | None = None
        self.plain = self._all_plain(at)
        end = len(data)
        if self.plain:
            end = at + self.n_rows * self.plain_bytes
        else:
            width = 4 * self.dim
            starts = array("Q")
            for _ in range(self.n_rows):
                starts.append(at)
                at = metadata_end(data, id_end(data, at, end, length_bytes=4) + width, end)
            end = at
            self.starts = starts
        if end != len(data):
            found = f"followed by {len(data) - end} more bytes"
            raise MalformedError(end, "last row", found, "the end of the payload")

    @property
    def plain_bytes(self) -> int:
        """The length of a row with an integer id and no metadata."""
        return _PLAIN_ID_BYTES + 4 * self.dim + _MIN_METADATA_BYTES

    def plain_rows(self) -> NDArray[Any]:
        """Return all rows of a plain snapshot: kind, id, vector and presence of metadata of each."""
        dtype = np.dtype(
            [("kind", "u1"), ("id", "<u8"), ("vector", "<f4", (self.dim,)), ("has_metadata", "u1")]
        )
        return np.frombuffer(self.payload, dtype, self.n_rows, self.rows_start)

    def _all_plain(self, at: int) -> bool:
        if len(self.payload) != at + self.n_rows * self.plain_bytes:
            return False
        self.rows_start = at
        rows = self.plain_rows()
        return not rows["kind"].any() and not rows["has_metadata"].any()

    def row_start(self, row: int) -> int:
        """Return where a row begins in the payload."""
        if self.starts is not None:
            return self.starts[row]
        return self.rows_start + row * self.plain_bytes

    def row_bytes(self, row: int) -> int:
        """Return the length of a row."""
        stop = self.row_start(row + 1) if row + 1 < self.n_rows else len(self.payload)
        return stop - self.row_start(row)

    # --- Errors ---------------------------------------------------------------------------------

    def damaged(self, error: MalformedError) -> LegacyDamagedError:
        """Return the error for something in the payload."""
        if self.payload_offset is None:
            part = f"{error.part} at byte {error.offset} of the uncompressed payload"
            return self._wrong(part, self.region_offset, error.found, error.expected)
        return self._wrong(error.part, self.payload_offset + error.offset, error.found, error.expected)

    def _wrong(self, part: str, offset: int, found: object, expected: str) -> LegacyDamagedError:
        return LegacyDamagedError(self.path, part, offset, expected=expected, found=found)


def _index_settings(data: Buffer, kind: int) -> tuple[dict[str, Any], int]:
    """Return the index settings, and where they end."""
    if kind not in layout.INDEX_KINDS:
        raise MalformedError(8, "index kind", kind, "0 (flat), 1 (hnsw) or 2 (ivf)")
    at = layout.PAYLOAD_HEAD.size
    settings: dict[str, Any] = {"kind": layout.INDEX_KINDS[kind].value}
    if layout.INDEX_KINDS[kind] is IndexKind.HNSW:
        names = ("m", "ef_construction", "ef_search", "filter_widen", "seed")
        settings |= zip(names, layout.HNSW_SETTINGS.unpack_from(data, at), strict=True)
        at += layout.HNSW_SETTINGS.size
    elif layout.INDEX_KINDS[kind] is IndexKind.IVF:
        *sizes, use_pq, has_subvectors = layout.IVF_SETTINGS.unpack_from(data, at)
        for part, flag, offset in (("use_pq", use_pq, 2), ("has_pq_subvectors", has_subvectors, 1)):
            if flag > 1:
                raise MalformedError(at + layout.IVF_SETTINGS.size - offset, part, flag, "0 or 1")
        at += layout.IVF_SETTINGS.size
        settings |= zip(("n_clusters", "n_probes", "training_sample_size"), sizes, strict=True)
        settings["use_pq"] = use_pq == 1
        settings["pq_subvectors"] = None
        if has_subvectors:
            (settings["pq_subvectors"],) = layout.U64.unpack_from(data, at)
            at += 8
        settings["pq_refine_factor"], settings["seed"] = layout.IVF_SETTINGS_END.unpack_from(data, at)
        at += layout.IVF_SETTINGS_END.size
    return settings, at
