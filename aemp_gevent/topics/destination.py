# SPDX-License-Identifier: MIT
"""A node whose ports are subscribed to topics, as a node that publishes sees it.

The two nodes have a *session*. The one that publishes makes a port for it, the *outlet*, which gets the other one's
topics and patterns, and sends the outlet's ID with the call ``join``. The other one makes a port as well, the *inlet*,
which gets what is published. Nobody else knows the IDs of these ports, so that what they get comes from the
other side of the session. A session ends with the link, or when one of the ports dies.

When a session ends although the other node may live, the next one begins as soon as that can be reached. Its
first message names the topics whose messages may have been lost in between.
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any, Protocol

from aemp_gevent.calls.serve import is_port
from aemp_gevent.errors import AempError, InvalidTopicError, NodeShutDownError, PortDied
from aemp_gevent.node.access import is_shut_down, ports_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.timers import Timer
from aemp_gevent.runtime.backoff import Backoff
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.topics.at_risk import AtRisk
from aemp_gevent.topics.interests import Interests, check_pattern

MAX_PATTERNS = 100_000
"""Topics and patterns that one node may be subscribed to; every node that publishes keeps them."""

MAX_WAITING = 100_000
"""Messages that may wait at one end of a session, while the processor is busy; one more ends it."""

BATCH = 1000
"""Topics in one message."""

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
        self._broker = broker
        self.node_id = host.node.node_of(broker)
        self.is_listed = True
        """Whether the directory has the other broker, so that it probably lives."""
        self.is_settled = False
        """Whether a session began, or failed to begin, since this node learned of the broker."""
        self._outlet: str | None = None
        self._inlet: str | None = None
        self._patterns: dict[str, None] = {}
        self._coming: dict[str, None] = {}
        """The other node's patterns, while a session begins."""
        self._at_risk = AtRisk()
        self._guards: list[Monitor] = []
        self._timer: Timer | None = None
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)

    def __repr__(self) -> str:
        return f"<Destination {self._broker} {'up' if self._inlet else 'down'}>"

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
        node = self._host.node
        self._outlet = outlet = node.port(limit=MAX_WAITING)
        self._coming = {}
        node.rcv(
            outlet,
            *("add", partial(self._add, outlet)),
            *("remove", partial(self._remove, outlet)),
            *("ready", partial(self._ready, outlet)),
            *("seen", partial(self._seen, outlet)),
            *("sync", self._sync),
        )
        watch = ports_host_of(node).monitor
        self._guards = [
            watch(outlet, partial(self._ended, outlet), None),
            watch(self._broker, partial(self._broker_ended, outlet), None),
        ]
        node.scheduler.start_greenlet(self._ask, outlet)

    def _ask(self, outlet: str) -> None:
        try:
            self._host.node.call(self._broker, "join", outlet, timeout=_JOIN_SECONDS)
        except PortDied as error:
            self._broker_ended(outlet, *error.reason)
        except AempError as error:
            if not isinstance(error, NodeShutDownError):
                self._host.complaints.warn("%s does not take what is published here: %s", self._broker, error)
                self._ended(outlet, "transport_error", self.node_id, str(error), pause=_LONGEST_PAUSE)

    def _ready(self, outlet: str, inlet: object = None, *_more: Any) -> None:
        """Use the session: the other node has sent all its patterns."""
        if outlet != self._outlet or self._inlet is not None:
            return
        host = ports_host_of(self._host.node)
        if not isinstance(inlet, str) or not is_port(host, inlet) or host.split_port(inlet)[0] != self.node_id:
            self._refuse(outlet, "it has sent a port that it does not have")
            return
        by_topic = self._host.destinations_by_topic
        former, self._patterns, self._coming = self._patterns, self._coming, {}
        for pattern in self._patterns:
            if pattern not in former:
                by_topic.add(pattern, self)
        for pattern in former:
            if pattern not in self._patterns:
                by_topic.discard(pattern, self)
        self._inlet = inlet
        self._guards.append(host.monitor(inlet, partial(self._ended, outlet), None))
        self._settle()
        if self._at_risk:
            self._report(inlet)

    def _report(self, inlet: str) -> None:
        topics = self._at_risk.topics
        if topics is None:
            self._host.node.snd(inlet, "missed", None)
        else:
            left = iter(list(topics))
            while batch := list(islice(left, BATCH)):
                self._host.node.snd(inlet, "missed", batch)
        self._confirm_soon()

    def _ended(self, outlet: str, *reason: Any, pause: float | None = None) -> None:
        """End a session, and begin the next one after a pause."""
        if reason[:1] == ("shutdown",):  # of the other node, or of this one
            self._broker_ended(outlet)
            return
        if outlet != self._outlet:
            return
        self._close()
        self._at_risk.lost()
        self._settle()
        self._join_after(self._backoff.next() if pause is None else pause)

    def _broker_ended(self, outlet: str, *reason: Any) -> None:
        """End a session because the other broker is dead, or cannot be reached."""
        if reason[:1] == ("transport_error",):
            self._ended(outlet, *reason)
        elif outlet == self._outlet:
            self._host.forget(self)

    def _refuse(self, outlet: str, why: str) -> None:
        self._host.complaints.warn("session with %s for topics ended: %s", self._broker, why)
        self._ended(outlet, "transport_error", self.node_id, why, pause=_LONGEST_PAUSE)

    def _close(self) -> None:
        self._stop_timer()
        outlet, self._outlet, self._inlet = self._outlet, None, None
        guards, self._guards = self._guards, []
        for guard in guards:
            guard.cancel()
        if outlet is not None:
            self._host.node.kil(outlet)

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
        if self.is_listed and not is_shut_down(self._host.node):
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

    # --- what the other node is subscribed to ---

    def _add(self, outlet: str, patterns: object = None, *_more: Any) -> None:
        if outlet != self._outlet or not self._are_patterns(outlet, patterns):
            return
        known = self._coming if self._inlet is None else self._patterns
        for pattern in patterns:  # type: ignore[attr-defined]
            if pattern not in known:
                if len(known) >= MAX_PATTERNS:
                    self._refuse(outlet, f"it is subscribed to more than {MAX_PATTERNS} topics")
                    return
                known[pattern] = None
                if known is self._patterns:
                    self._host.destinations_by_topic.add(pattern, self)

    def _remove(self, outlet: str, patterns: object = None, *_more: Any) -> None:
        if outlet != self._outlet or not self._are_patterns(outlet, patterns):
            return
        known = self._coming if self._inlet is None else self._patterns
        for pattern in patterns:  # type: ignore[attr-defined]
            if pattern in known:
                del known[pattern]
                if known is self._patterns:
                    self._host.destinations_by_topic.discard(pattern, self)

    def _are_patterns(self, outlet: str, patterns: object) -> bool:
        try:
            if not isinstance(patterns, list):
                raise InvalidTopicError(patterns, "a list of topics is expected")
            for pattern in patterns:
                check_pattern(pattern)
        except InvalidTopicError as error:
            self._refuse(outlet, str(error))
            return False
        return True

    # --- publishing ---

    def send(self, topic: str, msg: Message) -> bool:
        """Send a message to the other node's subscribers; return False if it cannot be reached now."""
        self._at_risk.add(topic)  # first, because the session may end while the sender is paused
        inlet, outlet = self._inlet, self._outlet
        if inlet is None or outlet is None:
            return False
        if not self._host.allows(self.node_id, "subscribe"):
            self._ended(outlet, "transport_error", self.node_id, "the rules have changed", pause=_LONGEST_PAUSE)
            return False
        self._host.node.snd(inlet, "publish", topic, *msg)
        self._confirm_soon()
        return True

    def _confirm_soon(self) -> None:
        if self._timer is None and self._inlet is not None:
            self._timer = self._host.node.after(_CONFIRM_SECONDS, self._confirm)

    def _confirm(self) -> None:
        if self._inlet is not None:  # the timer stays until the answer comes, so that no other one begins
            self._at_risk.ask()
            self._host.node.snd(self._inlet, "seen")

    def _sync(self, reply: object = None, *_more: Any) -> None:
        self._host.node.snd(reply, True)

    def _seen(self, outlet: str, *_more: Any) -> None:
        if outlet == self._outlet:
            self._timer = None
            self._backoff.reset()
            self._at_risk.confirmed()
            if self._at_risk:
                self._confirm_soon()
