# SPDX-License-Identifier: MIT
"""Datagrams (UDP) beside the connections: received on the hub, and sent by any native thread.

The sockets are Python's plain ones, never gevent's: a native thread sends while the event loop stands still. Nothing
here blocks, and what the system does not take at once is lost, as datagrams may be.
"""

from __future__ import annotations

import contextlib
import os
from _socket import AF_INET, AF_INET6, SOCK_DGRAM
from _socket import socket as plain_socket
from collections.abc import Callable
from typing import Any, NamedTuple

from gevent.hub import Hub

from aemp_gevent.runtime.hub_calls import repeated

_READ = 1  # libev's and libuv's event mask

AT_ONCE = 16
"""How many datagrams are taken before others have their turn: anybody may send some."""

_LARGEST = 1024
"""Bytes of a datagram that are read; no larger one is expected."""


class Ends(NamedTuple):
    """The hosts at both ends of a connection: where datagrams between its processes go.

    Attributes:
        here: The address of this end. IPv6 addresses contain their zone.
        there: The address of the other end.
    """

    here: str
    there: str


LOOPBACK = Ends("127.0.0.1", "127.0.0.1")


class _Socket(plain_socket):
    """A socket that is closed without a warning where an interrupt struck before anything held it."""

    def __del__(self) -> None:
        self.close()


def _socket_for(host: str) -> plain_socket:
    sock = _Socket(AF_INET6 if ":" in host else AF_INET, SOCK_DGRAM)
    sock.setblocking(False)
    return sock


class DatagramReceiver:
    """A UDP socket at one address of this host.

    Args:
        hub: The hub whose loop watches it.
        host: The address.
        port: The UDP port; 0: any free one.
        received: Called on the hub with each datagram; must neither switch nor raise.

    Raises:
        OSError: It cannot be bound.
    """

    def __init__(self, hub: Hub, host: str, port: int, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._watcher: Any = None  # gevent's watchers have no types
        self._socket = _socket_for(host)
        try:
            self._socket.bind((host, port))
            self.port: int = self._socket.getsockname()[1]
            loop: Any = hub.loop
            # No reference: a program that waits for nothing else may end.
            self._watcher = loop.io(self._socket.fileno(), _READ, ref=False)
            self._watcher.start(repeated(hub, self._readable))
        except BaseException:
            self.close()
            raise

    def _readable(self) -> None:
        for _ in range(AT_ONCE):
            try:
                datagram = self._socket.recv(_LARGEST)
            except OSError:
                return  # none is left, or the system reports what happened to an earlier one
            self._received(datagram)

    def close(self) -> None:
        """Stop receiving. Idempotent."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
        self._socket.close()

    def abandon(self, *, watching: bool) -> None:
        """Close this process's copy, in a forked child; see ``SocketTransport.abandon``."""
        if watching:
            self._watcher.stop()
            self._watcher.close()
        descriptor = self._socket.detach()
        if descriptor >= 0:
            os.close(descriptor)


class DatagramSender:
    """Sends datagrams, in any native thread. A context manager, whose sockets are closed at its end."""

    def __init__(self) -> None:
        self._sockets: dict[bool, plain_socket] = {}

    def __enter__(self) -> DatagramSender:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets. Idempotent."""
        for sock in self._sockets.values():
            sock.close()

    def send(self, datagram: bytes, host: str, port: int) -> None:
        """Send a datagram, if the system takes it at once."""
        is_v6 = ":" in host
        with contextlib.suppress(OSError):
            if is_v6 not in self._sockets:
                self._sockets[is_v6] = _socket_for(host)
            self._sockets[is_v6].sendto(datagram, (host, port))
