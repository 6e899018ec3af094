"""Calls of the native module with arrays of any content and, now and then, of any shape.

What a harness of libFuzzer calls lies behind the bindings; this goes through them: their checks of shapes,
the searches that come and go by the shortest way, the masks of filters. It is worth most in the module that
`tests/sanitize.py` builds, where a read beyond an array ends the process.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator

import kernel_building
import kernel_bytes
import kernel_searches
from kernel_feed import REFUSED, Feed
from mutators import mutate_bytes

from iqdb_core import _kernels


def run_kernels(data: bytes) -> str:
    """Call one of the kernels."""
    feed = Feed(data)
    call = CALLS[feed.below(len(CALLS))]
    variants = _kernels.variants()
    before = _kernels.variant()
    _kernels.set_variant(variants[feed.below(len(variants))])
    try:
        call(feed)
    except REFUSED as error:
        return f"{call.__name__}: {type(error).__name__}"
    finally:
        _kernels.set_variant(before)
    return call.__name__


def kernel_seeds() -> Iterator[bytes]:
    """Yield inputs for every call."""
    for number in range(8 * len(CALLS)):
        yield struct.pack("<H", number % len(CALLS)) + random.Random(number).randbytes(600)


def mutate_kernels(data: bytes, rng: random.Random) -> bytes:
    """Change some bytes, or take others behind the choice of the call."""
    return data[:2] + rng.randbytes(rng.randrange(1200)) if rng.randrange(2) else mutate_bytes(data, rng)


CALLS: tuple[Callable[[Feed], None], ...] = (
    kernel_bytes.mask_within, kernel_bytes.strings, kernel_bytes.lookup, kernel_searches.flat,
    kernel_searches.codes, kernel_searches.graph, kernel_searches.lists, kernel_building.carried,
    kernel_building.encoded, kernel_searches.bits, kernel_searches.bit_graph, kernel_searches.product_lists,
    kernel_building.trained, kernel_bytes.sums, kernel_bytes.values, kernel_bytes.digests, kernel_bytes.text,
    kernel_bytes.records, kernel_bytes.vectors, kernel_building.residuals,
)  # fmt: skip
