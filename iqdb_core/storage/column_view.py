"""One column of a metadata group, read one value at a time. The layout is that of `columns_layout`."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from iqdb_core.column_type import ColumnType
from iqdb_core.errors import StructureError
from iqdb_core.storage.columns_layout import ALL, BITMAP, DICTIONARY, SPARSE, pad8, presence_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from iqdb_core.types import MetadataValue

_NULL, _BOOL, _INT64, _FLOAT64, _STRING = (int(type_) for type_ in ColumnType)
_U32 = struct.Struct("<I")
_U32_PAIR = struct.Struct("<II")
_U16 = struct.Struct("<H")
_NO_ROWS: dict[int, int] = {}
_NUMBERS = {_INT64: struct.Struct("<q"), _FLOAT64: struct.Struct("<d")}


class GroupBytes:
    """What the columns of a group share. It knows none of them.

    A group and its columns must not refer to one another: its bytes, which may be decoded ones, would then
    stay until the garbage collector looks for cycles, which it does by the number of objects alone.

    Attributes:
        blob: the bytes of the group.
        ensure: called with a range of the blob before bytes of it are looked at.
        n_rows: how many records the group covers.
        mappings: a set of bits as an int; bit i tells whether row i has a mapping.
    """

    __slots__ = ("blob", "ensure", "mappings", "n_rows", "part", "path")

    def __init__(self, blob: memoryview, path: str, part: str, ensure: Callable[[int, int], object]) -> None:
        self.blob = blob
        self.path = path
        self.part = part
        self.ensure = ensure
        self.n_rows = self.mappings = 0

    def damaged(self, what: str, expected: str, found: object) -> StructureError:
        """Return the error that says what of this group is wrong."""
        return StructureError(self.path, f"{self.part}: {what}", expected, found)


class ColumnView:
    """One column of a group: its entry in the directory, and its values one at a time.

    The public attributes are the directory's fields; `values_offset` is where the values begin and
    `end_offset` where the payload ends.
    """

    __slots__ = (
        "_bits",
        "_blob",
        "_codes_offset",
        "_entries",
        "_frame_checked",
        "_group",
        "_presence_checked",
        "_rows",
        "_text_bytes",
        "_text_offset",
        "arrays",
        "count",
        "data_offset",
        "encoding",
        "end_offset",
        "index",
        "key",
        "presence",
        "type",
        "values_offset",
    )

    def __init__(self, group: GroupBytes, index: int, key: str, entry: tuple[Any, ...]) -> None:
        _, _, self.type, self.presence, self.count, self.encoding, _, self.data_offset, data_bytes, _ = entry
        self._group = group
        self._blob = group.blob
        self.index = index
        self.key = key
        self.end_offset = self.data_offset + data_bytes
        self.values_offset = self.data_offset + presence_bytes(self.presence, self.count, group.n_rows)
        self.arrays: Any = None
        """What the array reader keeps here between two uses."""
        self._presence_checked = self._frame_checked = False
        self._bits = 0
        self._rows = _NO_ROWS
        self._entries = self._text_offset = self._text_bytes = self._codes_offset = 0

    def damaged(self, what: str, expected: str, found: object) -> StructureError:
        """Return the error that says what of this column is wrong."""
        return self._group.damaged(f"columns[{self.index}].{what}", expected, found)

    def check_presence(self) -> None:
        """Check, once, which rows have a value."""
        if self._presence_checked:
            return
        group, count = self._group, self.count
        group.ensure(self.data_offset, self.values_offset)
        if self.presence == BITMAP:
            bits = int.from_bytes(self._blob[self.data_offset : self.values_offset], "little")
            if bits.bit_length() > group.n_rows:
                raise self.damaged("presence", f"a bitmap of {group.n_rows} bits", "longer")
            if bits.bit_count() != count:
                raise self.damaged(
                    "presence", f"a bitmap with {count} bits set", f"one with {bits.bit_count()}"
                )
            if bits & ~group.mappings:
                raise self.damaged("presence", "rows that have a mapping", "rows without one")
            self._bits = bits
        elif self.presence == SPARSE:
            rows = struct.unpack_from(f"<{count}H", self._blob, self.data_offset)
            self._check_zeros("presence", self.data_offset + 2 * count, self.values_offset)
            if rows[-1] >= group.n_rows:
                raise self.damaged("presence", f"rows below {group.n_rows}", rows[-1])
            if any(map(int.__ge__, rows, rows[1:])):
                raise self.damaged("presence", "rows that ascend", "rows that do not")
            if not all(group.mappings >> row & 1 for row in rows):
                raise self.damaged("presence", "rows that have a mapping", "rows without one")
            self._rows = dict(zip(rows, range(count), strict=True))
        self._presence_checked = True

    def position(self, row: int) -> int:
        """Return which of the values is that of `row`, or -1 when it has none."""
        if self.presence == ALL:
            return row
        if not self._presence_checked:
            self.check_presence()
        if self.presence == SPARSE:
            return self._rows.get(row, -1)
        below = self._bits & ((2 << row) - 1)
        return below.bit_count() - 1 if below >> row else -1

    def value(self, position: int) -> MetadataValue:
        """Return value number `position`, 0 <= position < count."""
        type_ = self.type
        number = _NUMBERS.get(type_)
        ensure = self._group.ensure
        if number is not None:
            at = self.values_offset + 8 * position
            ensure(at, at + 8)
            found: int | float = number.unpack_from(self._blob, at)[0]
            return found
        if type_ == _NULL:
            return None
        if not self._frame_checked:
            self.check_frame()
        if type_ == _BOOL:
            return bool(self._blob[self.values_offset + (position >> 3)] >> (position & 7) & 1)
        if self.encoding == DICTIONARY:
            at = self._codes_offset + 2 * position
            ensure(at, at + 2)
            (position,) = _U16.unpack_from(self._blob, at)
            if position >= self._entries:
                raise self.damaged("codes", f"codes below {self._entries}", position)
            at = self.values_offset + 8 + 4 * position
        else:
            at = self.values_offset + 4 * position
        ensure(at, at + 8)
        start, stop = _U32_PAIR.unpack_from(self._blob, at)
        if not start <= stop <= self._text_bytes:
            raise self.damaged("offsets", f"ascending up to {self._text_bytes}", f"{start}, {stop}")
        start, stop = self._text_offset + start, self._text_offset + stop
        ensure(start, stop)
        try:
            return str(self._blob[start:stop], "utf-8")
        except UnicodeDecodeError:
            raise self.damaged("value", "UTF-8", f"value {position} that is not") from None

    @property
    def n_entries(self) -> int:
        """How many strings have offsets here: the dictionary's entries, or one for each value."""
        return self._entries if self.encoding == DICTIONARY else self.count

    @property
    def places(self) -> tuple[int, int, int, int]:
        """Where a string column's offsets, text and codes begin, and how long the text is."""
        self.check_frame()
        offsets = self.values_offset + (8 if self.encoding == DICTIONARY else 0)
        return offsets, self._text_offset, self._text_bytes, self._codes_offset

    def check_frame(self) -> None:
        """Check, once, that the parts of the values fill the payload exactly. Takes constant time."""
        if self._frame_checked:
            return
        if self.type == _BOOL:
            self._group.ensure(self.values_offset, self.end_offset)
            bits = int.from_bytes(self._blob[self.values_offset : self.end_offset], "little")
            if bits.bit_length() > self.count:
                raise self.damaged("values", f"a bitmap of {self.count} bits", "longer")
        elif self.type == _STRING:
            self._check_strings()
        self._frame_checked = True

    def _check_strings(self) -> None:
        blob, ensure, offsets = self._blob, self._group.ensure, self.values_offset
        entries = self.count
        # Every payload of strings has 8 bytes of values at least.
        ensure(offsets, offsets + 8)
        if self.encoding == DICTIONARY:
            entries, reserved = _U32_PAIR.unpack_from(blob, offsets)
            if not 0 < 2 * entries <= self.count:
                raise self.damaged("n_entries", f"1..{self.count // 2}", entries)
            if reserved:
                raise self.damaged("reserved", "0", reserved)
            offsets += 8
        text = offsets + 4 * (entries + 1)
        if text > self.end_offset:
            raise self.damaged("data_bytes", "room for the offsets", self.end_offset - self.data_offset)
        ensure(offsets, offsets + 4)
        ensure(text - 4, text)
        (first,) = _U32.unpack_from(blob, offsets)
        (text_bytes,) = _U32.unpack_from(blob, text - 4)
        if first:
            raise self.damaged("offsets[0]", "0", first)
        if self.encoding == DICTIONARY:
            self._check_zeros("offsets", text, pad8(text))
            text = pad8(text)
            self._codes_offset = codes = text + pad8(text_bytes)
            end = codes + pad8(2 * self.count)
        else:
            end = pad8(text + text_bytes)
        if end != self.end_offset:
            expected = f"{end - self.data_offset}, by its offsets"
            raise self.damaged("data_bytes", expected, self.end_offset - self.data_offset)
        if self.encoding == DICTIONARY:
            self._check_zeros("entries", text + text_bytes, self._codes_offset)
            self._check_zeros("codes", self._codes_offset + 2 * self.count, end)
        else:
            self._check_zeros("text", text + text_bytes, end)
        self._entries, self._text_offset, self._text_bytes = entries, text, text_bytes

    def _check_zeros(self, what: str, start: int, stop: int) -> None:
        self._group.ensure(start, stop)
        if any(self._blob[start:stop]):
            raise self.damaged(f"{what} padding", "zero", bytes(self._blob[start:stop]).hex())
