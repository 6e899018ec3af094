"""Puts a mistake into the code of a running process, by changing the source text of one function.

Only the code object of the function is exchanged, so classes, names that other modules have imported, and
everything else stay what they are. Processes that are started meanwhile plant the same (`of_parent`).
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import os
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_VARIABLE = "IQDB_TRUST_PLANTED"


class RottenError(Exception):
    """The text that a change replaces is not there, or not once: the table of changes is out of date."""


class Change(NamedTuple):
    """One change of the source.

    Attributes:
        place: the function, as "package.module:Class.function".
        old: what stands in its source, exactly once.
        new: what shall stand there instead.
    """

    place: str
    old: str
    new: str


def _lines_of(tree: ast.AST, qualname: str) -> tuple[int, int]:
    """Return the first line of a function, from 0, and the one after its last."""
    node: Any = tree
    for name in qualname.split("."):
        found = [
            child
            for child in node.body
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)) and child.name == name
        ]
        if len(found) != 1:
            raise RottenError(f"{len(found)} definitions of {qualname}")
        node = found[0]
    return node.lineno - 1, node.end_lineno


def _code_of(code: CodeType, qualname: str) -> CodeType:
    for name in qualname.split("."):
        (code,) = (part for part in code.co_consts if isinstance(part, CodeType) and part.co_name == name)
    return code


def _function_at(module: Any, qualname: str) -> FunctionType:
    owner, _, name = qualname.rpartition(".")
    found = vars(getattr(module, owner) if owner else module)[name]
    found = getattr(found, "__func__", getattr(found, "fget", None)) or found
    found = getattr(found, "__wrapped__", found)
    assert isinstance(found, FunctionType), qualname
    return found


def changed_code(changes: Sequence[Change]) -> list[tuple[FunctionType, CodeType]]:
    """Return the functions that are to be changed, with their new code.

    Raises:
        RottenError: the source is not what the changes were written for.
    """
    sources: dict[str, str] = {}
    for place, old, new in changes:
        module_name, _, qualname = place.partition(":")
        file = importlib.import_module(module_name).__file__
        assert file is not None
        source = sources.get(module_name) or Path(file).read_text("utf-8")
        first, stop = _lines_of(ast.parse(source), qualname)
        lines = source.splitlines(keepends=True)
        text = "".join(lines[first:stop])
        if text.count(old) != 1:
            raise RottenError(f"{place} has {text.count(old)} times {old!r}")
        sources[module_name] = "".join([*lines[:first], text.replace(old, new), *lines[stop:]])
    found = []
    for place in dict.fromkeys(change.place for change in changes):
        module_name, _, qualname = place.partition(":")
        module = importlib.import_module(module_name)
        code = compile(sources[module_name], str(module.__file__), "exec", dont_inherit=True)
        found.append((_function_at(module, qualname), _code_of(code, qualname)))
    return found


@contextlib.contextmanager
def planted(changes: Sequence[Change]) -> Iterator[None]:
    """Put changes in place for the block, here and in the processes that are started in it."""
    codes = changed_code(changes)
    before = [function.__code__ for function, _ in codes]
    os.environ[_VARIABLE] = json.dumps(changes)
    try:
        for function, code in codes:
            function.__code__ = code
        yield
    finally:
        del os.environ[_VARIABLE]
        for (function, _), code in zip(codes, before, strict=True):
            function.__code__ = code


def of_parent() -> None:
    """Plant what the process has planted that started this one, for good."""
    text = os.environ.get(_VARIABLE)
    if text:
        for function, code in changed_code([Change(*change) for change in json.loads(text)]):
            function.__code__ = code
