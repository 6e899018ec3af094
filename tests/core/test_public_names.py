from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import iqdb_core
from iqdb_core import errors


def test_every_public_name_can_be_imported_and_nothing_else_is_promised() -> None:
    for name in iqdb_core.__all__:
        assert getattr(iqdb_core, name) is not None
    assert sorted(iqdb_core.__all__) == iqdb_core.__all__
    assert set(iqdb_core.__all__) <= set(dir(iqdb_core))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = iqdb_core.nothing


def test_the_public_names_are_these() -> None:
    own = [name for name in iqdb_core.__all__ if not hasattr(errors, name)]
    assert own == [
        "AsyncIqdb",
        "BulkReport",
        "CacheConfig",
        "CachePolicy",
        "CacheStats",
        "Compression",
        "DistanceMetric",
        "Filter",
        "Finding",
        "FlatConfig",
        "FoldReport",
        "FsyncPolicy",
        "Hit",
        "HnswConfig",
        "Ids",
        "IndexKind",
        "Iqdb",
        "IqdbConfig",
        "IvfConfig",
        "Loss",
        "Metadata",
        "MetadataColumns",
        "MetadataValue",
        "OptimizeReport",
        "RecallPoint",
        "RecallReport",
        "RecordBatch",
        "RepairReport",
        "SearchExplanation",
        "VectorId",
        "VerifyReport",
        "repair",
        "verify",
    ]


def test_every_error_is_public() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.Error)
    }
    assert classes <= set(iqdb_core.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert iqdb_core.__version__ == version("iqdb")


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys; import iqdb_core, iqdb_core.database;"
        "heavy = {'numpy', 'pyarrow', 'zstandard', 'lz4', 'dataclasses'};"
        "print(*heavy.intersection(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_plain_search_needs_no_numpy(tmp_path: Any) -> None:
    path = tmp_path / "a.iqdb"
    with iqdb_core.Iqdb.open(path, 4, "euclidean") as db:
        db.upsert_many([1, 2, 3], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], [{"n": i} for i in range(3)])
    program = f"""
import sys
from array import array
from iqdb_core import Iqdb
db = Iqdb.open_existing({str(path)!r}, read_only=True)
hits = db.search_buffers(array("f", [1, 0, 0, 0, 0, 1, 0, 0]), 2, 2)
assert [hit.id for hit in hits[0]] == [1, 2], hits
assert [hit.id for hit in hits[1]] == [2, 1], hits
assert hits[0][0].metadata == {{"n": 0}}
assert db.search([0, 0, 1, 0], 1)[0].id == 3
assert len(db.vector_bytes(1)) == 16 and db.metadata(2) == {{"n": 1}} and 3 in db
assert db.info()["n_records"] == 3
db.close()
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
