# SPDX-License-Identifier: MIT
"""N4: 100 callers, each with one request outstanding, to one port of another process."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import msgpack
from gevent import socket
from gevent.pool import Group

from benchmarks.bare import CHUNK, connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

N = 50_000
COMPARISONS = tuple((ours, "greenlets") for ours in ("syncal", "call", "call, served", "snd + receive"))
UNIT = "requests/s"
CALLERS = 100


def serve_ours(variant: str) -> str:
    """Answer "add" with the number plus one; ``syncal``, ``call`` and our own requests all put the reply port last."""
    from aemp_gevent import NODE, rcv, serve, snd

    if variant == "call, served":
        serve(publish(), "add", lambda number: number + 1)
    else:
        rcv(publish(), "add", lambda number, reply: snd(reply, number + 1))
    return NODE()


def ours(n: int, variant: str = "syncal") -> Figure:
    """100 ``port_async`` ports, each in a ``syncal``, a ``call``, or a bare ``snd`` and ``receive``."""
    from aemp_gevent import SELF, attach, call, port_async, receive, snd, syncal

    share = max(1, n // CALLERS)

    def caller(server: str, main: str) -> None:
        me = SELF()
        receive("go")
        for number in range(share):
            if variant == "syncal":
                reply = syncal(30, server, "add", number)
            elif variant.startswith("call"):
                reply = (call(server, "add", number),)
            else:
                snd(server, "add", number, me)
                reply = receive()
            if reply != (number + 1,):
                raise RuntimeError(f"asked for {number} + 1, got {reply}")
        snd(main, "done")

    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        server = find(address)
        callers = [port_async(caller, server, SELF()) for _ in range(CALLERS)]
        settle()
        started = clock()
        for each in callers:
            snd(each, "go")
        for _ in callers:
            receive("done")
        return figure(share * CALLERS, UNIT, clock() - started)


def coalescer(sock: socket.socket) -> Callable[[bytes], None]:
    """Return a function that collects what is to be sent, and sends it once for each round of the loop."""
    out, defer = bytearray(), gevent.get_hub().loop.run_callback

    def flush() -> None:
        # At most 100 requests of some 12 bytes are outstanding: a fresh socket buffer always takes them whole.
        sock.send(out)
        out.clear()

    def send(data: bytes) -> None:
        nonlocal out
        if not out:
            defer(flush)
        out += data

    return send


def on_messages(sock: socket.socket, handle: Callable[[int, int], object]) -> object:
    """Call ``handle(id, number)`` on the hub for every pair that arrives. Keep what is returned."""
    unpacker = msgpack.Unpacker()

    def readable() -> None:
        unpacker.feed(sock.recv(CHUNK))
        for each, number in unpacker:
            handle(each, number)

    watcher = gevent.get_hub().loop.io(sock.fileno(), 1)
    watcher.start(readable)
    return watcher


def serve_ceiling(variant: str) -> str:
    """Answer from the hub's I/O callback, coalesced."""

    def answer(sock: socket.socket) -> None:
        send, pack = coalescer(sock), msgpack.Packer().pack
        watcher = on_messages(sock, lambda each, number: send(pack((each, number + 1))))
        gevent.get_hub().switch()
        del watcher

    return serve_one(answer)


def ceiling(n: int, variant: str = "greenlets") -> Figure:
    """100 greenlets that the hub's I/O callback switches to when their answer is there."""
    share = max(1, n // CALLERS)
    with peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        send, pack, wait = coalescer(sock), msgpack.Packer().pack, gevent.get_hub().switch

        def caller(each: int) -> None:
            for number in range(share):
                send(pack((each, number)))
                if wait() != number + 1:
                    raise RuntimeError("a reply reached the wrong caller")

        settle()
        started = clock()
        group = Group()
        callers = [group.spawn(caller, each) for each in range(CALLERS)]
        watcher = on_messages(sock, lambda each, number: callers[each].switch(number))
        group.join(raise_error=True)
        seconds = clock() - started
        del watcher
        return figure(share * CALLERS, UNIT, seconds)
