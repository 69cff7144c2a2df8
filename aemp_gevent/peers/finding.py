# SPDX-License-Identifier: MIT
"""Finding nodes whose IDs do not contain their addresses: other nodes are asked, through the directory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from time import monotonic
from typing import Protocol

import gevent
from gevent.event import AsyncResult

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import Endpoint, parse_endpoint
from aemp_gevent.errors import InvalidNoderefError
from aemp_gevent.peers.listeners import is_any
from aemp_gevent.peers.peer import Peer

Answered = Callable[[Collection[str] | None], None]
"""Called with the addresses at which a node listens; None: they are not known."""

MAX_ADDRESSES = 16
"""Addresses of a node that are tried, of those that the directory knows."""

SETTLE_SECONDS = 5.0
"""After a node begins, and after the links to its seeds changed, unknown names are asked for again until
this much time has passed: others that start at the same time, or lost the same seed, are on their way to one."""

_ASK_AGAIN_SECONDS = 0.3


class FindingListener(Protocol):
    """The part of the network's listener that knows the directory."""

    def find(self, node: str, answered: Answered) -> None:
        """Ask where a named node listens. Never switches."""


class FindingHost(Protocol):
    """The network that looks for nodes."""

    @property
    def listener(self) -> FindingListener: ...

    def changed(self) -> None:
        """Wake all greenlets that wait for links to come or go."""

    def wait_for_change(self, timeout: float) -> None:
        """Wait until a link came or went, or the time is over. Switches."""


class Finding:
    """Finds nodes for one node.

    Args:
        host: The network.
    """

    def __init__(self, host: FindingHost) -> None:
        self._host = host
        self.sought: set[Peer] = set()
        """Peers whose addresses are being asked for."""
        self._settled_at = 0.0
        self._is_started = False

    def start(self) -> None:
        """Ask the directory from now on: until then it is not ready."""
        self._is_started = True
        self.unsettle()

    def unsettle(self) -> None:
        """Note that the network changes: names that are unknown now may be known soon."""
        self._settled_at = monotonic() + SETTLE_SECONDS

    def can_find(self, node: str) -> bool:
        """Return whether the directory can be asked where this node listens."""
        return self._is_started and not node.startswith((ids.ANON_PREFIX, ids.SLAVE_PREFIX))

    def locate(self, node: str, answered: Callable[[tuple[Endpoint, ...]], None]) -> None:
        """Ask where a node listens; ``()`` when that is not known. Never switches."""
        if self._is_started:
            self._host.listener.find(node, lambda addresses: answered(_checked(addresses)))
        else:
            answered(())

    def find(self, peer: Peer, timeout: float) -> tuple[Endpoint, ...]:
        """Return where a node listens. Waits, since the nodes that know it may not be connected yet.

        Raises:
            OSError: The address is not known, or no node answers.
        """
        try:
            return self._find(peer, monotonic() + timeout, timeout)
        finally:
            self.sought.discard(peer)
            self._host.changed()

    def _find(self, peer: Peer, deadline: float, timeout: float) -> tuple[Endpoint, ...]:
        is_answered = False
        while True:
            answer: AsyncResult[tuple[Endpoint, ...]] = AsyncResult()
            self.locate(peer.node, answer.set)
            try:
                endpoints = answer.get(timeout=max(deadline - monotonic(), 0.0))
            except gevent.Timeout:
                if is_answered:
                    endpoints = ()
                    break
                text = f"no known address: nobody could be asked for it within {timeout:g} s; is any seed up?"
                raise OSError(text) from None
            is_answered = True
            left = min(self._settled_at, deadline) - monotonic()
            if endpoints or left <= 0 or peer.is_up:
                break
            gevent.sleep(min(_ASK_AGAIN_SECONDS, left))
        peer.can_be_found = bool(endpoints)
        if not endpoints:
            raise OSError("no known address: is it running, with the same seeds?")
        return endpoints

    def wait(self, timeout: float) -> float:
        """Wait until the nodes that messages wait for are found, or given up; return the seconds left. May switch."""
        deadline = monotonic() + timeout
        while (left := deadline - monotonic()) > 0 and any(peer.is_waiting for peer in self.sought):
            self._host.wait_for_change(left)
        return max(left, 0.0)


def _checked(addresses: object) -> tuple[Endpoint, ...]:
    """Return those of the addresses found for a node that can be dialled."""
    if not isinstance(addresses, Collection) or isinstance(addresses, (str, bytes)):
        return ()
    found: list[Endpoint] = []
    for address in itertools.islice(addresses, MAX_ADDRESSES):
        if isinstance(address, str) and len(address) <= ids.MAX_NAME:
            found += filter(None, map(_endpoint, address.split(",")))
    return tuple(found[:MAX_ADDRESSES])


def _endpoint(address: str) -> Endpoint | None:
    """Return an endpoint that can be dialled as it stands; however it is spelled, as Perl shortens IPv6 differently."""
    try:
        endpoint = parse_endpoint(address)
    except InvalidNoderefError:
        return None
    names_port = endpoint.port and address.endswith(f":{endpoint.port}")
    can_be_dialled = endpoint.is_numeric and (endpoint.path or names_port) and not is_any(endpoint)
    return endpoint if can_be_dialled else None
