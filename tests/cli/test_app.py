from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from iqdb_cli import app


def test_help_lists_every_command_with_its_summary(iqdb: Any) -> None:
    outcome = iqdb("--help")
    assert outcome.status == 0
    assert outcome.stderr == ""
    for name, entry in app.COMMANDS.items():
        assert f"  {name} " in outcome.text
        assert entry.summary in outcome.text


def test_help_imports_no_command_and_nothing_heavy(iqdb: Any) -> None:
    code = (
        "import sys; from iqdb_cli.app import run\n"
        "try: run(['--help'])\n"
        "except BaseException: pass\n"
        "print([m for m in sys.modules if m.startswith('iqdb_cli.commands.') or m.split('.')[0] in"
        " {'numpy', 'rich', 'pyarrow', 'pydantic', 'zstandard', 'lz4'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", app.COMMANDS)
def test_the_summary_of_a_command_is_the_first_line_of_its_help(name: Any) -> None:
    command = app.command_tree().get_command(None, name)
    assert command.help.splitlines()[0] == app.COMMANDS[name].summary


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_shows_its_help_in_80_columns(iqdb: Any, name: Any) -> None:
    outcome = iqdb(name, "--help")
    assert outcome.status == 0
    assert outcome.lines[0].startswith(f"Usage: iqdb {name} ")
    assert max(map(len, outcome.lines)) <= 80


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_parameter_has_help_in_whole_sentences(name: Any) -> None:
    command = app.command_tree().get_command(None, name)
    for param in command.params:
        assert param.help, f"{name} {param.name} has no help"
        assert param.help[0].isupper() or param.help[0] == '"', param.help
        assert param.help.rstrip(")").endswith("."), param.help


def test_version_is_that_of_the_package(iqdb: Any) -> None:
    from importlib.metadata import version

    outcome = iqdb("--version")
    assert outcome.status == 0
    assert outcome.text == f"iqdb {version('iqdb')}\n"


def test_without_a_command_the_help_goes_to_stderr(iqdb: Any) -> None:
    outcome = iqdb()
    assert outcome.status == 2
    assert outcome.stdout == b""
    assert outcome.stderr.startswith("Usage: iqdb ")


def test_an_unknown_command_is_answered_with_the_nearest_one(iqdb: Any) -> None:
    outcome = iqdb("serch")
    assert outcome.status == 2
    assert outcome.stderr == ("iqdb: no such command 'serch', did you mean 'search'?\nTry \"iqdb --help\".\n")


def test_bash_completes_commands(iqdb: Any) -> None:
    assert _complete("iqdb ", 1).split() == list(app.COMMANDS)
    assert _complete("iqdb se", 1).split() == ["search"]


def test_bash_completes_options_and_choices_of_a_command(iqdb: Any) -> None:
    assert "--max-distance" in _complete("iqdb search --ma", 2).split()
    assert _complete("iqdb search --format j", 3).split() == ["jsonl"]


def test_completing_a_command_name_imports_no_command() -> None:
    env = {"_IQDB_COMPLETE": "complete_bash", "COMP_WORDS": "iqdb s", "COMP_CWORD": "1"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "iqdb_cli"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    assert done.stdout.split() == ["search"]
    assert "iqdb_cli.commands" not in done.stderr
    assert "numpy" not in done.stderr


def test_the_completion_script_is_bash() -> None:
    env = {**os.environ, "_IQDB_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "iqdb_cli"], capture_output=True, text=True, check=True, env=env
    )
    assert "complete -o default -F _iqdb_completion iqdb" in done.stdout
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n"], input=done.stdout, text=True, check=True)


def _complete(words: str, index: int) -> str:
    env = {"_IQDB_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(index)}
    done = subprocess.run(
        [sys.executable, "-m", "iqdb_cli"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **env},
    )
    return done.stdout
