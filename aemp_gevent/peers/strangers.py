# SPDX-License-Identifier: MIT
"""Strangers: connections that have not greeted, and so are not yet connections with any peer.

Once a stranger has greeted, its link is handed to the :class:`~aemp_gevent.peers.peer.Peer` that it claims to be,
which decides about it.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any, Protocol

from aemp_gevent.links.admission import Gate
from aemp_gevent.links.link import Link, LinkOwner
from aemp_gevent.peers.attempts import Attempt
from aemp_gevent.peers.direct_peer import DirectPeer
from aemp_gevent.peers.link_maker import LinkMaker
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.relaying import Routes
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.settings.fields import Settings
from aemp_gevent.transport.transport import Transport
from aemp_gevent.wire.limits import is_long


class Dials(Protocol):
    """What hears of the connections that this node made."""

    def greeted(self, attempt: Attempt, link: Link, peer: Peer) -> None:
        """Take note which peer greeted where a node was dialled."""

    def failed(self, attempt: Attempt, why: str) -> None:
        """Take note that an endpoint did not lead to the node that was dialled."""


class StrangersHost(Protocol):
    """The network that strangers connect with."""

    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def refusals(self) -> Counter[str]: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def link_maker(self) -> LinkMaker: ...
    @property
    def routes(self) -> Routes: ...
    @property
    def dialling(self) -> Dials: ...
    @property
    def strangers(self) -> Strangers: ...

    def peer(self, node: str) -> Peer:
        """Return the peer with this node ID."""
        ...

    def known_peer(self, node: str) -> Peer | None:
        """Return the peer with this node ID, if there is one."""

    def changed(self) -> None:
        """Wake all greenlets that wait for links to come or go."""


class Stranger:
    """The owner of a link until it greets.

    Args:
        host: The network.
        attempt: Where the connection belongs to; None if others made it, or a mere address was dialled.
    """

    def __init__(self, host: StrangersHost, attempt: Attempt | None) -> None:
        self._host = host
        self._attempt = attempt

    def greeted(self, link: Link) -> None:
        assert link.greeting is not None  # that is what "greeted" means
        host, node = self._host, link.greeting.node
        limit = host.settings.max_name_bytes
        why = f"its node ID is longer than {limit} bytes" if is_long(node, limit) else ""
        why = why or host.routes.check_greeting(node)
        if why and host.routes.may_mean_us(node):
            # A slave that dials a named node knows its address and not its name, which it has by now, and comes again.
            text = "connection with %s closed: %s; it learns this node's name, and reconnects"
            host.strangers.complaints.log(logging.DEBUG, text, link.transport.peer_address, why)
            host.strangers.forget(link)
            link.close()
            return
        if why:
            link.refuse("handshake", why)
            return
        host.strangers.links.discard(link)
        peer = host.peer(node)
        if host.is_closed and not peer.is_waiting:
            link.close()  # we said goodbye, and it would take this for a link that is lost
            return
        if self._attempt is not None:
            host.dialling.greeted(self._attempt, link, peer)
        assert isinstance(peer, DirectPeer)  # as all are
        peer.greeted(link)

    def failed(self, link: Link, why: str) -> None:
        strangers = self._host.strangers
        strangers.forget(link)
        text, address = "connection with %s closed: %s", link.transport.peer_address
        if self._is_spare(link):
            strangers.complaints.log(logging.DEBUG, text, address, why)
        elif self._attempt is not None and not link.is_refused:
            # Like a connection that could not be made: the attempt has failed, which is logged and reported.
            strangers.complaints.log(logging.INFO, text, address, why)
        else:
            strangers.complaints.warn(text, address, why)
        if self._attempt is not None:
            self._host.dialling.failed(self._attempt, why)

    def _is_spare(self, link: Link) -> bool:
        """Return whether a peer that reports another link closed this one while TLS came up, without a fault here.

        As when two nodes dial each other, and the other one had seen both connections.
        """
        peer = self._host.known_peer(link.greeting.node) if link.greeting is not None else None
        return link.was_cut and isinstance(peer, DirectPeer) and peer.has_links

    def has_room(self, link: Link) -> None:
        """Our greeting has left."""

    # A link that is up, or ends in order, has greeted, and so has another owner.

    def came_up(self, link: Link) -> None: ...

    def begins(self, link: Link, packet: list[Any]) -> bool:
        return False

    def requested(self, link: Link, message: list[Any]) -> None: ...
    def dropped(self, link: Link, name: str, message: list[Any]) -> None: ...

    def ended(self, link: Link) -> None: ...


class Strangers:
    """All strangers of one node.

    Args:
        host: The network.
    """

    def __init__(self, host: StrangersHost) -> None:
        self._host = host
        self.links: set[Link] = set()
        self.gate = Gate(host.settings.max_strangers, host.settings.max_strangers_per_address)
        """Bounds those that others made."""
        self.complaints = BoundedLog(host.scheduler.log_soon, "strangers")
        """Logs what strangers cause."""

    def accepted(self, transport: Transport) -> None:
        """Start a handshake on a connection that another node made."""
        surplus = self.gate.admit(self.meet(transport, Stranger(self._host, None), dialled=False))
        if surplus is not None:
            self._host.refusals["crowd"] += 1
            oldest, why = surplus
            oldest.fail(why)

    def meet(self, transport: Transport, owner: LinkOwner, *, dialled: bool, timeout: float | None = None) -> Link:
        """Start a handshake on a connection, which may take ``handshake_timeout`` unless another time is given."""
        link = self._host.link_maker.make(transport, owner, dialled=dialled)
        self.links.add(link)
        link.start(self._host.settings.handshake_timeout if timeout is None else timeout)
        return link

    def forget(self, link: Link) -> None:
        """Stop counting a connection as a stranger."""
        self.links.discard(link)
        self._host.changed()

    def close(self) -> None:
        """Close all of them."""
        for link in list(self.links):
            link.close()
        self.links.clear()
