# SPDX-License-Identifier: MIT
"""Dialling: greenlets that find a node, and connect with its endpoints until one of them leads to it."""

from __future__ import annotations

import weakref
from time import monotonic
from typing import Any, Protocol

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.errors import AempError
from aemp_gevent.links.link import Link
from aemp_gevent.peers.attempts import Attempt
from aemp_gevent.peers.finding import Finding
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.strangers import Stranger, Strangers, StrangersHost
from aemp_gevent.runtime.forking import helpers
from aemp_gevent.settings.fields import Settings
from aemp_gevent.transport.connector import Connector


class DiallingHost(StrangersHost, Protocol):
    """The network that dials."""

    @property
    def settings(self) -> Settings: ...
    @property
    def connector(self) -> Connector: ...
    @property
    def finding(self) -> Finding: ...
    @property
    def strangers(self) -> Strangers: ...


class Dialling:
    """Dials for one node.

    Args:
        host: The network.
    """

    def __init__(self, host: DiallingHost) -> None:
        self._host = host
        self._greenlets = helpers()
        self._attempts: weakref.WeakKeyDictionary[Link, Attempt] = weakref.WeakKeyDictionary()  # in the handshake

    def dial(self, peer: Peer, endpoints: tuple[Endpoint, ...]) -> None:
        """Begin to connect with a peer; its ``attempt_failed`` is called if that leads to nothing. Never switches.

        Args:
            peer: The peer.
            endpoints: Where it listens; empty: that is to be found out.
        """
        if self._host.is_closed:
            peer.attempt_failed("this node was shut down")
        else:
            if not endpoints:
                self._host.finding.sought.add(peer)
            self._greenlets.spawn(self._dial, peer, endpoints)

    def _dial(self, peer: Peer, endpoints: tuple[Endpoint, ...]) -> None:
        # What is left of monitor_timeout is for the handshake.
        settings = self._host.settings
        deadline = monotonic() + settings.monitor_timeout
        if not endpoints:
            try:
                endpoints = self._host.finding.find(
                    peer, max(settings.monitor_timeout - settings.handshake_timeout, 1.0)
                )
            except (OSError, AempError) as error:
                peer.attempt_failed(str(error))
                return
        self._dial_next(Attempt(peer, endpoints, deadline))

    def _dial_next(self, attempt: Attempt) -> None:
        """Connect with the first endpoint that accepts; which node is there shows later."""
        host = self._host
        while not attempt.is_over:
            endpoint, connecting, proving = attempt.next(host.settings.handshake_timeout)
            try:
                # Both in the try: the connection may be gone again before we look at it.
                transport = host.connector.dial((endpoint,), connecting)
                host.strangers.meet(transport, Stranger(host, attempt), dialled=True, timeout=proving)
            except (OSError, AempError) as error:
                attempt.failed(str(error))
            else:
                return
        attempt.peer.attempt_failed(attempt.why)

    def dial_address(self, endpoints: tuple[Endpoint, ...], timeout: float) -> Link:
        """Connect with the node at an address, whichever it is. Blocks until connected; the handshake comes later.

        Raises:
            OSError: Nothing accepts there.
        """
        host = self._host
        return host.strangers.meet(host.connector.dial(endpoints, timeout), Stranger(host, None), dialled=True)

    def greeted(self, attempt: Attempt, link: Link, peer: Peer) -> None:
        """Take note which peer greeted where a node was dialled."""
        if peer is attempt.peer:
            self._attempts[link] = attempt  # it is still to prove itself
        else:
            self.failed(attempt, f"the node at {link.transport.peer_address} is {peer.node}")

    def link_failed(self, peer: Peer, link: Link, why: str) -> None:
        """Try the next endpoint of a peer after a connection closed that had greeted as this peer.

        If none is left, its ``attempt_failed`` is called.
        """
        attempt = self._attempts.pop(link, None)
        if attempt is None:
            peer.attempt_failed(why)  # a mere address was dialled
        else:
            self.failed(attempt, why)

    def failed(self, attempt: Attempt, why: str) -> None:
        """Try the next endpoint, as one did not lead to the node that was dialled."""
        attempt.failed(why)
        if attempt.is_over or self._host.is_closed or attempt.peer.is_up:
            attempt.peer.attempt_failed(attempt.why)
        else:
            self._greenlets.spawn(self._dial_next, attempt)

    @property
    def workers(self) -> list[Any]:
        """The greenlets that dial."""
        return list(self._greenlets)

    def stop(self) -> None:
        """Stop dialling. Idempotent; never switches."""
        self._greenlets.kill(block=False)
