# SPDX-License-Identifier: MIT
"""Socket.IO servers of several processes without a message queue such as Redis.

Give python-socketio's server, or Flask-SocketIO, a client manager::

    socketio = SocketIO(app, client_manager=AempManager())

Then rooms, broadcasts, acknowledgements and disconnects work across all of gunicorn's workers whose configuration has
the hooks of :mod:`aemp_gevent.contrib.gunicorn`. Other programs emit with ``AempManager("aemp://NAME",
write_only=True)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from gevent import monkey
from gevent.queue import Full, SimpleQueue
from socketio.pubsub_manager import PubSubManager

from aemp_gevent.contrib.fan_out import FanOut
from aemp_gevent.contrib.gunicorn import on_join
from aemp_gevent.contrib.joining import parse_url
from aemp_gevent.contrib.per_process import PerProcess
from aemp_gevent.errors import (
    DirectoryTimeout,
    DirectoryUnavailableError,
    InvalidSettingError,
    NodeShutDownError,
)
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import Log

__all__ = ["AempManager"]

_GROUP = "socketio/"
"""The beginning of the groups' names; the channel follows."""

MAX_WAITING = 100_000
"""Messages of other servers that wait for the processor; more are dropped, which is logged."""

# python-socketio has no type annotations, so what it hands over is Any.


class AempManager(PubSubManager):  # type: ignore[misc]  # see above
    """A client manager for python-socketio whose servers find each other through nodes, without a message queue.

    Each server process has a port in a group of the directory, and what one server publishes is sent to the ports of
    all others. Messages of one process arrive in the order in which it published them. A server
    enters the group before its first client is connected, so it misses nothing that is meant for its clients. While a
    link between two processes is broken, as after a crash, messages are lost, as they are with Redis.

    The servers must use ``async_mode="gevent"``, or be monkey-patched.

    Args:
        url: Where the other servers are. ``"aemp://"``: this process joins them by itself before clients connect,
            with gunicorn's hooks or with :func:`~aemp_gevent.contrib.join_host`. ``"aemp://NAME"``: it calls
            ``join_host("NAME")`` when it is first needed, unless it has joined already. ``"aemp://NAME?seeds=…"``:
            the same with seeds on other hosts, noderefs separated by commas.
        channel: Servers of different channels do not see each other.
        write_only: Only emit, as from a script, without clients.
        logger: As python-socketio's own managers.
        json: As python-socketio's own managers. It also encodes what nodes cannot carry, such as dates if the module
            supports them, or numbers of more than 64 bits.
        node: The node; None: the default node.

    Raises:
        InvalidSettingError: The URL or the channel is invalid.
    """

    name = "aemp"

    def __init__(
        self,
        url: str = "aemp://",
        channel: str = "socketio",
        write_only: bool = False,
        logger: Any = None,
        json: Any = None,
        *,
        node: Node | None = None,
    ) -> None:
        parsed = parse_url(url)
        if not isinstance(channel, str) or not channel:
            raise InvalidSettingError("channel", channel, "it must be a str that is not empty")
        self._here = PerProcess(_Here)
        take = None if write_only else self._take
        self._others = FanOut(_GROUP + channel, parsed, take, "AempManager", node)
        super().__init__(channel=channel, write_only=write_only, logger=logger, json=json)
        if node is None and not write_only and not parsed.name:
            on_join(self._others.open)  # so that the first client does not wait for it

    @property
    def host_id(self) -> str:
        """What distinguishes this process in messages: unlike the Redis manager's, it changes after a fork."""
        return self._here.get().host_id

    @host_id.setter
    def host_id(self, host_id: str) -> None:
        self._here.get().host_id = host_id

    def initialize(self) -> None:
        """Enter the group of servers; python-socketio calls this before the first client is connected.

        Raises:
            PrivateNodeError: This process has not joined the others.
            InvalidSettingError: The server's ``async_mode`` does not run on gevent.
        """
        try:
            if not self.write_only:
                self._check_mode()
                self._others.open()
        except BaseException:
            if self.server is not None:
                self.server.manager_initialized = False  # the next client tries again
            raise
        super().initialize()

    def connect(self, sid: str, namespace: str) -> Any:
        """Connect a client, after this process has entered the group of servers."""
        self._others.open()  # also for the second client, while the first one waits in initialize()
        return super().connect(sid, namespace)

    def pre_connect(self, eio_sid: str, namespace: str) -> Any:
        """Begin to connect a client, which python-socketio 5.18 and later do before they call ``connect``."""
        self._others.open()
        return super().pre_connect(eio_sid, namespace)

    def _check_mode(self) -> None:
        mode: object = getattr(self.server, "async_mode", None)
        if isinstance(mode, str) and not mode.startswith("gevent") and not monkey.is_module_patched("threading"):
            why = "nodes run on gevent's loop; use 'gevent', or call monkey.patch_all() in the program's first lines"
            raise InvalidSettingError("async_mode", mode, why)

    def _publish(self, data: dict[str, Any]) -> None:
        try:
            self._others.send(data, instead=lambda: (self.json.dumps(data),))
        except (DirectoryTimeout, DirectoryUnavailableError, NodeShutDownError) as error:
            # As python-socketio's own managers do when their queue cannot be reached.
            self._get_logger().error("Cannot publish to other nodes: %s", error)

    def _take(self, *message: Any) -> None:
        if len(message) == 1 and isinstance(message[0], dict | str):
            here = self._here.get()
            try:
                here.messages.put_nowait(message[0])
            except Full:
                here.complaints.warn("a message of another server was dropped: %s wait for this one", MAX_WAITING)

    def _listen(self) -> Iterator[Any]:
        messages = self._here.get().messages
        while True:
            yield messages.get()


class _Here:
    """What a manager has in one process."""

    def __init__(self) -> None:
        self.host_id = uuid4().hex
        self.messages: SimpleQueue[Any] = SimpleQueue(MAX_WAITING)
        """What other servers have published."""
        self.complaints = BoundedLog(Log().log, "Socket.IO")
