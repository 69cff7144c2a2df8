# SPDX-License-Identifier: MIT
"""N1: one outstanding message between two processes; where they run decides it, so every variant says so.

``one cpu`` pins both processes on the same CPU (``os.sched_setaffinity``), ``free`` leaves them to the kernel, which
mostly puts them on two (not at once: short runs are faster): then the wake-up of an idle CPU is most of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket
from gevent.event import Event

from benchmarks.bare import connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import LATENCY_UNIT, Figure, clock, figure, settle
from benchmarks.peer import one_cpu, peer

N = 20_000
COMPARISONS = (
    ("receive, one cpu", "greenlet, one cpu"),
    ("callback, one cpu", "greenlet, one cpu"),
    ("callback, one cpu", "hub io, one cpu"),
    ("receive, free", "greenlet, free"),
    ("callback, free", "greenlet, free"),
    ("callback, free", "hub io, free"),
)
UNIT = LATENCY_UNIT
# About what ("ping", reply port) takes on the wire, so that both sides move the same number of bytes.
MESSAGE = b"x" * 64


def serve_ours(variant: str) -> str:
    """A callback port that answers the port named in the message."""
    from aemp_gevent import NODE, rcv, snd

    rcv(publish(), "ping", lambda reply: snd(reply, "pong"))
    return NODE()


def ours(n: int, variant: str = "callback, one cpu") -> Figure:
    """The pinger is a greenlet in ``receive``, or a callback port. The link is up before the clock starts."""
    from aemp_gevent import SELF, attach, port, receive, snd

    if "one cpu" in variant and not one_cpu():
        return {"skipped": "this system cannot pin a process to a CPU"}
    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        main, left, echo = SELF(), n, find(address)

        def ponged(_tag: str) -> None:
            nonlocal left
            left -= 1
            if left:
                snd(echo, "ping", pinger)
            else:
                snd(main, "done")

        pinger = port(ponged)
        settle()
        started = clock()
        if variant.startswith("callback"):
            snd(echo, "ping", pinger)
            receive("done")
        else:
            for _ in range(n):
                snd(echo, "ping", main)
                receive()
        return figure(n, UNIT, clock() - started)


def serve_ceiling(variant: str) -> str:
    """Send back what comes, from a greenlet or from an I/O callback in the hub."""

    def echo(sock: socket.socket) -> None:
        if variant.startswith("hub io"):
            watcher = on_readable(sock, sock.send)
            gevent.get_hub().switch()
            del watcher
        while data := sock.recv(4096):
            sock.sendall(data)

    return serve_one(echo)


def on_readable(sock: socket.socket, handle: Callable[[bytes], object]) -> object:
    """Call ``handle(data)`` on the hub for whatever arrives. Keep what is returned."""
    watcher: Any = gevent.get_hub().loop.io(sock.fileno(), 1)  # the stubs of its start() are wrong
    watcher.start(lambda: handle(sock.recv(4096)))
    return watcher


def ceiling(n: int, variant: str = "greenlet, one cpu") -> Figure:
    """A gevent socket with a greenlet on each side, or I/O callbacks that never leave the hub."""
    if "one cpu" in variant and not one_cpu():
        return {"skipped": "this system cannot pin a process to a CPU"}
    with peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        sock.sendall(MESSAGE)
        sock.recv(4096)
        settle()
        started = clock()
        if variant.startswith("hub io"):
            io_round_trips(n, sock)
        else:
            for _ in range(n):
                sock.sendall(MESSAGE)
                if not sock.recv(4096):
                    raise ConnectionError("the peer closed its connection")
        return figure(n, UNIT, clock() - started)


def io_round_trips(n: int, sock: socket.socket) -> None:
    """Send the next message from the callback that read the answer."""
    left, done = n, Event()

    def answered(_data: bytes) -> None:
        nonlocal left
        left -= 1
        if left:
            sock.send(MESSAGE)
        else:
            done.set()

    watcher = on_readable(sock, answered)
    sock.send(MESSAGE)
    done.wait()
    watcher.stop()  # type: ignore[attr-defined]
