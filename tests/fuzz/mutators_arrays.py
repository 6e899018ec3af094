"""Arrays in .npy and tables in Parquet."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mutators import Random, interesting, mutate_bytes


def npy_seeds() -> Iterator[bytes]:
    """Yield arrays of several types, orders and versions."""
    arrays = [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.arange(6, dtype=">f8").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype="<f2").reshape(2, 3)),
        np.arange(3, dtype="<i8"),
        np.zeros((0, 3), "<f4"),
        np.arange(6, dtype="u1").reshape(2, 3),
    ]
    for number, array in enumerate(arrays):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, version=(1 + number % 3, 0))
        yield stream.getvalue()


def mutate_npy(data: bytes, rng: Random) -> bytes:
    """Change the header's text or fields under a right length, or any bytes."""
    if rng.randrange(4) == 0 or len(data) < 12:
        return mutate_bytes(data, rng)
    start = 10 if data[6] == 1 else 12
    size = int.from_bytes(data[8:start], "little")
    text, body = data[start : start + size], data[start + size :]
    shape = rng.choice(
        (
            "(2, 3)",
            "(3,)",
            "(0, 3)",
            "(3, 0)",
            "()",
            "(1, 2, 3)",
            "(-1, 3)",
            "(2, 2**40)",
            "(18446744073709551615, 3)",
            "(4294967296, 1)",
            "(1, 65537)",
            "(True, 3)",
            "(2.0, 3)",
            "[2, 3]",
            "(2, 3L)",
            "(1000000000, 1000000000)",
        )
    )
    descr = rng.choice(
        (
            "'<f4'",
            "'>f4'",
            "'<f8'",
            "'<f2'",
            "'|u1'",
            "'<i8'",
            "'>u2'",
            "'|O'",
            "'<f16'",
            "'<c8'",
            "'|b1'",
            "'|S4'",
            "[('a', '<f4')]",
            "'<M8[ns]'",
            "4",
            "'" + "<" * 300 + "'",
            "'=f4'",
            "'f4'",
        )
    )
    if rng.randrange(2):
        order = rng.choice(("False", "True", "0", "None"))
        fields = [f"'descr': {descr}", f"'fortran_order': {order}", f"'shape': {shape}"]
        rng.shuffle(fields)
        extra = rng.choice(("", "", ", 'x': 1", ",", "}" * 3, "#", "\\"))
        text = ("{" + ", ".join(fields) + extra + "}").encode() + b" " * rng.randrange(20) + b"\n"
    else:
        text = mutate_bytes(text, rng)
    if rng.randrange(3) == 0:
        body = mutate_bytes(body, rng)
    length = len(text) if rng.randrange(8) else interesting(rng, start - 8, len(text))
    return data[:8] + (length & ((1 << 8 * (start - 8)) - 1)).to_bytes(start - 8, "little") + text + body


def parquet_seeds() -> Iterator[bytes]:
    """Yield tables with several types, compressions and layouts."""
    vectors = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32()))
    fixed = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float64(), 2))
    tables = [
        (
            pa.table({"id": ["a", "b", "c"], "vector": vectors, "s": ["x", None, "x"], "n": [1, 2, 3]}),
            "snappy",
        ),
        (
            pa.table({"id": pa.array([1, 2, 3], pa.uint64()), "vector": fixed, "b": [True, False, None]}),
            "none",
        ),
        (
            pa.table({"id": pa.array([b"1", b"2", b"3"]), "vector": vectors, "f": [0.5, float("nan"), 1.0]}),
            "zstd",
        ),
        (pa.table({"key": pa.array(["p", "q", "p"]).dictionary_encode(), "embedding": fixed}), "lz4"),
    ]
    for table, compression in tables:
        stream = io.BytesIO()
        pq.write_table(table, stream, compression=compression, row_group_size=2)
        yield stream.getvalue()
