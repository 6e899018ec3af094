"""iqdb: a vector database in one file.

The names below are the whole public interface. They are imported when they are first used, so that
importing the package costs next to nothing; NumPy is imported only by what works on arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqdb_core.aio import AsyncIqdb
    from iqdb_core.cache import CacheStats
    from iqdb_core.config import (
        CacheConfig,
        CachePolicy,
        Compression,
        FlatConfig,
        FsyncPolicy,
        HnswConfig,
        IqdbConfig,
        IvfConfig,
    )
    from iqdb_core.database import Iqdb
    from iqdb_core.errors import (
        BatchTooLargeError,
        ChecksumError,
        ClosedError,
        ConfigConflictError,
        ConfigError,
        ContentMismatchError,
        DamagedError,
        DatabaseExistsError,
        DatabaseNotFoundError,
        DimensionMismatchError,
        DuplicateIdError,
        Error,
        FileIOError,
        InvalidConfigError,
        InvalidFilterError,
        InvalidIdError,
        InvalidMetadataError,
        InvalidMetricError,
        InvalidParameterError,
        InvalidVectorError,
        LegacyDamagedError,
        LegacyFormatError,
        LockedError,
        LogDamagedError,
        LogMismatchError,
        NotADatabaseError,
        NotRepairableError,
        NotRepresentableError,
        PersistError,
        PoisonedError,
        ReadOnlyError,
        SnapshotMissingError,
        StructureError,
        TruncatedError,
        UnsupportedFeatureError,
        UnsupportedVersionError,
        VectorIndexError,
    )
    from iqdb_core.explain import SearchExplanation
    from iqdb_core.filters import Filter
    from iqdb_core.hits import Hit
    from iqdb_core.recall import RecallPoint, RecallReport
    from iqdb_core.records import Ids, MetadataColumns, RecordBatch
    from iqdb_core.reports import BulkReport, FoldReport, OptimizeReport
    from iqdb_core.salvage import Loss, RepairReport, repair
    from iqdb_core.types import DistanceMetric, IndexKind, Metadata, MetadataValue, VectorId
    from iqdb_core.verification import Finding, VerifyReport, verify

__all__ = [
    "AsyncIqdb",
    "BatchTooLargeError",
    "BulkReport",
    "CacheConfig",
    "CachePolicy",
    "CacheStats",
    "ChecksumError",
    "ClosedError",
    "Compression",
    "ConfigConflictError",
    "ConfigError",
    "ContentMismatchError",
    "DamagedError",
    "DatabaseExistsError",
    "DatabaseNotFoundError",
    "DimensionMismatchError",
    "DistanceMetric",
    "DuplicateIdError",
    "Error",
    "FileIOError",
    "Filter",
    "Finding",
    "FlatConfig",
    "FoldReport",
    "FsyncPolicy",
    "Hit",
    "HnswConfig",
    "Ids",
    "IndexKind",
    "InvalidConfigError",
    "InvalidFilterError",
    "InvalidIdError",
    "InvalidMetadataError",
    "InvalidMetricError",
    "InvalidParameterError",
    "InvalidVectorError",
    "Iqdb",
    "IqdbConfig",
    "IvfConfig",
    "LegacyDamagedError",
    "LegacyFormatError",
    "LockedError",
    "LogDamagedError",
    "LogMismatchError",
    "Loss",
    "Metadata",
    "MetadataColumns",
    "MetadataValue",
    "NotADatabaseError",
    "NotRepairableError",
    "NotRepresentableError",
    "OptimizeReport",
    "PersistError",
    "PoisonedError",
    "ReadOnlyError",
    "RecallPoint",
    "RecallReport",
    "RecordBatch",
    "RepairReport",
    "SearchExplanation",
    "SnapshotMissingError",
    "StructureError",
    "TruncatedError",
    "UnsupportedFeatureError",
    "UnsupportedVersionError",
    "VectorId",
    "VectorIndexError",
    "VerifyReport",
    "repair",
    "verify",
]

_MODULES = {
    "AsyncIqdb": "aio",
    "BulkReport": "reports",
    "CacheConfig": "config",
    "CachePolicy": "config",
    "CacheStats": "cache",
    "Compression": "config",
    "DistanceMetric": "types",
    "Filter": "filters",
    "Finding": "verification",
    "FlatConfig": "config",
    "FoldReport": "reports",
    "FsyncPolicy": "config",
    "Hit": "hits",
    "HnswConfig": "config",
    "Ids": "records",
    "IndexKind": "types",
    "Iqdb": "database",
    "IqdbConfig": "config",
    "IvfConfig": "config",
    "Loss": "salvage",
    "Metadata": "types",
    "MetadataColumns": "records",
    "MetadataValue": "types",
    "OptimizeReport": "reports",
    "RecallPoint": "recall",
    "RecallReport": "recall",
    "RecordBatch": "records",
    "RepairReport": "salvage",
    "SearchExplanation": "explain",
    "VectorId": "types",
    "VerifyReport": "verification",
    "repair": "salvage",
    "verify": "verification",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("iqdb")
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
