"""Finding the sections of a snapshot whose header or section table is damaged.

What one of them says, the other says too, or the sections themselves do. Sections stand one behind the
other in a fixed order, an uncompressed one is as long as its contents say, and so is a compressed one, by the
offsets of its chunks. The checksums of the blocks prove in the end that what was found was written there.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from iqdb_core._kernels import crc32c
from iqdb_core.config import IqdbConfig
from iqdb_core.errors import (
    ConfigError,
    DamagedError,
    NotADatabaseError,
    NotRepairableError,
    StructureError,
    TruncatedError,
    UnsupportedVersionError,
    VectorIndexError,
)
from iqdb_core.salvage.seed import agreed_seed, seed_of_block
from iqdb_core.salvage.table import TableFinder
from iqdb_core.storage.layout import (
    BLOCK_BYTES,
    BLOCK_LOG2,
    CONFIG,
    HEADER_BYTES,
    HEADER_CRC_OFFSET,
    ID_ENCODING_U64,
    ID_ENCODING_VAR,
    IDS,
    INDEX_KIND_TAGS,
    MAX_SECTIONS,
    METRIC_TAGS,
    PAGE_BYTES,
    RECORD_SECTIONS,
    SECTION_ENTRY_BYTES,
    SNAPSHOT_MAGIC,
    SNAPSHOT_VERSION,
    VECTORS,
    Header,
    SectionEntry,
    encode_header,
    encode_section_name,
)
from iqdb_core.storage.structure import check_config, check_header, check_section_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iqdb_core.storage.files import FileSystem, OpenFile

_SAMPLED_BLOCKS = 16


class Layout(NamedTuple):
    """What there is in a snapshot, and how far that is proved.

    Attributes:
        header: the header, rebuilt where it is damaged.
        header_proved: its checksum is right, as it stands or rebuilt; then digest and identity are known.
        seed: crc32c of the database id.
        database_id: None when it cannot be known.
        entries: the sections of the records by name.
        checksums_crcs: what the tables of block checksums must have, where that is known.
        trusted: there are no checksums; only the content digest can prove what is read.
        config: the configuration; None when it cannot be read.
        notes: what was done about damage.
    """

    header: Header
    header_proved: bool
    seed: int
    database_id: bytes | None
    entries: dict[str, SectionEntry]
    checksums_crcs: dict[str, int]
    trusted: bool
    config: IqdbConfig | None
    notes: list[str]

    @property
    def table_crc(self) -> int:
        """The upper half of the snapshot's identity."""
        return self.header.section_table_crc


def find_layout(file: OpenFile, files: FileSystem) -> Layout:
    """Find out what stands where in a snapshot.

    Raises:
        NotADatabaseError, UnsupportedVersionError, UnsupportedFeatureError: it is none to repair.
        NotRepairableError: too little is left to find anything.
    """
    size = files.status(file).st_size
    page = files.read(file, HEADER_BYTES, 0)
    notes: list[str] = []
    try:
        header = _whole_header(page, size, file.path, notes)
    except (NotADatabaseError, UnsupportedVersionError) as error:
        # The first bytes may be what is damaged; a section table at the end tells.
        with contextlib.suppress(NotRepairableError):
            return _from_table(page, size, file, files)
        raise error from None
    if header is None:
        return _from_table(page, size, file, files)
    seed = crc32c(header.database_id)
    table = files.read(file, header.file_bytes - header.section_table_offset, header.section_table_offset)
    trusted = False
    try:
        entries = check_section_table(table, header, file.path)
        crcs = {entry.name: entry.checksums_crc for entry in entries}
    except DamagedError as error:
        finder = TableFinder(file, files, header, seed, table)
        entries, crcs, trusted = finder.find()
        notes.append(f"the section table is damaged ({_short(error)}); the sections were found without it")
    found = {entry.name: entry for entry in entries if entry.name in RECORD_SECTIONS}
    config = _config(file, files, found[CONFIG], header, seed, trusted=trusted)
    return Layout(header, True, seed, header.database_id, found, crcs, trusted, config, notes)


def _short(error: DamagedError) -> str:
    from iqdb_core.storage.verify import problem_of

    return problem_of(error)


def _whole_header(page: bytes, size: int, path: str, notes: list[str]) -> Header | None:
    """Return the header if its checksum is right, whatever the length of the file."""
    try:
        return check_header(page, size, path)
    except TruncatedError as error:
        if len(page) < HEADER_BYTES:
            return None
        header = check_header(page, error.expected_bytes, path)
        how = "too long, what is behind its end was ignored" if size > header.file_bytes else "cut short"
        notes.append(f"the file has {size} bytes, not {header.file_bytes}: it is {how}")
        return header
    except StructureError as error:
        raise NotRepairableError(path, f"its header contradicts the format: {error.message}") from error
    except DamagedError:
        return None


# --- A damaged header ---------------------------------------------------------------------------


def _from_table(page: bytes, size: int, file: OpenFile, files: FileSystem) -> Layout:
    """Rebuild the header from the section table at the end of the file, and from what is left of it."""
    path = file.path
    for offset, table in _tables(size, file, files):
        rebuilt = _header_of(table, offset, size)
        if rebuilt is None:
            continue
        with contextlib.suppress(DamagedError):
            entries = check_section_table(table, rebuilt, path)
            break
    else:
        raise NotRepairableError(
            path, "its header is damaged, and so is its section table or the file's end; nothing can be found"
        )
    found = {entry.name: entry for entry in entries if entry.name in RECORD_SECTIONS}
    seed = crc32c(page[48:64]) if len(page) == HEADER_BYTES else None
    if seed is None or not _agrees(seed, found, file, files):
        seed = agreed_seed(_seeds(found, file, files))
    if seed is None:
        raise NotRepairableError(path, "its header is damaged, and no two blocks agree on a database id")
    notes = ["the header is damaged; it was rebuilt from the section table"]
    header = rebuilt
    if len(page) == HEADER_BYTES:
        # What only the header knows is taken from what is left of it, if its checksum then says so.
        header = rebuilt._replace(database_id=page[48:64], content_digest=page[96:112])
    config = None
    candidates = [(page[92], page[93])] if len(page) == HEADER_BYTES else []
    candidates += [(metric, kind) for metric in METRIC_TAGS.values() for kind in INDEX_KIND_TAGS.values()]
    for metric, kind in candidates:
        tagged = header._replace(metric=metric, index_kind=kind)
        config = _config(file, files, found[CONFIG], tagged, seed)
        if config is not None:
            header = tagged
            break
    stored_crc = int.from_bytes(page[HEADER_CRC_OFFSET:], "little")
    if config is None and len(page) == HEADER_BYTES:
        header = header._replace(metric=page[92], index_kind=page[93])
    proved = len(page) == HEADER_BYTES and crc32c(encode_header(header)[:HEADER_CRC_OFFSET]) == stored_crc
    if config is None and not proved:
        raise NotRepairableError(path, "header and configuration are damaged; nothing else says the metric")
    header = header._replace(header_crc=stored_crc if proved else 0)
    database_id = header.database_id if crc32c(header.database_id) == seed else None
    crcs = {entry.name: entry.checksums_crc for entry in entries}
    if proved:
        notes[0] += " and its own checksum proves it"
    return Layout(header, proved, seed, database_id, found, crcs, False, config, notes)


def _tables(size: int, file: OpenFile, files: FileSystem) -> Iterator[tuple[int, bytes]]:
    """Yield what may be a section table: from a page's beginning to the end of the file."""
    last = (size - 1) // PAGE_BYTES * PAGE_BYTES
    for offset in range(last, max(0, size - MAX_SECTIONS * SECTION_ENTRY_BYTES) - PAGE_BYTES, -PAGE_BYTES):
        if offset >= HEADER_BYTES and (size - offset) % SECTION_ENTRY_BYTES == 0:
            yield offset, files.read(file, size - offset, offset)


def _header_of(table: bytes, offset: int, size: int) -> Header | None:
    """Return the header that would have such a table, without what the table does not say."""
    from iqdb_core.storage.layout import ReservedError, decode_section_table

    try:
        entries = {entry.name: entry for entry in decode_section_table(table)}
    except ReservedError:
        return None
    vectors = entries.get(VECTORS)
    if vectors is None:
        return None
    return Header(
        magic=SNAPSHOT_MAGIC,
        version=SNAPSHOT_VERSION,
        header_bytes=HEADER_BYTES,
        file_bytes=size,
        feature_compat=0,
        feature_ro_compat=0,
        feature_incompat=0,
        database_id=bytes(16),
        section_table_offset=offset,
        section_count=len(entries),
        section_table_crc=crc32c(table),
        n_rows=vectors.shape0,
        dim=vectors.shape1,
        metric=0,
        index_kind=0,
        id_encoding=ID_ENCODING_U64 if IDS in entries else ID_ENCODING_VAR,
        block_log2=BLOCK_LOG2,
        content_digest=bytes(16),
        header_crc=0,
    )


def _sampled(
    entries: dict[str, SectionEntry], file: OpenFile, files: FileSystem
) -> Iterator[tuple[bytes, int, bytes, int]]:
    """Yield name, number, bytes and checksum of some blocks of every section."""
    for entry in entries.values():
        count = -(-entry.stored_bytes // BLOCK_BYTES)
        for block in range(min(count, _SAMPLED_BLOCKS)):
            size = min(BLOCK_BYTES, entry.stored_bytes - block * BLOCK_BYTES)
            data = files.read(file, size, entry.offset + block * BLOCK_BYTES)
            stored = files.read(file, 4, entry.checksums_offset + 4 * block)
            yield encode_section_name(entry.name), block, data, int.from_bytes(stored, "little")


def _agrees(seed: int, entries: dict[str, SectionEntry], file: OpenFile, files: FileSystem) -> bool:
    """Whether some block has the right checksum with this seed."""
    return any(
        crc32c(data, crc32c(name + block.to_bytes(8, "little"), seed)) == checksum
        for name, block, data, checksum in _sampled(entries, file, files)
    )


def _seeds(entries: dict[str, SectionEntry], file: OpenFile, files: FileSystem) -> Iterator[int | None]:
    for block in _sampled(entries, file, files):
        yield seed_of_block(*block)


def _config(
    file: OpenFile,
    files: FileSystem,
    entry: SectionEntry,
    header: Header,
    seed: int,
    *,
    trusted: bool = False,
) -> IqdbConfig | None:
    """Return the configuration if it can be read and agrees with the header."""
    from iqdb_core.salvage.sections import SalvagedSection

    section = SalvagedSection(entry, seed, None, file, files, trusted=trusted)
    if not section.whole:
        return None
    try:
        return IqdbConfig.from_dict(check_config(bytes(section.raw(0, entry.raw_bytes)), header, file.path))
    except (DamagedError, ConfigError, VectorIndexError):
        return None


__all__ = ["Layout", "find_layout"]
