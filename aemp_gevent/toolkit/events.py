# SPDX-License-Identifier: MIT
"""Events that other nodes can set and wait for."""

from __future__ import annotations

from gevent.event import Event

from aemp_gevent import default_node
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.toolkit.proxy_waiters import ObjectPort, ProxyWaiter
from aemp_gevent.toolkit.remotes import RemoteLinkable, is_poll
from aemp_gevent.toolkit.times import checks_times

_MESSAGES = {"set": "_set_for", "wait": "_wait_for"}
_CALLS = {"clear": "clear", "is_set": "is_set"}


@checks_times
class PortEvent(Event):
    """A ``gevent.event.Event`` that other nodes use through a :class:`RemoteEvent`.

    ``snd(event.port, "set")`` sets it from any node, and does not wait. The port dies when
    nothing refers to the event any more, so keep a reference to it.

    Args:
        node: The node that its port belongs to.
    """

    def __init__(self, *, node: LocalNode = default_node) -> None:
        super().__init__()
        self.node = node
        self._object_port = ObjectPort(self, node, _MESSAGES, _CALLS)
        self.port: str = self._object_port.port
        """The port's ID, which you can send to other nodes. ``str(event)`` returns it, too."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port}: {'set' if self.is_set() else 'clear'}>"

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Close the port: other nodes get ``PortDied``. The event itself keeps working on this node."""
        self._object_port.close()

    def _set_for(self, reply: str | None = None) -> None:
        self.set()
        if reply is not None:
            self.node.snd(reply)

    def _wait_for(self, reply: str) -> None:
        if self.is_set():
            self.node.snd(reply, True)
        else:
            ProxyWaiter(self._object_port, reply, lambda _true: self.node.snd(reply, True)).wait(self.wait)


class RemoteEvent(RemoteLinkable):
    """An event on another node, with the methods of a ``gevent.event.Event``.

    Each method except ``rawlink`` waits for an answer, and raises ``PortDied`` if the event or its node is gone.
    ``gevent.wait`` accepts it together with other objects; it also counts as ready when it is gone.

    Args:
        port: The port of the :class:`PortEvent`.
        node: This node.
    """

    def set(self) -> None:
        """Set the event, and wake everything that waits for it."""
        self._call("set")

    def clear(self) -> None:
        """Clear the event."""
        self._call("clear")

    def is_set(self) -> bool:
        """Return whether the event is set."""
        is_set: bool = self._call("is_set")
        return is_set

    ready = isSet = is_set  # noqa: N815  # gevent's names

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until the event is set; return whether it was set within ``timeout`` seconds (None: wait forever)."""
        if is_poll(timeout, "wait()"):
            return self.is_set()
        return self._wait_until(timeout, "wait") is not None
