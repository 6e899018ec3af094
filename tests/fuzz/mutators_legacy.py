"""Databases of iqdb 1.x under right checksums. An input is the snapshot's length, the snapshot, the log."""

from __future__ import annotations

import struct
import zlib

from mutators import Random, interesting, mutate_bytes

from iqdb_core.legacy import layout

_LENGTH = struct.Struct("<I")


def joined(snapshot: bytes, log: bytes) -> bytes:
    """Return the two files of a database as one input."""
    return _LENGTH.pack(len(snapshot)) + snapshot + log


def parted(data: bytes) -> tuple[bytes, bytes]:
    """Return the two files of an input."""
    size = int.from_bytes(data[: _LENGTH.size], "little")
    return data[_LENGTH.size :][:size], data[_LENGTH.size :][size:]


def mutate_legacy(data: bytes, rng: Random) -> bytes:
    """Change the payload of the snapshot or bodies of frames, and seal what was changed."""
    snapshot, log = parted(data)
    if rng.randrange(12) == 0:
        return joined(mutate_bytes(snapshot, rng), log)
    if log and rng.randrange(2):
        return joined(snapshot, _mutate_frames(log, rng))
    return joined(_mutate_payload(snapshot, rng), log)


def _mutate_payload(snapshot: bytes, rng: Random) -> bytes:
    head, region = bytearray(snapshot[: layout.HEADER_BYTES]), snapshot[layout.HEADER_BYTES :]
    if len(head) < layout.HEADER_BYTES:
        return mutate_bytes(snapshot, rng)
    if rng.randrange(3) == 0:
        region = _mutate_words(region, rng)
    else:
        region = mutate_bytes(region, rng)
    if rng.randrange(6) == 0:
        # dim, metric and n_vectors, which no checksum covers
        at = layout.HEADER_BYTES - layout.HEADER_TAIL.size + rng.choice((0, 8, 9))
        head[at : at + 1] = bytes([interesting(rng, 1, head[at])])
    head[-4:] = struct.pack("<I", zlib.crc32(region))
    return bytes(head) + region


def _mutate_words(data: bytes, rng: Random) -> bytes:
    """Change numbers of 1, 4 or 8 bytes at any place: lengths, counts and tags are not aligned."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        size = rng.choice((1, 4, 8))
        if len(out) < size:
            break
        # Most of what matters is at the beginning.
        at = rng.randrange(min(len(out) - size + 1, rng.choice((64, 256, len(out)))))
        near = int.from_bytes(out[at : at + size], "little")
        out[at : at + size] = interesting(rng, size, near).to_bytes(size, "little")
    return bytes(out)


def _mutate_frames(log: bytes, rng: Random) -> bytes:
    bodies = []
    at = layout.LOG_HEADER.size
    while at + layout.FRAME_HEAD.size <= len(log):
        size, _ = layout.FRAME_HEAD.unpack_from(log, at)
        at += layout.FRAME_HEAD.size
        bodies.append(log[at : at + size])
        at += size
    if not bodies:
        return mutate_bytes(log, rng)
    number = rng.randrange(len(bodies))
    change = _mutate_words if rng.randrange(2) else mutate_bytes
    bodies[number] = change(bodies[number], rng)
    if rng.randrange(4) == 0:
        bodies.insert(rng.randrange(len(bodies) + 1), rng.choice(bodies))
    frames = [layout.FRAME_HEAD.pack(len(body), zlib.crc32(body)) + body for body in bodies]
    return log[: layout.LOG_HEADER.size] + b"".join(frames)
