"""Records out of another database, of this format or of iqdb 1.x. It is opened read-only."""

from __future__ import annotations

from collections.abc import Generator

from iqdb_cli.exit_codes import UsageError
from iqdb_cli.inputs.reader import InputOptions, SourceBatch, rows_per_batch
from iqdb_cli.inputs.source import BadInputError, ByteSource
from iqdb_core.database import Iqdb


class DatabaseReader:
    """The records of a database in order; see `RecordReader`.

    Attributes:
        config: its configuration.
    """

    def __init__(self, source: ByteSource, options: InputOptions) -> None:
        """Open the database that a source names.

        Raises:
            UsageError: an option says how to find what a database has in its place.
            BadInputError: it comes from standard input.
            PersistError: a leaf says what is wrong with it.
        """
        chosen = (options.id_field, options.vector_field, options.metadata_field, options.columns)
        if any(item is not None for item in chosen) or options.no_metadata:
            raise UsageError(
                f"{source.name}: a database says itself what its records are; leave those options out"
            )
        if source.path == "-":
            raise BadInputError(source.name, "is a database, expected the name of its file")
        self.name = source.name
        source.close()
        self._db = Iqdb.open_existing(source.path, read_only=True)
        self.config = self._db.config
        self.dim = self._db.dim
        self.total_rows: int | None = len(self._db)
        self.notes = [f"{self.name}: {text}" for text in self._db.info()["notes"]]
        self._rows = rows_per_batch(self.dim, options.batch_rows)
        self._read = 0

    def batches(self, first_id: int) -> Generator[SourceBatch]:
        """Yield the records. All of them have an id of their own."""
        del first_id
        for batch in self._db.batches(batch_rows=self._rows):
            yield SourceBatch(batch.ids, batch.vectors, batch.metadata, self._read, self.name)
            self._read += len(batch)

    def fraction(self) -> float | None:
        """Return how much has been read."""
        return self._read / self.total_rows if self.total_rows else None

    def close(self) -> None:
        """Release the database."""
        self._db.close()
