# SPDX-License-Identifier: MIT
"""Events that other nodes can wait for, and set."""

from __future__ import annotations

from gevent.event import Event

from aemp_gevent import default_node
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.toolkit.lodgers import House, Lodger
from aemp_gevent.toolkit.remotes import RemoteLinkable, is_poll

_MESSAGES = {"set": "_set_for", "wait": "_wait_for"}
_CALLS = {"clear": "clear", "is_set": "is_set"}


class PortEvent(Event):
    """A ``gevent.event.Event`` with a port: code on this node uses it as usual, others by a :class:`RemoteEvent`.

    ``snd(event.port, "set")`` sets it from anywhere, and does not wait. The port dies when
    nothing refers to the event any more: keep it.

    Args:
        node: Where its port lives.
    """

    def __init__(self, *, node: LocalNode = default_node) -> None:
        super().__init__()
        self.node = node
        self._house = House(self, node, _MESSAGES, _CALLS)
        self.port: str = self._house.port
        """Its port's ID, to be sent to others. ``str()`` of the event is the same."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port}: {'set' if self.is_set() else 'clear'}>"

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Close the port: others get ``PortDied``. The event itself goes on here."""
        self._house.close()

    def _set_for(self, reply: str | None = None) -> None:
        self.set()
        if reply is not None:
            self.node.snd(reply)

    def _wait_for(self, reply: str) -> None:
        if self.is_set():
            self.node.snd(reply, True)
        else:
            Lodger(self._house, reply, lambda _true: self.node.snd(reply, True)).wait(self.wait)


class RemoteEvent(RemoteLinkable):
    """An event of another node, to be used as if it were a ``gevent.event.Event`` of this one.

    Every method but ``rawlink`` waits for an answer, and raises ``PortDied`` when the event is gone, or its node.
    ``gevent.wait`` takes it with others; it counts as ready, too, when it is gone.

    Args:
        port: Of the :class:`PortEvent`.
        node: This node.
    """

    def set(self) -> None:
        """Set it, and wake all that wait for it."""
        self._call("set")

    def clear(self) -> None:
        """Make it unset again."""
        self._call("clear")

    def is_set(self) -> bool:
        """Return whether it is set."""
        is_set: bool = self._call("is_set")
        return is_set

    ready = isSet = is_set  # noqa: N815  # gevent's names

    def wait(self, timeout: Seconds | None = None) -> bool:
        """Wait until it is set; return whether that was within ``timeout`` seconds (None: forever, 0: is it set?)."""
        if is_poll(timeout, "wait()"):
            return self.is_set()
        return self._wait_until(timeout, "wait") is not None
