"""Write the manual pages of section 1 from the commands themselves.

    python man/generate.py          write man/*.1
    python man/generate.py --check  exit 1 when a page differs from what the commands say

The pages and `--help` thus cannot disagree; tests/cli/test_man.py runs the check. iqdb.5 is written by hand.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from iqdb_cli.app import command_tree
from iqdb_cli.exit_codes import EXIT_STATUSES

HERE = Path(__file__).parent
ENVIRONMENT = (
    (
        "IQDB_NUM_THREADS",
        "Threads for search and build where --threads does not say; default all processors.",
    ),
    (
        "IQDB_KERNELS",
        "Name of the kernel variant to use (baseline, avx2, avx512, avx512vnni); default the best.",
    ),
    ("IQDB_DEBUG", "Set to 1 to see a traceback with every error, as with --debug."),
)


def escape(text: str) -> str:
    """Text as roff takes it: no control line by accident, no hyphen where a minus is meant."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def paragraphs(help_text: str) -> list[str]:
    """Help text as roff: paragraphs refilled, a block after click's marker kept as it is."""
    out: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(help_text)):
        if block.startswith("\b"):
            lines = block.removeprefix("\b").strip("\n")
            out += [".PP", ".nf", escape(lines), ".fi"]
        else:
            out += [".PP", escape(" ".join(block.split()))]
    return out


def summary(command: Any) -> str:
    """The one line that `iqdb --help` shows for the command."""
    return command.get_short_help_str(limit=200).rstrip(".")


def option_lines(context: Any, command: Any) -> tuple[list[str], list[str]]:
    """Arguments and options as roff definition lists."""
    arguments: list[str] = []
    options: list[str] = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if parameter.param_type_name == "option":
            if record is None:  # hidden
                continue
            names, text = record
            options += [".TP", f"\\fB{escape(names)}\\fR", escape(" ".join(text.split()))]
        else:
            # The record's name ends in the type and its text in "[required]"; the synopsis has both.
            name, text = parameter.metavar or parameter.name.upper(), parameter.help or ""
            arguments += [".TP", f"\\fI{escape(name)}\\fR", escape(" ".join(text.split()))]
    return arguments, options


def usage(context: Any, command: Any) -> str:
    """The usage line without its prefix."""
    return " ".join(command.collect_usage_pieces(context))


def head(name: str) -> list[str]:
    """The page's first line. No date: the same commands make the same page."""
    return [f'.TH "{name.upper()}" "1" "" "iqdb" "iqdb manual"']


def see_also(names: list[str]) -> list[str]:
    """References to other pages."""
    return [
        ".SH SEE ALSO",
        ", ".join(f"\\fB{escape(name)}\\fR({section})" for name, section in map(split, names)),
    ]


def split(reference: str) -> tuple[str, str]:
    """`iqdb.5` as its name and its section."""
    name, _, section = reference.rpartition(".")
    return name, section


def command_page(name: str, command: Any) -> str:
    """The page of one command."""
    context = command.context_class(command, info_name=f"iqdb {name}", **command.context_settings)
    arguments, options = option_lines(context, command)
    lines = head(f"iqdb-{name}")
    lines += [".SH NAME", f"iqdb\\-{escape(name)} \\- {escape(summary(command))}"]
    lines += [".SH SYNOPSIS", f"\\fBiqdb {escape(name)}\\fR {escape(usage(context, command))}"]
    lines += [".SH DESCRIPTION", *paragraphs(command.help or "")]
    if arguments:
        lines += [".SH ARGUMENTS", *arguments]
    lines += [".SH OPTIONS", *options]
    if command.epilog:
        lines += [".SH EXAMPLES", *paragraphs(command.epilog.replace("Examples:\n", "", 1))]
    lines += [".SH EXIT STATUS", "See \\fBiqdb\\fR(1)."]
    lines += see_also(["iqdb.1", "iqdb.5"])
    return "\n".join(lines) + "\n"


def main_page(root: Any, group: Any) -> str:
    """The page of the program."""
    _, options = option_lines(root, group)
    names = group.list_commands(root)
    lines = head("iqdb")
    lines += [".SH NAME", "iqdb \\- a vector database in one file"]
    lines += [".SH SYNOPSIS", "\\fBiqdb\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGS\\fR]..."]
    lines += [".SH DESCRIPTION", *paragraphs(group.help or "")]
    lines += [".SH COMMANDS"]
    for name in names:
        command = group.get_command(root, name)
        assert command is not None, name
        lines += [".TP", f"\\fBiqdb\\-{escape(name)}\\fR(1)", escape(summary(command)) + "."]
    lines += [".SH OPTIONS", *options]
    lines += [".SH EXIT STATUS"]
    for status, meaning in EXIT_STATUSES:
        lines += [".TP", f"\\fB{status}\\fR", escape(meaning)]
    lines += [".SH ENVIRONMENT"]
    for variable, meaning in ENVIRONMENT:
        lines += [".TP", f"\\fB{variable}\\fR", escape(meaning)]
    lines += [
        ".SH FILES",
        ".TP",
        "\\fINAME.iqdb\\fR",
        "The database: one file.",
        ".TP",
        "\\fINAME.iqdb.wal\\fR",
        "Its log, while it holds writes that are not yet folded in. Keep the two together.",
    ]
    lines += see_also([f"iqdb-{name}.1" for name in names] + ["iqdb.5"])
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """Every page of section 1: file name to text."""
    group = command_tree()
    root = group.context_class(group, info_name="iqdb", **group.context_settings)
    out = {"iqdb.1": main_page(root, group)}
    for name in group.list_commands(root):
        command = group.get_command(root, name)
        assert command is not None, name
        out[f"iqdb-{name}.1"] = command_page(name, command)
    return out


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    wanted = pages()
    stale = sorted(path.name for path in HERE.glob("*.1") if path.name not in wanted)
    differing = [
        name
        for name, text in wanted.items()
        if not (HERE / name).exists() or (HERE / name).read_text() != text
    ]
    if check:
        for name in stale + differing:
            print(f"man/{name} is not what the commands say; run: python man/generate.py", file=sys.stderr)
        return 1 if stale or differing else 0
    for name in stale:
        (HERE / name).unlink()
    for name in differing:
        (HERE / name).write_text(wanted[name])
    return 0


if __name__ == "__main__":
    sys.exit(main())
