"""The payload of a format 2 snapshot, decompressed within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_core.legacy.layout import (
    LZ4_EXPANSION,
    MAX_EXPANSION,
    SCHEME_LZ4,
    SCHEME_NONE,
    SCHEMES,
)
from iqdb_core.legacy.values import MalformedError

if TYPE_CHECKING:
    from iqdb_core.legacy.values import Buffer

_MAX_WINDOW_BYTES = 128 << 20
"""The largest window of a zstd frame, which is what its highest level uses."""
# A step of input can expand without a bound of its own (a block of four bytes to 128 KiB), so steps are
# small: no more than 128 MiB come out of one before they are counted.
_STEP_BYTES = 4096
_LZ4_SLACK = 64
_LZ4_MOST = 0x7E000000
"""The longest block of LZ4's own interface."""


def decompress(scheme: int, stored: Buffer, raw_bytes: int) -> Buffer:
    """Return the payload: exactly `raw_bytes` bytes, made of all of `stored`.

    Memory grows with what really comes out, or is bounded by what can come out of so many bytes, and
    never follows the declared length alone. A zstd window adds at most 128 MiB.

    Raises:
        MalformedError: it is no such payload. Offsets count from the preamble.
    """
    if scheme not in SCHEMES:
        raise MalformedError(0, "compression scheme", scheme, "0 (none), 1 (zstd) or 2 (lz4)")
    if scheme == SCHEME_NONE:
        if raw_bytes != len(stored):
            raise MalformedError(1, "uncompressed length", raw_bytes, f"the {len(stored)} bytes there are")
        return stored
    if raw_bytes > MAX_EXPANSION * len(stored):
        most = f"at most {MAX_EXPANSION} times the {len(stored)} stored bytes"
        raise MalformedError(1, "uncompressed length", raw_bytes, most)
    return _lz4(stored, raw_bytes) if scheme == SCHEME_LZ4 else _zstd(stored, raw_bytes)


def _lz4(stored: Buffer, raw_bytes: int) -> bytes:
    import lz4.block

    most = min(LZ4_EXPANSION * len(stored) + _LZ4_SLACK, _LZ4_MOST)
    if raw_bytes > most:
        raise MalformedError(1, "uncompressed length", raw_bytes, f"at most {most}, as LZ4 can hold")
    try:
        # The given size bounds the output; the whole input must be used up to the last byte.
        raw: bytes = lz4.block.decompress(stored, uncompressed_size=raw_bytes)
    except (lz4.block.LZ4BlockError, ValueError, OverflowError) as error:
        raise MalformedError(0, "payload", f"no LZ4 block ({error})", f"one of {raw_bytes} bytes") from None
    if len(raw) != raw_bytes:
        raise MalformedError(1, "uncompressed length", raw_bytes, f"{len(raw)}, as the block says")
    return raw


def _zstd(stored: Buffer, raw_bytes: int) -> bytes:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompressobj()
    raw = bytearray()
    view = memoryview(stored)
    used = 0
    try:
        while used < len(view) and not decoder.eof:
            raw += decoder.decompress(view[used : used + _STEP_BYTES])
            used += _STEP_BYTES
            if len(raw) > raw_bytes:
                raise MalformedError(1, "uncompressed length", raw_bytes, "more: the frame goes on")
    except zstandard.ZstdError as error:
        raise MalformedError(0, "payload", f"no zstd frame ({error})", "one zstd frame") from None
    if not decoder.eof:
        raise MalformedError(0, "payload", "a zstd frame that is cut off", "one zstd frame")
    if decoder.unused_data or used < len(view):
        raise MalformedError(0, "payload", "followed by other bytes", "one zstd frame and nothing else")
    if len(raw) != raw_bytes:
        raise MalformedError(1, "uncompressed length", raw_bytes, f"{len(raw)}, as the frame holds")
    return bytes(raw)
