# SPDX-License-Identifier: MIT
"""A minimal message system on bare gevent, with which the ceilings are measured.

No kills, no monitors, no patterns, no blocking in callbacks, no budget: callbacks run on the hub, which the library
never allows. So a ceiling is not a goal; it says what is left to win. Imports nothing of the library.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket

LOOPBACK = "127.0.0.1"
CHUNK = 64 * 1024

Callback = Callable[..., object]


class Slot:
    """What a port needs at least: eight words and an ID. Its mailbox comes with its first message."""

    __slots__ = ("callback", "id", "mailbox", "monitors", "patterns", "queued", "runner", "tags")

    def __init__(self, port_id: str, callback: Callback | None = None) -> None:
        self.id = port_id
        self.callback = callback
        self.mailbox: deque[tuple[Any, ...]] | None = None  # Any: messages hold whatever the caller sends
        self.monitors: list[Callback] | None = None
        self.patterns = self.runner = self.tags = None
        self.queued = False


class RunQueue:
    """Ports with a mailbox each, a queue of ports with work, and one deferred hub callback that drains it."""

    def __init__(self) -> None:
        self.slots: dict[str, Slot] = {}
        self.names = itertools.count()
        slots, queue, defer = self.slots, deque[Slot](), gevent.get_hub().loop.run_callback
        pumping = False

        def pump() -> None:
            nonlocal pumping
            while queue:
                slot = queue.popleft()
                mailbox, callback = slot.mailbox, slot.callback
                assert mailbox is not None
                assert callback is not None
                while mailbox:
                    callback(*mailbox.popleft())
                slot.queued = False
            pumping = False

        def snd(port_id: str, *msg: object) -> None:
            nonlocal pumping
            slot = slots[port_id]
            if slot.mailbox is None:
                slot.mailbox = deque()
            slot.mailbox.append(msg)
            if not slot.queued:
                slot.queued = True
                queue.append(slot)
                if not pumping:
                    pumping = True
                    defer(pump)

        # A closure and not a method: that saves the attribute look-ups, as a library's bound fast path would.
        self.snd = snd

    def port(self, callback: Callback | None = None) -> str:
        """Make a port and return its ID."""
        port_id = f"anon/bare#{next(self.names)}"
        self.slots[port_id] = Slot(port_id, callback)
        return port_id


def connect(address: str) -> socket.socket:
    """Connect to the loopback port named by ``address``, with TCP_NODELAY."""
    sock = socket.create_connection((LOOPBACK, int(address)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def serve_one(handle: Callable[[socket.socket], None]) -> str:
    """Listen on a free port of loopback, call ``handle`` with the first connection, return the port as text."""
    return serve_several(handle, 1)


def serve_several(handle: Callable[[socket.socket], None], count: int) -> str:
    """The same for the first ``count`` connections, each of which has a greenlet."""
    listener = socket.socket()
    listener.bind((LOOPBACK, 0))
    listener.listen(count)

    def handle_one(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            handle(sock)

    def accept() -> None:
        with listener:
            for _ in range(count):
                gevent.spawn(handle_one, listener.accept()[0])

    gevent.spawn(accept)
    return str(listener.getsockname()[1])


def await_ack(sock: socket.socket) -> None:
    """Wait for the other side's single byte."""
    if not sock.recv(1):
        raise ConnectionError("the peer closed its connection before its ack: see its traceback above")
