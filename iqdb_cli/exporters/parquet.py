"""Records as Parquet, written batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from iqdb_cli.exporters.arrow import ArrowLayout

if TYPE_CHECKING:
    from iqdb_cli.output import Output
    from iqdb_core.records import RecordBatch


class ArrowSink:
    """An output as the file object that pyarrow writes to."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._written_bytes = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Pass bytes on."""
        self._out.write(data)
        self._written_bytes += len(data)
        return len(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._written_bytes

    def flush(self) -> None:
        """Do nothing: the output is flushed by its owner."""

    def close(self) -> None:
        """Do nothing but remember it: the output is closed by its owner."""
        self.closed = True

    def readable(self) -> bool:
        """Return that it cannot be read."""
        return False

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def seekable(self) -> bool:
        """Return that it only goes forward."""
        return False


class ParquetRecordWriter:
    """Writes records as one Parquet file, a row group for each batch."""

    def __init__(self, layout: ArrowLayout, out: Output) -> None:
        """Begin the file."""
        self._layout = layout
        self._writer = pq.ParquetWriter(
            ArrowSink(out),
            layout.schema,
            compression="zstd",
            # Vectors hardly repeat: a dictionary of them would only be tried and given up.
            use_dictionary=layout.metadata_names(),
            write_statistics=layout.metadata_names(),
        )

    def write(self, records: RecordBatch) -> None:
        """Write one batch."""
        self._writer.write_batch(self._layout.batch(records), row_group_size=max(1, len(records)))

    def finish(self) -> None:
        """Write the footer."""
        self._writer.close()
