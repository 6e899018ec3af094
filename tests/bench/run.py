"""The benchmark: one command, one table, both sides of each figure in the same run.

    python tests/bench/run.py --parquet wordnet.parquet --queries wordnet-queries.npy --work /big/folder

Needs the `bench` extra. Nothing else should run on the machine. Figures are medians; a ratio is the median
over pairs measured in turn, with its quartiles. `--only NAME` runs one group, `--json FILE` keeps the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, replace
from pathlib import Path

THREADS = "2"
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "IQDB_NUM_THREADS"):
    os.environ[variable] = THREADS  # before anything imports a threaded library

sys.path.insert(0, str(Path(__file__).parent))

import approximate  # noqa: E402
import bits  # noqa: E402
import cold  # noqa: E402
import data as datasets  # noqa: E402
import exact  # noqa: E402
import filtered  # noqa: E402
import imports  # noqa: E402
import ivf  # noqa: E402
import startup  # noqa: E402
import verify  # noqa: E402
import writes  # noqa: E402
from measure import Figure  # noqa: E402

GROUPS = {
    "startup": startup.figures,
    "exact": exact.figures,
    "bits": bits.figures,
    "imports": imports.figures,
    "writes": writes.figures,
    "approximate": approximate.figures,
    "approximate-1m": approximate.figures_1m,
    "approximate-own": approximate.figures_own,
    "cold": cold.figures,
    "verify": verify.figures,
    "filtered": filtered.figures,
    "ivf": ivf.figures,
}


def main() -> None:
    """Parse the arguments, run the groups, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parquet", type=Path, required=True, help="a table with a vector column of 384 dimensions"
    )
    parser.add_argument("--queries", type=Path, required=True, help="queries as .npy, f32[q][384]")
    parser.add_argument("--work", type=Path, required=True, help="folder for derived data (about 3 GB)")
    parser.add_argument(
        "--only", choices=sorted(GROUPS), action="append", help="run this group only; repeatable"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument(
        "--reuse", action="store_true", help="search the hnsw databases of an earlier run; no times of builds"
    )
    parser.add_argument(
        "--vectors", type=Path, help="vectors as .npy, f32[n][dim], for the group approximate-own"
    )
    parser.add_argument("--metric", default="euclidean", choices=("euclidean", "cosine"), help="of --vectors")
    options = parser.parse_args()
    if "approximate-own" in (options.only or ()) and options.vectors is None:
        parser.error("the group approximate-own needs --vectors")

    data = replace(
        datasets.prepare(options.work, options.parquet, options.queries),
        reuse=options.reuse,
        vectors=options.vectors,
        metric=options.metric,
    )
    rows: list[Figure] = []
    print(f"{platform.machine()}, {os.cpu_count()} processors, {THREADS} threads")
    print(f"Python {platform.python_version()}, {platform.platform()}")
    print("| what | iqdb | other | ratio (quartiles) | reach | met | note |\n|---|---|---|---|---|---|---|")
    for name in options.only or GROUPS:
        for figure in GROUPS[name](data):
            rows.append(figure)
            print("| " + " | ".join(figure.cells()) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
