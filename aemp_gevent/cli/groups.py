# SPDX-License-Identifier: MIT
"""``aemp groups``: tables of the directory's families, and of the entries of one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import timeout_option, walk
from aemp_gevent.cli.output import (
    complain,
    echo,
    json_option,
    print_json_line,
    print_table,
    printing_in_callback,
)
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent.node.node import Node


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
            text = "its entries are counted only if an aemp_gevent node keeps the directory for it"
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
                        echo(f"{sign} {key}{shown}")

    with node.db_mon(family, told):
        gevent.wait()
