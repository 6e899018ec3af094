"""What the commands say on stderr of a database of iqdb 1.x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_cli import terminal

if TYPE_CHECKING:
    from iqdb_core.database import Iqdb

_CURRENT = 3


def tell_of_legacy(handle: Iqdb, path: str) -> None:
    """Say that the records were read into memory, what was left out, and how to convert."""
    version = handle.format_version
    if version == _CURRENT:
        return
    terminal.note(
        f"iqdb: {path}: format {version} of iqdb 1.x, read into memory and searched exactly; "
        f'"iqdb compact {path} -o NEW.iqdb" converts it'
    )
    for text in handle.info()["notes"]:
        terminal.note(f"iqdb: {path}: {text}")
