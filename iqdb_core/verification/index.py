"""The index of a snapshot, checked by what its kind says (`iqdb_core.index.check`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from iqdb_core.errors import DamagedError
from iqdb_core.index.check import MISLEADS, Stored, check_index
from iqdb_core.indexing import SnapshotVectors
from iqdb_core.storage.layout import FLAG_DERIVED, INDEX_KIND_TAGS, VECTORS, Header, SectionEntry
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.verify import problem_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.storage.section import Section
    from iqdb_core.storage.verify import Verifier

_KINDS = {tag: name for name, tag in INDEX_KIND_TAGS.items()}


def check_stored_index(
    verifier: Verifier, header: Header, entries: list[SectionEntry], bad: dict[str, set[int]]
) -> None:
    """Add to the verifier's report what is wrong with the index, beyond wrong checksums."""
    report = verifier.report
    kind = _KINDS[header.index_kind]
    report.index["kind"] = kind
    try:
        snapshot = Snapshot.open(verifier.path, verifier.files, file=verifier.file)
    except DamagedError:
        report.notes.append("the index was not checked: the database cannot be opened")
        return
    stored = _stored(verifier, snapshot, kind, bad)
    checked = check_index(kind, stored)
    places = {entry.name: (entry.offset, entry.stored_bytes) for entry in entries}
    for fault in checked.faults:
        offset, length = places.get(fault.array, (0, 0))
        verifier.found(f"section {fault.array}", offset, length, fault.problem, fault.effect)
        verifier.misled = verifier.misled or fault.effect == MISLEADS
    report.index |= checked.facts
    report.notes += checked.notes


def _stored(verifier: Verifier, snapshot: Snapshot, kind: str, bad: dict[str, set[int]]) -> Stored:
    arrays: dict[str, NDArray[Any]] = {}
    damaged = set()
    known = {finding.part.split(":")[0] for finding in verifier.report.findings}
    for name, section in snapshot.sections.items():
        if not section.entry.flags & FLAG_DERIVED or not name.startswith(f"{kind}."):
            continue
        if bad[name] or f"section {name}" in known:
            damaged.add(name)
            continue
        try:
            arrays[name] = _array(section, verifier.threads)
        except DamagedError as error:
            entry = section.entry
            effect = "the index has to be rebuilt; the records are whole"
            verifier.found(f"section {name}", entry.offset, entry.stored_bytes, problem_of(error), effect)
            damaged.add(name)
    width = 4 * snapshot.dim

    def progress(rows: int) -> None:
        verifier.advance(width * rows)

    vectors_known = bad[VECTORS] or f"section {VECTORS}" in known
    if not vectors_known and snapshot.n_rows:
        try:
            snapshot.sections[VECTORS].trust()
        except DamagedError:  # somebody has written to the file since
            vectors_known = True
    return Stored(
        settings=snapshot.config["index"],
        metric=snapshot.metric,
        n_rows=snapshot.n_rows,
        dim=snapshot.dim,
        arrays=arrays,
        damaged=frozenset(damaged),
        vectors=None if vectors_known else SnapshotVectors(snapshot, verifier.threads),
        thorough=verifier.report.level == "records",
        threads=verifier.threads,
        progress=progress,
    )


def _array(section: Section, threads: int) -> NDArray[Any]:
    """Return a section's array. Its blocks were compared a moment ago, so that is not done again."""
    raw = section.read(0, section.raw_bytes, threads=threads) if section.compressed else section.unverified()
    return np.frombuffer(raw, _numpy_type(section.dtype.name)).reshape(section.shape)


def _numpy_type(name: str) -> str:
    """Return NumPy's name of an element type: "f4" for "f32"."""
    return f"{name[0]}{int(name[1:]) // 8}"
