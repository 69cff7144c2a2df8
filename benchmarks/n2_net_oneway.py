# SPDX-License-Identifier: MIT
"""N2: a stream of small messages to one port of another process, then an ack."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
from gevent import socket

from benchmarks.bare import CHUNK, await_ack, connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

N = 200_000
COMPARISONS = (("snd", "coalesced"), ("snd", "one write each"))
UNIT = "messages/s"
TEXT = "x" * 64


def serve_ours(variant: str) -> str:
    """Count in a tag handler; answer "end" with the count."""
    from aemp_gevent import NODE, rcv, snd

    count = 0

    def counted(_number: int, _text: str) -> None:
        nonlocal count
        count += 1

    rcv(publish(), "tag", counted, "end", lambda reply: snd(reply, "ack", count))
    return NODE()


def ours(n: int, variant: str = "snd") -> Figure:
    """``snd`` in a loop; it pauses by itself when the link's buffer is full."""
    from aemp_gevent import SELF, attach, receive, snd

    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        sink = find(address)
        settle()
        started = clock()
        for number in range(n):
            snd(sink, "tag", number, TEXT)
        snd(sink, "end", SELF())
        _, arrived = receive("ack")
        seconds = clock() - started
    if arrived != n:
        raise RuntimeError(f"sent {n} messages, {arrived} arrived before the end")
    return figure(n, UNIT, seconds)


def serve_ceiling(variant: str) -> str:
    """Unpack 64 KiB at a time, call the tag's function from a dict, ack the end."""

    def count(sock: socket.socket) -> None:
        numbers = 0

        def counted(_number: int, _text: str) -> None:
            nonlocal numbers
            numbers += 1

        handlers: dict[str, Callable[..., None]] = {"tag": counted, "end": lambda: sock.sendall(b"!")}
        unpacker, buffer = msgpack.Unpacker(), bytearray(CHUNK)
        view = memoryview(buffer)
        while size := sock.recv_into(buffer):
            unpacker.feed(view[:size])
            for _port, tag, *rest in unpacker:
                handlers[tag](*rest)

    return serve_one(count)


def ceiling(n: int, variant: str = "coalesced") -> Figure:
    """Pack with a reused packer; write when 64 KiB have come together, or after every message."""
    limit = CHUNK if variant == "coalesced" else 1
    pack, out = msgpack.Packer().pack, bytearray()
    with peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        settle()
        started = clock()
        for number in range(n):
            out += pack(("bench", "tag", number, TEXT))
            if len(out) >= limit:
                sock.sendall(out)
                out = bytearray()
        sock.sendall(out + pack(("bench", "end")))
        await_ack(sock)
        return figure(n, UNIT, clock() - started)
