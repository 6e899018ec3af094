"""Every error that iqdb raises, as one tree. This module imports nothing of the package.

The tree begins at `Error`:
├── ConfigError                    a handle that contradicts the file, or itself
│   ├── InvalidConfigError         a setting outside its allowed values
│   └── ConfigConflictError        a request that contradicts what the file says
├── VectorIndexError               one call's data is not acceptable
│   ├── DimensionMismatchError
│   ├── InvalidVectorError
│   ├── InvalidIdError
│   ├── DuplicateIdError
│   ├── InvalidMetadataError
│   ├── InvalidFilterError
│   ├── InvalidMetricError
│   ├── InvalidParameterError
│   └── BatchTooLargeError
└── PersistError                   the file, the log or the operating system
    ├── DatabaseNotFoundError
    ├── DatabaseExistsError
    ├── NotADatabaseError
    ├── UnsupportedVersionError
    ├── UnsupportedFeatureError
    ├── LegacyFormatError
    ├── NotRepresentableError
    ├── LockedError
    ├── ReadOnlyError
    ├── ClosedError
    ├── PoisonedError
    ├── FileIOError
    └── DamagedError
        ├── ChecksumError
        ├── StructureError
        ├── TruncatedError
        ├── LogDamagedError
        ├── LogMismatchError
        ├── LegacyDamagedError
        ├── SnapshotMissingError
        ├── ContentMismatchError
        └── NotRepairableError

Each leaf builds its message from its fields (what, where, expected, found, what to do) and keeps
those fields as attributes, so that a caller matches on facts and never on the text.
"""

from __future__ import annotations

import os


class Error(Exception):
    """Base of every error that iqdb raises on purpose.

    Errors can be pickled, as pools of processes do with what their workers raise.
    """

    def __reduce__(self) -> tuple[object, ...]:
        # A leaf's arguments are its facts, not the message, so it is not made by a call of its class.
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[Error], args: tuple[object, ...], facts: dict[str, object]) -> Error:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigError(Error):
    """A configuration that contradicts the file, or itself."""


class InvalidConfigError(ConfigError):
    """A setting has a value that it cannot have."""

    def __init__(self, field: str, found: object, expected: str) -> None:
        self.field = field
        self.found = found
        self.expected = expected
        super().__init__(f"{field} is {found!r}, expected {expected}")


class ConfigConflictError(ConfigError):
    """A request contradicts what the database file says."""

    def __init__(
        self, field: str, requested: object, stored: object, *, where: str = "", hint: str = ""
    ) -> None:
        self.field = field
        self.requested = requested
        self.stored = stored
        self.where = where
        self.hint = hint
        prefix = f"{where}: " if where else ""
        suffix = f"; {hint}" if hint else ""
        super().__init__(f"{prefix}{field} is {stored!r}, not {requested!r}{suffix}")


class VectorIndexError(Error):
    """The data or parameters of one call are not acceptable; nothing was changed."""


class DimensionMismatchError(VectorIndexError):
    """A vector has another number of components than the database."""

    def __init__(self, expected: int, found: int, *, where: str = "") -> None:
        self.expected = expected
        self.found = found
        self.where = where
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}vector has {found} components, the database has dimension {expected}")


class InvalidVectorError(VectorIndexError):
    """A vector is empty, has the wrong type, or holds NaN or infinity."""

    def __init__(self, reason: str, *, where: str = "", component: int | None = None) -> None:
        self.reason = reason
        self.where = where
        self.component = component
        prefix = f"{where}: " if where else ""
        at = f" (component {component})" if component is not None else ""
        super().__init__(f"{prefix}{reason}{at}")


class InvalidIdError(VectorIndexError):
    """An id is not an int in 0..2^64-1, non-empty bytes, or a non-empty str."""

    def __init__(self, found: object, reason: str, *, where: str = "") -> None:
        self.found = found
        self.reason = reason
        self.where = where
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}id {found!r}: {reason}")


class DuplicateIdError(VectorIndexError):
    """An id occurs twice where the caller asked for that to be an error.

    `row` is the number of one of the records, counted from 0 through the source, where it is known.
    """

    def __init__(self, record_id: object, *, where: str = "", row: int | None = None) -> None:
        self.record_id = record_id
        self.where = where
        self.row = row
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}id {record_id!r} occurs more than once")


class InvalidMetadataError(VectorIndexError):
    """Metadata is not a mapping of str to str, i64, float, bool or None."""

    def __init__(self, key: object, reason: str, *, where: str = "") -> None:
        self.key = key
        self.reason = reason
        self.where = where
        prefix = f"{where}: " if where else ""
        place = "metadata" if key is None else f"metadata key {key!r}"
        super().__init__(f"{prefix}{place}: {reason}")


class InvalidFilterError(VectorIndexError):
    """A filter or a filter expression cannot be used.

    `column` is the 1-based column of the expression at which parsing stopped, where there is one.
    """

    def __init__(self, reason: str, *, expression: str | None = None, column: int | None = None) -> None:
        self.reason = reason
        self.expression = expression
        self.column = column
        if expression is None:
            super().__init__(f"filter: {reason}")
        else:
            super().__init__(f"filter, column {column}: {reason} in: {expression}")


class InvalidMetricError(VectorIndexError):
    """The metric cannot be used with this index kind."""

    def __init__(self, metric: str, reason: str) -> None:
        self.metric = metric
        self.reason = reason
        super().__init__(f"metric {metric}: {reason}")


class InvalidParameterError(VectorIndexError):
    """A parameter of one call is out of range."""

    def __init__(self, name: str, found: object, expected: str) -> None:
        self.name = name
        self.found = found
        self.expected = expected
        super().__init__(f"{name} is {found!r}, expected {expected}")


class BatchTooLargeError(VectorIndexError):
    """One batch would not fit in one log frame, so it cannot be written whole or not at all."""

    def __init__(self, found_bytes: int, limit_bytes: int) -> None:
        self.found_bytes = found_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"batch takes {found_bytes} bytes in the log, the limit is {limit_bytes}; "
            f"split it into smaller batches"
        )


class PersistError(Error):
    """The file, its log or the operating system stands in the way."""

    def __init__(self, path: str | os.PathLike[str], message: str) -> None:
        self.path = os.fspath(path)
        self.message = message
        super().__init__(f"{self.path}: {message}")


class DatabaseNotFoundError(PersistError):
    """There is no database at the path."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, 'no such database; "iqdb create" or "iqdb import --metric" makes one')


class DatabaseExistsError(PersistError):
    """Something is already at the path of a database to be created."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "already exists; nothing was changed")


class NotADatabaseError(PersistError):
    """The file does not begin as an iqdb file does."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.reason = reason
        super().__init__(path, f"not an iqdb database ({reason})")


class UnsupportedVersionError(PersistError):
    """The file has a format version that this release cannot read."""

    def __init__(
        self, path: str | os.PathLike[str], found: int, supported: str, *, what: str = "snapshot"
    ) -> None:
        self.found = found
        self.supported = supported
        self.what = what
        super().__init__(
            path,
            f"{what} has format version {found}, this release reads {supported}; "
            "a newer release wrote it, or it is damaged",
        )


class UnsupportedFeatureError(PersistError):
    """The file uses a feature that this release does not know."""

    def __init__(self, path: str | os.PathLike[str], feature_set: str, bits: int) -> None:
        self.feature_set = feature_set
        self.bits = bits
        effect = "written" if feature_set == "ro_compat" else "read"
        super().__init__(
            path, f"needs unknown {feature_set} features {bits:#x} to be {effect}; use a newer iqdb"
        )


class LegacyFormatError(PersistError):
    """A file of iqdb 1.x was opened for something else than reading."""

    def __init__(self, path: str | os.PathLike[str], version: int) -> None:
        self.version = version
        name = os.fspath(path)
        super().__init__(
            path,
            f"has format {version} of iqdb 1.x, which can only be read; "
            f'"iqdb compact {name} -o NEW.iqdb" makes a database of it that can be written',
        )


class NotRepresentableError(PersistError):
    """A file format cannot hold what is to be written into it; nothing was written.

    `part` is what does not fit, `found` what it is and `expected` what the format holds.
    """

    def __init__(
        self, path: str | os.PathLike[str], part: str, found: object, expected: str, *, hint: str = ""
    ) -> None:
        self.part = part
        self.found = found
        self.expected = expected
        self.hint = hint
        suffix = f"; {hint}" if hint else ""
        super().__init__(path, f"{part} is {found}, expected {expected}{suffix}")


class LockedError(PersistError):
    """Another process is writing to the database."""

    def __init__(self, path: str | os.PathLike[str], waited_seconds: float = 0) -> None:
        self.waited_seconds = waited_seconds
        doing = "has it open for writing"
        if waited_seconds:
            doing = f"still has it open for writing after {waited_seconds:g} s of waiting"
        super().__init__(path, f"another process {doing}; try again when it is done")


class ReadOnlyError(PersistError):
    """A write on a handle, or to a file, that is read-only."""

    def __init__(self, path: str | os.PathLike[str], reason: str = "opened read-only") -> None:
        self.reason = reason
        super().__init__(path, f"cannot write: {reason}")


class ClosedError(PersistError):
    """The handle was closed."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "this handle is closed; open the database again")


class PoisonedError(PersistError):
    """An earlier write or fsync failed, so the handle accepts no more writes."""

    def __init__(self, path: str | os.PathLike[str], cause: str) -> None:
        self.cause = cause
        super().__init__(
            path,
            f"an earlier write failed ({cause}); acknowledged records are safe, "
            "open the database again to go on",
        )


class FileIOError(PersistError):
    """The operating system refused a file operation. `errno` is the system's number."""

    def __init__(self, path: str | os.PathLike[str], operation: str, cause: OSError) -> None:
        self.operation = operation
        self.errno = cause.errno
        reason = cause.strerror or str(cause)
        super().__init__(path, f"cannot {operation}: {reason}")


class DamagedError(PersistError):
    """The file's content contradicts itself. Nothing read from the damaged part was returned."""


class ChecksumError(DamagedError):
    """Stored bytes do not match their CRC-32C. `offset_bytes` is the file offset of the part."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        part: str,
        offset_bytes: int,
        *,
        expected: int | None = None,
        found: int | None = None,
    ) -> None:
        self.part = part
        self.offset_bytes = offset_bytes
        self.expected = expected
        self.found = found
        sums = "" if expected is None else f", CRC-32C {found:08x}, expected {expected:08x}"
        super().__init__(
            path,
            f"{part} at byte {offset_bytes} is damaged (checksum{sums}); "
            'run "iqdb verify" to see what is whole',
        )


class StructureError(DamagedError):
    """A field, offset or size contradicts the format, though its checksum may be right."""

    def __init__(self, path: str | os.PathLike[str], part: str, expected: str, found: object) -> None:
        self.part = part
        self.expected = expected
        self.found = found
        super().__init__(path, f"{part} is {found}, expected {expected}")


class TruncatedError(DamagedError):
    """The file is shorter or longer than it says."""

    def __init__(self, path: str | os.PathLike[str], expected_bytes: int, found_bytes: int) -> None:
        self.expected_bytes = expected_bytes
        self.found_bytes = found_bytes
        what = "its end is missing" if found_bytes < expected_bytes else "something was appended"
        super().__init__(
            path,
            f"has {found_bytes} bytes, expected {expected_bytes}: {what}; "
            'run "iqdb verify" to see what is whole',
        )


class LogDamagedError(DamagedError):
    """A log frame is bad and a valid one stands behind it, so this is no torn tail."""

    def __init__(self, path: str | os.PathLike[str], frame: int, offset_bytes: int, reason: str) -> None:
        self.frame = frame
        self.offset_bytes = offset_bytes
        self.reason = reason
        whole = (
            "the snapshot is whole" if frame == 0 else (f"frames 0-{frame - 1} and the snapshot are whole")
        )
        super().__init__(
            path,
            f"frame {frame} at byte {offset_bytes} is damaged ({reason}); {whole}; "
            'run "iqdb repair" to keep what is readable',
        )


class LogMismatchError(DamagedError):
    """The log beside a snapshot belongs to another database or another snapshot."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.reason = reason
        super().__init__(path, f"{reason}; move it away to open the snapshot without it")


class LegacyDamagedError(DamagedError):
    """A file of iqdb 1.x contradicts itself or its format. `offset_bytes` is where in the file."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        part: str,
        offset_bytes: int,
        *,
        expected: str,
        found: object,
        hint: str = 'run "iqdb verify" to see what is whole',
    ) -> None:
        self.part = part
        self.offset_bytes = offset_bytes
        self.expected = expected
        self.found = found
        self.hint = hint
        super().__init__(path, f"{part} at byte {offset_bytes} is {found}, expected {expected}; {hint}")


class SnapshotMissingError(DamagedError):
    """A log stands where its snapshot does not."""

    def __init__(self, path: str | os.PathLike[str], log_path: str) -> None:
        self.log_path = log_path
        super().__init__(
            path,
            f"the snapshot is missing, but its log {log_path} is there and may hold records; "
            "put the snapshot back, or move the log away",
        )


class ContentMismatchError(DamagedError):
    """A rewritten file does not hold exactly the records it should; it was not put in place."""

    def __init__(self, path: str | os.PathLike[str], expected: str, found: str) -> None:
        self.expected = expected
        self.found = found
        super().__init__(
            path,
            f"the rewritten file has content digest {found}, expected {expected}; "
            "it was thrown away and the database is unchanged",
        )


class NotRepairableError(DamagedError):
    """Too much of a database is damaged for a repair to keep anything of it."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        self.reason = reason
        super().__init__(path, f"cannot be repaired: {reason}; nothing was written")
