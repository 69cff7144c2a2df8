# SPDX-License-Identifier: MIT
"""``aemp top``: nodes, links and ports on a full screen, refreshed continuously."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import Seen, Walk, known_nodes, timeout_option
from aemp_gevent.cli.nodes import duration
from aemp_gevent.cli.output import console, json_option, print_json, printable
from aemp_gevent.cli.ports import port_row

if TYPE_CHECKING:
    from rich.console import RenderableType

    from aemp_gevent.node.node import Node

VIEWS = ("nodes", "links", "ports")

_PORTS = 20
"""How many ports of each node to show: those with the most messages."""

_LOOK_AROUND_SECONDS = 10.0
"""How often the directory is searched for nodes without links."""

Row = dict[str, Any]

_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "nodes": (
        ("node", "node"),
        ("links", "links"),
        ("in_rate", "in/s"),
        ("out_rate", "out/s"),
        ("unsent", "unsent"),
        ("ports", "ports"),
        ("messages", "mailboxes"),
        ("deepest", "deepest"),
        ("lag", "lag ms"),
        ("cpu_rate", "cpu %"),
        ("memory", "mem MB"),
        ("seconds", "up"),
    ),
    "links": (
        ("node", "node"),
        ("peer", "linked to"),
        ("in_rate", "in/s"),
        ("out_rate", "out/s"),
        ("in_bytes_rate", "in B/s"),
        ("out_bytes_rate", "out B/s"),
        ("unsent", "unsent"),
        ("round_trip", "rtt ms"),
        ("seconds", "up"),
    ),
    "ports": (
        ("port", "port"),
        ("names", "names"),
        ("kind", "kind"),
        ("state", "state"),
        ("messages", "messages"),
        ("monitors", "monitors"),
        ("where", "where"),
    ),
}

_FORMATS: dict[str, Callable[[Any], str]] = {
    "in_rate": lambda value: f"{value:,.0f}",
    "out_rate": lambda value: f"{value:,.0f}",
    "in_bytes_rate": lambda value: f"{value:,.0f}",
    "out_bytes_rate": lambda value: f"{value:,.0f}",
    "unsent": lambda value: f"{value:,}",
    "lag": lambda value: f"{value * 1000:.1f}",
    "round_trip": lambda value: f"{value * 1000:.2f}",
    "cpu_rate": lambda value: f"{value * 100:.0f}",
    "memory": lambda value: f"{value / 2**20:,.0f}",
    "seconds": duration,
}


@click.command()
@click.option(
    "--interval",
    metavar="SECONDS",
    type=Seconds(min=0.1),
    default=2.0,
    show_default=True,
    help="Time between two updates.",
)
@click.option("--view", type=click.Choice(VIEWS), default="nodes", show_default=True, help="The view to begin with.")
@click.option("--once", is_flag=True, help="Print one table for one interval, and exit.")
@timeout_option
@json_option
@node_options
def top(options: NodeOptions, interval: float, view: str, once: bool, timeout: float, as_json: bool) -> None:
    """Watch nodes, links and ports live.

    Press n, l or p to show nodes, links or ports, and q to quit. Rates are messages per second over all links of a
    node, without heartbeats and the messages of this command. Without a terminal, or with --json, it behaves as with
    --once.
    """
    with connected(options) as node:
        # A node that does not answer must not delay the others.
        sampler = Sampler(node, min(timeout, max(interval, 1.0)))
        if once or as_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
            _look_once(sampler, interval, view, as_json=as_json)
        else:
            _Screen(sampler, interval, view).show()


@dataclass
class Sample:
    """The state of all nodes at one time.

    Attributes:
        nodes: A row for each node; with an ``error`` if it did not answer.
        links: A row for each end of a link.
        ports: A row for each port shown.
    """

    nodes: list[Row] = field(default_factory=list)
    links: list[Row] = field(default_factory=list)
    ports: list[Row] = field(default_factory=list)


class Sampler:
    """Take samples of all nodes, with rates since the last sample.

    Args:
        node: Our node.
        timeout: Seconds to wait for each answer.
    """

    def __init__(self, node: Node, timeout: float) -> None:
        self._node = node
        self._timeout = timeout
        self._known: dict[str, None] = {}
        self._look_around_at = 0.0
        self._before: dict[str, dict[str, Any]] = {}

    def take(self) -> Sample:
        """Take a sample. Switches."""
        if time.monotonic() >= self._look_around_at:
            self._look_around_at = time.monotonic() + _LOOK_AROUND_SECONDS
            self._known = dict.fromkeys(known_nodes(self._node, self._timeout))
        met = Walk(self._node, self._timeout, {"ports": _PORTS}).go(self._known)
        self._known |= dict.fromkeys(met)
        sample = Sample()
        for seen in met.values():
            self._add(sample, seen)
        sample.ports.sort(key=lambda row: (-row["messages"], row["state"] != "blocked"))
        self._before = {name: seen.figures for name, seen in met.items() if seen.figures}
        return sample

    def _add(self, sample: Sample, seen: Seen) -> None:
        figures = seen.figures
        if figures is None:
            sample.nodes.append({"node": seen.node, "error": seen.error})
            return
        before = self._before.get(seen.node, {})
        passed = figures["time"] - before.get("time", figures["time"])
        former = {row["node"]: row for row in before.get("links", [])}
        links = [_link_row(seen.node, row, former.get(row["node"]), passed) for row in seen.links]
        sample.links += links
        sample.ports += map(port_row, figures["ports"])
        sample.nodes.append(
            {
                "node": seen.node,
                "error": "",
                "roles": figures["roles"],
                "links": len(links),
                "in_rate": _sum(links, "in_rate"),
                "out_rate": _sum(links, "out_rate"),
                # Over all links, also the one to this command's node.
                "unsent": sum(row["unsent"] for row in figures["links"] if row["via"] is None),
                "ports": figures["port_count"],
                "messages": figures["messages"],
                "deepest": figures["deepest"],
                "blocked": figures["blocked"],
                "lag": figures["lag"],
                "worst_lag": figures["worst_lag"],
                "cpu_rate": (figures["cpu"] - before["cpu"]) / passed if passed > 0 else None,
                "memory": figures["memory"],
                "seconds": figures["seconds"],
            }
        )


def _link_row(node: str, row: Row, before: Row | None, passed: float) -> Row:
    found: Row = {
        "node": node,
        "peer": row["node"],
        "unsent": row["unsent"],
        "round_trip": row.get("round_trip"),
        "seconds": row.get("seconds"),
    }
    for name, key in (
        ("in_rate", "packets_in"),
        ("out_rate", "packets_out"),
        ("in_bytes_rate", "bytes_in"),
        ("out_bytes_rate", "bytes_out"),
    ):
        found[name] = rate(row.get(key), None if before is None else before.get(key), passed)
    return found


def rate(now: int | None, before: int | None, passed: float) -> float | None:
    """Return a counter's rate per second; None: not known yet. A counter that is lower than before restarted at 0."""
    if now is None or before is None or passed <= 0:
        return None
    return (now - before if now >= before else now) / passed


def _sum(rows: Sequence[Row], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return sum(known) if known or not rows else None


# --- showing -----------------------------------------------------------------------------------


def _look_once(sampler: Sampler, interval: float, view: str, *, as_json: bool) -> None:
    import gevent  # noqa: PLC0415

    sampler.take()
    gevent.sleep(interval)
    sample = sampler.take()
    if as_json:
        print_json(vars(sample))
    else:
        console().print(draw(sample, view))


def draw(sample: Sample, view: str, height: int | None = None) -> RenderableType:
    """Return the table of a view, with as many rows as fit."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows: list[Row] = getattr(sample, view)
    if view == "links":
        rows = sorted(rows, key=lambda row: -((row["in_rate"] or 0) + (row["out_rate"] or 0)))
    table = Table(box=None, pad_edge=False, header_style="bold", expand=height is not None)
    columns = _COLUMNS[view]
    for number, (name, title) in enumerate(columns):
        is_number = any(isinstance(row.get(name), (int, float)) for row in rows)
        table.add_column(title, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
        if not number:
            table.columns[0].ratio = 1 if height is not None else None
    shown = rows if height is None else rows[: max(height - 1, 0)]
    for row in shown:
        if row.get("error"):
            table.add_row(Text(printable(f"{row['node']}: {row['error']}")), style="red")
        else:
            table.add_row(*(Text(_cell(name, row.get(name))) for name, _ in columns), style=_style(view, row))
    return table


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    return printable(_FORMATS[name](value) if name in _FORMATS else str(value))


def _style(view: str, row: Mapping[str, Any]) -> str:
    if view == "nodes":
        return "yellow" if (row["worst_lag"] or 0) > 0.5 or (row["blocked"] and row["messages"]) else ""
    return "yellow" if view == "ports" and row["state"] == "blocked" and row["messages"] else ""


def draw_screen(sample: Sample, view: str, height: int, clock: str) -> RenderableType:
    """Return the whole screen: a summary, the keys and the table."""
    from rich.console import Group  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    nodes = [row for row in sample.nodes if not row["error"]]
    total = _sum(nodes, "in_rate")
    head = Text(f"aemp top  {clock}  ", style="bold")
    head.append(f"{len(sample.nodes)} nodes, {sum(row['ports'] for row in nodes)} ports", style="not bold")
    if total is not None:
        head.append(f", {total:,.0f} messages/s", style="not bold")
    keys = Text("  ".join(f"[{name[0]}] {name}" for name in VIEWS) + "  [q] quit", style="dim")
    return Group(head, keys, draw(sample, view, height - 3) if sample.nodes else Text("looking…"))


class _Screen:
    """The full screen.

    Args:
        sampler: Takes the samples.
        interval: Seconds between two samples.
        view: The view to begin with.
    """

    def __init__(self, sampler: Sampler, interval: float, view: str) -> None:
        self._sampler = sampler
        self._interval = interval
        self._view = view
        self._sample = Sample()
        self._is_over = False

    def show(self) -> None:
        """Show the screen until the user quits. Switches."""
        import gevent  # noqa: PLC0415
        from gevent.event import Event  # noqa: PLC0415
        from rich.live import Live  # noqa: PLC0415

        logging.getLogger("aemp_gevent").setLevel(logging.CRITICAL)  # log lines would spoil the screen
        pressed = Event()
        out = console()
        # Without a refreshing thread, because this program runs one event loop.
        with _keys() as descriptor, Live(console=out, screen=True, auto_refresh=False) as live:
            reader = gevent.spawn(self._read_keys, descriptor, pressed)
            looking: Any = None  # a greenlet
            try:
                while not self._is_over:
                    looking = gevent.spawn(self._sampler.take)
                    is_looking = True
                    due = time.monotonic() + self._interval
                    while not self._is_over:
                        pressed.clear()
                        screen = draw_screen(self._sample, self._view, out.size.height, time.strftime("%H:%M:%S"))
                        live.update(screen, refresh=True)
                        left = due - time.monotonic()
                        if is_looking:
                            waited: list[Any] = [looking, pressed]
                            gevent.wait(waited, count=1)
                            if looking.ready():
                                self._sample, is_looking = looking.get(), False
                        elif left <= 0:
                            break
                        else:
                            pressed.wait(left)
            except KeyboardInterrupt:
                pass  # the usual end
            finally:
                gevent.killall([greenlet for greenlet in (reader, looking) if greenlet is not None])

    def _read_keys(self, descriptor: int, pressed: Any) -> None:
        from gevent.socket import wait_read  # noqa: PLC0415

        while not self._is_over:
            wait_read(descriptor)
            keys = os.read(descriptor, 100).decode(errors="replace").lower()
            for key in keys:
                if key in ("q", "\x1b", "\x03") and (key != "\x1b" or len(keys) == 1):
                    self._is_over = True
                self._view = next((view for view in VIEWS if view.startswith(key)), self._view)
            self._is_over = self._is_over or not keys  # an empty read: the terminal is gone
            pressed.set()


@contextmanager
def _keys() -> Generator[int, None, None]:
    """Make the terminal deliver keys as they are pressed, without echo; yield its descriptor."""
    import termios  # noqa: PLC0415
    import tty  # noqa: PLC0415

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
