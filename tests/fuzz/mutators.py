"""Inputs that get past the checks: files are taken apart, changed, and put together under right checksums."""

from __future__ import annotations

import json
import random
import struct
from dataclasses import dataclass, field

from iqdb_core._kernels import crc32c
from iqdb_core.storage import layout
from iqdb_core.storage.columns_layout import (
    COLUMN_ENTRY_BYTES,
    COLUMN_FIELDS,
    GROUP_FIELDS,
    GROUP_HEADER_BYTES,
)
from iqdb_core.storage.layout import BLOCK_BYTES, Field, FrameHeader, Header, LogHeader, SectionEntry, padded
from iqdb_core.storage.section import block_prefix
from iqdb_core.storage.structure import encode_config

Random = random.Random

_WIDTHS = {1: "B", 2: "H", 4: "I", 8: "Q"}


def interesting(rng: Random, size: int, near: int = 0) -> int:
    """Return a number of `size` bytes that is likely to be a limit of something."""
    top = (1 << 8 * size) - 1
    choices = (
        lambda: rng.randrange(4),
        lambda: near + rng.randrange(-9, 10),
        lambda: top - rng.randrange(3),
        lambda: (1 << rng.randrange(8 * size)) + rng.randrange(-1, 2),
        lambda: rng.randrange(top + 1),
        lambda: rng.choice(
            (8, 16, 255, 256, 4095, 4096, 4097, 16384, 65535, 65536, 1 << 20, 1 << 28, 1 << 31)
        ),
    )
    return rng.choice(choices)() & top


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """Change some bytes, whatever they mean."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not out:
            return rng.randbytes(rng.randrange(1, 32))
        at = rng.randrange(len(out))
        step = rng.randrange(7)
        if step == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif step == 1:
            out[at] = rng.randrange(256)
        elif step == 2:
            size = rng.choice((1, 2, 4, 8))
            near = int.from_bytes(out[at : at + size], "little")
            out[at : at + size] = interesting(rng, size, near).to_bytes(size, "little")
        elif step == 3:
            del out[at : at + rng.randrange(1, 1 + min(64, len(out)))]
        elif step == 4:
            other = rng.randrange(len(out))
            out[at:at] = out[other : other + rng.randrange(1, 64)]
        elif step == 5:
            other, size = rng.randrange(len(out)), rng.randrange(1, 64)
            out[at : at + size] = out[other : other + size]
        else:
            out[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(out)


def _mutate_items(data: bytes, size: int, rng: Random) -> bytes:
    """Change items of an array of numbers."""
    count = len(data) // size
    if not count:
        return data
    items = list(struct.unpack_from(f"<{count}{_WIDTHS[size]}", data))
    for _ in range(rng.choice((1, 1, 2, 5, count))):
        at = rng.randrange(count)
        step = rng.randrange(4)
        if step == 0:
            items[at] = interesting(rng, size, items[at])
        elif step == 1:
            items[at] = items[rng.randrange(count)]
        elif step == 2:
            other = rng.randrange(count)
            items[at], items[other] = items[other], items[at]
        else:
            items[at] = interesting(rng, size, count)
    return struct.pack(f"<{count}{_WIDTHS[size]}", *items) + data[count * size :]


def _mutate_field(data: bytearray, at: int, fields: tuple[Field, ...], rng: Random) -> None:
    chosen = rng.choice(fields)
    place = at + chosen.offset
    if place + chosen.size > len(data):
        return
    if chosen.size in _WIDTHS:
        near = int.from_bytes(data[place : place + chosen.size], "little")
        data[place : place + chosen.size] = interesting(rng, chosen.size, near).to_bytes(
            chosen.size, "little"
        )
    else:
        data[place + rng.randrange(chosen.size)] ^= 1 << rng.randrange(8)


def mutate_groups(data: bytes, starts: list[int], rng: Random) -> bytes:
    """Change metadata groups: fields of the header or of the directory, or what is behind them."""
    out = bytearray(data)
    at = rng.choice(starts or [0])
    if at + GROUP_HEADER_BYTES > len(out):
        return mutate_bytes(data, rng)
    n_columns = int.from_bytes(out[at + 4 : at + 8], "little")
    step = rng.randrange(4)
    if step == 0:
        _mutate_field(out, at, GROUP_FIELDS, rng)
    elif step == 1 and n_columns:
        entry = at + GROUP_HEADER_BYTES + COLUMN_ENTRY_BYTES * rng.randrange(min(n_columns, 4096))
        _mutate_field(out, entry, COLUMN_FIELDS, rng)
    elif step == 2:
        body = at + GROUP_HEADER_BYTES + COLUMN_ENTRY_BYTES * min(n_columns, 4096)
        out[body:] = _mutate_items(bytes(out[body:]), rng.choice((1, 2, 4, 8)), rng)
    else:
        out[at:] = mutate_bytes(bytes(out[at:]), rng)
    return bytes(out)


# --- Snapshots ------------------------------------------------------------------------------------


@dataclass
class SnapshotModel:
    """A snapshot as fields and stored bytes, from which a file with right offsets and checksums is made."""

    header: Header
    sections: list[tuple[SectionEntry, bytes]]
    forced: dict[str, dict[str, int]] = field(default_factory=dict)
    """Fields of entries that are written as they are here, however wrong."""

    @classmethod
    def of(cls, data: bytes) -> SnapshotModel | None:
        """Take a snapshot apart; None when its header and table do not allow that."""
        try:
            header = layout.decode_header(data[: layout.HEADER_BYTES])
            entries = layout.decode_section_table(data[header.section_table_offset :])
        except (ValueError, struct.error):
            return None
        if header.version != layout.SNAPSHOT_VERSION or len(entries) > 64:
            return None
        return cls(header, [(e, data[e.offset : e.offset + e.stored_bytes]) for e in entries])

    def build(self, **header_fields: int | bytes) -> bytes:
        """Put the file together; `header_fields` are written as they are."""
        at = layout.HEADER_BYTES
        parts, entries = [], []
        for entry, stored in self.sections:
            entries.append(entry._replace(offset=at, stored_bytes=len(stored)))
            end = padded(at + len(stored))
            parts.append(stored + bytes(end - at - len(stored)))
            at = end
        database_id = self.header.database_id
        tables = b""
        for number, (entry, stored) in enumerate(self.sections):
            prefix = block_prefix(database_id, entry.name)
            table = b"".join(
                struct.pack(
                    "<I",
                    crc32c(stored[start : start + BLOCK_BYTES], crc32c(struct.pack("<Q", block), prefix)),
                )
                for block, start in enumerate(range(0, len(stored), BLOCK_BYTES))
            )
            entries[number] = entries[number]._replace(checksums_offset=at, checksums_crc=crc32c(table))
            table += bytes(padded(len(table), 8) - len(table))
            tables += table
            at += len(table)
        table_offset = padded(at)
        entries = [e._replace(**self.forced.get(e.name, {})) for e in entries]
        raw_table = layout.encode_section_table(entries)
        fields: dict[str, int | bytes] = {
            "section_table_offset": table_offset,
            "section_count": len(entries),
            "section_table_crc": crc32c(raw_table),
            "file_bytes": table_offset + len(raw_table),
            **header_fields,
        }
        header = self.header._replace(**fields)  # type: ignore[arg-type]
        page = layout.encode_header(header)[: layout.HEADER_CRC_OFFSET]
        page += struct.pack("<I", crc32c(page))
        return b"".join([page, *parts, tables, bytes(table_offset - at), raw_table])

    def place(self, name: str) -> int:
        """Return the number of a section, -1 when it is not there."""
        return next((i for i, (entry, _) in enumerate(self.sections) if entry.name == name), -1)

    def put(self, number: int, stored: bytes) -> None:
        """Replace a section's bytes; without a codec its shape follows."""
        entry = self.sections[number][0]
        if not entry.codec and entry.dtype in layout.DTYPE_BY_TAG:
            size = layout.DTYPE_BY_TAG[entry.dtype].itemsize
            stored = stored[: len(stored) // (size * entry.shape1 or 1) * (size * entry.shape1 or 1)]
            rows = len(stored) // (size * entry.shape1) if entry.shape1 else entry.shape0
            entry = entry._replace(shape0=rows, raw_bytes=len(stored))
        self.sections[number] = (entry, stored)


def mutate_snapshot(data: bytes, rng: Random) -> bytes:
    """Change one or a few things of a snapshot, most often so that no checksum tells."""
    if rng.randrange(24) == 0:
        return mutate_bytes(data, rng)
    model = SnapshotModel.of(data)
    if model is None or not model.sections:
        return mutate_bytes(data, rng)
    forced: dict[str, int | bytes] = {}
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        step = rng.choices(range(8), (16, 1, 1, 2, 1, 1, 2, 1))[0]
        number = rng.randrange(len(model.sections))
        entry, stored = model.sections[number]
        if step == 0:
            _mutate_section(model, number, rng)
        elif step == 1:
            name = rng.choice([f.name for f in layout.HEADER_FIELDS if f.type.startswith("u")])
            if name != "header_crc":
                size = next(f.size for f in layout.HEADER_FIELDS if f.name == name)
                forced[name] = interesting(rng, size, int(getattr(model.header, name)))
        elif step == 2:
            name = rng.choice([f.name for f in layout.SECTION_FIELDS if f.type.startswith("u")])
            size = next(f.size for f in layout.SECTION_FIELDS if f.name == name)
            model.forced.setdefault(entry.name, {})[name] = interesting(rng, size, int(getattr(entry, name)))
        elif step == 3:
            _mutate_config(model, rng)
        elif step == 4:
            cut = rng.randrange(len(stored) + 1)
            model.put(number, stored[:cut] if rng.randrange(2) else stored + stored[cut:])
        elif step == 5:
            names = [e.name for e, _ in model.sections] + ["hnsw.links", "ivf.rows", "other"]
            flags = rng.choice((entry.flags, layout.FLAG_DERIVED))
            model.sections[number] = (entry._replace(name=rng.choice(names), flags=flags), stored)
        elif step == 6:
            _mutate_rows(model, rng)
        else:
            del model.sections[number]
            if not model.sections:
                return mutate_bytes(data, rng)
    return model.build(**forced)


def _mutate_section(model: SnapshotModel, number: int, rng: Random) -> None:
    entry, stored = model.sections[number]
    size = layout.DTYPE_BY_TAG[entry.dtype].itemsize if entry.dtype in layout.DTYPE_BY_TAG else 1
    if entry.name == layout.META_DATA and not entry.codec:
        groups = model.place(layout.META_GROUPS)
        raw = model.sections[groups][1] if groups >= 0 else b""
        starts = [s for (s,) in struct.iter_unpack("<Q", raw[: len(raw) // 8 * 8]) if s < len(stored)]
        stored = mutate_groups(stored, starts, rng)
    elif entry.codec and rng.randrange(2):
        chunks = -(-entry.raw_bytes // max(1, entry.chunk_bytes)) + 1
        cut = max(0, len(stored) - 8 * chunks)
        stored = stored[:cut] + _mutate_items(stored[cut:], 8, rng)
    elif rng.randrange(3):
        stored = _mutate_items(stored, 1 if entry.codec else size, rng)
    else:
        stored = mutate_bytes(stored, rng)
    before = model.sections[number][1]
    if rng.randrange(8):
        # The shape is checked at open, so most changes keep it.
        stored = stored[: len(before)] + before[len(stored) :]
    model.put(number, stored)


def _mutate_config(model: SnapshotModel, rng: Random) -> None:
    number = model.place(layout.CONFIG)
    if number < 0:
        return
    try:
        config = json.loads(model.sections[number][1])
        index = config["index"]
        holder = index if rng.randrange(3) else config
        key = rng.choice(sorted(holder) or ["kind"])
        if not isinstance(index, dict):
            return
    except (ValueError, KeyError, TypeError, IndexError):
        return
    values: list[object] = [
        0, 1, -1, 2**31, 2**64, 2**64 - 1, 1e300, True, None, "", "flat", "hnsw", "ivf", "zstd:22", "zstd:99",
        [], {}, {"kind": "ivf"}, "lz4", 3, 16, 65536,
    ]  # fmt: skip
    holder[key] = rng.choice(values)
    if rng.randrange(8) == 0:
        holder[rng.choice(("extra", "m", "n_probes"))] = rng.choice(values)
    try:
        model.put(number, encode_config(config))
    except ValueError:
        return


def _mutate_rows(model: SnapshotModel, rng: Random) -> None:
    """Say another number of rows, and make the sections with that many rows agree."""
    before = model.header.n_rows
    after = rng.choice((0, 1, before - 1, before + 1, 2 * before, interesting(rng, 4, before) % 5000))
    after = min(max(0, after), 5000)
    model.header = model.header._replace(n_rows=after)
    for number, (entry, stored) in enumerate(model.sections):
        extra = entry.shape0 - before
        if entry.codec or extra not in {0, 1} or not entry.shape0:
            continue
        width = len(stored) // entry.shape0
        want = width * (after + extra)
        model.put(number, (stored * (1 + want // (len(stored) or 1)))[:want])


# --- Logs -----------------------------------------------------------------------------------------


@dataclass
class LogModel:
    """A log as its header and frames, which are chained and sealed when it is built."""

    header: LogHeader
    frames: list[tuple[FrameHeader, bytes]]
    tail: bytes

    @classmethod
    def of(cls, data: bytes) -> LogModel | None:
        """Take a log apart; None when it has no header."""
        try:
            header = layout.decode_log_header(data[: layout.LOG_HEADER_BYTES])
        except (ValueError, struct.error):
            return None
        frames = []
        at = layout.LOG_HEADER_BYTES
        while at + layout.FRAME_HEADER_BYTES <= len(data):
            try:
                found = layout.decode_frame_header(data[at : at + layout.FRAME_HEADER_BYTES])
            except ValueError:
                break
            body = data[at + layout.FRAME_HEADER_BYTES :][: found.body_bytes]
            if found.marker != layout.FRAME_MARKER or len(body) < found.body_bytes:
                break
            frames.append((found, body))
            at += layout.FRAME_HEADER_BYTES + len(body)
        return cls(header, frames, data[at:])

    def behind(self, header: LogHeader) -> bytes:
        """Return these frames as the log of another snapshot."""
        return LogModel(header, self.frames, self.tail).build({}, {})

    def build(self, header_fields: dict[str, int], frame_fields: dict[int, dict[str, int]]) -> bytes:
        """Put the log together; the given fields are written as they are, however wrong."""
        header = self.header._replace(**header_fields)  # type: ignore[arg-type]
        out = layout.encode_log_header(header)[: layout.LOG_HEADER_CRC_OFFSET]
        out += struct.pack("<I", crc32c(out))
        previous = int.from_bytes(out[-4:], "little")
        seed = crc32c(header.database_id)
        settled = len(out)
        for number, (frame, stored) in enumerate(self.frames):
            body = stored + bytes(-len(stored) % 8)
            fields = {
                "body_bytes": len(body),
                "sequence": number + 1,
                "settled_bytes": settled,
                "previous_crc": previous,
                **frame_fields.get(number, {}),
            }
            raw = layout.encode_frame_header(frame._replace(**fields))[: layout.FRAME_CRC_OFFSET]  # type: ignore[arg-type]
            previous = crc32c(body, crc32c(raw, seed))
            settled = len(out)
            out += raw + struct.pack("<I", previous) + body
        return out + self.tail


def mutate_log(data: bytes, rng: Random) -> bytes:
    """Change one or a few things of a log, most often so that no checksum tells."""
    model = LogModel.of(data)
    if model is None or rng.randrange(16) == 0:
        return mutate_bytes(data, rng)
    header: dict[str, int] = {}
    frames: dict[int, dict[str, int]] = {}
    for _ in range(rng.choice((1, 1, 2, 3))):
        step = rng.choices(range(5), (6, 2, 1, 1, 1))[0]
        if not model.frames:
            step = 3
        number = rng.randrange(len(model.frames)) if model.frames else 0
        if step == 0:
            frame, body = model.frames[number]
            model.frames[number] = (frame, _mutate_body(frame, body, rng))
        elif step == 1:
            found = rng.choice(
                [f for f in layout.FRAME_FIELDS if f.type.startswith("u") and f.name != "frame_crc"]
            )
            near = int(getattr(model.frames[number][0], found.name))
            frames.setdefault(number, {})[found.name] = interesting(rng, found.size, near)
        elif step == 2:
            model.frames.insert(rng.randrange(len(model.frames) + 1), model.frames[number])
        elif step == 3:
            found = rng.choice([f for f in layout.LOG_HEADER_FIELDS if f.type.startswith("u")])
            header[found.name] = interesting(rng, found.size, int(getattr(model.header, found.name)))
        else:
            del model.frames[number]
    return model.build(header, frames)


def _mutate_body(frame: FrameHeader, body: bytes, rng: Random) -> bytes:
    if rng.randrange(3) == 0 or len(body) < 16:
        return mutate_bytes(body, rng)
    ids_bytes, metadata_bytes = struct.unpack_from("<QQ", body)
    metadata_at = len(body) - metadata_bytes
    if frame.type == layout.FRAME_UPSERT and 8 <= metadata_bytes <= len(body) - 16 and rng.randrange(2):
        first = struct.unpack_from("<Q", body, metadata_at)[0]
        starts = [first] if first < metadata_bytes else [0]
        return body[:metadata_at] + mutate_groups(body[metadata_at:], starts, rng)
    cut = min(16 + (ids_bytes if ids_bytes < len(body) else 0), len(body))
    return _mutate_items(body[:cut], rng.choice((1, 4, 8)), rng) + body[cut:]
