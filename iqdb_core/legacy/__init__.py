"""The files of iqdb 1.x, formats 1 and 2: read for ever, written as snapshots of format 2.

`formats/legacy-1.md` specifies them. Nothing here changes a file that it reads, and nothing below this
package knows of it: whoever finds one of these versions in a file turns to `database.LegacyDatabase`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from iqdb_core.errors import UnsupportedVersionError

LEGACY_VERSIONS: Final = frozenset({1, 2})
"""Versions of a snapshot that belong to iqdb 1.x."""


def is_legacy(error: UnsupportedVersionError) -> bool:
    """Say whether a snapshot was refused only because it is one of iqdb 1.x."""
    return error.what == "snapshot" and error.found in LEGACY_VERSIONS
