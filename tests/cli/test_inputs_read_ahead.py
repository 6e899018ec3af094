from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from iqdb_cli.inputs.read_ahead import read_ahead


def test_items_come_in_order() -> None:
    assert list(read_ahead(iter(range(1000)), 3)) == list(range(1000))


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_items_than_the_depth_exist_at_a_time(depth: int) -> None:
    released = 0

    def produce() -> Iterator[int]:
        for number in range(200):
            # Items 0 to `released` - 1 are done with; this one and those between must fit.
            assert number - released < depth
            yield number

    for number in read_ahead(produce(), depth):
        released = number + 1


def test_an_error_comes_at_its_place() -> None:
    def produce() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    came = []
    with pytest.raises(ValueError, match="the third"):
        came.extend(read_ahead(produce(), 3))
    items = read_ahead(produce(), 3)
    assert [next(items), next(items)] == [1, 2]


def test_an_endless_source_stops_when_the_consumer_does() -> None:
    before = threading.active_count()

    def produce() -> Iterator[int]:
        while True:
            yield 1

    items = read_ahead(produce(), 3)
    assert next(items) == 1
    items.close()
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.05)
    assert threading.active_count() == before
