# SPDX-License-Identifier: MIT
"""M1: the memory that things take which a program may have many of, in bytes each; what each variant is, it says.

As tracemalloc counts it: what Python's allocators handed out, so not what the kernel keeps for a socket, nor what
libev and OpenSSL keep. The other ends of links are in another process. ``resident`` takes the growth of resident
memory: a greenlet has a part of CPython's stack of frames, which tracemalloc does not see.
"""

from __future__ import annotations

import gc
import os
import tracemalloc
from collections.abc import Callable

import gevent
from gevent.event import Event

from benchmarks import s3_links
from benchmarks.linked import find, open_node
from benchmarks.measure import Figure, resident_bytes
from benchmarks.peer import peer

N = 100_000
LINKS = 100
IDLE_SECONDS = 2.0
COMPARISONS = tuple(
    (variant, "")
    for variant in (
        "idle port",
        "port that got a message",
        "waiting port_async",
        "waiting port_async, resident",
        "monitored pair",
        "link",
        "peer without a link",
        "1000 directory entries",
    )
)


def grown(count: int, make: Callable[[], object], settle: Callable[[], None] = lambda: None, *, of: int = 1) -> Figure:
    """Take by how much what is allocated grows when ``make`` makes ``count`` things, for ``of`` of them."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    settle()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del made
    return {"count": count, "bytes_each": of * (after - before) / count}


def grown_resident(count: int, make: Callable[[], object], settle: Callable[[], None]) -> Figure:
    """Take by how much resident memory grows when ``make`` makes ``count`` things, for one of them."""
    before = resident_bytes()
    make()
    settle()
    after = resident_bytes()
    if before is None or after is None:
        return {"skipped": "there is no /proc/self/statm"}
    return {"count": count, "bytes_each": (after - before) / count}


def ours(n: int, variant: str = "idle port") -> Figure:
    """Make many, and divide."""
    if variant in {"link", "peer without a link"}:
        return with_peers(max(1, n * LINKS // N), variant)
    few = max(1, n // 10)
    if variant == "1000 directory entries":
        return with_entries(few)
    return with_ports(few if variant.startswith("waiting") else n, variant)


def with_ports(n: int, variant: str) -> Figure:
    """Make ports of one kind. The first one is not counted: with it the scheduler begins."""
    from aemp_gevent import mon, port, port_async, rcv, receive, snd

    def handle(_number: int) -> None:
        """Take a message."""

    def wait() -> None:
        receive()

    def make() -> object:
        if variant.startswith("waiting"):
            return port_async(wait)
        if variant == "monitored pair":
            return mon(port(), port(), "died")
        made = port(handle) if variant == "port that got a message" else port()
        if variant == "port that got a message":
            snd(made, 1)
        return None

    def settle() -> None:
        """Wait until the ports took their messages, or begin to wait."""
        done = Event()
        last = port()
        rcv(last, "end", done.set)
        snd(last, "end")
        done.wait()

    make()
    settle()

    def make_all() -> None:
        for _ in range(n):
            make()

    return (grown_resident if variant.endswith("resident") else grown)(n, make_all, settle)


def with_peers(n: int, variant: str) -> Figure:
    """Exchange a message with each of several nodes; ``peer``: wait until the links were closed because they are idle.

    With each peer two of its ports are known: the one that was asked by name, and the one that it answered with.
    """
    from aemp_gevent import attach
    from aemp_gevent.links.link import Link

    if variant == "peer without a link":
        os.environ["AEMP_IDLE_TIMEOUT"] = str(IDLE_SECONDS)  # of both processes

    def wait_for_rest() -> None:
        while variant == "peer without a link" and any(isinstance(thing, Link) for thing in gc.get_objects()):
            gevent.sleep(0.1)

    open_node()
    with peer(s3_links.__name__, "ours", str(n + 1)) as addresses, attach():
        first, *others = addresses.split()
        find(first)
        wait_for_rest()
        return grown(n, lambda: [find(address) for address in others], wait_for_rest)


def with_entries(n: int) -> Figure:
    """Set entries of the directory of a node without seeds: a key of ten characters, and a number."""
    from aemp_gevent import db_set, db_values

    open_node()
    db_set("benchmark", "first", 1)
    db_values("benchmark")

    def make() -> None:
        for number in range(n):
            db_set("benchmark", f"entry{number:05}", number)
        db_values("benchmark")

    return grown(n, make, of=1000)
