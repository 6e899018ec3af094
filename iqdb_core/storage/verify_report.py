"""What a verification reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

Level: TypeAlias = Literal["checksums", "structure", "records"]
Progress: TypeAlias = "Callable[[int, int], object]"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Attributes:
        path: the file that has it: the snapshot or its log.
        part: what is wrong there, such as "header", "section vectors" or "frame 3".
        offset_bytes: where it begins in the file.
        length_bytes: how far it reaches.
        problem: what is wrong.
        effect: what does not work because of it.
    """

    path: str
    part: str
    offset_bytes: int
    length_bytes: int
    problem: str
    effect: str


@dataclass(frozen=True, slots=True)
class SectionResult:
    """What was found in one section.

    Attributes:
        name: of the section.
        stored_bytes: bytes that it takes in the file.
        damaged_bytes: of these, how many are in blocks whose checksum is wrong.
        findings: problems of it, wrong checksums among them.
    """

    name: str
    stored_bytes: int
    damaged_bytes: int
    findings: int


@dataclass(slots=True)
class VerifyReport:
    """What a verification has found.

    Attributes:
        path: the snapshot.
        level: "checksums", "structure" or "records".
        findings: the problems, in the order in which they were met.
        notes: what is normal but worth knowing, such as a torn tail of the log.
        whole: the parts that were checked and are whole.
        works: what can be done with the database as it is, one sentence each.
        n_rows: records of the snapshot; None when the header cannot be trusted.
        content_digest: computed from the records; None when that was not done or not possible.
        log_frames: whole frames of the log.
        checked_bytes: how many bytes of both files were looked at.
        file_bytes: length of snapshot and log.
        seconds: how long it took.
        sections: what was found in each section, in their order.
        index: what is worth knowing of the index, such as how many nodes cannot be reached; see
            `iqdb_core.verification`. Empty when it was not looked at.
        records: what asking for the records gave; see `iqdb_core.verification`. Empty below level records.
    """

    path: str
    level: Level
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    works: list[str] = field(default_factory=list)
    n_rows: int | None = None
    content_digest: str | None = None
    log_frames: int = 0
    checked_bytes: int = 0
    file_bytes: int = 0
    seconds: float = 0.0
    sections: list[SectionResult] = field(default_factory=list)
    index: dict[str, Any] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.findings

    @property
    def gigabytes_per_second(self) -> float:
        """Bytes of the files over the time that it took, in units of 10^9."""
        return self.file_bytes / self.seconds / 1e9 if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {"ok": self.ok, **asdict(self), "gigabytes_per_second": self.gigabytes_per_second}
