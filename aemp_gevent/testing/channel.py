# SPDX-License-Identifier: MIT
"""The channel between a test and the process of a :class:`~aemp_gevent.testing.NodeProcess`.

Pickled tuples over a socket pair that the child inherits. It has nothing to do with the
node's links, so it keeps working while those are cut, delayed or silent. Both sides run the
same code and trust each other: one is the other's child.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

from gevent import socket
from gevent.lock import RLock

_LENGTH = struct.Struct("!I")

_PROTOCOL = 4  # the newest that every supported Python reads: the child may be another one


class Channel:
    """One end. Both methods may switch.

    Args:
        sock: A connected gevent socket, which it owns from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = RLock()  # a frame may take several writes, and greenlets send at once

    def send(self, *frame: Any) -> None:
        """Send a tuple.

        Interrupted while it waits for room, by a timeout or kill, it closes the channel.

        Raises:
            OSError: The other end is gone.
        """
        data = pickle.dumps(frame, _PROTOCOL)
        with self._sending:
            try:
                self._socket.sendall(_LENGTH.pack(len(data)) + data)
            except BaseException:
                self._socket.close()  # half a frame may be under way: what followed would be misread
                raise

    def receive(self) -> tuple[Any, ...]:
        """Wait for the next tuple. One greenlet may do so.

        Raises:
            EOFError: The other end was closed.
            OSError: The other end is gone.
        """
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        frame: tuple[Any, ...] = pickle.loads(self._read(length))  # noqa: S301  # see above
        return frame

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._socket.recv(min(size - len(data), 2**20))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def close(self) -> None:
        """Close this end. Idempotent."""
        self._socket.close()


def pack(value: Any) -> bytes:
    """Return a value as bytes to put into a frame, so that what cannot travel spoils no frame."""
    return pickle.dumps(value, _PROTOCOL)


def unpack(data: bytes) -> Any:
    """Return the value that :func:`pack` packed."""
    return pickle.loads(data)  # noqa: S301  # see above
