# SPDX-License-Identifier: MIT
"""Lodgers: who wait here, for something of gevent's, on behalf of somebody who is elsewhere.

A handler must not block for the sake of one client: those behind it may be the ones who
would end the wait. So a client that has to wait gets a greenlet, its lodger, that waits
in its place among the others, and sends on what it got.

What was sent may not be taken: the client gave up, or died, while it was under way. Its
port tells, by how it dies; then the lodger gives back what it had.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent import Greenlet

from aemp_gevent.local import LocalNode
from aemp_gevent.port import Reason


class Lodger:
    """Somebody who waits here for a client.

    Args:
        house: Where it lodges.
        client: The port whose death ends it.
        give: Called with what it got, to send that to the client.
        client_died: Called with what it got, and the reason, when the client dies after that.
    """

    def __init__(
        self, house: House, client: str, give: Callable[[Any], object], client_died: Callable[[Any, Reason], object]
    ) -> None:
        self._house = house
        self._give = give
        self._client_died = client_died
        self._greenlet: Greenlet[..., Any] | None = None
        self._got: list[Any] = []
        self._is_over = False
        house.lodgers[self] = None
        self._guard = house.node.monitor(client, self._end, None)

    def wait(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function that blocks, in a greenlet; what it returns is what the client gets."""
        self._greenlet = self._house.node.scheduler.start_greenlet(lambda: self.got(function(*args)))

    def got(self, thing: Any) -> None:
        """Send the client what it gets."""
        self._greenlet = None
        self._got.append(thing)
        if self._is_over:  # it ended in the very moment in which there was something to get
            self._client_died(thing, ("gone",))
        else:
            self._give(thing)

    def _end(self, *reason: Any) -> None:
        self.leave()
        if self._got:
            self._client_died(self._got[0], reason)

    def leave(self) -> None:
        """Wait no longer."""
        self._is_over = True
        self._guard.cancel()
        self._house.lodgers.pop(self, None)
        if self._greenlet is not None:
            self._greenlet.kill(block=False)


class House:
    """The lodgers of one port, who leave when it dies.

    Args:
        node: This node.
        port: The port.
    """

    def __init__(self, node: LocalNode, port: str) -> None:
        self.node = node
        self.lodgers: dict[Lodger, None] = {}
        node.monitor(port, self._close, None)

    def _close(self, *_reason: Any) -> None:
        for lodger in list(self.lodgers):
            lodger.leave()
