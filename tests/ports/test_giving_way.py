# SPDX-License-Identifier: MIT
"""Giving way: greenlets that wait for messages are woken, give way, and are resumed by nothing else."""

from __future__ import annotations

from typing import Any

import gevent
import gevent.event
import gevent.local
import gevent.socket
import pytest
from gevent import get_hub

from aemp_gevent.errors import NoPortContextError, PortKilled, ReceiverBusyError, ReceiveTimeout
from aemp_gevent.ports.context import SELF, psub
from aemp_gevent.ports.receive import get, receive
from aemp_gevent.ports.timer_queue import TimerQueue
from tests.ports.logs import monitored
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.seams import ports_of
from tests.support.settling import settle

# By name: in the package's surface, "port" and "receive" are functions.


@pytest.mark.usefixtures("open_scheduler")
def test_a_runner_is_not_started_by_a_greenlet_that_waits(node, runners):
    """Trap "RecursionError": also runners are started by the hub alone, whose stack is flat."""
    starters = []
    start = node.scheduler._run

    def run(runner):
        starters.append(runner.parent)
        depth.append(_recursion_left())
        start(runner)

    depth: list[int] = []
    node.scheduler._run = run

    def nested(level):
        port = node.port(lambda: None)
        if level:
            nested(level - 1)
        else:
            node.snd(port)
            with node.attach():
                for _other in range(30):
                    node.snd(node.port(lambda: turns(1)))
                with pytest.raises(ReceiveTimeout):
                    receive(timeout=0.001)

    nested(200)
    settle(node)
    assert len(depth) > 1
    assert max(depth) - min(depth) < 20, depth
    assert set(starters) == {get_hub()}


def _recursion_left():
    """Return how many more calls fit on this greenlet's stack."""

    def down(level):
        try:
            return down(level + 1)
        except RecursionError:
            return level

    return down(0)


@pytest.mark.usefixtures("open_scheduler")
def test_a_message_sent_after_the_last_look_wakes_the_reader(node, log):
    """Trap "send while registering": scanned, empty; a finalizer sends; only then idle, then asleep."""
    scheduler = node.scheduler
    wait = scheduler.wait

    def finalizer_first(port, current, scanned):
        if not log:
            log.append("sent")
            node.snd(port.id, "late")
        wait(port, current, scanned)

    scheduler.wait = finalizer_first
    node.port_async(lambda: log.append(receive()))
    settle(node)
    assert log == ["sent", ("late",)]


@pytest.mark.usefixtures("open_scheduler")
def test_a_message_that_does_not_match_does_not_hide_one_sent_after_the_last_look(node, log):
    """Trap "send while registering": the length is compared with what was scanned, not with zero."""
    scheduler = node.scheduler
    wait = scheduler.wait

    def finalizer_first(port, current, scanned):
        if not log:
            log.append("sent")
            node.snd(port.id, "wanted")
        wait(port, current, scanned)

    scheduler.wait = finalizer_first
    port = node.port_async(lambda: log.append(get("wanted")))
    node.snd(port, "other")
    settle(node)
    assert log == ["sent", ()]


def test_hand_overs_to_waiting_greenlets_make_no_new_runners(node, runners):
    """Trap "runner leaked": a runner parks before it switches to a waiter."""
    count: list[None] = []

    def body():
        while True:
            receive()
            count.append(None)

    port = node.port_async(body)
    relay = node.port(lambda: node.snd(port))
    for _ in range(300):
        node.snd(relay)
        settle(node)
    assert len(count) == 300
    assert len(runners) <= 3


def test_a_waiter_whose_greenlet_left_is_not_switched_into(node, log):
    """Trap "stale waiter": a message queued the port, a foreign exception throws first, the greenlet leaves."""
    hub = get_hub()
    resumed = []

    class Foreign(Exception):
        pass

    def greenlet_body():
        with node.attach() as port:
            ports.append(port)
            try:
                receive()
            except Foreign:
                log.append("left")
            resumed.append(hub.switch())  # who switches in here shows
            log.append(receive())

    ports: list[str] = []
    other = gevent.spawn(greenlet_body)
    wait_until(lambda: ports)

    def collide():
        node.snd(ports[0], "message")
        other.throw(Foreign)

    on_hub(collide)
    settle(node)
    turns(3)
    assert log == ["left"]
    assert resumed == []
    on_hub(lambda: other.switch("right"))
    other.join()
    assert resumed == ["right"]
    assert log == ["left", ("message",)]


@pytest.mark.parametrize("order", ["message-first", "timer-first"])
@pytest.mark.parametrize("pattern", [(), ("tag",)], ids=["any", "by-tag"])
def test_a_message_in_the_loop_iteration_of_the_timeout_wins(node, log, order, pattern):
    """Trap "timeout beats message": scan before looking at the flag."""
    calls: list[Any] = []

    class Seen(TimerQueue):
        def set_off(self, timer: int, due: float, call: Any, args: tuple[Any, ...] = ()) -> None:
            super().set_off(timer, due, call, args)
            calls.append(call)

    node.scheduler.timers = Seen(node.scheduler.hub)
    port = node.port_async(lambda: log.append(receive(*pattern, timeout=5, default="timeout")))
    wait_until(lambda: calls)
    steps = [lambda: node.snd(port, "tag"), calls[0]]
    if order == "timer-first":
        steps.reverse()
    on_hub(lambda: [step() for step in steps])
    settle(node)
    assert log == [("tag",)]


def test_receive_on_the_hub_is_refused(node, log):
    def make():
        closures.append(psub(receive))

    closures: list[Any] = []
    port = monitored(node, node.port(make), log)
    node.snd(port)
    settle(node)

    def call():
        try:
            receive()
        except NoPortContextError:
            log.add("no context")
        closures[0]()

    on_hub(call)
    settle(node)
    assert log[0] == ("no context",)
    assert log[1][:2] == ("died", "die")
    assert log[1][2].startswith("ReceiverBusyError")


def test_attaching_the_hub_is_refused(node, log):
    def call():
        with pytest.raises(NoPortContextError):
            node.attach()
        log.append("refused")

    on_hub(call)
    assert log == ["refused"]


def test_a_stray_switch_into_a_waiting_greenlet_does_no_harm(node, log):
    port = node.port_async(lambda: log.append(receive("tag")))
    settle(node)
    waiter = ports_of(node)[port].cell.waiter
    on_hub(lambda: waiter.switch("stray"))
    settle(node)
    assert log == []
    node.snd(port, "tag")
    settle(node)
    assert log == [("tag",)]


def test_a_foreign_timeout_leaves_receive_and_the_port_works_on(node, log):
    def body():
        with gevent.Timeout(0, False):  # type: ignore[arg-type]  # False: silently
            receive()
            log.append("not here")
        log.append("timed out")
        log.append(receive())

    port = node.port_async(body)
    wait_until(lambda: log == ["timed out"], show=lambda: log)
    node.snd(port, "message")
    settle(node)
    assert log == ["timed out", ("message",)]


def test_a_foreign_timeout_that_strikes_on_the_visit_to_the_hub_loses_no_message(node, slow_clock, log):
    """The message is paid for before it is taken."""
    with node.attach() as me:
        sent = slow_clock * 4
        for number in range(sent):
            node.snd(me, "tag", number)
        strikes = 0
        while len(log) < sent:
            try:
                with gevent.Timeout(0):
                    while len(log) < sent:
                        log.append(get("tag", timeout=5)[0])
            except gevent.Timeout:
                strikes += 1
        assert strikes
        assert log == list(range(sent))


def test_nothing_is_thrown_into_an_attached_greenlet_and_its_next_receive_raises(node, log):
    event = gevent.event.Event()

    def worker():
        with node.attach() as port:
            ports.append(port)
            event.wait()
            log.add("undisturbed", SELF() == port)
            for _ in range(2):
                try:
                    receive()
                except PortKilled as killed:
                    log.add("raised", *killed.reason)

    ports: list[str] = []
    other = gevent.spawn(worker)
    wait_until(lambda: ports)
    monitored(node, ports[0], log)
    node.kil(ports[0], "reason")
    settle(node)
    assert log == [("died", "reason")]
    event.set()
    other.join()
    assert log == [("died", "reason"), ("undisturbed", True), ("raised", "reason"), ("raised", "reason")]


def test_a_second_greenlet_cannot_receive_for_a_port(node, log):
    port = node.port_async(receive)

    def intruder():
        try:
            receive()
        except ReceiverBusyError:
            log.append("busy")

    settle(node)
    node.peval_async(port, intruder).join()
    assert log == ["busy"]
