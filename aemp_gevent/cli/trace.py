# SPDX-License-Identifier: MIT
"""``aemp trace``: the links of a network as a tree, a graph or a picture."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import Seen, Walk, known_nodes, node_id, timeout_option
from aemp_gevent.cli.output import console, echo, json_option, print_json, printable

if TYPE_CHECKING:
    from rich.tree import Tree


@dataclass(frozen=True)
class Edge:
    """A link, combined from the answers of both ends.

    Attributes:
        one: The node that dialled, as far as is known.
        other: The other node.
        via: The node that relays it, if one of them is a slave.
        round_trip: Seconds; None if neither end knows.
    """

    one: str
    other: str
    via: str | None = None
    round_trip: float | None = None

    @property
    def nodes(self) -> frozenset[str]:
        """The IDs of both nodes."""
        return frozenset((self.one, self.other))


def edges_of(met: Mapping[str, Seen]) -> list[Edge]:
    """Return each link once, in the order in which they were found."""
    found: dict[frozenset[str], Edge] = {}
    for seen in met.values():
        for row in seen.links:
            one, other = (seen.node, row["node"]) if row.get("dialled", True) else (row["node"], seen.node)
            edge = Edge(one, other, row["via"], row.get("round_trip"))
            known = found.get(edge.nodes)
            if known is None or (known.round_trip is None and edge.round_trip is not None):
                found[edge.nodes] = edge
    return list(found.values())


@click.command()
@click.argument("node_name", metavar="[NODE]", required=False)
@click.option("--dot", is_flag=True, help="Print the graph in Graphviz's DOT language.")
@click.option(
    "--svg", "picture", metavar="FILE", type=click.File("w"), help="Draw a picture into FILE; - is standard output."
)
@timeout_option
@json_option
@node_options
def trace(options: NodeOptions, node_name: str | None, dot: bool, picture: Any, timeout: float, as_json: bool) -> None:
    """Follow the links from node to node, and draw them as a tree.

    The tree begins with NODE, or with a node that this command is linked to. Each node is shown where it was found
    first, with its other links beside it. Links to slaves, which another node relays, are dotted in pictures.

    Exit code 1: the first node does not answer.
    """
    if dot + as_json + (picture is not None) > 1:
        raise click.UsageError("give only one of --dot, --svg and --json")
    with connected(options) as node:
        start = node_id(node, node_name) if node_name is not None else known_nodes(node, timeout)[:1]
        met = Walk(node, timeout).go([start] if isinstance(start, str) else start)
    first = next(iter(met.values()), None)
    if first is None or first.error:
        raise click.ClickException(f"{first.node} {first.error}" if first else "there are no other nodes")
    edges = edges_of(met)
    if as_json:
        print_json({"nodes": [_node(seen) for seen in met.values()], "links": [_link(edge) for edge in edges]})
    elif dot:
        echo(draw_dot(met, edges), "\n", nl=False)
    elif picture is not None:
        picture.write(draw_svg(met, edges))
    else:
        console().print(draw_tree(met, edges))


def _node(seen: Seen) -> dict[str, Any]:
    roles = seen.figures["roles"] if seen.figures else []
    return {"node": seen.node, "met_by": seen.parent, "provider": seen.provider, "roles": roles, "error": seen.error}


def _link(edge: Edge) -> dict[str, Any]:
    return {"nodes": [edge.one, edge.other], "via": edge.via, "round_trip": edge.round_trip}


def draw_tree(met: Mapping[str, Seen], edges: Iterable[Edge]) -> Tree:
    """Return the tree: each node below the one through which it was found."""
    from rich.text import Text  # noqa: PLC0415
    from rich.tree import Tree  # noqa: PLC0415

    by_nodes = {edge.nodes: edge for edge in edges}

    def label(seen: Seen) -> Text:
        text = Text(printable(seen.node), style="bold" if seen.figures else "red")
        edge = by_nodes.get(frozenset((seen.node, seen.parent or "")))
        notes = [" ".join(seen.figures["roles"])] if seen.figures else [seen.error]
        if edge is not None:
            notes.append(f"via {edge.via}" if edge.via else _milliseconds(edge.round_trip))
        others = [row["node"] for row in seen.links if row["node"] != seen.parent]
        others = [other for other in others if met[other].parent != seen.node]
        if others:
            notes.append("also linked to " + ", ".join(others))
        return text.append(printable("  " + ", ".join(filter(None, notes))), style="not bold dim")

    trees: dict[str, Tree] = {}
    for seen in met.values():
        if seen.parent is None:
            trees[seen.node] = Tree(label(seen))
        else:
            trees[seen.node] = trees[seen.parent].add(label(seen))
    return next(iter(trees.values()))


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f} ms"


def draw_dot(met: Mapping[str, Seen], edges: Iterable[Edge]) -> str:
    """Return the graph as text for Graphviz."""
    lines = ["graph aemp {", "  node [shape=box, style=rounded];"]
    lines += [f"  {_quoted(seen.node)}{'' if seen.figures else ' [color=red]'};" for seen in met.values()]
    for edge in edges:
        notes = {"label": _milliseconds(edge.round_trip), "style": "dotted" if edge.via else ""}
        shown = ", ".join(f"{name}={_quoted(text)}" for name, text in notes.items() if text)
        lines.append(f"  {_quoted(edge.one)} -- {_quoted(edge.other)}{f' [{shown}]' if shown else ''};")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = printable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_HALO = 'stroke="white" stroke-width="4" paint-order="stroke"'
"""Keeps a text readable where a line crosses it."""

_ROW_HEIGHT, _BOX_HEIGHT, _CHARACTER, _GAP, _EDGE = 110, 46, 7.3, 36, 20


def draw_svg(met: Mapping[str, Seen], edges: Iterable[Edge]) -> str:
    """Return a picture: a row of nodes for each step from the first one, lines for the links."""
    depth: dict[str, int] = {}
    rows: dict[int, list[Seen]] = {}
    for seen in met.values():
        depth[seen.node] = 0 if seen.parent is None else depth[seen.parent] + 1
        rows.setdefault(depth[seen.node], []).append(seen)
    widths = {name: max(len(printable(name)) * _CHARACTER + 24, 90.0) for name in met}
    row_widths = [sum(widths[seen.node] for seen in row) + _GAP * (len(row) - 1) for row in rows.values()]
    width = max(row_widths) + 2 * _EDGE
    height = _ROW_HEIGHT * (len(rows) - 1) + _BOX_HEIGHT + 2 * _EDGE
    centres: dict[str, tuple[float, float]] = {}
    for number, row in rows.items():
        x = (width - row_widths[number]) / 2
        for seen in row:
            centres[seen.node] = (x + widths[seen.node] / 2, _EDGE + _BOX_HEIGHT / 2 + _ROW_HEIGHT * number)
            x += widths[seen.node] + _GAP
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    lines += [_svg_edge(edge, centres[edge.one], centres[edge.other]) for edge in edges]
    lines += [_svg_box(seen, *centres[seen.node], widths[seen.node]) for seen in met.values()]
    return "\n".join([*lines, "</svg>", ""])


def _svg_edge(edge: Edge, one: tuple[float, float], other: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = one, other
    # Nodes of one row are joined by an arc below: a straight line would run through the boxes between them.
    rise = min(30 + math.fabs(x2 - x1) / 12, _ROW_HEIGHT - 20) if y1 == y2 else 0
    middle_x, middle_y = (x1 + x2) / 2, (y1 + y2) / 2 + rise * 2
    dash = ' stroke-dasharray="4 4"' if edge.via else ""
    path = f'<path d="M{x1:.0f},{y1:.0f} Q{middle_x:.0f},{middle_y:.0f} {x2:.0f},{y2:.0f}"'
    label = html.escape(_milliseconds(edge.round_trip))
    place = f'x="{middle_x:.0f}" y="{middle_y - rise - 3:.0f}"'
    return (
        f'{path} fill="none" stroke="#678" stroke-width="1.5"{dash}/>'
        f'<text {place} text-anchor="middle" fill="#678" font-size="10" {_HALO}>{label}</text>'
    )


def _svg_box(seen: Seen, x: float, y: float, width: float) -> str:
    stroke, note = ("#246", " ".join(seen.figures["roles"])) if seen.figures else ("#c22", "no answer")
    name, note = html.escape(printable(seen.node)), html.escape(printable(note))
    box = f'x="{x - width / 2:.0f}" y="{y - _BOX_HEIGHT / 2:.0f}" width="{width:.0f}" height="{_BOX_HEIGHT}"'
    return (
        f'<rect {box} rx="8" fill="#eef4fa" stroke="{stroke}"/>'
        f'<text x="{x:.0f}" y="{y - 3:.0f}" text-anchor="middle">{name}</text>'
        f'<text x="{x:.0f}" y="{y + 13:.0f}" text-anchor="middle" fill="#678" font-size="10">{note}</text>'
    )
