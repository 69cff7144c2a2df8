# SPDX-License-Identifier: MIT
"""``aemp nodes``: a table of the nodes of the network."""

from __future__ import annotations

from typing import Any

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import Seen, timeout_option, walk
from aemp_gevent.cli.output import json_option, print_table

_COLUMNS = ("node", "roles", "links", "ports", "messages", "lag_ms", "memory_mb", "up", "note")


@click.command()
@timeout_option
@json_option
@node_options
def nodes(options: NodeOptions, timeout: float, as_json: bool) -> None:
    """List the nodes of the network, with their state.

    Lists the nodes in the directory, and all nodes that can be reached over their links. A node that does not answer is
    listed with the reason.
    """
    with connected(options) as node:
        met = walk(node, timeout)
        print_table(
            [_node_row(seen, as_json=as_json) for seen in met.values()],
            _COLUMNS,
            as_json=as_json,
            empty="There are no other nodes.",
            style=lambda row: "red" if row["note"] else "",
        )


def _node_row(seen: Seen, *, as_json: bool) -> dict[str, Any]:
    figures = seen.figures
    if figures is None:
        return {"node": seen.node, "provider": seen.provider, "note": seen.error}
    row: dict[str, Any] = dict(figures) if as_json else {}
    return row | {
        "node": seen.node,
        "roles": figures["roles"] if as_json else " ".join(figures["roles"]),
        "links": len(seen.links),
        "ports": figures["port_count"],
        "messages": figures["messages"],
        "lag_ms": _thousandths(figures["lag"]),
        "memory_mb": None if figures["memory"] is None else round(figures["memory"] / 2**20),
        "up": figures["seconds"] if as_json else duration(figures["seconds"]),
        "note": "",
    }


def _thousandths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)


def duration(seconds: float | None) -> str:
    """Return a duration as text, such as ``3d 4h`` or ``5m 6s``."""
    if seconds is None:
        return ""
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(int(seconds), size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
