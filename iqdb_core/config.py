"""How a database is made and how a handle behaves: `IqdbConfig` and its parts.

`dim`, `metric`, `index`, `compression` and `provenance` are written into the file; the rest belongs to
one handle. Every class here is immutable, and converts to and from plain dicts that go through JSON.
To change settings there are `replace(m=32, seed=1)` and, for one at a time, `with_m(32)`; both return a
checked copy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias

from iqdb_core.cache_config import CacheConfig, CachePolicy
from iqdb_core.config_builders import Replaceable, With
from iqdb_core.errors import InvalidConfigError, InvalidMetricError
from iqdb_core.plain_dicts import known_fields, plain_dict
from iqdb_core.types import MAX_DIM, DistanceMetric, IndexKind

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "CacheConfig",
    "CachePolicy",
    "Compression",
    "FlatConfig",
    "FsyncPolicy",
    "HnswConfig",
    "IndexConfig",
    "IndexKind",
    "IqdbConfig",
    "IvfConfig",
    "index_config_from_dict",
]

DEFAULT_SEED: Final = 0xDEADBEEFCAFEF00D
DEFAULT_ZSTD_LEVEL: Final = 3
DATABASE_ID_BYTES: Final = 16
MAX_CONFIG_BYTES: Final = 1024 * 1024


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidConfigError(name, value, f"an integer in {low}..{high}")


class IndexSettings(Replaceable):
    """What the settings of all index kinds have in common."""

    kind: ClassVar[IndexKind]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that go through JSON; `index_config_from_dict` reads back any kind's."""
        return {"kind": self.kind.value, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """Return the settings of this index kind that a plain dict describes.

        Raises:
            InvalidConfigError: it describes another kind, or a key or value is not acceptable.
        """
        config = index_config_from_dict(value)
        if not isinstance(config, cls):
            raise InvalidConfigError("index.kind", config.kind.value, repr(cls.kind.value))
        return config


@dataclass(frozen=True)
class FlatConfig(IndexSettings):
    """Exact search over all vectors. It has no settings."""

    kind: ClassVar[IndexKind] = IndexKind.FLAT


@dataclass(frozen=True, kw_only=True)
class HnswConfig(IndexSettings):
    """Settings of a navigable small world graph: the bottom layer of HNSW (Malkov and Yashunin, 2016).

    Attributes:
        m: neighbours chosen for a node when it is inserted; it keeps at most twice as many.
        ef_construction: candidates held while a node is inserted.
        ef_search: candidates held by a search that does not say otherwise.
        filter_widen: how many times as wide a filter may make the list of candidates. Where fewer rows
            than one in so many match, a search walks over matching rows alone instead.
        seed: start of the random numbers that decide the order of insertion.

    Under the inner product, vectors of very different lengths need a larger `ef` for the same recall;
    `iqdb recall --target` finds it.
    """

    m: int = 16
    ef_construction: int = 200
    ef_search: int = 64
    filter_widen: int = 4
    seed: int = DEFAULT_SEED

    kind: ClassVar[IndexKind] = IndexKind.HNSW

    with_m = With[int]()
    with_ef_construction = With[int]()
    with_ef_search = With[int]()
    with_filter_widen = With[int]()
    with_seed = With[int]()

    def __post_init__(self) -> None:
        _check_int("index.m", self.m, 2, 512)
        _check_int("index.ef_construction", self.ef_construction, 1, 65_536)
        _check_int("index.ef_search", self.ef_search, 1, 65_536)
        _check_int("index.filter_widen", self.filter_widen, 1, 1_024)
        _check_int("index.seed", self.seed, 0, 2**64 - 1)


@dataclass(frozen=True, kw_only=True)
class IvfConfig(IndexSettings):
    """Settings of an inverted file, with product quantisation if asked for.

    Attributes:
        n_clusters: lists that the vectors are divided into.
        n_probes: lists that a search visits unless it says otherwise.
        training_sample_size: vectors that the centroids are trained on.
        use_pq: keep product-quantised codes in the lists (euclidean, dot and manhattan only).
        pq_subvectors: parts that a vector is cut into; must divide `dim`. None chooses.
        pq_refine_factor: candidates per hit that are re-ranked by their vectors; 0 does without.
        seed: start of the random numbers of the training.
    """

    n_clusters: int = 256
    n_probes: int = 8
    training_sample_size: int = 65_536
    use_pq: bool = False
    pq_subvectors: int | None = None
    pq_refine_factor: int = 4
    seed: int = DEFAULT_SEED

    kind: ClassVar[IndexKind] = IndexKind.IVF

    with_n_clusters = With[int]()
    with_n_probes = With[int]()
    with_training_sample_size = With[int]()
    with_use_pq = With[bool]()
    with_pq_subvectors = With[int | None]()
    with_pq_refine_factor = With[int]()
    with_seed = With[int]()

    def __post_init__(self) -> None:
        _check_int("index.n_clusters", self.n_clusters, 1, 2**24)
        _check_int("index.n_probes", self.n_probes, 1, 2**24)
        _check_int("index.training_sample_size", self.training_sample_size, 1, 2**32 - 1)
        if type(self.use_pq) is not bool:
            raise InvalidConfigError("index.use_pq", self.use_pq, "True or False")
        if self.pq_subvectors is not None:
            _check_int("index.pq_subvectors", self.pq_subvectors, 1, MAX_DIM)
        _check_int("index.pq_refine_factor", self.pq_refine_factor, 0, 65_536)
        _check_int("index.seed", self.seed, 0, 2**64 - 1)


IndexConfig: TypeAlias = FlatConfig | HnswConfig | IvfConfig
_INDEX_CONFIGS: Final[dict[str, type[FlatConfig | HnswConfig | IvfConfig]]] = {
    "flat": FlatConfig,
    "hnsw": HnswConfig,
    "ivf": IvfConfig,
}


def index_config_from_dict(value: object) -> IndexConfig:
    """Return the index configuration that a plain dict describes.

    Raises:
        InvalidConfigError: a key is missing or unknown, or a value is outside its range.
    """
    fields = plain_dict("index", value)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in _INDEX_CONFIGS:
        raise InvalidConfigError("index.kind", kind, f"one of {', '.join(_INDEX_CONFIGS)}")
    config_class = _INDEX_CONFIGS[kind]
    return config_class(**known_fields("index", fields, config_class))


@dataclass(frozen=True)
class FsyncPolicy:
    """When a write reaches the disk.

    `FsyncPolicy.ALWAYS`: before the call returns. `FsyncPolicy.periodic(seconds)`: at most that many
    seconds later, whether or not another write follows, and at close. `FsyncPolicy.NEVER`: when the
    operating system likes, and when the database is compacted.
    """

    kind: Literal["always", "periodic", "never"]
    seconds: float = 0.0

    ALWAYS: ClassVar[FsyncPolicy]
    NEVER: ClassVar[FsyncPolicy]

    def __post_init__(self) -> None:
        if self.kind not in ("always", "periodic", "never"):
            raise InvalidConfigError("fsync", self.kind, "always, periodic:SECONDS or never")
        if self.kind == "periodic":
            number = isinstance(self.seconds, (int, float)) and not isinstance(self.seconds, bool)
            if not number or not 0.001 <= self.seconds <= 86_400:
                raise InvalidConfigError("fsync", self.seconds, "a period of 0.001 to 86400 seconds")

    @classmethod
    def periodic(cls, seconds: float) -> FsyncPolicy:
        """Return the policy that syncs no later than `seconds` after a write."""
        return cls("periodic", seconds)

    @classmethod
    def parse(cls, text: str | FsyncPolicy) -> FsyncPolicy:
        """Return the policy that "always", "periodic:SECONDS" or "never" names."""
        if isinstance(text, cls):
            return text
        if text in ("always", "never"):
            return cls(text)  # type: ignore[arg-type]
        kind, _, rest = str(text).partition(":")
        try:
            seconds = float(rest)
        except ValueError:
            seconds = math.nan
        if kind != "periodic" or not math.isfinite(seconds):
            raise InvalidConfigError("fsync", text, "always, periodic:SECONDS or never")
        return cls.periodic(seconds)

    def __str__(self) -> str:
        return f"periodic:{self.seconds!r}" if self.kind == "periodic" else self.kind

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that go through JSON; within a configuration it is a text."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: object) -> FsyncPolicy:
        """Return the policy that `to_dict` described."""
        return cls(**{"kind": "", **known_fields("fsync", value, cls)})


FsyncPolicy.ALWAYS = FsyncPolicy("always")
FsyncPolicy.NEVER = FsyncPolicy("never")


@dataclass(frozen=True)
class Compression:
    """How vectors, ids and metadata are compressed in the snapshot: none, lz4, or zstd with a level."""

    codec: Literal["none", "lz4", "zstd"] = "none"
    level: int = 0

    NONE: ClassVar[Compression]
    LZ4: ClassVar[Compression]

    def __post_init__(self) -> None:
        if self.codec not in ("none", "lz4", "zstd"):
            raise InvalidConfigError("compression", self.codec, "none, lz4 or zstd[:LEVEL]")
        if self.codec == "zstd":
            _check_int("compression level", self.level, 1, 22)
        elif self.level != 0:
            raise InvalidConfigError("compression level", self.level, f"no level with {self.codec}")

    @classmethod
    def zstd(cls, level: int = DEFAULT_ZSTD_LEVEL) -> Compression:
        """Return zstd compression of `level` 1 (fast) to 22 (small)."""
        return cls("zstd", level)

    @property
    def tag(self) -> int:
        """The number of the codec in files."""
        return ("none", "lz4", "zstd").index(self.codec)

    @classmethod
    def parse(cls, text: str | Compression) -> Compression:
        """Return the compression that "none", "lz4", "zstd" or "zstd:LEVEL" names."""
        if isinstance(text, cls):
            return text
        codec, colon, level = str(text).partition(":")
        if codec in ("none", "lz4") and not colon:
            return cls(codec)  # type: ignore[arg-type]
        if codec == "zstd" and not colon:
            return cls.zstd()
        if codec == "zstd" and level.isascii() and level.isdigit() and len(level) <= 2:
            return cls.zstd(int(level))
        raise InvalidConfigError("compression", text, "none, lz4, zstd or zstd:LEVEL (1 to 22)")

    def __str__(self) -> str:
        return f"zstd:{self.level}" if self.codec == "zstd" else self.codec

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that go through JSON; within a configuration it is a text."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: object) -> Compression:
        """Return the compression that `to_dict` described."""
        return cls(**known_fields("compression", value, cls))


Compression.NONE = Compression()
Compression.LZ4 = Compression("lz4")


@dataclass(frozen=True, kw_only=True)
class IqdbConfig(Replaceable):
    """Everything that one database handle is made with.

    Stored in the file, and compared with it when it exists:

    Attributes:
        dim: components of a vector, 1 to 65,536.
        metric: the distance. A name such as "euclidean" is accepted too.
        index: settings of the index.
        compression: how the snapshot is compressed. A text such as "zstd:9" is accepted too.
        provenance: free facts about the vectors, such as the model that made them.
        fsync: when a write reaches the disk (of this handle).
        threads: threads a search or a fold may use (of this handle); None means `IQDB_NUM_THREADS`
            when it is set, else all cores.
        auto_compact: rows in the delta at which the handle folds by itself; "auto" is the larger of
            20,000 and an eighth of the snapshot, None is never.
        database_id: 16 bytes for a new database instead of random ones, so that the same records give
            the same file. When the file exists, it must have this id.
        cache: settings of the cache of search results (of this handle); None is no cache.
    """

    dim: int
    metric: DistanceMetric = DistanceMetric.COSINE
    index: IndexConfig = FlatConfig()
    compression: Compression = Compression.NONE
    fsync: FsyncPolicy = FsyncPolicy.ALWAYS
    threads: int | None = None
    auto_compact: int | Literal["auto"] | None = "auto"
    provenance: Mapping[str, str] = field(default_factory=dict, hash=False)
    database_id: bytes | None = None
    cache: CacheConfig | None = None

    with_dim = With[int]()
    with_metric = With[DistanceMetric | str]()
    with_index = With[IndexConfig]()
    with_compression = With[Compression | str]()
    with_fsync = With[FsyncPolicy | str]()
    with_threads = With[int | None]()
    with_auto_compact = With[int | Literal["auto"] | None]()
    with_provenance = With[Mapping[str, str]]()
    with_database_id = With[bytes | None]()
    with_cache = With[CacheConfig | None]()

    def __post_init__(self) -> None:
        _check_int("dim", self.dim, 1, MAX_DIM)
        object.__setattr__(self, "metric", DistanceMetric.parse(self.metric))
        object.__setattr__(self, "compression", Compression.parse(self.compression))
        object.__setattr__(self, "fsync", FsyncPolicy.parse(self.fsync))
        object.__setattr__(self, "provenance", _checked_provenance(self.provenance))
        if not isinstance(self.index, (FlatConfig, HnswConfig, IvfConfig)):
            raise InvalidConfigError("index", self.index, "FlatConfig, HnswConfig or IvfConfig")
        if self.threads is not None:
            _check_int("threads", self.threads, 1, 1_024)
        if self.auto_compact != "auto" and self.auto_compact is not None:
            _check_int("auto_compact", self.auto_compact, 1, 2**32 - 1)
        if self.database_id is not None and (
            type(self.database_id) is not bytes or len(self.database_id) != DATABASE_ID_BYTES
        ):
            raise InvalidConfigError("database_id", self.database_id, "16 bytes")
        if self.cache is not None and not isinstance(self.cache, CacheConfig):
            raise InvalidConfigError("cache", self.cache, "CacheConfig or None")
        self._check_product_quantisation()

    def _check_product_quantisation(self) -> None:
        if not isinstance(self.index, IvfConfig) or not self.index.use_pq:
            return
        if self.metric in (DistanceMetric.COSINE, DistanceMetric.HAMMING):
            reason = "product quantisation works with euclidean, dot and manhattan"
            raise InvalidMetricError(self.metric.value, reason)
        parts = self.index.pq_subvectors
        if parts is not None and self.dim % parts:
            raise InvalidConfigError("index.pq_subvectors", parts, f"a divisor of dim {self.dim}")

    def stored_dict(self) -> dict[str, Any]:
        """Return the part that is written into the file, as plain values."""
        return {
            "compression": str(self.compression),
            "dim": self.dim,
            "index": self.index.to_dict(),
            "metric": self.metric.value,
            "provenance": dict(self.provenance),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values; `from_dict` reads them back."""
        return {
            **self.stored_dict(),
            "fsync": str(self.fsync),
            "threads": self.threads,
            "auto_compact": self.auto_compact,
            "database_id": None if self.database_id is None else self.database_id.hex(),
            "cache": None if self.cache is None else self.cache.to_dict(),
        }

    @classmethod
    def from_dict(cls, value: object) -> IqdbConfig:
        """Return the configuration that a plain dict describes; absent keys have their defaults.

        Raises:
            InvalidConfigError: a key is unknown or `dim` is missing, or a value is out of range.
        """
        fields = known_fields("configuration", value, cls)
        if "dim" not in fields:
            raise InvalidConfigError("dim", None, f"an integer in 1..{MAX_DIM}")
        if "index" in fields:
            fields["index"] = index_config_from_dict(fields["index"])
        if isinstance(fields.get("cache"), dict):
            fields["cache"] = CacheConfig.from_dict(fields["cache"])
        if isinstance(fields.get("database_id"), str):
            try:
                fields["database_id"] = bytes.fromhex(fields["database_id"])
            except ValueError:
                raise InvalidConfigError("database_id", fields["database_id"], "32 hex digits") from None
        return cls(**fields)


def _checked_provenance(value: object) -> dict[str, str]:
    try:
        facts: dict[str, str] = dict(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise InvalidConfigError("provenance", value, "a mapping of str to str") from None
    size_bytes = 0
    for key, text in facts.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise InvalidConfigError("provenance", {key: text}, "a mapping of str to str")
        try:
            # Escaped as JSON a character takes up to six bytes.
            size_bytes += 6 * (len(key.encode()) + len(text.encode())) + 8
        except UnicodeEncodeError:
            raise InvalidConfigError("provenance", {key: text}, "text that UTF-8 can encode") from None
    if size_bytes > MAX_CONFIG_BYTES // 2:
        expected = f"at most {MAX_CONFIG_BYTES // 2} bytes"
        raise InvalidConfigError("provenance", f"{size_bytes} bytes", expected)
    return facts
