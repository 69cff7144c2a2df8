# SPDX-License-Identifier: MIT
"""A node whose ports are subscribed to topics, as a node that publishes sees it.

The two nodes have a *session*. The one that publishes makes a port for it, the *outlet*, which gets the other one's
topics and patterns, and sends the outlet's address with the call ``join``. The other one makes a port as well, the
*inlet*, which gets what is published. Both take only what comes from the other side of the session
(:mod:`~aemp_gevent.topics.session_port`). A session ends with the link, or when one of the ports dies.

When a session ends although the other node may live, the next one begins as soon as that can be reached. Before
anything is published in it, the topics are reported whose messages may have been lost in between.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from aemp_gevent.errors import AempError, InvalidTopicError, NodeShutDownError, PortDied
from aemp_gevent.node.access import is_shut_down, ports_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Message, tag_of
from aemp_gevent.ports.timers import Timer
from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.batches import in_batches, size_of
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.topics.at_risk import AtRisk
from aemp_gevent.topics.interests import Interests, check_pattern
from aemp_gevent.topics.session_port import Address, SessionPort, address_of

MAX_PATTERNS = 100_000
"""Topics and patterns that one node may be subscribed to; every node that publishes keeps them."""

BATCH = 1000
"""Topics in one message, which is limited in bytes, too."""

_JOIN_SECONDS = 30.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 30.0
_CONFIRM_SECONDS = 10.0
"""How often another node is asked whether what was published has arrived."""


class DestinationHost(Protocol):
    """The broker, as its destinations see it."""

    node: Node
    complaints: BoundedLog
    destinations_by_topic: Interests[Destination]

    def allows(self, node_id: str, right: str) -> bool:
        """Return whether the rules let another node publish or subscribe; count and log it if not."""
        ...

    def changed(self) -> None:
        """Wake what waits for destinations and origins."""
        ...

    def former_of(self, destination: Destination) -> Destination | None:
        """Forget other destinations of the same node; return the one that is the same broker, with another port."""
        ...

    def lost(self, destination: Destination) -> None:
        """Remember a destination that is neither reached nor in the directory any more: it may come back."""
        ...

    def forget(self, destination: Destination) -> None:
        """Remove a destination."""
        ...


class Destination:
    """Another node's broker, and the session with it.

    Args:
        host: This node's broker.
        broker: The port of the other node's broker.
    """

    def __init__(self, host: DestinationHost, broker: str) -> None:
        self._host = host
        self.broker = broker
        """The other broker's port."""
        self.name = ""
        """The other broker's name, by which it is known again; "" before the first session."""
        self.node_id = host.node.node_of(broker)
        self.is_listed = True
        """Whether the directory has the other broker, so that it probably lives."""
        self.is_settled = False
        """Whether a session began, or failed to begin, since this node learned of the broker."""
        self._session = 0
        """The number of the session, by which handlers know that it has ended meanwhile."""
        self._outlet: SessionPort | None = None
        self._inlet: Address | None = None
        self._patterns: dict[str, None] = {}
        self._coming: dict[str, None] = {}
        """The other node's patterns, while a session begins."""
        self._at_risk = AtRisk()
        self._question = 0
        self._is_asking = False
        """Whether the last question about what has arrived was not answered yet."""
        self._guards: list[Monitor] = []
        self._timer: Timer | None = None
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)

    def __repr__(self) -> str:
        return f"<Destination {self.broker} {'up' if self._inlet else 'down'}>"

    @property
    def is_away(self) -> bool:
        """Whether there is no session, and none begins."""
        return self._outlet is None

    # --- sessions ---

    def join(self) -> None:
        """Begin a session, unless there is one."""
        if self._outlet is not None or is_shut_down(self._host.node):
            return
        self._stop_timer()
        if not self._host.allows(self.node_id, "subscribe"):
            self._settle()
            self._join_after(_LONGEST_PAUSE)
            return
        node, session = self._host.node, self._session
        self._coming = {}
        self._outlet = outlet = SessionPort(
            node,
            {
                "add": partial(self._add, session),
                "remove": partial(self._remove, session),
                "ready": partial(self._ready, session),
                "seen": partial(self._seen, session),
                "sync": self._sync,
            },
        )
        watch = ports_host_of(node).monitor
        self._guards = [
            watch(outlet.id, partial(self._ended, session), None),
            watch(self.broker, partial(self._broker_ended, session), None),
        ]
        node.scheduler.start_greenlet(self._ask, session, outlet.address)

    def _ask(self, session: int, outlet: Address) -> None:
        try:
            self._host.node.call(self.broker, "join", *outlet, timeout=_JOIN_SECONDS)
        except PortDied as error:
            self._broker_ended(session, *error.reason)
        except AempError as error:
            if not isinstance(error, NodeShutDownError):
                self._host.complaints.warn("%s does not take what is published here: %s", self.broker, error)
                self._ended(session, "transport_error", self.node_id, str(error), pause=_LONGEST_PAUSE)

    def _ready(
        self, session: int, port: object = None, secret: object = None, name: object = None, *_more: Any
    ) -> None:
        """Use the session: the other node has sent all its patterns."""
        if session != self._session or self._inlet is not None:
            return
        host = ports_host_of(self._host.node)
        inlet = address_of(host, self.node_id, port, secret)
        if inlet is None or not isinstance(name, str) or not name:
            self._refuse(session, "it has sent a port that it does not have")
            return
        self.name = name
        former = self._host.former_of(self)
        if former is not None:
            self._at_risk.adopt(former._at_risk)
        self._take_patterns()
        self._guards.append(host.monitor(inlet.port, partial(self._ended, session), None))
        self._report(session, inlet)
        if session == self._session:
            self._inlet = inlet
            self._settle()
            if self._at_risk:
                self._confirm()

    def _take_patterns(self) -> None:
        by_topic = self._host.destinations_by_topic
        former, self._patterns, self._coming = self._patterns, self._coming, {}
        for pattern in self._patterns:
            if pattern not in former:
                by_topic.add(pattern, self)
        for pattern in former:
            if pattern not in self._patterns:
                by_topic.discard(pattern, self)

    def _report(self, session: int, inlet: Address) -> None:
        """Report the topics that may be missed, and those that are published to meanwhile; each once."""
        # Nothing is published in this session yet, so one report is enough for a topic. What is published while this
        # greenlet is paused is lost, and adds its topic, or is covered by the report that was sent.
        while session == self._session:
            topics = self._at_risk.ask()
            if topics is None:
                inlet.send(self._host.node, "missed", None)
                continue
            if not topics:
                return
            for batch in in_batches(((topic, size_of(topic)) for topic in list(topics)), BATCH):
                if session == self._session:
                    inlet.send(self._host.node, "missed", batch)

    def _ended(self, session: int, *reason: Any, pause: float | None = None) -> None:
        """End a session, and begin the next one after a pause."""
        if self._is_shutdown(reason):
            self._broker_ended(session, *reason)
        elif session == self._session:
            self._close()
            self._at_risk.lost()
            self._settle()
            self._join_after(self._backoff.next() if pause is None else pause)

    def _broker_ended(self, session: int, *reason: Any) -> None:
        """End a session because the other broker is dead, or cannot be reached."""
        if session != self._session:
            return
        is_dead = tag_of(reason) != "transport_error"
        if is_dead and (not self.name or self._is_shutdown(reason)):
            self._host.forget(self)
            return
        if is_dead:
            self.is_listed = False  # its port was killed, and its node may have another one soon
        self._ended(session, *reason)

    def _is_shutdown(self, reason: tuple[Any, ...]) -> bool:
        """Return whether the other node has ended in order, or this one: peers that kill a port may give any reason."""
        node = self._host.node
        return tag_of(reason) == "shutdown" and (is_shut_down(node) or not node.node_is_up(self.node_id))

    def _refuse(self, session: int, why: str) -> None:
        self._host.complaints.warn("session with %s for topics ended: %s", self.broker, why)
        self._ended(session, "transport_error", self.node_id, why, pause=_LONGEST_PAUSE)

    def _close(self) -> None:
        self._stop_timer()
        self._session += 1
        outlet, self._outlet, self._inlet = self._outlet, None, None
        self._is_asking = False
        guards, self._guards = self._guards, []
        for guard in guards:
            guard.cancel()
        if outlet is not None:
            self._host.node.kil(outlet.id)

    def close(self) -> None:
        """End the session, and begin no other one."""
        self._close()
        for pattern in self._patterns:
            self._host.destinations_by_topic.discard(pattern, self)
        self._patterns = {}

    def _settle(self) -> None:
        self.is_settled = True
        self._host.changed()

    # --- timers ---

    def _join_after(self, seconds: float) -> None:
        if not self.is_listed:
            self._host.lost(self)
        elif not is_shut_down(self._host.node):
            self._timer = self._host.node.after(seconds, self.join)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def unlist(self) -> None:
        """Note that the directory does not have the other broker any more: it is probably dead."""
        self.is_listed = False
        if self.is_away:
            self._stop_timer()
            self._host.lost(self)

    # --- what the other node is subscribed to ---

    def _add(self, session: int, patterns: object = None, *_more: Any) -> None:
        if session != self._session or not self._are_patterns(session, patterns):
            return
        known = self._coming if self._inlet is None else self._patterns
        for pattern in patterns:  # type: ignore[attr-defined]
            if pattern not in known:
                if len(known) >= MAX_PATTERNS:
                    self._refuse(session, f"it is subscribed to more than {MAX_PATTERNS} topics")
                    return
                known[pattern] = None
                if known is self._patterns:
                    self._host.destinations_by_topic.add(pattern, self)

    def _remove(self, session: int, patterns: object = None, *_more: Any) -> None:
        if session != self._session or not self._are_patterns(session, patterns):
            return
        known = self._coming if self._inlet is None else self._patterns
        for pattern in patterns:  # type: ignore[attr-defined]
            if pattern in known:
                del known[pattern]
                if known is self._patterns:
                    self._host.destinations_by_topic.discard(pattern, self)

    def _are_patterns(self, session: int, patterns: object) -> bool:
        try:
            if not isinstance(patterns, list):
                raise InvalidTopicError(patterns, "a list of topics is expected")
            for pattern in patterns:
                check_pattern(pattern)
        except InvalidTopicError as error:
            self._refuse(session, str(error))
            return False
        return True

    # --- publishing ---

    def send(self, topic: str, msg: Message) -> bool:
        """Send a message to the other node's subscribers; return False if it cannot be reached now."""
        self._at_risk.add(topic)  # first, because the session may end while the sender is paused
        inlet, session = self._inlet, self._session
        if inlet is None:
            return False
        if not self._host.allows(self.node_id, "subscribe"):
            self._ended(session, "transport_error", self.node_id, "the rules have changed", pause=_LONGEST_PAUSE)
            return False
        inlet.send(self._host.node, "publish", topic, *msg)
        self._confirm_soon()
        return True

    def _confirm_soon(self) -> None:
        if self._timer is None and self._inlet is not None and not self._is_asking:
            self._timer = self._host.node.after(_CONFIRM_SECONDS, self._confirm)

    def _confirm(self) -> None:
        """Ask the other node whether everything so far has arrived."""
        self._timer = None
        if self._inlet is not None and not self._is_asking:
            self._at_risk.ask()
            self._is_asking = True
            self._question += 1
            self._inlet.send(self._host.node, "seen", self._question)

    def _sync(self, reply: object = None, *_more: Any) -> None:
        self._host.node.snd(reply, True)

    def _seen(self, session: int, question: object = None, *_more: Any) -> None:
        if session == self._session and self._is_asking and question == self._question:
            self._is_asking = False
            self._backoff.reset()
            self._at_risk.confirmed()
            if self._at_risk:
                self._confirm_soon()
