"""The check of stored inverted lists and their codes (formats/index-ivf.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index import ivf
from iqdb_core.index.check import Codes
from iqdb_core.index.codes import MODEL_HEAD
from iqdb_core.index.ivf_product import (
    HALF_ROWS,
    HALF_WORDS,
    MAX_WORDS,
    ProductQuantiser,
    pack_halves,
    unpack_halves,
)
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.index.check import Checked, Slab, Stored

_UNUSED: Final = "none when reading"


def check_ivf(stored: Stored, checked: Checked) -> None:
    """Check that every row is in one list, and that codes are those of the rows.

    When thorough, also that every row is in the list of the nearest centroid, and its product code.
    """
    n_rows, dim = stored.n_rows, stored.dim
    product = ivf.PQ_CODES in stored.arrays or ivf.PQ_CODES in stored.damaged
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        ivf.MODEL: ("f8", (MODEL_HEAD + dim,)),
        ivf.CENTROIDS: ("f4", (-1, dim)),
        ivf.CHANGES: ("u8", (1,)),
        ivf.OFFSETS: ("u8", (-1,)),
        ivf.ROWS: ("u4", (n_rows,)),
    }
    if product:
        wanted |= {ivf.PQ_CODES: ("u1", (-1, -1)), ivf.PQ_BOOKS: ("f4", (-1, -1))}
        if stored.metric == DistanceMetric.EUCLIDEAN.tag:
            wanted[ivf.PQ_TERMS] = ("f4", (n_rows,))
    else:
        wanted |= {ivf.CODES: ("u1", (n_rows, stored.stride)), ivf.LENGTHS: ("i4", (n_rows,))}
        if stored.metric == DistanceMetric.DOT.tag:
            wanted[ivf.NORMS] = ("f4", (n_rows,))
    if not checked.shapes(stored, wanted, optional=""):
        return
    unit_length = stored.metric == DistanceMetric.COSINE.tag or (
        stored.metric == DistanceMetric.DOT.tag and not product
    )
    if not checked.model(ivf.MODEL, stored.arrays[ivf.MODEL], unit_length=unit_length):
        return
    lists = _Lists(stored, checked)
    if not lists.whole() or (product and not lists.has_product()):
        return
    if stored.vectors is None:
        checked.notes.append("the codes of the index were not compared: not all vectors can be read")
    elif not product or stored.thorough:
        lists.compare()


class _Lists:
    def __init__(self, stored: Stored, checked: Checked) -> None:
        self._stored = stored
        self._checked = checked
        self._arrays = stored.arrays
        self._centroids = stored.arrays[ivf.CENTROIDS]
        self._offsets = stored.arrays[ivf.OFFSETS].astype(np.int64)
        self._lists = np.empty(0, np.uint32)
        self._quantiser: ProductQuantiser | None = None
        self._product_codes: NDArray[np.uint8] = np.empty((0, 0), np.uint8)

    def whole(self) -> bool:
        """Check centroids, offsets and rows."""
        n_rows, found, offsets = self._stored.n_rows, self._checked, self._offsets
        n_lists = len(self._centroids)
        most = min(int(self._stored.settings["n_clusters"]), n_rows)
        if not 0 < n_lists <= most:
            found.fault(ivf.CENTROIDS, f"has {n_lists} centroids, expected 1 to {most}")
            return False
        if not bool(np.isfinite(self._centroids).all()):
            found.fault(ivf.CENTROIDS, "holds what is no finite number")
            return False
        if len(offsets) != n_lists + 1:
            found.fault(ivf.OFFSETS, f"has {len(offsets)} numbers, expected {n_lists + 1}")
            return False
        sizes = np.diff(offsets)
        if offsets[0] != 0 or offsets[-1] != n_rows or bool((sizes < 0).any()):
            found.fault(ivf.OFFSETS, f"does not ascend from 0 to {n_rows}")
            return False
        self._lists = np.repeat(np.arange(n_lists, dtype=np.uint32), sizes)
        rows = self._arrays[ivf.ROWS]
        foreign = np.flatnonzero(rows >= n_rows)
        if len(foreign):
            found.fault(ivf.ROWS, f"names row {int(rows[foreign[0]])} of {n_rows}")
            return False
        times = np.bincount(rows, minlength=n_rows)
        missing = np.flatnonzero(times == 0)
        if len(missing):
            found.fault(ivf.ROWS, f"lacks {len(missing)} rows; the first is row {int(missing[0])}")
            return False
        falls = np.flatnonzero((rows[1:] <= rows[:-1]) & (self._lists[1:] == self._lists[:-1]))
        if len(falls):
            found.fault(ivf.ROWS, f"does not ascend in list {int(self._lists[falls[0]])}", _UNUSED)
        found.facts |= {
            "lists": n_lists,
            "empty_lists": int(np.count_nonzero(sizes == 0)),
            "largest_list": int(sizes.max()),
            "changes_since_training": int(self._arrays[ivf.CHANGES][0]),
        }
        return True

    def has_product(self) -> bool:
        """Check the shapes of books and product codes, and that every code stands for a word."""
        found, books, codes = self._checked, self._arrays[ivf.PQ_BOOKS], self._arrays[ivf.PQ_CODES]
        dim = self._stored.dim
        parts = dim // books.shape[1] if books.shape[1] and dim % books.shape[1] == 0 else 0
        words = len(books) // parts if parts and len(books) % parts == 0 else 0
        if not 0 < words <= MAX_WORDS or not bool(np.isfinite(books).all()):
            found.fault(ivf.PQ_BOOKS, f"is {len(books)} x {books.shape[1]}, no books of vectors of {dim}")
            return False
        self._quantiser = ProductQuantiser(self._stored.metric, self._centroids, books)
        if words > HALF_WORDS:
            shape = (self._stored.n_rows, parts)
        else:
            blocks = -(-np.diff(self._offsets) // HALF_ROWS)
            shape = (int(blocks.sum()), HALF_ROWS * -(-parts // 2))
        if codes.shape != shape:
            expected = f"{shape[0]} x {shape[1]}"
            found.fault(ivf.PQ_CODES, f"is {codes.shape[0]} x {codes.shape[1]}, expected {expected}")
            return False
        self._product_codes = codes
        if words <= HALF_WORDS:
            self._product_codes = unpack_halves(codes, self._offsets, parts)
            if not np.array_equal(codes, pack_halves(self._product_codes, self._offsets)):
                problem = "is not zero where there is no row or no part"
                found.fault(ivf.PQ_CODES, problem, _UNUSED)
        beyond = int(np.count_nonzero(self._product_codes >= words))
        if beyond:
            found.fault(ivf.PQ_CODES, f"has {beyond} codes that no word has; there are {words} words")
        return True

    def compare(self) -> None:
        """Compute codes, and when thorough lists, again and compare them."""
        stored, arrays = self._stored, self._arrays
        place = np.empty(stored.n_rows, np.int64)
        place[arrays[ivf.ROWS]] = np.arange(stored.n_rows)
        again = Codes(stored, arrays[ivf.MODEL])

        def check(slab: Slab) -> None:
            places = place[slab.start : slab.stop]
            if stored.thorough:
                nearest = np.empty(len(places), np.uint32)
                _kernels.assign_clusters(
                    arrays[ivf.MODEL], self._centroids, slab.codes, stored.metric, nearest
                )
                again.compare(ivf.ROWS, slab.start, self._lists[places] != nearest)
            computed: dict[str, NDArray[Any]] = {
                ivf.CODES: slab.codes,
                ivf.LENGTHS: slab.lengths,
                ivf.NORMS: slab.norms,
            }
            if self._quantiser is not None:
                # Centroids and words out of a file may be as large as they like.
                with np.errstate(over="ignore", invalid="ignore"):
                    computed = self._quantiser.encode(slab.vectors, self._lists[places], 1)
            for name, column in computed.items():
                if name in arrays:
                    held = (self._product_codes if name == ivf.PQ_CODES else arrays[name])[places]
                    wrong = held != column
                    again.compare(name, slab.start, wrong.any(axis=1) if wrong.ndim == 2 else wrong)

        again.run(check)
        again.report(self._checked, {})
