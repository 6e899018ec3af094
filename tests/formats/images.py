"""Images of snapshots and logs that can be altered: as a fault would, or as a dishonest writer would."""

from __future__ import annotations

import struct
from typing import Any

from independent_checksums import crc32c

from iqdb_core.storage import layout
from iqdb_core.storage.layout import BLOCK_BYTES, HEADER_BYTES, Header, SectionEntry


class SnapshotImage:
    """A snapshot in memory. `flip` and `put` leave the checksums alone; all else makes them right again."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    @property
    def header(self) -> Header:
        return layout.decode_header(bytes(self.data[:HEADER_BYTES]))

    @property
    def entries(self) -> list[SectionEntry]:
        return layout.decode_section_table(bytes(self.data[self.header.section_table_offset :]))

    def entry(self, name: str) -> SectionEntry:
        (entry,) = (entry for entry in self.entries if entry.name == name)
        return entry

    def flip(self, offset: int, bit: int = 0) -> None:
        self.data[offset] ^= 1 << bit

    def put(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data

    def seal_header(self) -> None:
        crc = crc32c(self.data[: layout.HEADER_CRC_OFFSET])
        struct.pack_into("<I", self.data, layout.HEADER_CRC_OFFSET, crc)

    def set_header(self, **fields: Any) -> None:
        """Change fields of the header."""
        self.data[:HEADER_BYTES] = layout.encode_header(self.header._replace(**fields))
        self.seal_header()

    def set_header_byte(self, offset: int, value: int) -> None:
        self.data[offset] = value
        self.seal_header()

    def seal_table(self) -> None:
        offset = struct.unpack_from("<Q", self.data, 64)[0]
        struct.pack_into("<I", self.data, 76, crc32c(self.data[offset:]))
        self.seal_header()

    def set_entry(self, entry_name: str, **fields: Any) -> None:
        """Change fields of a section's entry; nothing moves."""
        entries = [e._replace(**fields) if e.name == entry_name else e for e in self.entries]
        self.put(self.header.section_table_offset, layout.encode_section_table(entries))
        self.seal_table()

    def set_entry_byte(self, entry_name: str, offset: int, value: int) -> None:
        number = [entry.name for entry in self.entries].index(entry_name)
        self.data[self.header.section_table_offset + 96 * number + offset] = value
        self.seal_table()

    def seal_section(self, name: str) -> None:
        """Compute the block checksums of a section again, and all that covers them."""
        entry = self.entry(name)
        prefix = crc32c(self.header.database_id + layout.encode_section_name(name))
        table = b""
        for number, start in enumerate(range(0, entry.stored_bytes, BLOCK_BYTES)):
            end = min(start + BLOCK_BYTES, entry.stored_bytes)
            block = self.data[entry.offset + start : entry.offset + end]
            table += struct.pack("<I", crc32c(block, crc32c(struct.pack("<Q", number), prefix)))
        self.put(entry.checksums_offset, table)
        self.set_entry(name, checksums_crc=crc32c(table))

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write into the stored bytes of a section, as if they had always been so."""
        self.put(self.entry(name).offset + offset, data)
        self.seal_section(name)

    def stored(self, name: str) -> bytes:
        entry = self.entry(name)
        return bytes(self.data[entry.offset : entry.offset + entry.stored_bytes])


class LogPart:
    """Where the frames of a log stand, and how one is altered and made whole again."""

    def __init__(self, data: bytes, database_id: bytes) -> None:
        self.data = bytearray(data)
        self.database_id = database_id

    @property
    def offsets(self) -> list[int]:
        found, at = [], layout.LOG_HEADER_BYTES
        while at < len(self.data):
            found.append(at)
            at += layout.FRAME_HEADER_BYTES + struct.unpack_from("<I", self.data, at + 4)[0]
        return found

    def seal_header(self) -> None:
        struct.pack_into("<I", self.data, 60, crc32c(self.data[:60]))

    def chain(self) -> None:
        """Make every frame follow the one before it, and compute all checksums again."""
        self.seal_header()
        previous = bytes(self.data[60:64])
        for at in self.offsets:
            self.data[at + 24 : at + 28] = previous
            self.seal_frame(at)
            previous = bytes(self.data[at + 36 : at + 40])

    def seal_frame(self, at: int) -> None:
        body_bytes = struct.unpack_from("<I", self.data, at + 4)[0]
        seed = crc32c(self.data[at : at + 36], crc32c(self.database_id))
        struct.pack_into("<I", self.data, at + 36, crc32c(self.data[at + 40 : at + 40 + body_bytes], seed))

    def set_frame(self, number: int, offset: int, data: bytes) -> None:
        """Write into a frame, counted from its header, and compute its checksum again."""
        at = self.offsets[number]
        self.data[at + offset : at + offset + len(data)] = data
        self.seal_frame(at)
