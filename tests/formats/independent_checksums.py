"""CRC-32C and XXH64 in plain Python, from their definitions. See independent_reader."""

from __future__ import annotations

import struct


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table


_TABLE = _crc_table()


def crc32c(data: bytes | bytearray, before: int = 0) -> int:
    """Return the CRC-32C of `data`, going on from the CRC-32C of what stands before it."""
    crc = before ^ 0xFFFFFFFF
    table = _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


_MASK = 2**64 - 1
_P1 = 0x9E3779B185EBCA87
_P2 = 0xC2B2AE3D27D4EB4F
_P3 = 0x165667B19E3779F9
_P4 = 0x85EBCA77C2B2AE63
_P5 = 0x27D4EB2F165667C5


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _round(lane: int, word: int) -> int:
    return _rotate((lane + word * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data: bytes, seed: int = 0) -> int:
    """Return the XXH64 of `data`."""
    length = len(data)
    at = 0
    if length >= 32:
        # Four lanes, written out: a loop over them takes three times as long.
        mask, p1, p2 = _MASK, _P1, _P2
        a, b, c, d = (seed + p1 + p2) & mask, (seed + p2) & mask, seed, (seed - p1) & mask
        for w, x, y, z in struct.iter_unpack("<4Q", memoryview(data)[: length & -32]):
            a = a + w * p2 & mask
            a = (a << 31 | a >> 33) * p1 & mask
            b = b + x * p2 & mask
            b = (b << 31 | b >> 33) * p1 & mask
            c = c + y * p2 & mask
            c = (c << 31 | c >> 33) * p1 & mask
            d = d + z * p2 & mask
            d = (d << 31 | d >> 33) * p1 & mask
        at = length & -32
        value = (_rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)) & mask
        for lane in (a, b, c, d):
            value = ((value ^ _round(0, lane)) * _P1 + _P4) & _MASK
    else:
        value = (seed + _P5) & _MASK
    value = (value + length) & _MASK
    while at + 8 <= length:
        (word,) = struct.unpack_from("<Q", data, at)
        value = (_rotate(value ^ _round(0, word), 27) * _P1 + _P4) & _MASK
        at += 8
    if at + 4 <= length:
        (word,) = struct.unpack_from("<I", data, at)
        value = (_rotate(value ^ word * _P1 & _MASK, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        value = _rotate(value ^ byte * _P5 & _MASK, 11) * _P1 & _MASK
    value = (value ^ value >> 33) * _P2 & _MASK
    value = (value ^ value >> 29) * _P3 & _MASK
    return value ^ value >> 32
