"""Repair of a damaged database: everything that can be read in a new file, and an account of the rest.

Only what a checksum proves is kept, or what follows from proved bytes by the rules of the format, or what the
content digest proves as a whole. The damaged files are opened for reading alone.
"""

from __future__ import annotations

from iqdb_core.salvage.new_file import repair
from iqdb_core.salvage.report import Loss, RepairReport

__all__ = ["Loss", "RepairReport", "repair"]
