"""Metadata groups: encoding them, and reading them row by row or as columns.

The layout is described in `iqdb_core.storage.columns_layout`. A reader checks header and directory, and
therewith the place of everything, when it opens a group; a column's presence and frame when it first
touches the column; and each offset, code and string when it uses it. `GroupView.check` verifies all
that the layout says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqdb_core.column_type import ColumnType
from iqdb_core.storage.column_view import ColumnView, GroupBytes
from iqdb_core.storage.columns_layout import (
    COLUMN_ENTRY,
    COLUMN_ENTRY_BYTES,
    COLUMN_FIELDS,
    DICTIONARY,
    GROUP_FIELDS,
    GROUP_HEADER,
    GROUP_HEADER_BYTES,
    HAS_ALL,
    HAS_BITMAP,
    HAS_NONE,
    MAX_BLOB_WEIGHT,
    PLAIN,
    bitmap_bytes,
    pad8,
    presence_bytes,
    presence_of,
)
from iqdb_core.storage.layout import GROUP_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from iqdb_core.errors import StructureError
    from iqdb_core.record_metadata import MetadataColumns
    from iqdb_core.types import MetadataValue

__all__ = ["COLUMN_FIELDS", "GROUP_FIELDS", "MAX_BLOB_WEIGHT", "ColumnView", "GroupView", "encode_group"]

_NULL, _BOOL, _INT64, _FLOAT64, _STRING = (int(type_) for type_ in ColumnType)


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


class GroupView:
    """Reads one group out of its bytes, row by row without NumPy or as columns with it.

    The bytes may be hostile: whatever they are, every method returns or raises `StructureError`, and
    allocates no more than a small multiple of the blob's size (in `to_columns` of the weight of the rows
    that it returns, for a dictionary's entries are repeated there; a group that weighs more than
    `MAX_BLOB_WEIGHT` is refused before). The buffer is used in place and must not change.

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

    __slots__ = ("_bytes", "_checked_keys", "blob", "columns", "ensure", "mappings", "n_rows")

    def __init__(
        self,
        buf: Any,
        path: str = "<memory>",
        part: str = "metadata group",
        ensure: Callable[[int, int], object] | None = None,
    ) -> None:
        self.ensure = _nothing if ensure is None else ensure
        self.blob = blob = memoryview(buf).cast("B")
        self._bytes = shared = GroupBytes(blob, path, part, self.ensure)
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
        # Unpacked twice: the entries as Python objects take many times what they take as bytes. Not by an
        # `iter_unpack` that lives on meanwhile: with one, CPython 3.11 crashed in its garbage collector.
        places = range(GROUP_HEADER_BYTES, keys_offset, COLUMN_ENTRY_BYTES)
        keys, offset = self._read_keys((COLUMN_ENTRY.unpack_from(blob, at) for at in places), keys_offset)
        offset = self._read_mappings(has, offset)
        shared.n_rows, shared.mappings = self.n_rows, self.mappings
        columns = []
        for index, (key, at) in enumerate(zip(keys, places, strict=True)):
            entry = COLUMN_ENTRY.unpack_from(blob, at)
            offset = self._check_entry(index, entry, offset, has)
            columns.append(ColumnView(shared, index, key, entry))
        if offset != size:
            raise self.damaged("blob_bytes", f"{offset}, by the directory", size)
        self.columns = tuple(columns)
        self._checked_keys: set[str] = set()

    def damaged(self, what: str, expected: str, found: object) -> StructureError:
        """Return the error that says what of this group is wrong."""
        return self._bytes.damaged(what, expected, found)

    def _read_keys(self, entries: Iterator[tuple[Any, ...]], offset: int) -> tuple[list[str], int]:
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

    def to_columns(
        self, keys: Collection[str] | None = None, rows: tuple[int, int] | None = None
    ) -> MetadataColumns:
        """Return the metadata of all records, or only what they have under `keys`.

        Numbers and strings outside of dictionaries refer to the group's buffer; everything else is copied.

        Args:
            keys: leave out all others; None: all.
            rows: only those of the records start..stop; all are checked.
        """
        from iqdb_core.storage.columns_reader import read_columns

        return read_columns(self, keys, rows)

    def check_keys(self, keys: Collection[str]) -> None:
        """Check, once, all that the records have under `keys`, as `to_columns` does.

        Raises:
            StructureError: something in these columns contradicts the format.
        """
        if not self._checked_keys.issuperset(keys):
            from iqdb_core.storage.columns_reader import check_columns

            check_columns(self, keys)
            self._checked_keys.update(keys)

    def check(self, columns: MetadataColumns | None = None) -> None:
        """Check everything that the format says of a group.

        Args:
            columns: what `to_columns` returned for all of it, where that is at hand.

        Raises:
            StructureError: something is wrong, or the content has another, canonical encoding.
        """
        # Decoding checks all relations within the group; what is left, such as padding, order and the
        # choice of encodings, is right exactly when encoding again gives the same bytes.
        from iqdb_core.storage.columns_reader import check_records

        self.ensure(0, len(self.blob))
        columns = self.to_columns() if columns is None else columns
        check_records(self, columns)
        again = encode_group(columns)
        if again != self.blob:
            pairs = enumerate(zip(again, self.blob, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(again), len(self.blob)))
            raise self.damaged("encoding", "the canonical one", f"another from its byte {at} on")
