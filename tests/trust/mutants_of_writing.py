"""Mistakes in what writes: syncs and the order of steps. See `mutants.py`."""

from __future__ import annotations

from mutant import FILES, FRAMES_PERIODIC, LIFE, LOADED, STALE, WAL, Mutant, mutant
from planting import Change

_SYNCS = (
    mutant("the content of a new log is not synced", WAL + "create", "files.sync(file)", "pass", LIFE),
    mutant("the name of a new log is not synced", WAL + "create", "files.sync_directory(path)", "pass", LIFE),
    mutant(
        "a log that is gone on with is not synced",
        WAL + "open_for_append",
        "files.sync(file)",
        "pass",
        ("crash", "killed", "periodic", 100),
        quick=True,
    ),
    mutant(
        "what was not settled is not written once more",
        WAL + "open_for_append",
        "files.write(file, files.read(file, size, offset), offset)",
        "pass",
        ("power_cut", "sync", "periodic"),
        quick=True,
    ),
    mutant("a frame is not synced", WAL + "_append", "self._files.sync_data(self._file)", "pass", LIFE),
    mutant(
        "only the first frame of a log is synced",
        WAL + "_append",
        'sync = sync or self._kind == "always"',
        'sync = sync or (self._kind == "always" and not self.n_frames)',
        LIFE,
    ),
    mutant(
        "the log is synced before the frame is written",
        WAL + "_append",
        "                self._files.write(self._file, frame, self.size)\n",
        "                if sync:\n"
        "                    self._files.sync_data(self._file)\n"
        "                self._files.write(self._file, frame, self.size)\n",
        LIFE,
        Change(
            WAL + "_append",
            "                if sync:\n"
            "                    self._files.sync_data(self._file)\n"
            "            except",
            "            except",
        ),
    ),
    mutant(
        "the fold frame is not synced by a policy that does not sync every frame",
        WAL + "append_fold",
        "sync=True",
        "sync=False",
        ("crash", "nothing_kept", "never", 150),
        quick=True,
    ),
    mutant(
        "a frame that was taken back is not gone for good",
        WAL + "_take_back",
        "self._files.sync(self._file)",
        "pass",
        ("power_cut", "sync", "always"),
        quick=True,
    ),
    mutant(
        "a sync that is asked for is not made",
        WAL + "_sync_all",
        "self._files.sync_data(self._file)",
        "pass",
        ("crash", "life", "periodic", 80),
    ),
    mutant(
        "the timer does not sync",
        WAL + "_sync_later",
        "self._files.sync_data(self._file)",
        "pass",
        ("crash", "timer", "periodic", 50),
    ),
    mutant(
        "the timer takes for synced what was written meanwhile",
        WAL + "_sync_later",
        "self._settled_bytes = max(self._settled_bytes, size)",
        "self._settled_bytes = self.size",
        ("crash", "timer", "periodic", 50),
    ),
    mutant(
        "closing does not sync what the timer has not",
        WAL + "close",
        'self._kind == "periodic"',
        'self._kind == "always"',
        ("crash", "many_frames", "periodic", 50),
    ),
    mutant(
        "a frame vouches for what was not synced",
        WAL + "_append",
        'self.size if self._kind == "never" else self._settled_bytes',
        "self.size",
        FRAMES_PERIODIC,
    ),
    mutant(
        "a new, empty database is not synced",
        "iqdb_core.opening:write_empty",
        "sync=True",
        "sync=False",
        LIFE,
    ),
    mutant(
        "a new snapshot is not synced",
        "iqdb_core.storage.read_back:sync_and_read_back",
        "pool.submit(files.sync, file)",
        "pool.submit(int)",
        LIFE,
    ),
    mutant(
        "nobody looks whether the sync of a new snapshot failed",
        "iqdb_core.storage.read_back:sync_and_read_back",
        "synced.result()",
        "pass",
        ("fault", "fsync"),
    ),
    mutant(
        "the name of a new database is not synced",
        "iqdb_core.opening:install_new",
        "files.sync_directory(real)",
        "pass",
        LIFE,
    ),
    mutant(
        "a stale log is removed before the rename is durable",
        "iqdb_core.opening:_attach_log",
        "            store.files.sync_directory(store.path)\n            store.files.unlink(path)\n",
        "            store.files.unlink(path)\n",
        STALE,
        quick=True,
    ),
    mutant(
        "the removal of a stale log is not synced",
        "iqdb_core.opening:_attach_log",
        "store.files.unlink(path)\n            store.files.sync_directory(store.path)\n",
        "store.files.unlink(path)\n",
        STALE,
    ),
    mutant(
        "the rename of a fold is not synced",
        "iqdb_core.fold:replace",
        "files.sync_directory(store.path)",
        "pass",
        LIFE,
    ),
    mutant(
        "the removal of a folded log is not synced",
        "iqdb_core.log_link:LogLink.remove",
        "self._files.sync_directory(self._path)",
        "pass",
        LOADED,
        quick=True,
    ),
    mutant(
        "an output file is not synced",
        "iqdb_cli.replaced_files:NewFile.settle",
        "self._files.sync(self._file)",
        "pass",
        ("tested", "tests/trust/test_output_files.py"),
    ),
    mutant(
        "the name of an output file is not synced",
        "iqdb_cli.replaced_files:NewFile.sync_name",
        "self._files.sync_directory(self.place.target)",
        "pass",
        ("tested", "tests/trust/test_output_files.py"),
    ),
    mutant(
        "the old first file of a set is not away for good before the others change",
        "iqdb_cli.replaced_files:_exchange",
        "if first.place.before is not None:",
        "if False:",
        ("tested", "tests/trust/test_output_files.py"),
    ),
    mutant(
        "the first file of a set comes before the names of the others are durable",
        "iqdb_cli.replaced_files:_exchange",
        "for file in others:\n            file.sync_name()",
        "pass",
        ("tested", "tests/trust/test_output_files.py"),
    ),
    mutant(
        "a snapshot for 1.x is not synced",
        "iqdb_core.legacy.writer:write_legacy",
        "files.sync(file)",
        "pass",
        ("tested", "tests/trust/test_output_files.py"),
    ),
    mutant(
        "the name of a snapshot for 1.x is not synced",
        "iqdb_core.legacy.writer:write_legacy",
        "files.sync_directory(real)",
        "pass",
        ("tested", "tests/trust/test_output_files.py"),
    ),
    *(
        mutant(
            f"{name} does not reach the system",
            FILES + name,
            call,
            "pass",
            ("tested", "tests/trust/test_crash_states.py::test_every_sync_reaches_the_system"),
        )
        for name, call in (
            ("sync", "os.fsync(file.fd)"),
            ("sync_data", "_FDATASYNC(file.fd)"),
            ("sync_directory", "os.fsync(fd)"),
        )
    ),
)

_FOLD = "iqdb_core.fold:"
_ORDER = (
    mutant(
        "a fold renames before it syncs and proves",
        _FOLD + "fold",
        "            new.prove(summary, expected, sequence, view.n_records, threads)\n"
        "            replace(store, new)\n",
        "            replace(store, new)\n"
        "            new.prove(summary, expected, sequence, view.n_records, threads)\n",
        LIFE,
    ),
    mutant(
        "the log is removed before the rename is durable",
        _FOLD + "replace",
        "        files.sync_directory(store.path)\n        log.remove()\n",
        "        log.remove()\n        files.sync_directory(store.path)\n",
        LIFE,
    ),
    mutant(
        "the log is removed before the rename",
        _FOLD + "replace",
        "        files.rename(new.file.path, store.path)\n",
        "        log.remove()\n        files.rename(new.file.path, store.path)\n",
        ("kill", "compact"),
    ),
    mutant(
        "the fold frame is left out", _FOLD + "replace", "log.append_fold(snapshot.identity)", "pass", LIFE
    ),
    mutant(
        "the fold frame comes after the rename",
        _FOLD + "replace",
        "        log.append_fold(snapshot.identity)\n",
        "        pass\n",
        ("kill", "compact"),
        Change(
            _FOLD + "replace",
            "        files.sync_directory(store.path)\n",
            "        log.append_fold(snapshot.identity)\n        files.sync_directory(store.path)\n",
        ),
    ),
    mutant(
        "the fold frame names the old snapshot",
        _FOLD + "replace",
        "log.append_fold(snapshot.identity)",
        "log.append_fold(store.view().base.snapshot.identity)",
        ("kill", "compact"),
    ),
    mutant(
        "a fold forgets to let go of the delta",
        "iqdb_core.store:Store.install",
        "            self._delta = None\n",
        "",
        LIFE,
        quick=True,
    ),
    mutant(
        "one record is applied before it is logged",
        "iqdb_core.store:Store.upsert_one",
        "                if log is not None:\n"
        "                    log.append_single_upsert(record_id, vector, metadata)\n"
        "                with self._publication:\n",
        "                with self._publication:\n",
        ("fault", "fdatasync"),
        Change(
            "iqdb_core.store:Store.upsert_one",
            "                    self._publish()\n",
            "                    self._publish()\n"
            "                if log is not None:\n"
            "                    log.append_single_upsert(record_id, vector, metadata)\n",
        ),
        quick=True,
    ),
    mutant(
        "a deletion is not logged",
        "iqdb_core.store:Store.delete",
        "self.log.append_delete(Ids.from_list(found))",
        "pass",
        LIFE,
    ),
)

WRITING: tuple[Mutant, ...] = (*_SYNCS, *_ORDER)
