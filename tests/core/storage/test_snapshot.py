from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from iqdb_core._kernels import crc32c, search_flat
from iqdb_core.errors import (
    ChecksumError,
    ClosedError,
    DamagedError,
    DatabaseNotFoundError,
    FileIOError,
    NotADatabaseError,
    PersistError,
    StructureError,
    TruncatedError,
    UnsupportedFeatureError,
    UnsupportedVersionError,
)
from iqdb_core.records import Ids
from iqdb_core.storage import layout, stored_metadata
from iqdb_core.storage import section as section_module
from iqdb_core.storage.layout import (
    decode_header,
    decode_section_table,
    encode_header,
    encode_section_table,
)
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.structure import encode_config

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from iqdb_core.records import RecordBatch

MIXED = ["b", 5, b"raw", "a", 3, "\N{SNOWMAN}", 2**64 - 1, b"ra"]
TAGS = [{"pos": "noun", "n": i} if i % 3 else None for i in range(8)]


@pytest.fixture(scope="session")
def small(image: Callable[..., bytes], records: Callable[..., RecordBatch]) -> bytes:
    """Eight records with ids of every kind and metadata: every section but `ids`."""
    return image(records(MIXED, metadata=TAGS))


@pytest.fixture(scope="session")
def integers(image: Callable[..., bytes], records: Callable[..., RecordBatch]) -> bytes:
    """Records with ascending integer ids and no metadata."""
    return image(records(range(10, 2000, 3), 8))


def content(snapshot: Snapshot) -> list[Any]:
    """Read everything, through every way of finding it."""
    rows = list(range(snapshot.n_rows))
    ids = [snapshot.id_at(row) for row in rows]
    whole = snapshot.slice(0, snapshot.n_rows)
    metadata = [None] * len(rows) if whole.metadata is None else whole.metadata.to_dicts()
    assert whole.ids.to_list() == ids
    assert [snapshot.find(record_id) for record_id in ids] == rows
    assert snapshot.find_many(whole.ids).tolist() == rows
    return [ids, whole.vectors.tobytes(), metadata, [snapshot.metadata_at(row) for row in rows]]


def reseal(data: bytes, **fields: Any) -> bytes:
    """Change fields of the header and make its checksum right again."""
    header = decode_header(data[:4096])._replace(**fields)
    page = encode_header(header)
    return encode_header(header._replace(header_crc=crc32c(page[:4092]))) + data[4096:]


def resection(data: bytes, name: str, /, **fields: Any) -> bytes:
    """Change fields of one section's entry and make all checksums above it right again."""
    header = decode_header(data[:4096])
    table = decode_section_table(data[header.section_table_offset :])
    assert name in {entry.name for entry in table}
    encoded = encode_section_table(
        [entry._replace(**fields) if entry.name == name else entry for entry in table]
    )
    body = data[: header.section_table_offset] + encoded
    return reseal(body, section_table_crc=crc32c(encoded), file_bytes=len(body))


def rewrite(data: bytes, name: str, stored: bytes) -> bytes:
    """Replace a section's stored bytes by others of the same length, with right checksums."""
    snapshot = Snapshot.from_buffer(data)
    entry = snapshot.sections[name].entry
    assert len(stored) == entry.stored_bytes
    changed = bytearray(data)
    changed[entry.offset : entry.offset + len(stored)] = stored
    prefix = crc32c(snapshot.database_id + layout.encode_section_name(name))
    table = b""
    for block in range(-(-len(stored) // 4096)):
        seed = crc32c(block.to_bytes(8, "little"), prefix)
        table += crc32c(stored[4096 * block : 4096 * block + 4096], seed).to_bytes(4, "little")
    changed[entry.checksums_offset : entry.checksums_offset + len(table)] = table
    return resection(bytes(changed), name, checksums_crc=crc32c(table))


def stored(data: bytes, name: str) -> bytes:
    entry = Snapshot.from_buffer(data).sections[name].entry
    return data[entry.offset : entry.offset + entry.stored_bytes]


# --- Opening ------------------------------------------------------------------------------------


def test_opening_touches_nothing_but_header_table_and_configuration(integers: bytes) -> None:
    snapshot = Snapshot.from_buffer(integers)
    touched = {name for name, section in snapshot.sections.items() if section._blocks is not None}
    assert touched == {"config"}


def test_opening_and_finding_need_neither_numpy_nor_codecs(tmp_path: Path, small: bytes) -> None:
    path = tmp_path / "db.iqdb"
    path.write_bytes(small)
    code = (
        "import sys\nfrom iqdb_core.storage.snapshot import Snapshot\ns = Snapshot.open(sys.argv[1])\n"
        "assert s.find('a') == 3 and s.id_at(2) == b'raw' and s.metadata_at(1) == {'n': 1, 'pos': 'noun'}\n"
        "s.vectors(), s.ensure_vectors([1, 2]), s.vector_bytes(3)\n"
        "assert not {'numpy', 'zstandard', 'lz4', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_file_is_found_by_link_and_by_bare_name(
    tmp_path: Path, small: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "db.iqdb").write_bytes(small)
    (tmp_path / "link.iqdb").symlink_to("db.iqdb")
    monkeypatch.chdir(tmp_path)
    for name in ("db.iqdb", "link.iqdb", tmp_path / "db.iqdb"):
        snapshot = Snapshot.open(name)
        assert snapshot.path == str(tmp_path.resolve() / "db.iqdb")
        status = (tmp_path / "db.iqdb").stat()
        assert snapshot.inode == (status.st_dev, status.st_ino)


def test_what_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotFoundError):
        Snapshot.open(tmp_path / "absent")
    (tmp_path / "empty").touch()
    with pytest.raises(NotADatabaseError, match="only 0 bytes"):
        Snapshot.open(tmp_path / "empty")
    with pytest.raises(DatabaseNotFoundError):
        Snapshot.open(tmp_path / "empty" / "below-a-file")
    with pytest.raises(NotADatabaseError, match="directory"):
        Snapshot.open(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileIOError):
        Snapshot.open(tmp_path / "loop")


def test_the_mapping_outlives_the_name_and_the_snapshot(tmp_path: Path, small: bytes) -> None:
    path = tmp_path / "db.iqdb"
    path.write_bytes(small)
    snapshot = Snapshot.open(path)
    path.unlink()
    vector = snapshot.vector_bytes(0)
    snapshot.close()
    assert len(vector) == 12
    uses: list[Callable[[], object]] = [
        lambda: snapshot.id_at(0),
        snapshot.vectors,
        lambda: snapshot.find("a"),
    ]
    for use in uses:
        with pytest.raises(ClosedError):
            use()


@pytest.mark.parametrize("version", [0, 1, 2, 4, 2**32 - 1])
def test_other_versions_are_named(small: bytes, version: int) -> None:
    data = small[:8] + version.to_bytes(4, "little") + small[12:]
    for image_bytes in (data, data[:12], data[:100]):
        with pytest.raises(UnsupportedVersionError) as caught:
            Snapshot.from_buffer(image_bytes)
        assert caught.value.found == version


def test_every_truncation_is_refused(small: bytes) -> None:
    for size in range(len(small)):
        expected = NotADatabaseError if size < 12 else TruncatedError
        with pytest.raises(expected):
            Snapshot.from_buffer(small[:size])
    with pytest.raises(TruncatedError):
        Snapshot.from_buffer(small + b"\0")


def test_every_flipped_byte_gives_an_error_or_changes_nothing(small: bytes, integers: bytes) -> None:
    for data in (small, integers):
        snapshot = Snapshot.from_buffer(data)
        expected = content(snapshot)
        entries = [section.entry for section in snapshot.sections.values()]
        used = [range(112), range(4092, 4096), range(snapshot.header.section_table_offset, len(data))]
        for entry in entries:
            used.append(range(entry.offset, entry.offset + min(entry.stored_bytes, 120)))
            used.append(range(entry.checksums_offset, entry.checksums_offset + 8))
        places = {place for part in used for place in part} | set(range(0, len(data), 211))
        silent = 0
        for place in sorted(places):
            changed = bytearray(data)
            changed[place] ^= 1 << place % 8
            try:
                assert content(Snapshot.from_buffer(changed)) == expected
                silent += 1
            except PersistError:
                pass
        # Only padding, which no value comes from, may change without being noticed here.
        assert silent < len(places) / 3


@pytest.mark.parametrize(
    ("fields", "error", "part"),
    [
        ({"file_bytes": 1}, TruncatedError, None),
        ({"feature_incompat": 4}, UnsupportedFeatureError, None),
        ({"header_bytes": 8192}, StructureError, "header.header_bytes"),
        ({"block_log2": 13}, StructureError, "header.block_log2"),
        ({"n_rows": 2**32}, StructureError, "header.n_rows"),
        ({"n_rows": 2**60}, StructureError, "header.n_rows"),
        ({"n_rows": 9}, StructureError, "section vectors: shape"),
        ({"n_rows": 2**32 - 1}, StructureError, "section vectors: shape"),
        ({"dim": 0}, StructureError, "header.dim"),
        ({"dim": 65537}, StructureError, "header.dim"),
        ({"dim": 2}, StructureError, "section vectors: shape"),
        ({"metric": 5}, StructureError, "header.metric"),
        ({"metric": 1}, StructureError, "config.metric"),
        ({"index_kind": 3}, StructureError, "header.index_kind"),
        ({"index_kind": 1}, StructureError, "config.index.kind"),
        ({"id_encoding": 2}, StructureError, "header.id_encoding"),
        ({"id_encoding": 0}, StructureError, "section ids"),
        ({"section_count": 4097}, StructureError, "header.section_count"),
        ({"section_count": 1}, StructureError, "header.section_table_offset"),
        ({"section_table_offset": 0}, StructureError, "header.section_table_offset"),
        ({"section_table_offset": 2**63}, StructureError, "header.section_table_offset"),
        ({"section_table_crc": 1}, ChecksumError, "section table"),
        ({"database_id": bytes(16)}, ChecksumError, "block 0 of section config"),
    ],
)
def test_every_header_field_is_checked(
    small: bytes, fields: dict[str, Any], error: type[PersistError], part: str | None
) -> None:
    with pytest.raises(error) as caught:
        Snapshot.from_buffer(reseal(small, **fields))
    assert getattr(caught.value, "part", None) == part


def test_a_damaged_header_is_told_from_a_damaged_table(small: bytes) -> None:
    with pytest.raises(ChecksumError, match="header at byte 0 is damaged"):
        Snapshot.from_buffer(small[:20] + b"\xff" + small[21:])
    page = small[:200] + b"\1" + small[201:4092]
    with pytest.raises(StructureError, match=r"header\.reserved"):
        Snapshot.from_buffer(page + crc32c(page).to_bytes(4, "little") + small[4096:])


def test_unknown_features_forbid_what_they_say(small: bytes) -> None:
    snapshot = Snapshot.from_buffer(reseal(small, feature_compat=2**63, feature_ro_compat=8))
    assert content(snapshot) == content(Snapshot.from_buffer(small))
    with pytest.raises(UnsupportedFeatureError, match="unknown ro_compat features 0x8 to be written"):
        snapshot.check_writable()
    Snapshot.from_buffer(small).check_writable()


@pytest.mark.parametrize(
    ("name", "fields", "part"),
    [
        ("vectors", {"dtype": 10}, "section vectors: raw_bytes"),
        ("vectors", {"dtype": 3}, "section vectors: dtype"),
        ("vectors", {"dtype": 11}, "section vectors: dtype"),
        ("vectors", {"codec": 3}, "section vectors: codec"),
        ("vectors", {"codec": 2}, "section vectors: chunk_bytes"),
        ("vectors", {"codec": 2, "chunk_bytes": 2**21}, "section vectors: chunk_bytes"),
        ("vectors", {"codec": 1, "chunk_bytes": 1}, "section vectors: stored_bytes"),
        ("vectors", {"chunk_bytes": 65536}, "section vectors: chunk_bytes"),
        ("vectors", {"flags": 2}, "section vectors: flags"),
        ("vectors", {"flags": 1}, "section vectors: flags"),
        ("vectors", {"ndim": 3}, "section vectors: ndim"),
        ("vectors", {"ndim": 1}, "section vectors: shape1"),
        ("vectors", {"shape0": 2**63, "shape1": 2**63}, "section vectors: raw_bytes"),
        ("vectors", {"shape0": 3, "shape1": 8}, "section vectors: shape"),
        ("vectors", {"raw_bytes": 95}, "section vectors: raw_bytes"),
        ("vectors", {"stored_bytes": 95}, "section vectors: stored_bytes"),
        ("vectors", {"stored_bytes": 5000}, "section ids.kinds: offset"),
        ("vectors", {"stored_bytes": 2**63}, "section vectors: stored_bytes"),
        ("vectors", {"offset": 0}, "section vectors: offset"),
        ("ids.kinds", {"offset": 4096}, "section ids.kinds: offset"),
        ("ids.kinds", {"checksums_offset": 4096}, "section ids.kinds: checksums_offset"),
        ("ids.order", {"codec": 1, "chunk_bytes": 32}, "section ids.order: codec"),
        ("ids.order", {"name": "ids.orders"}, "section ids.orders"),
        ("ids.order", {"name": "vectors"}, "section vectors"),
        ("ids.bytes", {"name": "ids.order"}, "section ids.order: dtype"),
        ("config", {"name": "meta.x", "flags": 1}, "section config"),
        ("meta.rows", {"name": "zzz", "flags": 1}, "section meta.groups"),
        ("meta.data", {"shape0": 8, "shape1": 100, "ndim": 2}, "section meta.data: raw_bytes"),
        ("meta.rows", {"shape0": 1, "raw_bytes": 8, "stored_bytes": 8}, "section meta.rows: shape0"),
    ],
)
def test_every_rule_of_the_section_table_is_checked(
    small: bytes, name: str, fields: dict[str, Any], part: str
) -> None:
    with pytest.raises(StructureError) as caught:
        Snapshot.from_buffer(resection(small, name, **fields))
    assert caught.value.part == part


def test_a_compressed_section_is_not_empty(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    empty = image(records(0), "zstd:1")
    with pytest.raises(
        StructureError, match="section vectors: codec is 2, expected none for an empty section"
    ):
        Snapshot.from_buffer(resection(empty, "vectors", codec=2, chunk_bytes=65536))


def test_nothing_stands_between_the_checksums_and_the_table(small: bytes) -> None:
    at = decode_header(small[:4096]).section_table_offset
    moved = small[:at] + bytes(4096) + small[at:]
    moved = reseal(moved, section_table_offset=at + 4096, file_bytes=len(moved))
    with pytest.raises(StructureError) as caught:
        Snapshot.from_buffer(moved)
    assert caught.value.part == "header.section_table_offset"


def test_a_configuration_larger_than_the_limit_is_refused(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image(records(3))
    size = Snapshot.from_buffer(data).sections["config"].raw_bytes
    monkeypatch.setattr("iqdb_core.storage.structure.MAX_CONFIG_BYTES", size)
    Snapshot.from_buffer(data)
    monkeypatch.setattr("iqdb_core.storage.structure.MAX_CONFIG_BYTES", size - 1)
    with pytest.raises(
        StructureError, match=f"section config: raw_bytes is {size}, expected at most {size - 1}"
    ):
        Snapshot.from_buffer(data)


def test_a_compressed_section_cannot_claim_more_than_chunks_can_hold(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    data = image(records(20_000, 4), "zstd:1")
    n_rows = 2**31
    claimed = reseal(data, n_rows=n_rows)
    claimed = resection(claimed, "vectors", shape0=n_rows, raw_bytes=16 * n_rows, chunk_bytes=2**20)
    with pytest.raises(StructureError, match=r"section vectors: raw_bytes is .* expected at most 4096 x"):
        Snapshot.from_buffer(claimed)


def test_unknown_derived_sections_are_ignored_and_others_refused(
    records: Callable[..., RecordBatch], config: Callable[..., dict[str, Any]], database_id: bytes
) -> None:
    from iqdb_core.storage.snapshot_writer import SnapshotWriter

    for derived in (True, False):
        sink = bytearray()
        with SnapshotWriter(sink, config(), database_id) as writer:
            writer.append(records(3))
            writer.finish()
            writer.add_index({"future.graph": np.arange(3, dtype=np.int64)}, derived=derived)
            image = writer.memory
        if derived:
            assert content(Snapshot.from_buffer(image))[0] == [0, 1, 2]
        else:
            with pytest.raises(StructureError, match=r"section future\.graph is unknown"):
                Snapshot.from_buffer(image)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b'"dim":3', b'"dim":4'),
        lambda text: text.replace(b'"dim":3', b'"dim":"'),
        lambda text: text.replace(b"cosine", b"cosinE"),
        lambda text: text.replace(b'"flat"', b'"ivf" '),
        lambda text: text.replace(b'"metric"', b'"metriC"'),
        lambda text: text[:-1] + b" ",
        lambda text: b"[" * len(text),
        lambda text: b"\xff" * len(text),
        lambda text: b"1" * len(text),
        lambda text: b'{"a":NaN}'.ljust(len(text)),
        lambda text: text.replace(b'"source"', b'"\\u0065"'),
    ],
)
def test_the_configuration_is_canonical_and_agrees_with_the_header(
    small: bytes, change: Callable[[bytes], bytes]
) -> None:
    text = stored(small, "config")
    with pytest.raises(StructureError, match="config"):
        Snapshot.from_buffer(rewrite(small, "config", change(text)))


def test_the_configuration_is_canonical_json(config: Callable[..., dict[str, Any]]) -> None:
    assert encode_config({"b": 1, "a": {"d": "ü", "c": [1, 2]}}) == '{"a":{"c":[1,2],"d":"ü"},"b":1}'.encode()


# --- Reading ------------------------------------------------------------------------------------


def test_errors_name_the_block_its_offset_and_both_checksums(integers: bytes) -> None:
    snapshot = Snapshot.from_buffer(integers)
    entry = snapshot.sections["vectors"].entry
    assert entry.stored_bytes > 3 * 4096
    changed = bytearray(integers)
    changed[entry.offset + 4096 + 17] ^= 4
    snapshot = Snapshot.from_buffer(changed)
    snapshot.vector_bytes(0)
    with pytest.raises(ChecksumError) as caught:
        snapshot.ensure_vectors()
    error = caught.value
    assert (error.part, error.offset_bytes) == ("block 1 of section vectors", entry.offset + 4096)
    assert error.expected != error.found
    for row in (128, 255):
        with pytest.raises(ChecksumError):
            snapshot.vector_bytes(row)
    snapshot.vector_bytes(256)
    with pytest.raises(ChecksumError):
        snapshot.vectors_slice(0, snapshot.n_rows)


def test_blocks_in_the_wrong_place_are_found(integers: bytes) -> None:
    entry = Snapshot.from_buffer(integers).sections["vectors"].entry
    first, second = (entry.offset + 4096 * block for block in (0, 1))
    swapped = bytearray(integers)
    swapped[first : first + 4096], swapped[second : second + 4096] = (
        integers[second : second + 4096],
        integers[first : first + 4096],
    )
    with pytest.raises(ChecksumError):
        Snapshot.from_buffer(swapped).vector_bytes(0)


def test_a_damaged_checksum_table_is_named(integers: bytes) -> None:
    entry = Snapshot.from_buffer(integers).sections["vectors"].entry
    changed = bytearray(integers)
    changed[entry.checksums_offset] ^= 1
    with pytest.raises(ChecksumError, match="block checksums"):
        Snapshot.from_buffer(changed).vectors()


def test_a_block_is_verified_once_and_the_kernel_shares_the_record(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    batch = records(3000, 8)
    snapshot = Snapshot.from_buffer(image(batch))
    block = snapshot.vectors()
    assert block.verified is not None
    snapshot.vector_bytes(0)
    assert sum(block.verified) == 1
    rows, distances, counts = np.empty((1, 3), np.int64), np.empty((1, 3)), np.empty(1, np.int64)
    bad = search_flat(
        block.buffer,
        batch.vectors[77:78],
        2,
        3,
        rows,
        distances,
        counts,
        block_crcs=block.block_crcs,
        verified=block.verified,
        crc_prefix=block.crc_prefix,
    )
    assert bad == -1
    assert rows[0, 0] == 77
    assert all(block.verified)


def test_finding_touches_few_blocks(image: Callable[..., bytes], records: Callable[..., RecordBatch]) -> None:
    ids = [f"record {i:06d}" for i in range(50_000)]
    snapshot = Snapshot.from_buffer(image(records(ids[::-1], 1)))
    assert snapshot.find("record 012345") == 50_000 - 1 - 12345
    assert snapshot.find("record 0123456") == -1
    for name in ("ids.order", "ids.kinds", "ids.offsets", "ids.bytes"):
        blocks = snapshot.sections[name].blocks()
        assert sum(blocks.verified) <= 35


@pytest.mark.parametrize("base", [0, 10, 2**64 - 3000])
def test_integers_are_found_wherever_they_lie(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], base: int
) -> None:
    ids = [base + i * 3 for i in range(1000)]
    snapshot = Snapshot.from_buffer(image(records(ids, 1)))
    for row in (0, 1, 500, 998, 999):
        assert snapshot.find(ids[row]) == row
        assert snapshot.find(ids[row] + 1) == -1
    for absent in (base - 1, 2**64, -1, "5", b"5", str(ids[0])):
        assert snapshot.find(absent) == -1
    assert Snapshot.from_buffer(image(records(1000, 1))).find(999) == 999


@pytest.mark.parametrize("count", [3, 200])
def test_many_ids_are_found_together(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], count: int
) -> None:
    stored_ids: list[list[Any]] = [
        list(range(500)),
        [*range(250), *map(str, range(250))],
        list(range(500, 0, -1)),
    ]
    for ids in stored_ids:
        snapshot = Snapshot.from_buffer(image(records(ids, 1)))
        asked = (["absent", 4, "4", b"4", 2**63, 249] * count)[:count]
        expected = [ids.index(x) if x in ids and type(x) in map(type, ids) else -1 for x in asked]
        assert snapshot.find_many(Ids.from_list(asked)).tolist() == expected
        assert snapshot.find_many(Ids.from_list([])).tolist() == []
        integers_only = [4, 10**9] * count
        found = snapshot.find_many(Ids.from_list(integers_only)).tolist()
        assert found == [ids.index(4), -1] * count


def test_slices_and_selections_are_the_records(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    for compression in ("none", "zstd:1"):
        for ids in (MIXED, range(8)):
            batch = records(ids, metadata=TAGS)
            snapshot = Snapshot.from_buffer(image(batch, compression))
            for part, expected in (
                (snapshot.slice(2, 6), batch.slice(2, 6)),
                (snapshot.slice(4, 4), batch.slice(4, 4)),
                (snapshot.take(np.array([7, 0, 3, 3])), batch.take(np.array([7, 0, 3, 3]))),
                (snapshot.take(np.zeros(0, np.int64)), batch.slice(0, 0)),
            ):
                assert part.ids.to_list() == expected.ids.to_list()
                assert np.array_equal(part.vectors, expected.vectors)
                assert part.metadata is not None
                assert expected.metadata is not None
                assert part.metadata.to_dicts() == expected.metadata.to_dicts()
    assert list(snapshot.ids_at(np.array([5, 1]))) == [5, 1]


@pytest.mark.parametrize("compression", ["lz4", "zstd:3"])
def test_only_chunks_that_are_asked_for_are_decoded(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], compression: str
) -> None:
    batch = records(30_000, 16)
    snapshot = Snapshot.from_buffer(image(batch, compression))
    section = snapshot.sections["vectors"]
    block = snapshot.vectors()
    assert block.block_crcs is None
    snapshot.ensure_vectors([29_999])
    assert section._chunks is not None
    assert sum(section._chunks._decoded) == 1
    snapshot.ensure_vectors(threads=2)
    assert np.array_equal(np.asarray(block.buffer), batch.vectors)


@pytest.mark.parametrize("compression", ["lz4", "zstd:3"])
def test_hostile_chunks_are_refused(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], compression: str
) -> None:
    batch = records(20_000, 4)
    batch.vectors[:] = 1.5
    data = image(batch, compression)
    raw = stored(data, "vectors")
    n_chunks = -(-320_000 // 65536)
    offsets_at = len(raw) - 8 * (n_chunks + 1)
    changes = [(offsets_at + 8 * chunk + 6, 0xFF) for chunk in range(n_chunks + 1)]
    changes += [(offsets_at, 1), (offsets_at + 8, 0), (len(raw) - 8, 1)]
    changes += [(0, 0xFF)]
    for place, value in changes:
        changed = bytearray(raw)
        if changed[place] == value:
            continue
        changed[place] = value
        snapshot = Snapshot.from_buffer(rewrite(data, "vectors", bytes(changed)))
        with pytest.raises(DamagedError):
            snapshot.ensure_vectors()


@pytest.mark.parametrize(
    ("name", "place", "value", "use"),
    [
        ("ids.kinds", 0, 3, "id"),
        ("ids.kinds", 1, 2, None),
        ("ids.kinds", 0, 0, "id"),
        ("ids.offsets", 7, 1, "id"),
        ("ids.offsets", 15, 1, "id"),
        ("ids.offsets", 8, 0, "id"),
        ("ids.offsets", 65, 255, "last"),
        ("ids.bytes", 0, 0xFF, "id"),
        ("ids.order", 3, 1, "find"),
        ("ids.order", 0, 8, "find"),
        ("meta.rows", 0, 1, "meta"),
        ("meta.rows", 8, 7, "meta"),
        ("meta.groups", 0, 8, "meta"),
        ("meta.groups", 8, 0, "meta"),
        ("meta.data", 0, 7, "meta"),
        ("meta.data", 12, 0, "meta"),
    ],
)
def test_contradictions_under_right_checksums_are_found_where_they_are_used(
    small: bytes, name: str, place: int, value: int, use: str | None
) -> None:
    changed = bytearray(stored(small, name))
    changed[place] = value
    snapshot = Snapshot.from_buffer(rewrite(small, name, bytes(changed)))

    def find_all() -> None:
        for record_id in MIXED:
            snapshot.find(record_id)

    uses: dict[str | None, list[Callable[[], object]]] = {
        "id": [lambda: snapshot.id_at(0), lambda: snapshot.ids_slice(0, 8)],
        "last": [lambda: snapshot.id_at(7), lambda: snapshot.ids_slice(0, 8)],
        "find": [find_all],
        "meta": [lambda: snapshot.metadata_at(0), lambda: snapshot.metadata_slice(0, 8)],
        None: [lambda: content(Snapshot.from_buffer(small))],
    }
    for attempt in uses[use]:
        if use is None:
            attempt()
        else:
            with pytest.raises(StructureError):
                attempt()


def test_many_hostile_lookups_never_leave_the_arrays(
    image: Callable[..., bytes], records: Callable[..., RecordBatch]
) -> None:
    data = image(records([f"{i * 7 % 300}" for i in range(300)], 1))
    asked = Ids.from_list([f"{i}" for i in range(300)])
    for name, place in (("ids.order", 401), ("ids.offsets", 805), ("ids.offsets", 2400)):
        changed = bytearray(stored(data, name))
        changed[place] = 0xFF
        snapshot = Snapshot.from_buffer(rewrite(data, name, bytes(changed)))
        with pytest.raises(StructureError):
            snapshot.find_many(asked)


def test_a_reference_outside_a_section_is_refused(small: bytes) -> None:
    section = Snapshot.from_buffer(small).sections["ids.bytes"]
    for start, stop in ((-1, 4), (5, 4), (0, section.raw_bytes + 1), (2**64, 2**65)):
        with pytest.raises(StructureError, match=r"a reference into section ids\.bytes"):
            section.read(start, stop)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_threads_may_share_a_snapshot(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], compression: str
) -> None:
    batch = records([f"id {i}" for i in range(5000)], 16, [{"n": i} for i in range(5000)])
    snapshot = Snapshot.from_buffer(image(batch, compression))

    def look(start: int) -> list[Any]:
        rows = range(start, 5000, 97)
        return [
            (snapshot.find(f"id {row}") == row, snapshot.metadata_at(row), bytes(snapshot.vector_bytes(row)))
            for row in rows
        ]

    with ThreadPoolExecutor(4) as pool:
        for start, found in enumerate(pool.map(look, range(8))):
            rows = range(start, 5000, 97)
            assert found == [(True, {"n": row}, batch.vectors[row].tobytes()) for row in rows]


def test_opened_groups_are_kept_by_the_number_of_their_columns(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 3 * layout.GROUP_ROWS
    snapshot = Snapshot.from_buffer(
        bytearray(image(records(range(rows), 1, metadata=[{"a": 1, "b": 2}] * rows)))
    )
    monkeypatch.setattr(stored_metadata, "_CACHED_COLUMNS", 4)
    kept = snapshot._metadata
    first = snapshot.group(0)
    assert snapshot.group(1) is not first
    assert snapshot.group(0) is first
    snapshot.group(2)
    assert list(kept._opened) == [2]
    assert kept._opened_columns == 2
    assert [snapshot.metadata_at(row) for row in (0, rows // 2, rows - 1)] == [{"a": 1, "b": 2}] * 3


@pytest.mark.parametrize("compression", ["lz4", "zstd:3"])
def test_threads_decode_a_large_section_and_tell_of_its_damage(
    image: Callable[..., bytes],
    records: Callable[..., RecordBatch],
    compression: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(section_module, "_THREADED_BYTES", 1)
    batch = records(20_000, 4)
    batch.vectors[:] = np.arange(20_000, dtype=np.float32)[:, None]
    data = image(batch, compression)
    snapshot = Snapshot.from_buffer(data)
    snapshot.ensure_vectors(threads=3)
    assert np.array_equal(np.asarray(snapshot.vectors().buffer), batch.vectors)
    changed = bytearray(stored(data, "vectors"))
    changed[0] ^= 0xFF
    damaged = Snapshot.from_buffer(rewrite(data, "vectors", bytes(changed)))
    with pytest.raises(StructureError, match="chunk 0 of section vectors"):
        damaged.ensure_vectors(threads=3)
    torn = bytearray(data)
    torn[Snapshot.from_buffer(data).sections["vectors"].entry.offset] ^= 1
    with pytest.raises(ChecksumError, match="block 0 of section vectors"):
        Snapshot.from_buffer(bytes(torn)).ensure_vectors(threads=3)


def test_memory_that_the_system_refuses_for_a_section_is_an_error_of_the_file(
    image: Callable[..., bytes], records: Callable[..., RecordBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = image(records(20_000, 4), "zstd:1")
    for refusal in (OSError(12, "Cannot allocate memory"), OverflowError("memory mapped length")):
        snapshot = Snapshot.from_buffer(data)

        def refuse(*_: object, refusal: Exception = refusal) -> None:
            raise refusal

        monkeypatch.setattr(section_module.mmap, "mmap", refuse)
        with pytest.raises(FileIOError, match="cannot reserve 320000 bytes of memory for it"):
            snapshot.vector_bytes(5)
        monkeypatch.undo()
        # Nothing is left behind: the next attempt succeeds.
        assert len(snapshot.vector_bytes(5)) == 16


def test_text_ids_are_looked_for_and_not_found_among_integers(integers: bytes) -> None:
    snapshot = Snapshot.from_buffer(integers)
    assert snapshot.find_many(Ids.from_list(["a", b"b"])).tolist() == [-1, -1]
    assert snapshot.find_many(Ids.from_list(["a", 13, 11])).tolist() == [-1, 1, -1]
    many = [f"id {number}" for number in range(300)]
    assert snapshot.find_many(Ids.from_list(many)).tolist() == [-1] * 300
    assert snapshot.find_many(Ids.from_list([*many, 13])).tolist() == [-1] * 300 + [1]


def test_rows_are_taken_and_cut_also_where_there_are_none(small: bytes, integers: bytes) -> None:
    nowhere = np.empty(0, np.int64)
    described, plain = Snapshot.from_buffer(small)._metadata, Snapshot.from_buffer(integers)._metadata
    assert list(described.groups(3, 3)) == []
    assert list(plain.groups()) == []
    for found in (described.take(nowhere), described.slice(4, 4)):
        assert found is not None
        assert found.n_rows == 0
    assert plain.take(nowhere) is None
    assert plain.slice(0, 5) is None


def test_numbers_are_kept_for_few_keys_at_a_time(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Snapshot.from_buffer(small)._metadata
    monkeypatch.setattr(stored_metadata, "_CACHED_KEYS", 1)
    first = kept.numbers("n")
    assert kept.numbers("n") is first
    assert kept.numbers("absent") == []
    assert list(kept._numbers) == ["absent"]
    assert [part[0].tolist() if hasattr(part[0], "tolist") else part[0] for part in kept.numbers("n")]


def test_reading_from_a_closed_snapshot_says_that_it_is_closed(small: bytes) -> None:
    snapshot = Snapshot.from_buffer(small)
    sections = snapshot.sections
    with pytest.raises(KeyError):
        sections.part("no such section")
    sections.close()
    with pytest.raises(ClosedError):
        sections.part("vectors")
