"""A whole process that answers one query from an hnsw index of 1M x 128: how long a user of the shell waits.

`iqdb search` against short Python scripts over hnswlib, faiss and usearch, in turn. Each is measured twice:
with its file in the page cache, and with the file's pages dropped before each run; programs and libraries
stay in the cache. Every answer is compared with the true nearest row once.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import approximate
import numpy as np
from data import Data
from measure import Figure, command, seconds
from startup import IQDB

from iqdb_core import Iqdb

EF = 64  # what iqdb takes where nobody says otherwise
ROUNDS = 21
ROUNDS_DROPPED = 9

HNSWLIB = """
import sys, numpy, hnswlib
index = hnswlib.Index("l2", 128)
index.load_index(sys.argv[1])
index.set_ef(int(sys.argv[3]))
index.set_num_threads(1)
print(index.knn_query(numpy.load(sys.argv[2]), 10)[0][0].tolist())
"""
FAISS = """
import sys, numpy, faiss
index = faiss.read_index(sys.argv[1])
index.hnsw.efSearch = int(sys.argv[3])
print(index.search(numpy.load(sys.argv[2])[None, :], 10)[1][0].tolist())
"""
USEARCH = """
import sys, numpy
from usearch.index import Index
index = Index.restore(sys.argv[1], view=True)
index.expansion_search = int(sys.argv[3])
print(index.search(numpy.load(sys.argv[2]), 10).keys.tolist())
"""
SCRIPTS = {
    "hnswlib": ("clustered.hnswlib", HNSWLIB),
    "faiss HNSW": ("clustered.faiss-HNSW", FAISS),
    "faiss HNSW-SQ8": ("clustered.faiss-HNSW-SQ8", FAISS),
    "usearch view": ("clustered.usearch", USEARCH),
}


@dataclass
class Process:
    """One way to answer the query."""

    name: str
    file: Path
    arguments: list[str]
    run: Callable[[], None]

    def nearest(self) -> int:
        """The row that it says is nearest."""
        out = subprocess.run(self.arguments, check=True, capture_output=True, text=True, stdin=None).stdout
        first = json.loads(out.splitlines()[0])
        return int(first["id"] if isinstance(first, dict) else first[0])


def drop(path: Path) -> None:
    """Drop a file from the page cache: pages leave it once they are on disk and no process maps them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def in_turn(processes: list[Process], rounds: int, *, dropped: bool) -> list[list[float]]:
    """Seconds of each process, round by round."""
    taken: list[list[float]] = [[] for _ in processes]
    for number in range(rounds + 1):
        for process, times in zip(processes, taken, strict=True):
            if dropped:
                drop(process.file)
            start = time.perf_counter()
            process.run()
            if number > 0:  # the first round warms programs and libraries
                times.append(time.perf_counter() - start)
    return taken


def figures(data: Data) -> Iterator[Figure]:
    """The rows of this group."""
    rows = approximate.million()
    path, _ = approximate.database(data.work, "clustered", rows, "euclidean", reuse=True)
    if not all((data.work / file).exists() for file, _ in SCRIPTS.values()):
        for _ in approximate.peers("clustered", rows, "euclidean", data.work):
            pass
    query = approximate.clustered(1, seed=13)[0]
    one = data.work / "clustered-query.npy"
    np.save(one, query)
    with Iqdb.open_existing(path, read_only=True) as db:
        true = db.search(query, 1, exact=True)[0].id
    del rows

    search = [IQDB, "search", str(path), str(one), "--k", "10", "--ef", str(EF)]
    processes = [Process("iqdb", path, search, command(search))]
    for name, (file, script) in SCRIPTS.items():
        arguments = [sys.executable, "-c", script, str(data.work / file), str(one), str(EF)]
        processes.append(Process(name, data.work / file, arguments, command(arguments)))
    for process in processes:
        if process.nearest() != true:
            sys.exit(f"{process.name} does not find the nearest row, {true}")

    for dropped, rounds in ((False, ROUNDS), (True, ROUNDS_DROPPED)):
        taken = in_turn(processes, rounds, dropped=dropped)
        medians = [statistics.median(times) for times in taken]
        print("  ", ", ".join(f"{p.name} {seconds(m)}" for p, m in zip(processes, medians, strict=True)))
        fastest = min(range(1, len(processes)), key=medians.__getitem__)
        ratios = sorted(a / b for a, b in zip(taken[0], taken[fastest], strict=True))
        quarter = (rounds - 1) // 4
        ratio = statistics.median(ratios)
        state = "pages dropped" if dropped else "pages cached"
        yield Figure(
            f"`iqdb search`, hnsw 1M x 128, whole process, {state}, against the fastest",
            seconds(medians[0]),
            seconds(medians[fastest]),
            ratio,
            ratios[quarter],
            ratios[rounds - 1 - quarter],
            "<= 0.5",
            ratio <= 0.5,
            processes[fastest].name,
        )
