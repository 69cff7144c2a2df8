# SPDX-License-Identifier: MIT
"""zerorpc: calls of a function of another process."""

from __future__ import annotations

import gevent
import zerorpc
from gevent import socket
from gevent.pool import Group

from benchmarks import n1_net_pingpong, n4_net_rpc100
from benchmarks.bare import LOOPBACK
from benchmarks.measure import Figure, clock, figure, settle
from benchmarks.peer import peer


class Adder:
    """What is served."""

    def add(self, number: int) -> int:
        """Return the number plus one."""
        return number + 1


def serve() -> str:
    """Serve an adder on a free port."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    server = zerorpc.Server(Adder())
    server.bind(f"tcp://{LOOPBACK}:{port}")
    gevent.spawn(server.run)
    return str(port)


def client(address: str) -> zerorpc.Client:
    """Connect, and make a first call."""
    made = zerorpc.Client(timeout=30)
    made.connect(f"tcp://{LOOPBACK}:{address}")
    made.add(0)
    return made


def serve_n1(variant: str) -> str:
    """Serve an adder."""
    return serve()


def n1(n: int, variant: str) -> Figure:
    """One call after the other; a tenth of the work, because each takes ten times as long."""
    with peer(__name__, "n1", variant) as address:
        calls = client(address)
        settle()
        started = clock()
        for number in range(n // 10):
            calls.add(number)
        return figure(n // 10, n1_net_pingpong.UNIT, clock() - started)


def serve_n4(variant: str) -> str:
    """Serve an adder."""
    return serve()


def n4(n: int, variant: str) -> Figure:
    """100 greenlets on one client; a tenth of the work."""
    callers = n4_net_rpc100.CALLERS
    share = max(1, n // 10 // callers)
    with peer(__name__, "n4", variant) as address:
        calls = client(address)

        def caller() -> None:
            for number in range(share):
                if calls.add(number) != number + 1:
                    raise RuntimeError("a reply reached the wrong caller")

        settle()
        started = clock()
        group = Group()
        for _ in range(callers):
            group.spawn(caller)
        group.join(raise_error=True)
        return figure(share * callers, n4_net_rpc100.UNIT, clock() - started)
