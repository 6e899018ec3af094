"""Ids that a command is given: as arguments, or on stdin one a line."""

from __future__ import annotations

from collections.abc import Iterator

from iqdb_cli import terminal
from iqdb_cli.exit_codes import UsageError
from iqdb_cli.ids import id_from_json, parse_id
from iqdb_cli.inputs.source import BadInputError, ByteSource, place_of
from iqdb_cli.queries import iter_lines, parse_json
from iqdb_core.types import VectorId


def given_ids(arguments: list[str] | None, command: str) -> Iterator[VectorId]:
    """Yield the ids of a command's arguments; "-" stands for the lines of stdin, and is the default.

    A line of stdin is an id as typed on the command line, a JSON string, or a JSON object with an `id`
    (as `iqdb search` writes them) or a `hex` key.

    Raises:
        UsageError: there are no arguments, and stdin is a terminal.
        Error: an id cannot be one; the message names the argument or the line.
    """
    if not arguments and terminal.stdin_is_terminal():
        raise UsageError(
            f'no ids: stdin is a terminal\nTry "{command} 42", "{command} text:42" or "... | {command}".'
        )
    for argument in arguments or ["-"]:
        if argument == "-":
            yield from _read_ids("-")
        else:
            yield parse_id(argument)


def _read_ids(path: str) -> Iterator[VectorId]:
    with ByteSource(path) as source:
        for number, line in iter_lines(source):
            yield _parse_line(line, source.name, number)


def _parse_line(line: bytes, name: str, number: int) -> VectorId:
    where = place_of(name, line=number)
    if line[:1] not in {b"{", b'"'}:
        try:
            return parse_id(line.decode("utf-8"), where)
        except UnicodeDecodeError:
            raise BadInputError(name, "is not UTF-8", line=number) from None
    try:
        value = parse_json(line)
    except ValueError as error:
        raise BadInputError(
            name, f"is not JSON ({error})", line=number, hint="text:... takes an id that begins like JSON"
        ) from None
    if isinstance(value, dict) and "hex" not in value:
        if "id" not in value:
            raise BadInputError(name, "is an object without an id", line=number)
        value = value["id"]
    return id_from_json(value, where)
