"""The short form of fuzzing: the committed inputs, and some mutations that are the same every time.

`python tests/fuzz/run.py --minutes N` looks for new ones, guided by coverage.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import loop
import mutators
import pytest
from corpus import HERE, KINDS, inputs_of
from targets import NATIVE, TARGETS, Target

SANITIZED = "IQDB_SANITIZED" in os.environ
EXECUTIONS = {
    "snapshot": 120, "log": 80, "compact": 60, "legacy": 100, "filter": 500, "parquet": 150, "commands": 40,
    "repair": 40, "import": 60,
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_no_committed_input_crashes_its_target(name: str) -> None:
    assert loop.replay(TARGETS[name]).executions


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutation_crashes_its_target(name: str) -> None:
    done = loop.mutate(TARGETS[name], seed=1, executions=EXECUTIONS.get(name, 200))

    # Something got through, and something did not: else the mutations would be worth nothing.
    assert len(done.outcomes) >= 2, done.outcomes


@pytest.mark.skipif(SANITIZED, reason="the sanitizer's own memory counts")
@pytest.mark.parametrize("name", ["snapshot", "log", "jsonl"])
def test_memory_is_bounded_by_what_a_file_holds(name: str) -> None:
    ended = subprocess.run(
        [sys.executable, HERE / "memory.py", name], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert "skipped" in found or found["inputs"] > len(list(inputs_of(name)))


def test_a_crash_is_told_with_its_input() -> None:
    def run(data: bytes) -> str:
        raise KeyError("ids.offsets")

    def seeds() -> Iterator[bytes]:
        yield b"seed"

    with pytest.raises(loop.CrashError, match="KeyError") as caught:
        loop.mutate(Target("example", run, seeds, mutators.mutate_bytes, 100), seed=1, executions=10)
    assert caught.value.data


@pytest.mark.skipif(SANITIZED, reason="a process of its own, of which the sanitizer is no part")
def test_what_crashes_while_it_is_fuzzed_is_kept_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_badly(data: bytes) -> str:
        raise KeyError("ids.offsets")

    # Not by its name, which the program for the figures of trust has as well.
    found = importlib.util.spec_from_file_location("fuzz_run", HERE / "run.py")
    assert found is not None
    assert found.loader is not None
    program = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "fuzz_run", program)
    found.loader.exec_module(program)
    ids = TARGETS["ids"]
    monkeypatch.setitem(TARGETS, "ids", Target("ids", run_badly, ids.seeds, ids.mutate, ids.max_bytes))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = program.fuzz_python("ids", 1, tmp_path / "work", tmp_path / "kept" / "ids", 1)

    assert done.crashes == 1
    assert [Path(path).parent for path in done.kept] == [tmp_path / "kept" / "ids"]
    assert Path(done.kept[0]).read_bytes()
    assert done.kept[0] in capsys.readouterr().err


def test_an_input_that_takes_too_much_is_kept(tmp_path: Path) -> None:
    data = b"an input"
    kept = loop.keep(tmp_path / "crashes" / "example", "memory", data)

    assert kept.parent == tmp_path / "crashes" / "example"
    assert kept.name.startswith("memory-")
    assert kept.read_bytes() == data


def test_a_snapshot_is_put_together_as_it_was() -> None:
    for data in list(TARGETS["snapshot"].seeds()):
        model = mutators.SnapshotModel.of(data)
        assert model is not None
        assert model.build() == data


def test_a_log_is_put_together_so_that_it_is_read() -> None:
    data = next(TARGETS["log"].seeds())
    model = mutators.LogModel.of(data)

    assert model is not None
    assert TARGETS["log"].run(model.build({}, {})) == "read"


def test_the_committed_inputs_are_few_and_belong_to_targets() -> None:
    folders = {path.name for kind in KINDS for path in (HERE / kind).iterdir()}
    assert folders <= {*TARGETS, *(f"native-{name}" for name in NATIVE)}
    files = [path for kind in KINDS for path in Path(HERE / kind).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert all(list(inputs_of(name)) for name in TARGETS)
