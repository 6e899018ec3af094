"""The third level: the records, asked for as a user asks for them.

What the levels below found in the bytes, this finds through the reader, the log's replay and the index: that
every record is there under its id, and that a search for a record's own vector comes to it.
"""

from __future__ import annotations

import math
import threading
from array import array
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from iqdb_core import _kernels
from iqdb_core.digest import batch_digest
from iqdb_core.errors import DamagedError, FileIOError, PersistError
from iqdb_core.opening import HandleSettings, open_for_reading
from iqdb_core.recall import Measurement, sample_queries
from iqdb_core.search import search
from iqdb_core.search_request import Request
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.layout import FLAG_DERIVED
from iqdb_core.storage.verify_report import Finding
from iqdb_core.threads import share_out
from iqdb_core.types import DistanceMetric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.hits import Hit
    from iqdb_core.recall import Queries
    from iqdb_core.storage.layout import Header, SectionEntry
    from iqdb_core.storage.snapshot import Snapshot
    from iqdb_core.storage.verify import Verifier
    from iqdb_core.view import View

_K: Final = 10
_BATCH: Final = 256
_SLAB_BYTES: Final = 2 << 20
_PART: Final = "records"
_AT_ZERO: Final = frozenset(
    {DistanceMetric.EUCLIDEAN.tag, DistanceMetric.MANHATTAN.tag, DistanceMetric.HAMMING.tag},
)


def check_records(verifier: Verifier, header: Header, entries: list[SectionEntry], sample: int) -> None:
    """Add to the verifier's report which records cannot be had by id, by reading or by searching."""
    report = verifier.report
    derived = {f"section {entry.name}" for entry in entries if entry.flags & FLAG_DERIVED}
    damaged = {finding.part.split(":")[0] for finding in report.findings}
    if verifier.misled or damaged - derived - {"padding"}:
        report.notes.append("the records were not asked for: what was found before stands in the way")
        return
    try:
        store = open_for_reading(verifier.path, HandleSettings(threads=verifier.threads), verifier.files)
    except FileIOError:
        raise
    except PersistError as error:
        # A log that does not belong here, for one; the check of the log reports it.
        report.notes.append(f"the records were not asked for: {error}")
        return
    try:
        view = store.view()
        facts: dict[str, Any] = {"n_records": view.n_records}
        report.records |= facts
        try:
            _read_all(verifier, view, header)
            _ask(verifier, view, sample, index_whole=not damaged & derived)
        except DamagedError as error:
            _found(verifier, str(error), "this record, or one beside it, cannot be read")
    finally:
        store.close()


def _found(verifier: Verifier, problem: str, effect: str) -> None:
    verifier.report.findings.append(Finding(verifier.path, _PART, 0, 0, problem, effect))


def _read_all(verifier: Verifier, view: View, header: Header) -> None:
    """Look up every id, and read every record of the snapshot through the reader."""
    snapshot = view.base.snapshot
    parts: list[tuple[int, int | None, ContentDigest]] = []
    guard = threading.Lock()

    def ask(rows: tuple[int, int]) -> None:
        start, stop = rows
        batch = snapshot.slice(start, stop)
        right = snapshot.find_many(batch.ids) == np.arange(start, stop)
        found = int(np.count_nonzero(right))
        lost = None if found == stop - start else start + int(np.argmin(right))
        digest = batch_digest(batch)
        with guard:
            parts.append((found, lost, digest))
        verifier.advance(4 * snapshot.dim * (stop - start))

    share_out(verifier.threads, _slabs(snapshot), ask, "iqdb-verify")
    found = sum(found for found, _, _ in parts)
    lost = min((row for _, row, _ in parts if row is not None), default=None)
    total = ContentDigest()
    for _, _, digest in parts:
        total = total.plus(digest)
    verifier.report.records["found_by_id"] = found
    if lost is not None:
        problem = f"{snapshot.n_rows - found} ids lead to another record or none; the first is that of row "
        _found(verifier, f"{problem}{lost}", "get, delete and upsert of these ids go wrong; searches work")
    expected = ContentDigest.from_bytes(header.content_digest)
    if total != expected:
        problem = f"read by the reader they have the digest {total.hex()}, the header says {expected.hex()}"
        _found(verifier, problem, "a record is read as something else than was stored")


def _slabs(snapshot: Snapshot) -> list[tuple[int, int]]:
    """Return ranges of rows to be read at once: metadata is decoded by whole groups."""
    if snapshot.has_metadata:
        return [snapshot.group_rows(group) for group in range(snapshot.n_groups)]
    step = max(1, _SLAB_BYTES // (4 * snapshot.dim))
    return [(start, min(start + step, snapshot.n_rows)) for start in range(0, snapshot.n_rows, step)]


def _ask(verifier: Verifier, view: View, sample: int, *, index_whole: bool) -> None:
    """Search for a sample of the records, exactly and through the index."""
    queries = sample_queries(view, sample)
    facts = verifier.report.records
    facts["n_sampled"] = len(queries)
    facts |= {"found_themselves": 0, "recall_mean": None, "recall_worst": None}
    if not len(queries):
        return
    measured = bool(view.base.index.parameters) and index_whole
    if measured:
        # One search serves both: its first hits are those of a search for fewer.
        request = Request(_K + 1, None, exact=True, parameters={})
    else:
        # A record is at distance 0 from its own vector, and a search for what is there alone takes less time.
        own = 0.0 if view.base.snapshot.metric in _AT_ZERO else math.inf
        request = Request(_K, None, own, exact=True, parameters={})
    exact = _exact_hits(view, queries, request, verifier.threads)
    missed = _missed(view, queries, exact, verifier.threads)
    facts["found_themselves"] = len(queries) - len(missed)
    if missed:
        problem = f"exact search for a record's own vector does not come to it, for {len(missed)} of "
        _found(
            verifier, f"{problem}{len(queries)}; the first has the id {missed[0]!r}", "searches miss records"
        )
    if measured:
        shares = Measurement(view, queries, _K, None, verifier.threads, exact).recalls(view, {})
        facts["recall_mean"] = float(shares.mean())
        facts["recall_worst"] = float(shares.min())


def _exact_hits(view: View, queries: Queries, request: Request, threads: int) -> list[list[Hit]]:
    found: list[list[Hit]] = []
    for start in range(0, len(queries), _BATCH):
        batch = queries.vectors[start : start + _BATCH]
        found += search(view, batch, len(batch), request, threads)
    return found


def _missed(view: View, queries: Queries, exact: list[list[Hit]], threads: int) -> list[Any]:
    """Return the ids of records that are not among the hits of their own vector, though they should be.

    A record may stand behind others that are as near as it is, or, under the inner product, nearer.
    """
    assert queries.own_ids is not None
    missed = []
    for number, (own, found) in enumerate(zip(queries.own_ids, exact, strict=True)):
        hits = found[:_K]
        if any(hit.id == own and type(hit.id) is type(own) for hit in hits):
            continue
        nearer = len(hits) == min(_K, view.n_records)
        if not nearer or _own_distance(view, queries.vectors[number], threads) < hits[-1].distance:
            missed.append(own)
    return missed


def _own_distance(view: View, vector: NDArray[np.float32], threads: int) -> float:
    """Return the distance of a record from its own vector."""
    query = np.ascontiguousarray(vector).reshape(1, -1)
    rows, distances, counts = array("q", [-1]), array("d", [0.0]), array("q", [0])
    metric = view.base.snapshot.metric
    _kernels.search_flat(query, query, metric, 1, rows, distances, counts, threads=threads)
    return distances[0]
