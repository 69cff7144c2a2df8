# SPDX-License-Identifier: MIT
"""``aemp nodes``, ``ports`` and ``groups``: tables of nodes, ports and families."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import Seen, look, node_id, timeout_option, walk
from aemp_gevent.cli.output import complain, json_option, print_json_line, print_table, printable, printing_in_callback
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node

_NODE_COLUMNS = ("node", "roles", "links", "ports", "messages", "lag_ms", "memory_mb", "up", "note")
_PORT_COLUMNS = ("port", "names", "kind", "state", "messages", "monitors", "where")


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
            _NODE_COLUMNS,
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
            _PORT_COLUMNS,
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


@click.command()
@click.argument("family", required=False)
@click.option("--watch", is_flag=True, help="Keep running, and print changes.")
@timeout_option
@json_option
@node_options
def groups(options: NodeOptions, family: str | None, watch: bool, timeout: float, as_json: bool) -> None:
    """List the directory's families, or the entries of one.

    Port groups are families whose keys are port IDs. Nodes that run other programs cannot list their families; their
    entries are counted only if an aemp_gevent node keeps the directory for them. Name a family to see all its entries.
    With --watch, entries are printed when they are added (+), changed (~) and removed (-), until Ctrl-C.
    """
    if watch and family is None:
        raise click.UsageError("--watch needs a FAMILY")
    with connected(options) as node:
        if family is None:
            _list_families(node, timeout, as_json=as_json)
        elif watch:
            _watch(node, family, as_json=as_json)
        else:
            entries = node.db_family(family, timeout=timeout)
            rows = [{"key": key, "value": entries[key]} for key in sorted(entries)]
            print_table(rows, ("key", "value"), as_json=as_json, empty=f"The family {quoted(family)} is empty.")


def _list_families(node: Node, timeout: float, *, as_json: bool) -> None:
    met = walk(node, timeout, {"families": 1000})
    entries: Counter[str] = Counter()
    owners: Counter[str] = Counter()
    for seen in met.values():
        if seen.is_of_another:
            text = "its entries are counted only if a node of aemp_gevent keeps the directory for it"
            complain(f"{seen.node} runs {seen.provider}, and cannot list its families: {text}")
        elif seen.error:
            complain(f"{seen.node} {seen.error}")
        for name, count in (seen.figures or {}).get("families", {}).items():
            entries[name] += count
            owners[name] += 1
    rows = [{"family": name, "entries": entries[name], "nodes": owners[name]} for name in sorted(entries)]
    others = any(seen.is_of_another for seen in met.values())
    empty = (
        "No families are known; nodes that run other programs cannot list theirs."
        if others
        else "The directory is empty."
    )
    print_table(rows, ("family", "entries", "nodes"), as_json=as_json, empty=empty)


def _watch(node: Node, family: str, *, as_json: bool) -> None:
    import gevent  # noqa: PLC0415

    def told(entries: Mapping[str, Any], added: list[str], changed: list[str], deleted: list[str]) -> None:
        for sign, keys in (("+", added), ("~", changed), ("-", deleted)):
            for key in sorted(keys):
                entry = {"time": time.time(), "change": sign, "key": key, "value": entries.get(key)}
                shown = "" if entry["value"] is None else f" {quoted(entry['value'])}"
                with printing_in_callback():
                    if as_json:
                        print_json_line(entry)
                    else:
                        click.echo(printable(f"{sign} {key}{shown}"))

    with node.db_mon(family, told):
        gevent.wait()
