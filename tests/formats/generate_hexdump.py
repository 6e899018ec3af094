"""Writes the annotated dumps on the pages: of a small database and of a log on it.

Run it after a change of the format: `python tests/formats/generate_hexdump.py`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import TypeAlias

from generate_golden import log_image, snapshot_bytes
from golden_cases import Case
from pages import FORMATS

from iqdb_core.storage import columns, layout
from iqdb_core.storage.layout import Field

Line: TypeAlias = tuple[int, bytes, str]

CASE = Case(
    "dump",
    "",
    [(7, [1.0, -2.5], {"n": -1, "word": "ja"}), (3, [0.0, 0.5], None)],
    [("upsert", [(7, [4.0, 8.0], None)]), ("delete", [3])],
)
_SIZES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q"}
_BYTES_IN_LINE = 16


def fields(data: bytes, at: int, table: tuple[Field, ...], name: str) -> Iterator[Line]:
    """Yield a line for each field of a structure at an offset."""
    for field in table:
        raw = data[at + field.offset : at + field.offset + field.size]
        text = f"{name}.{field.name}"
        if field.type in _SIZES:
            value = struct.unpack(f"<{_SIZES[field.type]}", raw)[0]
            shown = f"{value:08x}" if field.name.endswith("_crc") else str(value)
            if field.name == "snapshot_identity":
                shown = f"{value:016x}"
            text += f" = {shown}"
        elif field.type == "ascii" or field.name in ("magic", "marker"):
            text += f' = "{raw.rstrip(bytes(1)).decode("ascii")}"'
        yield at + field.offset, raw, text


def elements(data: bytes, at: int, size: int, code: str, name: str) -> Iterator[Line]:
    """Yield a line for each element of an array."""
    width = struct.calcsize(code)
    for number, start in enumerate(range(at, at + size, width)):
        values = struct.unpack_from(f"<{code}", data, start)
        shown = ", ".join(f"{v:08x}" if code == "I" and "checksum" in name else str(v) for v in values)
        yield start, data[start : start + width], f"{name}[{number}] = {shown}"


def group(data: bytes, at: int, name: str) -> Iterator[Line]:
    """Yield the lines of a metadata group."""
    yield from fields(data, at, columns.GROUP_FIELDS, name)
    n_rows, n_columns, _, _, size = struct.unpack_from("<IIB3sI", data, at)
    end = at + 16
    payloads = []
    keys_end = 0
    for number in range(n_columns):
        yield from fields(data, end, columns.COLUMN_FIELDS, f"column {number}")
        entry = struct.unpack_from("<IHBBIB3sII8s", data, end)
        payloads.append((entry[7], entry[8], entry[2]))
        keys_end = entry[0] + entry[1]
        end += 32
    first = payloads[0][0]
    keys = data[end : at + keys_end]
    yield end, keys, f'keys "{keys.decode()}"'
    bitmap_at = at + keys_end + -(at + keys_end) % 8
    yield at + keys_end, data[at + keys_end : bitmap_at], "zeros to a multiple of 8"
    if bitmap_at < at + first:
        yield bitmap_at, data[bitmap_at : at + first], f"mappings: a bitmap of {n_rows} rows, row 0 has one"
    for number, (offset, length, type_) in enumerate(payloads):
        start = at + offset
        yield start, data[start : start + 8], f"column {number}: presence, a bitmap of {n_rows} rows"
        rest = data[start + 8 : start + length]
        if type_ == 3:
            yield start + 8, rest, f"column {number}: int64 {struct.unpack('<q', rest)[0]}"
            continue
        offsets = struct.unpack_from("<II", rest)
        yield start + 8, rest[:8], f"column {number}: offsets {offsets[0]}, {offsets[1]}"
        text = rest[8 : 8 + offsets[1]]
        yield start + 16, text, f'column {number}: "{text.decode()}"'
        yield start + 16 + len(text), rest[8 + len(text) :], "zeros to a multiple of 8"
    assert payloads[-1][0] + payloads[-1][1] == size


def snapshot_lines(data: bytes) -> Iterator[Line]:
    """Yield every byte of a snapshot of `CASE`, in order."""
    yield from fields(data, 0, layout.HEADER_FIELDS, "header")
    header = layout.decode_header(data[: layout.HEADER_BYTES])
    entries = layout.decode_section_table(data[header.section_table_offset :])
    end = layout.HEADER_BYTES
    for entry in entries:
        yield end, data[end : entry.offset], "padding"
        raw = data[entry.offset : entry.offset + entry.stored_bytes]
        code = {"vectors": f"{header.dim}f", "ids.order": "I"}.get(entry.name, "Q")
        if entry.name == "config":
            yield entry.offset, raw, f"config = {raw.decode()}"
        elif entry.name == "meta.data":
            yield from group(data, entry.offset, "group 0")
        else:
            yield from elements(data, entry.offset, entry.stored_bytes, code, entry.name)
        end = entry.offset + entry.stored_bytes
    yield end, data[end : entries[0].checksums_offset], "padding"
    for entry in entries:
        at = entry.checksums_offset
        yield from elements(data, at, 4, "I", f"checksums of {entry.name}")
        yield at + 4, data[at + 4 : at + 8], "zeros to a multiple of 8"
        end = at + 8
    yield end, data[end : header.section_table_offset], "padding"
    for number, entry in enumerate(entries):
        at = header.section_table_offset + layout.SECTION_ENTRY_BYTES * number
        yield from fields(data, at, layout.SECTION_FIELDS, entry.name)


def log_lines(data: bytes) -> Iterator[Line]:
    """Yield every byte of the log of `CASE`, in order."""
    yield from fields(data, 0, layout.LOG_HEADER_FIELDS, "header")
    at = layout.LOG_HEADER_BYTES
    number = 0
    while at < len(data):
        name = f"frame {number}"
        yield from fields(data, at, layout.FRAME_FIELDS, name)
        body_bytes, type_ = struct.unpack_from("<I", data, at + 4)[0], data[at + 28]
        end = at + layout.FRAME_HEADER_BYTES + body_bytes
        at += layout.FRAME_HEADER_BYTES
        upsert = type_ == layout.FRAME_UPSERT
        yield from fields(
            data, at, layout.UPSERT_BODY_FIELDS if upsert else layout.DELETE_BODY_FIELDS, "body"
        )
        yield from fields(data, at + 16, layout.IDS_BLOCK_FIELDS, "ids")
        yield from elements(data, at + 24, 8, "Q", "ids")
        if upsert:
            yield from elements(data, at + 32, 8, "2f", "vectors")
        at = end
        number += 1


def dump(lines: Iterator[Line]) -> str:
    """Return lines of text: offset, bytes, what they are. Zeros of more than a line are said in words."""
    text = []
    expected = 0
    for at, raw, what in lines:
        assert at == expected, f"{at} after {expected}: {what}"
        expected = at + len(raw)
        if not raw:
            continue
        if len(raw) > 2 * _BYTES_IN_LINE and not any(raw):
            text.append(f"{at:06x}  {'00 ...':47}  {what}: {len(raw)} zeros")
            continue
        for start in range(0, len(raw), _BYTES_IN_LINE):
            piece = raw[start : start + _BYTES_IN_LINE].hex(" ")
            text.append(f"{at + start:06x}  {piece:47}  {what if start == 0 else ''}".rstrip())
    return "\n".join(text)


def dumps() -> dict[str, tuple[str, str]]:
    """Return for every mark on a page which page it is on and what stands behind it."""
    snapshot = snapshot_bytes(CASE, CASE.rows)
    log = bytes(log_image(CASE, snapshot, CASE.log or []).data)
    return {
        "snapshot": ("snapshot-3.md", dump(snapshot_lines(snapshot))),
        "log": ("log-2.md", dump(log_lines(log))),
    }


def block(mark: str) -> re.Pattern[str]:
    """Return what finds the block of text behind a mark."""
    return re.compile(rf"(<!-- hexdump: {mark} -->\n\n```\n)(.*?)(\n```\n)", re.DOTALL)


def main() -> None:
    """Put the dumps into the pages."""
    for mark, (name, text) in dumps().items():
        path = FORMATS / name
        old = path.read_text(encoding="utf-8")
        new, count = block(mark).subn(lambda found, text=text: found[1] + text + found[3], old)  # type: ignore[misc]
        assert count == 1, mark
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
