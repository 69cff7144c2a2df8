# SPDX-License-Identifier: MIT
"""``aemp log``: the logs of all nodes in one stream."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import click

from aemp_gevent.addresses.ids import COMMAND_PREFIX
from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import (
    ANSWER_SECONDS,
    Kinds,
    has_kinds,
    known_nodes,
    node_id,
    program_of_linked,
    walk,
)
from aemp_gevent.cli.output import complain, console, json_option, print_json_line, printable, printing_in_callback
from aemp_gevent.runtime.quoting import worded
from aemp_gevent.wire.vocabulary import LOG

if TYPE_CHECKING:
    from rich.console import Console

    from aemp_gevent.node.node import Node

LEVELS = ("debug", "info", "warning", "error", "critical")

_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}

_LOOK_AGAIN_SECONDS = 1.0
"""How often to look for new and returned nodes."""


@click.command()
@click.argument("node_names", metavar="[NODE]...", nargs=-1)
@click.option("--level", type=click.Choice(LEVELS), default="info", show_default=True, help="The lowest level to show.")
@json_option
@node_options
def log(options: NodeOptions, node_names: tuple[str, ...], level: str, as_json: bool) -> None:
    """Follow the logs of all nodes, or of the named ones, in one stream, until Ctrl-C.

    All records of the library from the given level on are shown. Records of other loggers are shown only if the
    program's own configuration lets them through; Python's default level is warning. When a node ends, the command
    waits for it to come back. The command fails if none of the named nodes can be reached at first.
    """
    with connected(options) as node:
        wanted = [node_id(node, name) for name in node_names]
        _Stream(node, level, as_json=as_json).follow(wanted)


_RECORD: Kinds = {"time": (int, float), "level": str, "name": str, "text": str}

_LAST_SECOND = 1e11
"""The last time that can be shown."""


def _is_record(told: dict[str, Any]) -> bool:
    """Return whether this is a log record as nodes of this version send them."""
    return (
        has_kinds(told, _RECORD)
        and 0 <= told["time"] < _LAST_SECOND
        and isinstance(told.get("left_out", 0), (int, type(None)))
    )


class _Stream:
    """The stream of log records.

    Args:
        node: Our node.
        level: The lowest level to show.
        as_json: Whether to print JSON.
    """

    def __init__(self, node: Node, level: str, *, as_json: bool) -> None:
        self._node = node
        self._level = level
        self._as_json = as_json
        self._ports: dict[str, str] = {}  # the ports that receive records, by node
        self._told: dict[str, str] = {}  # the last text printed about each node
        self._met: set[str] = set()  # the nodes that were linked
        self._missed: dict[str, str] = {}  # the reasons of those that never were
        self._console: Console = console()
        self._is_over = False

    def follow(self, wanted: list[str]) -> None:
        """Listen to these nodes, or to all if the list is empty. Switches, and never returns normally.

        Raises:
            click.ClickException: None of these nodes can be reached, and none ever could.
        """
        import gevent  # noqa: PLC0415

        # Lost links are reported below; do not log them as well.
        logging.getLogger("aemp_gevent").setLevel(logging.ERROR)
        self._node.mon_nodes(self._linked)
        try:
            # By a walk, because slaves and nodes known only by a link are not in the directory.
            for name in wanted or walk(self._node, ANSWER_SECONDS):
                self._listen(name)
            while True:
                gevent.sleep(_LOOK_AGAIN_SECONDS)
                if self._is_over:  # the handler of the signal ends the process when it has said goodbye
                    continue
                if wanted and not self._met and self._missed.keys() >= set(wanted):
                    raise click.ClickException("; ".join(f"{name} {why}" for name, why in self._missed.items()))
                for name, why in self._missed.items():
                    self._complain(name, why)
                for name in wanted or [*known_nodes(self._node, ANSWER_SECONDS), *self._told]:
                    self._listen(name)
        finally:
            self._is_over = True

    def _listen(self, name: str) -> None:
        if name in self._ports or name.startswith(COMMAND_PREFIX):
            return
        self._ports[name] = self._node.port(lambda told: self._heard(name, told))
        self._node.mon(name, lambda *reason: self._lost(name, reason))  # makes a link if there is none
        if self._node.node_is_up(name):
            self._linked(name, True)

    def _linked(self, name: str, is_up: bool, *_reason: Any) -> None:
        """Ask a node for its log, now that there is a link and its program is known."""
        if not is_up or name not in self._ports:
            return
        self._met.add(name)
        self._missed.pop(name, None)
        program = program_of_linked(self._node, name)
        if program:
            self._complain(name, f"runs {program}, not aemp_gevent, and cannot send its log")
        else:
            self._node.snd(name, LOG, self._level, self._ports[name])

    def _lost(self, name: str, reason: tuple[Any, ...]) -> None:
        if reason == ("shutdown", self._node.NODE()):  # this command is ending, not the node
            self._is_over = True
        if self._is_over:
            return
        port = self._ports.pop(name, None)
        if port is not None:
            self._node.kil(port)
        why = " ".join(map(worded, reason[2:])) or "it shut down"
        if name in self._met:
            self._complain(name, f"is gone: {why}")
        else:
            self._missed[name] = f"cannot be reached: {why}"

    def _complain(self, name: str, text: str) -> None:
        if self._told.get(name) != text:
            self._told[name] = text
            complain(f"{name} {text}")

    def _heard(self, name: str, told: Any) -> None:
        if not isinstance(told, dict):
            return
        if "text" in told:
            if not _is_record(told):
                self._complain(name, "sent an invalid log record: does it run another version?")
                return
            with printing_in_callback():
                self._print({**told, "node": name})  # not the name that the record claims
        elif "error" in told:
            self._complain(name, f"refuses to send its log: {told['error']}")
        elif self._told.pop(name, None) is not None:
            complain(f"{name} is back")

    def _print(self, record: dict[str, Any]) -> None:
        if self._as_json:
            print_json_line(record)
            return
        from rich.text import Text  # noqa: PLC0415

        seconds = record["time"]
        clock = time.strftime("%H:%M:%S", time.localtime(seconds)) + f".{int(seconds * 1000) % 1000:03d}"
        left_out = f" ({record['left_out']} records before this one were left out)" if record.get("left_out") else ""
        line = Text(f"{clock} ", style="dim")
        line.append(printable(f"{record['node']} "), style="cyan not dim")
        line.append(printable(f"{record['level']} {record['name']}: "), style="not dim")
        line.append(
            printable(record["text"], "\n").replace("\n", "\n    ") + left_out,
            style=f"not dim {_STYLES.get(record['level'], '')}",
        )
        self._console.print(line, soft_wrap=True)
