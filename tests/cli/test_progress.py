from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from iqdb_cli import progress
from iqdb_cli.progress import ProgressBar, rate_text


class Terminal(io.StringIO):
    def isatty(self) -> Any:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0)

    def begin() -> Any:
        # Within the test: pytest takes stderr for itself between a fixture and its test.
        screen = Terminal()
        monkeypatch.setattr(sys, "stderr", screen)
        return screen

    return begin


def test_a_terminal_sees_rows_and_rate(terminal: Any) -> None:
    screen = terminal()
    with ProgressBar("import", lambda: 0.5) as bar:
        bar.update(1234)
    assert "import" in screen.getvalue()
    assert "1,234 rows" in screen.getvalue()
    assert "rows/s" in screen.getvalue()


def test_a_size_that_is_not_known_is_no_problem(terminal: Any) -> None:
    screen = terminal()
    with ProgressBar("import", lambda: None) as bar:
        bar.update(7)
    assert "7 rows" in screen.getvalue()


def test_everything_read_is_not_everything_written(terminal: Any) -> None:
    terminal()
    with ProgressBar("import", lambda: 1.0) as bar:
        bar.update(7)
        assert bar._bar.tasks[0].description == "finish"


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    def fraction() -> None:
        raise AssertionError

    with ProgressBar("import", fraction) as bar:
        bar.update(1)
    assert stream.getvalue() == ""


def test_the_bar_is_taken_away_after_an_error(terminal: Any) -> None:
    terminal()
    bar = ProgressBar("import", lambda: 0.5)
    bar.__enter__()
    bar.update(1)
    bar.__exit__(ValueError, ValueError("stop"), None)
    assert bar._bar is None


@pytest.mark.parametrize(
    ("rows", "seconds", "text"),
    [(1, 0.5, "1 row in 0.50 s (2 rows/s)"), (10_000, 4, "10,000 rows in 4.00 s (2,500 rows/s)")],
)
def test_the_rate_is_rows_by_seconds(rows: Any, seconds: Any, text: Any) -> None:
    assert rate_text(rows, seconds) == text


def test_no_time_at_all_has_a_rate() -> None:
    assert rate_text(0, 0).startswith("0 rows in 0.00 s")


def test_bytes_have_a_rate_too(terminal: Any) -> None:
    screen = terminal()
    with ProgressBar("verify", lambda: 0.5, text=progress.bytes_text) as bar:
        bar.update(1_500_000_000)
    assert "1.50 GB" in screen.getvalue()
    assert progress.bytes_text(1_500_000_000, 2.0) == "1.50 GB  0.75 GB/s"


def test_recall_and_verification_show_how_far_they_are(terminal: Any, tmp_path: Any) -> None:
    import numpy as np

    from iqdb_cli.commands.recall import _PointsBar
    from iqdb_cli.commands.verify import verify_with_progress
    from iqdb_core import Iqdb
    from iqdb_core.recall import RecallPoint

    with Iqdb.open(tmp_path / "a.iqdb", 4, "euclidean") as db:
        db.upsert_many(range(10), np.eye(10, 4))
    screen = terminal()
    with _PointsBar() as bar:
        bar.measured(RecallPoint(64, "graph", 0.987, 0.9, 0.8, 100.0))
    assert "1 setting  64: 0.987" in screen.getvalue()
    assert verify_with_progress(str(tmp_path / "a.iqdb"), "structure", 0, 1).ok
    assert "verify" in screen.getvalue()
