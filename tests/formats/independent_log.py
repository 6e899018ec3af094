"""Reads log format 2, from what formats/log-2.md says. It is to the log what independent_reader is to the
snapshot.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from independent_checksums import crc32c
from independent_reader import (
    FormatError,
    Id,
    Record,
    Snapshot,
    Value,
    finite,
    join_ids,
    pad,
    read_group,
    read_snapshot,
    require,
    u32s,
    u64s,
    zeros,
)


@dataclass
class Log:
    frames: int = 0
    torn_bytes: int = 0
    stale: bool = False
    types: list[int] = field(default_factory=list)


def whole(log: bytes, at: int, database_id: bytes) -> bool:
    if at + 40 > len(log) or log[at : at + 4] != b"IQFR" or log[at + 28] not in (1, 2, 3):
        return False
    body_bytes, settled = u32s(log, 1, at + 4)[0], u64s(log, 1, at + 16)[0]
    if body_bytes % 8 or body_bytes > 2**28 or at + 40 + body_bytes > len(log) or any(log[at + 29 : at + 32]):
        return False
    if settled < 64:
        return False
    body = log[at + 40 : at + 40 + body_bytes]
    return crc32c(body, crc32c(log[at : at + 36], crc32c(database_id))) == u32s(log, 1, at + 36)[0]


def replay(log: bytes, snapshot: Snapshot) -> tuple[list[Record], Log]:
    """Return the records of a snapshot with its log, and what the log was like."""
    header, database_id = snapshot.header, snapshot.header["database_id"]
    result = Log()
    if len(log) >= 12 and log[:8] == b"IQDBWAL\0":
        require(u32s(log, 1, 8)[0] in (0, 2), "a log of another version", "version")
    if len(log) < 64:
        result.torn_bytes = len(log)
        return snapshot.records, result
    fields = struct.unpack_from("<8sII16sQI16sI", log)
    magic, version, header_bytes, log_id, identity, dim, reserved, crc = fields
    right = magic == b"IQDBWAL\0" and version == 2 and header_bytes == 64 and not any(reserved)
    if crc32c(log[:60]) != crc or not right:
        made = struct.pack(
            "<8sII16sQI16x", b"IQDBWAL\0", 2, 64, database_id, snapshot.identity, header["dim"]
        )
        made += struct.pack("<I", crc32c(made))
        if len(log) == 64 and all(
            byte in (0, whole_byte) for byte, whole_byte in zip(log, made, strict=True)
        ):
            result.torn_bytes = len(log)
            return snapshot.records, result
        frames = (at for at in range(64, len(log), 8) if whole(log, at, database_id))
        hole = not any(log[:64]) and not any(u64s(log, 1, at + 8)[0] for at in frames)
        require(hole, "frame 0 at byte 0", "log damage")
        result.torn_bytes = len(log)
        return snapshot.records, result
    require(log_id == database_id and dim == header["dim"], "a log of another database", "log mismatch")
    at, previous, last = 64, crc, b""
    bodies: list[tuple[str, int, int, bytes]] = []
    while at < len(log):
        place = f"frame {result.frames} at byte {at}"
        if not whole(log, at, database_id):
            for later in range(at + 8, len(log), 8):
                if whole(log, later, database_id):
                    sequence, settled = u64s(log, 2, later + 8)
                    require(sequence <= result.frames + 1 or settled <= at, place, "log damage")
            result.torn_bytes = len(log[at:].rstrip(b"\0"))
            break
        body_bytes, frame_crc, type_ = u32s(log, 1, at + 4)[0], u32s(log, 1, at + 36)[0], log[at + 28]
        require(u64s(log, 1, at + 8)[0] == result.frames + 1, f"{place}: sequence", "log damage")
        require(u64s(log, 1, at + 16)[0] <= at, f"{place}: settled_bytes", "log damage")
        require(u32s(log, 1, at + 24)[0] == previous, f"{place}: previous_crc", "log damage")
        body = log[at + 40 : at + 40 + body_bytes]
        bodies.append((place, type_, u32s(log, 1, at + 32)[0], body))
        last = body if type_ == 3 else b""
        result.types.append(type_)
        result.frames += 1
        previous = frame_crc
        at += 40 + body_bytes
    if len(last) >= 8 and u64s(last, 1)[0] == snapshot.identity:
        result.stale = True
        return snapshot.records, result
    require(identity == snapshot.identity, "a log of another snapshot", "log mismatch")
    records = {record.id: record for record in snapshot.records}
    for place, type_, count, body in bodies:
        try:
            apply_frame(records, type_, count, body, dim)
        except FormatError as error:
            raise FormatError("log damage", f"{place}: {error}") from error
    return list(records.values()), result


def apply_frame(records: dict[Id, Record], type_: int, count: int, body: bytes, dim: int) -> None:
    if type_ == 3:
        require(len(body) == 16 and count == 0 and not any(body[8:]), "a fold frame")
        return
    require(count >= 1, "an empty frame")
    ids_bytes, metadata_bytes = u64s(body, 2)
    require(ids_bytes % 8 == 0 and 16 + ids_bytes <= len(body), "ids_bytes")
    ids = read_ids_block(body[16 : 16 + ids_bytes], count)
    at = 16 + ids_bytes
    if type_ == 2:
        require(metadata_bytes == 0 and at == len(body), "a delete frame")
        for id_ in ids:
            records.pop(id_, None)
        return
    width = 4 * dim
    end = at + pad(width * count, 8)
    require(end + metadata_bytes == len(body), "an upsert frame")
    vectors = body[at : at + width * count]
    zeros(body[at + width * count : end], "padding behind the vectors")
    finite(vectors)
    metadata = read_metadata_block(body[end:], count) if metadata_bytes else [None] * count
    # A dict keeps a replaced record in its place, as section 4 wants it.
    for i, id_ in enumerate(ids):
        records[id_] = Record(id_, vectors[width * i : width * (i + 1)], metadata[i])


def read_ids_block(block: bytes, count: int) -> list[Id]:
    encoding, reserved = u32s(block, 2)
    require(encoding <= 1 and reserved == 0, "the encoding of ids")
    if encoding == 0:
        require(len(block) == 8 + 8 * count, "length of the ids")
        return [(0, block[8 + 8 * i : 16 + 8 * i]) for i in range(count)]
    offsets = u64s(block, count + 1, 8)
    kinds_at = 8 + 8 * (count + 1)
    require(any(block[kinds_at : kinds_at + count]), "integer ids in the encoding for others")
    bytes_at = pad(kinds_at + count, 8)
    end = bytes_at + offsets[-1]
    require(pad(end, 8) == len(block), "length of the ids")
    zeros(block[kinds_at + count : bytes_at] + block[end:], "padding of the ids")
    return join_ids(block[kinds_at : kinds_at + count], offsets, block[bytes_at:end])


def read_metadata_block(block: bytes, count: int) -> list[dict[str, Value] | None]:
    groups = -(-count // 16384)
    offsets = u64s(block, groups + 1)
    require(offsets[0] == 8 * (groups + 1) and offsets[-1] == len(block), "offsets of groups")
    metadata = []
    for i in range(groups):
        require(offsets[i] < offsets[i + 1] <= len(block), "offsets of groups")
        metadata += read_group(block[offsets[i] : offsets[i + 1]], min(16384, count - 16384 * i))
    require(any(mapping is not None for mapping in metadata), "metadata without a mapping")
    return metadata


def read_database(path: Path) -> tuple[Snapshot, list[Record], Log | None]:
    """Read a database: the snapshot, the records with the log applied, and the log when there is one."""
    snapshot = read_snapshot(path.read_bytes())
    log_path = path.with_name(f"{path.name}.wal")
    if not log_path.exists():
        return snapshot, snapshot.records, None
    records, log = replay(log_path.read_bytes(), snapshot)
    return snapshot, records, log
