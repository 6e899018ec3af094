"""The command tree. A command's module is imported when the command is asked for, and not before."""

from __future__ import annotations

import os
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from iqdb_cli.conversion import use_plain_conversion

PROGRAM = "iqdb"
COMPLETION_VARIABLE = "_IQDB_COMPLETE"


class CommandEntry(NamedTuple):
    """A command as the list of commands shows it; `summary` is the first line of its help."""

    module: str
    summary: str


# In the order in which a newcomer meets them.
COMMANDS: dict[str, CommandEntry] = {
    "demo": CommandEntry("demo", "Build a small database from real data and search it."),
    "create": CommandEntry("create", "Create an empty database."),
    "import": CommandEntry("import_", "Import vectors from .npy, Parquet or JSON lines, all or nothing."),
    "search": CommandEntry("search", "Find the nearest records to query vectors."),
    "get": CommandEntry("get", "Print records by their ids."),
    "upsert": CommandEntry("upsert", "Insert or replace records, acknowledged batch by batch."),
    "delete": CommandEntry("delete", "Delete records by their ids."),
    "compact": CommandEntry("compact", "Fold the log into the file and rewrite it without dead space."),
    "optimize": CommandEntry("optimize", "Build the index anew, or change it, and say what that gained."),
    "recall": CommandEntry("recall", "Measure recall and speed of the index against exact search."),
    "inspect": CommandEntry("inspect", "Show what a database holds and where its bytes go."),
    "verify": CommandEntry("verify", "Check whether a database is whole."),
    "repair": CommandEntry("repair", "Keep what can be read of a damaged database, in a new file."),
    "export": CommandEntry("export", "Export all records to .npy, Parquet, JSON lines or iqdb 1.x."),
}


class Command(TyperCommand):
    """One command: plain help, and conversion that imports nothing."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, `--help` among them."""
        return use_plain_conversion(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; an error says of which command, also where the parser knows nothing of it."""
        try:
            return list(super().parse_args(ctx, args))
        except Exception as error:
            if getattr(error, "ctx", ctx) is None:
                error.ctx = ctx  # type: ignore[attr-defined] # of click's or typer's usage errors
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return `[OPTIONS] DB [ID]...`, as manuals write it."""
        pieces = [self.options_metavar] if self.options_metavar else []
        return pieces + [_argument_name(param) for param in self.get_params(ctx) if _is_argument(param)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options with their help."""
        _write_params(self.get_params(ctx), ctx, formatter)


class CommandGroup(TyperGroup):
    """The commands by name, each loaded when it is asked for."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, `--help` and those for completion among them."""
        return use_plain_conversion(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's interface
        """Return the names of all commands, importing none."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's interface
        """Import the command's module and return the command, or None when there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name not in self.commands:
            self.commands[cmd_name] = _load(cmd_name)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` begin with, and say what may have been meant if there is none."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            near = get_close_matches(name, COMMANDS, n=1)
            ctx.fail(f"No such command {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's interface
        """Return what follows the program's name."""
        return ["[OPTIONS]", "COMMAND", "[ARGUMENTS]..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and the options with their help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])
        _write_params(self.get_params(ctx), ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete command names and options, importing no command."""
        from typer.core import CompletionItem  # type: ignore[attr-defined] # click's own or typer's copy

        names = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        # The grandparent knows the options; typer's group would import every command for its help.
        return names + super(TyperGroup, self).shell_complete(ctx, incomplete)


def command_tree() -> CommandGroup:
    """Return the root of all commands, as click sees it."""
    tree = typer.main.get_command(_root)
    assert isinstance(tree, CommandGroup)
    return tree


def run(args: Sequence[str]) -> int:
    """Parse `args`, run the command and return its exit status. Errors pass through."""
    tree = command_tree()
    if COMPLETION_VARIABLE in os.environ:
        tree.main(list(args), prog_name=PROGRAM)
    with tree.make_context(PROGRAM, list(args)) as context:
        return int(tree.invoke(context) or 0)


def _print_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"{PROGRAM} {version(PROGRAM)}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Print a traceback with an error. IQDB_DEBUG=1 does the same."),
    ] = False,
) -> None:
    """A vector database in one file, for the shell, data pipelines and Python.

    Results go to stdout, everything else to stderr. "-" is stdin, and stdin is the default where a
    command takes data. "iqdb COMMAND --help" explains a command.
    """
    del version
    if debug:
        os.environ["IQDB_DEBUG"] = "1"


_root = typer.Typer(
    name=PROGRAM,
    cls=CommandGroup,
    callback=_options,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Start with "iqdb demo".',
)


def _load(name: str) -> Any:
    module = import_module(f"iqdb_cli.commands.{COMMANDS[name].module}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    examples = getattr(module, "EXAMPLES", "").strip("\n")
    single.command(
        name,
        cls=Command,
        context_settings={"help_option_names": ["-h", "--help"]},
        # click keeps the line breaks of a paragraph that begins with \b.
        epilog=f"\b\nExamples:\n{examples}" if examples else None,
    )(module.command)
    return typer.main.get_command(single)


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _argument_name(param: Any) -> str:
    name = param.metavar or param.name.upper()
    many = "..." if param.nargs == -1 else ""
    return f"{name}{many}" if param.required else f"[{name}]{many}"


def _write_params(params: Sequence[Any], ctx: Any, formatter: Any) -> None:
    arguments, options = [], []
    for param in params:
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if _is_argument(param):
            # typer's record ends in "[required]", which the usage line says already.
            arguments.append((_argument_name(param).strip("[]."), param.help or ""))
        else:
            options.append(record)
    for title, records in (("Arguments", arguments), ("Options", options)):
        if records:
            with formatter.section(title):
                formatter.write_dl(records)
