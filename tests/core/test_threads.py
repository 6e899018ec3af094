"""Work that is shared out to threads."""

from __future__ import annotations

import threading

import pytest

from iqdb_core.threads import share_out


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("pieces", [0, 1, 2, 300])
def test_every_piece_is_done_once(threads: int, pieces: int) -> None:
    done: list[int] = []
    share_out(threads, range(pieces), done.append, "test")
    assert sorted(done) == list(range(pieces))


def test_one_thread_is_the_callers_own() -> None:
    names = set()
    share_out(1, range(3), lambda _: names.add(threading.current_thread()), "test")
    assert names == {threading.current_thread()}


@pytest.mark.parametrize("threads", [1, 3])
def test_after_an_error_nothing_more_is_begun(threads: int) -> None:
    done = []

    def work(piece: int) -> None:
        if piece == 2:
            raise OverflowError(piece)
        done.append(piece)

    with pytest.raises(OverflowError):
        share_out(threads, range(100_000), work, "test")
    assert len(done) < 100_000
    assert threading.active_count() < 20
