# SPDX-License-Identifier: MIT
"""A node that publishes, as a node with subscribers sees it: the other side of a session.

:mod:`aemp_gevent.topics.destination` says what a session is.
"""

from __future__ import annotations

from typing import Any, Protocol

from aemp_gevent.errors import InvalidTopicError
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.callbacks import DONE
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.port import Port
from aemp_gevent.runtime.batches import in_batches, size_of
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.topics.destination import BATCH
from aemp_gevent.topics.interests import Interests, check_topic
from aemp_gevent.topics.session_port import Address, SessionPort


class OriginHost(Protocol):
    """The broker, as its origins see it."""

    node: Node
    name: str
    complaints: BoundedLog
    ports_by_topic: Interests[Port]

    def allows(self, node_id: str, right: str) -> bool:
        """Return whether the rules let another node publish or subscribe; count and log it if not."""
        ...

    def deliver(self, topic: str, msg: Message) -> bool:
        """Send a message to the subscribers of this node."""
        ...

    def report_missed(self, topics: list[str] | None) -> None:
        """Report to the subscribers of this node that they may have missed messages."""
        ...

    def left(self, origin: Origin) -> None:
        """Remove an origin whose session has ended."""
        ...


class Origin:
    """The session with a node that publishes.

    Args:
        host: This node's broker.
        node_id: The other node.
        outlet: Its end of this session.
    """

    def __init__(self, host: OriginHost, node_id: str, outlet: Address) -> None:
        self._host = host
        self.node_id = node_id
        self.outlet = outlet
        node = host.node
        handlers = {"publish": self._publish, "missed": self._missed, "seen": self._seen}
        self._inlet = inlet = SessionPort(node, handlers)
        watch = ports_host_of(node).monitor
        self._guards = [watch(port, self._ended, None) for port in (outlet.port, inlet.id)]
        # In the inlet's handler, so that a slow reader at the other end delays no other session.
        node.rcv(inlet.id, "begin", self._begin)
        node.snd(inlet.id, "begin")

    def close(self) -> None:
        """End the session."""
        for guard in self._guards:
            guard.cancel()
        self._host.node.kil(self._inlet.id)

    def _ended(self, *_reason: Any) -> None:
        self.close()
        self._host.left(self)

    # --- to the other node ---

    def _begin(self, *_more: Any) -> object:
        for batch in in_batches(((each, size_of(each)) for each in self._host.ports_by_topic), BATCH):
            # Without those that were cancelled while an earlier batch waited.
            still = [pattern for pattern in batch if pattern in self._host.ports_by_topic]
            self.outlet.send(self._host.node, "add", still)
        self.outlet.send(self._host.node, "ready", *self._inlet.address, self._host.name)
        return DONE  # only once, as this message needs no secret

    def announce(self, pattern: str) -> None:
        """Send whether this node is subscribed to a topic or pattern now."""
        # Asked again for each node, because the sender may have been paused since the change: the last word is true.
        is_wanted = pattern in self._host.ports_by_topic
        self.outlet.send(self._host.node, "add" if is_wanted else "remove", [pattern])

    def sync(self, seconds: float | None) -> bool:
        """Wait until the other node has what was sent before; return whether it has within these seconds."""
        return bool(self._host.node.syncal(seconds, self.outlet.port, "sync", self.outlet.secret))

    # --- from the other node ---

    def _publish(self, topic: object = None, *msg: Any) -> None:
        if not self._host.allows(self.node_id, "publish"):
            self._refuse("the rules have changed")
            return
        try:
            check_topic(topic)
        except InvalidTopicError as error:
            self._refuse(str(error))
            return
        self._host.deliver(str(topic), msg)

    def _missed(self, topics: object = None, *_more: Any) -> None:
        if not self._host.allows(self.node_id, "publish"):
            self._refuse("the rules have changed")
            return
        try:
            if topics is not None:
                if not isinstance(topics, list) or len(topics) > BATCH:
                    raise InvalidTopicError(topics, f"a list of up to {BATCH} topics is expected")
                for topic in topics:
                    check_topic(topic)
                topics = list(dict.fromkeys(topics))
        except InvalidTopicError as error:
            self._refuse(str(error))
            return
        self._host.report_missed(topics)

    def _seen(self, question: object = None, *_more: Any) -> None:
        self.outlet.send(self._host.node, "seen", question)

    def _refuse(self, why: str) -> None:
        self._host.complaints.warn("session with %s for topics ended: %s", self.node_id, why)
        self._ended()
