# SPDX-License-Identifier: MIT
"""Subscribing ports to topics, and publishing to them."""

from __future__ import annotations

from types import EllipsisType
from typing import Any

from aemp_gevent import SELF, Node, default_node
from aemp_gevent.errors import DirectoryUnavailableError
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.ports.context import port_or_self
from aemp_gevent.ports.port import Port
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.settings.fields import Settings
from aemp_gevent.topics.broker import Broker, broker_of
from aemp_gevent.topics.interests import check_pattern, check_topic


class Subscription:
    """A subscription of a port, as returned by :func:`subscribe`: its guard.

    ``cancel()`` ends it; it is also a context manager. Dropping it does nothing.
    """

    def __init__(self, broker: Broker, pattern: str, port: Port) -> None:
        self.pattern = pattern
        """The topic or pattern."""
        self._broker = broker
        self._port = port
        self._is_over = False
        self._death = ports_host_of(broker.node).monitor(port.id, self._end, None)
        try:
            broker.add(pattern, port)
        except BaseException:
            self.cancel()
            raise

    def __repr__(self) -> str:
        return f"<Subscription of {self.port} to {self.pattern}>"

    @property
    def port(self) -> str:
        """The port's ID."""
        return self._port.id

    def wait_until_known(self, timeout: Seconds | None = 5.0) -> bool:
        """Wait until all other nodes that use topics know of this subscription. Switches.

        From then on nothing that they publish to it is lost unnoticed. You need not call this otherwise: other nodes
        learn of subscriptions as soon as possible.

        Args:
            timeout: Seconds to wait; None waits forever.

        Returns:
            Whether all of them know it.
        """
        seconds = to_seconds(timeout, "wait_until_known()")
        try:
            return self._broker.wait_until_known(seconds)
        except DirectoryUnavailableError:
            return False

    def cancel(self) -> None:
        """End the subscription. May be called any number of times.

        Messages that are in the port's mailbox already are handled.
        """
        self._broker.node.scheduler.check_thread("cancel() of a subscription")
        self._death.cancel()
        self._end()

    def _end(self, *_reason: Any) -> None:
        if not self._is_over:
            self._is_over = True
            self._broker.discard(self.pattern, self._port)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._broker.node.scheduler.leave(self.cancel)


def subscribe(pattern: str, port: object = SELF, *, node: Node = default_node) -> Subscription:
    """Subscribe a port of this node to a topic, or to all topics that match a pattern, until it dies.

    The port gets ``(topic, *msg)`` for each message that any node publishes to such a topic, once, even if several of
    its subscriptions match. The messages of one publisher to one topic arrive in order. It gets ``("missed", topic)``
    when messages of another node to that topic may have been lost, because that node could not be reached for a while:
    once, before the next message from there. If very many topics are concerned, it gets its own pattern instead.

    Args:
        pattern: Words with dots between them, such as ``room.42``. A ``*`` stands for any one word, and a
            ``**`` at the end for any number of words. At most 8 words and 200 characters, without spaces.
        port: A port of this node. ``SELF`` (the function), the default, is the port in whose context this code runs.
        node: This node.

    Returns:
        A guard: the subscription ends with ``.cancel()``, and when the guard is left as a context manager. Dropping it
        does nothing.

    Raises:
        InvalidTopicError: It is not a topic or pattern.
        TooManyTopicsError: This node is subscribed to 100,000 topics and patterns already.
        NoPortContextError: ``port`` is ``SELF``, and this code runs in no port's context.
        NotLocalError, DeadPortError, InvalidPortError: It is not a living port of this node.
    """
    check_pattern(pattern)
    wanted = ports_host_of(node).local("subscribe()", port_or_self(port, "subscribe()"))
    return Subscription(broker_of(node), pattern, wanted)


def publish(
    topic: str,
    *msg: Any,
    local: bool = False,
    exclude: object = None,
    timeout: Seconds | EllipsisType | None = ...,
    node: Node = default_node,
) -> int:
    """Send ``(topic, *msg)`` to all ports, of any node, that are subscribed to a topic; return the number of nodes.

    Each node with subscribers gets one packet, however many they are. A node that cannot be reached gets
    ``("missed", topic)`` when it can be reached again. The first call of a networked node waits until the other nodes
    that use topics are known; later calls switch only where :meth:`snd` does.

    Args:
        topic: As in :func:`subscribe`, without ``*``.
        msg: The message. Other nodes get a copy, and ports of this node the objects themselves, as with ``snd``.
        local: Whether to send only to ports of this node.
        exclude: A port of this node that does not get the message, such as ``SELF`` (the function): the port in
            whose context this code runs.
        timeout: Seconds to wait for the other nodes in the first call; None waits forever. Not given: the default
            of the setting ``monitor_timeout``, 30.
        node: This node.

    Returns:
        The number of nodes with subscribers that the message was sent to, this one among them.

    Raises:
        InvalidTopicError: It is not a topic.
        UnencodableMessageError, MessageTooLargeError: The message cannot be sent to other nodes, and one of them has
            subscribers; nobody has got it.
        DirectoryUnavailableError: In the first call, the directory did not answer in time.
        NotLocalError, DeadPortError, InvalidPortError: ``exclude`` is not a living port of this node.
        NoPortContextError: In the first call, on the hub, which must never wait; or ``exclude`` is ``SELF``, and this
            code runs in no port's context.
    """
    check_topic(topic)
    node.scheduler.check_thread("publish()")
    seconds = Settings.monitor_timeout if isinstance(timeout, EllipsisType) else to_seconds(timeout, "publish()")
    excluded = port_or_self(exclude, "publish(), exclude")
    return broker_of(node).publish(topic, msg, local=local, exclude=excluded, seconds=seconds)
