"""What the operations on a whole database report."""

from __future__ import annotations

from dataclasses import dataclass

from iqdb_core.plain_dicts import PlainFields


@dataclass(frozen=True)
class FoldReport(PlainFields):
    """What a compaction (`compact`, `flush` or `close`) did.

    Attributes:
        changed: whether a new snapshot was written; False when there was nothing to fold.
        n_rows: records afterwards.
        rows_folded: rows that came out of the log.
        rows_removed: rows of the old snapshot that were replaced or deleted.
        bytes_before: length of the snapshot before, in bytes.
        bytes_after: length of the snapshot afterwards, in bytes.
        log_bytes: length of the log that was folded in, in bytes.
        digest: the content digest of the database, 32 hexadecimal digits.
    """

    changed: bool
    n_rows: int
    rows_folded: int
    rows_removed: int
    bytes_before: int
    bytes_after: int
    log_bytes: int
    digest: str


@dataclass(frozen=True)
class BulkReport(PlainFields):
    """What a bulk load did.

    Attributes:
        rows_read: records that the source gave.
        rows_added: of these, records with an id that the database did not have.
        rows_replaced: records of the database that were replaced.
        n_rows: records afterwards.
        digest: the content digest of the database, 32 hexadecimal digits.
    """

    rows_read: int
    rows_added: int
    rows_replaced: int
    n_rows: int
    digest: str


@dataclass(frozen=True)
class OptimizeReport(PlainFields):
    """What `Iqdb.optimize` did.

    Attributes:
        index: the index kind, as it is now.
        changed: whether anything was rebuilt.
        reason: what was done, or why nothing was.
        n_rows: records.
        bytes_before: length of the snapshot and its log before, in bytes.
        bytes_after: length of the snapshot afterwards, in bytes.
        index_bytes_before: bytes of the index before.
        index_bytes_after: bytes of the index afterwards.
        seconds: time for building and writing, without the measuring.
        recall_before: mean recall of the 10 nearest before, in 0 to 1; None for an index that is exact,
            was damaged, or was not measured.
        recall_after: the same afterwards.
        n_sampled: stored records that recall was measured with.
    """

    index: str
    changed: bool
    reason: str
    n_rows: int
    bytes_before: int
    bytes_after: int
    index_bytes_before: int
    index_bytes_after: int
    seconds: float
    recall_before: float | None
    recall_after: float | None
    n_sampled: int
