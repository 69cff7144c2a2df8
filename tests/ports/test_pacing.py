# SPDX-License-Identifier: MIT
"""Pacing: slow handlers and endless work give way to sockets and timers."""

from __future__ import annotations

import itertools
from typing import Any

import gevent
import gevent.event
import gevent.local
import gevent.socket
import pytest
from gevent import get_hub

from aemp_gevent.errors import ReceiveTimeout
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.pacing import CREDIT, FIRST_LOOK, SLICE
from aemp_gevent.ports.receive import receive
from tests.support.clocks import use_clock
from tests.support.helpers import wait_until
from tests.support.settling import settle


def test_a_busy_node_serves_a_socket_within_few_turns(node, slow_clock):
    """Trap "starved sockets": gevent runs fifty of its run_callbacks between two looks at the sockets."""
    scheduler = node.scheduler
    ours, theirs = gevent.socket.socketpair()
    seen = []
    pumps = itertools.count()
    pump = scheduler.pump
    turn = [0]

    def counting_pump():
        turn[0] = next(pumps)
        pump()

    scheduler.pump = counting_pump
    sent: list[int] = []
    busy = True

    def spin():
        if busy:
            node.snd(spinner)
        if not sent and turn[0] > 5:
            theirs.send(b"x")  # there is room: it does not wait
            sent.append(turn[0])

    spinner = node.port(spin)

    def reader():
        seen.append((ours.recv(1), turn[0]))

    reading = gevent.spawn(reader)
    gevent.sleep(0)
    node.snd(spinner)
    wait_until(lambda: seen)
    busy = False
    settle(node)
    reading.join()
    ours.close()
    theirs.close()
    assert seen[0][1] - sent[0] <= 4, f"{seen[0][1] - sent[0]} turns until the socket was looked at"


@pytest.mark.parametrize(
    "take",
    [
        pytest.param(receive, id="any"),
        pytest.param(lambda: receive("tag"), id="by-tag"),
        pytest.param(lambda: receive(timeout=5), id="with-timeout"),
    ],
)
@pytest.mark.parametrize("attached", [False, True], ids=["own-greenlet", "attached"])
def test_a_reader_that_always_finds_a_message_yields_to_timers(node, slow_clock, take, attached):
    """Trap "reader never yields": the fast path spends credit, too."""
    fired: list[bool] = []
    count = [0]

    def reader():
        me = SELF()
        get_hub().loop.run_callback(fired.append, True)
        while not fired and count[0] < 50 * slow_clock:
            count[0] += 1
            node.snd(me, "tag")
            take()

    if attached:
        with node.attach():
            reader()
    else:
        node.port_async(reader)
        settle(node)
    assert fired
    assert count[0] <= 2 * slow_clock


@pytest.mark.parametrize("kind", ["ring", "bodies", "jobs", "handlers", "predicates"])
def test_code_that_keeps_itself_busy_yields_to_timers_within_a_bound(node, slow_clock, kind):
    """Runners yield to the hub after a budget, whatever it is that they run."""
    count = [0]
    fired: list[bool] = []
    limit = 50 * slow_clock

    def continues():
        if not count[0]:
            get_hub().loop.run_callback(fired.append, True)
        count[0] += 1
        return not fired and count[0] < limit

    if kind == "ring":

        def relay():
            if continues():
                node.snd(second)

        first = node.port(relay)
        second = node.port(lambda: node.snd(first))
        node.snd(first)
    elif kind == "bodies":  # a greenlet that starts another and ends

        def body():
            if continues():
                node.port_async(body)

        node.port_async(body)
    elif kind == "jobs":  # a death whose monitor makes the next

        def action():
            if continues():
                port = node.port()
                node.mon(port, action)
                node.kil(port)

        first = node.port()
        node.mon(first, action)
        node.kil(first)
    elif kind == "handlers":  # served inside a receive that finds nothing itself

        def served():
            if continues():
                node.snd(SELF(), "served")

        def host():
            node.rcv(SELF(), "served", served)
            receive("never")

        node.snd(node.port_async(host), "served")
    else:  # two that receive nothing, but whose predicates send

        def picky(other):
            def sends(*message):
                if continues():
                    node.snd(pair[other])
                return False

            receive(sends)

        pair = [node.port_async(picky, 1), node.port_async(picky, 0)]
        node.snd(pair[0])
    settle(node)
    assert fired
    assert count[0] <= 2 * slow_clock


class Work:
    """Messages that take time by a clock of their own, and how many of them are handled in each turn of the loop."""

    def __init__(self, monkeypatch) -> None:
        self.now = 1.0
        self.slow = 0
        self.most = 0
        use_clock(monkeypatch, lambda: self.now)

    def fast(self, *_message: Any) -> None:
        self.now += 1e-6

    def take_25_ms(self, *_message: Any) -> None:
        self.now += 0.025
        self.slow += 1

    def run(self, total: int) -> int:
        """Wait for so many slow ones, and return how many of them had no look at sockets and timers in between."""
        most = 0
        done = self.slow
        wanted = done + total
        while done < wanted:
            gevent.sleep(0)
            most, done = max(most, self.slow - done), self.slow
        return most


@pytest.fixture
def work(monkeypatch):
    return Work(monkeypatch)


def test_slow_handlers_of_one_port_give_way(node, work):
    port = node.port(work.take_25_ms)
    for _ in range(2 * SLICE):
        node.snd(port)
    assert work.run(2 * SLICE) <= FIRST_LOOK


def test_slow_handlers_of_many_ports_give_way(node, work):
    ports = [node.port(work.take_25_ms) for _ in range(2 * CREDIT)]
    for port in ports:
        node.snd(port)
    assert work.run(len(ports)) <= 2


def test_slow_actors_give_way(node, work):
    def body():
        while True:
            work.take_25_ms(receive())

    port = node.port_async(body)
    for _ in range(SLICE):
        node.snd(port)
    assert work.run(SLICE) <= 2


@pytest.mark.slow
def test_slow_handlers_among_fast_ones_give_way(node, work):
    """Once a turn was overrun there is a look after each message: the fast ones before them say nothing of the slow."""
    fast = [node.port(work.fast) for _ in range(4 * CREDIT)]
    slow = [node.port(work.take_25_ms) for _ in range(2 * CREDIT)]

    def most() -> int:
        for port in (*fast, *slow):
            node.snd(port)
        return work.run(len(slow))

    assert most() <= CREDIT
    assert most() <= 2


def test_fast_messages_are_not_looked_at_one_by_one(node, monkeypatch):
    looks = itertools.count()
    use_clock(monkeypatch, lambda: next(looks) * 1e-9 + 1)
    port = node.port(lambda *_: None)
    for _ in range(100 * SLICE):
        node.snd(port)
    settle(node)
    assert next(looks) <= 4 * 100


def test_a_poll_never_switches_even_when_the_turn_is_over(node, slow_clock, log):
    """A polling loop starves the others: documented, and what ``timeout=0`` is for."""
    node.port_async(log.add, "other")
    with node.attach() as me:
        for number in range(5 * slow_clock):
            node.snd(me, number)
            assert receive(timeout=0) == (number,)
            with pytest.raises(ReceiveTimeout):
                receive("other", timeout=0)
        assert log == []


def test_one_flooder_is_served_a_slice_before_its_thousand_neighbours(node, monkeypatch):
    use_clock(monkeypatch, lambda: 1.0)  # a turn that is over ends the slice as well
    order: list[str] = []
    flooded = node.port(lambda: order.append("flood"))
    for _ in range(10_000):
        node.snd(flooded)
    for _ in range(1000):
        node.snd(node.port(lambda: order.append("neighbour")))
    settle(node)
    last_neighbour = len(order) - order[::-1].index("neighbour")
    assert order[:last_neighbour].count("flood") == SLICE
    assert len(order) == 11_000
