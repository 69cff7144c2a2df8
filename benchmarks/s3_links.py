# SPDX-License-Identifier: MIT
"""S3: messages to other nodes in turn, against the number of links; a variant is their number.

All nodes at the other ends are in one process, so that its work is the same whatever their number. So many messages
are sent that each of 200 links carries several writes of 64 KiB: with fewer, and with many links, one side would only
send first, and the other one only read afterwards; and what is done once for each link would count.
"""

from __future__ import annotations

from contextlib import ExitStack

import msgpack

from benchmarks.bare import CHUNK, await_ack, connect, serve_several
from benchmarks.linked import NAME, find, open_node
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer, secret
from benchmarks.streams import count_unpacked

N = 1_000_000
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
COMPARISONS = tuple((str(count), str(count)) for count in COUNTS)
UNIT = "messages/s"
TEXT = "x" * 64


def serve_ours(variant: str) -> str:
    """Make the nodes, each with a port that counts, and answers "end" with the count."""
    from aemp_gevent import Node

    def serve() -> str:
        node, count = Node(), 0
        node.initialise_node("127.0.0.1:0", secret=secret())

        def counted(_number: int, _text: str) -> None:
            nonlocal count
            count += 1

        sink = node.port()
        node.rcv(sink, "hello", lambda reply: node.snd(reply, "hello", sink))
        node.rcv(sink, "tag", counted, "end", lambda reply: node.snd(reply, "ack", count))
        node.reg(sink, NAME)
        return node.NODE()

    return " ".join(serve() for _ in range(int(variant)))


def ours(n: int, variant: str = "10") -> Figure:
    """``snd`` to a port of each node in turn."""
    from aemp_gevent import SELF, attach, receive, snd

    open_node()
    with peer(__name__, "ours", variant) as addresses, attach():
        sinks = [find(address) for address in addresses.split()]
        rounds = max(1, n // len(sinks))
        settle()
        started = clock()
        for number in range(rounds):
            for sink in sinks:
                snd(sink, "tag", number, TEXT)
        for sink in sinks:
            snd(sink, "end", SELF())
        arrived = [receive("ack")[1] for _ in sinks]
        seconds = clock() - started
    if set(arrived) != {rounds}:
        raise RuntimeError(f"sent {rounds} messages to each, {arrived} arrived before the end")
    return figure(rounds * len(sinks), UNIT, seconds)


def serve_ceiling(variant: str) -> str:
    """Unpack, and call a function, in a greenlet for each connection."""
    return serve_several(count_unpacked, int(variant))


def ceiling(n: int, variant: str = "10") -> Figure:
    """Pack for each connection in turn; write when 64 KiB have come together for it."""
    pack = msgpack.Packer().pack
    with peer(__name__, "ceiling", variant) as address, ExitStack() as stack:
        socks = [stack.enter_context(connect(address)) for _ in range(int(variant))]
        outs = [bytearray() for _ in socks]
        rounds = max(1, n // len(socks))
        settle()
        started = clock()
        for number in range(rounds):
            for sock, out in zip(socks, outs, strict=True):
                out.extend(pack(("bench", "tag", number, TEXT)))
                if len(out) >= CHUNK:
                    sock.sendall(out)
                    out.clear()
        for sock, out in zip(socks, outs, strict=True):
            sock.sendall(out + pack(("bench", "end")))
        for sock in socks:
            await_ack(sock)
        return figure(rounds * len(socks), UNIT, clock() - started)
