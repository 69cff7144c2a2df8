# SPDX-License-Identifier: MIT
"""The gate: connections that others made, and that have not proved themselves yet.

They cost us memory and descriptors, and nobody knows whose they are, so there are never
many: one more than may be, of one address or of all, and the oldest is dropped. The oldest,
because a node that means it is through within a few round trips, and who opens connections and
says nothing pushes out his own.

How fast they may come is :mod:`aemp_gevent.transport.listener`'s concern; how much each may say, and how long
it may take, :mod:`aemp_gevent.wire.handshake`'s and :mod:`aemp_gevent.links.link`'s.
"""

from __future__ import annotations

import ipaddress
import weakref

from aemp_gevent.links.link import Link

_NETWORK_BITS = 64
"""Of an IPv6 address: everybody has as many addresses as fit into one such network."""


class Gate:
    """Who waits to be let in.

    Args:
        total: How many may.
        per_address: How many of one address may.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        # Those that are in, or gone, are left out when the next one comes: a list of 64 at most.
        self._waiting: list[weakref.ref[Link]] = []

    def waiting(self) -> list[Link]:
        """Return the connections that wait, the oldest first."""
        links = [link for link in (reference() for reference in self._waiting) if link is not None]
        return [link for link in links if not (link.closed or link.is_up)]

    def admit(self, link: Link) -> Link | None:
        """Add one that waits, and return the one that has to go for it, if any."""
        waiting = [*self.waiting(), link]
        self._waiting = [weakref.ref(other) for other in waiting]
        home = home_of(link.transport.peer_address)
        neighbours = [other for other in waiting if home_of(other.transport.peer_address) == home]
        if len(neighbours) > self._per_address:
            return neighbours[0]
        return waiting[0] if len(waiting) > self._total else None


def home_of(endpoint: str) -> str:
    """Return what counts as the same address: that of an endpoint without its port, and of IPv6 the network."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host  # a Unix socket: whoever may use it is one
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _NETWORK_BITS), strict=False))
