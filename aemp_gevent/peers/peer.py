# SPDX-License-Identifier: MIT
"""One other node: how its link is made and lost, and what is reported then.

How packets are sent to it is in :mod:`aemp_gevent.peers.sending`. Where the link comes from is decided by
the two kinds of peers: a :class:`~aemp_gevent.peers.direct_peer.DirectPeer` has connections of its own, a
:class:`~aemp_gevent.peers.virtual_peer.VirtualPeer` sends over the link of another peer, for instance a slave's master.

What this node knows of the peer's ports is in :mod:`aemp_gevent.peers.remote_ports`. Nothing here switches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aemp_gevent.addresses import ids
from aemp_gevent.links.node_state import GONE, UP, NodeState
from aemp_gevent.peers import link_requests
from aemp_gevent.peers.link_requests import ABOUT_LINKS
from aemp_gevent.peers.peer_host import Lane, PeerHost
from aemp_gevent.peers.peer_monitors import PeerMonitors
from aemp_gevent.peers.redialling import Redialling
from aemp_gevent.peers.sending import SendingPeer
from aemp_gevent.ports.port import Job
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.runtime.logs import Brief
from aemp_gevent.settings.rules import PeerRule, rights_of
from aemp_gevent.wire.greeting import Greeting

if TYPE_CHECKING:
    from aemp_gevent.links.link import Link


class Peer(SendingPeer):
    """One other node; what is common to all kinds of them.

    Args:
        node: Its ID.
        host: The node this is a peer of.
    """

    _host: PeerHost[Peer]

    def __init__(self, node: str, host: PeerHost[Peer]) -> None:
        super().__init__(node, host)
        self.peer_monitors = PeerMonitors(self, host.settings.max_watched_ports)
        """What the peer monitors of ours."""
        self.rights = self._rights_with(host)
        """What it may do here."""
        self.can_be_found = False
        """Whether its addresses were found when they were asked for to make this link. Its ID may contain some, too."""
        self._incarnation: str | None = None  # of the last link; "": unknown; None: there never was one
        self._dialling = False
        self._ups = 0  # how often the link came up
        self._ends = 0  # how often it closed or was lost, or could not be made
        self._was_blocked = False  # as was reported last
        self.redialling = Redialling()
        """When it may be dialled again."""
        self._last_error = ""

    def _rights_with(self, host: PeerHost[Peer], *speakers: str) -> PeerRule:
        """Return what the rules let the peer do, if its master, if it has one, and others pass on its requests."""
        master = ids.master_of(self.node)
        if master is not None and master != host.node_id:
            speakers = (master, *speakers)
        return rights_of(host.settings.rules, self.node, *speakers)

    def review_rights(self) -> None:
        """Look at the rules again, which may have changed since this peer was met."""
        self.rights = self._rights_with(self._host)

    def __repr__(self) -> str:
        return f"<Peer {self.node} {'up' if self.link else 'down'}>"

    @property
    def is_quiet(self) -> bool:
        """Whether nothing happens with the peer, or is waited for."""
        return (
            self.link is None
            and not (self._dialling or self.outbox.packets or self.riders)
            and self.redialling.may_dial
            and not self.ports.are_monitored
            and not self._host.is_kept(self.node)
        )

    @property
    def can_be_forgotten(self) -> bool:
        """Whether forgetting the peer changes nothing."""
        return self.is_quiet and self.ports.can_be_forgotten

    @property
    def is_up(self) -> bool:
        return self.link is not None

    @property
    def last_error(self) -> str:
        """Why it could not be reached the last time; ``""``: it always could."""
        return self._last_error

    @property
    def was_met(self) -> bool:
        """Whether there ever was a link."""
        return self._incarnation is not None

    @property
    def is_resting(self) -> bool:
        """Whether this side has offered to close the link and waits for the answer; nothing is sent meanwhile."""
        return False

    @property
    def greeting(self) -> Greeting | None:
        """The greeting of the peer; None while there is no connection with it."""
        return None

    @property
    def state(self) -> NodeState:
        """Whether it is up, blocked or gone."""
        return UP if self.link is not None else GONE

    def review_state(self) -> None:
        """Report that the peer is blocked, or is not any more, if that has changed."""
        state = self.state
        is_blocked = state.since is not None
        if state is not GONE and is_blocked != self._was_blocked:
            self._was_blocked = is_blocked
            self._host.state_changed(self)

    @property
    def understands_calls(self) -> bool:
        """Whether it takes ``call`` requests: it is of this library, as far as is known."""
        greeting = self.greeting
        return greeting is None or greeting.is_ours

    @property
    def can_carry(self) -> bool:
        """Whether there is a link, and virtual links may go over it."""
        return False

    # --- making a link ---

    def connect(self) -> None:
        """Request a link; monitors fire if there cannot be one."""
        if self.is_up or self._is_coming:
            return
        if self.redialling.may_dial:
            self._dial()
        else:  # the error was logged
            # Without monitors there is nothing to report, and the hub is not asked each time that something is sent.
            complete = self._see_through if self.ports.are_monitored else see_through
            complete(self._give_up_queue, self._last_error)

    @property
    def _is_coming(self) -> bool:
        """Whether there may be a link soon."""
        return self._dialling

    def _dial(self) -> None:
        """Begin to make a link, or report at once that there is no way."""
        raise NotImplementedError

    def attempt_failed(self, why: str) -> None:
        """Report that the link that we tried to make did not come about, and pause before the next attempt."""
        self._dialling = False
        if not self.is_up:
            self.redialling.failed()
            self._unreachable(why)

    def _was_refused(self, why: str) -> None:
        """Lose the link, as the node let it come up only to refuse this one."""
        self._last_error = f"it refuses this node: {why}"
        if self.redialling.refused():
            text = "node %s refuses this node: %s; trying again, less and less often"
            self._log(logging.ERROR, text, self.node, why)
        self._lose(self._last_error, ("transport_error", self.node, self._last_error))

    def _unreachable(self, why: str) -> None:
        """Drop what waits for a link, and report that to all monitors of the peer's ports."""
        self._last_error = why
        self._log(logging.INFO, "node %s cannot be reached: %s", self.node, why)
        self._see_through(self._give_up_queue, why)

    def _give_up_queue(self, why: str) -> None:
        self.outbox.clear()
        # A port that was reported dead must not be alive again for having been monitored in vain.
        self.ports.all_lost(("transport_error", self.node, why), shun=bool(self._incarnation), was_up=False)
        self.room.open()
        self._host.routes.unreachable(self, why)

    # --- the link coming and going ---

    def _use(self, link: Lane) -> None:
        """Send what waits over the first link that is up."""
        self.link = link
        self._ups += 1
        greeting = self.greeting
        self.reads_short_calls = greeting is not None and greeting.reads_short_calls
        self.reads_traces = greeting is not None and greeting.reads_traces
        self.redialling.succeeded()
        if link.incarnation == self._incarnation:
            self.ports.returned()
        else:
            self.ports.reincarnated()
            self._incarnation = link.incarnation
        self._host.link_up(self)
        self._send_queue(link)
        if self.link is link:
            self.ports.see_orphans_die()
        self.has_room(link)

    def _give_up(self, why: str) -> None:
        """End the link, or the attempt to make one."""
        if self.link is not None:
            self._lose(why)
        else:
            self._unreachable(why)

    def _lose(self, why: str, reason: Reason | None = None) -> None:
        """Close everything, as the link is lost, if there is one, and report that to all monitors."""
        if not self.is_up:
            return
        text = "link to %s lost: %s"
        if reason is None:
            self.complaints.warn(text, self.node, why)
        else:
            self._log(logging.INFO, text, self.node, why)
        self._see_through(self._lose_now, reason or ("transport_error", self.node, why), [])

    def _see_through(self, call: Callable[..., object], *args: Any) -> None:
        """Make a call about the end of the link, which must complete: on the hub if exceptions strike it here.

        At the recursion limit only the hub can. So it is asked first, and when that raises nothing was begun: the next
        such call replaces this one. A call that was begun is begun again until it completes, even if an attempt to
        make the next link fails meanwhile; but it must not end the next link.
        """
        ups, ends = self._ups, self._ends
        is_begun = is_done = False

        def make() -> None:
            nonlocal is_begun, is_done
            if not is_done and self._ups == ups and (is_begun or self._ends == ends):
                is_begun = True
                call(*args)
                is_done = True
                self._ends += 1

        self._host.scheduler.call_on_hub(make)
        see_through(make)

    def _lose_now(self, reason: Reason, news: list[Job]) -> None:
        self.link = None
        self._was_blocked = False
        self.outbox.clear()
        self._let_go()
        self.peer_monitors.remove_all()
        self.ports.all_lost(reason, shun=bool(self._incarnation), was_up=True)
        self._host.link_down(self, reason, news)
        self.room.open()

    def _let_go(self) -> None:
        """Close what carried the link."""

    def log_dropped(self, name: str, message: list[Any]) -> None:
        """Log that the peer sent a message to a port that does not exist here."""
        text = "%s from %s to port %s#%s dropped: there is no such port"
        self._log(logging.DEBUG, text, Brief(message), self.node, self._host.node_id, name)

    # --- requests ---

    def take_request(self, message: list[Any]) -> None:
        """Handle a request about the link or the ports across it, or hand it to the node. Neither switches nor raises.

        Args:
            message: The request, and its arguments. If it is about a connection, ``requested`` has handled it.
        """
        request = message[0] if message else ""
        if request.__class__ is str and request in ABOUT_LINKS:
            link_requests.handle(self, self._host, request, message[1:])
        else:
            self._host.node_requested(self, message)

    def pass_on(self, origin: object, destination: object, packet: object) -> None:
        """Take a wrapped packet that came over the link, or pass it on."""
        self._host.routes.via(self, origin, destination, packet)

    def said_goodbye(self) -> None:
        """Lose the link, as the peer shuts down in order."""
        self._lose("it shuts down", ("shutdown", self.node))

    # --- the end ---

    def depart(self) -> list[Link]:
        """Say goodbye to the peer, and send it nothing more; monitors of its ports here fire.

        Returns:
            Its links, which close by themselves when the peer has heard everything.
        """
        self._dialling = False
        why, reason = "this node shuts down", ("shutdown", self._host.node_id)
        if self.link is not None:
            self._lose(why, reason)
        else:
            self.outbox.clear()
            self.ports.all_lost(reason, shun=False, was_up=False)
            self.room.open()
        return []
