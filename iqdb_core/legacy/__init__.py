"""The files of iqdb 1.x, formats 1 and 2: read for ever, written as snapshots of format 2.

`formats/legacy-1.md` specifies them. Nothing here changes a file that it reads, and nothing below this
package knows of it: whoever finds one of these versions in a file turns to `database.LegacyDatabase`.
"""

from typing import Final

LEGACY_VERSIONS: Final = frozenset({1, 2})
"""Versions of a snapshot that belong to iqdb 1.x."""
