"""Parts of the code that do something wrong on purpose, and whether that is noticed."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core import DamagedError, FlatConfig, HnswConfig, Iqdb, IqdbConfig, IvfConfig, _kernels
from iqdb_core import fold as fold_module
from iqdb_core.records import Ids, MetadataColumns, RecordBatch
from iqdb_core.storage import codecs
from iqdb_core.storage.id_sections import IdSections
from iqdb_core.storage.metadata_sections import MetadataSections
from iqdb_core.storage.section_stream import SectionStream, Spool
from iqdb_core.storage.snapshot_writer import SnapshotWriter
from iqdb_core.verification import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iqdb_core.config import IndexConfig

DIM = 4
N_ROWS = 600
OPERATIONS = ("compact", "recompress", "bulk", "import", "import with replaced records")
INDEXES = {
    "hnsw": HnswConfig(m=4, ef_construction=16),
    "ivf": IvfConfig(n_clusters=6),
    "pq": IvfConfig(n_clusters=6, use_pq=True, pq_subvectors=2),
}
INDEX_OPERATIONS = (
    "compact hnsw",
    "compact ivf",
    "optimize hnsw",
    "optimize pq",
    "import hnsw",
    "import ivf",
)

Original = Any
Case = tuple[Any, str, "Callable[[Original], Any]"]


def _once(change: Callable[..., Any]) -> Callable[[Original], Any]:
    """Return a stand-in that changes the arguments of the first call that has something to change."""

    def wrap(original: Original) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if not _met:
                changed = change(*arguments)
                if changed is not None:
                    _met.append(True)
                    arguments = changed
            return original(*arguments, **named)

        return call

    return wrap


_met: list[bool] = []


def _flip_vector(stream: SectionStream, data: Any) -> Any:
    if stream.name != "vectors" or not len(data):
        return None
    altered = bytearray(data)
    altered[len(altered) // 2] ^= 1
    return stream, memoryview(altered)


def _swap_vectors(stream: SectionStream, data: Any) -> Any:
    width = 4 * DIM
    if stream.name != "vectors" or len(data) < 2 * width:
        return None
    raw = bytes(data)
    return stream, memoryview(raw[width : 2 * width] + raw[:width] + raw[2 * width :])


def _lose_vector(stream: SectionStream, data: Any) -> Any:
    if stream.name != "vectors" or len(data) < 8 * DIM:
        return None
    return stream, memoryview(bytes(data)[: -4 * DIM])


def _alter_id(sections: IdSections, ids: Ids) -> Any:
    listed = ids.to_list()
    if not listed:
        return None
    listed[0] = 999_999 if isinstance(listed[0], int) else "another"
    return sections, Ids.from_list(listed)


def _swap_ids(sections: IdSections, ids: Ids) -> Any:
    listed = ids.to_list()
    if len(listed) < 2:
        return None
    return sections, Ids.from_list([listed[1], listed[0], *listed[2:]])


def _lose_id(sections: IdSections, ids: Ids) -> Any:
    return (sections, ids.slice(0, len(ids) - 1)) if len(ids) > 1 else None


def _double_id(sections: IdSections, ids: Ids) -> Any:
    return (sections, ids.take(np.array([0, 0, *range(2, len(ids))]))) if len(ids) > 1 else None


def _alter_metadata(sections: MetadataSections, metadata: MetadataColumns | None, *rest: Any) -> Any:
    if metadata is None:
        return None
    dicts = metadata.to_dicts()
    for i, mapping in enumerate(dicts):
        if mapping and "n" in mapping:
            dicts[i] = {**mapping, "n": mapping["n"] + 1}
            return sections, MetadataColumns.from_dicts(dicts), *rest
    return None


def _lose_key(sections: MetadataSections, metadata: MetadataColumns | None, *rest: Any) -> Any:
    if metadata is None:
        return None
    dicts = metadata.to_dicts()
    for i, mapping in enumerate(dicts):
        if mapping:
            dicts[i] = dict(list(mapping.items())[1:])
            return sections, MetadataColumns.from_dicts(dicts), *rest
    return None


def _swap_metadata(sections: MetadataSections, metadata: MetadataColumns | None, *rest: Any) -> Any:
    if metadata is None or metadata.n_rows < 3:
        return None
    dicts = metadata.to_dicts()
    if dicts[1] == dicts[2]:
        return None
    return sections, MetadataColumns.from_dicts([dicts[0], dicts[2], dicts[1], *dicts[3:]]), *rest


def _alter_blob(sections: MetadataSections, blob: Any, n_rows: int) -> Any:
    altered = bytearray(blob)
    altered[-1] ^= 1
    altered[len(altered) // 2] ^= 1
    return sections, bytes(altered), n_rows


def _exchange_records(writer: SnapshotWriter, batch: RecordBatch) -> Any:
    if len(batch) < 2:
        return None
    return writer, batch.take(np.array([1, 0, *range(2, len(batch))]))


def _rotate_records(writer: SnapshotWriter, batch: RecordBatch) -> Any:
    return (writer, batch.take(np.roll(np.arange(len(batch)), 1))) if len(batch) > 1 else None


def _index_array(*suffixes: str, change: Callable[[Any], None]) -> Callable[[Original], Any]:
    """Return a stand-in for `SnapshotWriter.add_index` that changes one array, if there is such a one."""

    def altered(writer: SnapshotWriter, arrays: dict[str, Any]) -> Any:
        for name, array in arrays.items():
            if name.endswith(suffixes):
                copy = np.array(array)
                change(copy)
                return writer, {**arrays, name: copy}
        return None

    return _once(altered)


def _flip_first(array: Any) -> None:
    array.view(np.uint8).reshape(-1)[0] ^= 1


def _double_first(array: Any) -> None:
    array[0] = array[1]


def _name_a_stranger(array: Any) -> None:
    array.reshape(-1)[0] = N_ROWS * 10


def _lose_array(writer: SnapshotWriter, arrays: dict[str, Any]) -> Any:
    return writer, dict(list(arrays.items())[:-1])


def _wrong_codes(original: Original) -> Any:
    """A kernel that codes one row wrongly."""

    def encode(model: Any, rows: Any, codes: Any, *rest: Any, **named: Any) -> None:
        original(model, rows, codes, *rest, **named)
        if not _met and len(codes):
            _met.append(True)
            codes[len(codes) // 2, 0] ^= 1

    return encode


def _flip_index_section(stream: SectionStream, data: Any) -> Any:
    if not stream.name.startswith(("hnsw.", "ivf.")) or not len(data):
        return None
    altered = bytearray(data)
    altered[len(altered) // 2] ^= 1
    return stream, memoryview(altered)


def _stop_early(writer: SnapshotWriter, snapshot: Any, start: int, stop: int) -> Any:
    return (writer, snapshot, start, stop - 1) if stop - start > 1 else None


def _go_twice(original: Original) -> Any:
    def call(self: Any, *arguments: Any) -> Any:
        original(self, *arguments)
        if not _met:
            _met.append(True)
            original(self, *arguments)

    return call


def _alter_chunks(original: Original) -> Any:
    def compress_chunk(codec: int, level: int, raw: Any) -> bytes:
        altered = bytearray(raw)
        altered[len(altered) // 2] ^= 0x10
        stored: bytes = original(codec, level, bytes(altered))
        if len(stored) < len(raw):
            _met.append(True)
        return stored

    return compress_chunk


def _alter_spool(spool: Spool, sink: Any, offset: int) -> Any:
    if not len(spool._memory):
        return None
    spool._memory[0] ^= 1
    return spool, sink, offset


def _wrong_order(original: Original) -> Any:
    def sort(kinds: Any, offsets: Any, data: Any, out: Any) -> None:
        original(kinds, offsets, data, out)
        if len(out) > 20:
            _met.append(True)
            out[3], out[17] = out[17], out[3]

    return sort


def _wrong_argsort(original: Original) -> Any:
    def argsort(values: Any, **named: Any) -> Any:
        order = original(values, **named)
        if len(order) > 20 and values.dtype == np.uint64:
            _met.append(True)
            order[3], order[17] = order[17], order[3]
        return order

    return argsort


def _lose_segment(original: Original) -> Any:
    def segments(view: Any) -> Iterator[Any]:
        every = list(original(view))
        _met.append(True)
        yield from every[:-1]

    return segments


def _double_segment(original: Original) -> Any:
    def segments(view: Any) -> Iterator[Any]:
        every = list(original(view))
        _met.append(True)
        yield from [*every, every[-1]]

    return segments


def _reverse_segments(original: Original) -> Any:
    def segments(view: Any) -> Iterator[Any]:
        every = list(original(view))
        if len(every) > 1:
            _met.append(True)
        yield from reversed(every)

    return segments


def _wrong_kernel(original: Original) -> Any:
    """A kernel that hashes all but the last component."""

    def hash_vectors(vectors: Any, out: Any, **named: Any) -> None:
        if not _met and len(vectors) > 1:
            _met.append(True)
            vectors = np.array(vectors)
            vectors[0, -1] = 0
        original(vectors, out, **named)

    return hash_vectors


CASES: dict[str, Case] = {
    "a bit of a vector is flipped": (SectionStream, "append", _once(_flip_vector)),
    "two vectors are exchanged": (SectionStream, "append", _once(_swap_vectors)),
    "a vector is lost": (SectionStream, "append", _once(_lose_vector)),
    "an id is altered": (IdSections, "append", _once(_alter_id)),
    "two ids are exchanged": (IdSections, "append", _once(_swap_ids)),
    "an id is lost": (IdSections, "append", _once(_lose_id)),
    "an id is doubled": (IdSections, "append", _once(_double_id)),
    "a metadata value is altered": (MetadataSections, "_take", _once(_alter_metadata)),
    "a key is lost": (MetadataSections, "_take", _once(_lose_key)),
    "two records' metadata are exchanged": (MetadataSections, "_take", _once(_swap_metadata)),
    "a metadata group is altered": (MetadataSections, "_write", _once(_alter_blob)),
    "a run of rows ends too early": (SnapshotWriter, "append_rows", _once(_stop_early)),
    "a run of rows is written twice": (SnapshotWriter, "append_rows", _go_twice),
    "a batch is written twice": (SnapshotWriter, "append", _go_twice),
    "a chunk is compressed wrongly": (codecs, "compress_chunk", _alter_chunks),
    "what waited in a spool is altered": (Spool, "copy_to", _once(_alter_spool)),
    "ids are sorted wrongly": (_kernels, "sort_ids_var", _wrong_order),
    "numbers are sorted wrongly": (np, "argsort", _wrong_argsort),
    "the last records are left out": (fold_module, "segments", _lose_segment),
    "the last records are written twice": (fold_module, "segments", _double_segment),
    "two records change places": (SnapshotWriter, "append", _once(_exchange_records)),
    "all records move up by one": (SnapshotWriter, "append", _once(_rotate_records)),
    "the runs of records change places": (fold_module, "segments", _reverse_segments),
    "a kernel hashes wrongly": (_kernels, "hash_vectors", _wrong_kernel),
}

INDEX_CASES: dict[str, Case] = {
    "a code of the index is altered": (
        SnapshotWriter,
        "add_index",
        _index_array(".codes", "pq_codes", change=_flip_first),
    ),
    "a length of the index is altered": (
        SnapshotWriter,
        "add_index",
        _index_array(".lengths", change=_flip_first),
    ),
    "a row is twice in the lists": (
        SnapshotWriter,
        "add_index",
        _index_array("ivf.rows", change=_double_first),
    ),
    "a link names a stranger": (SnapshotWriter, "add_index", _index_array(".links", change=_name_a_stranger)),
    "an entry names a stranger": (
        SnapshotWriter,
        "add_index",
        _index_array(".entries", change=_name_a_stranger),
    ),
    "an array of the index is lost": (SnapshotWriter, "add_index", _once(_lose_array)),
    "a bit of the index is flipped": (SectionStream, "append", _once(_flip_index_section)),
    "a kernel codes wrongly": (_kernels, "encode_codes", _wrong_codes),
}

# Doubled records of a source are replaced by themselves; a hash that is wrong on both sides cancels; lists
# may be trained on whatever it be.
HARMLESS = frozenset({"a batch is written twice", "a kernel hashes wrongly", "a kernel codes wrongly"})


def batch_of(start: int, stop: int) -> RecordBatch:
    """Return records, ids of both kinds, in no order."""
    rng = np.random.default_rng(start)
    ids = [int(i) if i % 3 else f"text {i}" for i in rng.permutation(np.arange(start, stop))]
    metadata = [{"n": i, "text": f"t{i % 7}"} if i % 4 else None for i in range(stop - start)]
    vectors = rng.standard_normal((stop - start, DIM)).astype(np.float32)
    return RecordBatch(Ids.from_list(ids), vectors, MetadataColumns.from_dicts(metadata))


def numbers_of(start: int, stop: int) -> RecordBatch:
    """Return records whose ids are numbers in no order."""
    batch = batch_of(start, stop)
    ids = np.random.default_rng(start).permutation(np.arange(start, stop)).astype(np.uint64)
    return RecordBatch(Ids.from_u64(ids), batch.vectors, batch.metadata)


def make(
    path: Path,
    compression: str,
    batch: Callable[[int, int], RecordBatch] = batch_of,
    index: IndexConfig | None = None,
) -> None:
    """Make a database with a snapshot and a log."""
    config = IqdbConfig(
        dim=DIM, metric="euclidean", compression=compression, threads=1, index=index or FlatConfig()
    )
    Iqdb.create_from(path, config, [batch(0, N_ROWS)])
    with Iqdb.open_existing(path, threads=1, auto_compact=None) as db:
        db.upsert_batch(batch(500, 640))
        db.delete([1, 2, 4, 5])
        db.upsert(7, [1.0] * DIM, {"n": -7})
        db.close(compact=False)


def state(db: Iqdb) -> list[Any]:
    """Return all records, each found by its id as well."""
    found = [(i, db.vector_bytes(i), db.metadata(i)) for i in db.ids()]
    assert all(vector is not None for _, vector, _ in found)
    return found


@contextmanager
def sabotaged(name: str | None) -> Iterator[None]:
    """Put one case in place for the block."""
    _met.clear()
    if name is None:
        yield
        return
    owner, attribute, wrap = {**CASES, **INDEX_CASES}[name]
    original = getattr(owner, attribute)
    setattr(owner, attribute, wrap(original))
    try:
        yield
    finally:
        setattr(owner, attribute, original)


def apply(records: dict[Any, Any], batch: RecordBatch) -> None:
    """Do to a dict what an upsert does to a database."""
    dicts = batch.metadata.to_dicts() if batch.metadata is not None else [None] * len(batch)
    for i, vector, metadata in zip(batch.ids.to_list(), batch.vectors, dicts, strict=True):
        records[i] = vector.tobytes(), metadata


def attempt(name: str | None, operation: str, compression: str, folder: Path) -> str:
    """Let one case happen during an operation; say what became of it.

    Returns:
        "caught": an error, and everything is as it was. "not met": the operation does not use that part.
        "harmless": no error, and the records are what they should be.

    Raises:
        AssertionError: something was changed, or lost, or left behind.
    """
    path = folder / "a.iqdb"
    source = numbers_of if name == "numbers are sorted wrongly" else batch_of
    batches = [source(0, 300), source(300, 500)]
    if operation == "import with replaced records":
        batches.append(source(200, 250))
    action, _, kind = operation.partition(" ")
    index = INDEXES.get(kind)
    db = None
    records: dict[Any, Any] = {}
    if operation.startswith("import"):
        for batch in batches:
            apply(records, batch)
    else:
        make(path, compression, source, index if action == "compact" else None)
        db = Iqdb.open_existing(path, threads=1, auto_compact=None)
        records = {i: (vector, metadata) for i, vector, metadata in state(db)}
        if operation == "bulk":
            apply(records, source(600, 700))
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    config = IqdbConfig(
        dim=DIM, metric="euclidean", compression=compression, threads=1, index=index or FlatConfig()
    )
    caught = None
    try:
        with sabotaged(name):
            if db is None:
                Iqdb.create_from(path, config, batches)
            elif operation == "bulk":
                db.bulk_load([source(600, 700)])
            elif action == "optimize":
                db.optimize(index, sample=0)
            else:
                db.compact(compression="zstd:2" if operation == "recompress" else None)
    except (DamagedError, ValueError) as error:
        caught = error
    met = bool(_met)
    if caught is not None:
        after = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
        assert after == before, f"{name}, {operation}: something was changed"
        if db is not None:
            # The handle goes on, and does it right the next time.
            expected = state(db)
            db.compact()
            assert state(db) == expected
    else:
        with Iqdb.open_existing(path, read_only=True) as reader:
            assert state(reader) == [(i, *content) for i, content in records.items()], f"{name}: not noticed"
        report = verify(path, threads=1)
        assert report.ok, f"{name}: not noticed, {report.findings}"
    if db is not None:
        db.close(compact=False)
    if caught is not None:
        return "caught"
    return "harmless" if met or name is None else "not met"


PAIRS = [
    *((name, operation) for name in CASES for operation in OPERATIONS),
    *((name, operation) for name in INDEX_CASES for operation in INDEX_OPERATIONS),
]
"""Each case, with each operation that may meet it."""


@dataclass
class SabotageTally:
    """What was tried: cases that happened, those that were caught, and those that did no harm."""

    happened: int = 0
    caught: int = 0
    harmless: int = 0


def run(*, part: tuple[int, int] = (0, 1)) -> SabotageTally:
    """Try every case in every operation, with every compression; of the cases only every n-th."""
    tally = SabotageTally()
    for name, operation in PAIRS[part[0] :: part[1]]:
        for compression in ("none", "lz4", "zstd:1"):
            with tempfile.TemporaryDirectory() as folder:
                result = attempt(name, operation, compression, Path(folder))
            tally.happened += result != "not met"
            tally.caught += result == "caught"
            tally.harmless += result == "harmless"
    return tally
