# SPDX-License-Identifier: MIT
"""N3: large binary messages to one port of another process, then an ack."""

from __future__ import annotations

import msgpack
from gevent import socket

from benchmarks import streams
from benchmarks.bare import CHUNK, await_ack, connect, serve_one
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

N = 2_000
COMPARISONS = (("snd", "msgpack"), ("snd", "sendall"))
UNIT = "B/s"
BLOCK = bytes(CHUNK)


def serve_ours(variant: str) -> str:
    """Count in a tag handler."""
    return streams.serve_counting()


def ours(n: int, variant: str = "snd") -> Figure:
    """``snd`` of 64 KiB ``bytes`` in a loop."""
    return figure(n * CHUNK, UNIT, streams.send(__name__, variant, n, BLOCK))


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
