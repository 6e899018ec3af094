"""The committed inputs: `corpus/TARGET` and `regressions/TARGET`, one compressed file each.

Snapshots are mostly zeros between their sections, so the files are kept as zlib streams.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
KINDS = ("corpus", "regressions")
SUFFIX = ".z"


def inputs_of(target: str, kinds: tuple[str, ...] = KINDS) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the committed inputs of a target."""
    for kind in kinds:
        for path in sorted((HERE / kind / target).glob(f"*{SUFFIX}")):
            yield f"{kind}/{target}/{path.name}", zlib.decompress(path.read_bytes())


def add(target: str, kind: str, data: bytes, name: str | None = None) -> Path:
    """Keep an input, named by its content unless a name is given."""
    folder = HERE / kind / target
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or hashlib.sha1(data).hexdigest()[:16]}{SUFFIX}"
    path.write_bytes(zlib.compress(data, 9))
    return path
