"""One metadata group: the metadata of up to 16,384 consecutive records as typed columns.

A group is a self-contained blob. Snapshots keep one after the other in the section `meta.data`, log
frames in their metadata block. All integers are little-endian, all offsets count from the start of the
blob, every part below begins at a multiple of 8, and `pad8(x)` is x rounded up to a multiple of 8. Bytes
that are reserved or only pad are zero. The encoding is canonical: one content has one encoding.

The blob is, without holes:

1. Header, 16 bytes (`GROUP_FIELDS`):

   ======  ====  ================  ============================================================
   offset  size  field             meaning
   ======  ====  ================  ============================================================
   0       4     n_rows            1..16384
   4       4     n_columns         columns, each a pair of key and type that occurs
   8       1     has_metadata      0: every row has a mapping; 1: those of the bitmap have one;
                                   2: none has (then n_columns is 0)
   9       3     reserved          zero
   12      4     blob_bytes        the length of the blob, a multiple of 8
   ======  ====  ================  ============================================================

2. Directory: `n_columns` entries of 32 bytes (`COLUMN_FIELDS`), strictly ascending by (key as bytes, type):

   ======  ====  ================  ============================================================
   0       4     key_offset        where the key begins
   4       2     key_bytes         its length, 0..65535; UTF-8
   6       1     type              1 null, 2 bool, 3 int64, 4 float64, 5 string
   7       1     presence          0: every row has a value; 1: bitmap; 2: sparse
   8       4     count             rows that have a value, 1..n_rows
   12      1     encoding          0 plain; 1 dictionary (strings only)
   13      3     reserved          zero
   16      4     data_offset       where the payload begins
   20      4     data_bytes        its length, a multiple of 8
   24      8     reserved          zero
   ======  ====  ================  ============================================================

3. Keys: the distinct keys one after the other in ascending order, then zeros to `pad8`. Entries of one
   key (of different types) have the same `key_offset`.
4. When `has_metadata` is 1: a bitmap of n_rows bits. At least one bit is set and one is not.
5. The payloads, in the order of the directory. Each is its presence, then its values:

   - presence 0: nothing. presence 1: a bitmap of n_rows bits, `count` of them set. presence 2: u16[count],
     the rows, strictly ascending, below n_rows, then zeros to `pad8`. Presence is 0 when count = n_rows, else
     2 when pad8(2 * count) is less than the bitmap's bytes, else 1.
   - values, one for each row that has one, in row order: null: nothing. bool: a bitmap of `count` bits.
     int64, float64: 8 bytes each; a float's bits are kept as they are, NaN included.
   - string, plain: u32 offsets[count + 1], then the bytes, then zeros to `pad8`. offsets[0] is 0, offsets
     never descend, and value i is the bytes offsets[i]..offsets[i + 1] behind the offsets, in UTF-8.
   - string, dictionary: u32 n_entries, u32 reserved, u32 offsets[n_entries + 1] and zeros to `pad8`, the
     entries' bytes and zeros to `pad8`, u16 codes[count] and zeros to `pad8`. Entries are distinct and
     ascend as bytes, value i is entry codes[i], every entry is used. A string column is stored in this
     way exactly when 2 * n_entries <= count.

A bitmap of b bits is u64[ceil(b / 64)]; bit i is bit i mod 64 of word i div 64; bits from b on are zero.
No row has values in two columns of one key, and a row without a mapping has none at all. The weights
of the rows (per key: 16 + the key's bytes + a string value's bytes) add up to at most 256 MiB.

A reader checks header and directory, and therewith the place of everything, when it opens a group; a
column's presence and frame when it first touches the column; and each offset, code and string when it
uses it. `check` verifies all that is said above.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from iqdb_core.column_type import ColumnType
from iqdb_core.errors import StructureError
from iqdb_core.storage.layout import GROUP_ROWS, MAX_FRAME_BYTES, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from iqdb_core.record_metadata import MetadataColumns
    from iqdb_core.types import MetadataValue

GROUP_HEADER_BYTES = 16
COLUMN_ENTRY_BYTES = 32

GROUP_FIELDS = (
    Field("n_rows", 0, 4, "u32"),
    Field("n_columns", 4, 4, "u32"),
    Field("has_metadata", 8, 1, "u8"),
    Field("reserved", 9, 3, "zero"),
    Field("blob_bytes", 12, 4, "u32"),
)
COLUMN_FIELDS = (
    Field("key_offset", 0, 4, "u32"),
    Field("key_bytes", 4, 2, "u16"),
    Field("type", 6, 1, "u8"),
    Field("presence", 7, 1, "u8"),
    Field("count", 8, 4, "u32"),
    Field("encoding", 12, 1, "u8"),
    Field("reserved", 13, 3, "zero"),
    Field("data_offset", 16, 4, "u32"),
    Field("data_bytes", 20, 4, "u32"),
    Field("reserved2", 24, 8, "zero"),
)
GROUP_HEADER = struct.Struct("<IIB3sI")
COLUMN_ENTRY = struct.Struct("<IHBBIB3sII8s")
assert GROUP_HEADER.size == GROUP_HEADER_BYTES
assert COLUMN_ENTRY.size == COLUMN_ENTRY_BYTES

ALL, BITMAP, SPARSE = 0, 1, 2
"""Presence of a column's values."""
HAS_ALL, HAS_BITMAP, HAS_NONE = 0, 1, 2
"""Presence of the mappings themselves."""
PLAIN, DICTIONARY = 0, 1
"""Encodings."""

MAX_BLOB_WEIGHT = MAX_FRAME_BYTES
"""The most that the weights of a group's rows may add up to; bounds what decoding allocates."""

_NULL, _BOOL, _INT64, _FLOAT64, _STRING = (int(type_) for type_ in ColumnType)
_U32 = struct.Struct("<I")
_U32_PAIR = struct.Struct("<II")
_U16 = struct.Struct("<H")
_NUMBERS = {_INT64: struct.Struct("<q"), _FLOAT64: struct.Struct("<d")}


def pad8(size: int) -> int:
    """Return `size` rounded up to a multiple of 8."""
    return (size + 7) & -8


def bitmap_bytes(bits: int) -> int:
    """Return how many bytes a bitmap of that many bits takes."""
    return (bits + 63) // 64 * 8


def presence_of(count: int, n_rows: int) -> int:
    """Return which presence a column of `count` values in `n_rows` rows must have."""
    if count == n_rows:
        return ALL
    return SPARSE if pad8(2 * count) < bitmap_bytes(n_rows) else BITMAP


def presence_bytes(presence: int, count: int, n_rows: int) -> int:
    """Return how many bytes a column's presence takes."""
    if presence == ALL:
        return 0
    return bitmap_bytes(n_rows) if presence == BITMAP else pad8(2 * count)


def encode_group(columns: MetadataColumns) -> bytes:
    """Return the blob that holds the metadata of 1..16384 records.

    Raises:
        BatchTooLargeError: the records weigh more than `MAX_BLOB_WEIGHT` together.
    """
    # The encoder works on arrays; a reader of single rows must not have to import NumPy.
    from iqdb_core.storage.columns_writer import encode_group as encode

    return encode(columns)


def _nothing(_start: int, _stop: int) -> None:
    """Stand in for `ensure` where all bytes are verified already."""


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

    def __init__(self, group: GroupView, index: int, key: str, entry: tuple[Any, ...]) -> None:
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
        self._rows: dict[int, int] = {}
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


class GroupView:
    """Reads one group out of its bytes, row by row without NumPy or as columns with it.

    The bytes may be hostile: whatever they are, every method returns or raises `StructureError`, and
    allocates no more than a small multiple of the blob's size (of `MAX_BLOB_WEIGHT` in `to_columns`,
    for a dictionary's entries are repeated there). The buffer is used in place and must not change.

    Args:
        buf: the blob.
        path: the file, for errors.
        part: what the group is called in errors.
        ensure: called with a range of the blob before bytes of that range are looked at; it verifies
            or decodes them, or raises. None when all of them can be looked at.

    Attributes:
        n_rows: how many records the group covers.
        columns: the columns, in the directory's order.
        mappings: a set of bits as an int; bit i tells whether row i has a mapping.
    """

    __slots__ = ("blob", "columns", "ensure", "mappings", "n_rows", "part", "path")

    def __init__(
        self,
        buf: Any,
        path: str = "<memory>",
        part: str = "metadata group",
        ensure: Callable[[int, int], object] | None = None,
    ) -> None:
        self.path = path
        self.part = part
        self.ensure = _nothing if ensure is None else ensure
        self.blob = blob = memoryview(buf).cast("B")
        size = len(blob)
        if size < GROUP_HEADER_BYTES:
            raise self.damaged("size", f"at least {GROUP_HEADER_BYTES} bytes", size)
        self.ensure(0, GROUP_HEADER_BYTES)
        self.n_rows, n_columns, has, reserved, blob_bytes = GROUP_HEADER.unpack_from(blob)
        if blob_bytes != size or size % 8:
            raise self.damaged("blob_bytes", f"{size}, a multiple of 8", blob_bytes)
        if not 0 < self.n_rows <= GROUP_ROWS:
            raise self.damaged("n_rows", f"1..{GROUP_ROWS}", self.n_rows)
        if has > HAS_NONE or (has == HAS_NONE and n_columns):
            raise self.damaged("has_metadata", "0, 1 or, without columns, 2", has)
        if any(reserved):
            raise self.damaged("reserved", "zero", reserved.hex())
        keys_offset = GROUP_HEADER_BYTES + COLUMN_ENTRY_BYTES * n_columns
        if keys_offset > size:
            raise self.damaged("n_columns", f"at most {(size - 16) // COLUMN_ENTRY_BYTES}", n_columns)
        self.ensure(GROUP_HEADER_BYTES, keys_offset)
        entries = list(COLUMN_ENTRY.iter_unpack(blob[GROUP_HEADER_BYTES:keys_offset]))
        keys, offset = self._read_keys(entries, keys_offset)
        offset = self._read_mappings(has, offset)
        columns = []
        for index, (key, entry) in enumerate(zip(keys, entries, strict=True)):
            offset = self._check_entry(index, entry, offset, has)
            columns.append(ColumnView(self, index, key, entry))
        if offset != size:
            raise self.damaged("blob_bytes", f"{offset}, by the directory", size)
        self.columns = tuple(columns)

    def damaged(self, what: str, expected: str, found: object) -> StructureError:
        """Return the error that says what of this group is wrong."""
        return StructureError(self.path, f"{self.part}: {what}", expected, found)

    def _read_keys(self, entries: list[tuple[Any, ...]], offset: int) -> tuple[list[str], int]:
        """Return each column's key and where the part behind the keys begins."""
        size = len(self.blob)
        keys: list[str] = []
        last: tuple[bytes, int] | None = None
        for index, (key_offset, key_bytes, type_, *_) in enumerate(entries):
            if (
                last is not None
                and key_offset == offset - len(last[0])
                and key_bytes == len(last[0])
                and (type_ > last[1])
            ):
                keys.append(keys[-1])
                last = (last[0], type_)
                continue
            if key_offset != offset:
                raise self.damaged(f"columns[{index}].key_offset", str(offset), key_offset)
            offset += key_bytes
            if offset > size:
                raise self.damaged(f"columns[{index}].key_bytes", f"within {size} bytes", key_bytes)
            self.ensure(key_offset, offset)
            key = bytes(self.blob[key_offset:offset])
            if last is not None and key <= last[0]:
                raise self.damaged(f"columns[{index}]", "greater than the entry before", "not")
            try:
                keys.append(key.decode())
            except UnicodeDecodeError:
                raise self.damaged(f"columns[{index}].key", "UTF-8", repr(key[:64])) from None
            last = (key, type_)
        end = pad8(offset)
        self.ensure(offset, end)
        if end > size or any(self.blob[offset:end]):
            raise self.damaged("padding behind the keys", "zero", bytes(self.blob[offset:end]).hex())
        return keys, end

    def _read_mappings(self, has: int, offset: int) -> int:
        """Set `mappings` and return where the payloads begin."""
        n_rows = self.n_rows
        every = (1 << n_rows) - 1
        if has != HAS_BITMAP:
            self.mappings = every if has == HAS_ALL else 0
            return offset
        end = offset + bitmap_bytes(n_rows)
        if end > len(self.blob):
            raise self.damaged("has_metadata bitmap", f"{end - offset} bytes", len(self.blob) - offset)
        self.ensure(offset, end)
        self.mappings = int.from_bytes(self.blob[offset:end], "little")
        if not 0 < self.mappings < every:
            raise self.damaged("has_metadata bitmap", f"some but not all of {n_rows} bits", "not so")
        return end

    def _check_entry(self, index: int, entry: tuple[Any, ...], offset: int, has: int) -> int:
        """Check that a column's payload begins at `offset`, and return where it ends."""
        _, _, type_, presence, count, encoding, reserved, data_offset, data_bytes, reserved2 = entry
        part = f"columns[{index}]"
        if not _NULL <= type_ <= _STRING:
            raise self.damaged(f"{part}.type", f"{_NULL}..{_STRING}", type_)
        if not 0 < count <= self.n_rows or (has == HAS_BITMAP and count == self.n_rows):
            raise self.damaged(f"{part}.count", f"1..{self.n_rows - (has == HAS_BITMAP)}", count)
        if presence != presence_of(count, self.n_rows):
            raise self.damaged(f"{part}.presence", str(presence_of(count, self.n_rows)), presence)
        if encoding > (DICTIONARY if type_ == _STRING else PLAIN):
            raise self.damaged(f"{part}.encoding", "0, or 1 for strings", encoding)
        if any(reserved) or any(reserved2):
            raise self.damaged(f"{part}.reserved", "zero", (reserved + reserved2).hex())
        if data_offset != offset:
            raise self.damaged(f"{part}.data_offset", str(offset), data_offset)
        least = presence_bytes(presence, count, self.n_rows)
        if type_ == _STRING:
            least += 8
        elif type_ == _BOOL:
            least += bitmap_bytes(count)
        elif type_ != _NULL:
            least += 8 * count
        fits = data_bytes >= least if type_ == _STRING else data_bytes == least
        if not fits or data_bytes % 8 or data_bytes > len(self.blob) - offset:
            raise self.damaged(
                f"{part}.data_bytes", f"{least}, or more for strings, within the group", data_bytes
            )
        return offset + int(data_bytes)

    def row(self, row: int) -> dict[str, MetadataValue] | None:
        """Return the metadata of one record, 0 <= row < n_rows; its keys are sorted."""
        if not 0 <= row < self.n_rows:
            message = f"row {row} of {self.n_rows}"
            raise IndexError(message)
        if not self.mappings >> row & 1:
            return None
        result: dict[str, MetadataValue] = {}
        for column in self.columns:
            position = column.position(row)
            if position >= 0:
                if column.key in result:
                    raise column.damaged("presence", "one value for a key and a row", "two")
                result[column.key] = column.value(position)
        return result

    def to_columns(self, keys: Collection[str] | None = None) -> MetadataColumns:
        """Return the metadata of all records, or only what they have under `keys`.

        Numbers refer to the group's buffer; everything else is copied.
        """
        from iqdb_core.storage.columns_reader import read_columns

        return read_columns(self, keys)

    def check(self) -> None:
        """Check everything that the format says of a group.

        Raises:
            StructureError: something is wrong, or the content has another, canonical encoding.
        """
        # Decoding checks all relations within the group; what is left, such as padding, order and the
        # choice of encodings, is right exactly when encoding again gives the same bytes.
        self.ensure(0, len(self.blob))
        again = encode_group(self.to_columns())
        if again != self.blob:
            pairs = enumerate(zip(again, self.blob, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(again), len(self.blob)))
            raise self.damaged("encoding", "the canonical one", f"another from its byte {at} on")
