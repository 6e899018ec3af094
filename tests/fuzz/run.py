"""Fuzz every target for some time, guided by coverage, and print what was done.

    python tests/fuzz/run.py --minutes N [--target T ...] [--work DIR] [--json FILE]

The decoders in Python are fuzzed by atheris where it is installed, else without guidance; the kernels in C++
by libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer where clang++ and its runtime are there.
The minutes are shared out to the targets. Inputs that add coverage stay in DIR and are where the next run
begins; afterwards all of them are run once more and their memory and time are measured. The status is 1 when
an input crashed, took more than `CPU_SECONDS` of a processor or more memory than `memory.py` allows. These
inputs are kept in DIR/crashes/TARGET, or under the folder that `--crashes` names, and are named at the end.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "trust")]

import loop  # noqa: E402 - the folders first
from corpus import inputs_of  # noqa: E402
from memory import CPU_SECONDS  # noqa: E402
from targets import NATIVE, TARGETS  # noqa: E402

HANG_SECONDS = 10
"""Of a clock, while fuzzing; what takes longer is run again, and its time on a processor decides."""
MEMORY_MB = 2048
SEED_BYTES = 4096


@dataclass
class Done:
    """What became of one target; `kept` are the paths of inputs that failed."""

    target: str
    by: str
    executions: int = 0
    corpus: int = 0
    crashes: int = 0
    peak_mb: float = 0.0
    grown_mb: float = 0.0
    share_of_bound: float = 0.0
    slowest_seconds: float = 0.0
    kept: list[str] = field(default_factory=list)


def main() -> int:
    """Fuzz, print a table, and return the status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*TARGETS, *(f"native-{name}" for name in NATIVE)]
    parser.add_argument("--minutes", type=float, required=True, help="for all targets together")
    parser.add_argument("--target", nargs="*", choices=names, metavar="T", help=f"of {', '.join(names)}")
    parser.add_argument("--work", type=Path, default=HERE.parent.parent / "build" / "fuzz", metavar="DIR")
    parser.add_argument(
        "--crashes", type=Path, metavar="DIR", help="where inputs that fail are kept (default: WORK/crashes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time (default)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    options = parser.parse_args()
    chosen = options.target or names
    seconds = max(1, round(60 * options.minutes / len(chosen)))
    work = options.work.resolve()
    kept = work / "crashes" if options.crashes is None else options.crashes.resolve()
    print(
        "| target | by | executions | corpus | crashes | peak MiB | most for an input MiB | of its bound | "
        "slowest s |"
    )
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    everything = []
    for name in chosen:
        if name in TARGETS:
            done = fuzz_python(name, seconds, work, kept / name, options.seed)
        else:
            done = fuzz_native(name.removeprefix("native-"), seconds, work, kept / name, options.seed)
        everything.append(done)
        figures = (
            name, done.by, f"{done.executions:,}", f"{done.corpus:,}", done.crashes, f"{done.peak_mb:.0f}",
            f"{done.grown_mb:.1f}", f"{done.share_of_bound:.0%}", f"{done.slowest_seconds:.2f}",
        )  # fmt: skip
        print(f"| {' | '.join(map(str, figures))} |", flush=True)
    crashes = sum(done.crashes for done in everything)
    print(
        f"\nexecutions {sum(done.executions for done in everything):,}, corpus "
        f"{sum(done.corpus for done in everything):,}, crashes {crashes}, peak memory "
        f"{max(done.peak_mb for done in everything):.0f} MiB, slowest input "
        f"{max(done.slowest_seconds for done in everything):.2f} s"
    )
    for done in everything:
        for path in done.kept:
            print(f"{done.target}: an input that fails is kept: {path}")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(done) for done in everything], indent=1) + "\n", "utf-8")
    return 1 if crashes else 0


def fuzz_python(name: str, seconds: int, work: Path, crashes: Path, seed: int) -> Done:
    """Fuzz a decoder, then measure the memory of everything in its corpus."""
    folder = work / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    before = set(crashes.iterdir())
    if importlib.util.find_spec("atheris") is None:
        done = Done(name, "mutation alone")
        try:
            done.executions = loop.mutate(TARGETS[name], seed or os.getpid(), seconds=seconds).executions
        except loop.CrashError as error:
            print(f"{loop.keep(crashes, 'crash', error.data)}: {error}", file=sys.stderr)
    else:
        done = Done(name, "atheris")
        _libfuzzer([sys.executable, HERE / "harness.py", name, folder], done, seconds, crashes, seed)
        _forgive(crashes, lambda path: _python_seconds(name, path))
    _measure(name, folder, done, crashes)
    done.corpus = len(list(folder.iterdir())) + sum(1 for _ in inputs_of(name))
    _count(done, crashes, before)
    return done


def fuzz_native(name: str, seconds: int, work: Path, crashes: Path, seed: int) -> Done:
    """Build the harness of a kernel and fuzz it."""
    cmake, clang = shutil.which("cmake"), shutil.which("clang++")
    if cmake is None or clang is None:
        return Done(name, "not run: needs cmake and clang++ with its libFuzzer runtime")
    tree = work / "native"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    for command in (
        [cmake, "-S", HERE / "native", "-B", tree, *generator, f"-DCMAKE_CXX_COMPILER={clang}"],
        [cmake, "--build", tree, "--target", f"fuzz_{name}", "-j", str(os.cpu_count() or 1)],
    ):
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            print(built.stdout[-2000:], built.stderr[-2000:], file=sys.stderr)
            return Done(name, "not built", crashes=1)
    folder = work / "corpus" / f"native-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    crashes.mkdir(parents=True, exist_ok=True)
    for number, (_, data) in enumerate(inputs_of(f"native-{name}")):
        (folder / f"seed-{number:04d}").write_bytes(data)
    if name == "text":
        for number, data in enumerate(TARGETS["jsonl"].seeds()):
            # In front of the text stand the options, and they are taken from the end of the input.
            (folder / f"jsonl-{number:04d}").write_bytes(data + bytes((9, 8, 64, 1)))
    before = set(crashes.iterdir())
    done = Done(f"native-{name}", "libFuzzer, ASan, UBSan")
    _libfuzzer(
        [tree / f"fuzz_{name}", folder, f"-max_len={SEED_BYTES}", "-len_control=0"],
        done,
        seconds,
        crashes,
        seed,
    )
    _forgive(crashes, lambda path: _child_seconds([tree / f"fuzz_{name}", path]))
    done.corpus = len(list(folder.iterdir()))
    _count(done, crashes, before)
    return done


def _count(done: Done, crashes: Path, before: set[Path]) -> None:
    """Count the inputs that failed, and say where they are."""
    new = sorted(set(crashes.iterdir()) - before)
    done.kept = [str(path) for path in new]
    done.crashes = max(done.crashes, len(new))


def _libfuzzer(command: list[object], done: Done, seconds: int, crashes: Path, seed: int) -> None:
    """Run a fuzzer of libFuzzer's kind and read its figures."""
    options = [
        f"-max_total_time={seconds}", f"-timeout={HANG_SECONDS}", f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={crashes}/", "-print_final_stats=1", f"-seed={seed}",
    ]  # fmt: skip
    ended = subprocess.run(
        [*map(str, command), *options], capture_output=True, text=True, check=False, errors="replace"
    )
    said = ended.stdout + ended.stderr
    figures = dict(re.findall(r"stat::(\w+):\s+(\d+)", said))
    runs = re.findall(r"^(?:Done |#)(\d+)", said, re.MULTILINE)
    done.executions = int(figures.get("number_of_executed_units", runs[-1] if runs else 0))
    done.peak_mb = float(figures.get("peak_rss_mb", 0))
    if ended.returncode:
        print(said[-4000:], file=sys.stderr)
        # A crash that left no input is one all the same; slow ones are looked at again.
        if not any(path.name.startswith("timeout-") for path in crashes.iterdir()):
            done.crashes += 1


def _forgive(crashes: Path, seconds: Callable[[Path], float]) -> None:
    """Remove what did not hang but stood still: a busy or a suspended machine passes for a slow input."""
    for path in crashes.glob("timeout-*"):
        if seconds(path) <= CPU_SECONDS:
            path.unlink()


def _python_seconds(name: str, path: Path) -> float:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        done = Done(name, "")
        _measure(name, Path(folder), done, None)
        return done.slowest_seconds


def _child_seconds(command: list[object]) -> float:
    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before = used()
    subprocess.run(list(map(str, command)), capture_output=True, check=False)
    return used() - before


def _measure(name: str, folder: Path, done: Done, crashes: Path | None) -> None:
    """Run everything in the corpus once more, in a process that measures memory and time."""
    keep = [] if crashes is None else ["--keep", crashes]
    command = [sys.executable, HERE / "memory.py", name, folder, *keep]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if ended.returncode:
        print(ended.stdout[-2000:], ended.stderr[-4000:], file=sys.stderr)
        done.crashes += 1
        return
    found = json.loads(ended.stdout)
    if "skipped" not in found:
        done.grown_mb = found["peak_growth_bytes"] / 2**20
        done.share_of_bound = found["share_of_bound"]
        done.slowest_seconds = found["slowest_seconds"]
        if done.slowest_seconds > CPU_SECONDS:
            print(f"{name}, {found['slowest_input']}: {done.slowest_seconds} s", file=sys.stderr)
            done.crashes += 1


if __name__ == "__main__":
    sys.exit(main())
