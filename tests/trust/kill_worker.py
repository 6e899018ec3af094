"""The processes that kills.py kills: each does one command in a fork of a server.

The server has everything imported, so a kill costs milliseconds. A worker goes through the same code as the
command line or Python would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)

import planting  # noqa: E402
from kill_outputs import OUTPUTS  # noqa: E402

from iqdb_core import Iqdb  # noqa: E402

DIM = 3
# What workers do, and the command that does it; None: a handle in Python.
ACTIONS: dict[str, str | None] = {
    "create": "create",
    "import": "import",
    "import new": "import",
    "upsert": "upsert",
    "delete": "delete",
    "compact": "compact",
    "recompress": "compact",
    "optimize": "optimize",
    "recall": "recall",
    **{action: output.arguments[0] for action, output in OUTPUTS.items()},
    "bulk": None,
    "single": None,
    "batch": None,
}
INDEXES = {
    "flat": [],
    "hnsw": ["--m", "4", "--ef-construction", "8"],
    "ivf": ["--n-clusters", "4", "--n-probes", "1"],
}
POLICIES = ("always", "periodic:0.002", "never")
OPERATIONS = (
    "create",
    "write",
    "truncate",
    "sync",
    "sync_data",
    "sync_directory",
    "rename",
    "link",
    "unlink",
    "copy_permissions",
)


def _records(ids: list[int], value: int) -> list[str]:
    return [json.dumps({"id": i, "vector": [i, value, 1], "metadata": {"v": value}}) for i in ids]


def _arm(point: int) -> None:
    """Let this process kill itself at its n-th changing file operation, before or after it."""
    from iqdb_core.storage.files import FileSystem

    left = [point]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def operation(*arguments: Any, **named: Any) -> Any:
            count()
            result = original(*arguments, **named)
            count()
            return result

        setattr(owner, name, operation)

    for name in OPERATIONS:
        wrap(FileSystem, name)


def _index(value: int) -> list[str]:
    kind = list(INDEXES)[value % len(INDEXES)]
    return ["--index", kind, *INDEXES[kind]]


def _command(*arguments: str) -> None:
    from iqdb_cli.__main__ import main

    sys.argv = ["iqdb", *arguments]
    status = main()
    if status:
        raise RuntimeError(f"{arguments} ended with {status}")


def _work(order: dict[str, Any], tell: Any) -> None:
    """Do one action; `tell` what is about to be written (a dict, id -> value or None) and acknowledged."""
    from workloads import batch_of

    path, folder, action = order["path"], Path(order["path"]).parent, order["action"]
    ids, value = order["ids"], order["value"]
    change = {str(i): value for i in ids}
    if action in ("import", "upsert"):
        source = folder / "source.jsonl"
        source.write_text("\n".join(_records(ids, value)) + "\n")
        tell({"begin": change})
        _command(action, path, str(source))
        tell({"ack": True})
    elif action == "import new":
        source = folder / "source.jsonl"
        source.write_text("\n".join(_records(ids, value)) + "\n")
        tell({"begin": change})
        _command("import", path, str(source), "--metric", "euclidean", *_index(value))
        tell({"ack": True})
    elif action == "create":
        tell({"begin": {}})
        _command("create", path, "--dim", str(DIM), "--metric", "euclidean", *_index(value))
        tell({"ack": True})
    elif action == "optimize":
        tell({"begin": {}})
        _command("optimize", path, *_index(value), "--sample", "3")
        tell({"ack": True})
    elif action == "recall":
        tell({"begin": {}})
        _command("recall", path, "--target", "0.2", "--save", "--k", "2", "--sample", "4")
        tell({"ack": True})
    elif action in OUTPUTS:
        tell({"begin": {}})
        _command(*OUTPUTS[action].command(path))
        tell({"ack": True})
    elif action == "delete":
        tell({"begin": dict.fromkeys(change)})
        _command("delete", path, *map(str, ids))
        tell({"ack": True})
    elif action in ("compact", "recompress"):
        tell({"begin": {}})
        compression = (
            ["--compression", ("none", "lz4", "zstd:1")[value % 3]] if action == "recompress" else []
        )
        _command("compact", path, *compression)
        tell({"ack": True})
    else:
        db = Iqdb.open_existing(path, fsync=order["policy"], threads=1, auto_compact=order["auto_compact"])
        if action == "bulk":
            tell({"begin": change})
            batch = batch_of(ids, [0] * len(ids), [{"v": value}] * len(ids))
            batch.vectors[:] = [[i, value, 1] for i in ids]
            db.bulk_load([batch])
            tell({"ack": True})
        elif action == "batch":
            for start in range(0, len(ids), 4):
                some = ids[start : start + 4]
                tell({"begin": {str(i): value for i in some}})
                db.upsert_many(some, [[i, value, 1] for i in some], [{"v": value}] * len(some))
                tell({"ack": True})
        else:
            for n, i in enumerate(ids):
                if n % 5 == 4:
                    tell({"begin": {str(ids[n - 1]): None}})
                    db.delete(ids[n - 1])
                    tell({"ack": True})
                tell({"begin": {str(i): value}})
                db.upsert(i, [i, value, 1], {"v": value})
                tell({"ack": True})
        db.close(compact=order["compact_at_close"])
    tell({"done": True})


def _run_worker(order: dict[str, Any]) -> None:
    os.setpgid(0, 0)
    channel = os.open(order["pipe"], os.O_WRONLY)

    def tell(message: dict[str, Any]) -> None:
        os.write(channel, json.dumps(message).encode() + b"\n")

    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    tell({"pid": os.getpid()})
    if order["point"]:
        _arm(order["point"])
    try:
        _work(order, tell)
    except BaseException as error:  # noqa: BLE001 - the supervisor wants to know about anything
        tell({"error": f"{type(error).__name__}: {error}"})
    os._exit(0)


def serve() -> None:
    """Fork a worker for every line of standard input; say how it ended."""
    import numpy as np

    import iqdb_cli.app
    import iqdb_cli.commands.compact
    import iqdb_cli.commands.create
    import iqdb_cli.commands.delete
    import iqdb_cli.commands.demo
    import iqdb_cli.commands.export
    import iqdb_cli.commands.import_
    import iqdb_cli.commands.optimize
    import iqdb_cli.commands.recall
    import iqdb_cli.commands.repair
    import iqdb_cli.commands.search
    import iqdb_cli.commands.upsert
    import iqdb_cli.exporters.parquet  # noqa: F401
    import iqdb_core.bulk
    import iqdb_core.fold
    import iqdb_core.salvage  # noqa: F401

    assert np is not None
    planting.of_parent()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run_worker(json.loads(line))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
