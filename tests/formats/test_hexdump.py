"""The dumps on the pages are those of files as the program writes them today."""

from __future__ import annotations

import pytest
from generate_hexdump import CASE, block, dumps
from independent_log import replay
from independent_reader import read_snapshot
from pages import page

from iqdb_core.storage.snapshot import Snapshot


@pytest.mark.parametrize("mark", ["snapshot", "log"])
def test_a_dump_on_a_page_is_that_of_a_real_file(mark: str) -> None:
    name, text = dumps()[mark]
    found = block(mark).search(page(name))

    assert found is not None
    assert found[2] == text


def bytes_of(text: str) -> bytes:
    """Read a dump back."""
    data = b""
    for line in text.splitlines():
        assert int(line[:6], 16) == len(data), line
        if line[8:14] == "00 ...":
            data += bytes(int(line.rsplit(": ", 1)[1].split()[0]))
        else:
            data += bytes.fromhex(line[8:55])
    return data


def test_the_bytes_of_the_dumps_are_a_whole_database() -> None:
    """So somebody who types them in has a file to test a reader with."""
    texts = {mark: text for mark, (_, text) in dumps().items()}
    snapshot = bytes_of(texts["snapshot"])
    records, log = replay(bytes_of(texts["log"]), read_snapshot(snapshot))

    assert len(Snapshot.from_buffer(snapshot).sections) == 7
    assert CASE.log is not None
    assert log.frames == len(CASE.log)
    assert [int.from_bytes(record.id[1], "little") for record in records] == [7]
