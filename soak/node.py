# SPDX-License-Identifier: MIT
"""One node of the soak run with real processes: what its driver, :mod:`soak.processes`, calls in it.

It has the same talkers as the simulation, and its log is a file that survives its being
killed.
"""

from __future__ import annotations

import gc
import json
import os
import random
from collections.abc import Sequence
from time import monotonic
from typing import Any

import gevent

import aemp_gevent as mp
from soak import checker
from soak.checker import Event
from soak.leftovers import live_greenlets
from soak.talker import Member

_FORGET_AFTER = 40
"""Ports of others that are known at once; monitors of the dead must fire, too, so the dead stay for a while."""


class LogFile:
    """A log that is in the system's hands as soon as an event is in it.

    Args:
        path: Of the file, to be made.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def append(self, event: Event) -> None:
        """Write an event."""
        os.write(self._descriptor, encode(event))


def encode(event: Event) -> bytes:
    """Return an event as a line."""
    return json.dumps([type(event).__name__, *event]).encode() + b"\n"


def decode(line: bytes) -> Event:
    """Return the event of a line."""
    kind, *fields = json.loads(line)
    event: Event = getattr(checker, kind)(*fields)
    return event


class Process:
    """This process, as its talkers see the world.

    Args:
        seed: Of their dice.
        log: Path of the log.
        nodes: All nodes.
        talkers: How many.
        pause: Seconds between two acts of one, on average.
    """

    def __init__(self, seed: str, log: str, nodes: Sequence[str], talkers: int, pause: float) -> None:
        self.dice = random.Random(seed)
        self.resting = False
        self.pause = pause
        self._nodes = [node for node in nodes if node != mp.NODE()]
        self._own: list[str] = []
        self._others: dict[str, None] = {}
        self.greenlets = _greenlets()
        self.member = Member(self, mp.default_node, LogFile(log), talkers)  # type: ignore[arg-type]  # appended to only

    def publish(self, port: str) -> None:
        self._own.append(port)

    def withdraw(self, port: str) -> None:
        if port in self._own:  # else the node was stopped before the port died
            self._own.remove(port)

    def choose_port(self, elsewhere: str) -> str | None:
        return self.dice.choice(list(self._others)) if self._others else None

    def choose_node(self, elsewhere: str) -> str | None:
        return self.dice.choice(self._nodes)

    def exchange(self, ports: Sequence[str]) -> list[str]:
        """Take the ports of the other nodes, and return this node's."""
        self._others.update(dict.fromkeys(ports))
        while len(self._others) > _FORGET_AFTER:
            del self._others[next(iter(self._others))]
        return list(self._own)


_process: list[Process] = []


def begin(*args: Any) -> None:
    """Start the talkers; the arguments are those of :class:`Process`."""
    _process.append(Process(*args))


def exchange(ports: Sequence[str]) -> list[str]:
    """See :meth:`Process.exchange`."""
    return _process[0].exchange(ports)


def rest() -> None:
    """Begin nothing new; one more message in every session shows whether it still holds."""
    process = _process[0]
    process.resting = True
    member = process.member
    for talker in member.talkers:
        for target in list(talker.sessions):
            gevent.spawn(member.node.peval, talker.port, talker.send, target, 1)


def watch(target: str) -> None:
    """Make the first talker monitor a port, unless it does already, and send to it."""
    for talker in _process[0].member.talkers[:1]:
        if target not in talker.sessions:
            talker.monitor(target, 1)


def call_for_orphans() -> None:
    """Ensure links to the nodes of orphans: these links end them."""
    member = _process[0].member
    for port in member.orphans:
        node = port.partition("#")[0]
        if not mp.node_is_up(node):
            mp.snd(node, "devnull")


def sessions() -> list[tuple[str, str, int, int]]:
    """Return the open sessions: watcher, target, number, how many messages were sent."""
    return [
        (talker.port, target, session, talker.sent[target, session])
        for talker in _process[0].member.talkers
        for target, session in talker.sessions.items()
    ]


def up_nodes() -> list[str]:
    """Return the nodes to which there is a link."""
    return mp.up_nodes()


def end(timeout: float) -> tuple[int, int]:
    """Shut down; return how many ports and how many greenlets are left over."""
    process = _process[0]
    member = process.member
    ports = [talker.port for talker in member.talkers]
    member.stop()
    for port in ports:
        mp.kil(port)
    mp.shutdown(timeout)
    deadline = monotonic() + timeout
    while monotonic() < deadline and (_ports() or _greenlets() > process.greenlets):
        gevent.sleep(0.05)
    return _ports(), max(0, _greenlets() - process.greenlets)


def _ports() -> int:
    count: int = mp.default_node.info()["ports"]
    return count


def _greenlets() -> int:
    """Return how many greenlets stand somewhere, but for this one, the hub and idle runners."""
    gc.collect()
    return len(live_greenlets())
