"""No function of the native module is without a harness that calls it with whatever there may be."""

from __future__ import annotations

import re
from typing import Any

import kernel_building
import kernel_bytes
import kernel_feed
import kernel_searches
import kernels
import pytest
from corpus import HERE
from harnesses import HARNESSES
from targets import NATIVE

from iqdb_core import _kernels


def _bound() -> set[str]:
    names = {name for name in dir(_kernels) if not name.startswith("__")}
    for name in set(names):
        bound = getattr(_kernels, name)
        if isinstance(bound, type) and not issubclass(bound, Exception):
            methods = {m for m in vars(bound) if not m.startswith("_") and callable(getattr(bound, m))}
            names |= {f"{name}.{method}" for method in methods}
    return names


class _Recorder:
    """Stands for the native module, or an object of it, and notes what was called and returned."""

    def __init__(self, real: Any, returned: set[str], prefix: str = "") -> None:
        self.real = real
        self.returned = returned
        self.prefix = prefix

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            plain = [arg.real if isinstance(arg, _Recorder) else arg for arg in args]
            try:
                result = found(*plain, **options)
            except Exception as error:
                self.returned.add(type(error).__name__)
                raise
            self.returned.add(f"{self.prefix}{name}")
            if isinstance(result, _kernels.JsonlBatch):
                self.returned.add("JsonlBatch")
            if isinstance(found, type):
                return _Recorder(result, self.returned, f"{name}.")
            return result

        return call


def test_every_bound_function_has_a_harness() -> None:
    assert set(HARNESSES) == _bound()


def test_the_kernels_target_calls_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    returned: set[str] = set()
    for module in (kernels, kernel_feed, kernel_bytes, kernel_searches, kernel_building):
        monkeypatch.setattr(module, "_kernels", _Recorder(_kernels, returned))
    for data in kernels.kernel_seeds():
        kernels.run_kernels(data)
    said = {name for name, harnesses in HARNESSES.items() if "kernels" in harnesses}

    # Called, and not merely refused because the harness asks for the wrong thing.
    assert said <= returned


def test_the_native_harnesses_call_what_the_table_says() -> None:
    calls = {call for harnesses in HARNESSES.values() for call in harnesses if call != "kernels"}
    assert {call.split(":")[0] for call in calls} == {f"native-{name}" for name in NATIVE}
    for call in sorted(calls):
        name, function = call.removeprefix("native-").split(":")
        source = (HERE / "native" / f"{name}.cpp").read_text("utf-8")
        source += (HERE / "native" / "coded.hpp").read_text("utf-8")
        is_called = re.search(rf"\b{function}\b[,()]", source) is not None
        assert is_called, call


def test_every_native_harness_is_built() -> None:
    build = (HERE / "native" / "CMakeLists.txt").read_text("utf-8")
    found = re.search(r"foreach\(name IN ITEMS ([a-z ]+)\)", build)
    assert found
    assert sorted(found[1].split()) == sorted(NATIVE)
    assert sorted(path.stem for path in (HERE / "native").glob("*.cpp")) == sorted(NATIVE)
