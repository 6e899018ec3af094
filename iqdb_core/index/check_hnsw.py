"""The check of a stored graph and its codes (formats/index-hnsw.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index.bits import BIT_TAG, bit_stride
from iqdb_core.index.check import MISLEADS, MISSES, Codes, Rows, differ
from iqdb_core.index.codes import CODED_TAGS, MODEL_HEAD
from iqdb_core.index.hnsw_arrays import (
    BITS,
    BOUNDS,
    COARSE,
    COARSE_LENGTHS,
    CODES,
    ENTRIES,
    LENGTHS,
    LINKS,
    MODEL,
    NORMS,
    VALUES,
)
from iqdb_core.index.hnsw_build import coarsened
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.index.check import Checked, Slab, Stored

_FAULTS: Final = (
    "name a node that there is not",
    "name their own node",
    "name a neighbour twice",
    "stand behind an empty place",
)


def check_hnsw(stored: Stored, checked: Checked) -> None:
    """Check links, entries and which nodes can be reached; compute all codes and bounds again."""
    if stored.metric == BIT_TAG:
        _check_bits(stored, checked)
        return
    n_rows = stored.n_rows
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        MODEL: ("f8", (MODEL_HEAD + stored.dim,)),
        CODES: ("u1", (n_rows, stored.stride)),
        LENGTHS: ("i4", (n_rows,)),
        LINKS: ("u4", (n_rows, 2 * int(stored.settings["m"]))),
        ENTRIES: ("u4", (-1,)),
    }
    if stored.metric == DistanceMetric.DOT.tag:
        wanted[NORMS] = ("f4", (n_rows,))
    if stored.metric in CODED_TAGS:
        wanted[BOUNDS] = ("f4", (2, n_rows))
    if COARSE in stored.arrays or COARSE_LENGTHS in stored.arrays:
        wanted[COARSE] = ("u1", (n_rows, -(-stored.stride // 64) * 32))
        wanted[COARSE_LENGTHS] = ("i4", (n_rows,))
    before = len(checked.faults)
    checked.shapes(stored, wanted, optional=BOUNDS)
    wrong = {fault.array for fault in checked.faults[before:]}
    usable = {name for name in wanted if name in stored.arrays and name not in wrong}
    if {LINKS, ENTRIES} <= usable:
        _check_graph(stored, checked)
    if MODEL in usable and stored.vectors is not None:
        unit_length = stored.metric in (DistanceMetric.COSINE.tag, DistanceMetric.DOT.tag)
        if checked.model(MODEL, stored.arrays[MODEL], unit_length=unit_length):
            _check_codes(stored, checked, usable)
    elif stored.vectors is None:
        checked.notes.append("the codes of the index were not compared: not all vectors can be read")


def _check_bits(stored: Stored, checked: Checked) -> None:
    n_rows, stride = stored.n_rows, bit_stride(stored.dim)
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        VALUES: ("f4", (2, stored.dim)),
        BITS: ("u1", (n_rows, stride)),
        LINKS: ("u4", (n_rows, 2 * int(stored.settings["m"]))),
        ENTRIES: ("u4", (-1,)),
    }
    for name in sorted({*stored.arrays, *stored.damaged} - wanted.keys()):
        if name.startswith("hnsw."):
            checked.fault(name, "is there, though a graph over bits has no such array", "none when reading")
    before = len(checked.faults)
    checked.shapes(stored, wanted, optional="")
    wrong = {fault.array for fault in checked.faults[before:]}
    usable = {name for name in wanted if name in stored.arrays and name not in wrong}
    if {LINKS, ENTRIES} <= usable:
        _check_graph(stored, checked)
    if stored.vectors is None:
        checked.notes.append("the codes of the index were not compared: not all vectors can be read")
    elif {VALUES, BITS} <= usable:
        _compare_bits(stored, checked)


def _compare_bits(stored: Stored, checked: Checked) -> None:
    values, bits = stored.arrays[VALUES], stored.arrays[BITS]
    first, second = values.view(np.uint32)
    rows = Rows(stored)

    def check(start: int, stop: int, vectors: NDArray[np.float32]) -> None:
        again = np.empty((stop - start, bits.shape[1]), np.uint8)
        _kernels.encode_bits(values, vectors, again)
        words = vectors.view(np.uint32)
        foreign = ((words != first) & (words != second)).any(axis=1)
        rows.compare(BITS, start, differ(bits[start:stop], again) | foreign)

    rows.each(check)
    rows.report(checked, {BITS: MISLEADS})


def _check_graph(stored: Stored, checked: Checked) -> None:
    links, entries = stored.arrays[LINKS], stored.arrays[ENTRIES]
    if not len(entries):
        checked.fault(ENTRIES, "is empty, so that no walk begins")
        return
    foreign = entries[entries >= stored.n_rows]
    if len(foreign):
        checked.fault(ENTRIES, f"names node {int(foreign[0])} of {stored.n_rows}")
    elif len(np.unique(entries)) < len(entries):
        checked.fault(ENTRIES, "names a node twice")
    counts, nodes, unreachable, first = _kernels.check_graph(links, entries, stored.threads)
    for count, node, what in zip(counts, nodes, _FAULTS, strict=True):
        if count:
            checked.fault(LINKS, f"has {count} links that {what}; the first is of node {node}")
    checked.facts |= {
        "nodes": stored.n_rows,
        "links": int(np.count_nonzero(links != 0xFFFFFFFF)),
        "entries": len(entries),
        "unreachable_nodes": unreachable,
    }
    if unreachable:
        are = "1 node of the graph cannot" if unreachable == 1 else f"{unreachable} nodes of the graph cannot"
        checked.notes.append(
            f"{are} be reached from its entries (the first is row {first}): searches through the index miss "
            "these records, exact ones do not; optimize builds the graph anew"
        )


def _check_codes(stored: Stored, checked: Checked, usable: set[str]) -> None:
    assert stored.vectors is not None
    again = Codes(stored, stored.arrays[MODEL])
    arrays = stored.arrays

    def check(slab: Slab) -> None:
        start, stop = slab.start, slab.stop
        if CODES in usable:
            again.compare(CODES, start, differ(arrays[CODES][start:stop], slab.codes))
        if LENGTHS in usable:
            again.compare(LENGTHS, start, arrays[LENGTHS][start:stop] != slab.lengths)
        if {COARSE, COARSE_LENGTHS} <= usable:
            coarse, coarse_lengths = coarsened(slab.codes, 1)
            again.compare(COARSE, start, differ(arrays[COARSE][start:stop], coarse))
            again.compare(COARSE_LENGTHS, start, arrays[COARSE_LENGTHS][start:stop] != coarse_lengths)
        if NORMS in usable:
            again.compare(NORMS, start, arrays[NORMS][start:stop] != slab.norms)
        if BOUNDS in usable:
            again.compare(BOUNDS, start, (arrays[BOUNDS][:, start:stop] != slab.bounds).any(axis=0))

    again.run(check)
    again.report(
        checked,
        {
            CODES: MISLEADS,
            NORMS: MISLEADS,
            BOUNDS: MISLEADS,
            LENGTHS: MISSES,
            COARSE: MISSES,
            COARSE_LENGTHS: MISSES,
        },
    )
