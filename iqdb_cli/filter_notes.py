"""What is said of a filter that no record meets: mostly a key was mistyped."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iqdb_core.database import Iqdb
    from iqdb_core.filters import Filter

# More keys would bury the message.
_SHOWN_KEYS = 12


def no_match(handle: Iqdb, db: str, condition: Filter) -> str:
    """Return a line that says that no record meets the filter, and which of its keys no record has."""
    present = handle.metadata_keys()
    unknown = sorted(condition.keys() - set(present))
    text = f"{db}: no record matches the filter"
    if not unknown:
        return text
    if not present:
        return f"{text}; no record has metadata"
    shown = ", ".join(present[:_SHOWN_KEYS])
    more = f" and {len(present) - _SHOWN_KEYS:,} more" if len(present) > _SHOWN_KEYS else ""
    return f"{text}; no record has the key {', '.join(unknown)}, expected one of {shown}{more}"
