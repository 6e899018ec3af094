"""Import against the plain work that it cannot avoid."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from data import Data
from measure import Figure, command, pairs, peak_bytes, seconds
from startup import IQDB

PARQUET_BASELINE = """
import sys, os
import numpy as np, pyarrow.parquet as pq
table = pq.read_table(sys.argv[1])
column = table.column("vector").combine_chunks()
flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
with open(sys.argv[2], "wb") as out:
    out.write(memoryview(flat).cast("B"))
    out.flush()
    os.fsync(out.fileno())
"""


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    target = data.work / "import-target.iqdb"
    copy = data.work / "copy.bin"

    def clean() -> None:
        for path in (target, copy):
            path.unlink(missing_ok=True)
        os.sync()

    npy = [IQDB, "import", str(target), str(data.synthetic_npy), "--metric", "euclidean"]
    plain = ["sh", "-c", f"cp {data.synthetic_npy} {copy} && sync {copy}"]
    yield pairs(command(npy), command(plain), runs=5, before=clean).figure(
        "import .npy 1,000,000 x 128, against cp + sync", "<= 1.5", at_most=1.5
    )
    clean()
    idle = peak_bytes([sys.executable, "-c", "import numpy, typer"])
    peak = peak_bytes(npy)
    above = (peak - idle) / 2**20
    yield Figure(
        "the same: peak memory above an idle process (MiB in place of a ratio)",
        f"{peak / 2**20:.0f} MiB",
        f"{idle / 2**20:.0f} MiB",
        above,
        above,
        above,
        "<= 300 MiB",
        above <= 300,
    )

    parquet = [IQDB, "import", str(target), str(data.parquet), "--metric", "cosine", "--id-column", "synset"]
    baseline = [sys.executable, "-c", PARQUET_BASELINE, str(data.parquet), str(copy)]
    yield pairs(command(parquet), command(baseline), runs=5, before=clean).figure(
        "import Parquet 115,659 x 384 with metadata, against pyarrow read + raw array + fsync",
        "<= 1.5",
        at_most=1.5,
    )

    jsonl = [IQDB, "import", str(target), str(data.jsonl), "--metric", "cosine", "--id-field", "synset"]
    measured = pairs(command(jsonl), command(["cat", str(data.jsonl)]), runs=5, before=clean)
    size = data.jsonl.stat().st_size
    rates = sorted(size / 1e6 / taken for taken in measured.ours)
    middle = statistics.median(rates)
    yield Figure(
        f"import JSONL, {size / 1e6:.0f} MB, whole process (MB/s in place of a ratio)",
        seconds(statistics.median(measured.ours)),
        "-",
        middle,
        rates[1],
        rates[-2],
        ">= 100 MB/s",
        middle >= 100,
    )
    clean()
    shutil.rmtree(Path(data.work / "unused"), ignore_errors=True)
