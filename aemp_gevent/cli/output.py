# SPDX-License-Identifier: MIT
"""Output of commands: tables for people, JSON for scripts.

Colours are used only on a terminal, and not if ``NO_COLOR`` is set; ``rich`` takes care of both.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from aemp_gevent.runtime.quoting import escaped

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_COLUMNS = 10_000
"""Width of the output if it is not a terminal, so that lines are not broken."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
"""Add the option ``--json`` to a command, which gets it as ``as_json``."""


def console(*, stderr: bool = False) -> Console:
    """Return a console of ``rich`` for standard output."""
    from rich.console import Console  # noqa: PLC0415

    stream: TextIO = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PIPE_COLUMNS)


def echo(text: str, keep: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print a text, which other nodes may have a part in, with everything escaped that would control the terminal.

    All that commands print comes through here, or is a table, JSON, or a renderable of ``rich`` with printable texts.

    Args:
        text: The text.
        keep: Unprintable characters that stay, such as line ends; only of a text that no other node has a part in.
        err: Whether to print it on standard error.
        nl: Whether to end the line.
    """
    click.echo(printable(text, keep), err=err, nl=nl)


def echo_value(text: str) -> None:
    """Print the text that a command asked for: unchanged into a pipe, escaped but for line ends on a terminal."""
    # click would remove colours on the way into a pipe.
    click.echo(printable(text, "\n\t") if sys.stdout.isatty() else text, color=True)


def print_json(value: object) -> None:
    """Print a value as one JSON document; what JSON cannot express, such as bytes, is printed as its ``repr``."""
    click.echo(json_text(value, indent=2 if sys.stdout.isatty() else None))


def print_json_line(value: object) -> None:
    """Print a value as one line of JSON, for programs that read line by line."""
    click.echo(json_text(value))


def json_text(value: object, indent: int | None = None) -> str:
    """Return any value as JSON; values, keys and numbers that JSON cannot express become their ``repr``."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=repr)
    except (TypeError, ValueError):
        text = json.dumps(_sayable(value), indent=indent, ensure_ascii=False, default=repr)
    # Unprintable characters occur only inside of strings (line ends also between them), where JSON can escape them.
    # Half of a surrogate pair could not even be encoded.
    return text if text.isprintable() else "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _sayable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else repr(key): _sayable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sayable(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def print_table(
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool = False,
    empty: str = "",
    style: Callable[[Mapping[str, Any]], str] | None = None,
) -> None:
    """Print rows as a table, or as a JSON list of objects.

    Args:
        rows: Values by column. JSON shows all of them, the table only those in ``columns``.
        columns: The table's columns and their titles.
        as_json: Whether to print JSON.
        empty: The text to print instead of a table without rows.
        style: Returns a row's style, as ``rich`` names it.
    """
    rows = list(rows)
    if as_json:
        print_json(rows)
        return
    if not rows:
        if empty:
            echo(empty)
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_number = all(type(row.get(column)) in (int, float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        # Text, because names of others must not be parsed as markup.
        cells = [Text(_cell(row.get(column))) for column in columns]
        table.add_row(*cells, style=style(row) if style else None)
    printer = console()
    with printer.capture() as captured:
        printer.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else json_text(value))


def printable(text: str, keep: str = "") -> str:
    """Return a whole text with everything escaped that would control the terminal; see ``escaped``."""
    return escaped(text, None, keep)


@contextmanager
def printing_in_callback() -> Generator[None, None, None]:
    """End the command, and not only the running callback, if printing fails in a ``with`` block."""
    try:
        yield
    except (OSError, SystemExit) as error:  # rich turns a broken pipe into SystemExit
        import gevent  # noqa: PLC0415

        hub: Any = gevent.get_hub()  # missing in its stubs
        hub.handle_system_error(type(error), error)


def complain(text: str) -> None:
    """Print a line on standard error, and return."""
    echo(f"aemp: {text}", err=True)
