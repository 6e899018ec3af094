"""One target under atheris, which guides mutation by the coverage of the Python code.

    python tests/fuzz/harness.py TARGET FOLDER [libFuzzer options]

FOLDER receives what adds coverage. `run.py` starts this; it needs atheris on the path.
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "trust")]

import atheris  # noqa: E402 - the folders first

with atheris.instrument_imports(include=["iqdb_core", "iqdb_cli"], enable_loader_override=False):
    from targets import TARGETS

from corpus import inputs_of  # noqa: E402


def main() -> None:
    """Fuzz."""
    target = TARGETS[sys.argv[1]]
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*target.seeds(), *(data for _, data in inputs_of(target.name))]):
        (folder / f"seed-{number:04d}").write_bytes(data)
    # Modules that a function imports when it first runs are instrumented too, if it runs now.
    with atheris.instrument_imports(include=["iqdb_core", "iqdb_cli"], enable_loader_override=False):
        for data in target.seeds():
            target.run(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.randrange(8) == 0:
            return bytes(atheris.Mutate(data, max_size))
        for _ in range(rng.choice((1, 1, 2, 4))):
            try:
                data = target.mutate(data, rng)
            except (ValueError, OverflowError, struct.error):
                # What was put together cannot be taken apart any more: a matter of the mutation alone.
                return bytes(atheris.Mutate(data, max_size))
        return data[:max_size]

    def one(data: bytes) -> None:
        target.run(data)

    options = [f"-max_len={target.max_bytes}", *sys.argv[3:], str(folder)]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
