# SPDX-License-Identifier: MIT
"""``aemp tree``: supervision trees, with the state of each child."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import look, node_id, timeout_option, walk
from aemp_gevent.cli.output import complain, console, echo, json_option, print_json, print_json_line, printable

if TYPE_CHECKING:
    from rich.tree import Tree

    from aemp_gevent.node.node import Node

WATCH_SECONDS = 1.0

MAX_DEPTH = 50
"""How many supervisors are shown inside each other; what is deeper is shown as a tree of its own."""

_STYLES = {"running": "green", "restarting": "yellow", "lost": "red", "stopped": "dim"}


@click.command()
@click.argument("node_name", metavar="[NODE]", required=False)
@click.option("--watch", is_flag=True, help="Keep running, and show the trees again when they have changed.")
@timeout_option
@json_option
@node_options
def tree(options: NodeOptions, node_name: str | None, watch: bool, timeout: float, as_json: bool) -> None:
    """Show the supervision trees of a node, or of all nodes.

    Each child has its state (running, restarting, stopped, or lost: its node cannot be reached), its restarts, the
    messages that wait in its mailbox, and why it ended last. Of a node with many children, 1000 are shown, those first
    that are not running.
    """
    with connected(options) as node:
        found = _ask(node, node_name, timeout)
        _print(found, as_json=as_json, as_line=watch)
        if watch:
            _watch(partial(_ask, node, node_name, timeout), found, as_json=as_json)


def _watch(ask: Callable[[], list[dict[str, Any]]], shown: list[dict[str, Any]], *, as_json: bool) -> None:
    """Show trees again and again, when they have changed."""
    import gevent  # noqa: PLC0415

    trouble = ""
    while True:
        gevent.sleep(WATCH_SECONDS)
        try:
            found = ask()
        except click.ClickException as error:  # there may be an answer the next time
            if error.format_message() != trouble:
                complain(error.format_message())
            trouble = error.format_message()
            continue
        trouble = ""
        if found != shown:
            if not as_json:
                echo(time.strftime("%H:%M:%S"))
            _print(found, as_json=as_json, as_line=True)
        shown = found


def _ask(node: Node, node_name: str | None, timeout: float) -> list[dict[str, Any]]:
    """Return the trees."""
    if node_name is not None:
        answers = [look(node, node_id(node, node_name), ("trees",), timeout=timeout)]
    else:
        met = walk(node, timeout, {"trees": 1000})
        for seen in met.values():
            if seen.error:
                complain(f"{seen.node} {seen.error}")
        answers = [seen.figures for seen in met.values() if seen.figures]
    return forest_of(row for answer in answers for row in answer.get("trees", ()))


def forest_of(supervisors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return supervisors as trees: a child that is one of them has its ``supervisor``."""
    by_port: dict[str, dict[str, Any]] = {
        row["port"]: {**row, "children": [dict(child) for child in row["children"]]} for row in supervisors
    }
    outer: dict[str, str] = {}
    for port, row in by_port.items():
        for child in row["children"]:
            inner = child["port"]
            # Nodes can send anything, so also circles.
            if inner in by_port and inner not in outer and not _is_inside(port, inner, outer):
                outer[inner] = port
                child["supervisor"] = by_port[inner]
    found = [row for port, row in by_port.items() if port not in outer]
    level = list(found)
    depth = 0
    while level:
        depth += 1
        places = [child for row in level for child in row["children"] if "supervisor" in child]
        level = [child["supervisor"] for child in places]
        if depth % MAX_DEPTH == 0:  # what prints them goes into them
            found += [child.pop("supervisor") for child in places]
    return found


def _is_inside(port: str, supervisor: str, outer: Mapping[str, str]) -> bool:
    """Return whether a supervisor is another one, or inside it."""
    while port != supervisor and port in outer:
        port = outer[port]
    return port == supervisor


def _print(trees: list[dict[str, Any]], *, as_json: bool, as_line: bool) -> None:
    if as_json:
        (print_json_line if as_line else print_json)(trees)
        return
    if not trees:
        echo("There are no supervisors.")
        return
    from rich.tree import Tree  # noqa: PLC0415

    printer = console()
    for row in trees:
        drawn = Tree(_text(_supervisor_text(row)))
        _draw(drawn, row)
        printer.print(drawn)


def _draw(parent: Tree, row: Mapping[str, Any]) -> None:
    for child in row["children"]:
        inner = child.get("supervisor")
        text = f"{child['id']}  {child['state']}{_figures(child)}"
        if inner is not None:
            text += f"  {_supervisor_text(inner)}"
        elif child["port"] is not None:
            text += f"  {child['port']}"
        branch = parent.add(_text(text, _STYLES.get(child["state"], "")))
        if inner is not None:
            _draw(branch, inner)
    left_out = row["child_count"] - len(row["children"])
    if left_out > 0:
        parent.add(_text(f"… and {left_out:g} more", "dim"))


def _supervisor_text(row: Mapping[str, Any]) -> str:
    return f"{row['name']} {row['port']}  {row['strategy']}, {row['active']:g} of {row['child_count']:g} running"


def _figures(child: Mapping[str, Any]) -> str:
    found = ""
    if child["restarts"]:
        found += f", {child['restarts']:g} restart{'' if child['restarts'] == 1 else 's'}"
    if child["messages"]:
        found += f", {child['messages']:g} message{'' if child['messages'] == 1 else 's'}"
    if child["reason"] is not None:
        found += f", last reason: {child['reason']}"
    return found


def _text(text: str, style: str = "") -> Any:
    from rich.text import Text  # noqa: PLC0415

    return Text(printable(text), style=style)  # names of others must not be parsed as markup
