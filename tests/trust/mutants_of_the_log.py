"""Mistakes in what reads the log, and where a system call fails. See `mutants.py`."""

from __future__ import annotations

from mutant import FILES, FRAMES_PERIODIC, LIFE, LOADED, SCAN, WAL, Mutant, mutant
from planting import Change

_CONTENTS = "iqdb_core.storage.log_contents:"
_LOG = (
    mutant(
        "the checksum of a frame is not compared",
        SCAN + "whole_frame",
        "if crc32c(body, crc32c(frame[:FRAME_CRC_OFFSET], seed)) != header.frame_crc:",
        "if False:",
        ("damaged_log",),
    ),
    mutant(
        "the chain of frames is not compared",
        SCAN + "walk_frames",
        "if found.previous_crc != previous:",
        "if False:",
        ("tested", "tests/core/storage/test_wal.py"),
    ),
    mutant(
        "the numbers of frames are not compared",
        SCAN + "walk_frames",
        "if found.sequence != number + 1:",
        "if False:",
        ("tested", "tests/core/storage/test_wal.py"),
    ),
    mutant(
        "the place of a frame is not compared",
        SCAN + "walk_frames",
        "if found.settled_bytes > offset:",
        "if False:",
        ("tested", "tests/core/storage/test_wal.py"),
    ),
    mutant(
        "any bad frame is taken for a torn tail",
        SCAN + "_reason_not_torn",
        "while base < log.size:",
        "while base < 0:",
        ("damaged_log",),
        quick=True,
    ),
    mutant(
        "any frame behind a bad one makes it damage",
        SCAN + "_reason_not_torn",
        " and header.settled_bytes > offset",
        "",
        FRAMES_PERIODIC,
    ),
    mutant(
        "a torn tail is not cut off",
        WAL + "open_for_append",
        "files.truncate(file, contents.valid_bytes)",
        "pass",
        ("crash", "alike", "periodic", 60),
    ),
    mutant(
        "room is taken for frames",
        WAL + "__init__",
        "self.size = scan.valid_bytes",
        "self.size = scan.valid_bytes + scan.room_bytes",
        ("crash", "many_frames", "always", 60),
    ),
    mutant(
        "a writer goes on behind a torn tail",
        WAL + "__init__",
        "self.size = scan.valid_bytes",
        "self.size = scan.valid_bytes + scan.torn_bytes",
        FRAMES_PERIODIC,
    ),
    mutant(
        "a stale log is not known as one",
        _CONTENTS + "_read_log_once",
        "stale = scan.folded_into == identity",
        "stale = False",
        LIFE,
    ),
    mutant(
        "a stale log is replayed over the snapshot that holds it",
        _CONTENTS + "_read_log_once",
        "stale = scan.folded_into == identity",
        "stale = False",
        LIFE,
        Change(_CONTENTS + "_check_identity", "if scan.header is not None and", "if False and"),
    ),
    mutant(
        "the log of another snapshot is replayed",
        _CONTENTS + "_check_identity",
        "if scan.header is not None and",
        "if False and",
        LOADED,
        Change("iqdb_core.log_link:LogLink.remove", "self._files.sync_directory(self._path)", "pass"),
    ),
    mutant(
        "the log of another database is replayed",
        SCAN + "scan_log",
        "if header.database_id != database_id:",
        "if False:",
        ("tested", "tests/core/storage/test_wal.py"),
    ),
    mutant(
        "records that wait are replayed after what came later",
        _CONTENTS + "LogContents.frames",
        "            if singles:\n                yield singles.take()\n            yield frame\n",
        "            yield frame\n",
        LIFE,
    ),
    mutant(
        "records that wait at the end of the log are forgotten",
        _CONTENTS + "LogContents.frames",
        "\n        if singles:\n            yield singles.take()\n",
        "\n",
        LIFE,
        quick=True,
    ),
    mutant(
        "deletions are not replayed",
        "iqdb_core.store:Store.replay",
        "delta.delete(frame.ids.to_list(), snapshot.find_many(frame.ids))",
        "pass",
        LIFE,
        quick=True,
    ),
    mutant(
        "a damaged header of a log is taken for a torn creation",
        SCAN + "_read_header",
        "if log.size == LOG_HEADER_BYTES and all(",
        "if all(",
        ("damaged_log",),
    ),
    mutant(
        "a log whose creation was torn is gone on with",
        "iqdb_core.log_link:LogLink._ready",
        " or contents.torn_creation",
        "",
        LIFE,
    ),
    mutant(
        "what is left of a torn creation stays in the way",
        "iqdb_core.log_link:LogLink._ready",
        "self._files.unlink(self._path)",
        "pass",
        LIFE,
    ),
    mutant(
        "a reader does not look again before it reports damage",
        _CONTENTS + "read_log",
        "while we read.\n        return _read_log_once(path, database_id, identity, dim, files)\n",
        "while we read.\n        raise\n",
        ("tested", "tests/core/storage/test_wal.py"),
    ),
    mutant(
        "a reader does not read again where a writer has just written",
        SCAN + "walk_frames",
        "log.forget()",
        "pass",
        ("tested", "tests/core/storage/test_log_room.py"),
    ),
)

_FAULTS = (
    mutant(
        "a frame that failed is not taken back",
        WAL + "_take_back",
        "self._files.truncate(self._file, self.size)",
        "pass",
        ("fault", "fdatasync"),
    ),
    mutant(
        "nobody is told that a frame could not be taken back",
        WAL + "_take_back",
        "raise failure from cause",
        "return",
        ("fault", "any change"),
    ),
    mutant(
        "a poisoned handle goes on",
        WAL + "_take_back",
        "self._poison = str(cause)",
        "pass",
        ("fault", "fdatasync"),
        Change("iqdb_core.store:Store.poison", "if self._poison is None:", "if False:"),
    ),
    mutant(
        "a handle whose log is poisoned compacts",
        "iqdb_core.store:Store.poison",
        "if self._poison is None:",
        "if False:",
        ("fault", "fdatasync"),
    ),
    mutant(
        "a failed sync of the timer does not poison the log",
        WAL + "_sync_later",
        "self._poison = _lost_unless_synced(error)",
        "pass",
        ("tested", "tests/core/test_concurrency.py::test_a_failed_periodic_sync_poisons_the_handle"),
    ),
    mutant(
        "a disk that is full is taken for success",
        FILES + "write",
        "        except OSError as error:\n            raise",
        "        except OSError as error:\n"
        "            if error.errno == errno.ENOSPC:\n"
        "                return\n"
        "            raise",
        ("fault", "pwrite"),
    ),
    mutant(
        "a short write is taken for success",
        FILES + "write",
        "if written == len(data):",
        "if written:",
        ("fault", "pwrite"),
    ),
    mutant(
        "the rest of a short write goes to the wrong place",
        FILES + "write",
        "                offset += written\n",
        "",
        ("fault", "pwrite"),
    ),
    mutant(
        "a sync that was interrupted is taken for success",
        FILES + "sync_data",
        "        except OSError as error:\n            raise",
        "        except OSError as error:\n"
        "            if error.errno == errno.EINTR:\n"
        "                return\n"
        "            raise",
        ("fault", "fdatasync"),
    ),
    mutant(
        "a sync of a file that failed is taken for success",
        FILES + "sync",
        'with _Reported(file.shown, "sync"):',
        "with contextlib.suppress(OSError):",
        ("fault", "fsync"),
    ),
    mutant(
        "a sync of a directory that failed is taken for success",
        FILES + "sync_directory",
        "if error.errno not in _UNSUPPORTED:",
        "if False:",
        ("fault", "fsync"),
    ),
    mutant(
        "a handle whose rename failed goes on with the old log",
        "iqdb_core.fold:" + "replace",
        "if moved is not False or not isinstance(error, FileIOError):",
        "if False:",
        ("fault", "rename"),
        Change("iqdb_core.fold:" + "replace", "if moved and store", "if False and store"),
    ),
    mutant(
        "a rewrite that fails leaves its temporary file",
        "iqdb_core.new_snapshot:NewSnapshot._remove",
        "self.files.unlink(self.file.path)",
        "pass",
        ("fault", "rename"),
    ),
    mutant(
        "a rewrite that fails keeps its file open",
        "iqdb_core.new_snapshot:NewSnapshot._remove",
        "self.files.close(self.file)",
        "pass",
        ("fault", "rename"),
    ),
    mutant(
        "a log that could not be made stays",
        WAL + "create",
        "            files.unlink(path)\n",
        "",
        ("tested", "tests/core/storage/test_wal.py"),
    ),
    mutant(
        "a disk without space for room fails the frame",
        WAL + "_make_room",
        "except FileIOError:",
        "except ZeroDivisionError:",
        ("tested", "tests/core/storage/test_log_room.py"),
    ),
)

OF_THE_LOG: tuple[Mutant, ...] = (*_LOG, *_FAULTS)
