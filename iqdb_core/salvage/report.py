"""What a repair reports: the account of every record of the damaged files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from iqdb_core.types import id_to_json

if TYPE_CHECKING:
    from iqdb_core.types import VectorId

What: TypeAlias = Literal["records", "ids", "metadata", "frames", "log", "settings", "doubles", "digest"]


@dataclass(slots=True)
class Loss:
    """Something that could not be kept.

    Attributes:
        what: "records": these rows are gone, because their vectors cannot be read. "ids": their vectors can
            be read but not their ids, so they could not be kept in a database. "metadata": the records were
            kept without their metadata. "frames": these frames of the log are gone. "log": none of its frames
            was applied. "settings": the new file has other settings. "doubles": records whose id another one
            has. "digest": what was read is not what the file's own digest says.
        path: the file in which it was.
        reason: why.
        first: the first row or frame.
        count: how many rows or frames from there on; 0 where it is about neither.
        ids: of the records, where they are known; None where not. Only those of these rows, in their order.
        ranges: the damaged bytes of the file, as (start, stop).
    """

    what: What
    path: str
    reason: str
    first: int = 0
    count: int = 0
    ids: list[VectorId | None] = field(default_factory=list)
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        ids = [None if item is None else id_to_json(item) for item in self.ids]
        return {**asdict(self), "ids": ids, "ranges": [list(item) for item in self.ranges]}


@dataclass(slots=True)
class RepairReport:
    """What a repair kept and what it lost.

    Every row of the snapshot is accounted for once: snapshot_rows = rows_kept + rows_replaced +
    rows_deleted + rows_lost + rows_without_ids + rows_doubled.

    Attributes:
        path: the damaged snapshot.
        output: the new file.
        snapshot_rows: rows that the snapshot had.
        rows_kept: of these, rows that are in the new file as they were.
        rows_replaced: rows whose record the log replaced.
        rows_deleted: rows whose record the log deleted.
        rows_lost: rows whose vector cannot be read.
        rows_without_ids: rows whose vector can be read, and whose id cannot.
        rows_doubled: rows that had the id of another row.
        rows_without_metadata: rows among the kept ones that lost their metadata.
        ids_restored: ids in damaged blocks that follow from the ids beside them.
        log_frames: frames of the log that were applied.
        frames_lost: frames that were there once and could not be applied.
        n_records: records of the new file.
        content_digest: of the new file.
        proved: whether what was read of the snapshot has the digest of its header.
        losses: everything that could not be kept.
        notes: what was done about damage that cost nothing, and what is normal but worth knowing.
    """

    path: str
    output: str
    snapshot_rows: int = 0
    rows_kept: int = 0
    rows_replaced: int = 0
    rows_deleted: int = 0
    rows_lost: int = 0
    rows_without_ids: int = 0
    rows_doubled: int = 0
    rows_without_metadata: int = 0
    ids_restored: int = 0
    log_frames: int = 0
    frames_lost: int = 0
    n_records: int = 0
    content_digest: str = ""
    proved: bool = False
    losses: list[Loss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True when nothing was lost."""
        return not self.losses

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        plain: dict[str, Any] = {"complete": self.complete}
        for name in self.__slots__:
            plain[name] = getattr(self, name)
        plain["losses"] = [loss.to_dict() for loss in self.losses]
        plain["notes"] = list(self.notes)
        return plain
