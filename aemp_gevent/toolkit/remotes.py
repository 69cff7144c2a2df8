# SPDX-License-Identifier: MIT
"""The base classes of :class:`RemoteQueue` and the other remote objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from gevent import Timeout
from gevent.queue import Empty, Full, ShutDown

from aemp_gevent import CallTimeout, RemoteError, default_node
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.runtime.hub_calls import report_to
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted

QUICK_SECONDS = 30
"""Timeout of calls that do not wait for anything on the other node."""

_OF_GEVENT: dict[str, type[Exception]] = {kind.__name__: kind for kind in (Empty, Full, ShutDown, ValueError)}
"""Exceptions of gevent's objects. If one is raised on the other node, the same class is raised here."""


class Remote:
    """An object on another node, used through its port.

    Args:
        port: The object's port.
        node: This node.
    """

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        self.port = str(port)
        self.node = node
        self._kept = port  # may be a local object, whose port dies with it

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.port}>"

    def __str__(self) -> str:
        return self.port

    def _call(self, tag: str, *args: Any, timeout: float | None = QUICK_SECONDS) -> Any:
        """Make a call, and raise what gevent's object on the other node raised."""
        try:
            return self.node.call(self.port, tag, *args, timeout=timeout)
        except RemoteError as error:
            name, _, text = error.error.partition(": ")
            kind = _OF_GEVENT.get(name)
            if kind is None:
                raise
            raise (kind(text) if text else kind()) from None

    def _wait(self, timeout: Seconds | None, tag: str, *args: Any) -> Any:
        """Make a call that waits on the other node.

        Raises:
            CallTimeout: ``timeout`` seconds have passed.
            Timeout: The given ``gevent.Timeout`` has expired; or the exception that it was made with.
        """
        call = f"{tag}()"
        if isinstance(timeout, Timeout):
            to_seconds(timeout, call)
            timer = Timeout.start_new(timeout)  # does nothing if it was started already
            try:
                return self._call(tag, *args, timeout=None)
            finally:
                timer.cancel()  # not close(): it may be used again
        return self._call(tag, *args, timeout=to_seconds(timeout, call))

    def _wait_until(self, timeout: Seconds | None, tag: str, *args: Any) -> Any:
        """Do the same as :meth:`_wait`, but return None after the timeout."""
        try:
            return self._wait(timeout, tag, *args)
        except CallTimeout:
            return None
        except Timeout as late:
            if late is not timeout:
                raise
            return None


def is_poll(timeout: Seconds | None, call: str) -> bool:
    """Return whether a timeout is 0, which means not to wait, as with gevent.

    Raises:
        TypeError, ValueError: It is not a valid timeout.
    """
    return not isinstance(timeout, Timeout) and to_seconds(timeout, call) == 0


class RemoteLinkable(Remote):
    """A remote object that ``gevent.wait`` and ``iwait`` accept."""

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        super().__init__(port, node=node)
        self._links: list[Callable[[Any], object]] = []
        self._reply: str | None = None
        self._guard: Monitor | None = None

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Call a function once with this object, on the hub, when the other node's object is ready or gone."""
        if not callable(callback):
            raise TypeError(f"rawlink(): {quoted(callback)} cannot be called")
        self.node.scheduler.check_thread("rawlink()")
        self._links.append(callback)
        if self._reply is None:
            try:
                self._guard = ports_host_of(self.node).monitor(self.port, self._ready, None)
                reply = ports_host_of(self.node).make()
                reply.default = self._ready
                self._reply = reply.id
                self.node.scheduler.table.add(reply)
                self.node.snd(self.port, "wait", reply.id)
            except BaseException:
                self.unlink(callback)
                raise

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Remove a function given to :meth:`rawlink`, unless it was called already."""
        with contextlib.suppress(ValueError):
            self._links.remove(callback)
        if not self._links:
            self._forget()

    def _forget(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
        if self._reply is not None:
            self.node.kil(self._reply)
            self._reply = None

    def _ready(self, *_answer: Any) -> None:
        self._forget()
        self.node.scheduler.hub.loop.run_callback(self._call_links)

    def _call_links(self) -> None:  # on the hub
        links, self._links = self._links, []
        for link in links:
            try:
                link(self)
            except BaseException as error:  # noqa: BLE001  # as gevent does
                report_to(self.node.scheduler.hub, error, (link, self))
