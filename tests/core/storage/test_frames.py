"""What the decoder of a frame's body refuses. Whole logs are in test_wal.py."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from iqdb_core.records import Ids, MetadataColumns
from iqdb_core.storage.columns import encode_group
from iqdb_core.storage.frames import FrameError, decode_body, encode_delete, encode_fold, encode_upsert
from iqdb_core.storage.layout import FRAME_DELETE, FRAME_FOLD, FRAME_UPSERT, GROUP_ROWS

DIM = 2
IDS = struct.pack("<IIQ", 0, 0, 7)
VECTOR = struct.pack("<2f", 1.0, 2.0)


def decode(type_: int, n_records: int, body: bytes) -> Any:
    return decode_body(type_, n_records, memoryview(body), DIM, "x.wal")


def upsert(ids: bytes, rest: bytes, metadata: bytes = b"") -> bytes:
    return struct.pack("<QQ", len(ids), len(metadata)) + ids + rest + metadata


def metadata_of(*groups: bytes) -> bytes:
    offset = 8 * (len(groups) + 1)
    offsets = [offset]
    for group in groups:
        offset += len(group)
        offsets.append(offset)
    return struct.pack(f"<{len(offsets)}Q", *offsets) + b"".join(groups)


def group(rows: list[Any]) -> bytes:
    return encode_group(MetadataColumns.from_dicts(rows))


def test_what_is_encoded_is_decoded() -> None:
    vectors = np.array([[1, 2]], np.float32)
    metadata = MetadataColumns.from_dicts([{"a": 1}])
    upserted = decode(FRAME_UPSERT, 1, b"".join(encode_upsert(Ids.from_list(["x"]), vectors, metadata)))
    assert upserted.batch.ids.to_list() == ["x"]
    assert upserted.batch.metadata.to_dicts() == [{"a": 1}]
    deleted = decode(FRAME_DELETE, 2, b"".join(encode_delete(Ids.from_list([1, b"y"]))))
    assert deleted.ids.to_list() == [1, b"y"]
    assert decode(FRAME_FOLD, 0, b"".join(encode_fold(2**63))).snapshot_identity == 2**63


@pytest.mark.parametrize(
    ("type_", "n_records", "body", "problem"),
    [
        (0, 1, bytes(16), "unknown type 0"),
        (4, 1, bytes(16), "unknown type 4"),
        (FRAME_UPSERT, 1, bytes(8), "an upsert of 1 records in 8 bytes"),
        (FRAME_UPSERT, 1, upsert(b"", VECTOR), "ids of 0 bytes"),
        (FRAME_UPSERT, 1, upsert(IDS, VECTOR[:4] + bytes(4)) + bytes(8), "do not fill the body"),
        (FRAME_DELETE, 1, bytes(8), "a deletion of 1 ids in 8 bytes"),
        (FRAME_DELETE, 1, struct.pack("<QQ", 16, 1) + IDS, "ids of 16 bytes do not fill the body"),
        (FRAME_DELETE, 2, struct.pack("<QQ", 16, 0) + IDS, "8 bytes for 2 integer ids"),
        (FRAME_DELETE, 1, struct.pack("<QQII", 8, 0, 1, 0), "0 bytes for 1 ids"),
        (FRAME_DELETE, 1, struct.pack("<QQIIQQQQ", 40, 0, 1, 0, 0, 8, 0, 7), "integer ids in the encoding"),
        (FRAME_FOLD, 1, bytes(16), "a fold frame of 1 records"),
        (FRAME_FOLD, 0, bytes(24), "in 24 bytes"),
        (FRAME_FOLD, 0, struct.pack("<QQ", 5, 1), "reserved bytes of the fold frame are not zero"),
        (FRAME_UPSERT, 1, upsert(IDS, VECTOR, bytes(8)), "metadata of 8 bytes for 1 groups"),
        (FRAME_UPSERT, 1, upsert(IDS, VECTOR, bytes(24)), "offsets of the metadata do not fill it"),
        (
            FRAME_UPSERT,
            1,
            upsert(IDS, VECTOR, metadata_of(group([{"a": 1}, None]))),
            "metadata group 0 has 2 rows, not 1",
        ),
        (
            FRAME_UPSERT,
            1,
            upsert(IDS, VECTOR, metadata_of(struct.pack("<IIB3xI", 1, 0, 2, 16))),
            "metadata without any mapping",
        ),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused_and_the_rule_named(
    type_: int, n_records: int, body: bytes, problem: str
) -> None:
    with pytest.raises(FrameError, match=problem):
        decode(type_, n_records, body)


def test_metadata_groups_must_be_cut_where_the_format_says() -> None:
    count = GROUP_ROWS + 1
    ids = struct.pack("<II", 0, 0) + np.arange(count, dtype=np.uint64).tobytes()
    halves = [group([{"a": 1}] * n) for n in (count // 2, count - count // 2)]
    with pytest.raises(FrameError, match=f"metadata group 0 has {count // 2} rows, not {GROUP_ROWS}"):
        decode(FRAME_UPSERT, count, upsert(ids, bytes(8 * count), metadata_of(*halves)))
