"""The types that a metadata value can have, with their tags in files and in the content digest."""

from __future__ import annotations

import enum


class ColumnType(enum.IntEnum):
    """The type of the values of one metadata column. The numbers are part of the file format."""

    NULL = 1
    BOOL = 2
    INT64 = 3
    FLOAT64 = 4
    STRING = 5

    @property
    def label(self) -> str:
        """The type's name in messages and in exported files."""
        return self.name.lower()
