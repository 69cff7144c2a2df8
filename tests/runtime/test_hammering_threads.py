# SPDX-License-Identifier: MIT
"""Many threads send and kill at once, and the interpreter switches between them as often as it can.

``make test-hammering`` repeats these tests with the compiled modules, which switch threads at fewer places.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import gevent
import pytest

from aemp_gevent import receive
from tests.support.helpers import wait_until
from tests.support.native import threading
from tests.support.networking import WAIT
from tests.support.seams import ports_of
from tests.support.settling import settle
from tests.support.thoroughness import TIMES
from tests.support.threads import Thread


@pytest.fixture(params=range(TIMES) if TIMES > 1 else None)
def eager_switches():
    """Make the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


THREADS = 4


class Record:
    """What a port got, by sender; each sender's numbers must come in order, with no hole and none twice."""

    def __init__(self) -> None:
        self.numbers: dict[int, list[int]] = {}

    def take(self, sender: int, number: int) -> None:
        self.numbers.setdefault(sender, []).append(number)

    def is_complete(self, count: int, senders: int = THREADS) -> bool:
        return sum(map(len, self.numbers.values())) >= count * senders

    def check(self, count: int) -> None:
        for sender, numbers in self.numbers.items():
            assert numbers == list(range(count)), f"sender {sender}: {numbers[:20]}…"


def _together(work: Callable[[int], None]) -> list[Thread]:
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> None:
        barrier.wait(WAIT)
        work(number)

    return [Thread(lambda number=number: run(number)) for number in range(THREADS)]


@pytest.mark.slow
def test_hammering_all_kinds_of_ports_from_many_threads(make_node, eager_switches):
    a, b = make_node(high_water_bytes=2000), make_node()
    count = 3000
    records = [Record() for _ in range(4)]
    callback = a.port(records[0].take)

    def act():
        while True:
            records[1].take(*receive())

    actor = a.port_async(act)
    bounded = a.port(records[2].take, limit=10**6)
    remote = b.port(records[3].take)
    ports = [callback, actor, bounded, remote]

    def work(sender):
        for number in range(count):
            for port in ports:
                a.snd(port, sender, number)

    threads = _together(work)
    for number in range(count):  # the node's own thread takes part
        for port in ports:
            a.snd(port, THREADS, number)
        gevent.sleep(0)
    for thread in threads:
        thread.result(60)
    wait_until(
        lambda: all(record.is_complete(count, THREADS + 1) for record in records),
        within=60,
        show=lambda: [{who: len(got) for who, got in record.numbers.items()} for record in records],
    )
    for record in records:
        record.check(count)
    a.kil(actor)
    settle(a)


@pytest.mark.slow
def test_hammering_ports_that_get_a_greenlet_of_their_own_meanwhile(make_node, eager_switches):
    """The inbox is taken away from the runner while threads append to it: nothing may be lost, or overtake."""
    node = make_node(None)
    ports, per_port = 1500, 12
    records = [Record() for _ in range(ports)]
    ids = []

    def prepare(record, limit):
        def act():
            while not record.is_complete(per_port):
                record.take(*receive())

        def first(*message):
            node.rcv_async(port, act)
            record.take(*message)

        port = node.port(first, limit=limit)
        ids.append(port)

    for number, record in enumerate(records):
        prepare(record, 10**6 if number % 2 else None)

    def work(sender):
        for port in ids:
            for number in range(per_port):
                node.snd(port, sender, number)

    threads = _together(work)
    for thread in threads:
        thread.result(60)
    wait_until(lambda: not ports_of(node), within=60, show=lambda: [record.numbers for record in records][:3])
    for record in records:
        record.check(per_port)


@pytest.mark.slow
def test_hammering_ports_that_are_killed_meanwhile(make_node, eager_switches):
    """Each thread kills ports of its own after some messages; others kill theirs in the middle of it."""
    node = make_node(None)
    rounds = 2000
    own: list[list[str]] = [[] for _ in range(THREADS)]
    got: dict[str, list[int]] = {}
    deaths: dict[str, list[tuple[object, ...]]] = {}

    def victim():
        messages: list[int] = []
        port = node.port(messages.append)
        got[port] = messages
        deaths[port] = []
        node.mon(port, lambda *reason: deaths[port].append(reason))
        return port

    for ports in own:
        ports.extend(victim() for _ in range(rounds))
    shared = [victim() for _ in range(rounds)]

    def work(sender):
        for port, common in zip(own[sender], shared, strict=True):
            for number in range(5):
                node.snd(port, number)
                node.snd(common, number)
            node.kil(port, "thread", sender)
            node.kil(common, "somebody")
            node.snd(port, "too late")

    threads = _together(work)
    for port in shared[::2]:
        node.snd(port, -1)
        node.kil(port, "somebody")
        gevent.sleep(0)
    for thread in threads:
        thread.result(60)
    wait_until(lambda: not ports_of(node), within=60, show=lambda: len(ports_of(node)))
    settle(node)
    for sender, ports in enumerate(own):
        for port in ports:
            assert got[port] == [0, 1, 2, 3, 4]
            assert deaths[port] == [("thread", sender)]
    assert all(deaths[port] == [("somebody",)] for port in shared)


@pytest.mark.slow
def test_hammering_bounded_mailboxes_until_they_overflow(make_node, eager_switches):
    node = make_node(None)
    deaths: list[tuple[object, ...]] = []
    ports = [node.port(lambda *_message: None, limit=5) for _ in range(2000)]
    for port in ports:
        node.mon(port, lambda *reason: deaths.append(reason))

    def work(_sender):
        for port in ports:
            for number in range(10):
                node.snd(port, number)

    for thread in _together(work):
        thread.result(60)
    for port in ports:
        node.kil(port)
    wait_until(lambda: len(deaths) == len(ports), within=30, show=lambda: len(deaths))
    settle(node)
    assert set(deaths) <= {(), ("mailbox_overflow", 5)}


@pytest.mark.slow
def test_hammering_a_slow_link_blocks_threads_and_loses_nothing(make_node, eager_switches):
    """Many threads, a tiny high-water mark, large messages: everybody is blocked most of the time."""
    a, b = make_node(high_water_bytes=500), make_node()
    count = 400
    record = Record()
    remote = b.port(lambda sender, number, _load: record.take(sender, number))

    def work(sender):
        for number in range(count):
            a.snd(remote, sender, number, b"x" * 3000)

    threads = _together(work)
    for number in range(count):
        a.snd(remote, THREADS, number, b"x" * 3000)
    for thread in threads:
        thread.result(60)
    wait_until(lambda: record.is_complete(count, THREADS + 1), within=60)
    record.check(count)
