"""A rewrite proves itself: whatever is wrong with a file, reading it back says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqdb_core.errors import (
    DamagedError,
    NotADatabaseError,
    StructureError,
    UnsupportedFeatureError,
    UnsupportedVersionError,
)
from iqdb_core.storage.files import OS_FILES, FileSystem, OpenFile
from iqdb_core.storage.read_back import read_back
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.stored_section import StoredSection

FORMATS = Path(__file__).parents[3] / "formats"
# The records of these are those that were meant. What is wrong, a verification says: bytes between the parts
# of the file that are not zero.
SAME_RECORDS = {"chunk-padding", "padding", "padding-checksums"}
CASES = sorted(
    path.stem
    for path in (FORMATS / "damaged").glob("*.iqdb")
    if not path.with_name(f"{path.name}.wal").exists()
)


def header_digest(path: Path) -> str:
    return Snapshot.open(path).digest.hex()


@pytest.mark.parametrize("name", [path.stem for path in (FORMATS / "golden").glob("*.iqdb")])
def test_a_golden_file_is_what_its_header_says(name: str) -> None:
    file = OS_FILES.open_read(str(FORMATS / "golden" / f"{name}.iqdb"))
    assert read_back(file).digest.hex() == header_digest(FORMATS / "golden" / f"{name}.iqdb")
    OS_FILES.close(file)


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_file_is_never_taken_for_what_was_written(name: str) -> None:
    path = FORMATS / "damaged" / f"{name}.iqdb"
    file = OS_FILES.open_read(str(path))
    try:
        found = read_back(file, threads=2)
    except (DamagedError, NotADatabaseError, UnsupportedFeatureError, UnsupportedVersionError):
        return
    finally:
        OS_FILES.close(file)
    assert (found.digest.hex() == header_digest(path)) == (name in SAME_RECORDS)


def test_a_file_that_ends_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    class Shrinking(FileSystem):
        def read_into(self, file: OpenFile, buffer: memoryview, offset: int) -> int:
            return super().read_into(file, buffer[: len(buffer) // 2], offset)

    file = OS_FILES.open_read(str(FORMATS / "golden" / "metadata.iqdb"))
    with pytest.raises(StructureError, match="an early end"):
        read_back(file, Shrinking())
    OS_FILES.close(file)


@pytest.mark.parametrize("name", ["metadata", "zstd"])
def test_a_reference_outside_a_section_is_refused(name: str) -> None:
    path = FORMATS / "golden" / f"{name}.iqdb"
    file = OS_FILES.open_read(str(path))
    snapshot = Snapshot.open(path)
    section = StoredSection(snapshot.sections["vectors"].entry, snapshot.database_id, file, OS_FILES)
    size = section.entry.raw_bytes
    for start, stop in ((-1, 4), (5, 4), (0, size + 1), (2**64, 2**65)):
        with pytest.raises(StructureError, match="a reference into section vectors"):
            section.read(start, stop)
    assert section.read(size, size).nbytes == section.read(7, 7).nbytes == 0
    assert bytes(section.read(3, 9)) == bytes(section.read_all()[3:9])
    OS_FILES.close(file)
