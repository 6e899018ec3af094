"""Records as JSON lines: one object a record, with the fields id, vector and metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from iqdb_cli.ids import id_to_json, metadata_to_json, to_json

if TYPE_CHECKING:
    from iqdb_cli.output import Output
    from iqdb_core.records import Ids, MetadataColumns, RecordBatch


def write_records(batches: Iterable[RecordBatch], out: Output) -> int:
    """Write records, each vector with the shortest decimals that give its float32 bits back.

    Returns:
        The number of records.
    """
    from iqdb_core import _kernels

    count = 0
    for records in batches:
        vectors = np.ascontiguousarray(records.vectors, np.float32)
        lines = zip(records.ids.to_list(), vectors, _mappings(records.metadata, len(records)), strict=True)
        for record_id, vector, metadata in lines:
            head = f'{{"id":{to_json(id_to_json(record_id))},"vector":'.encode()
            tail = f',"metadata":{metadata}}}\n'.encode()
            out.write(b"".join((head, _kernels.format_f32_json(vector), tail)))
        count += len(records)
    return count


def write_ids(ids: Ids, out: Output) -> None:
    """Write ids, one a line."""
    for record_id in ids.to_list():
        out.write_line(to_json(id_to_json(record_id)))


def write_metadata(metadata: MetadataColumns | None, count: int, out: Output) -> None:
    """Write mappings, one a line; `null` for a record without one."""
    for text in _mappings(metadata, count):
        out.write_line(text)


def _mappings(metadata: MetadataColumns | None, count: int) -> Iterator[str]:
    if metadata is None:
        yield from ["null"] * count
        return
    for mapping in metadata.to_dicts():
        yield to_json(metadata_to_json(mapping))
