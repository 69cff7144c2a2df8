# SPDX-License-Identifier: MIT
"""N3: large binary messages to one port of another process, then an ack."""

from __future__ import annotations

import msgpack
from gevent import socket

from benchmarks.bare import CHUNK, await_ack, connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

N = 2_000
COMPARISONS = (("snd", "msgpack"), ("snd", "sendall"))
UNIT = "B/s"
BLOCK = bytes(CHUNK)


def serve_ours(variant: str) -> str:
    """Add up the lengths; answer "end" with the sum."""
    from aemp_gevent import NODE, rcv, snd

    total = 0

    def arrived(block: bytes) -> None:
        nonlocal total
        total += len(block)

    rcv(publish(), "block", arrived, "end", lambda reply: snd(reply, "ack", total))
    return NODE()


def ours(n: int, variant: str = "snd") -> Figure:
    """``snd`` of 64 KiB ``bytes`` in a loop."""
    from aemp_gevent import SELF, attach, receive, snd

    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        sink = find(address)
        settle()
        started = clock()
        for _ in range(n):
            snd(sink, "block", BLOCK)
        snd(sink, "end", SELF())
        _, arrived = receive("ack")
        seconds = clock() - started
    if arrived != n * CHUNK:
        raise RuntimeError(f"sent {n * CHUNK} bytes, {arrived} arrived before the end")
    return figure(n * CHUNK, UNIT, seconds)


def serve_ceiling(variant: str) -> str:
    """Read into one buffer, unpack what is there or look at nothing, and ack when all announced bytes are there."""

    def swallow(sock: socket.socket) -> None:
        missing = int.from_bytes(sock.recv(8), "big")
        sock.sendall(b"!")
        unpacker, buffer = msgpack.Unpacker(), bytearray(CHUNK)
        view = memoryview(buffer)
        while missing > 0:
            size = sock.recv_into(buffer)
            if not size:
                return
            if variant == "msgpack":
                unpacker.feed(view[:size])
                for _port, _tag, block in unpacker:
                    missing -= len(block)
            else:
                missing -= size
        sock.sendall(b"!")

    return serve_one(swallow)


def ceiling(n: int, variant: str = "msgpack") -> Figure:
    """Bulk sends: each block packed as a message and unpacked over there, or no framing at all."""
    pack = msgpack.Packer().pack
    with peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        sock.sendall((n * CHUNK).to_bytes(8, "big"))
        await_ack(sock)
        settle()
        started = clock()
        for _ in range(n):
            sock.sendall(pack(("bench", "block", BLOCK)) if variant == "msgpack" else BLOCK)
        await_ack(sock)
        return figure(n * CHUNK, UNIT, clock() - started)
