"""Mistakes in what opens, locks and reads. See `mutants.py`."""

from __future__ import annotations

from mutant import DAMAGED_FILES, FILES, LIFE, PRIVATE, Mutant, mutant
from planting import Change

_OPENING = "iqdb_core.opening:"
_DELTA = "iqdb_core.delta:Delta."
_PROVE = "iqdb_core.new_snapshot:NewSnapshot."
_STRUCTURE = "iqdb_core.storage.structure:"
_SECTION = "iqdb_core.storage.section:"
_FLAT = ("damaged", "flat", "none")

_STATE = (
    mutant(
        "a batch leaves the older record of the delta in place",
        _DELTA + "upsert",
        "self._live.clear(old_rows[in_delta])",
        "pass",
        ("machine",),
    ),
    mutant(
        "a batch leaves the record of the snapshot in place",
        _DELTA + "upsert",
        "self.base_live.clear(base_rows[in_base])",
        "pass",
        ("machine",),
    ),
    mutant(
        "one record leaves the older one of the delta in place",
        _DELTA + "upsert_one",
        "            self._live.clear_one(old)\n",
        "",
        ("machine",),
    ),
    mutant(
        "a record of the snapshot is not deleted",
        _DELTA + "delete",
        "self.base_live.clear_one(base_row)",
        "pass",
        LIFE,
    ),
    mutant(
        "a replaced record goes to the end",
        _DELTA + "upsert_one",
        "            self._place_items[row] = base_row\n",
        "            self._place_items[row] = self._next_place\n            self._next_place += 1\n",
        ("machine",),
    ),
    mutant(
        "a search at work sees bitmaps change",
        "iqdb_core.store:Store._pin",
        "if view.leases:",
        "if False:",
        ("machine",),
        Change("iqdb_core.store:Store.upsert_one", "if view.leases:", "if False:"),
    ),
    mutant(
        "the cache answers from before a write",
        "iqdb_core.store:Store._publish",
        "self.cache.renew(view)",
        "pass",
        ("machine",),
        Change("iqdb_core.cache:ResultCache._lookup", "if view is self._view:", "if True:"),
        Change("iqdb_core.cache:ResultCache._store", "if view is not self._view:", "if False:"),
    ),
    mutant(
        "the cache is not told of a write",
        "iqdb_core.store:Store._publish",
        "self.cache.renew(view)",
        "pass",
        ("machine",),
        equivalent="nothing is answered for another view than the one it was told of: slower, never wrong",
    ),
    mutant(
        "a compaction forgets what was deleted",
        "iqdb_core.batches:segments",
        "live is None or live.all()",
        "live is None or live.any()",
        ("sabotaged", "", "compact"),
        quick=True,
    ),
)

_LOCKS = (
    mutant(
        "a second writer is let in",
        FILES + "lock",
        "raise LockedError(file.shown) from error",
        "return",
        ("tested", "tests/core/test_concurrency.py"),
    ),
    mutant(
        "writers share the lock",
        FILES + "lock",
        "fcntl.LOCK_EX",
        "fcntl.LOCK_SH",
        ("tested", "tests/core/test_concurrency.py"),
    ),
    mutant(
        "a writer locks a file that has lost its name",
        _OPENING + "_lock",
        "if _is_at(files, file, real):",
        "if True:",
        ("tested", "tests/core/test_concurrency.py"),
    ),
    mutant(
        "a new snapshot is not locked before its rename",
        FILES + "create_temporary",
        "                self.lock(file)\n",
        "",
        ("tested", "tests/core/test_concurrency.py"),
    ),
    mutant(
        "nobody waits for the lock",
        "iqdb_core.lock_wait:when_unlocked",
        "if left <= 0:",
        "if True:",
        ("tested", "tests/cli/test_wait.py"),
    ),
    mutant(
        "a sweep removes what is being written",
        FILES + "sweep_temporaries",
        "                    self.lock(file)\n",
        "                    pass\n",
        ("tested", "tests/trust/test_output_files.py"),
    ),
    mutant(
        "opening does not sweep",
        _OPENING + "open_for_writing",
        "files.sweep_temporaries(real)",
        "pass",
        LIFE,
    ),
    mutant(
        "a creation does not sweep",
        _PROVE + "__init__",
        "files.sweep_temporaries(path)",
        "pass",
        ("kill", "create"),
    ),
    mutant(
        "an output does not sweep",
        "iqdb_cli.replaced_files:NewFile.__init__",
        "files.sweep_temporaries(place.target)",
        "pass",
        ("kill", "export"),
    ),
    mutant(
        "the second name of a database is not swept",
        FILES + "sweep_temporaries",
        "if database is None or not os.path.samestat(self.status(file), database):",
        "if True:",
        LIFE,
    ),
    mutant(
        "a new snapshot may be read by others for a moment",
        _PROVE + "__init__",
        "0o666 if like is None else 0o600",
        "0o666",
        PRIVATE,
    ),
    mutant(
        "a new log may be read by others for a moment",
        "iqdb_core.storage.wal:LogWriter.create",
        "0o666 if like is None else 0o600",
        "0o666",
        PRIVATE,
    ),
)

_READERS = (
    mutant(
        "a reader pairs a snapshot with a log that is gone",
        _OPENING + "_read",
        "                store.log_end = contents.valid_bytes\n"
        "    return store if _is_at(files, file, real) else None",
        "                store.log_end = contents.valid_bytes\n    return store",
        ("tested", "tests/core/test_concurrency.py"),
    ),
    mutant(
        "a refresh does not see that the snapshot was replaced",
        _OPENING + "refreshed",
        "same = there is not None and (there.st_dev, there.st_ino) == snapshot.inode",
        "same = True",
        ("machine",),
    ),
    mutant(
        "a refresh does not see that the log has changed",
        _OPENING + "refreshed",
        "if same and log_status(files, store.path) == store.log_status and",
        "if same and",
        ("observed",),
    ),
    mutant(
        "a refresh does not look for frames in room",
        _OPENING + "refreshed",
        " and not _has_next_frame(store, files)",
        "",
        ("tested", "tests/core/storage/test_log_room.py"),
    ),
    mutant(
        "a block's checksum is not compared",
        _SECTION + "Section.verify",
        "if bad >= 0:",
        "if False:",
        _FLAT,
        quick=True,
    ),
    mutant(
        "the table of a section's checksums is not compared",
        _SECTION + "Section.blocks",
        "if found != entry.checksums_crc:",
        "if False:",
        DAMAGED_FILES,
    ),
    mutant(
        "all blocks count as verified from the start",
        _SECTION + "Section.blocks",
        "bytearray(count)",
        'bytearray(b"\\1" * count)',
        _FLAT,
        quick=True,
    ),
    mutant(
        "of many blocks the first one vouches for the others",
        _SECTION + "Section.verify",
        "if blocks.verified.find(0, first, last) < 0:",
        "if blocks.verified[first]:",
        ("damaged_large", "flat", "none"),
        quick=True,
    ),
    mutant(
        "the last, partial block is not verified",
        _SECTION + "Section.verify",
        "last = (stop + _SPARE_BYTES) >> BLOCK_LOG2",
        "last = stop >> BLOCK_LOG2",
        _FLAT,
        quick=True,
    ),
    mutant(
        "chunks are decoded without a look at their checksums",
        _SECTION + "_Chunks._decode",
        "section.verify(start, stop)",
        "pass",
        ("damaged_large", "flat", "zstd:3"),
    ),
    mutant(
        "the offsets of chunks are used without a look at their checksums",
        _SECTION + "_Chunks._stored_range",
        "section.verify(at, at + 16)",
        "pass",
        ("damaged_large", "flat", "zstd:3"),
        equivalent="a wrong offset gives a chunk of another length, which does not decode to the size that it"
        " must have: it is refused all the same",
    ),
    mutant(
        "of many chunks the first one vouches for the others",
        _SECTION + "_Chunks.read",
        "if self._decoded.find(0, first, last) >= 0:",
        "if not self._decoded[first]:",
        ("damaged_large", "flat", "zstd:3"),
        quick=True,
    ),
    mutant(
        "ids of hits are read from blocks that nobody has verified",
        "iqdb_core.view:Base.ids",
        "ids[row] if verified[row >> _IDS_PER_BLOCK_LOG2] else id_at(row)",
        "ids[row]",
        ("flipped", "ids", 7),
        quick=True,
    ),
    mutant(
        "the header's checksum is not compared",
        _STRUCTURE + "check_header",
        "if found != expected:",
        "if False:",
        ("flipped", "header", 29),
        quick=True,
    ),
    mutant(
        "the length of the file is not compared",
        _STRUCTURE + "check_header",
        "if header.file_bytes != file_bytes:",
        "if False:",
        DAMAGED_FILES,
    ),
    mutant(
        "the section table's checksum is not compared",
        _STRUCTURE + "check_section_table",
        "if found != header.section_table_crc:",
        "if False:",
        DAMAGED_FILES,
    ),
)

READING: tuple[Mutant, ...] = (*_STATE, *_LOCKS, *_READERS)
