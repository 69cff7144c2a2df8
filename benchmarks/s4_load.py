# SPDX-License-Identifier: MIT
"""S4: how long requests to another process take, against the load; a variant is a percentage.

A run first finds out how many requests a second there can be, with 100 outstanding. Then it sends as many again at
random times, like independent clients, at the given share of that rate. A request's time begins when it was due to be
sent, so what waits behind a slow one is counted, too. The sender looks at the clock in each round of its loop, and so
keeps its processor busy at every load.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import gevent
import msgpack
from gevent import socket
from gevent.event import Event

from benchmarks.bare import connect, serve_one
from benchmarks.linked import find, open_node, publish
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.n4_net_rpc100 import coalescer, on_messages
from benchmarks.peer import peer

N = 20_000
COMPARISONS = tuple((str(percent), str(percent)) for percent in (10, 30, 50, 70, 90))
UNIT = "requests/s"
OUTSTANDING = 100
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


class Requests:
    """Sends requests, and takes the times of their answers."""

    def __init__(self, n: int, send: Callable[[int], None]) -> None:
        self._n = n
        self._send = send
        self._done = Event()
        self._unsent = self._unanswered = 0
        self._due: list[float] = []
        self._seconds: list[float] = []

    def answered(self, number: int) -> None:
        """Take an answer."""
        if self._due:
            self._seconds.append(clock() - self._due[number])
        elif self._unsent:
            self._unsent -= 1
            self._send(0)
        self._unanswered -= 1
        if not self._unanswered:
            self._done.set()

    def flood(self) -> float:
        """Return how many requests a second there can be."""
        first = min(OUTSTANDING, self._n)
        self._unsent, self._unanswered = self._n - first, self._n
        settle()
        started = clock()
        for _ in range(first):
            self._send(0)
        self._done.wait()
        return self._n / (clock() - started)

    def pace(self, rate: float) -> Figure:
        """Send at random times, and return how long the answers took."""
        dice = random.Random(1)
        gaps = (dice.expovariate(rate) for _ in range(self._n))
        self._unanswered = self._n
        self._done.clear()
        hub, (one, other) = gevent.get_hub(), socket.socketpair()
        settle()
        with one, other:
            # Can always be written to, so waiting for that is a round of the loop.
            next_round = hub.loop.io(one.fileno(), 2)
            begin = clock() + 0.01
            self._due = [begin + gap for gap in itertools.accumulate(gaps)]
            for number, due in enumerate(self._due):
                while clock() < due:
                    hub.wait(next_round)
                self._send(number)
            self._done.wait()
            seconds = clock() - begin
        taken = sorted(self._seconds)
        found = figure(self._n, UNIT, seconds)
        for name, share in PERCENTILES.items():
            found[name] = taken[math.ceil(share * len(taken)) - 1]  # type: ignore[literal-required]
        return found


def under_load(requests: Requests, variant: str) -> Figure:
    """Find out the possible rate, and send at a share of it."""
    return requests.pace(requests.flood() * int(variant) / 100)


def serve_ours(variant: str) -> str:
    """A callback port that answers the port named in the message."""
    from aemp_gevent import NODE, rcv, snd

    rcv(publish(), "ask", lambda number, reply: snd(reply, "answer", number))
    return NODE()


def ours(n: int, variant: str = "50") -> Figure:
    """Callback ports on both sides."""
    from aemp_gevent import attach, port, rcv, snd

    open_node()
    with peer(__name__, "ours", variant) as address, attach():
        server, client = find(address), port()
        requests = Requests(n, lambda number: snd(server, "ask", number, client))
        rcv(client, "answer", requests.answered)
        return under_load(requests, variant)


def serve_ceiling(variant: str) -> str:
    """Answer from the hub's I/O callback, coalesced."""

    def answer(sock: socket.socket) -> None:
        send, pack = coalescer(sock), msgpack.Packer().pack
        watcher = on_messages(sock, lambda each, number: send(pack((each, number))))
        gevent.get_hub().switch()
        del watcher

    return serve_one(answer)


def ceiling(n: int, variant: str = "50") -> Figure:
    """One socket, a number in each message, one write a loop iteration, read by the hub's I/O callback."""
    with peer(__name__, "ceiling", variant) as address, connect(address) as sock:
        send, pack = coalescer(sock), msgpack.Packer().pack
        requests = Requests(n, lambda number: send(pack((0, number))))
        watcher = on_messages(sock, lambda _each, number: requests.answered(number))
        found = under_load(requests, variant)
        del watcher
        return found
