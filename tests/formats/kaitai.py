"""Compiles formats/iqdb.ksy into a Python parser, where the Kaitai Struct compiler can be had.

    npm install --prefix /some/folder kaitai-struct-compiler js-yaml
    NODE_PATH=/some/folder/node_modules pytest tests/formats/test_kaitai.py

which is what the gate does where npm is there (.ci/run). A run of the tests by hand fetches nothing.
The compiler for the Java machine, `kaitai-struct-compiler` on the path, does as well.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Any

DESCRIPTION = Path(__file__).parents[2] / "formats" / "iqdb.ksy"

_SCRIPT = """
const fs = require('fs'), yaml = require('js-yaml'), found = require('kaitai-struct-compiler');
const compiler = typeof found === 'function' ? new found() : found.default ? new found.default() : found;
const [source, folder] = process.argv.slice(2);
compiler.compile('python', yaml.load(fs.readFileSync(source, 'utf8')), null, false).then(files => {
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(folder + '/' + name, text);
}, error => { console.error(String(error)); process.exit(1); });
"""


class UnavailableError(Exception):
    """There is no compiler here, or the generated code has no run-time library."""


def parser(folder: Path) -> Any:
    """Return the class `Iqdb` that the compiler makes; `folder` receives its source.

    Raises:
        UnavailableError: says what is missing.
    """
    if importlib.util.find_spec("kaitaistruct") is None:
        raise UnavailableError("the Python package kaitaistruct is not installed")
    target = folder / "iqdb.py"
    for command in _commands(folder):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0 and target.exists():
            break
        if "Cannot find module" not in result.stderr:
            raise AssertionError(f"{DESCRIPTION} does not compile: {result.stderr or result.stdout}")
    else:
        raise UnavailableError("neither kaitai-struct-compiler nor its npm package in NODE_PATH is installed")
    spec = importlib.util.spec_from_file_location("iqdb_by_kaitai", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Iqdb


def _commands(folder: Path) -> list[list[str]]:
    commands = []
    if (compiler := shutil.which("kaitai-struct-compiler")) is not None:
        commands.append([compiler, "-t", "python", "--outdir", str(folder), str(DESCRIPTION)])
    if (node := shutil.which("node")) is not None:
        script = folder / "compile.cjs"
        script.write_text(_SCRIPT)
        commands.append([node, str(script), str(DESCRIPTION), str(folder)])
    return commands
