"""Peak memory and time of every input, in a process of its own that is limited.

    python tests/fuzz/memory.py TARGET [FOLDER ...]

Prints one line of JSON. Whatever an input says, reading it takes at most `CONSTANT_BYTES` and `PER_BYTE`
times its size beyond what the process had before. The size is that of the file and of what its compressed
sections decode to, which the format limits to 4096 times what they take.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "trust")]

import loop  # noqa: E402 - the folders first
from corpus import inputs_of  # noqa: E402
from mutators import SnapshotModel  # noqa: E402
from targets import TARGETS, Target  # noqa: E402

CONSTANT_BYTES = 64 << 20
PER_BYTE = 16
ADDRESS_BYTES = 16 << 30
"""What the process may reserve; mappings and stacks of threads count, so it is far from what is used."""
_CLEAR_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def main() -> int:
    """Run all inputs of a target one after the other."""
    target = TARGETS[sys.argv[1]]
    if not _CLEAR_PEAK.exists():
        print(json.dumps({"skipped": "peak memory of a moment is known on Linux alone"}))
        return 0
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_BYTES, ADDRESS_BYTES))
    # What is imported and cached by the first of all is not counted.
    for data in target.seeds():
        target.run(data)
    inputs = peak = most_over = 0
    slowest = 0.0
    for name, data in _inputs(target, sys.argv[2:]):
        grown, seconds = _measured(target, data)
        bound = CONSTANT_BYTES + PER_BYTE * (len(data) + _decoded_bytes(data))
        if grown > bound:
            raise SystemExit(f"{name}: {len(data):,} bytes took {grown:,} bytes of memory, at most {bound:,}")
        inputs += 1
        peak = max(peak, grown)
        most_over = max(most_over, grown - _decoded_bytes(data))
        slowest = max(slowest, seconds)
    print(
        json.dumps(
            {
                "inputs": inputs,
                "peak_growth_bytes": peak,
                "peak_growth_beyond_decoded_bytes": most_over,
                "slowest_seconds": round(slowest, 3),
                "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )
    return 0


def _inputs(target: Target, folders: list[str]) -> Iterator[tuple[str, bytes]]:
    for number, data in enumerate(target.seeds()):
        yield f"seed {number}", data
    yield from inputs_of(target.name)
    for folder in folders:
        for path in sorted(Path(folder).iterdir()):
            yield path.name, path.read_bytes()


def _measured(target: Target, data: bytes) -> tuple[int, float]:
    """Return by how much one input lets the resident memory grow at most, and how long it takes."""
    _CLEAR_PEAK.write_text("5")
    before = _status_bytes("VmRSS")
    started = time.monotonic()
    loop.run_one(target, data)
    return _status_bytes("VmHWM") - before, time.monotonic() - started


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def _decoded_bytes(data: bytes) -> int:
    """Return how many bytes the compressed sections of a snapshot say that they decode to, within limits."""
    model = SnapshotModel.of(data)
    if model is None:
        return 0
    return sum(min(entry.raw_bytes, 4096 * len(stored)) for entry, stored in model.sections if entry.codec)


if __name__ == "__main__":
    sys.exit(main())
