"""Sizes, shares and counts for people."""

from __future__ import annotations


def human_bytes(size: int) -> str:
    """Return a size in the unit that suits it: `0 B`, `17.1 KiB`, `2.0 GiB`."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def percent(part: int, whole: int) -> str:
    """Return a share such as `12.5%`; `0.0%` of nothing."""
    return f"{100 * part / whole:.1f}%" if whole else "0.0%"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 record`, `1,000 records`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
