"""Compresses and decompresses single chunks. What a chunk may be is in the specification.

The libraries are imported when a chunk needs them: a database without compression never does.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeAlias

from iqdb_core.storage.layout import CODEC_LZ4, CODEC_ZSTD, MAX_CHUNK_BYTES

if TYPE_CHECKING:
    import zstandard

Bytes: TypeAlias = bytes | bytearray | memoryview

ZSTD_LEVELS = range(1, 23)


class _Contexts(threading.local):
    """The zstd contexts of one thread: to make one costs as much as to compress a small chunk."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor: zstandard.ZstdDecompressor | None = None


_contexts = _Contexts()


class ChunkError(ValueError):
    """A stored chunk does not decode to what it should. The message says why."""


def compress_chunk(codec: int, level: int, raw: Bytes) -> bytes:
    """Return the stored form of a chunk; it is never longer than `raw`.

    A chunk that does not shrink is returned as it is; its length tells a reader so. The same chunk, level
    and library version always give the same bytes.

    Args:
        codec: `CODEC_LZ4` or `CODEC_ZSTD`.
        level: 1..22 for zstd; lz4 has none.
        raw: 1 byte to 1 MiB.
    """
    raw = memoryview(raw).cast("B")
    assert 0 < len(raw) <= MAX_CHUNK_BYTES
    if codec == CODEC_LZ4:
        import lz4.block

        stored: bytes = lz4.block.compress(raw, store_size=False)
    else:
        import zstandard

        assert codec == CODEC_ZSTD
        assert level in ZSTD_LEVELS
        compressor = _contexts.compressors.get(level)
        if compressor is None:
            compressor = zstandard.ZstdCompressor(level, write_content_size=True, write_checksum=False)
            _contexts.compressors[level] = compressor
        stored = compressor.compress(raw)
    return stored if len(stored) < len(raw) else bytes(raw)


def decompress_chunk(codec: int, stored: Bytes, raw_bytes: int) -> bytes | memoryview:
    """Return the `raw_bytes` bytes (1 byte to 1 MiB) that a stored chunk holds.

    `stored` may be hostile. No more than `raw_bytes` is allocated for the result. A chunk that is stored
    as it is comes back as a view of `stored`.

    Raises:
        ChunkError: it does not decode, to exactly so many bytes, with nothing left over.
    """
    stored = memoryview(stored).cast("B")
    if not 0 < raw_bytes <= MAX_CHUNK_BYTES:
        raise ChunkError(f"a chunk of {raw_bytes} bytes is outside 1..{MAX_CHUNK_BYTES}")
    if len(stored) == raw_bytes:
        return stored
    if len(stored) > raw_bytes:
        raise ChunkError(f"{len(stored)} stored bytes for {raw_bytes}")
    if codec == CODEC_LZ4:
        return _decompress_lz4(stored, raw_bytes)
    if codec == CODEC_ZSTD:
        return _decompress_zstd(stored, raw_bytes)
    raise ChunkError(f"codec {codec} stores chunks as they are, this one is shorter")


def _decompress_lz4(stored: memoryview, raw_bytes: int) -> bytes:
    import lz4.block

    try:
        # The given size bounds the output; the whole input must be used up to the last byte.
        raw: bytes = lz4.block.decompress(stored, uncompressed_size=raw_bytes)
    except lz4.block.LZ4BlockError as error:
        raise ChunkError(f"not an lz4 block of {raw_bytes} bytes ({error})") from None
    return _exactly(raw, raw_bytes)


def _decompress_zstd(stored: memoryview, raw_bytes: int) -> bytes:
    import zstandard

    try:
        parameters = zstandard.get_frame_parameters(stored)
        # The declared size is what the library allocates, so it is compared before it is believed.
        if parameters.content_size != raw_bytes:
            raise ChunkError(f"the zstd frame declares {parameters.content_size} bytes, not {raw_bytes}")
        if parameters.dict_id:
            raise ChunkError(f"the zstd frame needs dictionary {parameters.dict_id}")
        if _contexts.decompressor is None:
            _contexts.decompressor = zstandard.ZstdDecompressor()
        raw = _contexts.decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ChunkError(f"not one zstd frame ({error})") from None
    return _exactly(raw, raw_bytes)


def _exactly(raw: bytes, raw_bytes: int) -> bytes:
    if len(raw) != raw_bytes:
        raise ChunkError(f"decodes to {len(raw)} bytes, not {raw_bytes}")
    return raw
