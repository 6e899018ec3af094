"""The second level of verification: every record is decoded and checked, and the content digest computed."""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from iqdb_core import _kernels
from iqdb_core.digest import digest_of_parts
from iqdb_core.errors import ChecksumError, DamagedError, StructureError
from iqdb_core.records import Ids, MetadataColumns
from iqdb_core.storage.columns import GroupView
from iqdb_core.storage.digest_value import ContentDigest
from iqdb_core.storage.layout import (
    FLAG_DERIVED,
    GROUP_ROWS,
    ID_BYTES,
    ID_ENCODING_U64,
    ID_KINDS,
    ID_OFFSETS,
    ID_ORDER,
    IDS,
    MAX_GROUP_WEIGHT,
    MAX_KEYS_PER_RECORD,
    MAX_RECORD_WEIGHT,
    META_DATA,
    META_GROUPS,
    META_ROWS,
    VECTORS,
    Header,
    SectionEntry,
)
from iqdb_core.storage.stored_section import StoredSection
from iqdb_core.storage.verify import effect_of, problem_of
from iqdb_core.storage.verify_blocks import read_with_records
from iqdb_core.storage.verify_report import Finding
from iqdb_core.storage.verify_vectors import VectorCheck
from iqdb_core.threads import share_out

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from iqdb_core.storage.verify import Verifier
    from iqdb_core.storage.verify_blocks import SectionBlocks

_STEP_BYTES = 2 << 20
_ORDER_STEP = 1 << 16
_NOT_CANONICAL = "none when reading: another program has written bytes that iqdb would not have written"


class _Part(NamedTuple):
    """What came out of a range of rows. `digest` is None when not every record could be read."""

    digest: ContentDigest | None
    findings: list[Finding]
    any_mapping: bool


class _Slab(NamedTuple):
    """Rows start..stop of the range `part`, whose vectors are read by one thread."""

    part: int
    start: int
    stop: int


class _Open:
    """A range of rows while its vectors are being read, perhaps by several threads.

    Attributes:
        hashes: of the vectors.
        left: slabs that are still to be read.
        complete: whether all vectors that were read so far could be.
        findings: what is wrong with the vectors, by the slab's first row.
    """

    def __init__(self, n_rows: int, slabs: int) -> None:
        self.hashes = np.empty((n_rows, 2), np.uint64)
        self.left = slabs
        self.complete = True
        self.findings: dict[int, Finding] = {}


def verify_records(verifier: Verifier, header: Header, sections: list[SectionBlocks]) -> None:
    """Add to the verifier's report what is wrong with the records, beyond wrong checksums.

    The checksums of vectors that were left out before are compared, too.
    """
    _Records(verifier, header, sections).run()


class _Records:
    def __init__(self, verifier: Verifier, header: Header, blocks: list[SectionBlocks]) -> None:
        self.verifier = verifier
        self.header = header
        entries = [section.entry for section in blocks]
        self.bad = bad = {section.entry.name: section.bad for section in blocks}
        self.open: dict[int, _Open] = {}
        self.guard = threading.Lock()
        self.entries = {entry.name: entry for entry in entries}
        self.sections: dict[str, StoredSection] = {}
        for name, entry in self.entries.items():
            try:
                self.sections[name] = StoredSection(entry, header.database_id, verifier.file, verifier.files)
            except ChecksumError:
                pass  # the blocks have been reported
            except StructureError as error:
                effect = effect_of(entry, header, 0, 1)
                verifier.found(f"section {name}", entry.offset, entry.stored_bytes, problem_of(error), effect)
            else:
                if entry.codec and not bad[name]:
                    self._chunk_padding(entry)
        unread = next((section for section in blocks if read_with_records(section)), None)
        self.vectors = VectorCheck(header.dim, unread, self.sections.get(VECTORS), self.finding)

    def finding(
        self, name: str, what: str, problem: str, effect: str, start: int = 0, stop: int = -1
    ) -> Finding:
        """Return a finding about the raw bytes start..stop of a section."""
        entry = self.entries[name]
        if entry.codec or stop < 0:
            start, stop = 0, entry.stored_bytes
        part = f"section {name}: {what}" if what else f"section {name}"
        return Finding(self.verifier.path, part, entry.offset + start, stop - start, problem, effect)

    def _chunk_padding(self, entry: SectionEntry) -> None:
        """Check the zeros between the chunks of a section and their offsets."""
        at = entry.stored_bytes - 8 * (-(-entry.raw_bytes // entry.chunk_bytes) + 1)
        tail = self.verifier.files.read(self.verifier.file, 8, entry.offset + entry.stored_bytes - 8)
        end = int.from_bytes(tail, "little")
        if any(self.verifier.files.read(self.verifier.file, at - end, entry.offset + end)):
            self.verifier.found(
                f"section {entry.name}: padding", entry.offset + end, at - end, "not zero", _NOT_CANONICAL
            )

    def add(self, finding: Finding) -> None:
        self.verifier.report.findings.append(finding)

    def run(self) -> None:
        report = self.verifier.report
        ranges, groups = self._ranges()
        parts: list[_Part] = [_Part(None, [], any_mapping=True)] * (len(ranges) - 1)
        step = max(1, _STEP_BYTES // (4 * self.header.dim))
        slabs = [
            _Slab(part, first, min(first + step, stop))
            for part, (start, stop) in enumerate(pairwise(ranges))
            for first in range(start, stop, step)
        ]

        def read(slab: _Slab) -> None:
            part, start, stop = slab.part, ranges[slab.part], ranges[slab.part + 1]
            with self.guard:
                state = self.open.get(part)
                if state is None:
                    state = self.open[part] = _Open(stop - start, -(-(stop - start) // step))
            hashes = state.hashes[slab.start - start : slab.stop - start]
            complete, finding = self.vectors.check(slab.start, slab.stop, hashes)
            self.verifier.advance(4 * self.header.dim * (slab.stop - slab.start))
            with self.guard:
                state.complete = state.complete and complete
                if finding is not None:
                    state.findings[slab.start] = finding
                state.left -= 1
                if state.left:
                    return
                del self.open[part]
            parts[part] = self._part(part, ranges, groups, state)

        share_out(self.verifier.threads, slabs, read, "iqdb-verify")
        total: ContentDigest | None = ContentDigest()
        for part in parts:
            report.findings += part.findings
            total = None if total is None or part.digest is None else total.plus(part.digest)
        if META_ROWS in self.entries and total is not None and not any(part.any_mapping for part in parts):
            self.add(self.finding(META_ROWS, "", "is there, though no record has metadata", _NOT_CANONICAL))
        self._ids()
        self._derived()
        if total is None:
            report.notes.append("the content digest was not computed: not every record can be read")
            return
        report.content_digest = total.hex()
        expected = ContentDigest.from_bytes(self.header.content_digest)
        if total != expected:
            report.findings.append(
                Finding(
                    self.verifier.path,
                    "content digest",
                    96,
                    16,
                    f"the records have {total.hex()}, the header says {expected.hex()}",
                    "the file holds other records than its writer meant; each can be read",
                )
            )

    # --- Records, range by range --------------------------------------------------------------------

    def _ranges(self) -> tuple[list[int], list[int] | None]:
        """Return the rows at which metadata groups begin and end, and where their bytes do."""
        n_rows = self.header.n_rows
        default = [*range(0, n_rows, GROUP_ROWS), n_rows]
        if META_ROWS not in self.entries:
            return default, []
        bounds: list[list[int]] = []
        for name, end in ((META_ROWS, n_rows), (META_GROUPS, self.entries[META_DATA].raw_bytes)):
            section = self.sections.get(name)
            if section is None or self.bad[name]:
                return default, None
            values = np.frombuffer(section.read_all(), np.uint64).tolist()
            if values[0] != 0 or values[-1] != end or any(a >= b for a, b in pairwise(values)):
                effect = effect_of(self.entries[name], self.header, 0, 1)
                self.add(self.finding(name, "", f"does not ascend from 0 to {end}", effect))
                return default, None
            bounds.append(values)
        rows, groups = bounds
        if any(b - a > GROUP_ROWS for a, b in pairwise(rows)):
            effect = effect_of(self.entries[META_ROWS], self.header, 0, 1)
            self.add(self.finding(META_ROWS, "", f"has a group of more than {GROUP_ROWS} rows", effect))
            return default, None
        return rows, groups

    def _part(self, part: int, ranges: list[int], groups: list[int] | None, read: _Open) -> _Part:
        """Check what else belongs to a range of rows whose vectors were read."""
        start, stop = ranges[part], ranges[part + 1]
        findings = [finding for _, finding in sorted(read.findings.items())]
        ids = self._ids_of(start, stop, findings)
        metadata = None
        if groups:
            metadata = self._metadata(part, ranges, groups, findings)
        elif groups is None:
            return _Part(None, findings, any_mapping=True)
        if not read.complete or ids is None or (groups and metadata is None):
            return _Part(None, findings, any_mapping=True)
        any_mapping = metadata is not None and (
            metadata.has_metadata is None or bool(metadata.has_metadata.any())
        )
        return _Part(digest_of_parts(ids, read.hashes, metadata), findings, any_mapping)

    def _ids_of(self, start: int, stop: int, findings: list[Finding]) -> Ids | None:
        """Return the ids of a range, checked; None when they cannot be read."""
        try:
            if self.header.id_encoding == ID_ENCODING_U64:
                return Ids.from_u64(np.frombuffer(self.sections[IDS].read(8 * start, 8 * stop), np.uint64))
            kinds = np.frombuffer(self.sections[ID_KINDS].read(start, stop), np.uint8)
            offsets = np.frombuffer(self.sections[ID_OFFSETS].read(8 * start, 8 * stop + 8), np.uint64)
            data = np.frombuffer(self.sections[ID_BYTES].read(int(offsets[0]), int(offsets[-1])), np.uint8)
        except (KeyError, ChecksumError):
            return None
        except StructureError as error:
            name = IDS if self.header.id_encoding == ID_ENCODING_U64 else ID_OFFSETS
            effect = f"the ids of rows {start} to {stop - 1} cannot be read"
            findings.append(self.finding(name, "", problem_of(error), effect))
            return None
        ids = Ids(None, kinds, offsets - offsets[0], data)
        problem = ids.first_problem()
        if problem is not None:
            row, reason = start + problem[0], problem[1]
            findings.append(self.finding(ID_BYTES, f"the id of row {row}", reason, "it cannot be read"))
            return None
        return ids

    def _metadata(
        self, group: int, ranges: list[int], groups: list[int], findings: list[Finding]
    ) -> MetadataColumns | None:
        """Return the metadata of one group, checked; None when they cannot be read."""
        section = self.sections.get(META_DATA)
        if section is None:
            return None
        start, stop = ranges[group], ranges[group + 1]
        place = (f"group {group}", groups[group], groups[group + 1])

        def found(problem: str, effect: str) -> None:
            findings.append(self.finding(META_DATA, place[0], problem, effect, place[1], place[2]))

        try:
            view = GroupView(section.read(place[1], place[2]), self.verifier.path, place[0])
            columns = view.to_columns()
        except ChecksumError:
            return None
        except StructureError as error:
            found(
                problem_of(error),
                f"the metadata of rows {start} to {stop - 1} cannot be read, at least in part",
            )
            return None
        if view.n_rows != stop - start:
            found(
                f"n_rows is {view.n_rows}, expected {stop - start}",
                "the metadata of these rows cannot be read",
            )
            return None
        try:
            view.check(columns)
        except StructureError as error:
            found(problem_of(error), _NOT_CANONICAL)
        keys = np.zeros(stop - start, np.int64)
        for column in columns.columns:
            keys[slice(None) if column.rows is None else column.rows] += 1
        weights = columns.weights()
        if int(keys.max()) > MAX_KEYS_PER_RECORD:
            found(f"a record has {int(keys.max())} keys, the limit is {MAX_KEYS_PER_RECORD}", _NOT_CANONICAL)
        if int(weights.max()) > MAX_RECORD_WEIGHT:
            found(f"a record weighs {int(weights.max())}, the limit is {MAX_RECORD_WEIGHT}", _NOT_CANONICAL)
        full = np.flatnonzero(np.cumsum(weights) >= MAX_GROUP_WEIGHT)
        closes = min(int(full[0]) + 1 if len(full) else GROUP_ROWS, GROUP_ROWS)
        if stop - start > closes or (stop - start < closes and stop < self.header.n_rows):
            found(f"has {stop - start} rows, though a group closes here after {closes}", _NOT_CANONICAL)
        return columns

    # --- Ids as a whole -----------------------------------------------------------------------------

    def _ids(self) -> None:
        names = (IDS,) if self.header.id_encoding == ID_ENCODING_U64 else (ID_KINDS, ID_OFFSETS, ID_BYTES)
        ordered = (ID_ORDER,) if ID_ORDER in self.entries else ()
        if any(self.bad[name] or name not in self.sections for name in names + ordered):
            self.verifier.report.notes.append(
                "the order of the ids was not checked: not all of them can be read"
            )
            return
        try:
            arrays = [self._array(name) for name in names]
            order = self._array(ID_ORDER) if ordered else None
        except DamagedError:
            return  # a chunk that does not decode, which the ranges have reported
        n_rows = self.header.n_rows
        if order is not None and n_rows and int(order.max()) >= n_rows:
            self._order_found(f"names row {int(order.max())} of {n_rows}")
            return
        if self.header.id_encoding == ID_ENCODING_U64:
            self._integers(arrays[0], order)
        else:
            self._var_ids(arrays, order)

    def _array(self, name: str) -> NDArray[Any]:
        dtype = {ID_KINDS: np.uint8, ID_BYTES: np.uint8, ID_ORDER: np.uint32}.get(name, np.uint64)
        return np.frombuffer(self.sections[name].read_all(), dtype)

    def _order_found(self, problem: str) -> None:
        name = ID_ORDER if ID_ORDER in self.entries else IDS if IDS in self.entries else ID_KINDS
        effect = "looking up ids can miss a record, or find one of two with the same id; searches work"
        self.add(self.finding(name, "order", problem, effect))

    def _integers(self, ids: NDArray[np.uint64], order: NDArray[np.uint32] | None) -> None:
        n_rows = len(ids)
        for first in range(0, n_rows, _ORDER_STEP):
            # One more than the step, so that neighbours across a border are compared too.
            places = slice(first, min(first + _ORDER_STEP + 1, n_rows))
            values = ids[places] if order is None else ids[order[places]]
            wrong = np.flatnonzero(values[1:] <= values[:-1])
            if len(wrong):
                at = first + int(wrong[0])
                a, b = int(values[wrong[0]]), int(values[wrong[0] + 1])
                self._order_found(f"ids do not ascend: {a}, then {b}, at places {at} and {at + 1}")
                return
        if order is not None and bool(np.all(ids[1:] > ids[:-1])):
            self.add(self.finding(ID_ORDER, "", "is there, though the ids ascend by row", _NOT_CANONICAL))

    def _var_ids(self, arrays: list[NDArray[Any]], order: NDArray[np.uint32] | None) -> None:
        kinds, offsets, data = arrays
        n_rows = len(kinds)
        ids = Ids(None, kinds, offsets, data)
        if int(offsets[0]) != 0 or int(offsets[-1]) != len(data) or ids.first_problem() is not None:
            if int(offsets[0]) != 0 or int(offsets[-1]) != len(data):
                problem = f"does not reach from 0 to {len(data)}"
                self.add(self.finding(ID_OFFSETS, "", problem, "ids cannot be read"))
            return
        right = np.empty(n_rows, np.uint32)
        _kernels.sort_ids_var(kinds, offsets, data, right)
        hashes = np.empty((n_rows, 2), np.uint64)
        ids.hash(hashes)
        sorted_hashes = hashes[right]
        same = np.flatnonzero(np.all(sorted_hashes[1:] == sorted_hashes[:-1], axis=1))
        for place in same:
            rows = int(right[place]), int(right[place + 1])
            if ids[rows[0]] == ids[rows[1]]:
                self._order_found(f"rows {rows[0]} and {rows[1]} have the same id {ids[rows[0]]!r}")
                return
        found = np.arange(n_rows, dtype=np.uint32) if order is None else order
        wrong = np.flatnonzero(found != right)
        if len(wrong):
            at = int(wrong[0])
            self._order_found(f"place {at} is row {int(found[at])}, expected row {int(right[at])}")
        elif order is not None and bool(np.all(right[1:] > right[:-1])):
            self.add(self.finding(ID_ORDER, "", "is there, though the ids ascend by row", _NOT_CANONICAL))
        if not bool(np.any(kinds)):
            self.add(
                self.finding(ID_KINDS, "", "id_encoding is 1, though every id is an integer", _NOT_CANONICAL)
            )

    # --- Index sections -----------------------------------------------------------------------------

    def _derived(self) -> None:
        """Decode compressed index sections. What they mean is their index's business."""
        for name, entry in self.entries.items():
            if (
                not entry.flags & FLAG_DERIVED
                or not entry.codec
                or self.bad[name]
                or name not in self.sections
            ):
                continue
            try:
                for start in range(0, entry.raw_bytes, _STEP_BYTES):
                    self.sections[name].read(start, min(start + _STEP_BYTES, entry.raw_bytes))
            except StructureError as error:
                self.add(self.finding(name, "", problem_of(error), effect_of(entry, self.header, 0, 1)))
