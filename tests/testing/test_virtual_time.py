# SPDX-License-Identifier: MIT
"""Virtual time: timers expire at once and in order, and the same seed gives the same schedule."""

from __future__ import annotations

import time
from itertools import pairwise

import gevent
import pytest
from gevent.event import AsyncResult, Event

from aemp_gevent import Node, receive
from aemp_gevent.errors import CallTimeout, ReceiveTimeout
from aemp_gevent.otp import Child, Server, Supervisor, call
from aemp_gevent.runtime import loop_watch
from aemp_gevent.testing import MemoryNetwork, VirtualTime, wait_until
from aemp_gevent.toolkit import death_of
from tests.support.threads import in_thread


@pytest.fixture
def virtual():
    with VirtualTime(seed=7) as virtual:
        yield virtual


@pytest.fixture
def node(virtual):
    node = Node()
    with node.attach():
        yield node
    node.shutdown()


# --- timers ---


def test_an_hour_passes_at_once(virtual):
    gevent.sleep(3600)
    assert virtual.seconds == 3600


def test_timers_expire_in_the_order_of_their_times(virtual):
    seen = []
    for seconds in (3, 1, 2):
        gevent.spawn_later(seconds, lambda seconds=seconds: seen.append((seconds, virtual.seconds)))
    gevent.sleep(2.5)
    assert seen == [(1, 1), (2, 2)]
    gevent.sleep(1)
    assert seen[2:] == [(3, 3)]


def test_no_time_passes_while_anything_can_run(virtual):
    late = gevent.spawn_later(1e-9, lambda: None)
    for _ in range(1000):
        gevent.sleep(0)
    assert not late.ready()
    assert virtual.seconds == 0
    late.join()
    assert virtual.seconds == 1e-9


def test_every_timeout_of_gevent_is_virtual(virtual):
    with gevent.Timeout(5, False):
        Event().wait()
    assert virtual.seconds == 5
    assert not Event().wait(5)
    assert virtual.seconds == 10
    with pytest.raises(gevent.Timeout):
        AsyncResult().get(timeout=5)
    assert virtual.seconds == 15
    assert gevent.wait([Event()], timeout=5) == []
    assert virtual.seconds == 20


def test_cancelled_timers_do_not_expire_and_take_no_time(virtual):
    timeout = gevent.Timeout.start_new(5)
    timeout.close()
    greenlet = gevent.spawn_later(7, lambda: None)
    greenlet.kill()
    gevent.sleep(10)
    assert virtual.jumps == 1


def wait_for_nothing(timers: int) -> float:
    """Wait with timers that do not keep the loop alive; return how much time has passed."""
    with VirtualTime() as virtual:
        for _ in range(timers):
            gevent.get_hub().loop.timer(1, ref=False).start(lambda: None)
        with pytest.raises(gevent.exceptions.LoopExit):
            Event().wait()
        return virtual.seconds


@pytest.mark.parametrize("timers", [0, 2])
def test_waiting_for_nothing_ends_as_in_real_time(timers):
    # In a thread, whose loop has nothing that other tests left: that would keep it alive.
    assert in_thread(wait_for_nothing, timers) == 0


def test_a_timer_that_lets_go_of_the_loop_while_it_runs_no_longer_keeps_it_alive():
    def wait() -> tuple[float, float]:
        with VirtualTime() as virtual:
            timer = gevent.get_hub().loop.timer(1)
            timer.start(lambda: None)
            timer.ref = False
            with pytest.raises(gevent.exceptions.LoopExit):
                Event().wait()
            before = virtual.seconds
            timer.ref = True
            with pytest.raises(gevent.exceptions.LoopExit):
                Event().wait()
            return before, virtual.seconds

    assert in_thread(wait) == (0, 1)


def test_timers_that_are_due_at_the_same_time_expire_in_the_order_of_the_seed():
    def order(seed: int) -> list[int]:
        seen: list[int] = []
        with VirtualTime(seed):
            for number in range(5):
                gevent.spawn_later(1, seen.append, number)
            gevent.sleep(2)
        return seen

    orders = [order(seed) for seed in range(10)]
    assert orders == [order(seed) for seed in range(10)]
    assert len({tuple(each) for each in orders}) > 5


def test_what_a_timer_raises_is_reported_and_the_others_expire(virtual, monkeypatch):
    errors = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda _context, kind, *_rest: errors.append(kind))
    timer = gevent.get_hub().loop.timer(1)
    timer.start(lambda: 1 / 0)
    gevent.sleep(2)
    assert errors == [ZeroDivisionError]


def test_repeated_timers_expire_again_until_they_are_stopped(virtual):
    seen = []
    timer = gevent.get_hub().loop.timer(1, 2)
    timer.start(lambda: seen.append(virtual.seconds))
    gevent.sleep(6)
    timer.stop()
    gevent.sleep(6)
    assert seen == [1, 3, 5]


# --- the library ---


def test_the_times_of_the_library_are_virtual(node, virtual):
    with pytest.raises(ReceiveTimeout):
        receive(timeout=10)
    assert virtual.seconds == 10
    with pytest.raises(CallTimeout):
        node.call(node.port(lambda *_: None), "x", timeout=10)
    assert virtual.seconds == 20
    with pytest.raises(AssertionError):
        wait_until(lambda: False, within=10)
    assert virtual.seconds == pytest.approx(30, abs=0.1)


class Idle(Server):
    """Notes when it is idle."""

    def init(self, clock, notes) -> None:
        self.idle_after = 10
        self.clock, self.notes = clock, notes

    @call
    def touch(self) -> None:
        pass

    def idle(self) -> None:
        self.notes.append(self.clock.seconds)


def test_a_server_is_idle_exactly_so_many_seconds_after_its_last_message(node, virtual):
    notes: list[float] = []
    idle = Idle.start(virtual, notes)
    for _ in range(3):
        gevent.sleep(3)
        idle.touch()
    gevent.sleep(21)
    assert notes == pytest.approx([19, 29])


def test_a_crash_loop_is_given_up_after_minutes(node, virtual):
    def crash() -> None:
        raise ValueError("at once")

    tree = Supervisor.start([Child(crash)])
    assert death_of(tree, node=node).get()[:2] == ("gave_up", "crash")
    assert 141 <= virtual.seconds <= 213


def test_a_child_that_recovers_is_restarted_after_short_pauses_forever(node, virtual):
    lives: list[float] = []

    def work() -> None:
        lives.append(virtual.seconds)
        gevent.sleep(60)
        raise ValueError("now and then")

    tree = Supervisor.start([Child(work)])
    gevent.sleep(3600)
    pauses = [later - earlier - 60 for earlier, later in pairwise(lives)]
    assert len(lives) >= 59
    assert max(pauses) <= 0.15001
    tree.stop()


def test_a_lost_link_is_noticed_in_virtual_time():
    with MemoryNetwork(5, time="virtual") as network:
        assert network.virtual is not None
        one, other = network.node(), network.node()
        port = other.port()
        death = death_of(port, node=one)
        one.snd(port, "hello")
        wait_until(lambda: one.node_is_up(other.NODE()), within=60)
        before = network.virtual.seconds
        network.block(other, one)
        reason = death.get(timeout=600)
        assert reason[0] == "transport_error"
        assert 1 < network.virtual.seconds - before < 120


# --- seeds ---


def story(seed: int) -> list[object]:
    """What happens in a small world with faults."""
    notes: list[object] = []
    with MemoryNetwork(seed, jitter=0.05, split=0.5, time="virtual") as network:
        clock = network.virtual
        nodes = [network.node(), network.node()]
        for node in nodes:
            node.reg(node.port(lambda *msg, node=node: notes.append((clock.seconds, node.NODE(), *msg))), "log")

        def talk(node: Node, to: Node) -> None:
            for number in range(5):
                node.snd(f"{to.NODE()}#log", number, node.port())
                gevent.sleep(network.dice.random())

        talks = [gevent.spawn(talk, *pair) for pair in (nodes, nodes[::-1])]
        gevent.sleep(1)
        network.cut(*nodes)
        gevent.joinall(talks)
        gevent.sleep(5)
    return notes


def test_the_same_seed_gives_the_same_schedule_and_another_one_another():
    first = story(1)
    assert len(first) > 5
    assert story(1) == first
    assert story(2) != first


# --- beginning and end ---


def test_real_time_is_back_afterwards():
    real = gevent.get_hub().loop
    clock = loop_watch.monotonic
    with VirtualTime():
        assert gevent.get_hub().loop is not real
        assert loop_watch.monotonic is time.monotonic
    assert gevent.get_hub().loop is real
    from aemp_gevent.ports import receiving as module

    assert module.monotonic is time.monotonic is clock
    gevent.sleep(0.001)


def test_one_virtual_time_at_once_and_only_two_kinds(virtual):
    with pytest.raises(RuntimeError, match="runs already"):
        VirtualTime().begin()
    virtual.end()
    virtual.end()
    with pytest.raises(ValueError, match="time must be 'real' or 'virtual', not 'fast'"):
        MemoryNetwork(time="fast")
