"""All figures that trust is shown by, in one table.

    python tests/trust/run.py [--long] [--figures NAME ...] [--seed N] [--jobs N] [--json FILE]

The short form takes some ten minutes on two cores, the long one some hours: it tries every crash state,
every fault and every damage to the small files. It ends with status 1 when a figure is not what it must be.
The same code runs, with fewer cases, in the tests beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import figure


def main() -> int:
    """Measure, print the table, and return the status."""
    modules = figure.modules()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", action="store_true", help="try everything, not a sample")
    parser.add_argument(
        "--figures",
        nargs="*",
        choices=list(modules),
        metavar="NAME",
        help=f"only some of: {', '.join(modules)} (default: all)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the samples (default: 1)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: the cores)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as JSON")
    options = parser.parse_args()
    run = figure.Run(long=options.long, seed=options.seed, jobs=max(1, options.jobs))
    chosen = options.figures or list(modules)

    print(f"| what | {'long' if run.long else 'short'} form, seed {run.seed} |\n|---|---|", flush=True)
    everything = []
    started = time.monotonic()
    for name in (name for name in modules if name in chosen):
        begun = time.monotonic()
        rows = figure.measured(name, modules[name], run)
        for row in rows:
            print(f"| {row.what} | {row.figure}{' **FAILED**' if row.bad else ''} |", flush=True)
        everything += [{"figure": name, **row._asdict()} for row in rows]
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    run.close()
    print(f"\n{time.monotonic() - started:.0f} s, {run.jobs} processes")
    if options.json is not None:
        options.json.write_text(json.dumps(everything, indent=1) + "\n", "utf-8")
    for failure in run.failures:
        print(f"\nFAILED {failure}", file=sys.stderr)
    return 1 if run.failures or any(row["bad"] for row in everything) else 0


if __name__ == "__main__":
    sys.exit(main())
