# SPDX-License-Identifier: MIT
"""Leaving in order: every peer gets a goodbye, after everything that was sent before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import gevent

from aemp_gevent.links.heartbeat import Pulse
from aemp_gevent.links.link import Link
from aemp_gevent.peers.peer import Peer
from aemp_gevent.runtime.logs import Log

_CHECK_SECONDS = 0.1
"""How often to look whether everything has left, since nothing reports a queue that was dropped."""

_log = Log()


class LeavingHost(Protocol):
    """The network that is left."""

    @property
    def peers(self) -> Mapping[str, Peer]: ...

    @property
    def pulse(self) -> Pulse: ...

    def changed(self) -> None:
        """Wake all greenlets that wait for links to come or go."""

    def wait_for_change(self, timeout: float) -> None:
        """Wait until a link came or went, or the time is over. Switches."""


class Leaver:
    """The owner of a link that has only to be read to its end, as this node shuts down.

    If its handshake is under way, the peer may use the link already, so it gets its goodbye when that is over.

    Args:
        host: Hears of the end.
    """

    def __init__(self, host: LeavingHost) -> None:
        self._host = host

    def ended(self, link: Link) -> None:
        self._host.changed()

    def failed(self, link: Link, why: str) -> None:
        self._host.changed()

    def came_up(self, link: Link) -> None:
        self._host.pulse.add(link, [], lambda _link: None)  # it needs no probe: nothing more is sent
        link.leave(is_used=True)

    # Nothing is answered any more.

    def greeted(self, link: Link) -> None: ...

    def begins(self, link: Link, packet: list[Any]) -> bool:
        return True

    def requested(self, link: Link, message: list[Any]) -> None: ...
    def dropped(self, link: Link, name: str, message: list[Any]) -> None: ...

    def has_room(self, link: Link) -> None:
        self._host.changed()  # whatever was the last to leave: the link may be closed now


class Goodbyes:
    """Says goodbye to the peers of one node.

    Args:
        host: The network.
    """

    def __init__(self, host: LeavingHost) -> None:
        self._host = host
        self._links: list[Link] = []  # which close by themselves

    def take_leave(self, timeout: float) -> None:
        """Say goodbye to all peers, after everything that waits for their links. Switches.

        Args:
            timeout: Seconds; peers that have not taken everything by then are logged.
        """
        patience = gevent.Timeout(timeout)
        try:
            with patience:
                self._take_leave()
        except gevent.Timeout as timed_out:
            if timed_out is not patience:
                raise
            left = sorted({link.greeting.node for link in self._links if link.greeting and not link.closed})
            left += sorted(peer.node for peer in self._host.peers.values() if peer.is_waiting)
            if left:
                _log.warning(
                    "shut down after %g s; these nodes had not received everything: %s", timeout, ", ".join(left)
                )

    def _take_leave(self) -> None:
        peers = self._host.peers
        while True:
            for peer in list(peers.values()):
                if not peer.is_waiting:  # for a link, which is being made
                    self._see_off(peer)
            gevent.sleep(0)  # what was written leaves at the end of the loop's iteration
            waiting = any(peer.is_waiting for peer in peers.values())
            if not waiting and all(link.closed for link in self._links):
                return
            self._host.wait_for_change(_CHECK_SECONDS)

    def _see_off(self, peer: Peer) -> None:
        for link in peer.depart():
            link.owner = Leaver(self._host)
            self._links.append(link)

    def close(self) -> None:
        """Say goodbye to all peers, and close their links at once."""
        for peer in list(self._host.peers.values()):
            self._see_off(peer)
        for link in self._links:
            link.close()
        self._links.clear()
