"""Verification of a whole database in three levels: what `iqdb verify` does.

Each level includes the one before. *checksums* reads every byte and compares the checksums. *structure*
decodes every record and log frame, checks every rule of the format, computes the content digest again, and
checks the index: every neighbour, list and code, and which nodes of the graph can be reached. *records* asks
for the records as a user does: every id is looked up, every record read through the reader, a sample
searched for, and the recall of the index measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqdb_core.storage.files import OS_FILES, FileSystem
from iqdb_core.storage.verify import verify_file
from iqdb_core.storage.verify_report import Finding, Level, Progress, SectionResult, VerifyReport

if TYPE_CHECKING:
    import os

    from iqdb_core.storage.layout import Header, SectionEntry
    from iqdb_core.storage.verify import Verifier

__all__ = ["Finding", "Level", "SectionResult", "VerifyReport", "verify"]


def verify(
    path: str | os.PathLike[str],
    *,
    level: Level = "structure",
    sample: int = 200,
    threads: int | None = None,
    progress: Progress | None = None,
    files: FileSystem = OS_FILES,
) -> VerifyReport:
    """Check a database file, its log and its index. Nothing is written.

    Args:
        path: the snapshot.
        level: "checksums", "structure" or "records"; see the module.
        sample: at level records: how many records to search for, chosen at random, the same each time.
        threads: how many to use; None is `IQDB_NUM_THREADS` or all cores.
        progress: called now and then, from any thread but one at a time, with the bytes done and to do.
        files: the file layer.

    Returns:
        The report. `report.index` holds the index kind and, for a graph, `nodes`, `links`, `entries` and
        `unreachable_nodes`, for lists `lists`, `empty_lists`, `largest_list` and `changes_since_training`.
        `report.records` holds `n_records` (log included), `found_by_id`, `n_sampled`, `found_themselves`,
        and of the sample `recall_mean` and `recall_worst` of the 10 nearest, None for an exact index.

    Raises:
        InvalidParameterError: an unknown level, or a negative sample.
        DatabaseNotFoundError, NotADatabaseError, UnsupportedVersionError, UnsupportedFeatureError: there is
            nothing here that could be verified.
        FileIOError: the system refused to read.
    """
    from iqdb_core.errors import InvalidParameterError

    if level not in ("checksums", "structure", "records"):
        raise InvalidParameterError("level", level, '"checksums", "structure" or "records"')
    if sample < 0:
        raise InvalidParameterError("sample", sample, "at least 0")

    def beyond(
        verifier: Verifier, header: Header, entries: list[SectionEntry], bad: dict[str, set[int]]
    ) -> None:
        from iqdb_core.verification.index import check_stored_index
        from iqdb_core.verification.records import check_records

        check_stored_index(verifier, header, entries, bad)
        if level == "records":
            check_records(verifier, header, entries, sample)

    return verify_file(path, level=level, threads=threads, progress=progress, beyond=beyond, files=files)
