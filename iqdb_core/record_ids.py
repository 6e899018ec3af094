"""The ids of many records: one array of integers, or kinds and bytes where not all are integers."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from iqdb_core.errors import InvalidIdError
from iqdb_core.record_strings import StringValues
from iqdb_core.types import MAX_ID_BYTES, VectorId, validate_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

INT, BYTES, STR = 0, 1, 2
"""Kinds of ids. The numbers are part of the file format."""
INT_BYTES = 8

Where: TypeAlias = str | Callable[[int], str]
"""How messages name a record: a prefix for "record 7", or a function of the row."""


def place(where: Where, row: int) -> str:
    """Return how a message names the record at `row`."""
    if callable(where):
        return where(row)
    return f"{where}, record {row}" if where else f"record {row}"


@dataclass(frozen=True, slots=True, eq=False)
class Ids:
    """The ids of n records, in order; not necessarily distinct.

    Either `u64` is set (u64[n], every id is an integer) or the three others are: `kinds` u8[n]
    (0 int, 1 bytes, 2 str), `offsets` u64[n + 1] and `data` u8[] (an int as 8 bytes little-endian, a
    str as UTF-8). Ids that are all integers are always in the first form.
    """

    u64: NDArray[np.uint64] | None
    kinds: NDArray[np.uint8] | None = None
    offsets: NDArray[np.uint64] | None = None
    data: NDArray[np.uint8] | None = None

    @classmethod
    def from_list(cls, values: Sequence[object], *, where: Where = "") -> Ids:
        """Check and lay out ids.

        Args:
            values: an int in 0..2^64-1, non-empty bytes or a non-empty str each.
            where: names the records in an error: a prefix, or a function of the row.

        Raises:
            InvalidIdError: one of them is not an id.
        """
        count = len(values)
        types = set(map(type, values))
        if types <= {int}:
            try:
                return cls(_u64_array(values))  # type: ignore[arg-type]
            except OverflowError:
                pass
        elif types == {str}:
            try:
                strings = StringValues.from_str(values)  # type: ignore[arg-type]
            except UnicodeEncodeError:
                pass
            else:
                if _sizes_fit(strings):
                    return cls(None, np.full(count, STR, np.uint8), strings.offsets, strings.data)
        elif types == {bytes}:
            strings = StringValues.from_bytes(values)  # type: ignore[arg-type]
            if _sizes_fit(strings):
                return cls(None, np.full(count, BYTES, np.uint8), strings.offsets, strings.data)
        plain = []
        for row, value in enumerate(values):
            try:
                plain.append(validate_id(value))
            except InvalidIdError as error:
                raise InvalidIdError(error.found, error.reason, where=place(where, row)) from None
        return cls._from_plain(plain)

    @classmethod
    def _from_plain(cls, values: list[VectorId]) -> Ids:
        if all(type(value) is int for value in values):
            return cls(_u64_array(values))  # type: ignore[arg-type]
        kinds, pieces = [], []
        for value in values:
            if isinstance(value, int):
                kinds.append(INT)
                pieces.append(value.to_bytes(8, "little"))
            elif isinstance(value, bytes):
                kinds.append(BYTES)
                pieces.append(value)
            else:
                kinds.append(STR)
                pieces.append(value.encode())
        strings = StringValues.from_bytes(pieces)
        return cls(None, np.array(kinds, np.uint8), strings.offsets, strings.data)

    @classmethod
    def from_u64(cls, values: NDArray[np.uint64]) -> Ids:
        """Return ids that are all integers: u64[n], kept without a copy."""
        assert values.dtype == np.uint64
        assert values.ndim == 1
        return cls(values)

    @classmethod
    def from_var(cls, kinds: NDArray[np.uint8], offsets: NDArray[np.uint64], data: NDArray[np.uint8]) -> Ids:
        """Return ids of any kind, kept without a copy unless all are integers.

        The arrays must be consistent; `first_problem` finds what is wrong with the ids themselves.
        """
        assert len(offsets) == len(kinds) + 1
        if kinds.any() or np.any(offsets[1:] - offsets[:-1] != INT_BYTES):
            return cls(None, kinds, offsets, data)
        return cls(np.frombuffer(data.tobytes(), np.dtype("<u8")).astype(np.uint64, copy=False))

    def __len__(self) -> int:
        if self.u64 is not None:
            return len(self.u64)
        assert self.kinds is not None
        return len(self.kinds)

    @property
    def is_u64(self) -> bool:
        """True when every id is an integer."""
        return self.u64 is not None

    @property
    def _strings(self) -> StringValues:
        assert self.offsets is not None
        assert self.data is not None
        return StringValues(self.offsets, self.data)

    def __getitem__(self, row: int) -> VectorId:
        if self.u64 is not None:
            return int(self.u64[row])
        assert self.kinds is not None
        return _decode(int(self.kinds[row]), self._strings[row])

    def to_list(self) -> list[VectorId]:
        """Return every id as a plain `int`, `bytes` or `str`."""
        if self.u64 is not None:
            integers: list[VectorId] = self.u64.tolist()
            return integers
        assert self.kinds is not None
        if np.all(self.kinds == STR):
            return list(self._strings.to_str())
        return list(map(_decode, self.kinds.tolist(), self._strings.to_bytes()))

    def as_var(self) -> tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.uint8]]:
        """Return kinds, offsets and data, whatever the form."""
        if self.u64 is None:
            assert self.kinds is not None
            assert self.offsets is not None
            assert self.data is not None
            return self.kinds, self.offsets, self.data
        count = len(self.u64)
        offsets = np.arange(count + 1, dtype=np.uint64) * np.uint64(INT_BYTES)
        data = np.ascontiguousarray(self.u64, np.dtype("<u8")).view(np.uint8)
        return np.zeros(count, np.uint8), offsets, data

    def take(self, rows: NDArray[np.integer]) -> Ids:
        """Return the ids at `rows`, in that order."""
        if self.u64 is not None:
            return Ids(self.u64[rows])
        assert self.kinds is not None
        strings = self._strings.take(rows)
        return Ids.from_var(self.kinds[rows], strings.offsets, strings.data)

    def slice(self, start: int, stop: int) -> Ids:
        """Return the ids of rows start..stop."""
        if self.u64 is not None:
            return Ids(self.u64[start:stop])
        assert self.kinds is not None
        strings = self._strings.slice(start, stop)
        return Ids.from_var(self.kinds[start:stop], strings.offsets, strings.data)

    @staticmethod
    def concat(parts: Iterable[Ids]) -> Ids:
        """Return the ids of all parts, in order."""
        every = list(parts)
        if len(every) == 1:
            return every[0]
        arrays = [part.u64 for part in every if part.u64 is not None]
        if len(arrays) == len(every):
            return Ids(np.concatenate(arrays) if arrays else np.zeros(0, np.uint64))
        forms = [part.as_var() for part in every]
        strings = StringValues.concat(StringValues(offsets, data) for _, offsets, data in forms)
        return Ids.from_var(np.concatenate([kinds for kinds, _, _ in forms]), strings.offsets, strings.data)

    def find_duplicates(self) -> NDArray[np.int64]:
        """Return the rows, ascending, whose id occurs in an earlier row as well."""
        if self.u64 is not None:
            if len(self.u64) < 2 or bool(np.all(self.u64[1:] > self.u64[:-1])):
                return np.zeros(0, np.int64)
            order = np.argsort(self.u64, kind="stable")
            ordered = self.u64[order]
            return np.sort(order[1:][ordered[1:] == ordered[:-1]])
        keys = self._keys()
        if len(set(keys)) == len(keys):
            return np.zeros(0, np.int64)
        seen: set[object] = set()
        repeated = []
        for row, key in enumerate(keys):
            if key in seen:
                repeated.append(row)
            seen.add(key)
        return np.array(repeated, np.int64)

    def last_wins(self) -> NDArray[np.int64] | None:
        """Return which rows to keep so that every id occurs once, or None when it does already.

        Each id keeps the place of its first occurrence and has the row of its last.
        """
        if not len(self.find_duplicates()):
            return None
        # A dict keeps a key where it was first inserted, and the value that came last.
        latest = {key: row for row, key in enumerate(self._keys())}
        return np.fromiter(latest.values(), np.int64, len(latest))

    def _keys(self) -> list[object]:
        """Return one hashable a row; equal for equal ids and only for those."""
        # An int, a bytes and a str never compare equal, so the ids themselves will do.
        return list(self.to_list())

    def hash(self, out: NDArray[np.uint64]) -> None:
        """Write the content digest's hashes of the ids to `out`, u64[n, 2]."""
        from iqdb_core import _kernels

        if self.u64 is not None:
            _kernels.hash_ids_u64(np.ascontiguousarray(self.u64), out)
        else:
            kinds, offsets, data = self.as_var()
            _kernels.hash_ids_var(np.ascontiguousarray(kinds), offsets, np.ascontiguousarray(data), out)

    def first_problem(self) -> tuple[int, str] | None:
        """Return the first row whose id breaks the rules and how, or None. For ids out of a file."""
        if self.u64 is not None:
            return None
        kinds, offsets, _ = self.as_var()
        if len(offsets) and (int(offsets[0]) != 0 or bool(np.any(offsets[1:] < offsets[:-1]))):
            return 0, "has offsets that do not ascend from 0"
        lengths = self._strings.lengths
        bad = (kinds > STR) | (lengths == 0) | (lengths > MAX_ID_BYTES) | ((kinds == INT) & (lengths != 8))
        rows = np.flatnonzero(bad)
        if len(rows):
            row = int(rows[0])
            return row, f"has kind {kinds[row]} and {lengths[row]} bytes"
        texts = np.flatnonzero(kinds == STR)
        strings = self._strings if len(texts) == len(kinds) else self._strings.take(texts)
        index = strings.first_not_utf8()
        return None if index < 0 else (int(texts[index]), "is not UTF-8")


def _u64_array(values: Sequence[int]) -> NDArray[np.uint64]:
    """Return the integers as u64[n]; OverflowError when one does not fit."""
    return np.frombuffer(array("Q", values), np.uint64)


def _sizes_fit(strings: StringValues) -> bool:
    lengths = strings.lengths
    return int(lengths.min()) > 0 and int(lengths.max()) <= MAX_ID_BYTES


def _decode(kind: int, value: bytes) -> VectorId:
    if kind == INT:
        return int.from_bytes(value, "little")
    return value if kind == BYTES else value.decode()


__all__ = ["BYTES", "INT", "STR", "Ids", "Where", "place"]
