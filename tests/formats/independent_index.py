"""Reads the index sections of a snapshot by index-hnsw.md and index-ivf.md, and imports nothing of iqdb.

`check_index` says whether they are what the pages say of these vectors. Section marks (H2 and so on) are
those of index-hnsw.md (H) and index-ivf.md (I).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from independent_reader import Snapshot, read_header, read_section, read_table, require, zeros

NUMBERS = {"u8": 1, "u32": 3, "u64": 4, "i32": 7, "f32": 9, "f64": 10}
FORMATS = {"u8": "B", "u32": "I", "i32": "i", "u64": "Q", "f32": "f", "f64": "d"}
NO_ROW = 0xFFFFFFFF


class Part:
    """One section: its values in one line, its shape, and its rows."""

    def __init__(self, entry: dict[str, Any], data: bytes, dtype: str) -> None:
        count = len(data) // struct.calcsize(f"<{FORMATS[dtype]}")
        self.values = struct.unpack(f"<{count}{FORMATS[dtype]}", data)
        self.shape = (entry["shape0"], entry["shape1"])[: entry["ndim"]]

    def row(self, i: int) -> Sequence[Any]:
        width = self.shape[1]
        return self.values[i * width : (i + 1) * width]


def read_index(data: bytes, dtypes: dict[str, str]) -> dict[str, Part]:
    """Return the sections of these names that a snapshot has."""
    header = read_header(data)
    found = {}
    for entry in read_table(data, header):
        name = entry["text"]
        if name in dtypes:
            require(entry["flags"] == 1, f"{name} is not derived")
            require(entry["dtype"] == NUMBERS[dtypes[name]], f"dtype of {name}")
            found[name] = Part(entry, read_section(data, header, entry), dtypes[name])
    return found


def near(a: float, b: float, tolerance: float = 1e-5) -> bool:
    return math.isfinite(a) and abs(a - b) <= tolerance * max(1.0, abs(a), abs(b))


class Model:
    """H2: how components become codes."""

    def __init__(self, part: Part, dim: int) -> None:
        require(part.shape == (3 + dim,), "shape of the model")
        self.unit, self.scale, self.norm_unit, *self.mean = part.values
        require(all(map(math.isfinite, part.values)), "the model")
        require(self.unit in (0.0, 1.0) and self.scale > 0 and self.norm_unit > 0, "the model")
        self.stride = -(-dim // 32) * 32

    def steps(self, x: Sequence[float], *, centroid: bool = False) -> list[float]:
        length = math.sqrt(sum(c * c for c in x))
        if self.unit and length and not centroid:
            x = [c / length for c in x]
        return [(c - m) * self.scale for c, m in zip(x, self.mean, strict=True)]

    def code(self, x: Sequence[float], *, centroid: bool = False) -> list[int]:
        steps = [max(-63, min(63, round(v))) + 64 for v in self.steps(x, centroid=centroid)]
        return steps + [64] * (self.stride - len(steps))


def check_codes(
    prefix: str, found: dict[str, Part], model: Model, vectors: list[list[float]], order: Sequence[int]
) -> None:
    """Codes, lengths and norms of the rows, which stand in this order."""
    codes = found[f"{prefix}.codes"]
    require(codes.shape == (len(vectors), model.stride), "shape of the codes")
    for name in ("lengths", "norms"):
        section = found.get(f"{prefix}.{name}")
        require(section is None or section.shape == (len(vectors),), f"shape of the {name}")
    for place, row in enumerate(order):
        code = codes.row(place)
        require(list(code) == model.code(vectors[row]), f"code of row {row}")
        require(found[f"{prefix}.lengths"].values[place] == sum(c * c for c in code), f"length of row {row}")
        if f"{prefix}.norms" in found:
            norm = math.sqrt(sum(c * c for c in vectors[row])) / model.norm_unit
            require(near(found[f"{prefix}.norms"].values[place], norm), f"norm of row {row}")


def check_bits(found: dict[str, Part], m: int, vectors: list[bytes]) -> None:
    """H5, of vectors as they are stored. Where nothing is found, nothing is wrong."""
    n, words = len(vectors), [struct.unpack(f"<{len(x) // 4}I", x) for x in vectors]
    taken = [{row[j] for row in words} for j in range(len(words[0]))]
    if not found:
        return
    require(max(map(len, taken)) <= 2, "bits of components with three values")
    require({f"hnsw.{name}" for name in ("values", "bits", "links", "entries")} == set(found), "sections")
    dim = len(taken)
    values, bits = found["hnsw.values"], found["hnsw.bits"]
    require(values.shape == (2, dim) and bits.shape == (n, -(-dim // 64) * 8), "shapes of bits")
    stored = [struct.unpack(f"<{dim}I", struct.pack(f"<{dim}f", *values.row(i))) for i in range(2)]
    for i, row in enumerate(words):
        code = [byte >> b & 1 for byte in bits.row(i) for b in range(8)]
        require(not any(code[dim:]), f"bits behind row {i}")
        require(all(stored[code[j]][j] == word for j, word in enumerate(row)), f"bits of row {i}")
        require(all(not code[j] for j in range(dim) if stored[0][j] == stored[1][j]), f"a bit of row {i}")
    check_links(found, m, n)


def check_graph(found: dict[str, Part], metric: str, m: int, vectors: list[list[float]]) -> None:
    """H1 to H3."""
    n, dim = len(vectors), len(vectors[0])
    names = {"model", "codes", "lengths", "links", "entries"}
    names |= {"norms"} if metric == "dot" else set()
    names |= {"bounds"} if metric in ("cosine", "dot", "euclidean") else set()
    model = Model(found["hnsw.model"], dim) if "hnsw.model" in found else None
    names |= {"coarse", "coarse-lengths"} if model and model.stride >= 192 else set()
    require(model and {f"hnsw.{name}" for name in names} == set(found), "sections of the graph")
    assert model
    require(model.unit == (metric in ("cosine", "dot")), "u")
    check_codes("hnsw", found, model, vectors, range(n))
    if "hnsw.bounds" in found:
        require(found["hnsw.bounds"].shape == (2, n), "shape of the bounds")
        for row, x in enumerate(vectors):
            steps, code = model.steps(x), [c - 64 for c in found["hnsw.codes"].row(row)]
            away = math.sqrt(sum((v - c) ** 2 for v, c in zip(steps, code[:dim], strict=True)))
            p, r = found["hnsw.bounds"].row(0)[row], found["hnsw.bounds"].row(1)[row]
            require(away <= r <= away * 1.001 + 1e-3, f"r of row {row}")
            whole = sum(c * c for c in code) - r * r
            require(p <= whole and near(p, whole), f"p of row {row}")
    if "hnsw.coarse" in found:
        check_coarse(found, n, model.stride)
    check_links(found, m, n)


def check_links(found: dict[str, Part], m: int, n: int) -> None:
    """H3: of n nodes, all of which can be reached."""
    links, entries = found["hnsw.links"], found["hnsw.entries"].values
    require(links.shape == (n, 2 * m) and all(entry < n for entry in entries), "links and entries")
    require(entries and len(set(entries)) == len(entries), "entries")
    reached, open_nodes = set(entries), list(entries)
    for node in range(n):
        named = [link for link in links.row(node) if link != NO_ROW]
        require(list(links.row(node)[: len(named)]) == named, f"links of node {node}")
        require(len(set(named)) == len(named) and node not in named and max(named, default=0) < n, "a link")
    while open_nodes:
        new = set(links.row(open_nodes.pop())) - {NO_ROW} - reached
        reached |= new
        open_nodes += new
    require(len(reached) == n, "nodes that cannot be reached")


def check_coarse(found: dict[str, Part], n: int, stride: int) -> None:
    """H2: the upper four bits."""
    coarse, groups = found["hnsw.coarse"], -(-stride // 64)
    require(coarse.shape == (n, 32 * groups), "shape of the coarse codes")
    require(found["hnsw.coarse-lengths"].shape == (n,), "shape of the coarse lengths")
    for row in range(n):
        upper = [c >> 3 for c in found["hnsw.codes"].row(row)]
        length = sum((8 * h + 4) ** 2 for h in upper)
        require(found["hnsw.coarse-lengths"].values[row] == length, f"coarse length of row {row}")
        upper += [0] * (64 * groups - stride)
        pairs = [upper[64 * g + b] | upper[64 * g + 32 + b] << 4 for g in range(groups) for b in range(32)]
        require(list(coarse.row(row)) == pairs, f"coarse code of row {row}")


def check_lists(
    found: dict[str, Part], metric: str, settings: dict[str, Any], vectors: list[list[float]]
) -> None:
    """I1 to I3."""
    n, dim = len(vectors), len(vectors[0])
    pq = settings["use_pq"]
    names = {"model", "centroids", "changes", "offsets", "rows"}
    if pq:
        names |= {"pq_codes", "pq_books"} | ({"pq_terms"} if metric == "euclidean" else set())
    else:
        names |= {"codes", "lengths"} | ({"norms"} if metric == "dot" else set())
    require({f"ivf.{name}" for name in names} == set(found), "sections of the lists")
    model = Model(found["ivf.model"], dim)
    require(model.unit == (metric == "cosine" or (metric == "dot" and not pq)), "u")
    centroids = found["ivf.centroids"]
    lists = centroids.shape[0]
    require(centroids.shape[1] == dim and lists <= settings["n_clusters"], "shape of the centroids")
    require(all(map(math.isfinite, centroids.values)), "centroids")
    require(found["ivf.changes"].shape == (1,), "shape of the changes")
    offsets, rows = found["ivf.offsets"].values, found["ivf.rows"].values
    require(len(offsets) == lists + 1 and offsets[0] == 0 and offsets[-1] == n, "ends of the offsets")
    require(all(a <= b for a, b in pairwise(offsets)), "offsets")
    require(sorted(rows) == list(range(n)), "rows of the lists")
    coded = [model.code(centroids.row(i), centroid=True) for i in range(lists)]
    for number, (start, stop) in enumerate(pairwise(offsets)):
        require(all(a < b for a, b in pairwise(rows[start:stop])), f"rows of list {number}")
        for row in rows[start:stop]:
            code = model.code(vectors[row])
            if metric == "manhattan":
                keys = [sum(abs(a - b) for a, b in zip(code, c, strict=True)) for c in coded]
            else:
                keys = [sum((a - b) ** 2 for a, b in zip(code, c, strict=True)) for c in coded]
            require(keys.index(min(keys)) == number, f"the list of row {row}")
    if not pq:
        check_codes("ivf", found, model, vectors, rows)
    else:
        check_products(found, metric, settings, vectors)


def check_products(
    found: dict[str, Part], metric: str, settings: dict[str, Any], vectors: list[list[float]]
) -> None:
    """I3."""
    n, dim = len(vectors), len(vectors[0])
    parts = settings["pq_subvectors"] or max(p for p in range(1, max(dim // 4, 1) + 1) if dim % p == 0)
    books, codes, width = found["ivf.pq_books"], found["ivf.pq_codes"], dim // parts
    words = books.shape[0] // parts
    require(books.shape == (parts * words, width) and 0 < words <= 256, "shape of the codebooks")
    offsets, rows = found["ivf.offsets"].values, found["ivf.rows"].values
    halves = -(-parts // 2)
    n_blocks = sum(-(-(stop - start) // 32) for start, stop in pairwise(offsets))
    shape = (n, parts) if words > 16 else (n_blocks, 32 * halves)
    require(codes.shape == shape, "shape of the product codes")
    terms = found.get("ivf.pq_terms")
    require(terms is None or terms.shape == (n,), "shape of the terms")
    require(all(map(math.isfinite, books.values)), "words")
    first_block = 0
    for number, (start, stop) in enumerate(pairwise(offsets)):
        blocks = [codes.row(first_block + i) for i in range(-(-(stop - start) // 32))] if words <= 16 else []
        first_block += len(blocks)
        for block, i in ((b, i) for b in range(len(blocks)) for i in range(32) if start + 32 * b + i >= stop):
            zeros(bytes(blocks[block][i::32]), "rows behind a list")
        centroid = found["ivf.centroids"].row(number)
        for place in range(start, stop):
            if words > 16:
                chosen = list(codes.row(place))
            else:
                block, at = divmod(place - start, 32)
                pairs = [blocks[block][32 * g + at] for g in range(halves)]
                chosen = [pairs[j // 2] >> 4 * (j % 2) & 15 for j in range(parts)]
                require(parts % 2 == 0 or pairs[-1] < 16, "a part that does not exist")
            require(max(chosen) < words, "a word that does not exist")
            away = [x - c for x, c in zip(vectors[rows[place]], centroid, strict=True)]
            whole: list[float] = []
            for j, word in enumerate(chosen):
                piece = away[j * width : (j + 1) * width]
                book = [books.row(j * words + w) for w in range(words)]
                costs = [sum((a - b) ** 2 for a, b in zip(piece, w, strict=True)) for w in book]
                require(costs[word] <= min(costs) + 1e-4 * (1 + max(costs)), f"word {j} of row {rows[place]}")
                whole += book[word]
            if metric == "euclidean":
                term = sum((c + w) ** 2 for c, w in zip(centroid, whole, strict=True))
                require(near(found["ivf.pq_terms"].values[place], term, 1e-4), f"term of row {rows[place]}")


DTYPES = {
    "hnsw": {
        "hnsw.model": "f64",
        "hnsw.codes": "u8",
        "hnsw.lengths": "i32",
        "hnsw.norms": "f32",
        "hnsw.bounds": "f32",
        "hnsw.links": "u32",
        "hnsw.entries": "u32",
        "hnsw.coarse": "u8",
        "hnsw.coarse-lengths": "i32",
        "hnsw.values": "f32",
        "hnsw.bits": "u8",
    },
    "ivf": {
        "ivf.model": "f64",
        "ivf.centroids": "f32",
        "ivf.changes": "u64",
        "ivf.offsets": "u64",
        "ivf.rows": "u32",
        "ivf.codes": "u8",
        "ivf.lengths": "i32",
        "ivf.norms": "f32",
        "ivf.pq_codes": "u8",
        "ivf.pq_terms": "f32",
        "ivf.pq_books": "f32",
    },
}


def check_index(data: bytes, snapshot: Snapshot) -> int:
    """Check the index sections of a snapshot; return how many there are."""
    settings = snapshot.config["index"]
    found = read_index(data, DTYPES[settings["kind"]])
    metric, dim = snapshot.config["metric"], snapshot.config["dim"]
    if metric == "hamming" and settings["kind"] == "hnsw" and snapshot.records:
        check_bits(found, settings["m"], [record.vector for record in snapshot.records])
        return len(found)
    if metric == "hamming" or snapshot.header["n_rows"] == 0:
        require(not found, "sections that say nothing")
        return 0
    vectors = [list(struct.unpack(f"<{dim}f", record.vector)) for record in snapshot.records]
    if settings["kind"] == "hnsw":
        check_graph(found, metric, settings["m"], vectors)
    else:
        check_lists(found, metric, settings, vectors)
    return len(found)
