# SPDX-License-Identifier: MIT
"""Draw the pictures of ``aemp top`` and ``aemp trace`` for the docs, of a network that is made up here.

What draws them is what draws the commands' own. A test checks that they are up to date.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from aemp_gevent.cli.node_queries import Seen
from aemp_gevent.cli.top import Sample, draw_screen
from aemp_gevent.cli.trace import draw_svg, edges_of

FOLDER = Path(__file__).parent / "howto"
NETWORK = FOLDER / "aemp-trace.svg"
SCREEN = FOLDER / "aemp-top.svg"

_MASTER = "10.0.0.1:4040"
_SLAVE = f"slave/desk@{_MASTER}"


def _seen(node: str, parent: str | None, role: str, *others: str) -> Seen:
    links: list[dict[str, Any]] = []
    for other in others:
        via = _MASTER if _SLAVE in {node, other} and parent is not None else None
        round_trip = None if via else 0.0003 + 0.00017 * len(other)
        links.append({"node": other, "state": "up", "via": via, "dialled": True, "round_trip": round_trip})
    return Seen(node, parent, figures={"roles": role.split(), "links": links})


def network() -> dict[str, Seen]:
    """Return what a walk meets."""
    found = [
        _seen(_MASTER, None, "public seed global", "10.0.0.2:4040", "backend", "web-1", _SLAVE),
        _seen("10.0.0.2:4040", _MASTER, "public seed global", "backend", "worker-1"),
        _seen("backend", _MASTER, "named", "web-1", "worker-1"),
        _seen("web-1", _MASTER, "named", _SLAVE),
        _seen(_SLAVE, _MASTER, "slave"),
        _seen("worker-1", "10.0.0.2:4040", "named"),
    ]
    return {seen.node: seen for seen in found}


_NAMES = ("node", "links", "in_rate", "out_rate", "unsent", "ports", "messages", "deepest", "lag", "cpu_rate", "memory")


def sample() -> Sample:
    """Return what ``aemp top`` has seen."""
    day = 86_400
    rows: list[tuple[tuple[Any, ...], int]] = [
        ((_MASTER, 4, 1204.0, 1187.0, 0, 12, 0, 0, 0.0004, 0.09, 41), 9 * day + 7_200),
        (("10.0.0.2:4040", 3, 36.0, 35.0, 0, 3, 0, 0, 0.0003, 0.01, 38), 9 * day + 7_000),
        (("backend", 4, 8120.0, 7940.0, 18_230, 214, 57, 41, 0.0021, 0.62, 96), 3 * day),
        (("web-1", 2, 6710.0, 6922.0, 0, 38, 2, 1, 0.0011, 0.41, 88), day + 3_700),
        ((_SLAVE, 1, 2.0, 2.0, 0, 1, 0, 0, 0.0002, 0.0, 33), 3_720),
        (("worker-1", 2, 940.0, 221.0, 0, 9, 812, 803, 0.733, 0.99, 140), day),
    ]
    nodes: list[dict[str, Any]] = []
    for row, seconds in rows:
        named = dict(zip(_NAMES, row, strict=True))
        more = {"error": "", "blocked": 0, "worst_lag": named["lag"], "seconds": seconds}
        nodes.append({**named, **more, "memory": named["memory"] * 2**20})
    return Sample(nodes=nodes)


def screen() -> str:
    """Return the picture of a terminal."""
    console = Console(record=True, width=112, height=11, file=io.StringIO(), force_terminal=True)
    console.print(draw_screen(sample(), "nodes", 11, "14:32:07"))
    return console.export_svg(title="aemp top", unique_id="aemp-top")


if __name__ == "__main__":
    NETWORK.write_text(draw_svg(network(), edges_of(network())))
    SCREEN.write_text(screen())
