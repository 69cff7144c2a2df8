# SPDX-License-Identifier: MIT
"""What the ports of a simulated node do: monitor each other, send numbered messages, spawn, and die.

A :class:`Member` is one incarnation of a node, with its log for :mod:`soak.checker`; its
*talkers* are ports that act by the dice. Nothing here knows how the nodes are
connected, or when something breaks.
"""

from __future__ import annotations

import random
import weakref
from collections import defaultdict
from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

from aemp_gevent import Node, receive, spawnable
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.ports.context import require_port
from aemp_gevent.ports.port import PortHost
from aemp_gevent.ports.timers import Timer
from soak.checker import (
    UNMONITORED,
    Created,
    Died,
    Event,
    Fired,
    LinkDown,
    LinkUp,
    Monitored,
    NodeUp,
    Received,
    Sent,
    Spawned,
    Stopped,
    ToldOf,
)

MAX_SESSIONS = 4
"""Ports that a talker monitors at once."""

BULK = "x" * 20_000
"""Filling of a large message: two of them reach the high-water mark that the simulation sets."""

NEWS = "monitor"
"""The tag of the messages that monitors send."""

_members: weakref.WeakKeyDictionary[PortHost, weakref.ref[Member]] = weakref.WeakKeyDictionary()
"""The members that run spawned functions, by their nodes' hosts: several live in this process.

A member knows its scheduler, so that only both references being weak lets them go.
"""


class TalkerWorld(Protocol):
    """What a member knows of the others."""

    dice: random.Random
    resting: bool
    """Whether nothing new is to be begun."""
    pause: float
    """Seconds between two acts of a talker, on average."""

    def publish(self, port: str) -> None:
        """Publish a port to the others."""

    def withdraw(self, port: str) -> None:
        """Stop publishing it, now or soon."""

    def choose_port(self, elsewhere: str) -> str | None:
        """Return some port that is not on this node, dead or alive."""
        ...

    def choose_node(self, elsewhere: str) -> str | None:
        """Return some other node."""
        ...


class Member:
    """One incarnation of a node.

    Args:
        world: All of them.
        node: An initialised node.
        log: Where its events go.
        talkers: How many ports talk; every other one has a greenlet of its own.
    """

    def __init__(self, world: TalkerWorld, node: Node, log: list[Event], talkers: int) -> None:
        self.world = world
        self.node = node
        self.id = node.NODE()
        self.has_stopped = False
        self.talkers: list[Talker] = []
        self.orphans: set[str] = set()
        """Ports that it spawned, and gave up."""
        self._log = log
        _members[node.scheduler] = weakref.ref(self)
        self.note(NodeUp, self.id)
        node.mon_nodes(self._link)
        for number in range(talkers):
            self.add_talker(blocking=number % 2 == 1)

    def note(self, kind: Callable[..., Event], *args: Any) -> None:
        """Log an event; a node that has stopped sees nothing more."""
        if not self.has_stopped:
            self._log.append(kind(monotonic(), *args))

    def stop(self) -> None:
        """Log the end, and nothing after it."""
        self.note(Stopped, self.id)
        self.has_stopped = True
        for talker in self.talkers:
            self.world.withdraw(talker.port)
            talker.end()

    def add_talker(self, *, blocking: bool) -> Talker:
        """Create a talker."""
        talker = Talker(self)
        if blocking:
            talker.live(self.node.port_async(talker.body))
        else:
            talker.live(self.node.port(talker.take))
            self.node.peval(talker.port, talker.begin)
        self.world.publish(talker.port)
        return talker

    def _link(self, node: str, up: bool, *reason: Any) -> None:  # that is how mon_nodes calls
        if up:
            self.note(LinkUp, node)
        else:
            self.note(LinkDown, node, reason)


class Talker:
    """A port that monitors others, sends to them, and logs what it sees."""

    def __init__(self, member: Member) -> None:
        self.port = ""
        self.is_alive = True
        self.sessions: dict[str, int] = {}
        """The open ones, by target."""
        self.sent: dict[tuple[str, int], int] = defaultdict(int)
        """How many messages, by target and session."""
        self.lost: list[str] = []
        """Ports whose link was lost, and which are not to hear of this node."""
        self._member = member
        self._world = member.world
        self._dice = member.world.dice
        self._spawned: set[str] = set()
        self._last_session = 0
        self._timer: Timer | None = None

    def end(self) -> None:
        """Act no more, now that the node is gone."""
        if self._timer is not None:
            self._timer.cancel()

    def live(self, port: str) -> None:
        """Use this port from now on."""
        self.port = port
        self._member.talkers.append(self)
        self._member.note(Created, port)
        # In no port's context: a port does not hear of its own death.
        ports_host_of(self._member.node).monitor(port, self._died, None)

    def _died(self, *_reason: Any) -> None:
        self.is_alive = False
        self._member.note(Died, self.port)
        self._member.talkers.remove(self)
        self._world.withdraw(self.port)

    # --- acting ---

    def begin(self) -> None:
        """Act from time to time; in the port's context."""
        self._timer = self._member.node.after(self._dice.expovariate(1 / self._world.pause), self._turn)

    def _turn(self) -> None:
        if self._world.resting or not self.is_alive:
            return
        self.act()
        self.begin()

    def body(self) -> None:
        """The same for a port with a greenlet of its own."""
        while True:
            seconds = None if self._world.resting else self._dice.expovariate(1 / self._world.pause)
            message = receive(timeout=seconds, default=None)
            if message is not None:
                self.take(*message)
            elif not self._world.resting:
                self.act()

    def act(self) -> None:
        """Do something."""
        what = self._dice.random()
        if len(self.sessions) < MAX_SESSIONS and (what < 0.25 or not self.sessions):
            if self._dice.random() < 0.2:
                self.spawn()
            else:
                target = self._world.choose_port(self._member.id)
                if target is not None:
                    self.monitor(target)
        elif what < 0.85 and self.sessions:
            self.send(self._dice.choice(list(self.sessions)), self._dice.randint(1, 12))
        elif what < 0.97 and self.lost:
            self.send(self._dice.choice(self.lost), self._dice.randint(1, 3))
        elif what > 0.995:
            self._member.add_talker(blocking=self._dice.random() < 0.5)
            self._member.node.kil(self.port, "tired")

    def monitor(self, target: str, count: int | None = None) -> None:
        """Begin a session, and send something in it at once."""
        if target in self.sessions:
            return
        self._last_session += 1
        session = self._last_session
        self._member.node.mon(target, self._fired, target, session)
        self._begin_session(target, session, count)

    def _begin_session(self, target: str, session: int, count: int | None = None) -> None:
        self._member.note(Monitored, self.port, target, session)
        self.sessions[target] = session
        if target in self.lost:
            self.lost.remove(target)
        self.send(target, self._dice.randint(0, 5) if count is None else count)

    def spawn(self) -> None:
        """Spawn a worker, and begin a session with it."""
        node = self._world.choose_node(self._member.id)
        if node is None:
            return
        worker = self._member.node.spawn(node, "soak.talker.worker")
        self._member.note(Spawned, worker)
        self._spawned.add(worker)
        self.monitor(worker)

    def send(self, target: str, count: int) -> None:
        """Send some messages: in the session, if there is one. May pause."""
        session = self.sessions.get(target, UNMONITORED)
        bulk = BULK if self._dice.random() < 0.05 else ""
        for _ in range(count):
            if self.sessions.get(target, UNMONITORED) != session:
                return  # it was lost while we paused
            number = self.sent[target, session]
            self.sent[target, session] += 1
            self._member.note(Sent, self.port, target, session, number)
            self._member.node.snd(target, "talk", self.port, session, number, bulk)

    # --- hearing ---

    def _fired(self, target: str, session: int, *reason: Any) -> None:
        self._member.note(Fired, self.port, target, session, reason)
        # What mon(target, port, NEWS, …) would do, whose action cannot be seen.
        self._member.node.snd(self.port, NEWS, target, session)
        if self.sessions.get(target) == session:
            del self.sessions[target]
        if self._member.has_stopped or not (reason and reason[0] == "transport_error"):
            return
        self.lost = [*self.lost[-4:], target]
        if target in self._spawned:
            self._member.orphans.add(target)
        if self._dice.random() < 0.4 and self.is_alive and not self._world.resting:
            # At once: what is still under way of the session before is the hardest to keep apart.
            self.monitor(target, 3)

    def take(self, kind: str, *message: Any) -> None:
        """Handle a message: of another port, or of a monitor."""
        if kind == NEWS:
            self._member.note(ToldOf, self.port, *message)
        else:
            self.hear(*message)

    def hear(self, sender: str, session: int, number: int, _bulk: str) -> None:
        """Handle what another port sent."""
        self._member.note(Received, self.port, sender, session, number)


class Worker(Talker):
    """A spawned port: it answers, and sometimes dies with its last words under way."""

    def hear(self, sender: str, session: int, number: int, _bulk: str) -> None:
        super().hear(sender, session, number, _bulk)
        if self._world.resting:
            return
        if self._dice.random() < 0.3:
            self.send(sender, self._dice.randint(1, 8))
        if self._dice.random() < 0.05:
            self.send(sender, self._dice.randint(1, 60))
            self._member.node.kil(self.port, *(("done",) if self._dice.random() < 0.5 else ()))


@spawnable
def worker() -> None:
    """Run a spawned port."""
    port = require_port("worker()")
    member = _members[port.scheduler]()
    if member is None:
        return
    born = Worker(member)
    born.live(port.id)
    member.node.rcv(port.id, born.take)
    member.world.publish(port.id)
