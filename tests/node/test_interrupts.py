# SPDX-License-Identifier: MIT
"""A greenlet that is killed or timed out in the middle of any call of ours leaves the library whole.

Each call is made again and again, and interrupted at its first, second, third … switch point, until it gets to its end
without having come to that many. The interruption comes at once, or a few callbacks of the hub after the switch, in
which answers, links and deaths may arrive: how many is drawn from a seed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import greenlet
import pytest
from gevent.greenlet import Greenlet

from aemp_gevent.errors import PortDied, PortKilled
from aemp_gevent.node.node import Node
from aemp_gevent.node.spawnable_functions import spawnable
from aemp_gevent.ports.receive import get, receive
from aemp_gevent.toolkit import (
    PortEvent,
    PortQueue,
    PortSemaphore,
    RemoteEvent,
    RemotePool,
    RemoteQueue,
    RemoteSemaphore,
    death_of,
)
from tests.support.helpers import turns, wait_until
from tests.support.networking import SECRET, WAIT, MakeNode, settled_tables, tables
from tests.support.seams import network_of, ports_of
from tests.support.thoroughness import tries

DESCRIPTORS = Path("/proc/self/fd")
SEEDS = range(tries(4, 12))
DELAYS = (0, 0, 0, 1, 2, 3, 5, 8, 20, 100)
"""Callbacks that the hub makes between the switch and the interruption; 100 are some rounds of the loop."""
INTERRUPTS = {"kill": gevent.GreenletExit, "timeout": gevent.Timeout}


@pytest.fixture(params=INTERRUPTS)
def interrupt(request: pytest.FixtureRequest) -> type[BaseException]:
    return INTERRUPTS[request.param]


class Victim(Greenlet):
    """A greenlet that is interrupted when it has left for the ``point``-th time, and the hub made so many callbacks."""

    def __init__(self, function: Callable[[], Any], point: int, delay: int, error: type[BaseException]) -> None:
        super().__init__(function)
        self.left = point
        self.was_interrupted = False
        self._delay = delay
        self._error = error

    def __enter__(self) -> Victim:
        self._before = greenlet.settrace(self._switched)
        # First: so the hub looks at it before it does what the victim wants of it.
        gevent.get_hub().loop.run_callback(self._tick)
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        greenlet.settrace(self._before)
        self.kill()

    def _switched(self, _event: str, greenlets: Any) -> None:
        if greenlets[0] is self and not self.dead:
            self.left -= 1

    def _tick(self) -> None:
        if self.dead:
            return
        if self.left > 0 or self._delay > 0:
            self._delay -= self.left <= 0
            gevent.get_hub().loop.run_callback(self._tick)
        else:
            self.was_interrupted = True
            self.throw(self._error())


def every_interruption(seed: int, error: type[BaseException], function: Callable[[], Any]) -> Iterator[Victim]:
    """Make a call, interrupted at each of its switch points in turn; yield the ended greenlet each time."""
    rng = random.Random(seed)
    point = 1
    while True:
        with Victim(function, point, rng.choice(DELAYS), error) as victim:
            victim.join(timeout=WAIT)
            assert victim.dead, f"seed {seed}, point {point}: it hangs"
        yield victim
        if victim.left > 0:
            return
        point += 1


# --- calls that wait for ports ------------------------------------------------------


@spawnable
def nothing() -> None:
    """Serve as a function that is spawned."""


@spawnable
def root(number: int) -> float:
    """Serve as a function that a pool calls."""
    return math.sqrt(number)


class World:
    """Two nodes with a link, and a server on each.

    What ports of one node say to each other without anybody blocking never gets to the hub: nobody can interrupt that.
    """

    def __init__(self, make_node: MakeNode) -> None:
        self.node = make_node()
        self.other = make_node("127.0.0.1:0", self.node.NODE(), allow_spawn=[f"{__name__}.*"])
        self.here, self.there = (self.serve(node) for node in (self.node, self.other))
        self.node.call(self.there, "add", 1, 2)
        self.entry = self.node.db_set("family", "key", 1)
        self.node.db_wait("family", len, WAIT)
        self._numbers = itertools.count()
        self.queue = PortQueue(2, node=self.node)
        self.semaphore = PortSemaphore(1, node=self.node)
        self.event = PortEvent(node=self.node)

    @staticmethod
    def serve(node: Node) -> str:
        port = node.port()
        node.serve(port, add=lambda a, b: a + b, slow=lambda: gevent.sleep(0.002))
        return port

    def call_there(self) -> None:
        assert self.node.call(self.there, "add", 1, 2) == 3

    def slow_calls(self) -> None:
        with self.node.attach():
            self.node.call(self.there, "slow")
            self.node.call(self.here, "slow")

    def call_async(self) -> None:
        for result in gevent.iwait([self.node.call_async(port, "add", 1, 2) for port in (self.here, self.there)]):
            assert result.get() == 3

    def call_nobody(self) -> None:
        with pytest.raises(PortDied):
            self.node.call(f"{self.other.NODE()}#nobody", "x")

    def syncal(self) -> None:
        for port in (self.here, self.there):
            assert self.node.syncal(WAIT, port, "add", 1, 2) == (3,)

    def receive(self) -> None:
        with self.node.attach() as me:
            self.node.after(0.001, me, "x", 1)
            assert receive("x", timeout=WAIT) == ("x", 1)
            self.node.after(0.001, me, "x", 2)
            assert get("x") == (2,)

    def mon_and_spawn(self) -> None:
        with self.node.attach() as me:
            port = self.node.spawn(self.other.NODE(), f"{__name__}.nothing")
            with self.node.mon(port, me, "died"):
                self.node.kil(port)
                assert receive("died", timeout=WAIT) == ("died",)

    def db_wait(self) -> None:
        self.node.after(0.002, lambda: self.node.db_set("family", "other", 1))
        self.other.db_wait("family", lambda entries: len(entries) > 1, WAIT)
        self.node.db_del("family", "other")

    def db_family(self) -> None:
        assert self.other.db_family("family", timeout=WAIT)["key"] == 1

    def wait_for_seeds(self) -> None:
        assert self.other.wait_for_seeds(WAIT)

    def flush(self) -> None:
        assert self.node.flush(WAIT)

    def grp_snd(self) -> None:
        group = f"group {next(self._numbers)}"  # one that is not known yet
        with self.node.grp_reg(group, self.here):
            self.other.grp_snd(group, "x")

    def snd_paused(self) -> None:
        peer = network_of(self.node).peer(self.other.NODE())
        assert peer._paused_bytes == 0  # of those who were interrupted
        peer.high_water = 2_000_000
        self.node.snd(self.there, "x", b"x" * (peer.high_water + 1))
        assert peer.unsent <= peer.high_water

    def resolve_node(self) -> None:
        assert self.node.resolve_node("localhost:1").endswith(":1")

    def queue_get(self) -> None:
        self._take_all()  # what came for those who were interrupted
        self.node.after(0.001, self.queue.put, "item")
        assert RemoteQueue(self.queue, node=self.other).get(timeout=WAIT) == "item"

    def _take_all(self) -> None:
        while not self.queue.empty():
            self.queue.get()

    def queue_put(self) -> None:
        while not self.queue.full():
            self.queue.put("item")
        self.node.after(0.001, self._take_all)  # a put that was interrupted may take one of the places
        RemoteQueue(self.queue, node=self.other).put("another", timeout=WAIT)

    def semaphore_acquire(self) -> None:
        wait_until(lambda: self.semaphore.counter == 1, within=WAIT)  # nobody who was interrupted holds it
        self.semaphore.acquire()
        self.node.after(0.001, self.semaphore.release)
        with RemoteSemaphore(self.semaphore, node=self.other):
            assert self.semaphore.counter == 0

    def event_wait(self) -> None:
        self.event.clear()
        self.node.after(0.001, self.event.set)
        assert RemoteEvent(self.event, node=self.other).wait(WAIT)

    def pool(self) -> None:
        with RemotePool([self.other.NODE(), self.node.NODE()], node=self.node) as pool:
            assert pool.map(f"{__name__}.root", [1, 4, 9]) == [1, 2, 3]

    def wait_for_deaths(self) -> None:
        port = self.other.port()
        self.other.after(0.001, self.other.kil, port, "over")
        with death_of(port, node=self.node) as death:
            assert gevent.wait([death], timeout=WAIT) == [death]


CALLS = [name for name in vars(World) if not name.startswith("_") and name != "serve"]


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_interrupted_calls_leave_nothing_behind(make_node, interrupt, call):
    world = World(make_node)
    make = getattr(world, call)
    make()
    if call.startswith("db_"):
        world.node.db_del("family", "other")
    nodes = (world.node, world.other)
    settled = settled_tables(*nodes)
    interrupted = 0
    for seed in SEEDS:
        for victim in every_interruption(seed, interrupt, make):
            interrupted += victim.was_interrupted
            assert victim.exception is None or isinstance(victim.exception, interrupt), f"seed {seed}"
            wait_until(lambda: tables(*nodes) == settled, within=WAIT, show=lambda: (tables(*nodes), settled))
        make()
    assert interrupted >= len(SEEDS) // 2


@pytest.mark.slow
def test_kills_of_the_port_that_calls_leave_nothing_behind(make_node):
    """Not the greenlet is killed here, but its port, at any time: in its own greenlet, and attached."""
    world = World(make_node)
    nodes = (world.node, world.other)

    def work() -> None:
        for port in (world.here, world.there):
            world.node.call(port, "slow")
            world.node.syncal(WAIT, port, "add", 1, 2)

    def attached(told: list[str]) -> None:
        with world.node.attach() as me:
            told.append(me)
            work()

    settled = settled_tables(*nodes)
    for seed in range(tries(20, 60)):
        rng = random.Random(seed)
        told = [world.node.port_async(work)]
        helper = gevent.spawn(attached, told)
        turns(1)
        for _ in range(rng.randrange(12)):
            gevent.sleep(0.0005)
        for port in told:
            world.node.kil(port, "enough")
        helper.join(timeout=WAIT)
        assert helper.successful() or isinstance(helper.exception, PortKilled) or helper.value
        wait_until(lambda: tables(*nodes) == settled, within=WAIT, show=lambda: (tables(*nodes), settled))
    work()


# --- becoming a node, and its end -----------------------------------------------------


def descriptors() -> int:
    return len(list(DESCRIPTORS.iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["public", "slave"])
def test_an_interrupted_initialise_leaves_the_node_as_it_was(make_node, interrupt, kind):
    master = make_node()
    noderef = "localhost:0" if kind == "public" else "slave/"
    first = make_node(noderef, master.NODE())  # whatever is made once, a thread pool say, is made by now
    wait_until(lambda: master.node_is_up(first.NODE()))
    first.shutdown()
    wait_until(lambda: not master.up_nodes())
    before = descriptors()
    interrupted = 0
    for seed in SEEDS:
        node = make_node(None)
        port = node.port()
        former = node.NODE()

        def initialise() -> None:
            node.initialise_node(noderef, master.NODE(), secret=SECRET)  # noqa: B023

        for victim in every_interruption(seed, interrupt, initialise):
            interrupted += victim.was_interrupted
            if victim.successful() and not isinstance(victim.value, gevent.GreenletExit):
                break
            assert isinstance(victim.exception or victim.value, interrupt), f"seed {seed}"
            assert node.NODE() == former
            assert node.settings is None
            wait_until(lambda: not master.up_nodes(), within=WAIT, show=master.up_nodes)
        else:
            initialise()
        wait_until(lambda: master.node_is_up(node.NODE()))  # noqa: B023
        assert port.partition("#")[2] in {each.id.partition("#")[2] for each in ports_of(node).values()}
        node.shutdown()
        wait_until(lambda: not master.up_nodes(), within=WAIT, show=master.up_nodes)
    assert interrupted >= len(SEEDS) // 2
    wait_until(lambda: descriptors() <= before, within=WAIT, show=descriptors)


@pytest.mark.slow
def test_a_slave_that_is_interrupted_just_when_it_was_taken_in_is_a_whole_one(make_node, interrupt):
    master = make_node()
    node = make_node(None)
    former = node.NODE()
    node.db_set("family", "key", 1)

    class WhenTakenIn(Victim):
        def _tick(self) -> None:
            self.left = int(node.NODE() == former)
            super()._tick()

    def initialise() -> None:
        node.initialise_node("slave/", master.NODE(), secret=SECRET)

    with WhenTakenIn(initialise, 1, 0, interrupt) as victim:
        victim.join(timeout=WAIT)
    assert victim.was_interrupted
    assert node.NODE() != former
    assert master.db_wait("family", len, WAIT) == {"key": 1}
    assert master.call(node.NODE(), "time", timeout=WAIT)


@pytest.mark.slow
def test_an_interrupted_shutdown_is_a_shutdown(make_node, interrupt):
    """Less orderly, maybe; but all is closed, and a second one does no harm."""
    master = make_node()
    make_node("127.0.0.1:0", master.NODE()).shutdown()
    wait_until(lambda: not master.up_nodes())
    before = descriptors()
    interrupted = 0
    for seed in SEEDS:
        for point in range(1, 4):
            node = make_node("127.0.0.1:0", master.NODE())
            wait_until(lambda: master.node_is_up(node.NODE()))  # noqa: B023
            node.snd(f"{master.NODE()}#x", "x" * 100_000)
            with Victim(node.shutdown, point, random.Random(seed).choice(DELAYS), interrupt) as victim:
                victim.join(timeout=WAIT)
                assert victim.dead
                interrupted += victim.was_interrupted
            wait_until(lambda: not master.up_nodes(), within=WAIT, show=master.up_nodes)
            node.shutdown()
    assert interrupted >= len(SEEDS) // 2
    wait_until(lambda: descriptors() <= before, within=WAIT, show=descriptors)
    assert master.syncal(WAIT, master.NODE(), "time")
