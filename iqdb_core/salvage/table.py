"""The sections of a snapshot whose section table is damaged or gone, found by header and contents."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from iqdb_core import _kernels
from iqdb_core.errors import NotRepairableError, StructureError
from iqdb_core.salvage.sections import SalvagedSection
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    CODEC_LZ4,
    CODEC_NAMES,
    CODEC_NONE,
    CODEC_ZSTD,
    COMPRESSIBLE_SECTIONS,
    CONFIG,
    DTYPE_BY_NAME,
    HEADER_BYTES,
    ID_BYTES,
    ID_ENCODING_U64,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
    MAX_CONFIG_BYTES,
    MAX_EXPANSION,
    META_DATA,
    META_GROUPS,
    META_ROWS,
    PAGE_BYTES,
    SECTION_ENTRY_BYTES,
    VECTORS,
    WRITTEN_CHUNK_BYTES,
    Header,
    ReservedError,
    SectionEntry,
    decode_section_table,
    encode_section_name,
    padded,
)
from iqdb_core.storage.structure import RECORD_DTYPES, check_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqdb_core.storage.files import FileSystem, OpenFile

_COMPARED_BLOCKS = 8


class _Guess(NamedTuple):
    """What the table would have said first: how sections are stored, and which there are."""

    codec: int
    ordered: bool
    metadata: bool


class TableFinder:
    """Finds the sections of the records. What is left of the table is used where it fits."""

    def __init__(self, file: OpenFile, files: FileSystem, header: Header, seed: int, table: bytes) -> None:
        self._file = file
        self._files = files
        self._header = header
        self._seed = seed
        self._size = min(files.status(file).st_size, header.file_bytes)
        self._slots = [self._slot(table, number) for number in range(header.section_count)]

    def _slot(self, table: bytes, number: int) -> SectionEntry | None:
        """Return what one entry of the table says, if it obeys the rules."""
        raw = table[number * SECTION_ENTRY_BYTES :][:SECTION_ENTRY_BYTES]
        if len(raw) < SECTION_ENTRY_BYTES:
            return None
        try:
            (entry,) = decode_section_table(raw)
            check_entry(entry, self._file.path)
        except (ReservedError, StructureError):
            return None
        return entry

    def find(self) -> tuple[list[SectionEntry], dict[str, int], bool]:
        """Return the sections of the records, the known checksums of their tables, and whether none are left.

        Raises:
            NotRepairableError: they cannot be found.
        """
        for guess in self._guesses():
            found = self._places(guess)
            if found is None:
                continue
            entries, taken = found
            area = self._area(entries)
            crcs: dict[str, int] = {}
            if area is None:
                return entries, crcs, True
            placed = []
            for entry in entries:
                placed.append(entry._replace(checksums_offset=area))
                if entry.name in taken and entry.checksums_offset == area:
                    crcs[entry.name] = entry.checksums_crc
                area += padded(4 * -(-entry.stored_bytes // BLOCK_BYTES), 8)
            return placed, crcs, False
        raise NotRepairableError(
            self._file.path,
            "its section table is damaged or cut off, and its sections cannot be found without it",
        )

    def _guesses(self) -> Iterator[_Guess]:
        names = {slot.name for slot in self._slots if slot is not None}
        codecs = {slot.codec for slot in self._slots if slot is not None and slot.codec}
        yield from (
            _Guess(codec, ordered, metadata)
            for codec, ordered, metadata in product(
                sorted(codecs) or (CODEC_NONE, CODEC_LZ4, CODEC_ZSTD),
                (True,) if ID_ORDER in names else (True, False),
                (True,) if names & {META_ROWS, META_GROUPS, META_DATA} else (True, False),
            )
        )

    def _places(self, guess: _Guess) -> tuple[list[SectionEntry], set[str]] | None:
        """Return the sections as they would stand under a guess; None when they do not."""
        header = self._header
        names = [VECTORS]
        names += [IDS] if header.id_encoding == ID_ENCODING_U64 else [ID_KINDS, ID_OFFSETS, ID_BYTES]
        names += [ID_ORDER] * guess.ordered + [META_ROWS, META_GROUPS, META_DATA] * guess.metadata + [CONFIG]
        if len(names) > header.section_count:
            return None
        at = HEADER_BYTES
        entries: dict[str, SectionEntry] = {}
        taken: set[str] = set()
        for number, name in enumerate(names):
            slot = self._slots[number]
            if name == CONFIG and self._stated_codec(at) not in {None, CODEC_NAMES[guess.codec]}:
                return None
            if slot is not None and slot.name == name and slot.offset == at:
                taken.add(name)
                entry: SectionEntry | None = slot
            else:
                entry = self._derived(name, at, guess, entries)
            if entry is None or at + entry.stored_bytes > self._size:
                return None
            entries[name] = entry
            at = padded(at + entry.stored_bytes)
        return list(entries.values()), taken

    # --- The length of a section, from what is in it ------------------------------------------------

    def _derived(
        self, name: str, at: int, guess: _Guess, before: dict[str, SectionEntry]
    ) -> SectionEntry | None:
        n_rows = self._header.n_rows
        items: int | None
        if name in {ID_BYTES, META_DATA}:
            items = self._last_value(before[ID_OFFSETS if name == ID_BYTES else META_GROUPS])
        elif name == META_ROWS:
            items = self._items_up_to(n_rows, at)
        elif name == META_GROUPS:
            items = before[META_ROWS].shape0
        elif name == CONFIG:
            items = None if self._stated_codec(at) is None else len(self._config_text(at))
        else:
            items = n_rows + (name == ID_OFFSETS)
        if items is None:
            return None
        dtype = DTYPE_BY_NAME[RECORD_DTYPES[name]]
        width = self._header.dim if name == VECTORS else 1
        raw_bytes = items * width * dtype.itemsize
        entry = SectionEntry(
            name=name,
            dtype=dtype.tag,
            codec=CODEC_NONE,
            flags=0,
            ndim=2 if name == VECTORS else 1,
            chunk_bytes=0,
            shape0=items,
            shape1=width,
            offset=at,
            stored_bytes=raw_bytes,
            raw_bytes=raw_bytes,
            checksums_offset=0,
            checksums_crc=0,
        )
        if not guess.codec or name not in COMPRESSIBLE_SECTIONS or not raw_bytes:
            return entry
        stored = self._compressed_bytes(raw_bytes, at)
        if stored is None:
            return None
        return entry._replace(codec=guess.codec, chunk_bytes=WRITTEN_CHUNK_BYTES, stored_bytes=stored)

    def _words(self, start: int, stop: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        stop = min(stop, self._size)
        data = self._files.read(self._file, max(0, (stop - start) // 8 * 8), start)
        return np.frombuffer(data[: len(data) // 8 * 8], np.uint64)

    def _last_value(self, entry: SectionEntry) -> int | None:
        """Return the last number of a section of offsets, which is how long what it points into is."""
        section = SalvagedSection(entry, self._seed, None, self._file, self._files, trusted=True)
        if section.lost(entry.raw_bytes - 8, entry.raw_bytes):
            return None
        last = int.from_bytes(section.raw(entry.raw_bytes - 8, entry.raw_bytes), "little")
        return last if last <= self._size * 4096 else None

    def _items_up_to(self, n_rows: int, at: int) -> int | None:
        """Return how many numbers ascend from 0 to `n_rows`."""
        words = self._words(at, at + 8 * (n_rows + 1))
        ends = np.flatnonzero(words == n_rows)
        if not len(ends) or not n_rows:
            return None
        count = int(ends[0]) + 1
        ascend = words[0] == 0 and bool((words[1:count] > words[: count - 1]).all())
        return count if ascend and count >= 2 else None

    def _config_text(self, at: int) -> bytes:
        return self._files.read(self._file, MAX_CONFIG_BYTES, at).split(b"\0", 1)[0]

    def _stated_codec(self, at: int) -> str | None:
        """Return the codec that the configuration at `at` names; None when there is none."""
        try:
            return str(json.loads(self._config_text(at))["compression"]).partition(":")[0]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None

    def _compressed_bytes(self, raw_bytes: int, at: int) -> int | None:
        """Return how long a compressed section is: its last number says where its last chunk ends."""
        chunks = -(-raw_bytes // WRITTEN_CHUNK_BYTES)
        tail = 8 * (chunks + 1)
        words = self._words(at, at + padded(raw_bytes, 8) + tail)
        ends = 8 * np.arange(1, len(words) + 1, dtype=np.uint64)
        # Numbers near 2^64 wrap round and then fit nowhere.
        fits = np.flatnonzero(((words + np.uint64(7)) & ~np.uint64(7)) + np.uint64(tail) == ends)
        for place in fits.tolist():
            offsets = words[place - chunks : place + 1]
            stored_bytes = 8 * (place + 1)
            if (
                place >= chunks
                and offsets[0] == 0
                and bool((offsets[1:] > offsets[:-1]).all())
                and raw_bytes <= MAX_EXPANSION * stored_bytes
            ):
                return stored_bytes
        return None

    # --- The checksums ------------------------------------------------------------------------------

    def _area(self, entries: list[SectionEntry]) -> int | None:
        """Return where the checksum area begins; None when it is not in the file any more."""
        last = entries[-1]
        first_page = padded(last.offset + last.stored_bytes)
        wanted = self._first_checksums(entries)
        best, best_count = None, 0
        for page in range(self._size // PAGE_BYTES * PAGE_BYTES, first_page - PAGE_BYTES, -PAGE_BYTES):
            count = 0
            for offset, checksum in wanted:
                data = self._files.read(self._file, 4, page + offset)
                count += len(data) == 4 and int.from_bytes(data, "little") == checksum
            if count > best_count:
                best, best_count = page, count
            if best_count == len(wanted):
                break
        return best

    def _first_checksums(self, entries: list[SectionEntry]) -> list[tuple[int, int]]:
        """Return place in the checksum area, and value, of the first checksums of every section."""
        wanted = []
        offset = 0
        for entry in entries:
            count = -(-entry.stored_bytes // BLOCK_BYTES)
            size = min(entry.stored_bytes, _COMPARED_BLOCKS * BLOCK_BYTES)
            data = self._files.read(self._file, size, entry.offset)
            sums = np.zeros(-(-len(data) // BLOCK_BYTES), np.uint32)
            prefix = _kernels.crc32c(encode_section_name(entry.name), self._seed)
            _kernels.crc32c_blocks(data, prefix, 0, sums)
            wanted += [(offset + 4 * block, int(value)) for block, value in enumerate(sums)]
            offset += padded(4 * count, 8)
        return wanted
