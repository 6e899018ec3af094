"""Logs with one thing wrong."""

from __future__ import annotations

import struct

from damaged_kinds import Damaged, LogDamage
from images import LogPart

U64 = struct.Struct("<Q").pack
U32 = struct.Struct("<I").pack


def log_damage(
    name: str, says: str, damage: LogDamage, error: str = "LogDamagedError", strict: str = "log damage"
) -> Damaged:
    return Damaged(name, says, error, "open", strict, log=damage, base="log")


def flip_frame(number: int, offset: int) -> LogDamage:
    def damage(log: LogPart) -> None:
        log.data[log.offsets[number] + offset] ^= 4

    return damage


def set_frame(number: int, offset: int, data: bytes) -> LogDamage:
    return lambda log: log.set_frame(number, offset, data)


def set_log_header(offset: int, data: bytes) -> LogDamage:
    def damage(log: LogPart) -> None:
        log.data[offset : offset + len(data)] = data
        log.chain()

    return damage


def put_log(offset: int, data: bytes) -> LogDamage:
    def damage(log: LogPart) -> None:
        log.data[offset : offset + len(data)] = data

    return damage


def remove_frame(log: LogPart) -> None:
    first, second = log.offsets[1:3]
    del log.data[first:second]


def double_frame(log: LogPart) -> None:
    first, second = log.offsets[1:3]
    log.data[second:second] = log.data[first:second]


def exchange_frames(log: LogPart) -> None:
    first, second, third = log.offsets[1:4]
    log.data[first:third] = log.data[second:third] + log.data[first:second]


def zero_frame(log: LogPart) -> None:
    first, second = log.offsets[1:3]
    log.data[first:second] = bytes(second - first)


def legacy_log(log: LogPart) -> None:
    log.data[:] = b"IQDBWAL\0" + struct.pack("<III", 1, 10, 0x12345678) + b"\2\0" + U64(7)


def text_log(log: LogPart) -> None:
    log.data[:] = b"This is not a log, and nobody wants it to be overwritten. " * 4


LOGS = [
    log_damage("log-bit-first", "A bit of the first of four frames.", flip_frame(0, 60)),
    log_damage("log-bit-middle", "A bit of a frame in the middle.", flip_frame(1, 50)),
    log_damage("log-bit-frame-header", "A bit of a frame's length.", flip_frame(2, 5)),
    log_damage("log-bit-marker", "A bit of a frame's marker.", flip_frame(1, 0)),
    log_damage("log-zeros-middle", "A frame is zeros, and settled frames follow.", zero_frame),
    log_damage("log-frame-removed", "A frame is missing.", remove_frame),
    log_damage("log-frame-doubled", "A frame stands there twice.", double_frame),
    log_damage("log-frames-exchanged", "Two frames are exchanged.", exchange_frames),
    log_damage("log-sequence", "The last frame has another sequence.", set_frame(3, 8, U64(9))),
    log_damage("log-previous-crc", "The last frame follows another.", set_frame(3, 24, U32(9))),
    log_damage("log-n-records", "A frame has fewer records than it says.", set_frame(3, 32, U32(2))),
    log_damage("log-n-records-none", "A frame without records.", set_frame(3, 32, U32(0))),
    log_damage("log-ids-bytes", "The ids reach beyond the body.", set_frame(2, 40, U64(2**63))),
    log_damage("log-ids-encoding", "Ids of encoding 7.", set_frame(3, 56, U32(7))),
    log_damage("log-vector-nan", "A component is NaN.", set_frame(2, 40 + 16 + 16, U32(0x7FC00000))),
    log_damage("log-metadata", "A metadata group of no rows.", set_frame(2, 40 + 16 + 16 + 8 + 16, U32(0))),
    log_damage("log-header-bit", "A bit of the header, and frames behind it.", put_log(20, b"\xee")),
    log_damage("log-header-zeros", "A header of zeros, and frames behind it.", put_log(0, bytes(64))),
    log_damage("log-header-reserved", "A reserved byte of the header.", set_log_header(50, b"\1")),
    log_damage("log-header-bytes", "header_bytes is 128.", set_log_header(12, U32(128))),
    log_damage("log-garbage", "No log at all, but a text.", text_log),
    log_damage(
        "log-other-database",
        "The log of another database.",
        set_log_header(16, bytes(16)),
        "LogMismatchError",
        "log mismatch",
    ),
    log_damage(
        "log-other-snapshot",
        "The log of another snapshot.",
        set_log_header(32, U64(5)),
        "LogMismatchError",
        "log mismatch",
    ),
    log_damage(
        "log-other-dim",
        "The log has another dim.",
        set_log_header(40, U32(3)),
        "LogMismatchError",
        "log mismatch",
    ),
    log_damage(
        "log-version-3", "Version 3.", set_log_header(8, U32(3)), "UnsupportedVersionError", "version"
    ),
    log_damage(
        "log-version-1", "A short log of version 1.", legacy_log, "UnsupportedVersionError", "version"
    ),
]
