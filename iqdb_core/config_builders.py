"""How configurations are changed: `replace` and the `with_...` methods."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from iqdb_core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self
ConfigT = TypeVar("ConfigT")
ValueT = TypeVar("ValueT")


class Replaceable:
    """An immutable dataclass of which changed copies are made."""

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some settings changed, checked like a new one."""
        changed: Self = _changed(self, changes)
        return changed


class With(Generic[ValueT]):
    """The method `with_SETTING(value)` of a configuration: a checked copy with one setting changed.

    `with_m = With[int]()` in a dataclass with a field `m` is all that there is to write, and type checkers
    know the rest: `HnswConfig().with_m(32).with_ef_search(100)` is the same as
    `HnswConfig().replace(m=32, ef_search=100)`.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._setting = name.removeprefix("with_")
        self.__doc__ = f"Return a copy with `{self._setting}` changed, checked like a new one."

    @overload
    def __get__(self, config: None, owner: type) -> Self: ...
    @overload
    def __get__(self, config: ConfigT, owner: type) -> Callable[[ValueT], ConfigT]: ...
    def __get__(self, config: Any, owner: type) -> Any:
        return self if config is None else partial(self._copy, config)

    def _copy(self, config: Any, value: ValueT, /) -> Any:
        return _changed(config, {self._setting: value})


def _changed(config: Any, changes: dict[str, Any]) -> Any:
    try:
        return dataclasses.replace(config, **changes)
    except TypeError:
        known = [item.name for item in dataclasses.fields(config)]
        for name, value in changes.items():
            if name not in known:
                expected = f"no such setting; the settings are {', '.join(known)}"
                raise InvalidConfigError(name, value, expected) from None
        raise
