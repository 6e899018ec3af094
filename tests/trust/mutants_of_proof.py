"""Mistakes in what proves, verifies and repairs. See `mutants.py`."""

from __future__ import annotations

from mutant import DAMAGED_FILES, Mutant, mutant

_PROVE = "iqdb_core.new_snapshot:NewSnapshot."
_FLAT = ("damaged", "flat", "none")

_PROOF = (
    mutant(
        "the digest is not compared before the rename",
        _PROVE + "prove",
        "if found.digest != expected:",
        "if False:",
        ("sabotaged", "a bit of a vector is flipped", "compact"),
        quick=True,
    ),
    mutant(
        "what was meant is compared, not what was written",
        _PROVE + "prove",
        "found = sync_and_read_back(self.file, self.files, threads=threads)",
        "sync_and_read_back(self.file, self.files, threads=threads)",
        ("sabotaged", "a metadata value is altered", "recompress"),
        quick=True,
    ),
    mutant(
        "the order of the records is not compared",
        _PROVE + "check_sequence",
        "if found != expected:",
        "if False:",
        ("sabotaged", "two records change places", "import"),
        quick=True,
    ),
    mutant(
        "the number of records is not compared",
        _PROVE + "check_rows",
        "if summary.n_rows != n_rows:",
        "if False:",
        ("sabotaged", "the last records are left out", "compact"),
        equivalent="digest and order, compared later, cover it; this spares building an index in vain",
    ),
    mutant(
        "the index is not compared with what was built",
        "iqdb_core.indexing:_prove_index",
        "if not _same_bytes(",
        "if False and not _same_bytes(",
        ("sabotaged", "a bit of the index is flipped", "import ivf"),
    ),
    mutant(
        "the index is not checked against the records",
        "iqdb_core.indexing:_prove_index",
        "if checked.faults:",
        "if False:",
        ("sabotaged", "a kernel codes wrongly", "compact hnsw"),
        quick=True,
    ),
    mutant(
        "nobody looks whether ids are found",
        "iqdb_core.storage.read_back:read_back",
        "_check_order(sections, header.n_rows, path)",
        "pass",
        ("sabotaged", "ids are sorted wrongly", "recompress"),
        quick=True,
    ),
    mutant(
        "checksums are not compared when a file is read back",
        "iqdb_core.storage.stored_section:StoredSection._stored",
        "if memoryview(found) != expected:",
        "if False:",
        ("tested", "tests/core/storage/test_snapshot_writer.py"),
    ),
)

_RECORDS = "iqdb_core.storage.verify_records:_Records."
_VERIFY = (
    mutant(
        "verify skips a section",
        "iqdb_core.storage.verify_blocks:SectionBlocks.findings",
        "in runs(self.bad):",
        'in runs(set() if entry.name == "vectors" else self.bad):',
        _FLAT,
        quick=True,
    ),
    mutant(
        "verify does not compare the checksums of vectors that it reads for the digest",
        "iqdb_core.storage.verify_blocks:SectionBlocks.check_rows",
        "if wrong.any():",
        "if False:",
        ("tested", "tests/core/storage/test_verify.py"),
    ),
    mutant(
        "verify skips the padding",
        "iqdb_core.storage.verify:Verifier._padding",
        'if data.strip(b"\\0"):',
        "if False:",
        _FLAT,
        quick=True,
    ),
    mutant(
        "verify skips the log",
        "iqdb_core.storage.verify:Verifier.run",
        "verify_log(self, header)",
        "pass",
        ("damaged_log",),
        quick=True,
    ),
    mutant(
        "verify does not compare the digest",
        _RECORDS + "run",
        "if total != expected:",
        "if False:",
        DAMAGED_FILES,
    ),
    mutant(
        "verify does not look at the order of ids", _RECORDS + "run", "self._ids()", "pass", DAMAGED_FILES
    ),
    mutant(
        "verify does not look at the index",
        "iqdb_core.verification.index:check_stored_index",
        "for fault in checked.faults:",
        "for fault in ():",
        ("tested", "tests/core/test_verification.py"),
    ),
    mutant(
        "verify does not ask for each id",
        "iqdb_core.verification.records:_read_all",
        "if lost is not None:",
        "if False:",
        ("tested", "tests/core/test_verification.py"),
    ),
    mutant(
        "verify does not look whether records find themselves",
        "iqdb_core.verification.records:_ask",
        "    if missed:\n",
        "    if False:\n",
        ("tested", "tests/core/test_verification.py"),
    ),
)

_NEW_FILE = "iqdb_core.salvage.new_file:_Repair."
_REPAIR = (
    mutant(
        "repair drops a record without a word",
        _NEW_FILE + "_slab",
        "                kept.append(row)\n",
        "                if row % 200 != 199:\n                    kept.append(row)\n",
        ("repaired", "flat-bare"),
        quick=True,
    ),
    mutant(
        "repair does not say which records are lost",
        _NEW_FILE + "_slab",
        "                self._lost.add(report.path, number, record_id)\n",
        "",
        ("repaired", "flat-bare"),
        quick=True,
    ),
    mutant(
        "repair takes damaged blocks for whole",
        "iqdb_core.salvage.sections:SalvagedSection._check",
        "self._good = there & (table == found)",
        "self._good = there",
        ("repaired", "flat-bare"),
        quick=True,
    ),
    mutant(
        "repair forgets deletions of the log",
        "iqdb_core.salvage.log:LogChanges.delete",
        "self.final[record_id] = None",
        "pass",
        ("repaired", "log"),
        quick=True,
    ),
    mutant(
        "repair does not say that frames are missing",
        "iqdb_core.salvage.log:_Recovery._missing",
        "self._changes.losses.append(",
        "list[object]().append(",
        ("repaired", "log"),
    ),
    mutant(
        "repair gives a record that was deleted its old place back",
        "iqdb_core.salvage.log:LogChanges.upsert",
        "self.moved.add(record_id)",
        "pass",
        ("repaired", "log"),
    ),
)

OF_PROOF: tuple[Mutant, ...] = (*_PROOF, *_VERIFY, *_REPAIR)
