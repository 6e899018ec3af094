"""What the golden databases hold. Data only: written by generate_golden, checked by test_golden."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Id: TypeAlias = int | bytes | str
Row: TypeAlias = tuple[Id, list[float], dict[str, Any] | None]
Operation: TypeAlias = tuple[str, Any]
"""("upsert", rows), ("delete", ids), or ("fold", None) for a compaction that came to nothing."""

F32_MAX = 3.4028234663852886e38
F32_TINY = 1.401298464324817e-45


def nan(bits: int) -> float:
    """Return the NaN with these bits."""
    value: float = struct.unpack("<d", struct.pack("<Q", bits))[0]
    return value


@dataclass(frozen=True)
class Case:
    """One golden database.

    Attributes:
        name: of its files.
        says: what it shows, one sentence.
        rows: the records of the snapshot.
        log: what the log holds; None is no log at all.
        compression, metric, provenance: of the configuration.
        features: bits of feature_compat and feature_ro_compat, set behind the writer's back.
        derived: a derived section of this name that no reader knows.
        index: the index configuration, as it is stored; its sections are built.
        ending: what is done to the log at the end, a key of generate_golden.ENDINGS.
        shown: the rows that are written to the JSON file; None is all.
    """

    name: str
    says: str
    rows: list[Row]
    log: list[Operation] | None = None
    compression: str = "none"
    metric: str = "cosine"
    provenance: dict[str, str] = field(default_factory=dict)
    features: tuple[int, int] = (0, 0)
    derived: str = ""
    index: dict[str, Any] = field(default_factory=dict)
    ending: str = ""
    shown: list[int] | None = None
    dim: int = 0

    @property
    def database_id(self) -> bytes:
        """Sixteen bytes that are the same every time and different for every case."""
        return self.name.encode()[:16].rjust(16, b"\xd6")

    @property
    def width(self) -> int:
        return self.dim or len(self.rows[0][1])


def number(*parts: int) -> int:
    """Return a number below 2^32 that looks random and never changes."""
    value = 0x9E3779B9
    for part in parts:
        value = (value ^ part) * 0x85EBCA6B % 2**32
        value = (value ^ value >> 13) * 0xC2B2AE35 % 2**32
        value ^= value >> 16
    return value


def vector(seed: int, dim: int) -> list[float]:
    """Return components that f32 holds exactly."""
    return [(number(seed, i) % 4097 - 2048) / 512 for i in range(dim)]


def plain(n: int, dim: int = 3, first: int = 1) -> list[Row]:
    return [(first + i, vector(first + i, dim), None) for i in range(n)]


def words(n: int, dim: int, noisy: bool = False) -> list[Row]:
    """Return rows whose first half compresses well; with `noisy` the second half does not."""
    nouns = ("noun", "verb", "adjective")
    rows: list[Row] = []
    for i in range(n):
        components = [float(number(i, j) % 3) for j in range(dim)]
        if noisy and i > n // 2:
            components = [struct.unpack("<f", struct.pack("<I", number(i, j) >> 2))[0] for j in range(dim)]
        rows.append(
            (f"word-{i:05d}", components, {"pos": nouns[i % 3], "length": number(i) % 20, "text": f"w{i}"})
        )
    return rows


def two_valued(n: int, dim: int) -> list[Row]:
    """Return rows each of whose components takes two values: two zeros, one value alone, or -1 and 1."""
    rows: list[Row] = []
    for i in range(n):
        components = [1.0 if number(i, j) % 2 else -1.0 for j in range(dim)]
        components[:2] = [components[0] * 0.0, 7.0]
        rows.append((i, components, None))
    return rows


def special_vectors() -> list[Row]:
    return [
        (0, [0.0, -0.0, 1.0], None),
        (1, [F32_MAX, -F32_MAX, F32_TINY], None),
        (2, [-F32_TINY, 1.1754943508222875e-38, 0.10000000149011612], None),
        (2**64 - 1, [1e20, -1e-20, 3.1415927410125732], None),
    ]


def special_vectors_f32() -> list[Row]:
    """Round what f32 does not hold exactly, once and here."""
    return [
        (id_, [struct.unpack("<f", struct.pack("<f", x))[0] for x in components], metadata)
        for id_, components, metadata in special_vectors()
    ]


def mixed_ids() -> list[Row]:
    ids: list[Id] = [
        *("7", b"7", 7, "", 300, 2, b"\x00", b"\x00\x00", b"\xff", "Füße", "z", "Z", "zz", 2**64 - 1, 0),
        *("日本語", "👍", "x" * 300, b"\x80" * 300),
    ]
    return [(id_, vector(i, 2), None) for i, id_ in enumerate(id_ for id_ in ids if id_ != "")]


def metadata_rows() -> list[Row]:
    """130 rows in which columns have every type, presence and encoding."""
    rows: list[Row] = []
    for i in range(130):
        mapping: dict[str, Any] | None = {
            "everywhere": i - 65,
            "flag": i % 3 == 0,
            "colour": ("red", "green")[i % 2],
        }
        assert mapping is not None
        if i % 2:
            mapping["half"] = i / 8
            mapping["text"] = f"text number {i}"
        if i in (3, 64, 129):
            mapping["rare"] = f"row {i}"
            mapping["nothing"] = None
            mapping[""] = "the key is empty"
        # One key with values of every type.
        mapping["any"] = (None, i % 4 == 2, i, i + 0.5, f"{i % 7}")[i % 5]
        if i == 11:
            mapping = {}
        elif i == 12:
            mapping |= {
                "i64": -(2**63),
                "f64": -0.0,
                "inf": float("inf"),
                "empty": "",
                "zero": "a\0b",
                "Ω": "ω 日本語 👍",
            }
        elif i == 13:
            mapping |= {"i64": 2**63 - 1, "f64": nan(0x7FF8000000000000), "inf": float("-inf"), "empty": ""}
        elif i == 14:
            mapping |= {"f64": nan(0xFFF0000000000001), "inf": 5e-324, "flag": None}
        rows.append((1000 - i, vector(i, 2), None if i == 10 else mapping))
    return rows


def many_rows() -> list[Row]:
    """16,390 rows, so two groups; the second has no mapping."""
    return [
        (i * 3, [float(i % 5)], {"even": i % 2 == 0} if i < 16384 and i % 4 else None) for i in range(16390)
    ]


def heavy_rows() -> list[Row]:
    """A string of the greatest length closes its group at once."""
    return [
        ("before", [1.0], {"n": 1}),
        ("heavy", [2.0], {"n": 2, "text": "iqdb " * (2**24 // 5) + "!"}),
        ("after", [3.0], {"n": 3}),
        ("last", [4.0], None),
    ]


BASE: list[Row] = [
    (10, [1.0, 0.0], None),
    (20, [0.0, 1.0], None),
    (30, [0.5, 0.5], None),
]
# Metadata in the snapshot, too, and ids in no order.
TALKATIVE: list[Row] = [
    (30, [0.5, 0.5], {"word": "thirty", "n": 30}),
    (10, [1.0, 0.0], {"word": "ten"}),
    (20, [0.0, 1.0], None),
]
UPSERT: Operation = (
    "upsert",
    [(20, [2.0, 2.0], {"word": "twenty"}), (5, [5.0, 5.0], None), (40, [4.0, 0.0], {})],
)

UPSERT_WORD: Operation = ("upsert", [("new", [0.5, 0.25, 1.0], None)])
HNSW = {"ef_construction": 50, "ef_search": 20, "filter_widen": 4, "kind": "hnsw", "m": 4, "seed": 7}
IVF = {
    "kind": "ivf",
    "n_clusters": 4,
    "n_probes": 2,
    "pq_refine_factor": 4,
    "pq_subvectors": None,
    "seed": 7,
    "training_sample_size": 50,
    "use_pq": False,
}
IVF_PQ = IVF | {"use_pq": True}

CASES = [
    Case("empty", "No records.", [], dim=4),
    Case("metric-cosine", "Integer ids that ascend, so there is no ids.order.", plain(3)),
    Case("metric-dot", "Components at the ends of f32, and both zeros.", special_vectors_f32(), metric="dot"),
    Case("metric-euclidean", "One record of one component.", [(1, [0.5], None)], metric="euclidean"),
    Case("metric-manhattan", "Integer ids that do not ascend.", plain(3)[::-1], metric="manhattan"),
    Case("metric-hamming", "Several blocks of vectors.", plain(40, 64, 2**40), metric="hamming"),
    Case("ids-mixed", "Ids of every kind, in no order.", mixed_ids()),
    Case("ids-text-ascending", "Text ids that ascend.", [(f"id-{i}", vector(i, 2), None) for i in range(9)]),
    Case(
        "metadata", "Columns of every type, presence and encoding; a row without a mapping.", metadata_rows()
    ),
    Case("metadata-empty-mappings", "Mappings without keys only.", [(i, [1.0], {}) for i in range(3)]),
    Case(
        "metadata-two-groups",
        "More rows than a group has.",
        many_rows(),
        compression="zstd:3",
        shown=[0, 1, 16383, 16384, 16389],
    ),
    Case("metadata-heavy", "A group that closes by its weight.", heavy_rows(), compression="zstd:3"),
    Case(
        "lz4",
        "LZ4; chunks that shrink and chunks that do not.",
        words(2400, 8, noisy=True),
        compression="lz4",
        shown=[0, 2399],
    ),
    Case("zstd", "Zstandard, level 3.", words(2400, 8), compression="zstd:3", shown=[0, 2399]),
    Case(
        "zstd-19-noisy",
        "Zstandard, level 19; chunks that shrink and chunks that do not.",
        words(1500, 12, noisy=True),
        compression="zstd:19",
        shown=[0, 1499],
    ),
    Case("empty-lz4", "A compressed database without records.", [], dim=3, compression="lz4"),
    Case(
        "provenance",
        "Escapes and other scripts in the configuration.",
        plain(1),
        provenance={
            "model": 'a "quoted" \\ name',
            "Ω": "日本語\n\t\x01\x7f",
            "": "empty key",
            "url": "https://example.org/",
        },
    ),
    Case(
        "derived-section", "A derived section that nobody knows is ignored.", plain(3), derived="future.graph"
    ),
    Case("hnsw-cosine", "A graph over codes.", words(60, 5), index=HNSW, shown=[0, 59]),
    Case("hnsw-dot", "With the norms of the rows.", words(40, 40), metric="dot", index=HNSW, shown=[0, 39]),
    Case("hnsw-manhattan", "With a log.", words(30, 3), [UPSERT_WORD], metric="manhattan", index=HNSW),
    Case(
        "hnsw-coarse",
        "With the upper halves of the codes.",
        words(24, 161),
        metric="euclidean",
        index=HNSW,
        shown=[0, 23],
    ),
    Case("hnsw-hamming", "No codes, so no sections.", plain(5), metric="hamming", index=HNSW),
    Case(
        "hnsw-bits",
        "A bit a component; the log has a third value.",
        two_valued(60, 70),
        [("upsert", [("more", [0.5] * 70, None)])],
        metric="hamming",
        index=HNSW,
        shown=[0, 1, 59, 60],
    ),
    Case("ivf-cosine", "Lists around four centroids.", words(60, 5), index=IVF, shown=[0, 59]),
    Case("ivf-dot", "With the norms of the rows.", words(40, 40), metric="dot", index=IVF, shown=[0, 39]),
    Case("ivf-manhattan", "With a log.", words(30, 3), [UPSERT_WORD], metric="manhattan", index=IVF),
    Case("ivf-hamming", "No centroids, so no sections.", plain(5), metric="hamming", index=IVF),
    Case(
        "ivf-few-rows",
        "Fewer rows than lists were asked for.",
        plain(3),
        metric="euclidean",
        index=IVF | {"n_clusters": 8},
    ),
    Case(
        "ivf-zstd",
        "The vectors are compressed, the lists are not.",
        words(60, 33),
        metric="euclidean",
        index=IVF,
        compression="zstd:3",
        shown=[0, 59],
    ),
    Case(
        "ivf-pq-euclidean",
        "A byte for each part, and terms.",
        words(60, 6),
        metric="euclidean",
        index=IVF_PQ | {"pq_subvectors": 3},
        shown=[0, 59],
    ),
    Case(
        "ivf-pq-dot", "No terms.", words(50, 8), metric="dot", index=IVF_PQ, compression="lz4", shown=[0, 49]
    ),
    Case(
        "ivf-pq-halves",
        "Half a byte for each part, in blocks of 32 rows.",
        words(70, 68),
        metric="euclidean",
        index=IVF_PQ | {"pq_subvectors": 34},
        shown=[0, 69],
    ),
    Case(
        "ivf-pq-manhattan",
        "An odd number of parts in halves.",
        words(40, 33),
        metric="manhattan",
        index=IVF_PQ | {"pq_subvectors": 33},
        shown=[0, 39],
    ),
    Case("feature-compat", "An unknown bit of feature_compat is ignored.", plain(2), features=(1 << 40, 0)),
    Case(
        "feature-ro-compat",
        "With an unknown bit of feature_ro_compat the file can be read.",
        plain(2),
        features=(0, 2),
    ),
    Case("log-header-only", "A log without frames.", BASE, []),
    Case("log-upsert", "Replaced records keep their places, new ones follow.", TALKATIVE, [UPSERT]),
    Case(
        "log-frames",
        "Several frames; ids of every kind; a deleted record that comes back is the last.",
        TALKATIVE,
        [
            UPSERT,
            ("delete", [10, 999, "none"]),
            (
                "upsert",
                [
                    ("text", [7.0, 7.0], {"any": True}),
                    (b"\xff\x00", [8.0, 8.0], {"any": -1.5}),
                    (10, [9.0, 9.0], None),
                ],
            ),
            ("delete", [b"\xff\x00", 5]),
            (
                "upsert",
                [(77, [1.0, 2.0], {"n": 1}), (77, [3.0, 4.0], {"m": 2}), (30, [0.0, -0.0], {"word": None})],
            ),
        ],
    ),
    Case("log-on-empty", "All records are in the log.", [], [("upsert", plain(5))], dim=3),
    Case("log-all-deleted", "The log deletes every record.", BASE, [("delete", [10, 20, 30])]),
    Case(
        "log-many-rows",
        "A frame with more rows than a group has.",
        [],
        [("upsert", many_rows())],
        dim=1,
        shown=[0, 1, 16383, 16384, 16389],
    ),
    Case("log-torn-creation", "A log that is shorter than its header.", BASE, [], ending="header cut"),
    Case("log-empty-file", "A log of no bytes.", BASE, [], ending="empty"),
    Case("log-zero-header", "A log whose header never reached the disk.", BASE, [], ending="zeros only"),
    Case(
        "log-torn-header",
        "A frame that ends within its header.",
        BASE,
        [UPSERT, ("delete", [10])],
        ending="cut in header",
    ),
    Case(
        "log-torn-body",
        "A frame that ends within its body.",
        BASE,
        [UPSERT, ("upsert", plain(9, 2))],
        ending="cut in body",
    ),
    Case("log-torn-zeros", "Zeros behind the last frame.", BASE, [UPSERT], ending="zeros behind"),
    Case(
        "log-torn-garbage",
        "Bytes that are no frame behind the last one.",
        BASE,
        [UPSERT],
        ending="garbage behind",
    ),
    Case(
        "log-unsettled-hole",
        "A power cut under the periodic policy has left a later page and not an earlier one: a torn tail.",
        BASE,
        [UPSERT, ("delete", [30]), ("upsert", plain(3, 2, 100))],
        ending="unsettled hole",
    ),
    Case(
        "log-frame-in-data",
        "A torn frame whose metadata hold a copy of an earlier frame of this log: still a torn tail.",
        BASE,
        [UPSERT],
        ending="frame in torn data",
    ),
    Case(
        "log-fold-then-more",
        "A fold frame of a compaction that was not completed, then more.",
        BASE,
        [UPSERT, ("fold", None), ("delete", [20])],
    ),
    Case(
        "log-fold-last",
        "A fold frame at the end that names a snapshot that never came.",
        BASE,
        [UPSERT, ("fold", None)],
    ),
    Case(
        "log-stale",
        "A log that this snapshot has folded in.",
        BASE,
        [UPSERT, ("delete", [10])],
        ending="stale",
    ),
    Case(
        "log-stale-empty", "A log without records that this snapshot has folded in.", BASE, [], ending="stale"
    ),
]
