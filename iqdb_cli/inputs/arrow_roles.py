"""How `iqdb export` marks the columns of a Parquet file, so that an import gets exactly the records back.

A column's field metadata says its role: `iqdb.role` is `id`, `vector`, `metadata` or `has_metadata`; for
metadata `iqdb.key` is the key and `iqdb.type` the type. Each pair of key and type has its own column, a
null cell means that the record has no such value there, and an explicit null is a true cell in a Boolean
column of type `null`. `has_metadata` (a Boolean column) is there when it does not follow from the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from iqdb_core.column_type import ColumnType

ROLE: Final = b"iqdb.role"
KEY: Final = b"iqdb.key"
TYPE: Final = b"iqdb.type"


@dataclass(frozen=True)
class MetadataRole:
    """A column that holds metadata. `type` is None where the column's own type decides."""

    column: str
    key: str
    type: ColumnType | None


@dataclass(frozen=True)
class Roles:
    """Which column is what. A table that goes beside vectors has none of its own."""

    vector: str | None
    record_id: str | None
    metadata: tuple[MetadataRole, ...]
    has_metadata: str | None

    def columns(self) -> list[str]:
        """Return the names of all columns that are needed."""
        names = [self.vector, self.record_id, self.has_metadata, *(role.column for role in self.metadata)]
        return [name for name in names if name is not None]

    def without_metadata(self) -> Roles:
        """Return the same without the columns of metadata."""
        return replace(self, metadata=(), has_metadata=None)


def role_metadata(
    role: str, key: str | None = None, column_type: ColumnType | None = None
) -> dict[bytes, bytes]:
    """Return the field metadata that marks a column."""
    marks = {ROLE: role.encode()}
    if key is not None and column_type is not None:
        marks[KEY] = key.encode()
        marks[TYPE] = column_type.label.encode()
    return marks


def roles_of(schema: Any) -> Roles | None:
    """Return the roles that an Arrow schema declares, None when it is not of our making."""
    found: dict[str, list[str]] = {}
    metadata = []
    for field in schema:
        marks = field.metadata or {}
        role = marks.get(ROLE, b"").decode("ascii", "replace")
        if not role:
            continue
        if role == "metadata":
            column_type = _type_of(marks.get(TYPE, b""))
            if column_type is None or KEY not in marks:
                return None
            metadata.append(MetadataRole(field.name, marks[KEY].decode("utf-8", "replace"), column_type))
        else:
            found.setdefault(role, []).append(field.name)
    names = schema.names
    used = [name for group in found.values() for name in group] + [role.column for role in metadata]
    if any(names.count(name) > 1 for name in used):
        return None
    if not used or any(len(group) > 1 for group in found.values()):
        return None
    one = {role: group[0] for role, group in found.items()}
    return Roles(one.get("vector"), one.get("id"), tuple(metadata), one.get("has_metadata"))


def _type_of(label: bytes) -> ColumnType | None:
    for column_type in ColumnType:
        if column_type.label.encode() == label:
            return column_type
    return None
