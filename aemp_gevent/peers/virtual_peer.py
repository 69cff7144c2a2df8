# SPDX-License-Identifier: MIT
"""Virtual links: to nodes that are reached over the link of another one.

A *slave* has one link, to its master; with all other nodes it
has virtual links. A packet on one is wrapped,
``["", "via", origin, destination, packet]``, and sent over the peer that carries it, its *relay*;
:mod:`aemp_gevent.peers.relaying` has the rules of passing on. Otherwise a virtual
link is a link: it encodes, monitors, shuns and kills orphans like a real one.

**Opening.** Only its two ends know what was lost and what was not, so they, and not
the masters between them, open it, with packets that are not for a port::

    ["", "via_up", origin, uniq, word, echo]

``uniq`` is the origin's incarnation, ``word`` one that it makes up for each attempt, and
``echo`` the last word that it got from the other, or ``""``. An end that gets a new word has
lost what it had before, and answers; an end that gets its own word echoed is up. Routes keep
the order, so whatever a former link left under way comes before the word of the new
one, and is dropped: after a loss was reported, nothing from before it arrives.

**Blocked slaves.** ``["", "via_state", origin, seconds]``, in the name of a slave: its master reports to those that
it has links to for how long the slave has been blocked, and 0 when it is not any more.

**Closing.** ``["", "via_down", origin, *reason]``, in the name of an end that is gone: sent
by its master, or by the master of the other end. Where the carrying link is lost,
it need not be sent. Nothing here switches but :meth:`Peer.pause`.
"""

from __future__ import annotations

import logging
from time import monotonic, time
from typing import Any

from aemp_gevent.addresses import ids
from aemp_gevent.links.node_state import GONE, UP, NodeState
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.peer_host import Outlet, PeerHost
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.quoting import worded
from aemp_gevent.wire.beats import MAX_SECONDS
from aemp_gevent.wire.framing_msgpack import make_resting_encoder
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.vocabulary import VIA, VIA_DOWN, VIA_STATE, VIA_UP

MAX_WORD = 100
"""Characters in each word of an opening: ours have ten."""

_WRAPPING_ELEMENTS = 5
"""The array around a packet, and what stands before the packet in it."""

MAX_RIDERS = 10_000
"""Virtual links over one link that others may open here: a few KiB each."""


def opening(node: str, uniq: str, word: str, echo: str) -> list[Any]:
    """Return the packet with which ``node`` opens a virtual link, or answers one that does."""
    return ["", VIA_UP, node, uniq, word, echo]


def is_opening(packet: list[Any], origin: str) -> bool:
    """Return whether a packet opens a virtual link in the name of this node."""
    return (
        len(packet) == 6
        and packet[:3] == ["", VIA_UP, origin]
        and all(isinstance(word, str) and len(word) <= MAX_WORD for word in packet[3:])
        and bool(packet[4])
    )


def closing(node: str, reason: Reason) -> list[Any]:
    """Return the packet which says that ``node`` is gone."""
    return ["", VIA_DOWN, node, *reason]


def state_report(node: str, seconds: float) -> list[Any]:
    """Return the packet which says for how long ``node`` has been blocked; 0.0: it is not any more."""
    return ["", VIA_STATE, node, seconds]


def is_state_report(packet: list[Any], origin: str) -> bool:
    """Return whether a packet says that this node is blocked, or is not any more."""
    return len(packet) == 4 and packet[:3] == ["", VIA_STATE, origin]


def is_closing(packet: list[Any], origin: str) -> bool:
    """Return whether a packet says that this node is gone."""
    return packet[:3] == ["", VIA_DOWN, origin]


class _Nothing:
    """What is behind a link that has gone."""

    buffered = 0
    peer_address = "?"


_NOTHING = _Nothing()


class VirtualLink:
    """What a :class:`VirtualPeer` sends on.

    Args:
        relay: Over whose link.
        origin: This node's ID.
        destination: The other end's.
        incarnation: Of the other end.
        limits: What a packet may have with everything around it.
    """

    send_framing = "msgpack"

    def __init__(self, relay: Peer, origin: str, destination: str, incarnation: str, limits: Limits) -> None:
        self.incarnation = incarnation
        self.up_since = monotonic()
        """When the link came up, on the monotonic clock."""
        self.sent_packets = 0
        self.received_packets = 0
        self._relay = relay
        self._origin, self._destination = origin, destination
        self._encode = make_resting_encoder()
        # An array of five, the last of which is the packet: it is encoded once, wherever it goes.
        self._wrapping = self._encode(["", VIA, origin, destination, None])[:-1]
        self._limits = limits.less(len(self._wrapping), _WRAPPING_ELEMENTS)
        self._unchecked = self._limits.unchecked_bytes

    @property
    def transport(self) -> Outlet:
        link = self._relay.link
        if link is not None:  # when it goes, so does this; but another native thread may be here meanwhile
            return link.transport
        return _NOTHING

    def send(self, packet: list[Any]) -> int:
        """Encode a packet now and queue it; return its size in bytes.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was sent.
        """
        data = self._encode(packet)
        if len(data) > self._unchecked:
            self._limits.check(packet, len(data))
        self.send_encoded(data)
        return len(data)

    def send_encoded(self, data: bytes) -> None:
        """Queue one packet that is msgpack already."""
        link = self._relay.link
        if link is not None:
            link.send_encoded(self._wrapping + data)
            self.sent_packets += 1

    def would_overtake(self, packet: list[Any], most: int) -> bool:
        """Return whether a packet would pass others, and at most so many bytes are before it."""
        link = self._relay.link
        return link is not None and link.would_overtake(["", VIA, self._origin, self._destination, packet], most)

    def overtakes(self, most: int) -> bool:
        """Return whether the packet that was sent last passed others, and at most so many bytes are before it."""
        link = self._relay.link
        return link is not None and link.overtakes(most)


class VirtualPeer(Peer):
    """A node with which this one has no connection, but which it reaches over another one.

    Args:
        node: Its ID.
        host: The node this is a peer of.
        hop: The ID of the node that carries the link: the peer's master, or ours.
    """

    is_virtual = True

    def __init__(self, node: str, host: PeerHost[Peer], hop: str) -> None:
        super().__init__(node, host)
        self._hop = hop
        self.review_rights()
        self._relay: Peer | None = None  # while there is a link, or may be one
        self._word = ""  # of ours, in the opening under way or the link that is up
        self._heard = ""  # the other's
        self._timer: int | None = None
        self._reported = UP  # by its master
        self._limits = self._limits.less(len(self._wrapped(None)), _WRAPPING_ELEMENTS)

    def review_rights(self) -> None:
        self.rights = self._rights_with(self._host, self._hop)

    def _wrapped(self, packet: list[Any] | None) -> bytes:
        return self.outbox.encode(["", VIA, self._host.node_id, self.node, packet])

    # --- sending ---

    def check_hard_limit(self) -> None:
        if self.link is not None and self._relay is not None:
            self._relay.check_hard_limit()  # what waits, waits there
        else:
            super().check_hard_limit()

    # --- whether it is blocked ---

    @property
    def state(self) -> NodeState:
        """What its master reports; and nothing comes from it while the node that carries the link is blocked."""
        relay = self._relay
        if self.link is None or relay is None:
            return GONE
        return self._reported if relay.state.since is None else relay.state

    def reported(self, seconds: object) -> None:
        """Take note that its master reports for how long it has been blocked; 0: it is not."""
        if not isinstance(seconds, (int, float)) or not 0 <= seconds <= MAX_SECONDS:
            return
        self._reported = NodeState("blocked", time() - seconds) if seconds else UP
        self.review_state()

    # --- opening ---

    @property
    def hop(self) -> str:
        """The ID of the node that carries the link."""
        return self._hop

    @property
    def is_riding(self) -> bool:
        """Whether there is a link, or one being made."""
        return self._relay is not None

    def _dial(self) -> None:
        relay = self._ride()
        if relay.is_up:
            self.relay_up()
        else:
            relay.connect()  # and we hear of it

    def _ride(self) -> Peer:
        """Watch the relay from now on, and wait a limited time for its link."""
        relay = self._relay
        if relay is None:
            relay = self._relay = self._host.peer(self._hop)
            relay.riders[self] = None
        self._dialling = self.link is None
        if self._dialling and self._timer is None:
            seconds = self._host.settings.monitor_timeout
            why = f"no answer within {seconds:g} s"
            self._timer = self._host.scheduler.start_timer(seconds, self.attempt_failed, why)
        return relay

    def relay_up(self) -> None:
        """Open the virtual link, as the link that may carry it is up."""
        if self._relay is None or not self._dialling or self._relay.is_resting:
            return  # if it is about to rest, it stays open or is made again for us, and this is called again
        if not self._relay.can_carry:
            self.attempt_failed(f"it is reached through {self._hop}, which does not support slave nodes")
        elif not self._word:
            self._word = ids.new_uniq()
            self._say_word()

    def _say_word(self) -> None:
        assert self._relay is not None  # the word is sent over it
        host = self._host
        packet = opening(host.node_id, host.incarnation, self._word, self._heard)
        self._relay.send(["", VIA, host.node_id, self.node, packet])

    def opened(self, uniq: str, word: str, echo: str) -> None:
        """Take a word of the other end, which opens the link, or answers."""
        if word != self._heard:
            self._lose("the other end lost the link")
            self._ride()
            self._heard = word
            self._word = self._word or ids.new_uniq()
            self._say_word()
        if echo == self._word and self.link is None and self._relay is not None:
            self._dialling = False
            self._stop_timer()
            limits = self._host.settings.limits
            self._use(VirtualLink(self._relay, self._host.node_id, self.node, uniq, limits))
            self.review_state()  # its master may have reported that it is blocked

    # --- the link going ---

    def closed(self, reason: Reason) -> None:
        """Take note that a node on the way reports that there is no link, or no longer one."""
        why = worded(reason[-1], 500) if reason else "it is gone"
        if self.link is None:
            if self._dialling:
                self.attempt_failed(why)
        elif reason[:1] == ("shutdown",):
            self._lose("it shuts down", ("shutdown", self.node))
        else:
            self._lose(why)

    def relay_lost(self, reason: Reason) -> None:
        """Take note that the link that carries this one is lost, or could not be made."""
        here = self._host.node_id
        if reason[:1] == ("idle",) and self.link is None:
            return  # nothing went over it, or it would not rest; what is to be sent has it made again
        if reason == ("shutdown", here):
            self._lose("this node shuts down", reason)
        elif reason[:1] == ("shutdown",):
            self.closed(("transport_error", self.node, f"{self._hop}, through which it is reached, shuts down"))
        else:
            self.closed(
                ("transport_error", self.node, f"{self._hop}, through which it is reached: {worded(reason[-1])}")
            )

    def attempt_failed(self, why: str) -> None:
        self._let_go()
        super().attempt_failed(why)

    def _unreachable(self, why: str) -> None:
        self._let_go()
        super()._unreachable(why)

    def _let_go(self) -> None:
        self._stop_timer()
        self._dialling = False
        self._word = self._heard = ""
        self._reported = UP
        if self._relay is not None:
            self._relay.riders.pop(self, None)
            self._relay = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._host.scheduler.end_timer(self._timer)
            self._timer = None

    def depart(self) -> list[Any]:
        if self.link is None:
            self._let_go()
        return super().depart()

    def abandon(self) -> None:
        """Stop what would run on by itself, in a forked child."""
        self._stop_timer()

    def deliverable(self) -> bool:
        """Return whether what comes belongs to the link; what a former one left under way does not."""
        if self.link is None:
            self._log(logging.DEBUG, "message dropped: the link to %s, which it belongs to, is lost", self.node)
            return False
        self.link.received_packets += 1
        return True
