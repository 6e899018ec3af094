"""The committed type stub is what nanobind generates from the built module."""

from __future__ import annotations

from pathlib import Path

from nanobind.stubgen import StubGen

import iqdb_core
from iqdb_core import _kernels


def test_the_stub_is_the_one_that_the_module_generates() -> None:
    generator = StubGen(_kernels)
    generator.put(_kernels)
    package = Path(iqdb_core.__file__).parent
    assert (package / "_kernels.pyi").read_text(encoding="utf-8") == generator.get()
