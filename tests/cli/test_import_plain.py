"""Plain .npy files take a way of their own into a new database; nobody must notice but by its speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ID = ("--database-id", "00112233445566778899aabbccddeeff")


def both_ways(iqdb: Any, source: Path, *options: str) -> tuple[Any, Any, Path]:
    """Import as a plain file, and through a pipe, which nobody can read twice."""
    directory = source.parent
    rest = ("--metric", "dot", *ID, *options)
    plain = iqdb("import", directory / "plain.iqdb", source, *rest)
    piped = iqdb("import", directory / "piped.iqdb", "-", *rest, stdin=source.read_bytes())
    return plain, piped, directory


@pytest.mark.parametrize("options", [(), ("--first-id", "1000"), ("--model", "m"), ("--threads", "1")])
@pytest.mark.parametrize("shape", [(500, 12), (1, 9), (6,)])
def test_a_file_and_a_pipe_give_the_same_bytes(
    iqdb: Any, tmp_path: Path, shape: tuple[int, ...], options: tuple[str, ...]
) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(1).normal(size=shape).astype(np.float32))
    plain, piped, directory = both_ways(iqdb, tmp_path / "v.npy", *options)
    assert plain.status == piped.status == 0
    assert (directory / "plain.iqdb").read_bytes() == (directory / "piped.iqdb").read_bytes()
    assert "row numbers as ids" in plain.stderr
    assert "replaced; the database holds" in plain.stderr


def test_an_infinity_is_named_in_the_same_words(iqdb: Any, tmp_path: Path) -> None:
    values = np.ones((50, 4), np.float32)
    values[17, 2] = np.inf
    np.save(tmp_path / "v.npy", values)
    plain, piped, directory = both_ways(iqdb, tmp_path / "v.npy")
    assert plain.status == piped.status == 4
    piped.stderr.splitlines()[-1]
    assert plain.stderr.splitlines()[-1] == piped.stderr.splitlines()[-1].replace(
        "standard input", str(directory / "v.npy")
    )
    assert sorted(path.name for path in directory.iterdir()) == ["v.npy"]


def test_a_first_id_beyond_all_ids_is_refused(iqdb: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 4), np.float32))
    source = tmp_path / "v.npy"
    done = iqdb("import", tmp_path / "a.iqdb", source, "--metric", "dot", "--first-id", str(2**64 - 2))
    assert done.status != 0
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a.iqdb").exists()


def test_numpy_is_not_needed(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 4), np.float32))
    code = (
        "import sys; from iqdb_cli.__main__ import main\n"
        "sys.argv = ['iqdb', 'import', 'a.iqdb', 'v.npy', '--metric', 'dot']\n"
        "assert main() == 0\n"
        "print('numpy' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
