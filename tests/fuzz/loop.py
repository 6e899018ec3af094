"""Mutation without coverage, in plain Python: what the tests run, and what `run.py` falls back to."""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from corpus import inputs_of
from targets import Target


class CrashError(AssertionError):
    """An input made a target raise what no input may make it raise. `data` is the input."""

    def __init__(self, target: str, data: bytes, error: BaseException) -> None:
        self.data = data
        super().__init__(f"{target}: {type(error).__name__}: {error}")


@dataclass
class Outcomes:
    """How many inputs were run and what became of them."""

    executions: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


def run_one(target: Target, data: bytes) -> str:
    """Run one input.

    Raises:
        CrashError: it is a crash.
    """
    try:
        return target.run(data)
    except Exception as error:
        raise CrashError(target.name, data, error) from error


def replay(target: Target) -> Outcomes:
    """Run the committed inputs, the corpus and the regressions."""
    done = Outcomes()
    for _, data in inputs_of(target.name):
        done.outcomes[run_one(target, data)] += 1
        done.executions += 1
    return done


def mutate(
    target: Target, seed: int, *, executions: int | None = None, seconds: float | None = None
) -> Outcomes:
    """Run mutations of seeds and corpus, always the same ones for a seed, up to a number or a time."""
    rng = random.Random(f"{target.name} {seed}")
    pool = [*target.seeds(), *(data for _, data in inputs_of(target.name))]
    end = None if seconds is None else time.monotonic() + seconds
    done = Outcomes()
    while (executions is None or done.executions < executions) and (end is None or time.monotonic() < end):
        data = rng.choice(pool)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = target.mutate(data, rng)
        if len(data) > target.max_bytes:
            continue
        done.outcomes[run_one(target, data)] += 1
        done.executions += 1
    return done


def keep(folder: Path, kind: str, data: bytes) -> Path:
    """Keep an input that failed; `kind` says how."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{kind}-{hashlib.sha1(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path
