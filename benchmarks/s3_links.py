# SPDX-License-Identifier: MIT
"""S3: messages to other nodes in turn, against the number of links; a variant is their number.

All nodes at the other ends are in one process, so that its work is the same whatever their number. There is no ceiling.
"""

from __future__ import annotations

from benchmarks.linked import NAME, find, open_node
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer, secret

N = 100_000
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200)
COMPARISONS = tuple((str(count), "") for count in COUNTS)
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
