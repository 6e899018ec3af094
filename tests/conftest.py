"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Tests start Python in child processes. With this set those import the package that is installed, as the
# tests themselves do, and not the folder they happen to run in, which has no compiled kernels.
os.environ["PYTHONSAFEPATH"] = "1"

# How long an example takes says only how loaded the machine is, or that a sanitizer is in the module. The
# same examples every time: a change is judged by its own faults. `--hypothesis-profile=vary` looks for more.
_SETTINGS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("iqdb", derandomize=True, **_SETTINGS)
settings.register_profile("vary", **_SETTINGS)
settings.load_profile("iqdb")
