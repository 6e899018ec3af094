"""The configuration in a file as an `IqdbConfig`: what a file says is checked as what a caller says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqdb_core.config import IqdbConfig
from iqdb_core.errors import ConfigError, InvalidConfigError, StructureError, VectorIndexError

if TYPE_CHECKING:
    from iqdb_core.storage.snapshot import Snapshot


def stored_config(snapshot: Snapshot, **settings: Any) -> IqdbConfig:
    """Return a snapshot's configuration with the settings of a handle.

    Opening compares only what it needs with the header, so that it stays cheap; this checks the rest.

    Raises:
        StructureError: the file has a setting that no configuration can have.
    """
    try:
        return IqdbConfig.from_dict({**snapshot.config, **settings})
    except InvalidConfigError as error:
        raise StructureError(
            snapshot.path, f"config.{error.field}", error.expected, repr(error.found)
        ) from error
    except (ConfigError, VectorIndexError) as error:
        raise StructureError(snapshot.path, "config", "settings that go together", str(error)) from error
