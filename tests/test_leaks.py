# SPDX-License-Identifier: MIT
"""However many ports, links and calls there were, in the end a process holds what it held at the beginning.

What is counted is blocks of memory of Python's allocator, and objects that the garbage collector tracks: resident
memory says little, because allocators keep what they got. A million ports, ten thousand links and a million calls are
tried by ``make test-thorough TIMES=10 ARGS=tests/test_leaks.py``; without ``TIMES`` a tenth, and usually a sample.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

import gevent
import pytest

from aemp_gevent import Node, receive
from aemp_gevent.errors import CallTimeout, RemoteError
from aemp_gevent.peers import remote_ports
from aemp_gevent.testing import MemoryNetwork
from tests.support.networking import SECRET, Deaths, MakeNode, free_address
from tests.support.settling import settle
from tests.support.thoroughness import repeats

pytestmark = pytest.mark.slow

Work: TypeAlias = "Callable[[int], object]"

AT_ONCE = 100
"""Ports that live, or calls that wait, at the same time: they give their memory back in each round."""

PATIENCE_SECONDS = 20.0
"""For what ends a little later than the work: greenlets, connections that the other side closes."""

ONCE_BLOCKS = 300
"""The most that tables and caches grow on the way, whatever the number."""

LINK_REST_SECONDS = 1.5
"""Nodes look for links that have ended once a second."""


class Held:
    """What the process holds: blocks of memory, and objects by type."""

    def __init__(self) -> None:
        gc.collect()
        self.blocks = sys.getallocatedblocks()
        objects = gc.get_objects()
        self.objects = len(objects)
        self.types = Counter(map(type, objects))

    def growth_since(self, before: Held) -> Growth:
        most = (self.types - before.types).most_common(5)
        return Growth(self.blocks - before.blocks, self.objects - before.objects, most)


class Growth(NamedTuple):
    blocks: int
    objects: int
    types: list[tuple[type, int]]

    def is_less_than_half(self, count: int) -> bool:
        """Return whether it is less than half an object for each of so many, beside what grows once."""
        return self.blocks < count / 2 + ONCE_BLOCKS and self.objects < count / 2


def held_at_rest(seconds: float) -> Held:
    """Return what the process holds once it gave nothing back for some seconds."""
    held, since, deadline = Held(), monotonic(), monotonic() + PATIENCE_SECONDS
    while monotonic() < min(since + seconds, deadline):
        gevent.sleep(0.05)
        later = Held()
        if later.blocks < held.blocks - 20:
            since = monotonic()
        held = later
    return held


def growth_of(work: Work, count: int, rest: float = 0.05) -> Growth:
    """Return by how much the process grew while it did the work ``count`` times, having done it before."""
    work(max(1, count // 10))
    work(max(1, count // 10))
    before = held_at_rest(rest)
    work(count)
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        grown = Held().growth_since(before)
        if grown.is_less_than_half(count) or monotonic() > deadline:
            return grown
        gevent.sleep(0.05)


def assert_no_growth(work: Work, count: int, rest: float = 0.05) -> None:
    """Assert that less than half an object is left of each time."""
    grown = growth_of(work, count, rest)
    assert grown.is_less_than_half(count), grown


# --- ports --------------------------------------------------------------------------


def test_ports_with_handlers(node: Any) -> None:
    heard = 0

    def hear(*_message: object) -> None:
        nonlocal heard
        heard += 1

    def make(count: int) -> None:
        for begin in range(0, count, AT_ONCE):
            ports = [node.port() for _ in range(min(AT_ONCE, count - begin))]
            for number, port in enumerate(ports):
                node.rcv(port, "tag", hear)
                node.mon(port, hear)
                node.snd(port, "tag", number)
                node.kil(port, "enough", number)
            settle(node)

    count = repeats(2_000, 80_000)
    assert_no_growth(make, count)
    assert heard == 2 * (count + 2 * (count // 10))


def test_ports_with_greenlets(node: Any) -> None:
    def body(number: int) -> None:
        assert receive() == (number,)

    def make(count: int) -> None:
        for begin in range(0, count, AT_ONCE):
            for number in range(min(AT_ONCE, count - begin)):
                node.snd(node.port_async(body, number), number)
            settle(node)

    count = repeats(1_000, 20_000)
    assert_no_growth(make, count)


# --- links --------------------------------------------------------------------------


def echoing(server: Node) -> str:
    """Return a port of a node that answers calls."""
    port = server.port()
    server.serve(port, "echo", lambda value: value)
    server.serve(port, "refuse", refuse)
    server.rcv(port, "never", ignore)
    return port


def ignore(*_args: object) -> None:
    """Do nothing."""


def refuse(*_args: object) -> None:
    raise ValueError("no")


def test_links_that_end_in_order(make_node: MakeNode) -> None:
    """With them whole nodes: each visitor connects, asks, monitors, and shuts down."""
    port, address = echoing(make_node(accept_rate=1e6)), free_address()

    def visit(count: int) -> None:
        for number in range(count):
            visitor = Node()
            visitor.initialise_node(address, secret=SECRET)
            visitor.mon(port, ignore)
            assert visitor.call(port, "echo", number) == number
            visitor.shutdown()

    count = repeats(200, 500)
    assert_no_growth(visit, count, rest=LINK_REST_SECONDS)


def test_links_that_break(monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, where the test can cut them. What is logged would be kept by pytest."""
    monkeypatch.setattr(logging.getLogger("aemp_gevent"), "disabled", True)
    with MemoryNetwork(seed=1) as network:
        client, server = network.node(), network.node()
        port = echoing(server)

        def lose(count: int) -> None:
            for number in range(count):
                lost = Deaths()
                client.mon(port, lost)
                assert client.call(port, "echo", number) == number
                assert network.cut(client, server) == 1
                lost.wait()

        count = repeats(200, 500)
        assert_no_growth(lose, count, rest=LINK_REST_SECONDS)


# --- calls --------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize(("how", "thoroughly"), [("call", 20_000), ("call_async", 20_000), ("failing", 10_000)])
def test_calls(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, where: str, how: str, thoroughly: int) -> None:
    # A node remembers so many of the ports that it answered to, and reaches that while the test begins.
    monkeypatch.setattr(remote_ports, "MAX_REMOTE_PORTS", 50)
    server = make_node()
    port, caller = echoing(server), server if where == "here" else make_node()

    def ask(number: int) -> None:
        if how == "call":
            assert caller.call(port, "echo", number) == number
        elif how == "call_async":
            assert caller.call_async(port, "echo", number).get() == number
        elif number % 2:
            with pytest.raises(RemoteError):
                caller.call(port, "refuse")
        else:
            with pytest.raises(CallTimeout):
                caller.call(port, "never", timeout=0)

    def ask_all(count: int) -> None:
        def some(begin: int) -> None:
            with caller.attach():
                for number in range(begin, count, 10):
                    ask(number)

        gevent.joinall([gevent.spawn(some, begin) for begin in range(10)], raise_error=True)

    count = repeats(1_000, thoroughly)
    assert_no_growth(ask_all, count)


# --- the measure itself -------------------------------------------------------------


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param(lambda number: [number], id="a tracked object"),
        pytest.param(str, id="a block of memory"),
        pytest.param(lambda _number: bytes(1_000), id="a large buffer"),
    ],
)
def test_leak_of_one_thing_in_each_turn_would_be_noticed(
    leak: Callable[[int], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "PATIENCE_SECONDS", 0.1)
    kept: list[object] = []

    def work(count: int) -> None:
        kept.extend(leak(number) for number in range(1000, 1000 + count))

    count = 1_000
    assert not growth_of(work, count).is_less_than_half(count)
