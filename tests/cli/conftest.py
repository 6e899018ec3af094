"""Running `iqdb` in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from iqdb_core import Ids, Iqdb, IqdbConfig, MetadataColumns, RecordBatch


class Outcome(NamedTuple):
    """What a command left behind."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


class Runner:
    """Calls the command line: `iqdb("search", path, "--k", "3", stdin=b"...")`."""

    def __call__(self, *args: str | Path, stdin: bytes = b"") -> Outcome:
        """Run in this process, with streams as a shell would give them."""
        from iqdb_cli.app import run
        from iqdb_cli.exit_codes import guarded

        with _streams(stdin) as (out, err):
            status = guarded(lambda: run([str(arg) for arg in args]))
            sys.stdout.flush()
            sys.stderr.flush()
        return Outcome(status, out.getvalue(), err.getvalue().decode())

    def process(
        self,
        *args: str | Path,
        stdin: bytes | None = b"",
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Outcome:
        """Run in a process of its own."""
        if stdin is not None:
            options["input"] = stdin
        done = subprocess.run(
            self.command(*args),
            capture_output=True,
            env=self.environment(env),
            timeout=120,
            check=False,
            **options,
        )
        return Outcome(done.returncode, done.stdout, done.stderr.decode())

    @staticmethod
    def command(*args: str | Path) -> list[str]:
        """The words that start a process of its own."""
        return [sys.executable, "-m", "iqdb_cli", *map(str, args)]

    @staticmethod
    def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of such a process: nothing of the caller's that changes output."""
        ignored = {"COLUMNS", "NO_COLOR", "IQDB_DEBUG", "IQDB_NUM_THREADS"}
        kept = {name: value for name, value in os.environ.items() if name not in ignored}
        return {**kept, **(extra or {})}


@contextlib.contextmanager
def _streams(stdin: bytes) -> Iterator[tuple[io.BytesIO, io.BytesIO]]:
    saved = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.BytesIO()
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        sys.stdin = io.TextIOWrapper(os.fdopen(os.dup(source.fileno()), "rb"), encoding="utf-8")
        sys.stdout = io.TextIOWrapper(out, encoding="utf-8", write_through=True)
        sys.stderr = io.TextIOWrapper(err, encoding="utf-8", errors="backslashreplace", write_through=True)
        try:
            yield out, err
        finally:
            sys.stdin.close()
            sys.stdout.detach()
            sys.stderr.detach()
            sys.stdin, sys.stdout, sys.stderr = saved


@pytest.fixture
def iqdb(monkeypatch: pytest.MonkeyPatch) -> Runner:
    for name in ("COLUMNS", "NO_COLOR", "IQDB_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    return Runner()


N, DIM = 200, 8


def sample_vectors() -> np.ndarray:
    return np.random.default_rng(7).standard_normal((N, DIM)).astype(np.float32)


def sample_metadata(row: int) -> dict[str, Any] | None:
    if row % 10 == 9:
        return None
    return {"word": f"wort-{row}", "n": row, "even": row % 2 == 0, "weight": row / 4}


@pytest.fixture
def vectors() -> np.ndarray:
    return sample_vectors()


@pytest.fixture(scope="session")
def _sample_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sample") / "sample.iqdb"
    batch = RecordBatch(
        ids=Ids.from_list(list(range(N))),
        vectors=sample_vectors(),
        metadata=MetadataColumns.from_dicts([sample_metadata(row) for row in range(N)]),
    )
    config = IqdbConfig(dim=DIM, metric="euclidean", database_id=bytes(range(16)))
    Iqdb.create_from(path, config, [batch])
    return path.read_bytes()


@pytest.fixture
def database(tmp_path: Path, _sample_bytes: bytes) -> Path:
    """200 records of 8 dimensions, euclidean, integer ids 0..199, no log."""
    path = tmp_path / "sample.iqdb"
    path.write_bytes(_sample_bytes)
    return path
