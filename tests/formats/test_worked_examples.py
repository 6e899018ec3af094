"""Every number of a worked example is computed again: by the independent reader and by the program."""

from __future__ import annotations

import struct

import pytest
from independent_checksums import crc32c, xxh64
from independent_reader import Record, digest, record_hash
from pages import code, marked

from iqdb_core import _kernels
from iqdb_core.digest import batch_digest
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage import layout

INT64, STRING = 3, 5


def example(name: str) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in marked("example")[name]}


def test_all_examples_are_checked_here() -> None:
    assert set(marked("example")) == {"crc32c", "xxh64", "block_checksum", "digest", "frame_crc"}


def test_crc32c_of_the_page() -> None:
    for data, checksum in marked("example")["crc32c"]:
        value = bytes.fromhex(code(data))
        assert code(checksum) == f"{crc32c(value):08x}" == f"{_kernels.crc32c(value):08x}"


def test_crc32c_in_pieces_is_that_of_the_whole() -> None:
    assert crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")


def test_xxh64_of_the_page() -> None:
    for data, seed, value in marked("example")["xxh64"]:
        raw = bytes.fromhex(code(data))
        assert code(value) == f"{xxh64(raw, int(seed)):016x}"
        assert code(value) == f"{_kernels.hash_bytes(raw)[int(seed)]:016x}"


def test_block_checksum_of_the_page() -> None:
    rows = {
        what: code(value) if "`" in value else value for what, (value,) in example("block_checksum").items()
    }
    database_id, name = bytes.fromhex(rows["database_id"]), bytes.fromhex(rows["name"])
    block = bytes.fromhex(rows["block bytes"])
    number = int(rows["block number"])

    assert name == layout.encode_section_name("vectors")
    prefix = crc32c(database_id + name)
    assert rows["crc32c(database_id ‖ name)"] == f"{prefix:08x}"
    checksum = crc32c(database_id + name + struct.pack("<Q", number) + block)
    assert rows["checksum"] == f"{checksum:08x}"
    out = memoryview(bytearray(4)).cast("I")
    _kernels.crc32c_blocks(block, prefix, number, out)
    assert out[0] == checksum


def digest_records() -> list[Record]:
    metadata = {"n": (INT64, struct.pack("<q", -1)), "word": (STRING, "Füße".encode())}
    return [
        Record((0, struct.pack("<Q", 7)), struct.pack("<2f", 1.0, -2.5), metadata),
        Record((2, b"7"), struct.pack("<2f", 0.0, -0.0), None),
    ]


def digest_row(seed: int) -> list[int]:
    first, second = digest_records()
    assert first.metadata is not None
    values = [
        xxh64(struct.pack("<I", len(key)) + key.encode() + bytes([type_]) + value, seed)
        for key, (type_, value) in first.metadata.items()
    ]
    total = struct.unpack("<QQ", digest([first, second]))[seed]
    return [
        xxh64(bytes([first.id[0]]) + first.id[1], seed),
        xxh64(first.vector, seed),
        *values,
        (xxh64(b"", seed) + sum(values)) % 2**64,
        record_hash(first, seed),
        record_hash(second, seed),
        total,
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_digest_of_the_page(seed: int) -> None:
    assert [code(row[1 + seed]) for row in marked("example")["digest"]] == [
        f"{v:016x}" for v in digest_row(seed)
    ]


def test_the_program_computes_the_digest_of_the_page() -> None:
    import numpy as np

    vectors = np.array([[1.0, -2.5], [0.0, -0.0]], np.float32)
    metadata = MetadataColumns.from_dicts([{"n": -1, "word": "Füße"}, None])
    found = batch_digest(RecordBatch(Ids.from_list([7, "7"]), vectors, metadata))

    assert found.hex() == f"{digest_row(0)[-1]:016x}{digest_row(1)[-1]:016x}"


def frame() -> tuple[bytes, bytes, bytes]:
    database_id = bytes(range(16))
    body = struct.pack("<QQIIQ", 16, 0, 0, 0, 7)
    header = struct.pack("<4sIQQIB3sI", b"IQFR", len(body), 3, 1000, 0x89ABCDEF, 2, bytes(3), 1)
    return database_id, header, body


def test_frame_crc_of_the_page() -> None:
    rows = {what: code(value) for what, (value,) in example("frame_crc").items()}
    database_id, header, body = frame()

    assert rows["database_id"] == database_id.hex()
    assert rows["bytes 0 to 35 of the header"] == header.hex()
    assert rows["body"] == body.hex()
    assert rows["frame_crc"] == f"{crc32c(database_id + header + body):08x}"
