"""The options with which create, import and optimize say how neighbours are found."""

from __future__ import annotations

import dataclasses
import enum
from typing import Annotated, NamedTuple

import typer

from iqdb_cli.exit_codes import UsageError
from iqdb_core.config import (
    DEFAULT_SEED,
    FlatConfig,
    HnswConfig,
    IndexConfig,
    IvfConfig,
    index_config_from_dict,
)


class IndexChoice(enum.Enum):
    """The index kinds that can be asked for."""

    FLAT = "flat"
    HNSW = "hnsw"
    IVF = "ivf"


_CLASSES: dict[str, type[FlatConfig | HnswConfig | IvfConfig]] = {
    "flat": FlatConfig,
    "hnsw": HnswConfig,
    "ivf": IvfConfig,
}

M = Annotated[
    int | None,
    typer.Option(
        "--m",
        metavar="N",
        help="For hnsw: links of a record, twice N in the graph. More cost space. Default: 16.",
    ),
]

EfConstruction = Annotated[
    int | None,
    typer.Option(
        "--ef-construction",
        metavar="N",
        help="For hnsw: candidates held while a record is inserted. More take longer and find better "
        "links. Default: 200.",
    ),
]

EfSearch = Annotated[
    int | None,
    typer.Option(
        "--ef-search",
        metavar="N",
        help="For hnsw: candidates held by a search that does not say otherwise with --ef. Default: 64.",
    ),
]

FilterWiden = Annotated[
    int | None,
    typer.Option(
        "--filter-widen",
        metavar="N",
        help="For hnsw: a filter makes the list up to so many times as long; where matches are rarer, the "
        "search walks over matches alone. Default: 4.",
    ),
]

Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", help="For hnsw and ivf: where the random numbers of the build begin."
    ),
]

NClusters = Annotated[
    int | None,
    typer.Option(
        "--n-clusters", metavar="N", help="For ivf: lists that the records are divided into. Default: 256."
    ),
]

NProbes = Annotated[
    int | None,
    typer.Option(
        "--n-probes",
        metavar="N",
        help="For ivf: lists visited by a search that does not say otherwise with --n-probes. Default: 8.",
    ),
]

TrainingSampleSize = Annotated[
    int | None,
    typer.Option(
        "--training-sample-size",
        metavar="N",
        help="For ivf: records that the lists are trained on. Default: 65536.",
    ),
]

Pq = Annotated[
    bool | None,
    typer.Option(
        "--pq/--no-pq",
        help="For ivf: keep product-quantised codes (euclidean, dot and manhattan only).",
        show_default=False,
    ),
]

PqSubvectors = Annotated[
    int | None,
    typer.Option(
        "--pq-subvectors",
        metavar="N",
        help="For ivf with --pq: parts that a vector is cut into, a divisor of the dimension. The default "
        "depends on the dimension.",
    ),
]

PqRefineFactor = Annotated[
    int | None,
    typer.Option(
        "--pq-refine-factor",
        metavar="N",
        help="For ivf with --pq: candidates for each hit that are compared by their vectors; 0 compares "
        "none. Default: 4.",
    ),
]


class IndexOptions(NamedTuple):
    """What was given on the command line; None is what was not."""

    m: int | None = None
    ef_construction: int | None = None
    ef_search: int | None = None
    filter_widen: int | None = None
    seed: int | None = None
    n_clusters: int | None = None
    n_probes: int | None = None
    training_sample_size: int | None = None
    use_pq: bool | None = None
    pq_subvectors: int | None = None
    pq_refine_factor: int | None = None

    def settings(self) -> dict[str, int | bool]:
        """Return what was given, by the names of the settings."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def config(self, kind: IndexChoice | None, present: IndexConfig | None = None) -> IndexConfig | None:
        """Return the index configuration that was asked for.

        Args:
            kind: what `--index` says; None leaves it at the present kind.
            present: the configuration of an existing database. Where its kind stays, so do the
                settings that are not given.

        Returns:
            None when nothing was asked for.

        Raises:
            UsageError: an option belongs to another index kind.
            InvalidConfigError: a setting is out of its range.
        """
        given = self.settings()
        if kind is None and not given:
            return None
        name = kind.value if kind is not None else "flat" if present is None else present.kind.value
        self.check(name, present)
        kept = present.to_dict() if present is not None and present.kind.value == name else {}
        return index_config_from_dict({**kept, "kind": name, **given})

    def check(self, kind: str, present: IndexConfig | None = None) -> None:
        """Refuse options that an index kind does not have.

        Raises:
            UsageError: the first of them.
        """
        for name in self.settings():
            kinds = [other for other, config_class in _CLASSES.items() if name in _fields(config_class)]
            if kind not in kinds:
                raise UsageError(f"{_option(name)} goes with --index {' or '.join(kinds)}, not with {kind}")
        has_pq = isinstance(present, IvfConfig) and present.use_pq if self.use_pq is None else self.use_pq
        for name in ("pq_subvectors", "pq_refine_factor"):
            if getattr(self, name) is not None and not has_pq:
                raise UsageError(f"{_option(name)} needs --pq")


def describe(config: IndexConfig) -> str:
    """Return an index configuration in words, `hnsw, m 16, ...`, without what has no effect."""
    settings = [f"{name} {value}" for name, value in config.to_dict().items() if _told(config, name, value)]
    return ", ".join([config.kind.value, *settings])


def _told(config: IndexConfig, name: str, value: object) -> bool:
    if name == "kind" or value is None or value is False or (name == "seed" and value == DEFAULT_SEED):
        return False
    return not name.startswith("pq_") or (isinstance(config, IvfConfig) and config.use_pq)


def _fields(config_class: type[FlatConfig | HnswConfig | IvfConfig]) -> set[str]:
    return {field.name for field in dataclasses.fields(config_class)}


def _option(setting: str) -> str:
    return "--pq" if setting == "use_pq" else "--" + setting.replace("_", "-")
