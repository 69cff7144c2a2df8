# SPDX-License-Identifier: MIT
"""``aemp ports``: a table of the ports of a node, or of all nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import look, node_id, timeout_option, walk
from aemp_gevent.cli.output import complain, json_option, print_table

_COLUMNS = ("port", "names", "kind", "state", "messages", "monitors", "where")


@click.command()
@click.argument("node_name", metavar="[NODE]", required=False)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, 1000), default=1000, help="List at most N ports of each node."
)
@timeout_option
@json_option
@node_options
def ports(options: NodeOptions, node_name: str | None, limit: int, timeout: float, as_json: bool) -> None:
    """List the ports of a node, or of all nodes; those with the most messages come first.

    A port is idle, queued (it has messages to handle), receiving (its code waits for a message) or blocked (its code
    waits for something else).
    """
    with connected(options) as node:
        if node_name is not None:
            tables = [look(node, node_id(node, node_name), {"ports": limit}, timeout=timeout)]
        else:
            met = walk(node, timeout, {"ports": limit})
            for seen in met.values():
                if seen.error:
                    complain(f"{seen.node} {seen.error}")
            tables = [seen.figures for seen in met.values() if seen.figures]
        rows = [row for table in tables for row in table["ports"]]
        left_out = sum(table["port_count"] for table in tables) - len(rows)
        print_table(
            rows if as_json else map(port_row, rows),
            _COLUMNS,
            as_json=as_json,
            empty="There are no ports.",
            style=lambda row: "yellow" if row["state"] == "blocked" and row["messages"] else "",
        )
        if left_out > 0:
            complain(f"{left_out} more ports are not listed")


def port_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a port's row for the table: lists as text, and where its code is."""
    where = row["at"] or row["handler"] or " ".join(row["tags"])
    if row["calls"]:
        where = f"calls {row['calls']}, {where}"
    return {**row, "names": " ".join(row["names"]), "where": where}
