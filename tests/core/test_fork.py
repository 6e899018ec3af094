"""A handle in a process that was forked: the database stays with the one that opened it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from iqdb_core import Iqdb

# What a child does by accident: it writes, compacts, closes, or just ends as Python does.
SCRIPT = """
import json, os, subprocess, sys
import numpy as np
from iqdb_core import Iqdb, ReadOnlyError, LockedError

path, fsync, end = sys.argv[1:]
vectors = np.random.default_rng(0).standard_normal((3000, 16), dtype=np.float32)
db = Iqdb.open_existing(path, fsync=fsync, threads=2)
db.upsert_many(range(3000), vectors)
memory = Iqdb.open_in_memory(2)
pid = os.fork()
if pid == 0:
    told = []
    for write in (
        lambda: db.upsert(5000, vectors[0]),
        lambda: db.upsert_many([5000], vectors[:1]),
        lambda: db.delete(1),
        lambda: db.compact(),
        lambda: db.flush(),
        lambda: db.optimize(),
    ):
        try:
            write()
            told.append("")
        except ReadOnlyError as error:
            told.append(error.reason)
    memory.upsert(1, [1, 2])
    found = [db.search(vectors[7], 1)[0].id, len(db), db.read_only, len(memory)]
    print(json.dumps([told, found]), flush=True)
    if end == "close":
        db.close()
    elif end == "forget":
        del db
    elif end == "exit":
        os._exit(0)
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
probe = (
    "import sys; from iqdb_core import Iqdb, LockedError\\n"
    "try: Iqdb.open_existing(sys.argv[1])\\n"
    "except LockedError: print('locked', flush=True)\\n"
)
subprocess.run([sys.executable, "-c", probe, path], check=True)
db.upsert(6000, vectors[0])
db.upsert_many([6001, 6002], vectors[:2])
db.close(compact=end == "exit")
print(json.dumps(len(memory)))
"""


@pytest.mark.parametrize(
    ("fsync", "end"), [("always", "close"), ("periodic:5", "forget"), ("never", "leave"), ("always", "exit")]
)
def test_a_forked_child_reads_but_neither_writes_nor_gives_the_lock_back(
    tmp_path: Path, fsync: str, end: str
) -> None:
    path = tmp_path / "a.iqdb"
    Iqdb.open(path, dim=16).close()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), fsync, end],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    child, probe, memory = done.stdout.splitlines()
    told, found = json.loads(child)
    assert told == ["opened by the process that this one was forked from; open the database again"] * 6
    assert found == [7, 3000, True, 1]
    assert (probe, memory) == ("locked", "0")
    with Iqdb.open_existing(path, read_only=True) as db:
        assert len(db) == 3003
        assert {6000, 6001, 6002} <= set(db.ids())


def test_a_child_may_look_again_at_what_its_parent_has_written(tmp_path: Path) -> None:
    script = """
import os, sys
from iqdb_core import Iqdb
db = Iqdb.open(sys.argv[1], dim=2)
db.upsert(1, [1, 2])
ready, go = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(ready, 1)
    assert len(db) == 1
    assert db.refresh()
    assert len(db) == 2
    print("seen")
    sys.exit()
db.upsert(2, [1, 2])
os.write(go, b"x")
sys.exit(os.waitpid(pid, 0)[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.iqdb")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "seen\n", "")
