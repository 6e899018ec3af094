"""Settings for all tests."""

from __future__ import annotations

import os

# Tests start Python in child processes. With this set those import the package that is installed, as the
# tests themselves do, and not the folder they happen to run in, which has no compiled kernels.
os.environ["PYTHONSAFEPATH"] = "1"
