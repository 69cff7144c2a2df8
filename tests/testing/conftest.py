# SPDX-License-Identifier: MIT
"""A proxy with plain sockets on both sides, which say and see exactly what passes."""

from __future__ import annotations

import socket as std_socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from gevent import socket

from aemp_gevent.testing import Proxy

WAIT = 5.0


class Line:
    """A proxy, and both ends of the connections through it."""

    def __init__(self, proxy: Proxy, listener: socket.socket, stack: ExitStack) -> None:
        self.proxy = proxy
        self._listener = listener
        self._stack = stack

    def dial(self) -> socket.socket:
        """Return a client's socket, connected to the proxy."""
        host, _, port = self.proxy.address.rpartition(":")
        client = self._stack.enter_context(socket.socket())
        client.settimeout(WAIT)
        client.connect((host, int(port)))
        return client

    def dial_at_once(self) -> std_socket.socket:
        """Return a client's socket that is connected before any other greenlet could run: the proxy knows nothing."""
        host, _, port = self.proxy.address.rpartition(":")
        return self._stack.enter_context(std_socket.create_connection((host, int(port)), WAIT))

    def is_refused(self) -> bool:
        """Whether a new connection is reset at once, be it before or after the client has noticed that it has one."""
        try:
            return was_reset(self.dial())
        except ConnectionResetError:
            return True

    def accept(self) -> socket.socket:
        """Return the target's side of the oldest connection that it has not accepted yet."""
        server, _address = self._listener.accept()
        self._stack.enter_context(server)
        server.settimeout(WAIT)
        return server

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a new connection."""
        client = self.dial()
        return client, self.accept()


MakeLine = Callable[..., Line]


@pytest.fixture
def make_line() -> Iterator[MakeLine]:
    with ExitStack() as stack:

        def make(**options: object) -> Line:
            listener = stack.enter_context(socket.socket())
            listener.settimeout(WAIT)
            listener.bind(("127.0.0.1", 0))
            listener.listen(16)
            target = "{}:{}".format(*listener.getsockname())
            proxy = stack.enter_context(Proxy(target, **options))  # type: ignore[arg-type]
            return Line(proxy, listener, stack)

        yield make


@pytest.fixture
def line(make_line: MakeLine) -> Line:
    return make_line(seed=1)


def exactly(sock: socket.socket, count: int) -> bytes:
    """Read so many bytes; fail if the connection ends before."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"ended after {len(data)} of {count} bytes"
        data += piece
    return data


def to_the_end(sock: socket.socket) -> bytes:
    """Read up to the end of the stream."""
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def was_reset(sock: socket.socket) -> bool:
    """Read until the connection ends, and return whether that was by a reset."""
    try:
        to_the_end(sock)
    except ConnectionResetError:
        return True
    return False
