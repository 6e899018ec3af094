"""Finds the tables of the specification that are checked. A comment before a table names it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FORMATS = Path(__file__).parents[2] / "formats"
PAGES = ("snapshot-3.md", "log-2.md")

_MARK = re.compile(r"<!-- (?P<kind>table|tags|limits|example|sections)(?:: (?P<name>\w+))? -->")


@cache
def page(name: str) -> str:
    return (FORMATS / name).read_text(encoding="utf-8")


def rows_after(text: str, position: int) -> list[list[str]]:
    """Return the cells of the first table after a position, without its heading."""
    lines = iter(text[position:].splitlines())
    rows: list[list[str]] = []
    for line in lines:
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip()[1:-1])
            rows.append([cell.strip() for cell in cells])
        elif rows:
            break
        elif line.strip():
            raise AssertionError(f"no table where one is announced, but {line!r}")
    assert all(len(row) == len(rows[0]) for row in rows), rows[0]
    assert set("".join(rows[1])) <= set("-"), rows[1]
    return rows[2:]


@cache
def marked(kind: str) -> dict[str, list[list[str]]]:
    """Return every table of a kind, of both pages, by its name. Rows under one name are put together."""
    tables: dict[str, list[list[str]]] = {}
    for name in PAGES:
        text = page(name)
        for mark in _MARK.finditer(text):
            if mark["kind"] == kind:
                tables.setdefault(mark["name"] or "", []).extend(rows_after(text, mark.end()))
    return tables


def code(cell: str) -> str:
    """Return what stands between back quotes in a cell."""
    found = re.match(r"`(.*?)`", cell)
    assert found, cell
    return found[1]
