# SPDX-License-Identifier: MIT
"""N6: one sender to 1000 ports of another process, then an ack when each has counted all of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgpack
from gevent import socket

from benchmarks.bare import CHUNK, await_ack, connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer

N = 200_000
COMPARISONS = (("snd", "coalesced"),)
UNIT = "messages/s"
PORTS = 1000


def serve_ours(variant: str) -> str:
    """1000 counting miniports; "open" gets the number of messages for each, and answers with their IDs."""
    from aemp_gevent import NODE, port, rcv, snd

    def open_ports(rounds: int, main: str) -> None:
        complete = 0

        def counter() -> Callable[[str, int], None]:
            count = 0

            def counted(_tag: str, _number: int) -> None:
                nonlocal count, complete
                count += 1
                if count == rounds:
                    complete += 1
                    if complete == PORTS:
                        snd(main, "ack")

            return counted

        snd(main, "ports", [port(counter()) for _ in range(PORTS)])

    rcv(publish(), "open", open_ports)
    return NODE()


def ours(n: int, variant: str = "snd") -> Figure:
    """``snd`` to each port in turn."""
    from aemp_gevent import SELF, attach, receive, snd

    rounds = max(1, n // PORTS)
    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        snd(find(address), "open", rounds, SELF())
        _, ports = receive("ports", timeout=20)
        settle()
        started = clock()
        for number in range(rounds):
            for each in ports:
                snd(each, "tick", number)
        receive("ack")
        return figure(rounds * PORTS, UNIT, clock() - started)


def serve_ceiling(variant: str) -> str:
    """Append each message to the deque of its ID, ack the end."""

    def fan_out(sock: socket.socket) -> None:
        mailboxes: dict[str, deque[object]] = {name: deque() for name in names()}
        unpacker, buffer = msgpack.Unpacker(), bytearray(CHUNK)
        view = memoryview(buffer)
        while size := sock.recv_into(buffer):
            unpacker.feed(view[:size])
            for name, *msg in unpacker:
                if not name:
                    sock.sendall(b"!")
                else:
                    mailboxes[name].append(msg)

    return serve_one(fan_out)


def names() -> list[str]:
    """Return the 1000 names, as long as a local port's usually are."""
    return [f"port{index:08x}" for index in range(PORTS)]


def ceiling(n: int, variant: str = "coalesced") -> Figure:
    """A stream with the name in every message, coalesced into 64 KiB writes, into 1000 deques."""
    rounds, ports = max(1, n // PORTS), names()
    pack, out = msgpack.Packer().pack, bytearray()
    with peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        settle()
        started = clock()
        for number in range(rounds):
            for each in ports:
                out += pack((each, "tick", number))
                if len(out) >= CHUNK:
                    sock.sendall(out)
                    out = bytearray()
        sock.sendall(out + pack(("",)))
        await_ack(sock)
        return figure(rounds * PORTS, UNIT, clock() - started)
