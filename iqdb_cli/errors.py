"""Errors of commands beyond those of the library, with their exit statuses."""

from __future__ import annotations

from typing import ClassVar

from iqdb_core.errors import Error


class PathTakenError(Error):
    """Something is at a path where a command wants to make a file. `instead` says what to do."""

    exit_status: ClassVar[int] = 8

    def __init__(self, path: str, instead: str) -> None:
        self.path = path
        self.instead = instead
        super().__init__(f"{path}: already exists; {instead}")


class RecordNotFoundError(Error):
    """A record that a command needs is not in the database."""

    exit_status: ClassVar[int] = 3

    def __init__(self, path: str, typed_id: str) -> None:
        self.path = path
        self.typed_id = typed_id
        super().__init__(f"{path}: no record has the id {typed_id}")
