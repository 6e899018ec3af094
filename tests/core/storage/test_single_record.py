from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from iqdb_core.records import Ids, MetadataColumns
from iqdb_core.storage.frames import encode_upsert
from iqdb_core.storage.single_record import encode_single_upsert

ids = (
    st.integers(0, 2**64 - 1)
    | st.binary(min_size=1, max_size=20)
    | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=True)
    | texts
    | st.just(struct.unpack("<d", b"\1\0\0\0\0\0\xf8\x7f")[0])
)


@given(ids, st.integers(1, 5), st.none() | st.dictionaries(texts, values, max_size=6))
def test_one_record_is_encoded_as_a_batch_of_one_would_be(record_id: Any, dim: Any, metadata: Any) -> None:
    vector = np.arange(dim, dtype=np.float32)
    columns = None if metadata is None else MetadataColumns.from_dicts([metadata])
    expected = b"".join(encode_upsert(Ids.from_list([record_id]), vector.reshape(1, dim), columns))
    assert encode_single_upsert(record_id, vector.tobytes(), metadata) == expected


def test_the_bits_of_a_nan_are_kept() -> None:
    nan = struct.unpack("<d", b"\1\0\0\0\0\0\xf8\x7f")[0]
    assert math.isnan(nan)
    assert struct.pack("<d", nan) in encode_single_upsert(1, bytes(4), {"x": nan})
