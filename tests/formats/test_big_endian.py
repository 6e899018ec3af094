"""Golden databases are opened on an emulated machine of the other byte order; the product is not built there.

The reader is a program of its own, big_endian.cpp, written from the pages of the formats.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from generate_golden import GOLDEN, LONG_STRING
from independent_checksums import xxh64

from iqdb_core.storage.snapshot import Snapshot

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "iqdb_core" / "kernels"
COMPILER, EMULATOR = "s390x-linux-gnu-g++", "qemu-s390x"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.iqdb"))


def need(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the reader prints of each golden database."""
    need(COMPILER, EMULATOR)
    program = tmp_path_factory.mktemp("big-endian") / "reader"
    sources = [Path(__file__).with_name("big_endian.cpp")]
    sources += [KERNELS / f"{name}.cpp" for name in ("checksum", "threads", "xxh64")]
    # What hashes many rows at once chooses a kernel by CPU, and is not needed here.
    options = ["-std=c++20", "-O1", "-static", "-pthread", "-ffunction-sections", "-Wl,--gc-sections"]
    command = [COMPILER, *options, f"-I{KERNELS}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)
    paths = [str(GOLDEN / f"{name}.iqdb") for name in NAMES]
    result = subprocess.run([EMULATOR, str(program), *paths], capture_output=True, text=True, check=False)
    assert result.returncode == 0, [line for line in result.stdout.splitlines() if ".iqdb: " in line]
    found: dict[str, list[str]] = {}
    for line in result.stdout.splitlines():
        if line.startswith(str(GOLDEN)):
            lines = found.setdefault(Path(line.split()[0]).stem, [])
        lines.append(line)
    return found


def printed_id(value: Any) -> str:
    if isinstance(value, int):
        return f"int {value}"
    return f"bytes {value['hex']}" if isinstance(value, dict) else f"str {value.encode().hex()}"


def plain_value(value: list[Any]) -> str:
    kind = value[0]
    if kind == "null":
        return kind
    if kind == "string" and isinstance(value[1], dict):
        return f"long string of {value[1]['bytes']} bytes, {value[1]['xxh64']}"
    plain = value[1]
    return f"{kind} {plain.encode().hex() if kind == 'string' else int(plain) if kind == 'bool' else plain}"


def shortened(text: str) -> str:
    """Return a printed value as the JSON files have it: of long strings only the length and a hash."""
    if text.startswith("string ") and len(text) // 2 > LONG_STRING:
        value = bytes.fromhex(text.removeprefix("string "))
        if len(value) > LONG_STRING:
            return f"long string of {len(value)} bytes, {xxh64(value):016x}"
    return text


def printed_metadata(text: str) -> dict[str, str] | None:
    if text == "none":
        return None
    pairs = (item.split(":", 1) for item in text.split(";") if item)
    return {bytes.fromhex(key).decode(): shortened(value) for key, value in pairs}


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_database_is_read_on_a_big_endian_machine(name: str, output: dict[str, list[str]]) -> None:
    want = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    snapshot = Snapshot.open(GOLDEN / f"{name}.iqdb")
    sections = snapshot.sections.values()
    blocks = sum(-(-section.entry.stored_bytes // 4096) for section in sections)
    first, *lines = output[name]
    assert first.split()[1:] == [
        str(number) for number in (len(sections), blocks, snapshot.n_rows, snapshot.dim)
    ]
    if "zstd" in want["config"]["compression"]:
        # There is no decoder for that machine here: checksums are what was compared.
        assert not lines
        return
    digest = want.get("content_digest_with_log", want["content_digest"])
    assert lines[0] == f"digest {digest} {want['n_records']}"
    records = [line.split("\t") for line in lines[1:]]
    assert len(records) == want["n_records"]
    for item in want["records"]:
        metadata = item["metadata"]
        row, record_id, bits, found = records[item["row"]]
        assert [row, record_id, bits] == [
            str(item["row"]),
            printed_id(item["id"]),
            item["vector_f32_bits"],
        ]
        if metadata is not None:
            metadata = {key: plain_value(value) for key, value in metadata.items()}
        assert printed_metadata(found) == metadata


def test_the_native_module_is_not_built_for_a_big_endian_machine(tmp_path: Path) -> None:
    need("cmake", COMPILER)
    options = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "s390x",
        "CMAKE_CXX_COMPILER": COMPILER,
        "SKBUILD_PROJECT_NAME": "iqdb",
        "SKBUILD_PROJECT_VERSION": "0",
    }
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path), *(f"-D{k}={v}" for k, v in options.items())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "iqdb does not run on big-endian machines" in done.stderr
