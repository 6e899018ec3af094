"""Many strings in two arrays: the values of a metadata column, the bytes of ids.

`StringValues` are written out: all strings lie in one byte array, one after the other without a gap;
`offsets[i]` is where string i begins and `offsets[i + 1]` where it ends. `offsets[0]` is 0 and the last
offset is the array's length. `CodedStrings` are numbers of a few such strings, so that what a file holds
once does not take memory for each row that has it.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


_PIECE_BYTES = 1 << 20
_Decoder = codecs.getincrementaldecoder("utf-8")


def offsets_of_lengths(lengths: NDArray[np.integer], count: int) -> NDArray[np.uint64]:
    """Return the count + 1 offsets of strings that have these lengths and follow one another."""
    offsets = np.zeros(count + 1, np.uint64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(frozen=True, slots=True, eq=False)
class StringValues:
    """Byte strings, UTF-8 wherever they hold text.

    Attributes:
        offsets: u64[count + 1], from 0 to len(data), never descending.
        data: u8[], the strings one after the other.
    """

    offsets: NDArray[np.uint64]
    data: NDArray[np.uint8]

    @classmethod
    def from_str(cls, values: Sequence[str]) -> StringValues:
        """Encode values that are exactly `str`.

        Raises:
            UnicodeEncodeError: one of them has no UTF-8 form.
        """
        count = len(values)
        text = "".join(values)
        if text.isascii():
            lengths = np.fromiter(map(len, values), np.int64, count)
            return cls(offsets_of_lengths(lengths, count), np.frombuffer(text.encode(), np.uint8))
        return cls.from_bytes([value.encode() for value in values])

    @classmethod
    def from_bytes(cls, values: Sequence[bytes]) -> StringValues:
        """Lay out the values one after the other."""
        count = len(values)
        lengths = np.fromiter(map(len, values), np.int64, count)
        return cls(offsets_of_lengths(lengths, count), np.frombuffer(b"".join(values), np.uint8))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        return self.data[start:stop].tobytes()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each string in bytes, i64[count]."""
        offsets = self.offsets.view(np.int64)
        return offsets[1:] - offsets[:-1]

    @property
    def text_bytes(self) -> int:
        """How many bytes the strings have together."""
        return len(self.data)

    def plain(self) -> StringValues:
        """Return the strings one after the other, as they are."""
        return self

    def coded(self) -> StringValues | CodedStrings:
        """Return the strings as codes where there are at least two for each that is distinct."""
        from iqdb_core import _kernels

        codes = np.empty(len(self), np.uint32)
        first = np.empty(len(self) // 2, np.uint32)
        n_entries = _kernels.dictionary_strings(self.offsets, np.ascontiguousarray(self.data), codes, first)
        return self if n_entries < 0 else CodedStrings(self.take(first[:n_entries]), codes)

    def to_bytes(self) -> list[bytes]:
        """Return each string as `bytes`."""
        data = self.data.tobytes()
        offsets = self.offsets.tolist()
        return [data[a:b] for a, b in pairwise(offsets)]

    def to_str(self) -> list[str]:
        """Return each string as `str`. The strings must be UTF-8."""
        data = np.ascontiguousarray(self.data).data
        offsets = self.offsets.tolist()
        if self._is_ascii():
            text = str(data, "ascii")
            return [text[a:b] for a, b in pairwise(offsets)]
        return [str(data[a:b], "utf-8") for a, b in pairwise(offsets)]

    def slice(self, start: int, stop: int) -> StringValues:
        """Return the strings start..stop. The bytes are shared, the offsets are copied."""
        offsets = self.offsets[start : stop + 1]
        first, last = int(offsets[0]), int(offsets[-1])
        return StringValues(offsets - np.uint64(first), self.data[first:last])

    def take(self, rows: NDArray[np.integer]) -> StringValues:
        """Return the strings at `rows`, in that order; a row may occur more than once."""
        from iqdb_core import _kernels

        places = np.ascontiguousarray(rows, np.int64)
        offsets = offsets_of_lengths(self.lengths[places], len(places))
        data = np.empty(int(offsets[-1]), np.uint8)
        _kernels.gather_strings(self.offsets, self.data, places, data)
        return StringValues(offsets, data)

    @staticmethod
    def concat(parts: Iterable[StringValues]) -> StringValues:
        """Return the strings of all parts, in order."""
        every = list(parts)
        if len(every) == 1:
            return every[0]
        count = sum(map(len, every))
        lengths = np.concatenate([part.lengths for part in every]) if every else np.zeros(0, np.int64)
        data = np.concatenate([part.data for part in every]) if every else np.zeros(0, np.uint8)
        return StringValues(offsets_of_lengths(lengths, count), data)

    def first_not_utf8(self) -> int:
        """Return the number of the first string that is not UTF-8, or -1."""
        if self._is_ascii():
            return -1
        if _is_utf8(self.data):
            # The whole is UTF-8; then so is every string that begins at a character, not within one.
            starts = self.offsets.view(np.int64)[:-1]
            starts = starts[starts < len(self.data)]
            if not np.any(self.data[starts] & 0xC0 == 0x80):
                return -1
        for index, (start, stop) in enumerate(pairwise(self.offsets.tolist())):
            if not _is_utf8(self.data[start:stop]):
                return index
        return -1

    def _is_ascii(self) -> bool:
        return int(self.data.max(initial=0)) < 0x80


@dataclass(frozen=True, slots=True, eq=False)
class CodedStrings:
    """Byte strings of which many are the same: a few entries, and for each string the number of its entry.

    Attributes:
        entries: strings; some may be the same, and some may be no string's.
        codes: u16[count] or u32[count], all below len(entries).
    """

    entries: StringValues
    codes: NDArray[np.uint16] | NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each string in bytes, i64[count]."""
        return self.entries.lengths[self.codes]

    @property
    def text_bytes(self) -> int:
        """How many bytes the strings have together, were they written out."""
        return int(self.lengths.sum())

    def plain(self) -> StringValues:
        """Return the strings one after the other: all of `text_bytes`."""
        return self.entries.take(self.codes)

    def used(self) -> CodedStrings:
        """Return the same strings with a copy of the entries that are theirs, and no others."""
        used, codes = np.unique(self.codes, return_inverse=True)
        return CodedStrings(self.entries.take(used.astype(np.int64)), codes.astype(np.uint32))

    def trimmed(self) -> CodedStrings:
        """Return the same strings with entries that are not more than they; shared where they are not."""
        return self.used() if len(self.entries) > len(self.codes) else self

    def to_str(self) -> list[str]:
        """Return each string as `str`, equal ones as one object. The strings must be UTF-8."""
        few = self.trimmed()
        texts = few.entries.to_str()
        return [texts[code] for code in few.codes.tolist()]

    def slice(self, start: int, stop: int) -> CodedStrings:
        """Return the strings start..stop. The entries are shared."""
        return CodedStrings(self.entries, self.codes[start:stop])

    def take(self, rows: NDArray[np.integer]) -> CodedStrings:
        """Return copies of the strings at `rows`, in that order; a row may occur more than once."""
        return CodedStrings(self.entries, self.codes[rows]).used()

    @staticmethod
    def concat(parts: Iterable[StringValues | CodedStrings]) -> CodedStrings:
        """Return the strings of all parts, in order; those that have no codes get one each."""
        entries, codes = [], []
        first = 0
        for part in parts:
            if isinstance(part, StringValues):
                entries.append(part)
                codes.append(np.arange(first, first + len(part), dtype=np.uint32))
            else:
                few = part.trimmed()
                entries.append(few.entries)
                codes.append(few.codes.astype(np.uint32) + np.uint32(first))
            first += len(entries[-1])
        return CodedStrings(StringValues.concat(entries), np.concatenate(codes))


def _is_utf8(data: NDArray[np.uint8]) -> bool:
    """Decode in pieces: the whole as a `str` takes up to four times its bytes."""
    if len(data) <= _PIECE_BYTES:
        pieces = [data]
    else:
        pieces = [data[start : start + _PIECE_BYTES] for start in range(0, len(data), _PIECE_BYTES)]
    decoder = _Decoder()
    try:
        for piece in pieces:
            decoder.decode(piece.tobytes())
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
