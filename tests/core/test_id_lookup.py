from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iqdb_core import ChecksumError, Ids, Iqdb, IqdbConfig, RecordBatch, StructureError
from iqdb_core.id_lookup import IdLookup

N = 500
IDS = {
    "ascending": list(range(10, 10 + 3 * N, 3)),
    "scattered": [int(i) for i in np.random.default_rng(0).permutation(10**6)[:N]],
    "mixed": [(i, f"i{i}", b"i%d" % i)[i % 3] for i in range(N)],
}


def image_of(ids: list[Any], directory: Any, compression: str = "none") -> Any:
    path = directory / "a.iqdb"
    batch = RecordBatch(Ids.from_list(ids), np.zeros((len(ids), 1), np.float32))
    Iqdb.create_from(path, IqdbConfig(dim=1, compression=compression), [batch])
    return path


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("kind", IDS)
def test_every_id_is_found_before_and_after_the_kernel_takes_over(
    tmp_path: Any, kind: str, compression: str
) -> None:
    path = image_of(IDS[kind], tmp_path, compression)
    with Iqdb.open_existing(path, read_only=True) as db:
        lookup = IdLookup(db._store.view().base.snapshot)
        for _ in range(3):
            for row, record_id in enumerate(IDS[kind]):
                assert lookup.find(record_id) == row
            for absent in (11, 2**64 - 1, "absent", "i1x", b"absent", b"\0"):
                assert lookup.find(absent) == -1
        assert lookup._columns


def test_few_searches_do_not_read_all_ids(tmp_path: Any) -> None:
    path = image_of([f"id {i}" for i in range(20_000)], tmp_path)
    with Iqdb.open_existing(path, read_only=True) as db:
        snapshot = db._store.view().base.snapshot
        assert db.get("id 77") is not None
        verified = snapshot.section("ids.bytes").blocks().verified
        assert 0 < sum(verified) < len(verified) // 2


def test_an_empty_database_has_no_ids(tmp_path: Any) -> None:
    with Iqdb.open_in_memory(1) as db:
        for _ in range(100):
            assert 1 not in db


def test_damaged_ids_are_reported_whichever_way_they_are_searched(tmp_path: Any) -> None:
    path = image_of(IDS["scattered"], tmp_path)
    with Iqdb.open_existing(path, read_only=True) as db:
        offset = db._store.view().base.snapshot.section("ids").entry.offset
    image = bytearray(path.read_bytes())
    image[offset + 3] ^= 1
    path.write_bytes(image)
    with Iqdb.open_existing(path, read_only=True) as db:
        lookup = IdLookup(db._store.view().base.snapshot)
        for _ in range(50):
            with pytest.raises((ChecksumError, StructureError)):
                lookup.find(IDS["scattered"][7])
