# SPDX-License-Identifier: MIT
"""S5: how long small round trips take while the same link carries large messages to another port.

The small messages are sent one after the other. In all variants but ``alone`` a second port sends messages of this size
meanwhile, at least 1 GB; it is paused when the link is full, as each sender is.
"""

from __future__ import annotations

import math

from benchmarks.linked import find, open_node, publish
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer
from benchmarks.s4_load import PERCENTILES

N = 2_000
SIZES = {"beside 256 KiB": 2**18, "beside 1 MiB": 2**20}
COMPARISONS = (("alone", ""), *((variant, "") for variant in SIZES))
BULK_BYTES = 1_000_000_000
UNIT = "round trips/s"
PAUSE_SECONDS = 0.001
"""Between two round trips, so that they are spread over the bulk."""


def serve_ours(variant: str) -> str:
    """Answer the small messages, and count the large ones in another port."""
    from aemp_gevent import NODE, port, rcv, snd

    published, sink = publish(), port()
    rcv(published, "ping", lambda number, reply: snd(reply, "pong", number))
    rcv(published, "sink", lambda reply: snd(reply, "sink", sink))
    rcv(sink, "block", lambda _block: None)
    rcv(sink, "end", lambda reply: snd(reply, "end"))
    return NODE()


def ours(n: int, variant: str = "alone") -> Figure:
    """A ``receive`` loop that pings, and a port that sends the large messages."""
    import gevent

    from aemp_gevent import SELF, attach, port_async, receive, snd

    gigabytes: list[float] = []

    def bulk(sink: str, block: bytes) -> None:
        while True:
            for _ in range(BULK_BYTES // len(block)):
                snd(sink, "block", block)
            snd(sink, "end", SELF())
            receive("end")
            gigabytes.append(clock())

    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        server, me = find(address), SELF()
        snd(server, "sink", me)
        _, sink = receive("sink")
        settle()
        if variant in SIZES:
            port_async(bulk, sink, bytes(SIZES[variant]))
            gevent.sleep(0.2)
        taken: list[float] = []
        begin = clock()
        number = 0
        while number < n or (variant in SIZES and not gigabytes):
            number += 1
            started = clock()
            snd(server, "ping", number, me)
            receive("pong")
            taken.append(clock() - started)
            gevent.sleep(PAUSE_SECONDS)
        found = figure(number, UNIT, clock() - begin)
        taken.sort()
        for name, share in PERCENTILES.items():
            found[name] = taken[math.ceil(share * len(taken)) - 1]  # type: ignore[literal-required]
        return found
