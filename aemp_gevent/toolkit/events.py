# SPDX-License-Identifier: MIT
"""Events that other nodes can wait for, and set."""

from __future__ import annotations

from gevent.event import Event

from aemp_gevent import CallTimeout, default_node
from aemp_gevent.local import LocalNode
from aemp_gevent.toolkit.lodgers import House, Lodger
from aemp_gevent.toolkit.remotes import QUICK_SECONDS, Remote


class PortEvent(Event):
    """A ``gevent.event.Event`` with a port: code on this node uses it as ever, others by a :class:`RemoteEvent`.

    ``snd(event.port, "set")`` sets it from anywhere, and does not wait.

    Args:
        node: Where its port lives.
    """

    def __init__(self, *, node: LocalNode = default_node) -> None:
        super().__init__()
        self.node = node
        self.port: str = node.port()
        """Its port's ID, to be sent to others. ``str()`` of the event is the same."""
        self._house = House(node, self.port)
        node.rcv(self.port, "set", self._set_for, "wait", self._wait_for)
        node.serve(self.port, clear=self.clear, is_set=self.is_set)

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Let the port die: others get ``PortDied``. The event itself goes on here."""
        self.node.kil(self.port)

    def _set_for(self, reply: str | None = None) -> None:
        self.set()
        if reply is not None:
            self.node.snd(reply)

    def _wait_for(self, reply: str) -> None:
        if self.is_set():
            self.node.snd(reply)
        else:
            lodger = Lodger(self._house, reply, lambda _true: self.node.snd(reply), lambda _true, _reason: None)
            lodger.wait(self.wait)


class RemoteEvent(Remote):
    """An event of another node, to be used as if it were a ``gevent.event.Event`` of this one.

    Every method waits for an answer, and raises ``PortDied`` when the event is gone, or its node.

    Args:
        port: Of the :class:`PortEvent`.
        node: This node.
    """

    def set(self) -> None:
        """Set it; whoever waits goes on."""
        self.node.call(self.port, "set", timeout=QUICK_SECONDS)

    def clear(self) -> None:
        """Make it unset again."""
        self.node.call(self.port, "clear", timeout=QUICK_SECONDS)

    def is_set(self) -> bool:
        """Return whether it is set."""
        is_set: bool = self.node.call(self.port, "is_set", timeout=QUICK_SECONDS)
        return is_set

    ready = is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; return whether that was within ``timeout`` seconds. None: for ever."""
        try:
            self.node.call(self.port, "wait", timeout=timeout)
        except CallTimeout:
            return False
        return True
