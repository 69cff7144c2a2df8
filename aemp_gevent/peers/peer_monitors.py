# SPDX-License-Identifier: MIT
"""What another node monitors of this one: each death is reported to it in a ``kil0`` packet."""

from __future__ import annotations

from typing import Any, Protocol

from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.ports import monitors
from aemp_gevent.ports.port import Job, Port, SpawnedPort
from aemp_gevent.ports.reasons import Reason, in_words
from aemp_gevent.wire.vocabulary import KIL0


class WatchingPeer(Protocol):
    """The node that watches."""

    @property
    def node(self) -> str: ...

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet if that needs no new link; never switches."""


class PeerMonitor(Job):
    """A peer's monitor of a port of ours. Needs no turn in the run queue: no user code runs but that of a reason."""

    __slots__ = ("_was_told", "_watchers", "name", "port")

    def __init__(self, watchers: Watchers, port: Port, name: str) -> None:
        super().__init__(None)
        self._watchers = watchers
        self.port = port
        self.name = name
        self._was_told = False

    def died(self, reason: Reason) -> bool:
        """Tell the peer at once."""
        # Told again: what struck the first time may be code of the reason's elements, and would strike each time.
        words = in_words(reason) if self._was_told else reason
        self._was_told = True
        self._watchers.port_died(self.name, words)
        return False


class Watchers:
    """The monitors that one peer has of our ports, by the names it used.

    Args:
        peer: Who watches.
        limit: How many it may watch.
    """

    def __init__(self, peer: WatchingPeer, limit: int) -> None:
        self._peer = peer
        self._limit = limit
        self._watchers: dict[str, PeerMonitor] = {}

    def may_add(self, name: str) -> bool:
        """Return whether the peer may watch this one, too."""
        return len(self._watchers) < self._limit or name in self._watchers

    def add(self, port: Port, name: str) -> None:
        """Watch a port for the peer from now on."""
        if name not in self._watchers:
            watcher = self._watchers[name] = PeerMonitor(self, port, name)
            monitors.add(port, watcher)

    def remove(self, name: str) -> None:
        """Stop watching it."""
        watcher = self._watchers.get(name)
        if watcher is not None:
            monitors.remove(watcher.port, watcher)
            self._watchers.pop(name, None)

    @property
    def count(self) -> int:
        """How many it watches."""
        return len(self._watchers)

    @property
    def are_any(self) -> bool:
        """Whether it watches any."""
        return bool(self._watchers)

    def mark_spawned(self, port: Port) -> None:
        """Note that the peer spawned a port."""
        if isinstance(port, SpawnedPort):
            port.parent = self._peer.node

    def has_spawned(self, port: Port) -> bool:
        """Return whether a port was marked as one that the peer spawned."""
        return port.parent == self._peer.node

    def remove_all(self) -> None:
        """Stop watching for the peer, which knows that the link is lost."""
        for name in list(self._watchers):
            self.remove(name)

    def port_died(self, name: str, reason: Reason) -> None:
        """Tell the peer that a port of ours is dead. Never raises."""
        self._watchers.pop(name, None)
        # Here a reason may be anything; the watcher must hear of the death all the same. The
        # last is as long as the request to watch, which fitted.
        for words in (reason, in_words(reason) if reason else (), ("die",), ()):
            try:
                self._peer.send_if_connected(["", KIL0, name, *words])
            except (UnencodableMessageError, MessageTooLargeError):
                continue
            return
