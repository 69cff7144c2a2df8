# SPDX-License-Identifier: MIT
"""Lodgers wait here, for one of gevent's objects, on behalf of a client that is elsewhere.

A handler must not block for the sake of one client: those behind it may be the ones who
would end the wait. So a client that has to wait gets a lodger, which waits
in its place among the others and sends on what it got.

What was sent may not be taken: the client gave up, or died, while it was under way. Its
port tells, by how it dies; then the lodger gives back what it had.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aemp_gevent.calls.serve import fail, server
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.toolkit.lifetimes import port_of


def _ignore(_thing: object, _reason: Reason) -> None:
    """Give nothing back."""


class Lodger:
    """Waits here for one client.

    Args:
        house: Where it lodges.
        reply: The port that gets the answer.
        give: Called with what it got, to send that to the client.
        client_died: Called with what it got, and the reason, when the client dies after that.
        client: The port whose death ends it; None: ``reply``.
    """

    def __init__(
        self,
        house: House,
        reply: str,
        give: Callable[[Any], object],
        client_died: Callable[[Any, Reason], object] = _ignore,
        *,
        client: str | None = None,
    ) -> None:
        self._house = house
        self._reply = reply
        self._give = give
        self._client_died = client_died
        self._stop: Callable[[], object] | None = None
        self._got: list[Any] = []
        self._is_over = False
        house.lodgers[self] = None
        self._guard = house.node.monitor(reply if client is None else client, self._end, None)

    def wait(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function that blocks, in a greenlet; what it returns is what the client gets."""
        greenlet = self._house.node.scheduler.start_greenlet(self._wait, function, *args)
        self.wait_elsewhere(partial(greenlet.kill, block=False))

    def _wait(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            thing = function(*args)
        except Exception as error:  # noqa: BLE001  # the client's answer
            failure = error
        else:
            self.got(thing)
            return
        self.failed(failure)
        del failure  # its traceback has this frame: a circle

    def wait_elsewhere(self, stop: Callable[[], object]) -> None:
        """Leave calling :meth:`got` or :meth:`failed` to others; ``stop`` is called if the client gives up before."""
        self._stop = stop
        self._house.waiting += 1

    def _waits_no_more(self) -> None:
        if self._stop is not None:
            self._stop = None
            self._house.waiting -= 1

    def got(self, thing: Any) -> None:
        """Send the client what it gets."""
        self._waits_no_more()
        self._got.append(thing)
        if self._is_over:  # it ended in the very moment in which there was something to get
            self._client_died(thing, ("gone",))
            return
        try:
            self._give(thing)
            return
        except Exception as error:  # noqa: BLE001  # it cannot travel: the client hears that, and it is gone
            failure = error
        self.failed(failure)
        del failure

    def failed(self, error: Exception) -> None:
        """Send the client an exception instead."""
        self._waits_no_more()
        self._got.clear()
        self.leave()
        fail(self._house.node, self._reply, error)

    def _end(self, *reason: Any) -> None:
        self.leave()
        if self._got:
            self._client_died(self._got[0], reason)

    def leave(self) -> None:
        """Stop waiting."""
        self._is_over = True
        self._guard.cancel()
        self._house.lodgers.pop(self, None)
        stop = self._stop
        self._waits_no_more()
        if stop is not None:
            stop()


class House:
    """The port of one of gevent's objects, and the lodgers that wait for it.

    The lodgers leave when the port dies; the port dies when nothing refers to the object any more. Nothing that a
    client sends ends the port.

    Args:
        thing: The object. One handler that refers to it weakly serves all tags, as there may be many such objects.
        node: This node.
        messages: The object's methods by the tags of messages, which are called with the rest of the message.
        calls: The same for calls: what these methods return, or raise, is the answer.
    """

    def __init__(self, thing: object, node: LocalNode, messages: Mapping[str, str], calls: Mapping[str, str]) -> None:
        self.node = node
        self.lodgers: dict[Lodger, None] = {}
        self.waiting = 0
        """How many of them have not got anything yet. Newcomers wait behind them, even if there is something now."""
        self._thing = weakref.ref(thing)
        self._messages = messages
        self._calls = calls
        self.port: str = port_of(thing, node, self._receive)
        self._complaints = BoundedLog(node.scheduler.log, f"port {self.port}")
        node.monitor(self.port, self._close, None)

    def _receive(self, *message: Any) -> None:
        thing = self._thing()
        if thing is None:  # the port is about to die
            return
        tag = message[0] if message and isinstance(message[0], str) else ""
        try:
            if tag in self._messages:
                getattr(thing, self._messages[tag])(*message[1:])
            elif tag in self._calls:
                server(self.node, tag, getattr(thing, self._calls[tag]), self._complaints)(*message[1:])
            else:
                self.node.scheduler.default(*message)
            return
        except Exception as error:  # noqa: BLE001  # too few elements, or a reply port that is none
            failure = error
        self._complaints.log(logging.DEBUG, "message %s to %s dropped", quoted(tag), self.port, exc_info=failure)
        del failure

    def close(self) -> None:
        """Close the port."""
        self.node.kil(self.port)

    def _close(self, *_reason: Any) -> None:
        for lodger in list(self.lodgers):
            lodger.leave()
