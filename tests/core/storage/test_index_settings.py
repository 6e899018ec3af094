"""The settings of an index in a file: the format's limits are those of the configuration classes."""

from __future__ import annotations

from typing import Any

import pytest

from iqdb_core import Iqdb, IqdbConfig
from iqdb_core.config import index_config_from_dict
from iqdb_core.errors import InvalidConfigError, StructureError
from iqdb_core.storage.layout import INDEX_SETTINGS, NULL_SETTINGS, Header
from iqdb_core.storage.snapshot import Snapshot
from iqdb_core.storage.structure import check_config, encode_config

CASES = [(kind, name) for kind, settings in INDEX_SETTINGS.items() for name in settings]


def test_every_kind_has_the_settings_of_its_class() -> None:
    for kind, settings in INDEX_SETTINGS.items():
        assert index_config_from_dict({"kind": kind}).to_dict().keys() == {"kind", *settings}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_setting_has_the_limits_of_its_class(kind: str, name: str) -> None:
    limits = INDEX_SETTINGS[kind][name]
    wrong: list[Any] = ["1", 1.0] if limits is None else ["1", 1.0, True, limits[0] - 1, limits[1] + 1]
    for value in [True, False] if limits is None else limits:
        index_config_from_dict({"kind": kind, name: value})
    for value in wrong if name in NULL_SETTINGS else [*wrong, None]:
        with pytest.raises(InvalidConfigError):
            index_config_from_dict({"kind": kind, name: value})


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_file_with_a_wrong_setting_is_refused(kind: str, name: str) -> None:
    with Iqdb.open_in_memory_with(IqdbConfig(dim=2, index=index_config_from_dict({"kind": kind}))) as db:
        snapshot: Snapshot = db._store.view().base.snapshot
        header: Header = snapshot.header
        config = dict(snapshot.config)
    assert check_config(encode_config(config), header, "db") == config
    limits = INDEX_SETTINGS[kind][name]
    for value in [[], "", 2**70, *([] if limits is None else [limits[0] - 1, limits[1] + 1])]:
        broken = {**config, "index": {**config["index"], name: value}}
        with pytest.raises(StructureError, match=rf"config\.index\.{name}"):
            check_config(encode_config(broken), header, "db")
    missing = {key: value for key, value in config["index"].items() if key != name}
    with pytest.raises(StructureError, match=r"config\.index"):
        check_config(encode_config({**config, "index": missing}), header, "db")
