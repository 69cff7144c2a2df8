# SPDX-License-Identifier: MIT
"""A node that this one has connections of its own with; their link is closed while neither side needs it.

Which of several connections is the link is decided in :mod:`aemp_gevent.peers.link_choice`. Here a link is closed
by agreement with the peer, so that nothing is lost. It *comes to rest*, and neither side has a loss to report:

1. A side that finds it idle and could do without sends ``idle``, and then nothing more on it; what
   is to be sent waits, as it does for a link that is being made.
2. The other side, if it could do without, too, or has sent ``idle`` itself, shuts its
   sending side. Otherwise it sends ``stay``, and the link stays open.
3. At the end of what the other side sent, the first shuts its sending side as well. A side
   that has shut its own and seen the other's end is *at rest*: if anything waits, it dials.
4. Until then it answers no greeting: the peer may be at rest already and dial again, and what
   it sends then must not overtake what it sent before.

What waits for the link meanwhile is sent over the next one. Nothing here switches.
"""

from __future__ import annotations

import logging
from typing import Any

from aemp_gevent.addresses.endpoints import Endpoint, is_resolved
from aemp_gevent.links.link import Link
from aemp_gevent.peers.link_choice import LinkChoosingPeer
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.peer_host import PeerHost
from aemp_gevent.wire.vocabulary import IDLE, STAY


class _Nobody:
    """The owner of a link that is at rest, while the last heartbeat leaves."""

    def greeted(self, link: Link) -> None: ...
    def came_up(self, link: Link) -> None: ...
    def begins(self, link: Link, packet: list[Any]) -> bool:
        return False

    def requested(self, link: Link, message: list[Any]) -> None: ...
    def dropped(self, link: Link, name: str, message: list[Any]) -> None: ...
    def ended(self, link: Link) -> None: ...
    def failed(self, link: Link, why: str) -> None: ...
    def has_room(self, link: Link) -> None: ...


_NOBODY = _Nobody()


class DirectPeer(LinkChoosingPeer):
    """A peer that this node has connections of its own with. Its link is closed while neither side needs it.

    Args:
        node: Its ID.
        host: The node this is a peer of.
    """

    def __init__(self, node: str, host: PeerHost[Peer]) -> None:
        super().__init__(node, host)
        self._resting: Link | None = None  # the link, from the moment that we send no more until it is at rest

    @property
    def is_up(self) -> bool:
        return self.link is not None or self._resting is not None

    @property
    def is_resting(self) -> bool:
        return self._resting is not None

    @property
    def _open_link(self) -> Link | None:
        return self.link or self._resting

    def send_if_connected(self, packet: list[Any]) -> None:
        if self._resting is not None and self.outbox.has_only_answers:
            self.send(packet)
            self.outbox.mark_answers()
        else:
            super().send_if_connected(packet)

    # --- links coming and going ---

    def _prove(self, link: Link) -> None:
        if self._resting is None:  # rule 4
            super()._prove(link)

    def _asked_about_rest(self, link: Link, request: str) -> None:
        if request == IDLE:
            self._asked_to_rest(link)
        elif link is self._resting:  # else it is late, and it stays anyway
            self._stay(link)

    def ended(self, link: Link) -> None:
        if link is self._resting:
            self._rest(link)
        else:
            super().ended(link)

    def _let_go(self) -> None:
        self._resting = None
        super()._let_go()

    def depart(self) -> list[Link]:
        if self._resting is not None:
            # The peer may have shut its side, and yet reads to our end.
            self.link = self._resting  # pyright: ignore[reportIncompatibleVariableOverride]
            self._resting = None
        return super().depart()

    # --- coming to rest ---

    def _found_idle(self, link: Link) -> None:
        """The link is idle: see whether it may be closed."""
        if not self._can_rest(link):
            return
        if is_resolved(self.node):
            self._send_idle(link)
        elif self._host.finding.can_find(self.node):
            # To send something later, this node must be able to find it again.
            self._host.finding.locate(self.node, lambda endpoints: self._located(link, endpoints))

    def _located(self, link: Link, endpoints: tuple[Endpoint, ...]) -> None:
        self._found(endpoints)
        if endpoints and self._can_rest(link):
            self._send_idle(link)

    def _can_rest(self, link: Link) -> bool:
        """Return whether nothing here needs this link, and nothing is under way on it."""
        is_ours = link.greeting is not None and link.greeting.is_ours
        is_only = link is self.link and self._links == [link] and not self._dialling and self._newcomer is None
        is_whole = not (link.finished or link.has_ended or link.is_held or link.transport.buffered)
        is_needed = (
            self.ports.need_a_link or self.peer_monitors.are_any or bool(self.riders) or self._host.is_kept(self.node)
        )
        return is_ours and is_only and is_whole and not is_needed

    def _is_within_reach(self, *, is_known: bool) -> bool:
        """Return whether it could be found again; if that is not known, it will be when it asks once more."""
        if not (is_known or is_resolved(self.node)) and self._host.finding.can_find(self.node):
            self._host.finding.locate(self.node, self._found)
        return is_known or is_resolved(self.node)

    def _found(self, endpoints: tuple[Endpoint, ...]) -> None:
        self.can_be_found = bool(endpoints)

    def _send_idle(self, link: Link) -> None:
        self.ports.kept.end_all()
        if link is not self.link:
            return  # sending that exceeded the hard limit, and lost the link
        link.send(["", IDLE])
        self.link, self._resting = None, link

    def _asked_to_rest(self, link: Link) -> None:
        timeout = self._host.settings.idle_timeout
        is_known, self.can_be_found = self.can_be_found, False  # that holds for this time only
        if link is self._resting:
            link.finish()  # both asked, and must answer the same
        elif (
            timeout is not None
            and self._host.pulse.idle_seconds(link) >= timeout / 2
            and self._can_rest(link)
            and self._is_within_reach(is_known=is_known)
        ):
            self.ports.kept.drop_all()
            self.link, self._resting = None, link
            link.finish()
        elif not link.finished:
            link.send(["", STAY])

    def _stay(self, link: Link) -> None:
        """Keep the link, because the peer needs it."""
        if link.finished:
            return  # it already said that it does not need it
        self.link, self._resting = link, None
        self._close_newer()
        self._send_queue(link)
        self._host.routes.link_up(self)
        self.has_room(link)

    def _rest(self, link: Link) -> None:
        """Both sides have sent their last, and nothing was lost."""
        self._log(logging.INFO, "link to %s closed, as nobody needs it", self.node)
        self._resting = None
        self._ends += 1
        self._links.remove(link)
        self._forget_connections()
        self.peer_monitors.remove_all()
        link.finish()
        link.owner = _NOBODY
        self.outbox.drop_answers()
        self._host.link_down(self, ("idle", self.node), [])
        for newer in list(self._links):
            if newer in self._links and not newer.proved:
                self._prove(newer)
        if self.outbox.packets or self.ports.are_monitored or self.riders or self._host.is_kept(self.node):
            self.connect()
        self.has_room(link)
