"""
Pure functions over buffers: exact search, distances, checksums, hashes, ids, JSON, graphs.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from typing_extensions import Buffer


def variant() -> str:
    """The name of the kernels in use."""

def variants() -> list[str]:
    """The names of the kernels that run on this CPU, oldest first."""

def set_variant(name: str) -> None:
    """Use the kernels of that name from now on."""

def search_flat(vectors: Buffer, queries: Buffer, metric: int, k: int, out_rows: Buffer, out_distances: Buffer, out_counts: Buffer, *, mask: Buffer | None = None, tie_keys: Buffer | None = None, threads: int = 1, block_crcs: Buffer | None = None, verified: Buffer | None = None, crc_prefix: int = 0, max_distance: float = ...) -> int:
    """
    Find the k nearest rows of each query, exactly.

    Args:
        vectors: float32[n, dim].
        queries: float32[q, dim].
        metric: 0 cosine, 1 dot, 2 euclidean, 3 manhattan, 4 hamming.
        k: Hits wanted of each query; more than n are as n.
        out_rows: int64[q, w] with w >= min(k, n): row numbers, nearest first; unused slots -1.
        out_distances: float64[q, w]; unused slots infinity.
        out_counts: int64[q]: hits of each query.
        mask: Bitmap of the candidate rows (bit r & 7 of byte r >> 3); None: all.
        tie_keys: int64[n]: equal distances are ordered by it, then by row; None: by row.
        threads: At most so many threads.
        block_crcs: uint32, the checksums of the 4096-byte blocks of `vectors`; None: not checked.
        verified: uint8, one for each block, 1 where it was verified before; updated.
        crc_prefix: What the checksums start from.
        max_distance: Only hits at this distance or nearer.

    Returns:
        -1, or the number of a damaged block that holds a candidate; then the outputs mean nothing.
    """

def distances(vectors: Buffer, rows: Buffer, query: Buffer, metric: int, out: Buffer) -> None:
    """
    out[i] = the distance of vectors[rows[i]] (float32[n, dim]) from the query, as float64.
    """

def count_bits(bits: Buffer, n: int) -> int:
    """How many of the bits 0..n are set (bit r & 7 of byte r >> 3)."""

def check_finite(x: Buffer) -> int:
    """
    The index of the first infinity or NaN among the float32 items of `x`, or -1.
    """

def crc32c(data: Buffer, value: int = 0) -> int:
    """
    CRC-32C (Castagnoli) of `data`; `value` is the checksum of the bytes before it.
    """

def crc32c_blocks(data: Buffer, prefix: int, first_block: int, out: Buffer) -> None:
    """
    out[i] = checksum of the 4096-byte block i of `data`, which is block first_block + i of its section.
    """

def verify_blocks(data: Buffer, crcs: Buffer, verified: Buffer, prefix: int, first: int, stop: int, threads: int = 1) -> int:
    """
    Verify the blocks first..stop that are not marked in `verified`, and mark them. Returns the first damaged one, or -1.
    """

def hash_bytes(data: Buffer) -> tuple[int, int]:
    """XXH64 of `data` under the seeds 0 and 1."""

def hash_vectors(vectors: Buffer, out: Buffer, threads: int = 1) -> None:
    """out[i] = both hashes of the bytes of vector i."""

def hash_ids_u64(ids: Buffer, out: Buffer) -> None:
    """out[i] = both hashes of integer id i."""

def hash_ids_var(kinds: Buffer, offsets: Buffer, data: Buffer, out: Buffer) -> None:
    """out[i] = both hashes of id i."""

def hash_values(prefix: Buffer, values: Buffer, width: int, rows: Buffer | None, out: Buffer) -> None:
    """
    out[rows[i]] += both hashes of `prefix` and the `width` bytes of value i. Rows None: value i belongs to row i. Width 0: one empty value a row.
    """

def hash_strings(prefix: Buffer, offsets: Buffer, data: Buffer, rows: Buffer | None, out: Buffer) -> None:
    """
    out[rows[i]] += both hashes of `prefix` and string i. Rows None: string i belongs to row i.
    """

def combine_digest(id_h: Buffer, vec_h: Buffer, meta_h: Buffer, out: Buffer | None) -> tuple[int, int]:
    """
    Join the hashes of ids, vectors and metadata to record hashes, into `out` unless it is None. Returns their sums modulo 2^64.
    """

def lookup_u64(ids: Buffer, order: Buffer | None, queries: Buffer, out: Buffer) -> None:
    """
    out[i] = row of the id queries[i], or -1. `order` lists the rows by ascending id; None: the rows ascend themselves.
    """

def lookup_var(kinds: Buffer, offsets: Buffer, data: Buffer, order: Buffer | None, qkinds: Buffer, qoffsets: Buffer, qdata: Buffer, out: Buffer) -> None:
    """lookup_u64() for ids of any kind."""

def sort_ids_var(kinds: Buffer, offsets: Buffer, data: Buffer, out_order: Buffer) -> None:
    """
    out_order = rows by ascending id: by kind, then integers by value and others bytewise; equal ids by row.
    """

def compare_strings(offsets: Buffer, data: Buffer, needle: Buffer, out: Buffer) -> None:
    """out[i] = -1, 0 or 1: how string i stands to `needle`, bytewise."""

def contains_strings(offsets: Buffer, data: Buffer, needle: Buffer, out: Buffer) -> None:
    """out[i] = 1 if string i contains `needle`, else 0."""

def dictionary_strings(offsets: Buffer, data: Buffer, out_codes: Buffer, out_rows: Buffer) -> int:
    """
    Number the distinct strings by first appearance: out_codes[i] = number of string i, out_rows[e] = first place of number e. Returns how many there are, or -1 when they are more than out_rows has room for.
    """

def gather_strings(offsets: Buffer, data: Buffer, rows: Buffer, out_data: Buffer) -> None:
    """
    Copy the strings at `rows` to `out_data`, one after the other; they must fill it exactly.
    """

def format_f32_json(vector: Buffer) -> bytes:
    """
    The vector as a JSON array, each component as the shortest decimal that reads back as the same float32.
    """

def find_values(rows: Buffer, values: Buffer, threads: int = 1) -> bool:
    """
    Tell whether each component of rows takes at most two values, those in `values` included.

    Args:
        rows: float32[n, dim]. Values are told apart by their bits.
        values: float32[2, dim]: what components took so far, twice the first row where that is all there was. A
            second value that is found is written into its second row. Without meaning when False is returned.
        threads: At most so many threads; the result does not depend on it.
    """

def encode_bits(values: Buffer, rows: Buffer, out_codes: Buffer, threads: int = 1) -> None:
    """
    Encode rows a bit a component: 0 where it has its first value, else 1.

    Args:
        values: float32[2, dim], as find_values leaves it.
        rows: float32[n, dim].
        out_codes: uint8[n, w], w = 8 bytes for every 64 of dim, rounded up. Component j is bit j & 7 of byte j >> 3.
        threads: At most so many threads.
    """

class StoredBits:
    """Codes of all rows a bit a component, for exact search under hamming."""

    def __init__(self, dim: int, values: Buffer, codes: Buffer, code_blocks: tuple[Buffer, Buffer, int] | None = None) -> None:
        """
        Hold codes open.

        Args:
            dim: Components of a vector.
            values: float32[2, dim], as find_values leaves it.
            codes: uint8[n, w], as encode_bits writes them.
            code_blocks: (crcs, verified, prefix) of `codes`; None: they are verified.
        """

    def search(self, queries: Buffer, k: int, out_rows: Buffer, out_distances: Buffer, out_counts: Buffer, *, vectors: Buffer | None = None, mask: Buffer | None = None, tie_keys: Buffer | None = None, threads: int = 1, vector_blocks: tuple[Buffer, Buffer, int] | None = None, max_distance: float = ...) -> tuple[int, int]:
        """
        Find what search_flat finds, bit for bit. With `vectors`, distances of hits are computed from these.

        Returns:
            (0, 0), or what is damaged (1 codes, 3 vectors) and its block; then the outputs mean nothing.
        """

class StoredCodes:
    """Codes of all rows, for exact search under cosine, dot or euclidean."""

    def __init__(self, metric: int, dim: int, model: Buffer, codes: Buffer, bounds: Buffer, norms: Buffer | None = None, code_blocks: tuple[Buffer, Buffer, int] | None = None) -> None:
        """
        Hold codes open.

        Args:
            metric: 0 to 2.
            dim: Components of a vector.
            model: float64, as train_codes returns it.
            codes: uint8[n, stride], as encode_codes writes them, like bounds and norms.
            bounds: float32[2, n].
            norms: float32[n]; only for inner products.
            code_blocks: (crcs, verified, prefix) of `codes`; None: they are verified.
        """

    def search(self, vectors: Buffer, queries: Buffer, k: int, out_rows: Buffer, out_distances: Buffer, out_counts: Buffer, *, mask: Buffer | None = None, tie_keys: Buffer | None = None, threads: int = 1, vector_blocks: tuple[Buffer, Buffer, int] | None = None, max_distance: float = ...) -> tuple[int, int, int]:
        """
        Find what search_flat finds, bit for bit; most rows are excluded by their codes.

        Returns:
            (0, 0, vectors compared), or what is damaged (1 codes, 3 vectors), its block, and a number without
            meaning; then the outputs mean nothing.
        """

def mask_within(columns: list[Any], int_low: int, int_high: int, float_low: float, float_high: float, inverted: bool, mask: Buffer) -> None:
    """
    Set the bits of `mask` that belong to values in a closed interval, or outside of it if `inverted`; NaN is outside of all. Each column is a tuple: its first row, how many rows it covers, an int64 or float64 value for each row that has one, and the bitmap of those rows (None: all).
    """

def coarsen_codes(codes: Buffer, out_coarse: Buffer, out_lengths: Buffer, threads: int = 1) -> None:
    """
    Keep the upper four bits of codes (uint8[n, stride]).

    Args:
        codes: uint8[n, stride].
        out_coarse: uint8[n, w], w = 32 bytes for every 64 of the stride, rounded up.
        out_lengths: int32[n]: sum of squares of what each coarse code stands for.
        threads: At most so many threads.
    """

def train_codes(rows: Buffer, metric: int) -> list[float]:
    """
    The code model for rows (float32[n, dim]) under a metric (0 to 3), as a list of float64:
    unit_length, scale, norm_unit, and the mean of every component.
    """

def encode_codes(model: Buffer, rows: Buffer, out_codes: Buffer, out_lengths: Buffer, out_norms: Buffer | None = None, out_bounds: Buffer | None = None, threads: int = 1) -> None:
    """
    Encode rows (float32[n, dim]).

    Args:
        model: float64, as train_codes returns it.
        rows: float32[n, dim].
        out_codes: uint8[n, stride], stride = the coded components rounded up to a multiple of 32.
        out_lengths: int32[n]: sum of squares of each code.
        out_norms: float32[n]: length of each row over norm_unit; None: not wanted.
        out_bounds: float32[2, n]: what exact search needs to know of each code; None: not wanted.
        threads: At most so many threads.
    """

def extend_graph(metric: int, codes: Buffer, lengths: Buffer | None, links: Buffer, entries: Buffer, fresh: Buffer, m: int, ef_construction: int, seed: int, threads: int = 1, coarse: Buffer | None = None, coarse_lengths: Buffer | None = None, model: Buffer | None = None, norms: Buffer | None = None) -> list[int]:
    """
    Insert rows into a graph, and return its entries.

    Args:
        metric: 0 to 4.
        codes: uint8[n, stride], or under hamming a bit a component, as encode_bits writes them.
        lengths: int32[n]; None under hamming.
        links: uint32[n, 2 m]: those of `fresh` rows are written. 0xffffffff: no neighbour.
        entries: uint32: where walks begin in the linked part.
        fresh: uint32: rows to insert; all others are linked already.
        m: Neighbours chosen for a new row.
        ef_construction: Breadth of the walk that finds them.
        seed: Order of insertion.
        threads: At most so many threads; the result does not depend on it.
        coarse: uint8[n, coarse stride], as coarsen_codes writes it: what walks are to read. None: the codes.
        coarse_lengths: int32[n], with it.
        model: float64, as train_codes returns it.
        norms: float32[n], for inner products: also link rows to those with the greatest products. None: do not.
    """

def carry_graph(metric: int, codes: Buffer, lengths: Buffer | None, links: Buffer, old_links: Buffer, old_entries: Buffer, target: Buffer, m: int, ef_construction: int, threads: int = 1) -> list[int]:
    """
    Carry a graph over to new row numbers and repair it around rows that are gone; return its entries.

    Args:
        metric: 0 to 4.
        codes: uint8[n, stride] of the new rows, as extend_graph takes them.
        lengths: int32[n]; None under hamming.
        links: uint32[n, 2 m]: written for every row that `target` names.
        old_links: uint32[old_n, 2 m].
        old_entries: uint32.
        target: uint32[old_n]: the new row of each old one, or 0xffffffff when it is gone.
        m: As at the build.
        ef_construction: As at the build.
        threads: At most so many threads; the result does not depend on it.
    """

def check_graph(links: Buffer, entries: Buffer, threads: int = 1) -> tuple[list[int], list[int], int, int]:
    """
    What is wrong with the links of a stored graph (uint32[n, degree], uint32 entries).

    Returns:
        (counts, first nodes, unreachable, first unreachable). Counts are those of links that name no node, that
        name their own node, that name a neighbour twice, and that stand behind an empty place; a node is
        unreachable when no path leads to it from the entries. A first node means nothing where its count is 0.
    """

class StoredGraph:
    """A graph over codes, searched in place."""

    def __init__(self, metric: int, dim: int, model: Buffer, codes: Buffer, lengths: Buffer | None, links: Buffer, entries: Buffer, norms: Buffer | None = None, code_blocks: tuple[Buffer, Buffer, int] | None = None, link_blocks: tuple[Buffer, Buffer, int] | None = None, coarse: Buffer | None = None, coarse_lengths: Buffer | None = None, coarse_blocks: tuple[Buffer, Buffer, int] | None = None) -> None:
        """
        Hold a graph open.

        Under hamming `model` is float32[2, dim], as find_values leaves it, `codes` are those of encode_bits, and there
        are no lengths and no coarse codes; a query with a third value finds nothing, and no vector is compared for it.
        """

    def search(self, vectors: Buffer, queries: Buffer, k: int, breadth: int, scored: int, out_rows: Buffer, out_distances: Buffer, out_counts: Buffer, out_visited: Buffer, *, mask: Buffer | None = None, threads: int = 1, vector_blocks: tuple[Buffer, Buffer, int] | None = None, max_distance: float = ..., filtered: bool = False) -> tuple[int, int]:
        """
        Walk the graph for each query and score the nearest `scored` rows that pass the mask by their vectors.

        A walk goes over all nodes and picks out those that pass at its end; with `filtered` its pool holds nodes that
        pass alone, and nodes that do not are passed through.

        Returns:
            (0, 0), or what is damaged (1 codes, 2 links, 3 vectors, 4 coarse codes) and its block; then the outputs mean nothing.
        """

class SingleSearch:
    """Searches of a StoredGraph with one query, over all rows."""

    def __init__(self, graph: StoredGraph, vectors: Buffer, vector_blocks: tuple[Buffer, Buffer, int] | None, breadth: int, scored: int, rows: int, rows_per_ef: int) -> None: ...

    def nearest(self, query: object, k: object, ef: object, n_probes: object) -> tuple[list[int], list[float]] | None:
        """
        Return the rows of the k nearest and their distances, as two lists, or None.

        None says to search by StoredGraph.search, or to scan: the arguments need a conversion or are wrong, the graph is
        small for its ef, a part of the file is damaged, or the walk came short.
        """

def product_residuals(rows: Buffer, centroids: Buffer, assigned: Buffer, factor: float, out: Buffer, threads: int = 1) -> None:
    """
    out[n][dim] = (row - its centroid) * factor, in float64 until it is stored. `assigned` is uint32[n].
    """

def product_terms(books: Buffer, centroids: Buffer, assigned: Buffer, codes: Buffer, parts: int, out: Buffer, threads: int = 1) -> None:
    """
    out[n] = the square of the length of what each row is coded as: its centroid and the words that codes[n][parts] name, summed in float64 in the order of the components; at most the greatest float32.
    """

def train_clusters(model: Buffer, codes: Buffer, metric: int, iterations: int, seed: int, out_centroids: Buffer, threads: int = 1) -> None:
    """
    Train centroids by k-means over codes.

    The same arguments give the same centroids on every CPU, for any number of threads.

    Args:
        model: float64, as train_codes returns it; the codes were made with it.
        codes: uint8[n, stride], n at least the number of centroids.
        metric: 0 to 3.
        iterations: At most so many.
        seed: Chooses the first centroids.
        out_centroids: float32[c, dim].
        threads: At most so many threads.
    """

def assign_clusters(model: Buffer, centroids: Buffer, codes: Buffer, metric: int, out: Buffer, threads: int = 1) -> None:
    """
    out[i] (uint32) = the centroid (float32[c, dim]) nearest to code i, the first of equals.
    """

def train_product(points: Buffer, parts: int, absolute: bool, iterations: int, seed: int, out_books: Buffer, threads: int = 1) -> None:
    """
    Train a codebook for each part of points (float32[n, dim]) by k-means.

    The same arguments give the same books on every CPU, for any number of threads.

    Args:
        points: float32[n, dim], n at least the number of words.
        parts: Divides dim.
        absolute: The nearest word is the one with the least sum of absolute, not of squared differences.
        iterations: As many.
        seed: Chooses the first words.
        out_books: float32[parts * words, dim / parts], at most 256 words.
        threads: At most so many threads.
    """

def encode_product(books: Buffer, points: Buffer, parts: int, absolute: bool, out_codes: Buffer, threads: int = 1) -> None:
    """
    out_codes[i, part] (uint8) = the word of books that is nearest to that part of point i.
    """

class StoredLists:
    """Inverted lists, held open for searches from any number of threads."""

    def __init__(self, metric: int, model: Buffer, centroids: Buffer, offsets: Buffer, rows: Buffer, *, codes: Buffer | None = None, lengths: Buffer | None = None, norms: Buffer | None = None, books: Buffer | None = None, product_codes: Buffer | None = None, product_terms: Buffer | None = None, row_blocks: tuple[Buffer, Buffer, int] | None = None, code_blocks: tuple[Buffer, Buffer, int] | None = None, length_blocks: tuple[Buffer, Buffer, int] | None = None, norm_blocks: tuple[Buffer, Buffer, int] | None = None, product_code_blocks: tuple[Buffer, Buffer, int] | None = None, product_term_blocks: tuple[Buffer, Buffer, int] | None = None) -> None:
        """
        Open lists, with codes or with product codes.

        Args:
            metric: 0 to 3; not 0 with product codes.
            model: float64, as train_codes returns it.
            centroids: float32[c, dim].
            offsets: uint64[c + 1]: where each list starts, from 0 to n.
            rows: uint32[n], in list order; checked where they are used.
            codes: uint8[n, stride], in list order.
            lengths: int32[n], in list order.
            norms: float32[n], in list order, for the inner product.
            books: float32[parts * words, dim / parts]: words of each part, at most 256.
            product_codes: uint8[n, parts], in list order; with at most 16 words uint8[blocks, ceil(parts / 2) * 32]:
                each list padded to blocks of 32 rows, in which 32 bytes hold two parts of every row.
            product_terms: float32[n], in list order, for the euclidean distance.
            row_blocks: (crcs, verified, prefix) of the rows; None: not checked. Likewise the others.
        """

    def search(self, vectors: Buffer, queries: Buffer, k: int, n_probes: int, enough: int, scored: int, out_rows: Buffer, out_distances: Buffer, out_counts: Buffer, out_visited: Buffer, mask: Buffer | None = None, threads: int = 1, vector_blocks: tuple[Buffer, Buffer, int] | None = None, max_distance: float = ...) -> tuple[int, int]:
        """
        Find the k nearest rows of each query in the lists whose centroids are nearest.

        Args:
            vectors: float32[n, dim].
            queries: float32[q, dim].
            k: Hits wanted of each query.
            n_probes: Lists that are scanned.
            enough: Lists beyond them are scanned until so many rows that pass the mask were seen.
            scored: The nearest candidates by codes that are scored by their vectors, at least k.
            out_rows: int64[q, w] with w >= min(k, n): row numbers, nearest first; unused slots -1.
            out_distances: float64[q, w]; unused slots infinity.
            out_counts: int64[q]: hits of each query.
            out_visited: int64[q, 3]: codes compared, vectors compared, lists scanned.
            mask: Bitmap of the candidate rows (bit r & 7 of byte r >> 3); None: all.
            threads: At most so many threads.
            vector_blocks: (crcs, verified, prefix) of the vectors; None: not checked.
            max_distance: Only hits at this distance or nearer.

        Returns:
            (0, 0), or what is damaged and its block, and the outputs mean nothing: 1 codes, 2 rows, 3 lengths,
            4 norms, 5 product codes, 6 product terms, 7 vectors.
        """

class SingleListSearch:
    """Searches of StoredLists with one query, over all rows."""

    def __init__(self, lists: StoredLists, vectors: Buffer, vector_blocks: tuple[Buffer, Buffer, int] | None, n_probes: int, scored_per_hit: int, scored: int, rows: int, codes_per_row: int) -> None: ...

    def nearest(self, query: object, k: object, ef: object, n_probes: object) -> tuple[list[int], list[float]] | None:
        """
        Return the rows of the k nearest and their distances, as two lists, or None.

        None says to search by StoredLists.search, or to scan: the arguments need a conversion or are wrong, the lists
        are small for the probes, a part of the file is damaged, or the lists came short.
        """

class JsonlError(ValueError):
    """
    A line that parse_jsonl() cannot take.

    Attributes:
        line: Number of the line, from first_line on.
        column: Place in the line, in bytes from 1.
        reason: What is wrong there.
    """

    line: int = 0

    column: int = 0

    reason: str = ''

class JsonlBatch:
    """The records of consecutive lines, in columns. Arrays are memoryviews."""

    @property
    def n_rows(self) -> int: ...

    @property
    def n_lines(self) -> int:
        """Lines consumed, blank ones included."""

    @property
    def consumed_bytes(self) -> int:
        """The next call's data start here."""

    @property
    def dim(self) -> int:
        """Components of each vector; 0 when no record was seen yet."""

    @property
    def has_ids(self) -> bool:
        """Every record has an id; else the id arrays are empty."""

    @property
    def ids_all_u64(self) -> bool:
        """All ids are integers, and ids_u64 holds them."""

    @property
    def vectors(self) -> Annotated[memoryview, dict(dtype='float32', shape=(None,), order='C', writable=False)]:
        """float32[n_rows * dim]"""

    @property
    def row_lines(self) -> Annotated[memoryview, dict(dtype='uint64', shape=(None,), order='C', writable=False)]:
        """uint64[n_rows]: number of the line of each row."""

    @property
    def id_kinds(self) -> Annotated[memoryview, dict(dtype='uint8', shape=(None,), order='C', writable=False)]:
        """uint8[n_rows]: 0 integer, 1 bytes, 2 text."""

    @property
    def id_offsets(self) -> Annotated[memoryview, dict(dtype='uint64', shape=(None,), order='C', writable=False)]:
        """uint64[n_rows + 1]"""

    @property
    def id_bytes(self) -> Annotated[memoryview, dict(dtype='uint8', shape=(None,), order='C', writable=False)]:
        """uint8[id_offsets[-1]]; an integer has 8 bytes, little-endian."""

    @property
    def ids_u64(self) -> Annotated[memoryview, dict(dtype='uint64', shape=(None,), order='C', writable=False)]:
        """uint64[n_rows] if ids_all_u64, else empty."""

    @property
    def has_metadata(self) -> Annotated[memoryview, dict(dtype='uint8', shape=(None,), order='C', writable=False)]:
        """uint8[n_rows]: 1 where the record has a mapping, be it empty."""

    @property
    def columns(self) -> list[tuple[str, int, memoryview, memoryview, memoryview | None]]:
        """
        One (key, type, rows, values, offsets) for each key and type, sorted by them. Types: 1 null (no values), 2 bool (uint8), 3 int64, 4 float64, 5 string (UTF-8, with offsets).
        """

def parse_jsonl(data: Buffer, *, first_line: int = 1, id_field: str | None = None, vector_field: str | None = None, metadata_field: str | None = None, columns: Sequence[str] | None = None, no_metadata: bool = False, scalars_only: bool = False, dim: int = 0, max_rows: int = 4294967295, final: bool = True, max_line_bytes: int = 268435456) -> JsonlBatch:
    """
    Read records from JSON Lines (RFC 8259, one object a line, blank lines skipped).

    Args:
        data: Bytes that start at the start of a line. They must not change during the call.
        first_line: The number of that line. A byte order mark is skipped before line 1.
        id_field: Key of the id: an integer 0..2^64-1, a string or {"hex": "00ff"}; None: no ids. Either
            all records have it or none.
        vector_field: Key of the vector, an array of numbers; None: lines are metadata alone, and a line
            may be null for a record without a mapping.
        metadata_field: Key of the object (or null) with the metadata; all other keys are skipped. None:
            the keys of the record beside id and vector are the metadata, and a record that has no such
            key has no mapping.
        columns: Keep these keys of the metadata only, whatever the others hold.
        no_metadata: Keep none.
        scalars_only: Pass over arrays and objects among the keys of the record (not of the metadata_field)
            instead of refusing them.
        dim: Components expected of every vector; 0: as many as the first has.
        max_rows: Stop after so many records.
        final: The data end here, so the last line is whole even without a line end. Otherwise it is left
            to the next call.
        max_line_bytes: Longer lines are refused.

    A value of the metadata is a string, true, false, null, an integer of 64 bits (without fraction and
    exponent), another number (float64), or {"float": F} with F "nan", "inf", "-inf" or "nan:" and the 16
    hexadecimal digits of the bits. Numbers are rounded correctly, vector components to float32.

    Returns:
        The records of as many lines as were complete; `consumed_bytes` says how far they go. It may be
        fewer lines when records have very many different keys.

    Raises:
        JsonlError: a line is not as above, has a key twice, or exceeds a limit.
    """

def digest_plain(vectors: Buffer, dim: int, ids: Buffer, first_rank: int) -> tuple[int, int, int, int]:
    """
    Digest and order of records with integer ids and no metadata, in one pass. Returns (bad, low, high, sequence): the first component that is not finite, or -1; the sums of the record hashes; the sum of the ids' first hashes, each times 2 rank + 1.
    """

def check_vectors(data: Buffer, prefix: int, first_block: int, crcs: Buffer, start: int, dim: int, out_wrong: Buffer, out_hashes: Buffer) -> int:
    """
    One look at whole blocks of stored vectors. out_wrong[i] tells whether block first_block + i has another checksum than crcs[i]; out_hashes[i] is the hash pair, as of hash_vectors, of row i of those that begin at byte `start`. Returns the first component of these rows that is not finite, or -1.
    """

def number_ids(first: int, out: Buffer) -> None:
    """out[i] = first + i, modulo 2^64."""

def ids_ascend(ids: Buffer, below: int | None) -> bool:
    """
    Whether the integer ids ascend strictly, the first above `below` unless that is None.
    """

def copy_vector(vector: object, dim: int) -> bytes | None:
    """
    A copy of a float32[dim] buffer whose components are finite; None for anything else.
    """

def encode_frame(header: Buffer, parts: Sequence[Buffer], seed: int) -> bytes:
    """
    A log frame: the header of 40 bytes, whose last four become the checksum, and the parts of its body. `seed` is the CRC-32C of the database id.
    """
