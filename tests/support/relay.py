# SPDX-License-Identifier: MIT
"""Somebody between two nodes, who looks at the bytes that pass."""

from __future__ import annotations

import contextlib
from typing import Any

import gevent
from gevent import socket

from aemp_gevent.addresses.endpoints import parse_endpoint


class Relay:
    """A man in the middle, who can read what passes, and change it."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._socket = socket.socket()
        self._sockets = [self._socket]
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.address = "{}:{}".format(*self._socket.getsockname())
        self.endpoint = parse_endpoint(self.address)
        self.seen: list[bytes] = []
        """What passed, by connection and direction."""
        self._greenlets = [gevent.spawn(self._serve)]

    def _serve(self) -> None:
        while True:
            near, _ = self._socket.accept()
            self._sockets.append(near)
            with contextlib.suppress(OSError, EOFError):
                far = self.connect(near)
                self._greenlets += [gevent.spawn(self._pass, near, far), gevent.spawn(self._pass, far, near)]

    def connect(self, _near: Any) -> Any:
        far = socket.socket()
        self._sockets.append(far)
        far.connect(self._target)
        return far

    def change(self, data: bytes) -> bytes:
        return data

    def _pass(self, source: Any, target: Any) -> None:
        number = len(self.seen)
        self.seen.append(b"")
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.seen[number] += data
                target.sendall(self.change(data))
        with contextlib.suppress(OSError):
            target.shutdown(1)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        gevent.killall(self._greenlets)
        for sock in self._sockets:
            sock.close()
