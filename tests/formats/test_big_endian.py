"""The kernels that check files read the golden snapshots on an emulated machine of the other byte order."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from generate_golden import GOLDEN

from iqdb_core.storage.snapshot import Snapshot

KERNELS = Path(__file__).parents[2] / "iqdb_core" / "kernels"
COMPILER, EMULATOR = "s390x-linux-gnu-g++", "qemu-s390x"


def test_every_block_of_every_golden_snapshot_is_whole_on_a_big_endian_machine(tmp_path: Path) -> None:
    for tool in (COMPILER, EMULATOR):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    program = tmp_path / "reader"
    sources = [Path(__file__).with_name("big_endian.cpp"), KERNELS / "checksum.cpp", KERNELS / "threads.cpp"]
    options = ["-std=c++20", "-O1", "-static", "-pthread", f"-I{KERNELS}"]
    subprocess.run([COMPILER, *options, *map(str, sources), "-o", str(program)], check=True)
    paths = sorted(GOLDEN.glob("*.iqdb"))
    result = subprocess.run(
        [EMULATOR, str(program), *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    for path, line in zip(paths, result.stdout.splitlines(), strict=True):
        snapshot = Snapshot.open(path)
        sections = snapshot.sections.values()
        blocks = sum(-(-section.entry.stored_bytes // 4096) for section in sections)
        assert line == f"{path} {len(sections)} {blocks} {snapshot.n_rows} {snapshot.dim}"
