# SPDX-License-Identifier: MIT
"""Tables for people, JSON for scripts.

Colours only on a terminal, and never where ``NO_COLOR`` is set: ``rich`` sees to both.
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
"""Where nobody looks at the width, no line is broken."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
"""Gives a command the parameter ``as_json``."""


def console(*, stderr: bool = False) -> Console:
    """Return where to print what is to look well."""
    from rich.console import Console  # noqa: PLC0415

    stream: TextIO = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else _PIPE_COLUMNS)


def print_json(value: object) -> None:
    """Print a value as one JSON document; what JSON cannot say, such as bytes, as its ``repr``."""
    click.echo(json_text(value, indent=2 if sys.stdout.isatty() else None))


def print_json_line(value: object) -> None:
    """Print a value as one line of JSON, for programs that read the lines as they come."""
    click.echo(json_text(value))


def json_text(value: object, indent: int | None = None) -> str:
    """Return a value as JSON, whatever it is: what JSON cannot say, keys and numbers too, is said as its ``repr``."""
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=repr)
    except (TypeError, ValueError):
        text = json.dumps(_sayable(value), indent=indent, ensure_ascii=False, default=repr)
    # Unprintable characters stand in texts only, line ends between them, and have escapes in JSON. Half of a
    # surrogate pair could not even be written.
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
        rows: Values by column; in JSON all of them are shown, in the table those that `columns` name.
        columns: The table's columns, whose titles they are.
        as_json: Whether to print JSON.
        empty: What to say instead of a table that has no row.
        style: A row's style, as ``rich`` names it.
    """
    rows = list(rows)
    if as_json:
        print_json(rows)
        return
    if not rows:
        if empty:
            click.echo(empty)
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        is_number = all(type(row.get(column)) in (int, float) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        # Text: what others chose as names is no markup of ours.
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
    """Return the whole of somebody's text without what would do something to a terminal; see ``escaped``."""
    return escaped(text, None, keep)


@contextmanager
def told_by_callback() -> Generator[None, None, None]:
    """In a callback: if what it prints cannot be printed, the command ends, and not the callback alone."""
    try:
        yield
    except (OSError, SystemExit) as error:  # rich makes the one of the other
        import gevent  # noqa: PLC0415

        hub: Any = gevent.get_hub()  # its stubs leave this out
        hub.handle_system_error(type(error), error)


def complain(text: str) -> None:
    """Say something on the standard error output, in a line, and go on."""
    click.echo(f"aemp: {printable(text)}", err=True)
