# SPDX-License-Identifier: MIT
"""Watches of a peer's ports that outlive their last monitor here, for the next one.

A caller monitors the port during a call. If the peer were asked to watch the port for each call, and to stop after it,
each call would be three packets. So it stops 10 to 20 seconds after the last call, or when too many ports are watched
without a monitor. All watches end with the link, on both sides.

Only watches of ports with a unique name are kept: a peer watches a port, and a name that a program chose may be another
port's by the next call.
"""

from __future__ import annotations

from time import monotonic

from aemp_gevent.peers.remote_port import RemotePort, Sender
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.wire.vocabulary import MON0

KEPT_SECONDS = 10.0
"""How long a watch is kept after the last monitor, at least; at most twice as long."""

MAX_KEPT = 256
"""How many watches of one peer are kept: the most recently used."""

MAX_KEPT_VIRTUAL = 16
"""The same for a peer whose link others carry: one real peer can bring thousands of these."""


class KeptWatches:
    """The watches of one peer's ports that are kept.

    Args:
        peer: The peer, which watches.
        scheduler: Has the timer.
        most: How many are kept.
    """

    def __init__(self, peer: Sender, scheduler: Scheduler, most: int) -> None:
        self._peer = peer
        self._scheduler = scheduler
        self._most = most
        self.clearances = 0
        """How often all were ended, so that the peer has room for others."""
        self._since: dict[RemotePort, float] = {}  # most recently used last; may be monitored again
        self._timer: int | None = None

    def __bool__(self) -> bool:
        return bool(self._since)

    def keep(self, port: RemotePort) -> None:
        """Keep the watch of a port, whose last monitor was cancelled just now."""
        # Wherever this is struck: a port that counts as watched is in the table, which ends with the link.
        port.is_kept = False
        self._since.pop(port, None)
        self._since[port] = monotonic()
        port.is_kept = True
        if len(self._since) > self._most:
            self._end(next(iter(self._since)))
        self.prepare()

    def prepare(self) -> None:
        """Start the timer, so that a monitor can be cancelled right away also near the recursion limit."""
        if self._timer is None:
            self._timer = self._scheduler.start_timer(KEPT_SECONDS, self._look)

    def drop(self, port: RemotePort) -> None:
        """Note that the peer no longer watches a port: it died, or the peer was told to stop."""
        port.is_kept = False
        self._since.pop(port, None)
        if not self._since:
            self._end_timer()

    def drop_all(self) -> None:
        """Note that the peer no longer watches anything, because the link is lost or closes."""
        for port in list(self._since):
            self.drop(port)
        self._end_timer()  # which prepare() may have started; it would keep the whole node

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._scheduler.end_timer(self._timer)
            self._timer = None

    def end_all(self) -> None:
        """Ask the peer to stop all watches without a monitor."""
        if self._since:
            self.clearances += 1
        for port in list(self._since):
            self._end(port)

    def _end(self, port: RemotePort) -> None:
        # Not kept from here on, so that the next to monitor it asks; in the table until the peer was told.
        port.is_kept = False
        if not port.is_watched:
            self._peer.send_if_connected(["", MON0, port.name])
        self.drop(port)

    def _look(self) -> None:  # on the hub
        """End the watches that were kept long enough."""
        self._timer = None
        if self._since:  # first: what strikes in the middle of this must not leave the rest watched forever
            self._timer = self._scheduler.start_timer(KEPT_SECONDS, self._look)
        for port, since in list(self._since.items()):
            if monotonic() - since >= KEPT_SECONDS:
                self._end(port)
