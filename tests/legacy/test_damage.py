"""Every bit of small files of 1.x flipped and every truncation: an error, or the undamaged answer.

The one exception is what format 2 cannot tell: a log's last frame that is damaged looks like one that was
never written to its end. It is left out, and the handle says so.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from iqdb_core import Error, Iqdb, errors
from iqdb_core.digest import batch_digest
from iqdb_core.legacy import layout
from iqdb_core.legacy.log import scan_log
from iqdb_core.legacy.report import inspect_legacy, verify_legacy
from iqdb_core.legacy_opening import open_legacy
from iqdb_core.storage.digest_value import ContentDigest

DOCUMENTED = (
    errors.DamagedError,
    errors.NotADatabaseError,
    errors.UnsupportedVersionError,
    errors.NotRepresentableError,
)


def digest(path: Path) -> tuple[str, list[str]]:
    with Iqdb.open_existing(path, read_only=True) as db:
        db.search([0.5] * db.dim, 3)
        info = db.info()
        return info["snapshot_digest"], info["notes"]


def records_digest(path: Path) -> tuple[str, list[str]]:
    """Return the same as `digest` without a handle, which tries a damaged file three times."""
    database = open_legacy(path)
    found = ContentDigest()
    for batch in database.batches():
        found = found.plus(batch_digest(batch))
    return found.hex(), database.notes()


def tried(path: Path, target: Path, images: Any) -> dict[str, int]:
    """Write each image to `target` and count what comes of opening `path`."""
    undamaged, _ = digest(path)
    assert records_digest(path)[0] == undamaged
    whole = target.read_bytes()
    counts = {"error": 0, "same": 0, "noted": 0, "silent": 0}
    for image in images(whole):
        target.write_bytes(image)
        # Every 16th through the handle, as programs do; the rest of the way is the same.
        read = digest if sum(counts.values()) % 16 == 0 else records_digest
        try:
            found, notes = read(path)
        except DOCUMENTED:
            counts["error"] += 1
        else:
            counts["same" if found == undamaged else "noted" if notes else "silent"] += 1
    target.write_bytes(whole)
    assert digest(path)[0] == undamaged
    return counts


def flips(whole: bytes) -> Any:
    for bit in range(8 * len(whole)):
        image = bytearray(whole)
        image[bit // 8] ^= 1 << bit % 8
        yield bytes(image)


def cuts(whole: bytes) -> Any:
    return (whole[:size] for size in range(len(whole)))


@pytest.mark.parametrize("name", ["made-euclidean-log", "made-hamming-lz4", "made-manhattan-zstd"])
def test_no_flipped_bit_and_no_truncation_of_a_snapshot_goes_unnoticed(golden: Any, name: str) -> None:
    """Fails if a byte of a snapshot is covered neither by the checksum nor by what the payload says again."""
    path = golden(name)
    size = path.stat().st_size
    assert tried(path, path, flips) == {"error": 8 * size, "same": 0, "noted": 0, "silent": 0}
    assert tried(path, path, cuts) == {"error": size, "same": 0, "noted": 0, "silent": 0}


def test_a_flipped_bit_of_a_format_1_snapshot_is_noticed(golden: Any) -> None:
    path = golden("v1-cosine-flat")

    def some(whole: bytes) -> Any:
        return (image for bit, image in enumerate(flips(whole)) if bit < 480 or bit % 97 == 0)

    counts = tried(path, path, some)
    assert counts["error"] == sum(counts.values()) > 1800


def test_a_flipped_bit_of_a_log_is_noticed_but_in_its_last_frame(golden: Any) -> None:
    """Fails if more than the last frame can be lost, or that is not said."""
    path = golden("made-euclidean-log")
    log = Path(f"{path}.wal")
    data = log.read_bytes()
    scan = scan_log(data, str(log), 4)
    last = len(data) - scan.frame_start(scan.n_frames - 1)
    assert scan.n_frames == 9
    counts = tried(path, log, flips)
    # The last frame deletes an id that is not there, so the answer is the same without it.
    assert counts == {"error": 8 * (len(data) - last), "same": 8 * last, "noted": 0, "silent": 0}
    log.write_bytes(data[:-last])
    shorter = len(data) - last
    start = scan.frame_start(scan.n_frames - 2)
    # Now the last frame changes something: what is left out is said.

    def in_last_frame(whole: bytes) -> Any:
        return (image for bit, image in enumerate(flips(whole)) if bit >= 8 * start)

    counts = tried(path, log, in_last_frame)
    assert counts == {"error": 0, "same": 0, "noted": 8 * (shorter - start), "silent": 0}


def test_a_log_cut_anywhere_holds_the_frames_before_the_cut_and_says_what_is_left_out(golden: Any) -> None:
    path = golden("made-euclidean-log")
    log = Path(f"{path}.wal")
    data = log.read_bytes()
    scan = scan_log(data, str(log), 4)
    ends = [layout.LOG_HEADER.size, *scan.bodies[1::2]]
    whole: dict[int, str] = {}
    for size in range(layout.LOG_HEADER.size, len(data) + 1):
        log.write_bytes(data[:size])
        found, notes = digest(path)
        frames = sum(end <= size for end in ends) - 1
        assert whole.setdefault(frames, found) == found
        assert bool(notes) == (size not in ends)
    assert len(whole) == 10


def test_a_file_that_grew_is_noticed(golden: Any) -> None:
    for name in ("made-euclidean-log", "made-hamming-lz4", "made-manhattan-zstd", "v1-cosine-flat"):
        path = golden(name)
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(errors.LegacyDamagedError):
            digest(path)


# --- Files whose checksums are right ------------------------------------------------------------


def image(payload: bytes, *, dim: int = 1, metric: int = 2, n: int = 1, version: int = 1) -> bytes:
    region = payload if version == 1 else layout.PREAMBLE.pack(0, len(payload)) + payload
    head = layout.HEADER_HEAD.pack(layout.SNAPSHOT_MAGIC, version, 9) + layout.INDEX_TYPE
    return head + layout.HEADER_TAIL.pack(dim, metric, n, zlib.crc32(region)) + region


def payload(rows: bytes, *, dim: int = 1, metric: int = 2, n: int = 1, index: bytes = b"\0") -> bytes:
    return b"IQDC\1\0\0\0" + index + layout.PAYLOAD_TAIL.pack(dim, metric, n) + rows


ROW = b"\0" + bytes(8) + struct.pack("<f", 1) + b"\0"


def row(metadata: bytes, vector: float = 1.0, record_id: bytes = b"\0" + bytes(8)) -> bytes:
    return record_id + struct.pack("<f", vector) + metadata


def meta(*pairs: bytes) -> bytes:
    return struct.pack("<BI", 1, len(pairs)) + b"".join(pairs)


def pair(key: bytes, value: bytes) -> bytes:
    return struct.pack("<I", len(key)) + key + value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (image(payload(row(b"\2"))), "presence of metadata"),
        (image(payload(row(b"\0", float("nan")))), "component 0 of a vector"),
        (image(payload(row(b"\0", float("inf")))), "component 0 of a vector"),
        (image(payload(row(b"\0", 1, b"\2" + bytes(8)))), "kind of id"),
        (image(payload(row(b"\0", 1, b"\1" + bytes(4)) + b"\0")), "id"),
        (image(payload(row(b"\0", 1, b"\1\xff\xff\xff\xff" + bytes(4)))), "id"),
        (image(payload(row(meta(pair(b"a", b"\5"))))), "type of a value"),
        (image(payload(row(meta(pair(b"a", b"\3\2"))))), "bool"),
        (image(payload(row(meta(pair(b"\xff", b"\4"))))), "key"),
        (image(payload(row(meta(pair(b"a", b"\0\1\0\0\0\xff"))))), "text"),
        (image(payload(row(meta(pair(b"b", b"\4"), pair(b"a", b"\4"))))), "key"),
        (image(payload(row(meta(pair(b"a", b"\4"), pair(b"a", b"\4"))))), "key"),
        (image(payload(row(b"\1\xff\xff\xff\xff"))), "metadata"),
        (image(payload(ROW + b"\0")), "last row"),
        (image(payload(ROW + ROW, n=2), n=2), "id"),
        (image(payload(ROW, n=2**63), n=2**63), "n_rows"),
        (image(payload(b"", dim=0, n=0), dim=0, n=0), "dim"),
        (image(payload(b"", dim=2**63, n=0), dim=2**63, n=0), "dim"),
        (image(payload(ROW, metric=1)), "metric"),
        (image(payload(ROW, index=b"\3")), "index kind"),
        (image(payload(b"", index=b"\2" + bytes(24) + b"\2\0" + bytes(12))), "use_pq"),
        (image(b"IQDC"), "payload"),
        (image(b"IQDX\1\0\0\0" + bytes(40)), "payload magic"),
        (image(b"IQDC\2\0\0\0" + bytes(40)), "payload version"),
        (image(payload(ROW), version=2)[:-1], "payload"),
    ],
    ids=range(25),
)
def test_what_a_right_checksum_cannot_vouch_for_is_checked(tmp_path: Path, content: bytes, said: str) -> None:
    """Fails if a field is believed because its checksum is right."""
    path = tmp_path / "a.iqdb"
    path.write_bytes(content)
    with pytest.raises((errors.LegacyDamagedError, errors.NotRepresentableError)) as caught:
        digest(path)
    assert caught.value.part.startswith(said)
    assert not verify_legacy(path).ok
    facts = inspect_legacy(path)
    assert facts["problems"]
    assert sum(facts["totals"].values()) == len(content)


def test_the_image_that_these_cases_change_is_right(tmp_path: Path) -> None:
    for version in (1, 2):
        path = tmp_path / f"{version}.iqdb"
        path.write_bytes(image(payload(ROW), version=version))
        digest(path)
        assert verify_legacy(path).ok


def test_what_is_too_large_for_format_3_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    long_id = b"\1" + struct.pack("<I", 70_000) + bytes(70_000)
    path.write_bytes(image(payload(row(b"\0", 1, long_id))))
    with pytest.raises(errors.NotRepresentableError, match=r"takes 70000 bytes, the limit is 65535"):
        digest(path)


def test_settings_outside_the_ranges_of_format_3_are_brought_into_them_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.iqdb"
    settings = b"\1" + layout.HNSW_SETTINGS.pack(1, 2**40, 64, 4, 7)
    path.write_bytes(image(payload(ROW, index=settings)))
    with Iqdb.open_existing(path, read_only=True) as db:
        assert (db.config.index.m, db.config.index.ef_construction) == (2, 65_536)
        assert len(db.info()["notes"]) == 2


def test_a_log_full_of_almost_frames_takes_bounded_work_and_is_not_taken_for_torn() -> None:
    """Fails if looking for frames costs the square of the log, or is given up silently."""
    body = b"\1\0" + bytes(8) + struct.pack("<If", 1, 1.0) + b"\1" + struct.pack("<I", 1)
    body += struct.pack("<I", 1 << 20)
    tail = (struct.pack("<II", 1 << 20, 1) + body) * 60_000
    scan = scan_log(layout.LOG_HEADER.pack(layout.LOG_MAGIC, 1) + tail, "x.wal", 1)
    assert scan.undecided
    assert isinstance(scan.problem(), errors.LogDamagedError)


def test_random_bytes_behind_a_header_end_in_a_documented_error(tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(5)
    path = tmp_path / "a.iqdb"
    for number in range(300):
        noise = rng.integers(0, 256, int(rng.integers(1, 200)), np.uint8).tobytes()
        path.write_bytes(image(payload(noise), version=1 + number % 2))
        with pytest.raises(Error):
            digest(path)
