"""Paired timing: two things in turn, A B A B ..., compared pair by pair.

A shared machine drifts by tens of percent within minutes. Running both sides in turn and quoting the
median of the ratios of neighbours cancels the drift; two separate runs would not.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One row of the table: our median, the other's median, and the ratio with its spread."""

    what: str
    ours: str
    other: str
    ratio: float
    ratio_low: float
    ratio_high: float
    reach: str
    met: bool
    note: str = ""

    def cells(self) -> list[str]:
        """The row as text, ratio with its quartiles."""
        spread = f"{self.ratio:.2f} ({self.ratio_low:.2f}-{self.ratio_high:.2f})"
        return [self.what, self.ours, self.other, spread, self.reach, "yes" if self.met else "NO", self.note]


@dataclass
class Pairs:
    """Seconds of both sides, measured in turn."""

    ours: list[float] = field(default_factory=list)
    other: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours over the other's, pair by pair."""
        return [a / b for a, b in zip(self.ours, self.other, strict=True)]

    def figure(
        self,
        what: str,
        reach: str,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        note: str = "",
    ) -> Figure:
        """A row of times (`at_most`) or of speeds (`at_least`, ratio turned round)."""
        ratios = sorted(self.ratios if at_least is None else [1 / r for r in self.ratios])
        ratio = statistics.median(ratios)
        quarter = max(0, (len(ratios) - 1) // 4)
        met = ratio <= at_most if at_most is not None else ratio >= (at_least or 0.0)
        return Figure(
            what,
            seconds(statistics.median(self.ours)),
            seconds(statistics.median(self.other)),
            ratio,
            ratios[quarter],
            ratios[len(ratios) - 1 - quarter],
            reach,
            met,
            note,
        )


def seconds(value: float) -> str:
    """A duration with a unit that suits its size."""
    if value < 1e-3:
        return f"{value * 1e6:.1f} us"
    if value < 1:
        return f"{value * 1e3:.1f} ms"
    return f"{value:.2f} s"


def pairs(
    ours: Callable[[], object],
    other: Callable[[], object],
    *,
    runs: int,
    warmup: int = 1,
    before: Callable[[], object] | None = None,
) -> Pairs:
    """Time both in turn; `before` runs untimed before each side."""
    result = Pairs()
    for index in range(warmup + runs):
        for action, record in ((ours, result.ours), (other, result.other)):
            if before is not None:
                before()
            start = time.perf_counter()
            action()
            elapsed = time.perf_counter() - start
            if index >= warmup:
                record.append(elapsed)
    return result


def command(arguments: Sequence[str], *, stdin: str | None = None) -> Callable[[], None]:
    """A whole process as something to time; a failure stops the benchmark."""

    def run() -> None:
        source = Path(stdin).open("rb") if stdin else subprocess.DEVNULL  # noqa: SIM115
        try:
            subprocess.run(
                arguments, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True
            )
        except subprocess.CalledProcessError as error:
            sys.exit(f"{arguments} failed with {error.returncode}: {error.stderr.decode()}")
        finally:
            if source is not subprocess.DEVNULL:
                source.close()

    return run


def peak_bytes(arguments: Sequence[str]) -> int:
    """The peak resident memory of one run of a command, as the system accounts for it."""
    code = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
