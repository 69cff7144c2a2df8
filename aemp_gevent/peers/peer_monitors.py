# SPDX-License-Identifier: MIT
"""What another node monitors of this one: each death is reported to it in a ``kil0`` packet."""

from __future__ import annotations

from typing import Any, Protocol

from aemp_gevent.errors import MessageTooLargeError, UnencodableMessageError
from aemp_gevent.ports import monitors
from aemp_gevent.ports.port import Job, Port, SpawnedPort
from aemp_gevent.ports.reasons import Reason, in_words
from aemp_gevent.wire.vocabulary import KIL0


class MonitoringPeer(Protocol):
    """The node that monitors."""

    @property
    def node(self) -> str: ...

    def send_if_connected(self, packet: list[Any]) -> None:
        """Send a packet if that needs no new link; never switches."""


class PeerMonitor(Job):
    """A peer's monitor of a port of ours. Needs no turn in the run queue: no user code runs but that of a reason."""

    __slots__ = ("_owner", "_was_told", "name", "port")

    def __init__(self, owner: PeerMonitors, port: Port, name: str) -> None:
        super().__init__(None)
        self._owner = owner
        self.port = port
        self.name = name
        self._was_told = False

    def died(self, reason: Reason) -> bool:
        """Report the death to the peer at once."""
        # The second time as text: what struck may be code of the reason's elements, and would strike each time.
        words = in_words(reason) if self._was_told else reason
        self._was_told = True
        self._owner.port_died(self.name, words)
        return False


class PeerMonitors:
    """The monitors that one peer has of our ports, by the names it used.

    Args:
        peer: Who monitors.
        limit: How many it may monitor.
    """

    def __init__(self, peer: MonitoringPeer, limit: int) -> None:
        self._peer = peer
        self._limit = limit
        self._monitors: dict[str, PeerMonitor] = {}

    def may_add(self, name: str) -> bool:
        """Return whether the peer may monitor this one, too."""
        return len(self._monitors) < self._limit or name in self._monitors

    def add(self, port: Port, name: str) -> None:
        """Monitor a port for the peer from now on."""
        if name not in self._monitors:
            monitor = self._monitors[name] = PeerMonitor(self, port, name)
            monitors.add(port, monitor)

    def remove(self, name: str) -> None:
        """Stop monitoring it."""
        monitor = self._monitors.get(name)
        if monitor is not None:
            monitors.remove(monitor.port, monitor)
            self._monitors.pop(name, None)

    @property
    def count(self) -> int:
        """How many it monitors."""
        return len(self._monitors)

    @property
    def are_any(self) -> bool:
        """Whether it monitors any."""
        return bool(self._monitors)

    def mark_spawned(self, port: Port) -> None:
        """Note that the peer spawned a port."""
        if isinstance(port, SpawnedPort):
            port.parent = self._peer.node

    def has_spawned(self, port: Port) -> bool:
        """Return whether a port was marked as one that the peer spawned."""
        return port.parent == self._peer.node

    def remove_all(self) -> None:
        """Stop monitoring for the peer, which knows that the link is lost."""
        for name in list(self._monitors):
            self.remove(name)

    def port_died(self, name: str, reason: Reason) -> None:
        """Report the death of a local port to the peer. Never raises."""
        self._monitors.pop(name, None)
        # Here a reason may be anything; the peer must hear of the death all the same. The
        # last is as long as the request to monitor, which fitted.
        for words in (reason, in_words(reason) if reason else (), ("die",), ()):
            try:
                self._peer.send_if_connected(["", KIL0, name, *words])
            except (UnencodableMessageError, MessageTooLargeError):
                continue
            return
