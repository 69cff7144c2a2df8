# SPDX-License-Identifier: MIT
"""Waiting for a local gevent object on behalf of a remote client.

A handler must not block for one client, because the message that would end the wait may be behind it in the mailbox.
So a client that has to wait gets a proxy waiter, which waits for the object like any local greenlet and sends what
it got to the client.

The client may give up or die while an answer is on its way. The reason of its port's death shows this, and the
waiter then gives back what it had.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from types import EllipsisType
from typing import Any

from aemp_gevent.calls.serve import fail, is_port, server
from aemp_gevent.errors import InvalidPortError
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.patterns import tag_of
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.toolkit.lifetimes import port_of


def _ignore(_thing: object, _reason: Reason) -> None:
    """Keep what was given to the client."""


class ProxyWaiter:
    """Wait for an object on behalf of one client.

    Args:
        object_port: The object's port, which the waiter belongs to.
        reply: The port that gets the answer.
        give: Called with what the waiter got, to send it to the client.
        client_died: Called with what the waiter got and the reason, if the client dies afterwards.
        client: The port whose death ends the wait. Not given: ``reply``.

    Raises:
        InvalidPortError: One of the two is not a port. Nothing was taken for it yet.
    """

    def __init__(
        self,
        object_port: ObjectPort,
        reply: str,
        give: Callable[[Any], object],
        client_died: Callable[[Any, Reason], object] = _ignore,
        *,
        client: str | EllipsisType = ...,
    ) -> None:
        client = reply if isinstance(client, EllipsisType) else client
        host = ports_host_of(object_port.node)
        for port in (reply, client):
            if not is_port(host, port):
                raise InvalidPortError(port)
        self._object_port = object_port
        self._reply = reply
        self._give = give
        self._client_died = client_died
        self._stop: Callable[[], object] | None = None
        self._got: list[Any] = []
        self._is_over = False
        object_port.waiters[self] = None
        self._guard = host.monitor(client, self._end, None)

    def wait(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a blocking function in a greenlet, and send the client what it returns."""
        greenlet = self._object_port.node.scheduler.start_greenlet(self._wait, function, *args)
        self.wait_elsewhere(partial(greenlet.kill, block=False))

    def _wait(self, function: Callable[..., Any], *args: Any) -> None:
        try:
            thing = function(*args)
        except Exception as error:  # noqa: BLE001  # goes to the client
            failure = error
        else:
            self.got(thing)
            return
        self.failed(failure)
        del failure  # its traceback refers to this frame, which would be a cycle

    def wait_elsewhere(self, stop: Callable[[], object]) -> None:
        """Leave :meth:`got` or :meth:`failed` to other code; ``stop`` is called if the client gives up first."""
        self._stop = stop
        self._object_port.waiting += 1

    def _waits_no_more(self) -> None:
        if self._stop is not None:
            self._stop = None
            self._object_port.waiting -= 1

    def got(self, thing: Any) -> None:
        """Send the client what was waited for."""
        self._waits_no_more()
        self._got.append(thing)
        if self._is_over:  # the client left at the moment in which there was something to get
            self._client_died(thing, ("gone",))
            return
        try:
            self._give(thing)
            return
        except Exception as error:  # noqa: BLE001  # it cannot be serialised: the client gets the error, and the item is lost
            failure = error
        self.failed(failure)
        del failure

    def failed(self, error: Exception) -> None:
        """Send the client an exception instead."""
        self._waits_no_more()
        self._got.clear()
        self.leave()
        fail(ports_host_of(self._object_port.node), self._reply, error)

    def _end(self, *reason: Any) -> None:
        self.leave()
        if self._got:
            self._client_died(self._got[0], reason)

    def leave(self) -> None:
        """Stop waiting."""
        self._is_over = True
        self._guard.cancel()
        self._object_port.waiters.pop(self, None)
        stop = self._stop
        self._waits_no_more()
        if stop is not None:
            stop()


class ObjectPort:
    """The port of one gevent object, and its proxy waiters.

    The waiters leave when the port dies; the port dies when nothing refers to the object any more. No message from a
    client can kill the port.

    Args:
        thing: The object. A single handler serves all tags to save memory, and refers to the object weakly.
        node: This node.
        messages: Names of the object's methods by message tag; each is called with the rest of the message.
        calls: The same for calls; the answer is what the method returns or raises.
    """

    def __init__(self, thing: object, node: LocalNode, messages: Mapping[str, str], calls: Mapping[str, str]) -> None:
        self.node = node
        self.waiters: dict[ProxyWaiter, None] = {}
        self.waiting = 0
        """How many waiters have got nothing yet. New clients wait behind them, even if the object is ready now."""
        self._thing = weakref.ref(thing)
        self._messages = messages
        self._calls = calls
        self.port: str = port_of(thing, node, self._receive)
        self._complaints = BoundedLog(node.scheduler.log, f"port {self.port}")
        ports_host_of(node).monitor(self.port, self._close, None)

    def _receive(self, *message: Any) -> None:
        thing = self._thing()
        if thing is None:  # the port is about to die
            return
        tag = tag_of(message) or ""
        try:
            if tag in self._messages:
                getattr(thing, self._messages[tag])(*message[1:])
            elif tag in self._calls:
                server(ports_host_of(self.node), tag, getattr(thing, self._calls[tag]), self._complaints)(*message[1:])
            else:
                self.node.scheduler.default(*message)
            return
        except Exception as error:  # noqa: BLE001  # too few elements, or an invalid reply port
            failure = error
        self._complaints.log(logging.DEBUG, "message %s to %s dropped", quoted(tag), self.port, exc_info=failure)
        del failure

    def close(self) -> None:
        """Close the port."""
        self.node.kil(self.port)

    def _close(self, *_reason: Any) -> None:
        for waiter in list(self.waiters):
            waiter.leave()
