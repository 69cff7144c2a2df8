# SPDX-License-Identifier: MIT
"""What two nodes know of each other's ports: whose messages go where, and who watches whom.

A :class:`RemotePort` stands for a port of the peer in this node's tables; a
:class:`Watcher` for the peer's interest in a port of ours. How packets get to the
peer, and whether there is a link, is :mod:`aemp_gevent.peer`'s concern.

**Dead stays dead.** A monitored port of a link that was lost is *shunned*: its
mailbox is the one where messages vanish, until it is monitored anew, or its node is
another incarnation.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any, Protocol

from aemp_gevent import monitors
from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.matching import Message
from aemp_gevent.monitors import Watch
from aemp_gevent.port import NOWHERE, REMOTE, Port, Reason
from aemp_gevent.scheduler import Job, Scheduler

MAX_REMOTE_PORTS = 10_000
"""Remote ports remembered per peer without need, only to find them faster: 250 bytes each."""

# Short, and survives a repr() that raises: where deaths are reported nothing may.
_REPR = reprlib.Repr()
_REPR.maxother = _REPR.maxstring = 200


def in_words(reason: Reason) -> Reason:
    """Return a reason that can travel in place of one that cannot: short texts of its elements."""
    return tuple(_REPR.repr(element).encode("ascii", "backslashreplace").decode() for element in reason[:10])


class Sender(Protocol):
    """The peer, as its ports see it."""

    @property
    def node(self) -> str: ...

    def post(self, packet: list[Any]) -> None:
        """Send or queue a message to a port; may pause the greenlet that sends."""

    def check_room(self) -> None:
        """Raise ``LinkBusy`` where ``post`` would pause."""

    def send(self, packet: list[Any]) -> None:
        """Send or queue a packet, and see that there is a link; never switches."""

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet if that needs no new link; never switches."""

    def connect(self) -> None:
        """See that there is a link."""


class RemotePort(Watch):
    """A port of another node, as this node sees it: where its messages go, and who monitors it here.

    Stands in the same table as local ports and is its own mailbox, so that ``snd`` finds
    both with one look-up and treats them alike. The name ``""`` is the node port,
    whose monitors watch the link.
    """

    __slots__ = ("_peer", "id", "mailbox", "name", "state")

    def __init__(self, peer: Sender, name: str) -> None:
        super().__init__()
        self._peer = peer
        self.name = name
        self.id = f"{peer.node}#{name}" if name else peer.node
        self.state = REMOTE
        self.mailbox: Any = self  # Any: what snd wants of a mailbox is append

    def append(self, message: Message) -> None:
        """Send a message; the mailbox's part in ``snd``."""
        self._peer.post([self.name, *message])

    def append_or_refuse(self, message: Message) -> None:
        """Send a message without ever pausing.

        Raises:
            LinkBusy: Too much is unsent; nothing was sent.
        """
        if self.mailbox is self:  # not shunned
            self._peer.check_room()
            self._peer.send([self.name, *message])

    def monitor(self, monitor: Job) -> None:
        """Add a monitor, which also ends a shun."""
        first = self.monitors is None
        monitors.add(self, monitor)
        self.mailbox = self
        if not self.name:
            self._peer.connect()
        elif first:
            self._peer.send(["", "mon1", self.name])

    def unwatched(self) -> None:
        """Tell the peer that nobody here monitors the port any more."""
        if self.name:
            self._peer.send_if_connected(["", "mon0", self.name])

    @property
    def is_idle(self) -> bool:
        """Whether forgetting it changes nothing."""
        return self.monitors is None and self.mailbox is self


class RemotePorts:
    """The ports of one peer that this node knows of.

    Args:
        peer: Whose they are.
        scheduler: Runs this node's ports; in its table they stand, too.
    """

    def __init__(self, peer: Sender, scheduler: Scheduler) -> None:
        self._peer = peer
        self._scheduler = scheduler
        self._ports: dict[str, RemotePort] = {}
        self._sweep_at = MAX_REMOTE_PORTS

    def get(self, name: str) -> RemotePort:
        """Return the port of this name over there; the same one each time while anybody cares."""
        port = self._ports.get(name)
        if port is None:
            if len(self._ports) >= self._sweep_at:
                self._forget_idle()
                # Where most are needed, looking at all of them for each new one would be quadratic.
                self._sweep_at = max(MAX_REMOTE_PORTS, 2 * len(self._ports))
            port = self._ports[name] = RemotePort(self._peer, name)
            self._scheduler.ports[port.id] = port  # type: ignore[assignment]  # see RemotePort
        return port

    def died(self, name: str, reason: Reason) -> None:
        """One of them died, or a message to it was lost: tell who monitors it."""
        port = self._ports.get(name)
        if port is not None and name:
            self._forget([port])
            port.fire(self._scheduler, reason)

    def all_lost(self, reason: Reason, *, shun: bool) -> None:
        """The link to all of them is lost, or was never made: tell everybody who monitors any.

        Args:
            reason: Why.
            shun: Whether they may be alive, and must not hear of us before they are monitored anew.
        """
        for port in list(self._ports.values()):
            if port.monitors is not None:
                # Shunned before anybody can react.
                if shun and port.name:
                    port.mailbox = NOWHERE
                port.fire(self._scheduler, reason)
        self._forget_idle()

    def reincarnated(self) -> None:
        """Another process has the node ID: nobody over there was ever believed dead."""
        for port in self._ports.values():
            port.mailbox = port

    @property
    def are_idle(self) -> bool:
        """Whether forgetting all of them changes nothing."""
        return all(port.is_idle for port in self._ports.values())

    def forget_all(self) -> None:
        """Forget all of them."""
        self._forget(list(self._ports.values()))

    def _forget_idle(self) -> None:
        self._forget([port for port in self._ports.values() if port.is_idle])

    def _forget(self, ports: Iterable[RemotePort]) -> None:
        for port in ports:
            del self._ports[port.name]
            self._scheduler.ports.pop(port.id, None)


class Watcher(Job):
    """A peer's monitor of a port of ours. Needs no turn in the run queue: no user code runs."""

    __slots__ = ("_watchers", "name", "port")

    def __init__(self, watchers: Watchers, port: Port, name: str) -> None:
        super().__init__(None)
        self._watchers = watchers
        self.port = port
        self.name = name

    def died(self, reason: Reason) -> bool:
        """Tell the peer at once."""
        self._watchers.port_died(self.name, reason)
        return False


class Watchers:
    """The monitors that one peer has of our ports, by the names it used.

    Args:
        peer: Who watches.
    """

    def __init__(self, peer: Sender) -> None:
        self._peer = peer
        self._watchers: dict[str, Watcher] = {}

    def add(self, port: Port, name: str) -> None:
        """Watch a port for the peer from now on."""
        if name not in self._watchers:
            watcher = self._watchers[name] = Watcher(self, port, name)
            monitors.add(port, watcher)

    def remove(self, name: str) -> None:
        """Watch it no more."""
        watcher = self._watchers.pop(name, None)
        if watcher is not None:
            monitors.remove(watcher.port, watcher)

    def remove_all(self) -> None:
        """Watch nothing for the peer any more: it cannot be told, and knows it."""
        for name in list(self._watchers):
            self.remove(name)

    def port_died(self, name: str, reason: Reason) -> None:
        """Tell the peer that a port of ours is dead. Never raises."""
        self._watchers.pop(name, None)
        # Here a reason may be anything; the watcher must hear of the death all the same. The
        # last is as long as the request to watch, which fitted.
        for words in (reason, in_words(reason) if reason else (), ("die",), ()):
            try:
                self._peer.send_if_connected(["", "kil0", name, *words])
            except (UnencodableMessageError, MessageTooLargeError):
                continue
            return
