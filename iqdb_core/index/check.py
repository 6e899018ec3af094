"""Whether the arrays of a stored index are what its kind says, for a verification of the whole file.

Arrays in, faults out. Nothing is trusted but that the checksums of the arrays are right: they may come from
somebody who computed these for wrong numbers.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from iqdb_core import _kernels
from iqdb_core.index.codes import MODEL_HEAD, code_stride
from iqdb_core.threads import share_out
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from iqdb_core.index.protocol import VectorReader

MISSES: Final = "searches through the index can miss records; exact search works, and optimize rebuilds it"
MISLEADS: Final = (
    "searches can miss records, exact ones too where they go by codes; the records are whole, and optimize "
    "rebuilds the index"
)

_SLAB_BYTES: Final = 1 << 20
_WORD_BYTES: Final = 8
_F32_MAX: Final = float(np.finfo(np.float32).max)  # means are used as f32


class Fault(NamedTuple):
    """One thing that is wrong with an index.

    Attributes:
        array: the array that has it.
        problem: what is wrong.
        effect: what does not work because of it.
    """

    array: str
    problem: str
    effect: str


class Stored(NamedTuple):
    """What there is to check.

    Attributes:
        settings: the index configuration as the file has it.
        metric: the metric's number.
        n_rows: rows of the snapshot.
        dim: components of a vector.
        arrays: the arrays of the index by name, those with wrong checksums left out.
        damaged: the names of these.
        vectors: the stored vectors; None when not all can be read.
        thorough: also compute again what costs more than reading does.
        threads: threads to use.
        progress: called with numbers of rows that were done, from several threads; may be None.
    """

    settings: Mapping[str, Any]
    metric: int
    n_rows: int
    dim: int
    arrays: Mapping[str, NDArray[Any]]
    damaged: frozenset[str]
    vectors: VectorReader | None
    thorough: bool
    threads: int
    progress: Callable[[int], object] | None = None

    @property
    def stride(self) -> int:
        """Bytes of a row's code."""
        return code_stride(self.dim)

    def coded(self, kind: str) -> bool:
        """Whether an index of these rows can have arrays at all: under hamming, graphs of bits have some."""
        return self.n_rows > 0 and (kind == "hnsw" or self.metric != DistanceMetric.HAMMING.tag)


class Checked:
    """What a check has found so far.

    Attributes:
        faults: what is wrong, in the order in which it was met.
        facts: what is worth knowing of the index, as plain values.
        notes: the same as sentences, where somebody should do something about it.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.facts: dict[str, int] = {}
        self.notes: list[str] = []

    def fault(self, array: str, problem: str, effect: str = MISSES) -> None:
        """Add something that is wrong."""
        self.faults.append(Fault(array, problem, effect))

    def shapes(
        self, stored: Stored, wanted: Mapping[str, tuple[str, tuple[int, ...]]], optional: str
    ) -> bool:
        """Compare which arrays there are, their types and shapes, with what is wanted; -1 is any length.

        Returns False when the rest of the check has nothing to go by: an array is missing, damaged or wrong.
        """
        usable = True
        for name, (dtype, shape) in wanted.items():
            array = stored.arrays.get(name)
            if array is None:
                if name not in stored.damaged and name != optional:
                    self.fault(name, "is missing, though other arrays of the index are there")
                usable = usable and name == optional and name not in stored.damaged
                continue
            fits = len(array.shape) == len(shape) and all(
                want in (-1, have) for want, have in zip(shape, array.shape, strict=True)
            )
            if array.dtype != np.dtype(dtype) or not fits:
                text = " x ".join("n" if size < 0 else str(size) for size in shape)
                found = " x ".join(map(str, array.shape))
                self.fault(name, f"is {array.dtype} {found}, expected {np.dtype(dtype)} {text}")
                usable = False
        return usable

    def model(self, name: str, array: NDArray[np.float64], *, unit_length: bool) -> bool:
        """Check the mapping of components to codes."""
        if not bool(np.isfinite(array[:MODEL_HEAD]).all() and (abs(array[MODEL_HEAD:]) <= _F32_MAX).all()):
            problem = "holds what is no finite number"
        elif array[0] != float(unit_length):
            problem = f"begins with {array[0]:g}, expected {float(unit_length):g} under this metric"
        elif not (array[1] > 0 and array[2] > 0):
            problem = f"has the scales {array[1]:g} and {array[2]:g}, expected positive numbers"
        else:
            return True
        self.fault(name, problem, MISLEADS)
        return False


class Slab(NamedTuple):
    """Rows start..stop with their codes, computed again; shapes as `_kernels.encode_codes` has them."""

    start: int
    stop: int
    vectors: NDArray[np.float32]
    codes: NDArray[np.uint8]
    lengths: NDArray[np.int32]
    norms: NDArray[np.float32]
    bounds: NDArray[np.float32]


class Rows:
    """All rows, from which arrays are computed again and compared with stored ones slab by slab."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._wrong: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._guard = threading.Lock()

    def each(self, check: Callable[[int, int, NDArray[np.float32]], None]) -> None:
        """Call `check` with the start, the stop and the vectors of each slab, in several threads."""
        stored = self._stored
        assert stored.vectors is not None
        at_once = max(1, _SLAB_BYTES // (4 * stored.dim))

        def one(start: int) -> None:
            assert stored.vectors is not None
            stop = min(start + at_once, stored.n_rows)
            check(start, stop, stored.vectors.take(np.arange(start, stop)))
            if stored.progress is not None:
                stored.progress(stop - start)

        share_out(stored.threads, range(0, stored.n_rows, at_once), one, "iqdb-verify")

    def compare(self, name: str, first_row: int, wrong: NDArray[np.bool_]) -> None:
        """Take note of rows of a slab for which an array has something else."""
        count = int(np.count_nonzero(wrong))
        if count:
            row = first_row + int(np.argmax(wrong))
            with self._guard:
                self._first[name] = min(row, self._first.get(name, row))
                self._wrong[name] = self._wrong.get(name, 0) + count

    def report(self, checked: Checked, effects: Mapping[str, str]) -> None:
        """Add what was noted as faults."""
        for name, count in sorted(self._wrong.items()):
            rows = "1 row" if count == 1 else f"{count} rows"
            problem = f"is not what the vectors give, for {rows}; the first is row {self._first[name]}"
            checked.fault(name, problem, effects.get(name, MISSES))


def differ(codes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which rows of u8[n][width] are not the same; by whole words, where the rows consist of such."""
    if codes.shape[1] % _WORD_BYTES == 0 and codes.flags.c_contiguous and others.flags.c_contiguous:
        found: NDArray[np.bool_] = (codes.view(np.uint64) != others.view(np.uint64)).any(axis=1)
        return found
    return np.asarray((codes != others).any(axis=1))


class Codes(Rows):
    """The codes of all rows computed again."""

    def __init__(self, stored: Stored, model: NDArray[np.float64]) -> None:
        super().__init__(stored)
        self._model = model

    def run(self, check: Callable[[Slab], None]) -> None:
        """Encode all rows, slab by slab, and call `check` with each, in several threads."""
        stride = self._stored.stride

        def encoded(start: int, stop: int, vectors: NDArray[np.float32]) -> None:
            codes = np.empty((stop - start, stride), np.uint8)
            lengths = np.empty(stop - start, np.int32)
            norms = np.empty(stop - start, np.float32)
            bounds = np.empty((2, stop - start), np.float32)
            _kernels.encode_codes(self._model, vectors, codes, lengths, norms, bounds)
            check(Slab(start, stop, vectors, codes, lengths, norms, bounds))

        self.each(encoded)


def check_index(kind: str, stored: Stored) -> Checked:
    """Check the arrays of an index of the given kind; those of another kind are nobody's business."""
    checked = Checked()
    mine = [name for name in (*stored.arrays, *stored.damaged) if name.startswith(f"{kind}.")]
    if kind == "flat":
        return checked
    if not stored.coded(kind):
        for name in mine:
            checked.fault(name, "is there, though an index of these rows has no arrays", "none when reading")
        return checked
    if not mine:
        if stored.metric == DistanceMetric.HAMMING.tag:  # a component may take a third value
            return checked
        checked.notes.append("the index has no arrays: searches compare all vectors; optimize builds it")
        return checked
    if kind == "hnsw":
        from iqdb_core.index.check_hnsw import check_hnsw

        check_hnsw(stored, checked)
    else:
        from iqdb_core.index.check_ivf import check_ivf

        check_ivf(stored, checked)
    return checked
