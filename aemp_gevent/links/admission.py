# SPDX-License-Identifier: MIT
"""Admission: how many connections that others made may be in their handshakes at once.

They cost memory and descriptors, and it is not known yet whose they are. So their number is bounded, for
one address and for all: one more, and the oldest is dropped. The oldest,
because the handshake of a real node takes a few round trips only, and a stranger that opens connections and
sends nothing pushes out its own.

How fast they may come is :mod:`aemp_gevent.transport.listener`'s concern; how many bytes each may send,
:mod:`aemp_gevent.wire.handshake`'s; how long it may take, :mod:`aemp_gevent.links.handshaking`'s.
"""

from __future__ import annotations

import ipaddress
import weakref

from aemp_gevent.links.link import Link

_NETWORK_BITS = 64
"""Bits of an IPv6 address that count: one host may have all addresses of such a network."""


class Gate:
    """Bounds the connections that are in their handshakes.

    Args:
        total: The most of all addresses together.
        per_address: The most of one address.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        # Those that are up or closed are left out when the next one comes.
        self._waiting: list[weakref.ref[Link]] = []

    def waiting(self) -> list[Link]:
        """Return the connections that are in their handshakes, the oldest first."""
        links = [link for link in (reference() for reference in self._waiting) if link is not None]
        return [link for link in links if not (link.closed or link.is_up)]

    def admit(self, link: Link) -> tuple[Link, str] | None:
        """Add a connection; if another one has to be closed for it, return that and the reason."""
        waiting = [*self.waiting(), link]
        self._waiting = [weakref.ref(other) for other in waiting]
        home = home_of(link.transport.peer_address)
        neighbours = [other for other in waiting if home_of(other.transport.peer_address) == home]
        why = "too many handshakes are under way{}, and this one was the oldest; the limit is {}={}"
        if len(neighbours) > self._per_address:
            return neighbours[0], why.format(f" from {home}", "max_strangers_per_address", self._per_address)
        return (waiting[0], why.format("", "max_strangers", self._total)) if len(waiting) > self._total else None


def home_of(endpoint: str) -> str:
    """Return what counts as the same address: that of an endpoint without its port, and of IPv6 the network."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host  # a Unix socket: all that may use it count as one
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _NETWORK_BITS), strict=False))
