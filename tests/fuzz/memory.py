"""Peak memory and time of every input, in a process of its own that is limited.

    python tests/fuzz/memory.py TARGET [FOLDER ...] [--keep DIR]

Prints one line of JSON. Inputs that crash, take too much memory or longer than `CPU_SECONDS` are kept in DIR.

Whatever an input says, reading it takes at most `CONSTANT_BYTES` and `PER_BYTE` times its size beyond what
the process had before, and `PER_COLUMN_BYTES` for each of very many columns. The size is that of the file and
of what its compressed sections decode to, which the format limits to 4096 times what they take. Both are
compared with their limits before anything is allocated.

Peaks are the kernel's, not sampled: its high-water mark is reset before each input. So that they show what
was in use, not what an allocator keeps, the process runs itself again under settings that give every block
back to the kernel when it is freed.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "trust")]

import loop  # noqa: E402 - the folders first
from corpus import inputs_of  # noqa: E402
from heavy import heavy_inputs  # noqa: E402
from mutators import SnapshotModel  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

CPU_SECONDS = 2.0
"""Of a processor, for an input."""
CONSTANT_BYTES = 8 << 20
PER_BYTE = 8
PER_COLUMN_BYTES = 3 << 10
"""A column of metadata, a pair of key and type, is a handful of Python objects however little it holds."""
ADDRESS_BYTES = 16 << 30
"""What the process may reserve; mappings and stacks of threads count, so it is far from what is used."""
_CLEAR_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_MALLOC = {
    "PYTHONMALLOC": "malloc",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


class Used(NamedTuple):
    """What one input took."""

    name: str
    size: int
    decoded: int
    columns: int
    grown: int
    seconds: float

    @property
    def bound(self) -> int:
        """How much it may take."""
        return CONSTANT_BYTES + PER_BYTE * (self.size + self.decoded) + PER_COLUMN_BYTES * self.columns


def main() -> int:
    """Run all inputs of a target one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    target = TARGETS[options.target]
    if not _CLEAR_PEAK.exists():
        print(json.dumps({"skipped": "peak memory of a moment is known on Linux alone"}))
        return 0
    if any(os.environ.get(name) != value for name, value in _MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **_MALLOC})
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    # What is imported and cached by the first of all is not counted.
    for data in target.seeds():
        target.run(data)
    everything = []
    for name, data, columns in _inputs(target, options.folders):
        try:
            used = measured(target, name, data, columns)
        except loop.CrashError as error:
            raise SystemExit(f"{_kept(options.keep, 'crash', name, data)}: {error}") from error
        everything.append(used)
        if used.grown > used.bound:
            called = _kept(options.keep, "memory", name, data)
            raise SystemExit(
                f"{called}: {used.size:,} bytes, {used.decoded:,} decoded, took {used.grown:,} bytes of "
                f"memory, at most {used.bound:,}"
            )
        if used.seconds > CPU_SECONDS:
            _kept(options.keep, "slow", name, data)
    most = max(everything, key=lambda used: used.grown)
    # Of what takes more than the constant.
    ratio = max(
        (used.grown - CONSTANT_BYTES - PER_COLUMN_BYTES * used.columns) / (used.size + used.decoded + 1)
        for used in everything
    )
    slowest = max(everything, key=lambda used: used.seconds)
    print(
        json.dumps(
            {
                "inputs": len(everything),
                "peak_growth_bytes": most.grown,
                "peak_growth_input": [most.name, most.size, most.decoded],
                "peak_growth_undecoded_bytes": max(
                    (used.grown for used in everything if not used.decoded), default=0
                ),
                "times_the_size_beyond_the_constant": round(max(0, ratio), 2),
                "slowest_seconds": round(slowest.seconds, 3),
                "slowest_input": slowest.name,
                "share_of_bound": round(max(used.grown / used.bound for used in everything), 3),
            }
        )
    )
    return 0


def _kept(folder: Path | None, kind: str, name: str, data: bytes) -> str:
    """Keep an input where that is wanted, and return what to call it."""
    if folder is None:
        return name
    path = loop.keep(folder, kind, data)
    return f"{name}, kept as {path}"


def _inputs(target: Target, folders: list[Path]) -> Iterator[tuple[str, bytes, int]]:
    for number, data in enumerate(target.seeds()):
        yield f"seed {number}", data, 0
    for name, data in inputs_of(target.name):
        yield name, data, 0
    yield from heavy_inputs(target.name)
    for folder in folders:
        for path in sorted(folder.iterdir()):
            yield path.name, path.read_bytes(), 0


def measured(target: Target, name: str, data: bytes, columns: int = 0) -> Used:
    """Return by how much an input lets the resident memory grow at most, and how long it takes."""
    decoded = _decoded_bytes(data)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_PEAK.write_text("5")
    before = _status_bytes("VmRSS")
    started = time.process_time()
    loop.run_one(target, data)
    seconds = time.process_time() - started
    return Used(name, len(data), decoded, columns, _status_bytes("VmHWM") - before, seconds)


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def _decoded_bytes(data: bytes) -> int:
    """Return what a snapshot says that its parts decode to, within the limits of the format."""
    model = SnapshotModel.of(data)
    if model is None:
        return 0
    return sum(min(entry.raw_bytes, 4096 * len(stored)) for entry, stored in model.sections if entry.codec)


if __name__ == "__main__":
    sys.exit(main())
