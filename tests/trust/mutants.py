"""Mistakes planted in the storage layer, one at a time, and whether the tests of trust notice them.

    python tests/trust/mutants.py [NAME ...]

Each mutant of the tables (`mutants_of_*.py`) is a small mistake as somebody might make it: a sync left out,
two steps exchanged, a check forgotten. It names the part of the tests that must notice it, and is run with
it until the first violation. The same parts, with nothing planted, must find nothing.

Every mutant lives in a process of its own, so that nothing of it stays.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

import crashes  # noqa: E402
import damage  # noqa: E402
import damage_databases  # noqa: E402
import damage_lazy  # noqa: E402
import faults  # noqa: E402
import kills  # noqa: E402
import observers  # noqa: E402
import repairs  # noqa: E402
import sabotage  # noqa: E402
import workloads  # noqa: E402
from mutants_of_proof import OF_PROOF  # noqa: E402
from mutants_of_reading import READING  # noqa: E402
from mutants_of_the_log import OF_THE_LOG  # noqa: E402
from mutants_of_writing import WRITING  # noqa: E402
from planting import RottenError, planted  # noqa: E402

from iqdb_core.errors import Error  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mutant import Judge, Mutant

TABLE = (*WRITING, *OF_THE_LOG, *READING, *OF_PROOF)
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in TABLE}
REPOSITORY = Path(HERE).parents[1]
SEED = 20
_SECONDS = 150
"""What takes longer than this is ended, and counts as a mutant that is of no use."""
_MISTAKES_OF_THE_TABLE = (NameError, AttributeError, SyntaxError, ImportError, RottenError)


class Verdict(NamedTuple):
    """What became of a mutant, or of a part of the tests without one.

    Attributes:
        name: the mutant, or "control: " and the part.
        result: "noticed", "not noticed", or "broken": the mutant itself is of no use.
        said: the first line of what the tests said.
        seconds: how long it took.
    """

    name: str
    result: str
    said: str
    seconds: float


# --- The parts of the tests, each with its smallest workload -----------------------------------------


def crash(workload: str, policy: str = "always", limit: int = 100, doubles: int = 0) -> None:
    """Crash states of a workload; `doubles`: so many with a crash during the recovery."""
    crashes.run(getattr(workloads, workload), policy, SEED, limit=limit, double_limit=doubles)


def fault(kind: str, workload: str = "records", step: int = 1) -> None:
    """Every call of a kind fails, in every way, or every `step`-th of these."""
    count = faults.count_calls(workload).get(kind, 0)
    assert count, f"no {kind} is ever called"
    for one in faults.all_faults({kind: count})[::step]:
        faults.try_fault(one, faults.FaultTally(), workload)


def power_cut(kind: str, policy: str) -> None:
    """A call fails, the database is opened anew, then the power goes."""
    skip = 0
    while crashes.run_failed(kind, skip, policy, SEED, limit=8) is not None:
        skip += 1
    assert skip, f"no {kind} is ever called"


def kill(action: str) -> None:
    """A process is killed before and after each of its operations on files."""
    with kills.Supervisor(SEED) as supervisor:
        kills.chosen_points(supervisor, action, 80, kills.random.Random(SEED))


def damaged(index: str, compression: str) -> None:
    """Bits flipped, cuts and swaps of a small snapshot."""
    small = damage_databases.small(index, compression)
    tally = damage.run(small, seed=1, share=700, level="structure")
    assert tally.refused, "nothing was ever refused"


def flipped(part: str, step: int) -> None:
    """Bits of one part of a small snapshot."""
    damage.Damaged(damage_databases.small("ivf", "none"), level="structure").flip_part(part, step)


def damaged_log() -> None:
    """Bits flipped, cuts and swaps of a log."""
    damage.run(damage_databases.with_log(), seed=1, share=200, level="structure")


def damaged_large(index: str, compression: str) -> None:
    """Bits flipped in a file of many blocks, of which an answer touches a few."""
    damage_lazy.run(index, compression, seed=2, flips=16)


def observed() -> None:
    """Processes that read beside one that writes."""
    observers.run(SEED, seconds=2, readers=2)


def machine() -> None:
    """Random steps compared with a dict."""
    import hypothesis
    from hypothesis.stateful import run_state_machine_as_test
    from state_machine import Machine, chosen_settings

    hypothesis.seed(SEED)(Machine)
    run_state_machine_as_test(Machine, settings=chosen_settings(60, 40, shrink=False))


def sabotaged(case: str, operation: str) -> None:
    """A writer that does something wrong, and the proof before the rename that must notice it."""
    with tempfile.TemporaryDirectory(dir=faults.scratch()) as folder:
        result = sabotage.attempt(case or None, operation, "none", Path(folder))
    assert result == ("caught" if case else "harmless"), result


def repaired(shape: str) -> None:
    """Damaged databases are repaired, and the account of the loss is compared with a model."""
    repairs.run(shape, 5, limit=12)


def tested(*tests: str) -> None:
    """Tests outside this folder's programs, by their names from the repository on."""
    import pytest

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            status = pytest.main(
                ["-q", "-x", "-p", "no:cacheprovider", *(str(REPOSITORY / t) for t in tests)]
            )
        except ExceptionGroup:
            # What a test left behind when it failed.
            status = pytest.ExitCode.TESTS_FAILED
    text = out.getvalue()
    if status == pytest.ExitCode.TESTS_FAILED:
        errors = [line for line in text.splitlines() if line.startswith("E  ")]
        raise AssertionError(errors[0] if errors else text)
    if status != pytest.ExitCode.OK:
        raise RottenError(text)


JUDGES = {
    function.__name__: function
    for function in (
        crash,
        fault,
        power_cut,
        kill,
        damaged,
        flipped,
        damaged_log,
        damaged_large,
        observed,
        machine,
        sabotaged,
        repaired,
        tested,
    )
}


def _judge(judge: Judge) -> None:
    JUDGES[judge[0]](*judge[1:])


# --- One mutant ---------------------------------------------------------------------------------------


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def verdict_on(mutant: Mutant) -> tuple[str, str]:
    """Plant a mutant in this process, judge it, and return result and reason."""
    try:
        with planted(mutant.changes):
            _judge(mutant.judge)
    except Exception as error:  # noqa: BLE001 - whatever a test raises, it has noticed something
        told = "".join(traceback.format_exception(error))
        for cause in _chain(error):
            named = any(f"{kind.__name__}:" in str(cause) for kind in _MISTAKES_OF_THE_TABLE)
            if isinstance(cause, _MISTAKES_OF_THE_TABLE) or named:
                return "broken", told
        if not isinstance(error, (AssertionError, Error, Warning, OSError)):
            return "broken", told
        return "noticed", f"{type(error).__name__}: {error}".splitlines()[0]
    return "not noticed", ""


def _control(judge: Judge) -> tuple[str, str]:
    try:
        _judge(judge)
    except Exception as error:  # noqa: BLE001 - the same
        return "noticed", "".join(traceback.format_exception(error))
    return "not noticed", ""


def _in_a_process(name: str) -> Verdict:
    """Judge one mutant, or a part of the tests with none, in a fork of this process."""
    started = time.monotonic()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.close(reading)
        if name in MUTANTS:
            result = verdict_on(MUTANTS[name])
        else:
            result = _control(tuple(json.loads(name)))
        with os.fdopen(writing, "w") as pipe:
            json.dump(result, pipe)
        os._exit(0)
    os.close(writing)
    data = b""
    with os.fdopen(reading, "rb", 0) as pipe:
        while True:
            left = _SECONDS - (time.monotonic() - started)
            if not select.select([pipe], [], [], max(0, left))[0]:
                break
            more = pipe.read(1 << 16)
            if not more:
                break
            data += more
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    try:
        result, said = json.loads(data)
    except ValueError:
        result, said = "broken", f"no answer within {_SECONDS} seconds"
    return Verdict(name, result, said, round(time.monotonic() - started, 2))


def judged(names: list[str]) -> list[Verdict]:
    """Judge mutants, or the parts of the tests named as JSON, in a process that has done nothing else."""
    command = [sys.executable, str(Path(HERE) / "mutants.py"), "--json", *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [Verdict(*json.loads(line)) for line in done.stdout.splitlines()]


def controls(names: Iterable[str]) -> list[str]:
    """Return the parts of the tests that judge these mutants, each once, as `judged` takes them."""
    return list(dict.fromkeys(json.dumps(MUTANTS[name].judge) for name in names))


def main() -> int:
    """Judge the mutants that are named, or all of them, and print what became of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a mutant; default: all of them")
    parser.add_argument("--json", action="store_true", help="verdicts as JSON, and controls as names too")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in MUTANTS and not options.json]
    if unknown:
        parser.error(f"no such mutant: {', '.join(unknown)}")
    wrong = 0
    for name in options.names or MUTANTS:
        found = _in_a_process(name)
        if options.json:
            print(json.dumps(found), flush=True)
            continue
        silent = name not in MUTANTS or MUTANTS[name].equivalent
        right = found.result == ("not noticed" if silent else "noticed")
        wrong += not right
        print(
            f"{'' if right else 'WRONG '}{found.result:12}{found.seconds:6.1f} s  {name}\n      {found.said}"
        )
        sys.stdout.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
