"""The README's commands are run, so that they stay true."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading: str, language: str) -> str:
    """The first fenced block of a language under a heading."""
    section = re.split(r"^## ", README, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(heading)]
    found = re.search(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    assert found is not None, f"no {language} block under {heading}"
    return found.group(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the shell lines name."""
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((50, 384), dtype=np.float32)
    table = pa.table(
        {
            "doc": [f"doc-{row}" for row in range(50)],
            "pos": ["noun" if row % 2 else "verb" for row in range(50)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 384),
        }
    )
    pq.write_table(table, tmp_path / "embeddings.parquet")
    np.save(tmp_path / "query.npy", vectors[4])
    new = {"id": "doc-51", "embedding": vectors[5].astype(float).tolist(), "pos": "noun"}
    (tmp_path / "new.jsonl").write_text(json.dumps(new) + "\n")
    return tmp_path


def test_the_gate_runs_the_test_command_of_the_readme() -> None:
    assert block("Tests", "sh").strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_shell_lines_run(folder: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block("Ten lines of shell", "sh")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hits = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"query"')]
    assert hits[0]["id"] == "doc-4"
    assert hits[0]["distance"] == pytest.approx(0.0, abs=1e-12)


def test_the_python_lines_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    exec(compile(block("Ten lines of Python", "python"), "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("7 ")
