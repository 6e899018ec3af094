"""Writes formats/golden: the databases of golden_cases, and for each what a reader must find in it.

Run it after adding a case: `python tests/formats/generate_golden.py`. What is expected is computed from the
case and by the independent reader, so a fault in the program cannot write itself into the expectations.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from golden_cases import CASES, Case, Id, Operation, Row
from independent_checksums import crc32c, xxh64
from independent_log import replay
from independent_reader import Record, Value, digest, read_snapshot

from iqdb_core.config import IqdbConfig
from iqdb_core.index import index_class
from iqdb_core.indexing import SnapshotVectors
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage import frames, layout
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.snapshot_writer import SnapshotWriter
from iqdb_core.types import IndexKind

GOLDEN = Path(__file__).parents[2] / "formats" / "golden"
LONG_STRING = 1000


# --- The files ------------------------------------------------------------------------------------


def batch(rows: list[Row], dim: int) -> RecordBatch:
    vectors = np.array([row[1] for row in rows], np.float32).reshape(len(rows), dim)
    return RecordBatch(
        Ids.from_list([row[0] for row in rows]), vectors, MetadataColumns.from_dicts([row[2] for row in rows])
    )


def snapshot_bytes(case: Case, rows: list[Row]) -> bytes:
    """Return the snapshot of a case with these records."""
    config = {
        "compression": case.compression,
        "dim": case.width,
        "index": case.index or {"kind": "flat"},
        "metric": case.metric,
        "provenance": case.provenance,
    }
    out = bytearray()
    with SnapshotWriter(out, config, case.database_id) as writer:
        writer.append(batch(rows, case.width))
        writer.finish()
        if case.derived:
            writer.add_index({case.derived: np.arange(6, dtype=np.int32).reshape(2, 3)})
        if case.index:
            vectors = SnapshotVectors(Snapshot.from_buffer(bytes(out)), threads=1)
            kind = index_class(IndexKind(case.index["kind"]))
            writer.add_index(kind.build(IqdbConfig.from_dict(config), vectors, threads=1))
        image = bytes(writer.memory)
    return with_features(image, *case.features)


def with_features(data: bytes, compat: int, ro_compat: int) -> bytes:
    """Set feature bits and compute the header's checksum again."""
    page = bytearray(data[: layout.HEADER_BYTES])
    struct.pack_into("<QQ", page, 24, compat, ro_compat)
    struct.pack_into("<I", page, layout.HEADER_CRC_OFFSET, crc32c(page[: layout.HEADER_CRC_OFFSET]))
    return bytes(page) + data[layout.HEADER_BYTES :]


def identity(snapshot: bytes) -> int:
    return layout.decode_header(snapshot[: layout.HEADER_BYTES]).identity


class LogImage:
    """A log in memory, frame by frame."""

    def __init__(self, case: Case, snapshot_identity: int) -> None:
        self._database_id = case.database_id
        header = layout.LogHeader(
            layout.LOG_MAGIC, layout.LOG_VERSION, 64, case.database_id, snapshot_identity, case.width, 0
        )
        header = header._replace(header_crc=crc32c(layout.encode_log_header(header)[:60]))
        self.data = bytearray(layout.encode_log_header(header))
        self.previous_crc = header.header_crc
        self.sequence = 0

    def frame(
        self, type_: int, n_records: int, parts: Iterable[bytes | memoryview], settled: int = 0
    ) -> None:
        """Append a frame. It is settled up to itself, as under the policy always, or up to `settled`."""
        body = b"".join(parts)
        self.sequence += 1
        settled = settled or len(self.data)
        frame = layout.FrameHeader(
            layout.FRAME_MARKER, len(body), self.sequence, settled, self.previous_crc, type_, n_records, 0
        )
        seed = crc32c(layout.encode_frame_header(frame)[:36], crc32c(self._database_id))
        self.previous_crc = crc32c(body, seed)
        self.data += layout.encode_frame_header(frame._replace(frame_crc=self.previous_crc)) + body

    def operation(self, case: Case, operation: Operation, settled: int = 0) -> None:
        kind, argument = operation
        if kind == "upsert":
            records = batch(argument, case.width)
            parts = frames.encode_upsert(records.ids, records.vectors, records.metadata)
            self.frame(layout.FRAME_UPSERT, len(records), parts, settled)
        elif kind == "delete":
            self.frame(
                layout.FRAME_DELETE, len(argument), frames.encode_delete(Ids.from_list(argument)), settled
            )
        else:
            self.frame(layout.FRAME_FOLD, 0, frames.encode_fold(argument or 0x0123456789ABCDEF), settled)


def log_image(case: Case, snapshot: bytes, operations: list[Operation], *, settled: int = 0) -> LogImage:
    image = LogImage(case, identity(snapshot))
    for operation in operations:
        image.operation(case, operation, settled)
    return image


def files_of(case: Case) -> tuple[bytes, bytes | None]:
    """Return the snapshot and the log of a case."""
    snapshot = snapshot_bytes(case, case.rows)
    if case.log is None:
        return snapshot, None
    image = log_image(case, snapshot, case.log)
    log = bytes(image.data)
    # What is left after each frame, to cut in the last one.
    last = len(log_image(case, snapshot, case.log[:-1]).data)
    match case.ending:
        case "":
            return snapshot, log
        case "header cut":
            return snapshot, log[:30]
        case "empty":
            return snapshot, b""
        case "zeros only":
            return snapshot, bytes(4096)
        case "cut in header":
            return snapshot, log[: last + 17]
        case "cut in body":
            return snapshot, log[:-30]
        case "zeros behind":
            return snapshot, log + bytes(1000)
        case "garbage behind":
            return snapshot, log + b"IQFR" + bytes(range(256)) * 2 + b"IQ"
        case "unsettled hole":
            log = bytes(log_image(case, snapshot, case.log, settled=64).data)
            hole = len(log_image(case, snapshot, case.log[:1]).data)
            end = len(log_image(case, snapshot, case.log[:2]).data)
            return snapshot, log[:hole] + bytes(end - hole) + log[end:]
        case "frame in torn data":
            # The copy stands at a multiple of 8: only then could a scan come across it.
            at = len(log)
            frame = log[64:]
            text = bytes(-(at + 40 + 16) % 8) + frame
            body = struct.pack("<QQ", 16, 0) + text + bytes(64)
            image.frame(layout.FRAME_UPSERT, 1, [body])
            return snapshot, bytes(image.data)[:-8]
        case "stale":
            rows = [row_of(record) for record in replayed(snapshot, log)]
            folded = snapshot_bytes(case, rows)
            image.operation(case, ("fold", identity(folded)))
            return folded, bytes(image.data)
    raise AssertionError(case.ending)


def replayed(snapshot: bytes, log: bytes) -> list[Record]:
    return replay(log, read_snapshot(snapshot))[0]


def row_of(record: Record) -> Row:
    """Return a record as a row of a case."""
    kind, payload = record.id
    id_: Id = int.from_bytes(payload, "little") if kind == 0 else payload if kind == 1 else payload.decode()
    vector = list(struct.unpack(f"<{len(record.vector) // 4}f", record.vector))
    if record.metadata is None:
        return id_, vector, None
    return id_, vector, {key: plain_value(*value) for key, value in record.metadata.items()}


def plain_value(type_: int, value: bytes) -> Any:
    if type_ == 1:
        return None
    if type_ == 2:
        return value == b"\1"
    if type_ == 5:
        return value.decode()
    return struct.unpack("<q" if type_ == 3 else "<d", value)[0]


# --- What is expected -----------------------------------------------------------------------------


def record_of(row: Row) -> Record:
    """Return what a reader must find for a row of a case."""
    id_, vector, metadata = row
    if isinstance(id_, int):
        key = (0, struct.pack("<Q", id_))
    else:
        key = (1, id_) if isinstance(id_, bytes) else (2, id_.encode())
    values = None if metadata is None else {name: typed(value) for name, value in metadata.items()}
    return Record(key, struct.pack(f"<{len(vector)}f", *vector), values)


def typed(value: Any) -> Value:
    if value is None:
        return 1, b""
    if isinstance(value, bool):
        return 2, bytes([value])
    if isinstance(value, int):
        return 3, struct.pack("<q", value)
    if isinstance(value, float):
        return 4, struct.pack("<d", value)
    return 5, value.encode()


def json_record(row: int, record: Record) -> dict[str, Any]:
    """Return a record as it stands in the JSON files: with types, and bits where text could not be exact."""
    kind, payload = record.id
    id_: Any = int.from_bytes(payload, "little") if kind == 0 else payload.decode() if kind == 2 else None
    bits = struct.unpack(f"<{len(record.vector) // 4}I", record.vector)
    metadata = None
    if record.metadata is not None:
        metadata = {key: json_value(*record.metadata[key]) for key in sorted(record.metadata)}
    return {
        "row": row,
        "id": {"hex": payload.hex()} if kind == 1 else id_,
        "vector_f32_bits": " ".join(f"{word:08x}" for word in bits),
        "metadata": metadata,
    }


def json_value(type_: int, value: bytes) -> list[Any]:
    name = ("", "null", "bool", "int64", "float64", "string")[type_]
    if type_ == 1:
        return [name]
    if type_ == 4:
        return [name, value[::-1].hex()]
    if type_ == 5 and len(value) > LONG_STRING:
        return [name, {"bytes": len(value), "xxh64": f"{xxh64(value):016x}"}]
    return [name, plain_value(type_, value)]


def hex_digest(records: list[Record]) -> str:
    low, high = struct.unpack("<QQ", digest(records))
    return f"{low:016x}{high:016x}"


def expectation(case: Case, snapshot: bytes, log: bytes | None) -> dict[str, Any]:
    """Return the content of the JSON file of a case."""
    found = read_snapshot(snapshot)
    records = [record_of(row) for row in case.rows]
    if case.ending == "stale":
        # The case says what went into the log; the snapshot holds it already.
        records = found.records
    result: dict[str, Any] = {
        "says": case.says,
        "header": {
            name: value.decode("latin-1")
            if name == "magic"
            else value.hex()
            if isinstance(value, bytes)
            else value
            for name, value in found.header.items()
        },
        "identity": f"{found.identity:016x}",
        "config": found.config,
        "sections": found.sections,
        "content_digest": hex_digest(records),
        "log": None,
    }
    result["content_digest_with_log"] = result["content_digest"]
    if log is not None:
        records, about = replay(log, found)
        result["log"] = {
            "frames": about.frames,
            "types": [layout.FRAME_TYPES[type_] for type_ in about.types],
            "torn_bytes": about.torn_bytes,
            "stale": about.stale,
        }
        result["content_digest_with_log"] = hex_digest(records)
    shown = range(len(records)) if case.shown is None else case.shown
    result["n_records"] = len(records)
    result["records"] = [json_record(row, records[row]) for row in shown]
    return result


def as_json(content: dict[str, Any]) -> str:
    """Return JSON with one record a line."""
    records = content.pop("records", None)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    if records is None:
        return text + "\n"
    lines = ",\n  ".join(json.dumps(record, ensure_ascii=False) for record in records)
    return f'{text[:-2]},\n "records": [\n  {lines}\n ]\n}}\n'


def main() -> None:
    """Write all golden files anew, and remove those of cases that are gone."""
    GOLDEN.mkdir(exist_ok=True)
    kept = {"MANIFEST"}
    for case in CASES:
        snapshot, log = files_of(case)
        kept |= {f"{case.name}.iqdb", f"{case.name}.json"}
        (GOLDEN / f"{case.name}.iqdb").write_bytes(snapshot)
        if log is not None:
            kept.add(f"{case.name}.iqdb.wal")
            (GOLDEN / f"{case.name}.iqdb.wal").write_bytes(log)
        text = as_json(expectation(case, snapshot, log))
        (GOLDEN / f"{case.name}.json").write_text(text, encoding="utf-8")
    (GOLDEN / "MANIFEST").write_text("".join(f"{name}\n" for name in sorted(kept - {"MANIFEST"})))
    for path in GOLDEN.iterdir():
        if path.name not in kept:
            path.unlink()


if __name__ == "__main__":
    main()
