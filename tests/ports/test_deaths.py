# SPDX-License-Identifier: MIT
"""Deaths: kills reach the right port, in order, and are reported once."""

from __future__ import annotations

import itertools

import gevent
import gevent.event
import gevent.local
import gevent.socket
import greenlet
import pytest

from aemp_gevent.errors import PortKilled
from aemp_gevent.ports.context import SELF, psub
from aemp_gevent.ports.pacing import SLICE
from aemp_gevent.ports.receive import receive
from tests.ports.logs import monitored
from tests.support.helpers import Proxy, on_hub, wait_until
from tests.support.seams import ports_of
from tests.support.settling import settle


def test_a_kill_of_a_port_whose_callback_is_inside_peval_of_another_hits_the_right_one(node, log):
    """Trap "kill hits the wrong code": what the runner serves is kept apart from SELF."""
    other = monitored(node, node.port(), log)

    def borrows():
        try:
            node.peval(other, gevent.event.Event().wait)
        except PortKilled as killed:
            log.add("thrown", *killed.reason)
            raise

    port = node.port(borrows)
    node.snd(port)
    settle(node)
    node.kil(other, "other")
    settle(node)
    assert log == [("died", "other")], "a kill of the borrowed context is not for the borrower"
    node.kil(port, "this")
    settle(node)
    assert log == [("died", "other"), ("thrown", "this")]


def test_a_kill_of_an_attached_port_throws_nothing_into_the_handler_that_attached_it(node, log):
    """Trap "kill hits the wrong code": the runner serves the handler's port, not the attached one."""
    event = gevent.event.Event()

    def handler():
        try:
            with node.attach() as mine:
                attached.append(mine)
                event.wait()
                log.add("woke")
                receive()
        except PortKilled as killed:
            log.add("receive raised", *killed.reason)

    attached: list[str] = []
    port = monitored(node, node.port(handler), log)
    node.snd(port)
    settle(node)
    node.kil(attached[0], "attached")
    settle(node)
    assert log == []
    event.set()
    settle(node)
    wait_until(lambda: len(log) == 2, show=lambda: log)
    assert log == [("woke",), ("receive raised", "attached")]
    assert port in ports_of(node)


def test_a_kill_of_a_port_that_was_served_does_not_hit_the_port_that_its_runner_serves_now(node, log, runners):
    """Trap "kill hits the wrong code": the runner already serves another."""
    event = gevent.event.Event()
    first = node.port(lambda: None)

    def blocks():
        event.wait()
        log.add("second went on")

    second = node.port(blocks)
    node.snd(first)
    node.snd(second)
    settle(node)
    assert len(runners) == 1
    monitored(node, first, log)
    node.kil(first, "reason")
    settle(node)
    assert log == [("died", "reason")]
    event.set()
    wait_until(lambda: len(log) == 2, show=lambda: log)


@pytest.mark.parametrize("kind", ["callback", "handlers", "own greenlet", "by tag"])
def test_a_kill_stands_in_line_behind_messages_and_before_later_ones(node, log, kind):
    """Trap "kill overtakes, or messages follow it"."""
    if kind == "callback":
        port = node.port(log.add)
    elif kind == "handlers":
        port = node.rcv(node.port(), "tag", log.add, [1], log.add, [2], log.add)
    else:

        def body():
            while True:
                log.add(*receive(*((1, 2, 3)[:0] if kind == "own greenlet" else ([int],))))

        port = node.port_async(body)
        settle(node)
    monitored(node, port, log)
    node.snd(port, 1)
    node.snd(port, 2)
    node.kil(port, "reason")
    node.snd(port, 3)
    settle(node)
    assert log == [(1,), (2,), ("died", "reason")]


def test_a_kill_stands_behind_more_messages_than_a_slice_has(node, log):
    port = node.port(log.add)
    monitored(node, port, log)
    for number in range(SLICE * 3):
        node.snd(port, number)
    node.kil(port, "reason")
    settle(node)
    assert log == [(number,) for number in range(SLICE * 3)] + [("died", "reason")]


def test_a_blocked_handler_is_interrupted_by_a_kill(node, log):
    """Trap "blocked port never dies"; the backlog is dropped, and the monitor fires after the ``finally`` blocks."""

    def callback(number):
        try:
            gevent.event.Event().wait()
        finally:
            log.add("finally", number, SELF() in ports_of(node))

    port = node.port(callback)
    monitored(node, port, log)
    node.snd(port, 1)
    node.snd(port, 2)
    settle(node)
    node.snd(port, 3)
    node.kil(port, "reason")
    settle(node)
    assert log == [("finally", 1, False), ("died", "reason")]


def test_a_handler_that_blocks_after_its_port_was_killed_is_interrupted(node, log):
    """Trap "blocked port never dies": the kill came first, behind the message, and then the handler blocks."""

    def callback():
        log.add("handled")
        gevent.event.Event().wait()

    port = monitored(node, node.port(callback), log)
    node.snd(port)
    node.kil(port, "reason")
    settle(node)
    assert log == [("handled",), ("died", "reason")]


def test_a_handler_that_blocks_in_a_later_slice_of_a_killed_port_is_interrupted(node, log):
    """Trap "blocked port never dies": in between the port was queued, where the reaper passes it over."""

    def callback(number):
        log.append(number)
        if number == SLICE + 1:
            gevent.event.Event().wait()

    port = node.port(callback)
    node.mon(port, log.append)
    for number in range(SLICE * 2):
        node.snd(port, number)
    node.kil(port, "reason")
    settle(node)
    assert log == [*range(SLICE + 2), "reason"]


def test_a_greenlet_that_blocks_after_the_message_before_the_kill_is_interrupted(node, log):
    """Trap "blocked port never dies": it was killed while it waited in ``receive``, which still returns the message."""

    def body():
        log.add(*receive())
        gevent.event.Event().wait()

    port = monitored(node, node.port_async(body), log)
    settle(node)
    node.snd(port, "message")
    node.kil(port, "reason")
    settle(node)
    assert log == [("message",), ("died", "reason")]


@pytest.mark.usefixtures("open_scheduler")
def test_a_greenlet_killed_on_its_visit_to_the_hub_is_interrupted_when_it_blocks(node, log, slow_clock):
    """Trap "blocked port never dies": a port on its visit is queued, where the reaper passes it over."""
    visits: list[bool] = []
    visit_hub = node.scheduler.visit_hub

    def visit(*args):
        visits.append(True)
        visit_hub(*args)

    node.scheduler.visit_hub = visit

    def body():
        me = SELF()
        for number in range(slow_clock * 3):
            node.snd(me, number)
        node.kil(me, "reason")
        while not visits:
            receive()
        gevent.event.Event().wait()

    monitored(node, node.port_async(body), log)
    settle(node)
    assert visits
    assert log == [("died", "reason")]


def test_a_greenlet_that_a_timeout_drives_out_of_the_receive_of_a_killed_port_is_interrupted(node, log):
    """Trap "blocked port never dies": the kill queued the port, the foreign Timeout throws first."""

    class Foreign(Exception):
        pass

    def body():
        try:
            receive()
        except Foreign:
            log.add("left")
        gevent.event.Event().wait()

    port = monitored(node, node.port_async(body), log)
    settle(node)
    waiter = ports_of(node)[port].cell.waiter

    def collide():
        node.kil(port, "reason")
        waiter.throw(Foreign)

    on_hub(collide)
    settle(node)
    assert log == [("left",), ("died", "reason")]


def test_messages_sent_by_finalizers_of_a_dropped_backlog_vanish(node, log):
    """An exception drops the backlog; what a finalizer in it sends to the dying port is sent after the kill."""

    class Sends:
        def __del__(self):
            node.snd(port, "posthumous")

    def fails():
        raise ValueError

    event = gevent.event.Event()
    port = node.port(lambda what: log.append(what) if isinstance(what, str) else None)
    node.snd(port, Sends())
    node.peval(port, fails)
    event.set()
    settle(node)
    assert log == []
    assert port not in ports_of(node)


def test_a_greenlet_of_its_own_is_interrupted_outside_receive_and_the_rest_is_dropped(node, log):
    def body():
        log.add(*receive())
        try:
            gevent.event.Event().wait()
        except PortKilled as killed:
            log.add("thrown", *killed.reason)
            raise

    port = monitored(node, node.port_async(body), log)
    node.snd(port, "first")
    settle(node)
    node.snd(port, "second")
    node.kil(port, "why")
    settle(node)
    assert log == [("first",), ("thrown", "why"), ("died", "why")]


def test_kil_self_returns_and_earlier_messages_are_still_handled(node, log):
    def callback(what):
        log.add(what)
        if what == "die":
            node.kil(SELF(), "reason")
            node.snd(SELF(), "too late")
            log.add("went on")

    port = monitored(node, node.port(callback), log)
    for what in ("die", "before"):
        node.snd(port, what)
    settle(node)
    assert log == [("die",), ("went on",), ("before",), ("died", "reason")]


def test_kil_self_in_a_greenlet_returns_and_the_next_wait_raises_again_and_again(node, log):
    def body():
        me = SELF()
        node.snd(me, "before")
        node.kil(me, "reason")
        log.add(*receive())
        for _ in range(3):
            with pytest.raises(PortKilled) as caught:
                receive(timeout=0)
            log.add("raised", *caught.value.reason)

    monitored(node, node.port_async(body), log)
    settle(node)
    assert log == [("before",), *[("raised", "reason")] * 3, ("died", "reason")]


def test_kil_self_interrupts_the_next_sleep(node, log):
    def body():
        node.kil(SELF(), "reason")
        try:
            gevent.event.Event().wait()
        except PortKilled:
            log.add("raised")
            raise

    monitored(node, node.port_async(body), log)
    settle(node)
    assert log == [("raised",), ("died", "reason")]


def test_an_exception_in_a_handler_drops_the_backlog(node, log):
    def callback(number):
        log.add(number)
        if number == 2:
            raise ZeroDivisionError("division by zero")

    port = monitored(node, node.port(callback), log)
    for number in range(5):
        node.snd(port, number)
    settle(node)
    assert log == [(0,), (1,), (2,), ("died", "die", "ZeroDivisionError: division by zero")]


def test_an_exception_in_psub_kills_at_once_and_drops_the_backlog_of_an_idle_port(node, log):
    closures = []

    def callback(what):
        log.add(what)
        if what == "make":
            closures.append(psub(lambda: 1 / 0))

    port = monitored(node, node.port(callback), log)
    node.snd(port, "make")
    settle(node)
    node.snd(port, "dropped")
    assert closures[0]() is None
    node.snd(port, "too late")
    settle(node)
    assert log == [("make",), ("died", "die", "ZeroDivisionError: division by zero")]


@pytest.mark.parametrize("end", ["exception", "true", "return", "second kill"])
def test_the_first_kill_wins_and_a_monitor_of_a_dying_port_gets_its_reason(node, log, end):
    def callback():
        node.kil(SELF(), "first")
        node.mon(SELF(), lambda *reason: log.add("died", *reason))
        if end == "exception":
            raise ValueError
        if end == "second kill":
            node.kil(SELF(), "second")
        return end == "true"

    if end == "return":
        node.port_async(callback)
    else:
        node.snd(node.port(callback))
    settle(node)
    assert log == [("died", "first")]


def test_a_kill_from_outside_by_gevent_is_an_abnormal_death(node, log):
    def callback():
        gevent.event.Event().wait()

    port = monitored(node, node.port(callback), log)
    node.snd(port)
    settle(node)
    runner = ports_of(node)[port].cell.runner
    on_hub(lambda: runner.throw(greenlet.GreenletExit))
    settle(node)
    assert log == [("died", "die", "GreenletExit")]


@pytest.mark.slow
def test_twenty_thousand_linked_ports_die_together(node):
    deaths = []
    ports = [node.port() for _ in range(20_000)]
    for watched, victim in itertools.pairwise(ports):
        node.mon(watched, victim)
    node.mon(ports[-1], lambda *reason: deaths.append(reason))
    node.kil(ports[0], "reason")
    wait_until(lambda: deaths, within=20)
    assert deaths == [("reason",)]
    assert ports_of(node) == {}


def test_a_monitor_action_sees_the_port_dead_and_may_use_every_function(node, log):
    port = node.port(lambda: True)

    def action():
        log.add(port in ports_of(node))
        node.snd(node.port(log.add), "from the action")

    node.mon(port, action)
    node.snd(port)
    settle(node)
    assert log == [(False,), ("from the action",)]


def test_what_a_port_sent_before_it_died_comes_before_the_news_of_its_death(node, log):
    watcher = node.port(log.add)

    def callback():
        for number in range(3):
            node.snd(watcher, number)
        raise ValueError

    port = node.port(callback)
    node.mon(port, watcher, "died")
    node.snd(port)
    settle(node)
    assert log == [(0,), (1,), (2,), ("died", "die", "ValueError")]


def test_a_proxy_in_a_reason_is_not_looked_into(node):
    got: list[object] = []
    proxy = Proxy()
    port, waits = node.port(), node.port(receive)
    node.snd(waits)
    for each in (port, waits):
        node.mon(each, lambda *reason: got.extend(reason))
        node.kil(each, proxy)
        settle(node)
    assert len(got) == 2
    assert all(each is proxy for each in got)
