"""The fields, tags and limits of formats 1 and 2. No I/O. `formats/legacy-1.md` has the same tables."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from iqdb_core.types import DistanceMetric, IndexKind

SNAPSHOT_MAGIC: Final = b"IQDBPRST"
INDEX_TYPE: Final = b"iqdb-core"
"""The index type of a database. Other crates of the family wrote bare indexes under other names."""
MAX_INDEX_TYPE_BYTES: Final = 4096

# magic, version, length of the index type; the index type follows
HEADER_HEAD: Final = struct.Struct("<8sIQ")
# dim, metric, n_vectors, CRC-32 of the payload region
HEADER_TAIL: Final = struct.Struct("<QBQI")
HEADER_BYTES: Final = HEADER_HEAD.size + len(INDEX_TYPE) + HEADER_TAIL.size

# scheme, uncompressed length; in front of the payload from version 2 on
PREAMBLE: Final = struct.Struct("<BQ")
SCHEME_NONE: Final = 0
SCHEME_ZSTD: Final = 1
SCHEME_LZ4: Final = 2
SCHEMES: Final = {SCHEME_NONE: "none", SCHEME_ZSTD: "zstd", SCHEME_LZ4: "lz4"}
MAX_EXPANSION: Final = 4096
"""The payload is at most so many times as long as its compressed form."""
LZ4_EXPANSION: Final = 255
"""No LZ4 block decodes to more than so many times its length."""

PAYLOAD_MAGIC: Final = b"IQDC"
PAYLOAD_VERSION: Final = 1
# magic, version, index kind; the settings of the kind follow
PAYLOAD_HEAD: Final = struct.Struct("<4sIB")
# m, ef_construction, ef_search, filter_widen, seed
HNSW_SETTINGS: Final = struct.Struct("<QQQQQ")
# n_clusters, n_probes, training_sample_size, use_pq, has_pq_subvectors; pq_subvectors follows if so
IVF_SETTINGS: Final = struct.Struct("<QQQBB")
# pq_refine_factor, seed
IVF_SETTINGS_END: Final = struct.Struct("<IQ")
# dim, metric, n_rows; the rows follow
PAYLOAD_TAIL: Final = struct.Struct("<QBQ")

LOG_MAGIC: Final = b"IQDBWAL\0"
LOG_VERSION: Final = 1
LOG_HEADER: Final = struct.Struct("<8sI")
FRAME_HEAD: Final = struct.Struct("<II")
"""Body length and CRC-32 of the body."""
MAX_BODY_BYTES: Final = 256 << 20
MIN_BODY_BYTES: Final = 10
"""The shortest body: op, kind of the id, an integer id."""
OP_UPSERT: Final = 1
OP_DELETE: Final = 2

ID_INT: Final = 0
ID_BYTES: Final = 1
VALUE_STRING: Final = 0
VALUE_INT: Final = 1
VALUE_FLOAT: Final = 2
VALUE_BOOL: Final = 3
VALUE_NULL: Final = 4

U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
I64: Final = struct.Struct("<q")
F64: Final = struct.Struct("<d")

METRICS: Final = {metric.tag: metric for metric in DistanceMetric}
INDEX_KINDS: Final = {kind.tag: kind for kind in IndexKind}


class LegacyHeader(NamedTuple):
    """The header of a snapshot. No checksum covers it; each field is checked against the payload."""

    version: int
    index_type: str
    dim: int
    metric: int
    n_vectors: int
    crc32: int
