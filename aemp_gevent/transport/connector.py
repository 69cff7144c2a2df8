# SPDX-License-Identifier: MIT
"""Makes the connections of a node: by sockets, unless a test connects nodes in another way.

A :class:`Connector` listens and dials, and returns a
:class:`~aemp_gevent.transport.transport.Transport` for each connection. Links know nothing else of the
outside world, so a whole network of nodes can run in one process without a socket.
"""

from __future__ import annotations

import socket as std_socket
from collections.abc import Callable, Sequence
from typing import Protocol

from gevent import socket
from gevent.hub import Hub

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.runtime.forking import close_quietly
from aemp_gevent.transport.dialer import dial
from aemp_gevent.transport.listener import Listener, Pace
from aemp_gevent.transport.transport import READ_BYTES, SocketTransport, Transport

_KEEPALIVE_PROBES = 3
_LONGEST_KEEPALIVE_SECONDS = 32767
"""Linux takes no more."""


class Listening(Protocol):
    """A bound endpoint."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint, with the real port."""
        ...

    def start(self) -> None:
        """Begin to accept."""

    def close(self) -> None:
        """Stop accepting. Idempotent."""

    def abandon(self) -> None:
        """Release it in a forked child: the parent keeps accepting."""


class Connector(Protocol):
    """Makes connections for one node."""

    def listen(self, endpoint: Endpoint, accepted: Callable[[Transport], None]) -> Listening:
        """Bind an endpoint; port 0 takes a free one.

        Args:
            endpoint: The endpoint.
            accepted: Called with each connection, once accepting was started.

        Raises:
            ListenError: It cannot be bound.
        """
        ...

    def dial(self, endpoints: Sequence[Endpoint], timeout: float) -> Transport:
        """Return a connection to the first endpoint that accepts one. Blocks the calling greenlet.

        Raises:
            OSError: None did, within ``timeout`` seconds.
        """
        ...

    def abandon(self) -> None:
        """Release, in a forked child, connections that are being made."""


class SocketConnector:
    """Connects a node by gevent's stream sockets.

    Args:
        hub: The hub whose loop watches them.
        patience: Seconds after which the system may declare a connection dead by itself. At
            least what the heartbeats allow, which judge better: they know when a
            program was only busy.
        accept_rate: Connections to accept per second.
    """

    def __init__(self, hub: Hub, patience: float, accept_rate: float = 200.0) -> None:
        self._hub = hub
        self._patience = patience
        self._pace = Pace(accept_rate)
        self._buffer = bytearray(READ_BYTES)
        self._filling: set[SocketTransport] = set()
        self._dialling: set[socket.socket] = set()

    def listen(self, endpoint: Endpoint, accepted: Callable[[Transport], None]) -> Listener:
        return Listener(endpoint, lambda sock: accepted(self._transport_over(sock)), self._pace)

    def dial(self, endpoints: Sequence[Endpoint], timeout: float) -> SocketTransport:
        return self._transport_over(dial(endpoints, timeout, self._dialling))

    def abandon(self) -> None:
        for sock in self._dialling:
            close_quietly(sock)

    def _transport_over(self, sock: socket.socket) -> SocketTransport:
        if sock.family != getattr(std_socket, "AF_UNIX", None):
            _have_the_system_look_after(sock, self._patience)
        return SocketTransport(sock, self._hub, self._buffer, self._filling)


def _have_the_system_look_after(sock: socket.socket, patience: float) -> None:
    """Turn on TCP keep-alive: a connection that no greenlet waits for must end, too."""
    sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_KEEPALIVE, 1)
    interval = min(max(1, round(patience / _KEEPALIVE_PROBES)), _LONGEST_KEEPALIVE_SECONDS)
    patience = interval * _KEEPALIVE_PROBES
    seconds = {"TCP_KEEPIDLE": interval, "TCP_KEEPALIVE": interval, "TCP_KEEPINTVL": interval}  # Linux; macOS; both
    options = {**seconds, "TCP_KEEPCNT": _KEEPALIVE_PROBES, "TCP_USER_TIMEOUT": round(patience * 1000)}
    for name, value in options.items():
        option = getattr(std_socket, name, None)
        if option is not None:
            sock.setsockopt(std_socket.IPPROTO_TCP, option, value)
