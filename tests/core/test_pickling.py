"""What goes from one process to another: errors and hits do, handles do not."""

from __future__ import annotations

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iqdb_core import AsyncIqdb, Iqdb, errors

MADE: list[errors.Error] = [
    errors.DimensionMismatchError(3, 4, where="query"),
    errors.InvalidConfigError("dim", 0, "an integer"),
    errors.FileIOError("a.iqdb", "write", OSError(28, "No space left on device")),
    errors.ChecksumError("a.iqdb", "header", 0, expected=1, found=2),
    errors.LockedError("a.iqdb", 1.5),
    errors.InvalidFilterError("empty", expression="", column=1),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_with_its_class_its_message_and_its_facts(error: errors.Error) -> None:
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(back) is type(error)
        assert (str(back), vars(back)) == (str(error), vars(error))


def test_every_class_of_error_can_be_pickled() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.Error)]
    assert len(classes) > 30
    for kind in classes:
        error = kind.__new__(kind)
        error.args = ("what",)
        error.__dict__["path"] = "a.iqdb"
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), vars(back)) == (kind, "what", {"path": "a.iqdb"})


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_handle_says_that_it_cannot_go_elsewhere(tmp_path: Path, use: Any) -> None:
    with Iqdb.open(tmp_path / "a.iqdb", dim=2) as db:
        asynchronous = AsyncIqdb(db)
        for handle in (db, asynchronous):
            with pytest.raises(TypeError, match=r"cannot be pickled or copied; open '.*a\.iqdb' where"):
                use(handle)
        db.upsert(1, np.ones(2), {"a": 1})
        hit = db.search([1, 1], 1)[0]
        assert repr(pickle.loads(pickle.dumps(hit))) == repr(hit)
