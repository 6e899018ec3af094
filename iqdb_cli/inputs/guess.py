"""Which column or field is the vector, which the id, which are metadata: choices and questions.

Pure functions over names and kinds, shared by Parquet columns and JSON fields. A choice is made only
where there is one possibility; otherwise the error asks and lists the possibilities.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from iqdb_cli.inputs.source import BadInputError

ID_NAMES: Final = ("id", "_id")
VECTOR_NAMES: Final = ("vector", "embedding", "embeddings", "vec", "emb")
SHOWN_NAMES: Final = 12


class FieldKind(enum.Enum):
    """What a column or field could be used for."""

    VECTOR = "vector"
    ID_OR_SCALAR = "id or scalar"  # integers and text
    ID = "id"  # bytes: an id, but no metadata
    SCALAR = "scalar"  # floats and booleans
    OTHER = "other"


class Field(NamedTuple):
    """A column or field: its name, what it could be, and its type as messages show it."""

    name: str
    kind: FieldKind
    type_text: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type_text})"


class Wording(NamedTuple):
    """How the messages of one format speak."""

    noun: str  # "column" or "field"
    vectors: str  # what a vector looks like, in the plural

    def option(self, what: str) -> str:
        """Return the option that names the column or field, such as --vector-column."""
        return f"--{what}-{self.noun}"


COLUMNS: Final = Wording("column", "lists of float16, float32 or float64")
FIELDS: Final = Wording("field", "arrays of numbers")


def choose_vector(
    fields: Sequence[Field], wanted: str | None, source: str, wording: Wording, *, prefer_names: bool
) -> str:
    """Return the name of the vectors' column or field.

    Args:
        fields: all there are.
        wanted: the name that was asked for.
        source: how messages name the source.
        wording: how messages speak.
        prefer_names: among several possibilities, take the one that has a usual name.

    Raises:
        BadInputError: the one asked for cannot be it, none can, or several can.
    """
    if wanted is not None:
        field = _named(fields, wanted, source, wording)
        if field.kind is not FieldKind.VECTOR:
            found = f"{wording.noun} {field} holds no vectors"
            raise BadInputError(source, f"{found}, expected {wording.vectors}")
        return wanted
    possible = [field for field in fields if field.kind is FieldKind.VECTOR]
    if len(possible) > 1 and prefer_names:
        usual = [field for field in possible if field.name.lower() in VECTOR_NAMES]
        possible = usual if len(usual) == 1 else possible
    if len(possible) == 1:
        return possible[0].name
    option = wording.option("vector")
    if not possible:
        reason = f"has no {wording.noun} of {wording.vectors}; its {wording.noun}s are {_listed(fields)}"
        raise BadInputError(source, reason)
    raise BadInputError(
        source,
        f"{len(possible)} {wording.noun}s could be the vector: {_listed(possible)}",
        hint=f"which one? Say {option} NAME",
    )


def choose_id(
    fields: Sequence[Field], wanted: str | None, source: str, wording: Wording, taken: str
) -> str | None:
    """Return the name of the ids' column or field, None when records are to be numbered.

    Raises:
        BadInputError: the one asked for cannot be it.
    """
    usable = (FieldKind.ID, FieldKind.ID_OR_SCALAR)
    if wanted is not None:
        field = _named(fields, wanted, source, wording)
        if field.kind not in usable:
            found = f"{wording.noun} {field} cannot hold ids"
            raise BadInputError(source, f"{found}, expected integers, text or bytes")
        return wanted
    for name in ID_NAMES:
        for field in fields:
            if field.name == name and name != taken and field.kind in usable:
                return name
    return None


def choose_metadata(
    fields: Sequence[Field],
    wanted: Iterable[str] | None,
    source: str,
    wording: Wording,
    taken: Collection[str | None],
) -> tuple[list[str], list[Field]]:
    """Return the names that become metadata, and the fields that are left out as unusable.

    Args:
        fields: all there are.
        wanted: the names that were asked for; None takes every scalar one that is not in `taken`.
        source: how messages name the source.
        wording: how messages speak.
        taken: the vector's name and the id's.

    Raises:
        BadInputError: one that was asked for does not exist or is no scalar.
    """
    scalars = (FieldKind.ID_OR_SCALAR, FieldKind.SCALAR)
    if wanted is not None:
        names = []
        for name in dict.fromkeys(wanted):
            field = _named(fields, name, source, wording)
            if field.kind not in scalars:
                found = f"{wording.noun} {field} cannot be metadata"
                raise BadInputError(source, f"{found}, expected text, integers, floats or booleans")
            names.append(name)
        return names, []
    rest = [field for field in fields if field.name not in taken]
    return (
        [field.name for field in rest if field.kind in scalars],
        [field for field in rest if field.kind not in scalars],
    )


def _named(fields: Sequence[Field], name: str, source: str, wording: Wording) -> Field:
    found = [field for field in fields if field.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInputError(source, f"has {len(found)} {wording.noun}s named {name!r}, expected one")
    raise BadInputError(source, f"has no {wording.noun} {name!r}; its {wording.noun}s are {_listed(fields)}")


def _listed(fields: Sequence[Field]) -> str:
    if not fields:
        return "none"
    shown = ", ".join(str(field) for field in fields[:SHOWN_NAMES])
    rest = len(fields) - SHOWN_NAMES
    return f"{shown} and {rest} more" if rest > 0 else shown
