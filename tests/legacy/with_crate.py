"""Lets the Rust crate iqdb 1.0.0 itself read what we write, and write what we read. No test; needs cargo.

python tests/legacy/with_crate.py check     exports databases of every kind and compares what 1.x finds
python tests/legacy/with_crate.py make      writes formats/golden-1x/made-*, with what 1.x says of them
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from iqdb_core import HnswConfig, Iqdb, IqdbConfig, IvfConfig
from iqdb_core.legacy.writer import write_legacy

HERE = Path(__file__).parent
GOLDEN = HERE.parent.parent / "formats" / "golden-1x"
MADE = (
    *("dot-log", "euclidean-log", "manhattan-zstd", "hamming-lz4", "cosine-zstd22"),
    *("way-1", "way-2", "way-5", "way-11", "way-16", "way-22"),
)
DIM = 16


def build() -> Path:
    """Compile the program in a folder of its own and return it."""
    target = Path(tempfile.gettempdir()) / "iqdb1-target"
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", str(target)]
    subprocess.run(command, cwd=HERE / "crate", check=True)
    return target / "release" / "iqdb1"


def bits(vector: Any) -> str:
    return ",".join(f"{word:08x}" for word in np.asarray(vector, np.float32).view(np.uint32).tolist())


def shown(record_id: int | bytes | str) -> str:
    if isinstance(record_id, int):
        return f"u64:{record_id}"
    raw = record_id.encode() if isinstance(record_id, str) else record_id
    return f"hex:{raw.hex()}"


def shown_metadata(metadata: dict[str, Any] | None) -> str:
    if metadata is None:
        return "none"
    texts = []
    for key in sorted(metadata):
        value = metadata[key]
        if value is None:
            text = "n"
        elif isinstance(value, bool):
            text = "b" + str(value).lower()
        elif isinstance(value, int):
            text = f"i{value}"
        elif isinstance(value, float):
            text = "f" + struct.pack(">d", value).hex()
        else:
            text = "s" + value.encode().hex()
        texts.append(f"{key.encode().hex()}={text}")
    return ";".join(texts)


def asked(program: Path, path: Path, dim: int, metric: str, k: int, lines: list[str]) -> list[str]:
    """Return what 1.x prints of a copy of a database, for it changes what it opens."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", ".wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copy(f"{path}{suffix}", Path(folder, f"copy.iqdb{suffix}"))
        command = [str(program), "open", f"{folder}/copy.iqdb", str(dim), metric, str(k)]
        result = subprocess.run(
            command, input="\n".join(lines), capture_output=True, text=True, check=True, timeout=300
        )
    return result.stdout.splitlines()


# --- check --------------------------------------------------------------------------------------


def sample(config: IqdbConfig, n_rows: int) -> Iqdb:
    rng = np.random.default_rng(7)
    db = Iqdb.open_in_memory_with(config)
    ids: list[Any] = []
    metadata: list[Any] = []
    for i in range(n_rows):
        ids.append((i * 7919, f"text-{i}é", b"\x00\xff" + i.to_bytes(4, "big"))[i % 3])
        mapping = {"n": i, "w": i / 8, "é": f"t{i % 5}", "ok": i % 2 == 0, "nil": None, "big": -(2**63)}
        metadata.append((None, {}, mapping)[i % 3])
    vectors = rng.standard_normal((n_rows, config.dim)).astype(np.float32)
    if config.metric.value == "hamming":
        vectors = np.round(vectors)
    vectors[5] = 0
    vectors[6] = vectors[7]
    db.upsert_many(ids, vectors, metadata)
    db.compact()
    return db


def check(program: Path) -> None:
    pq = IvfConfig(n_clusters=8, n_probes=8, use_pq=True, pq_subvectors=4, pq_refine_factor=64)
    kinds = {
        "flat": None,
        "hnsw": HnswConfig(m=24, ef_construction=300, ef_search=400),
        "ivf": IvfConfig(n_clusters=8, n_probes=8),
        "pq": pq,
    }
    databases = records = wrong = 0
    for metric in ("cosine", "dot", "euclidean", "manhattan", "hamming"):
        for name, index in kinds.items():
            if name == "pq" and metric in {"cosine", "hamming"}:
                continue
            config = IqdbConfig(dim=DIM, metric=metric)
            config = config if index is None else config.with_index(index)
            with tempfile.TemporaryDirectory() as folder:
                db = sample(config, 400)
                path = Path(folder, "x.iqdb")
                write_legacy(path, db.config, db.batches)
                databases += 1
                ids = list(db.ids())
                queries = np.random.default_rng(8).standard_normal((20, DIM)).astype(np.float32)
                if metric == "hamming":
                    queries = np.round(queries)
                lines = [f"id {shown(i)}" for i in ids] + [f"query {bits(q)}" for q in queries]
                out = asked(program, path, DIM, metric, 10, lines)
                expected = [f"len {len(ids)}"]
                for record_id in ids:
                    vector, metadata = db.get(record_id)  # type: ignore[misc]
                    expected.append(f"row {shown(record_id)} {bits(vector)} meta:{shown_metadata(metadata)}")
                records += len(ids)
                wrong += sum(a != b for a, b in zip(out, expected, strict=False)) + (len(out) < len(expected))
                found = 0
                off = 0.0
                for query, line in zip(queries, out[len(expected) :], strict=True):
                    hits = dict(hit.rsplit("@", 1) for hit in line.removeprefix("hits ").split(" "))
                    ours = db.search(query, 10, exact=True)
                    # Ids at one distance may come in another order there.
                    found += sum(shown(hit.id) in hits or hit.distance == ours[-1].distance for hit in ours)
                    off = max(
                        [off]
                        + [
                            abs(float(hits[shown(hit.id)]) - hit.distance)
                            for hit in ours
                            if shown(hit.id) in hits
                        ]
                    )
                print(f"{metric:9} {name:4} {found}/200 of our exact hits, distances within {off:.1e}")
    print(f"{databases} databases, {records} records, {wrong} different")
    if wrong:
        raise SystemExit(1)


# --- make ---------------------------------------------------------------------------------------


def make(program: Path) -> None:
    for case in MADE:
        path = GOLDEN / f"made-{case}.iqdb"
        path.unlink(missing_ok=True)
        Path(f"{path}.wal").unlink(missing_ok=True)
        subprocess.run([str(program), "make", case, str(path)], check=True)
        metric = "euclidean" if case.startswith("way") else case.split("-")[0]
        candidates = [shown(i * 1_000_003) for i in range(32)]
        candidates += [shown(f"row-{i}") for i in range(32)]
        query = bits([0.5, -0.25, 0.125, 1.0])
        out = asked(program, path, 4, metric, 5, [*(f"id {i}" for i in candidates), f"query {query}"])
        facts: dict[str, Any] = {"name": path.stem, "by": "iqdb 1.0.0, tests/legacy/with_crate.py make"}
        facts |= {"dim": 4, "metric": metric, "query": query.split(",")}
        if out[0].startswith("error"):
            facts |= {"open": "error", "error": out[0].removeprefix("error ")}
        else:
            rows = [line.split(" ", 1)[1] for line in out if line.startswith("row") and " absent" not in line]
            facts |= {"open": "ok", "n_rows": int(out[0].split()[1]), "found": sorted(rows)}
            facts["hits"] = [hit.split("@")[0] for hit in out[-1].removeprefix("hits ").split(" ")]
        path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    {"check": check, "make": make}[sys.argv[1]](build())
