"""Reads snapshot format 3, from what formats/snapshot-3.md says. The log is in independent_log.

It exists to prove that the page suffices, so it imports nothing of iqdb, prefers the obvious way to the fast
one, and names the sections of the page that it follows (S8 is section 8). It checks everything that a reader
must check, of the whole file at once.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from independent_checksums import crc32c, xxh64

Id: TypeAlias = tuple[int, bytes]
"""Kind and payload (S8)."""
Value: TypeAlias = tuple[int, bytes]
"""Type (S9) and the bytes that enter the digest (S10)."""

PAGE = 4096
DTYPES = {1: 1, 2: 2, 3: 4, 4: 8, 5: 1, 6: 2, 7: 4, 8: 8, 9: 4, 10: 8}
METRICS = ("cosine", "dot", "euclidean", "manhattan", "hamming")
INDEX_KINDS = ("flat", "hnsw", "ivf")
DTYPE_OF = {
    "vectors": 9,
    "ids": 4,
    "ids.kinds": 1,
    "ids.offsets": 4,
    "ids.bytes": 1,
    "ids.order": 3,
    "meta.rows": 4,
    "meta.groups": 4,
    "meta.data": 1,
    "config": 1,
}
UNCOMPRESSED = ("ids.order", "meta.rows", "meta.groups", "config")
NULL, BOOL, INT64, FLOAT64, STRING = 1, 2, 3, 4, 5


class FormatError(Exception):
    """What is wrong with a file. `kind` is one word for it."""

    def __init__(self, kind: str, what: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {what}")


def require(condition: object, what: str, kind: str = "structure") -> None:
    if not condition:
        raise FormatError(kind, what)


def pad(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def zeros(data: bytes, what: str) -> None:
    require(not any(data), f"{what} is not zero")


def u32s(data: bytes, count: int, at: int = 0) -> tuple[int, ...]:
    require(at + 4 * count <= len(data), "an array of u32 goes beyond its part")
    return struct.unpack_from(f"<{count}I", data, at)


def u64s(data: bytes, count: int, at: int = 0) -> tuple[int, ...]:
    require(at + 8 * count <= len(data), "an array of u64 goes beyond its part")
    return struct.unpack_from(f"<{count}Q", data, at)


def text(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("structure", f"{what} is not UTF-8") from None


@dataclass
class Record:
    id: Id
    vector: bytes
    metadata: dict[str, Value] | None


@dataclass
class Snapshot:
    header: dict[str, Any]
    identity: int
    config: dict[str, Any]
    records: list[Record]
    sections: list[str]


# --- S3 to S5: header and section table -----------------------------------------------------------

HEADER = struct.Struct("<8sIIQQQQ16sQIIQIBBBB16s")
HEADER_FIELDS = (
    *("magic", "version", "header_bytes", "file_bytes", "feature_compat", "feature_ro_compat"),
    *("feature_incompat", "database_id", "section_table_offset", "section_count", "section_table_crc"),
    *("n_rows", "dim", "metric", "index_kind", "id_encoding", "block_log2", "content_digest"),
)
ENTRY = struct.Struct("<24sBBBBIQQQQQQI12s")
ENTRY_FIELDS = (
    *("name", "dtype", "codec", "flags", "ndim", "chunk_bytes", "shape0", "shape1", "offset", "stored_bytes"),
    *("raw_bytes", "checksums_offset", "checksums_crc", "reserved"),
)


def read_header(data: bytes) -> dict[str, Any]:
    require(len(data) >= 12 and data[:8] == b"IQDBPRST", "no magic", "not a database")
    (version,) = u32s(data, 1, 8)
    require(version == 3, f"version {version}", "version")
    require(len(data) >= PAGE, "shorter than a header", "truncated")
    header = dict(zip(HEADER_FIELDS, HEADER.unpack_from(data), strict=True))
    (header["header_crc"],) = u32s(data, 1, 4092)
    require(crc32c(data[:4092]) == header["header_crc"], "header_crc", "checksum")
    require(header["file_bytes"] == len(data), "file_bytes", "truncated")
    require(header["feature_incompat"] == 0, "feature_incompat", "feature")
    require(header["header_bytes"] == PAGE and header["block_log2"] == 12, "header_bytes or block_log2")
    zeros(data[112:4092], "header.reserved")
    require(header["n_rows"] < 2**32 and 1 <= header["dim"] <= 65536, "n_rows or dim")
    require(
        header["metric"] < len(METRICS) and header["index_kind"] < len(INDEX_KINDS), "metric or index_kind"
    )
    require(header["id_encoding"] <= 1, "id_encoding")
    require(header["section_count"] <= 4096, "section_count")
    end = header["section_table_offset"] + 96 * header["section_count"]
    require(end == len(data), "the section table does not end the file")
    return header


def read_table(data: bytes, header: dict[str, Any]) -> list[dict[str, Any]]:
    table = data[header["section_table_offset"] :]
    require(crc32c(table) == header["section_table_crc"], "section table", "checksum")
    entries = [dict(zip(ENTRY_FIELDS, fields, strict=True)) for fields in ENTRY.iter_unpack(table)]
    position = PAGE
    for entry in entries:
        name = entry["name"].rstrip(b"\0")
        require(name and all(0x21 <= byte <= 0x7E for byte in name), "a section's name")
        entry["text"] = name.decode("ascii")
        zeros(entry["reserved"], "reserved bytes of a section")
        require(entry["dtype"] in DTYPES and entry["codec"] <= 2 and entry["flags"] <= 1, "a section's tags")
        require(entry["ndim"] == 2 or (entry["ndim"] == 1 and entry["shape1"] == 1), "a section's ndim")
        raw = entry["shape0"] * entry["shape1"] * DTYPES[entry["dtype"]]
        require(raw == entry["raw_bytes"] < 2**64, "raw_bytes")
        if entry["codec"] == 0:
            require(
                entry["chunk_bytes"] == 0 and entry["stored_bytes"] == raw, "an uncompressed section's size"
            )
        else:
            require(0 < raw <= 4096 * entry["stored_bytes"], "a compressed section's size")
            require(1 <= entry["chunk_bytes"] <= 2**20, "chunk_bytes")
        require(entry["offset"] == position, "a section's offset")
        position = pad(position + entry["stored_bytes"], PAGE)
    for entry in entries:
        require(entry["checksums_offset"] == position, "checksums_offset")
        end = position + 4 * -(-entry["stored_bytes"] // PAGE)
        position = pad(end, 8)
        zeros(data[end:position], "padding between checksums")
    require(header["section_table_offset"] == pad(position, PAGE), "section_table_offset")
    zeros(data[position : header["section_table_offset"]], "padding behind the checksums")
    require(len({entry["name"] for entry in entries}) == len(entries), "two sections have one name")
    names = [entry["text"] for entry in entries]
    known = [name for name in names if name in DTYPE_OF]
    require(known == [name for name in DTYPE_OF if name in names], "order of the sections")
    require(known == names[: len(known)], "an index section stands before one of the records")
    return entries


# --- S6, S7: the bytes of a section ---------------------------------------------------------------


def read_section(data: bytes, header: dict[str, Any], entry: dict[str, Any]) -> bytes:
    stored = data[entry["offset"] : entry["offset"] + entry["stored_bytes"]]
    blocks = -(-len(stored) // PAGE)
    table = data[entry["checksums_offset"] : entry["checksums_offset"] + 4 * blocks]
    require(crc32c(table) == entry["checksums_crc"], f"block checksums of {entry['text']}", "checksum")
    prefix = crc32c(header["database_id"] + entry["name"])
    for number, checksum in enumerate(u32s(table, blocks)):
        block = stored[PAGE * number : PAGE * (number + 1)]
        found = crc32c(block, crc32c(struct.pack("<Q", number), prefix))
        require(found == checksum, f"block {number} of {entry['text']}", "checksum")
    return stored if entry["codec"] == 0 else read_chunks(stored, entry)


def read_chunks(stored: bytes, entry: dict[str, Any]) -> bytes:
    count = -(-entry["raw_bytes"] // entry["chunk_bytes"])
    at = len(stored) - 8 * (count + 1)
    require(at >= 0, "chunk_offsets do not fit")
    offsets = u64s(stored, count + 1, at)
    require(offsets[0] == 0 and pad(offsets[-1], 8) == at, "chunk_offsets")
    zeros(stored[offsets[-1] : at], "the padding behind the chunks")
    raw = b""
    for start, stop in pairwise(offsets):
        size = min(entry["chunk_bytes"], entry["raw_bytes"] - len(raw))
        require(start < stop <= at and stop - start <= size, "chunk_offsets")
        chunk = stored[start:stop]
        raw += chunk if len(chunk) == size else decompress(entry["codec"], chunk, size)
    return raw


def decompress(codec: int, chunk: bytes, size: int) -> bytes:
    if codec == 1:
        import lz4.block

        try:
            raw: bytes = lz4.block.decompress(chunk, uncompressed_size=size)
        except lz4.block.LZ4BlockError as error:
            raise FormatError("structure", str(error)) from error
        require(len(raw) == size, "a chunk has another size")
        return raw
    import zstandard

    decoder = zstandard.ZstdDecompressor().decompressobj()
    try:
        raw = decoder.decompress(chunk)
    except zstandard.ZstdError as error:
        raise FormatError("structure", str(error)) from error
    require(decoder.eof and not decoder.unused_data and len(raw) == size, "a chunk has another size")
    return raw


# --- S8: the sections -----------------------------------------------------------------------------


def read_snapshot(data: bytes) -> Snapshot:
    """Read a whole snapshot and check all of it."""
    header = read_header(data)
    entries = read_table(data, header)
    position = PAGE
    found: dict[str, bytes] = {}
    for entry in entries:
        zeros(data[position : entry["offset"]], "padding")
        position = entry["offset"] + entry["stored_bytes"]
        name = entry["text"]
        if name not in DTYPE_OF:
            require(entry["flags"] == 1, f"unknown section {name}")
            continue
        shape = 2 if name == "vectors" else 1
        require(entry["dtype"] == DTYPE_OF[name] and entry["ndim"] == shape, f"dtype or ndim of {name}")
        require(entry["flags"] == 0, f"flags of {name}")
        require(entry["codec"] == 0 or name not in UNCOMPRESSED, f"codec of {name}")
        found[name] = read_section(data, header, entry)
        if name == "vectors":
            require(
                (entry["shape0"], entry["shape1"]) == (header["n_rows"], header["dim"]), "shape of vectors"
            )
    require("vectors" in found and "config" in found, "a section is missing")
    records = read_records(header, found)
    require(digest(records) == header["content_digest"], "content_digest", "checksum")
    return Snapshot(
        header=header,
        identity=header["section_table_crc"] << 32 | header["header_crc"],
        config=read_config(header, found["config"]),
        records=records,
        sections=[entry["text"] for entry in entries],
    )


def read_config(header: dict[str, Any], data: bytes) -> dict[str, Any]:
    require(len(data) <= 2**20, "config is too long")
    try:
        config = json.loads(text(data, "config"))
    except ValueError:
        raise FormatError("structure", "config is not JSON") from None
    again = json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    require(again.encode() == data, "config is not canonical")
    keys = ["compression", "dim", "index", "metric", "provenance"]
    require(isinstance(config, dict) and sorted(config) == keys, "keys of config")
    assert isinstance(config, dict)
    require(config["dim"] == header["dim"], "config and header have another dim")
    require(config["metric"] == METRICS[header["metric"]], "config and header have another metric")
    require(config["index"]["kind"] == INDEX_KINDS[header["index_kind"]], "config and header: index kind")
    return config


def read_records(header: dict[str, Any], found: dict[str, bytes]) -> list[Record]:
    n, width = header["n_rows"], 4 * header["dim"]
    ids = read_ids(header["id_encoding"], n, found)
    if "ids.order" in found:
        order = u32s(found["ids.order"], n)
        require(len(found["ids.order"]) == 4 * n and all(row < n for row in order), "ids.order")
    else:
        order = tuple(range(n))
    keys = [sort_key(ids[row]) for row in order]
    require(all(a < b for a, b in pairwise(keys)), "ids do not ascend")
    metadata = read_metadata(n, found)
    vectors = found["vectors"]
    finite(vectors)
    return [Record(ids[row], vectors[width * row : width * (row + 1)], metadata[row]) for row in range(n)]


def finite(vectors: bytes) -> None:
    for (component,) in struct.iter_unpack("<I", vectors):
        require(component & 0x7F800000 != 0x7F800000, "a component is not finite")


def sort_key(id_: Id) -> tuple[int, int, bytes]:
    kind, payload = id_
    return kind, int.from_bytes(payload, "little") if kind == 0 else 0, payload


def read_ids(encoding: int, n: int, found: dict[str, bytes]) -> list[Id]:
    if encoding == 0:
        require(len(found.get("ids", b"")) == 8 * n and "ids" in found, "ids")
        return [(0, found["ids"][8 * row : 8 * row + 8]) for row in range(n)]
    require("ids.bytes" in found and len(found.get("ids.kinds", b"")) == n, "ids.kinds")
    require(len(found.get("ids.offsets", b"")) == 8 * (n + 1), "ids.offsets")
    return join_ids(found["ids.kinds"], u64s(found["ids.offsets"], n + 1), found["ids.bytes"])


def join_ids(kinds: bytes, offsets: tuple[int, ...], payloads: bytes) -> list[Id]:
    require(offsets[0] == 0 and offsets[-1] == len(payloads), "ends of the offsets of ids")
    ids = []
    for kind, start, stop in zip(kinds, offsets, offsets[1:], strict=False):
        require(kind <= 2 and start < stop <= len(payloads) and stop - start <= 65535, "an id")
        require(kind != 0 or stop - start == 8, "an int id")
        if kind == 2:
            text(payloads[start:stop], "an id")
        ids.append((kind, payloads[start:stop]))
    return ids


def read_metadata(n: int, found: dict[str, bytes]) -> list[dict[str, Value] | None]:
    present = ["meta.rows" in found, "meta.groups" in found, "meta.data" in found]
    if not any(present):
        return [None] * n
    require(all(present), "one of meta.* is missing")
    count = len(found["meta.rows"]) // 8
    require(count >= 2 and len(found["meta.groups"]) == len(found["meta.rows"]), "meta.rows, meta.groups")
    rows, groups = u64s(found["meta.rows"], count), u64s(found["meta.groups"], count)
    require(rows[0] == groups[0] == 0, "meta.rows[0], meta.groups[0]")
    require(rows[-1] == n and groups[-1] == len(found["meta.data"]), "ends of meta.rows and meta.groups")
    metadata = []
    for i in range(count - 1):
        require(0 < rows[i + 1] - rows[i] <= 16384, "meta.rows")
        require(groups[i] < groups[i + 1] <= len(found["meta.data"]), "meta.groups")
        metadata += read_group(found["meta.data"][groups[i] : groups[i + 1]], rows[i + 1] - rows[i])
    return metadata


# --- S9: metadata groups --------------------------------------------------------------------------


def bits(data: bytes, count: int, what: str) -> list[int]:
    """Return the numbers of the bits that are set in a bitmap of `count` bits."""
    require(len(data) == 8 * -(-count // 64), what)
    number = int.from_bytes(data, "little")
    require(number >> count == 0, what)
    return [i for i in range(count) if number >> i & 1]


def read_group(blob: bytes, n_rows: int) -> list[dict[str, Value] | None]:
    require(len(blob) >= 16 and len(blob) % 8 == 0, "a group's length")
    rows, columns, has, reserved, size = struct.unpack_from("<IIB3sI", blob)
    zeros(reserved, "reserved bytes of a group")
    require(rows == n_rows and size == len(blob) and has <= 2, "a group's header")
    require(16 + 32 * columns <= size, "a group's directory")
    directory = [struct.unpack_from("<IHBBIB3sII8s", blob, 16 + 32 * i) for i in range(columns)]
    end = 16 + 32 * columns
    keys: list[tuple[bytes, int]] = []
    for key_offset, key_bytes, type_, *_ in directory:
        key = blob[key_offset : key_offset + key_bytes]
        if keys and key == keys[-1][0]:
            require(key_offset == end - len(key), "key_offset")
        else:
            require(key_offset == end and len(key) == key_bytes, "key_offset")
            end += key_bytes
        require(1 <= type_ <= 5, "a column's type")
        require(not keys or keys[-1] < (key, type_), "columns do not ascend")
        keys.append((key, type_))
    zeros(blob[end : pad(end, 8)], "padding behind the keys")
    at = pad(end, 8)
    mapped = list(range(n_rows)) if has == 0 else []
    if has == 1:
        mapped = bits(blob[at : at + 8 * -(-n_rows // 64)], n_rows, "bitmap of mappings")
        require(0 < len(mapped) < n_rows, "bitmap of mappings")
        at += 8 * -(-n_rows // 64)
    require(has != 2 or columns == 0, "columns without mappings")
    result: list[dict[str, Value] | None] = [None] * n_rows
    for row in mapped:
        result[row] = {}
    weight = 0
    for (key, type_), entry in zip(keys, directory, strict=True):
        presence, count, encoding, padding, offset, length, padding2 = entry[3:]
        zeros(padding + padding2, "reserved bytes of a column")
        require(offset == at and length % 8 == 0 and at + length <= size, "a payload's place")
        payload = blob[at : at + length]
        at += length
        value_rows, used = read_presence(payload, presence, count, n_rows)
        weight += count * (16 + len(key))
        values, strings = read_values(payload[used:], type_, encoding, count)
        weight += strings
        require(weight <= 2**28, "a group's weight")
        for row, value in zip(value_rows, values, strict=True):
            mapping = result[row]
            name = text(key, "a key")
            require(mapping is not None and name not in mapping, "a value without a mapping, or two values")
            assert mapping is not None
            mapping[name] = (type_, value)
    require(at == size, "a group's length")
    return result


def read_presence(payload: bytes, presence: int, count: int, n_rows: int) -> tuple[list[int], int]:
    bitmap = 8 * -(-n_rows // 64)
    listed = pad(2 * count, 8)
    require(1 <= count <= n_rows, "a column's count")
    require(presence == (0 if count == n_rows else 2 if listed < bitmap else 1), "a column's presence")
    if presence == 0:
        return list(range(n_rows)), 0
    if presence == 1:
        rows = bits(payload[:bitmap], n_rows, "a column's bitmap")
        require(len(rows) == count, "a column's bitmap")
        return rows, bitmap
    require(listed <= len(payload), "a column's list of rows")
    rows = list(struct.unpack_from(f"<{count}H", payload))
    zeros(payload[2 * count : listed], "padding behind a list of rows")
    require(all(a < b for a, b in pairwise(rows)) and rows[-1] < n_rows, "a list of rows")
    return rows, listed


def read_values(data: bytes, type_: int, encoding: int, count: int) -> tuple[list[bytes], int]:
    """Return the values' bytes, and the weight of those that are strings."""
    require(encoding == 0 or (encoding == 1 and type_ == STRING), "a column's encoding")
    if type_ == NULL:
        require(not data, "values of type null")
        return [b""] * count, 0
    if type_ == BOOL:
        set_ = set(bits(data, count, "values of type bool"))
        return [bytes([i in set_]) for i in range(count)], 0
    if type_ in (INT64, FLOAT64):
        require(len(data) == 8 * count, "values of 8 bytes")
        return [data[8 * i : 8 * i + 8] for i in range(count)], 0
    if encoding == 0:
        values, end = read_strings(data, 0, count)
        require(2 * len(set(values)) > count, "a column of strings should have a dictionary")
    else:
        entries, reserved = u32s(data, 2)
        require(reserved == 0 and 0 < 2 * entries <= count, "n_entries")
        strings, end = read_strings(data, 8, entries, gap=True)
        require(all(a < b for a, b in pairwise(strings)), "entries do not ascend")
        require(end + 2 * count <= len(data), "codes")
        codes = struct.unpack_from(f"<{count}H", data, end)
        require(set(codes) == set(range(entries)), "codes")
        require(sum(len(strings[code]) for code in codes) <= 2**28, "a group's weight")
        values = [strings[code] for code in codes]
        zeros(data[end + 2 * count :], "padding behind the codes")
        end += pad(2 * count, 8)
    require(pad(end, 8) == len(data), "length of the strings")
    zeros(data[end:], "padding behind the strings")
    return values, sum(map(len, values))


def read_strings(data: bytes, at: int, count: int, *, gap: bool = False) -> tuple[list[bytes], int]:
    offsets = u32s(data, count + 1, at)
    start = at + 4 * (count + 1)
    if gap:
        zeros(data[start : pad(start, 8)], "padding behind the offsets")
        start = pad(start, 8)
    end = start + offsets[-1]
    require(offsets[0] == 0 and end <= len(data), "offsets of strings")
    require(all(a <= b for a, b in pairwise(offsets)), "offsets of strings")
    values = [data[start + a : start + b] for a, b in pairwise(offsets)]
    for value in values:
        require(len(value) <= 2**24, "a string is too long")
        text(value, "a string")
    if gap:
        require(pad(end, 8) <= len(data), "entries of the dictionary")
        zeros(data[end : pad(end, 8)], "padding behind the entries")
        end = pad(end, 8)
    return values, end


# --- S10: content digest --------------------------------------------------------------------------


def record_hash(record: Record, seed: int) -> int:
    kind, payload = record.id
    id_hash = xxh64(bytes([kind]) + payload, seed)
    vector_hash = xxh64(record.vector, seed)
    meta_hash = 0
    if record.metadata is not None:
        meta_hash = xxh64(b"", seed)
        for name, (type_, value) in record.metadata.items():
            key = name.encode()
            meta_hash += xxh64(struct.pack("<I", len(key)) + key + bytes([type_]) + value, seed)
    return xxh64(struct.pack("<QQQ", id_hash, vector_hash, meta_hash % 2**64), seed)


def digest(records: list[Record]) -> bytes:
    """Return the digest as it stands in the header."""
    return b"".join(
        struct.pack("<Q", sum(record_hash(record, seed) for record in records) % 2**64) for seed in (0, 1)
    )
