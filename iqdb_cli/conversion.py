"""Conversion of command line words to int, float, str, lists of str and choices, at no cost.

Recent typer converts even a plain string through pydantic, whose import takes longer than a search.
The parameters of our commands have five types only; what converts these is put in pydantic's place. On
a typer without that hook this changes nothing.
"""

from __future__ import annotations

import enum
import math
from typing import Any, get_args, get_origin

import typer


class Conversion:
    """Stands where typer keeps what converts one parameter: `coerce` is its whole interface."""

    def __init__(self, annotation: Any) -> None:
        self.item: Any = get_args(annotation)[0] if get_origin(annotation) is list else annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the converted value; `typer.BadParameter` when it is not of the type."""
        if param.multiple or param.nargs == -1:
            return tuple(self._convert(item, param, ctx) for item in value or ())
        return None if value is None else self._convert(value, param, ctx)

    def _convert(self, value: Any, param: Any, ctx: Any) -> Any:
        try:
            if self.item is str or isinstance(value, self.item):
                converted = value
            elif issubclass(self.item, enum.Enum):
                converted = self.item(value)
            elif self.item is bool:
                converted = _parse_bool(value)
            else:
                converted = self.item(value)
        except ValueError:
            raise typer.BadParameter(
                f"{value!r} is not {_expected(self.item)}", ctx=ctx, param=param
            ) from None
        _check_range(converted, param, ctx)
        return converted


def use_plain_conversion(params: list[Any]) -> list[Any]:
    """Let parameters be converted here where their type is one of ours; return the same list."""
    for param in params:
        if getattr(param, "_runtime_param", False) is not None:
            continue
        annotation = param.type_descriptor.annotation
        item = get_args(annotation)[0] if get_origin(annotation) is list else annotation
        if isinstance(item, type) and (item in {str, int, float, bool} or issubclass(item, enum.Enum)):
            param._runtime_param = Conversion(annotation)  # noqa: SLF001 - see the module's docstring
    return params


def _parse_bool(value: Any) -> bool:
    # Flags arrive as bool; text comes only from an environment variable.
    if str(value).lower() in {"1", "true", "yes", "on"}:
        return True
    if str(value).lower() in {"", "0", "false", "no", "off"}:
        return False
    raise ValueError


def _check_range(value: Any, param: Any, ctx: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return
    low, high = getattr(param, "min", None), getattr(param, "max", None)
    below = low is not None and not value >= low
    above = high is not None and not value <= high
    if not (below or above or math.isnan(value)):
        return
    if low is None and high is None:
        raise typer.BadParameter(f"{value} is not a number", ctx=ctx, param=param)
    if low is not None and high is not None:
        expected = f"from {low} to {high}"
    else:
        expected = f"at most {high}" if low is None else f"at least {low}"
    raise typer.BadParameter(f"{value} is out of range, expected {expected}", ctx=ctx, param=param)


def _expected(item: Any) -> str:
    if issubclass(item, enum.Enum):
        return f"one of {', '.join(str(choice.value) for choice in item)}"
    return {int: "a whole number", float: "a number", bool: "yes or no"}[item]
