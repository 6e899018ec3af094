"""Plain dicts, such as go through JSON, to and from objects."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from iqdb_core.errors import InvalidConfigError, InvalidParameterError

if TYPE_CHECKING:
    from typing import Self


# --- Settings -----------------------------------------------------------------------------------


def plain_dict(name: str, value: object) -> dict[str, Any]:
    """Return a copy of a dict with str keys.

    Raises:
        InvalidConfigError: it is something else; the error calls it `name`.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidConfigError(name, value, "a dict with str keys")
    return dict(value)


def known_fields(name: str, value: object, config_class: type[Any]) -> dict[str, Any]:
    """Return a copy of a dict whose keys are all fields of a dataclass.

    Raises:
        InvalidConfigError: it is something else, or has another key.
    """
    fields = plain_dict(name, value)
    known = {item.name for item in dataclasses.fields(config_class)}
    for key, item in fields.items():
        if key not in known:
            expected = f"no such key; the keys are {', '.join(sorted(known))}"
            raise InvalidConfigError(f"{name}.{key}", item, expected)
    return fields


# --- Reports ------------------------------------------------------------------------------------

_PLAIN_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "None": (type(None),),
}


class PlainFields:
    """What a dataclass of plain values needs to go through JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that go through JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload, no-any-return]

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Return what `to_dict` described.

        Raises:
            InvalidParameterError: a key is missing or unknown, or a value has another type.
        """
        name = cls.__name__
        fields = {item.name: str(item.type) for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
        if not isinstance(value, dict) or set(value) != set(fields):
            raise InvalidParameterError(name, value, f"a dict with the keys {', '.join(fields)}")
        for field, annotation in fields.items():
            kinds: list[type] = []
            for part in annotation.split(" | "):
                # What is no plain scalar, such as a list or a dict, is taken as it is.
                kinds += _PLAIN_TYPES.get(part, (object,))
            item = value[field]
            if type(item) not in kinds and object not in kinds:
                raise InvalidParameterError(f"{name}.{field}", item, annotation)
        return cls(**value)
