# SPDX-License-Identifier: MIT
"""What the rows have in common that send a stream of messages to one port of another process, and then wait for an ack.

Each message has a tag, a number and a payload, and is one row's like another's but for the payload.
"""

from __future__ import annotations

from collections.abc import Callable

import msgpack
from gevent import socket

from benchmarks.bare import CHUNK, await_ack, connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import clock, settle
from benchmarks.peer import peer


def serve_counting() -> str:
    """In the peer: count in a tag handler; answer "end" with the count."""
    from aemp_gevent import NODE, rcv, snd

    count = 0

    def counted(_number: int, _payload: object) -> None:
        nonlocal count
        count += 1

    rcv(publish(), "tag", counted, "end", lambda reply: snd(reply, "ack", count))
    return NODE()


def send(module: str, variant: str, count: int, payload: object) -> float:
    """Send ``count`` messages by ``snd``, which pauses by itself when the link's buffer is full; return the seconds."""
    from aemp_gevent import SELF, attach, receive, snd

    open_node()
    with peer(module, "ours", variant) as address, attach():
        sink = find(address)
        settle()
        started = clock()
        for number in range(count):
            snd(sink, "tag", number, payload)
        snd(sink, "end", SELF())
        _, arrived = receive("ack")
        seconds = clock() - started
    if arrived != count:
        raise RuntimeError(f"sent {count} messages, {arrived} arrived before the end")
    return seconds


def serve_unpacking() -> str:
    """In the peer: unpack 64 KiB at a time, call the tag's function from a dict, ack the end."""
    return serve_one(count_unpacked)


def count_unpacked(sock: socket.socket) -> None:
    """Do what :func:`serve_unpacking` says, for a connection."""
    numbers = 0

    def counted(_number: int, _payload: object) -> None:
        nonlocal numbers
        numbers += 1

    handlers: dict[str, Callable[..., None]] = {"tag": counted, "end": lambda: sock.sendall(b"!")}
    unpacker, buffer = msgpack.Unpacker(), bytearray(CHUNK)
    view = memoryview(buffer)
    while size := sock.recv_into(buffer):
        unpacker.feed(view[:size])
        for _port, tag, *rest in unpacker:
            handlers[tag](*rest)


def send_packed(module: str, variant: str, count: int, payload: object, limit: int = CHUNK) -> float:
    """Pack with a reused packer; write when ``limit`` bytes have come together; return the seconds."""
    pack, out = msgpack.Packer().pack, bytearray()
    with peer(module, "ceiling", variant) as address, connect(address) as sock:
        settle()
        started = clock()
        for number in range(count):
            out += pack(("bench", "tag", number, payload))
            if len(out) >= limit:
                sock.sendall(out)
                out = bytearray()
        sock.sendall(out + pack(("bench", "end")))
        await_ack(sock)
        return clock() - started
