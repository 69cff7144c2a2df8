# SPDX-License-Identifier: MIT
"""What ``ours`` of every network row does before its clock starts: become a node, publish a port, find the other's.

Imports the library inside its functions, as the rows do.
"""

from __future__ import annotations

from benchmarks.peer import secret

NAME = "bench"


def open_node() -> None:
    """Become a public node on a free port of loopback, with this run's secret."""
    from aemp_gevent import initialise_node

    initialise_node("127.0.0.1:0", secret=secret())


def publish() -> str:
    """In the peer: become a node and return a port of well-known name that answers "hello" with its real ID."""
    from aemp_gevent import port, rcv, reg, snd

    open_node()
    published = port()
    rcv(published, "hello", lambda reply: snd(reply, "hello", published))
    reg(published, NAME)
    return published


def find(address: str) -> str:
    """In the driver, from a port: return the peer's published port. The link is up when this returns."""
    from aemp_gevent import SELF, receive, snd

    snd(f"{address}#{NAME}", "hello", SELF())
    _, published = receive("hello", timeout=20)
    return str(published)
