# SPDX-License-Identifier: MIT
"""S1: a stream of binary messages to one port of another process, against their size; a variant is a size in bytes."""

from __future__ import annotations

from collections.abc import Callable

import msgpack
from gevent import socket

from benchmarks.bare import CHUNK, await_ack, connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

N = 100_000
SIZES = tuple(4**power for power in range(2, 11))
COMPARISONS = tuple((str(size), str(size)) for size in SIZES)
UNIT = "messages/s"
BYTES_EACH = 2_000


def messages(n: int, size: int) -> int:
    """Return how many to send: ``n``, or of large ones as many as make 2000 bytes for each of ``n``."""
    return max(16, min(n, n * BYTES_EACH // size))


def serve_ours(variant: str) -> str:
    """Count; answer "end" with the count."""
    from aemp_gevent import NODE, rcv, snd

    count = 0

    def arrived(_block: bytes) -> None:
        nonlocal count
        count += 1

    rcv(publish(), "block", arrived, "end", lambda reply: snd(reply, "ack", count))
    return NODE()


def ours(n: int, variant: str = "65536") -> Figure:
    """``snd`` of ``bytes`` in a loop."""
    from aemp_gevent import SELF, attach, receive, snd

    block = bytes(int(variant))
    count = messages(n, len(block))
    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        sink = find(address)
        settle()
        started = clock()
        for _ in range(count):
            snd(sink, "block", block)
        snd(sink, "end", SELF())
        _, arrived = receive("ack")
        seconds = clock() - started
    if arrived != count:
        raise RuntimeError(f"sent {count} messages, {arrived} arrived before the end")
    return figure(count, UNIT, seconds)


def serve_ceiling(variant: str) -> str:
    """Unpack 64 KiB at a time, call the tag's function from a dict, ack the end."""

    def count(sock: socket.socket) -> None:
        count = 0

        def arrived(_block: bytes) -> None:
            nonlocal count
            count += 1

        handlers: dict[str, Callable[..., None]] = {"block": arrived, "end": lambda: sock.sendall(b"!")}
        unpacker, buffer = msgpack.Unpacker(), bytearray(CHUNK)
        view = memoryview(buffer)
        while size := sock.recv_into(buffer):
            unpacker.feed(view[:size])
            for _port, tag, *rest in unpacker:
                handlers[tag](*rest)

    return serve_one(count)


def ceiling(n: int, variant: str = "65536") -> Figure:
    """Pack with a reused packer; write when 64 KiB have come together."""
    block = bytes(int(variant))
    count = messages(n, len(block))
    pack, out = msgpack.Packer().pack, bytearray()
    with peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        settle()
        started = clock()
        for _ in range(count):
            out += pack(("bench", "block", block))
            if len(out) >= CHUNK:
                sock.sendall(out)
                out = bytearray()
        sock.sendall(out + pack(("bench", "end")))
        await_ack(sock)
        return figure(count, UNIT, clock() - started)
