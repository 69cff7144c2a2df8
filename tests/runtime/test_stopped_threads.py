# SPDX-License-Identifier: MIT
"""A thread stops anywhere in a call, while another one keeps running: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable

import gevent
import greenlet
import pytest
from gevent.event import Event

from aemp_gevent import receive
from aemp_gevent.ports import port as port_module
from aemp_gevent.ports.tap import MailboxTap
from tests.support.helpers import turns, wait_until
from tests.support.injecting import Injector, StoppedThread, between_bytecodes
from tests.support.native import threading
from tests.support.networking import WAIT, RawPeer
from tests.support.seams import ports_of
from tests.support.settling import settle
from tests.support.thoroughness import sampled
from tests.support.threads import in_thread

pytestmark = between_bytecodes


def at_every_point(scene: Callable[[int], StoppedThread], *, at_least: int = 3) -> None:
    """Play a scene in which a thread stops at a point, for the first point, the second, and so on to the last."""
    points = itertools.count(1)
    last = next(point for point in points if not scene(point).has_stopped)
    assert last > at_least, "the tracer sees the library"


class Stage:
    """A port of one kind, what happens to it while a thread stands in the middle of sending to it, and what it got."""

    def __init__(self, node) -> None:
        self.node = node
        self.got: list[object] = []
        self.deaths: list[tuple[object, ...]] = []
        self.event = Event()
        self.inside = False
        self.port = ""

    def callback(self, **options):
        self.port = self.node.port(self.got.append, **options)
        return self.watched()

    def actor(self):
        def act():
            while True:
                self.got.extend(receive())

        self.port = self.node.port_async(act)
        settle(self.node)
        return self.watched()

    def blocked(self, **options):
        """A port inside its handler, which has had its first message."""

        self.blocking(**options)
        self.send_first()
        settle(self.node)
        return self

    def blocking(self, **options):
        """A port whose handler blocks at the message "first"."""

        def handler(message):
            assert not self.inside, "two greenlets in one port"
            self.inside = True
            self.got.append(message)
            if message == "first":
                self.event.wait()
            self.inside = False

        self.port = self.node.port(handler, **options)
        return self.watched()

    def watched(self):
        self.node.mon(self.port, lambda *reason: self.deaths.append(reason))
        return self

    def send_first(self):
        self.node.snd(self.port, "first")

    def send_other(self):
        self.node.snd(self.port, "other")

    def kill(self):
        self.node.kil(self.port, "killed")

    def take_over(self):
        def act():
            while True:
                self.got.extend(receive())

        self.node.rcv_async(self.port, act)
        self.event.set()

    def tap(self):
        """See what is sent to the port from now on, until untap()."""
        self.seen: list[object] = []
        self.tapped = MailboxTap(ports_of(self.node)[self.port], self.seen.append)
        return self

    def untap(self):
        self.tapped.close()

    def then(self, *calls):
        for call in calls:
            call()
            turns(20)  # not settle(): the thread may stand where a pump is asked for


def _nothing():
    pass


MIDDLES = {
    # name: (the port, what happens to it meanwhile, whether it must be dead)
    "first-message": (lambda stage: stage.callback(), lambda stage: _nothing, False),
    "somebody-else-sends": (lambda stage: stage.callback(), lambda stage: stage.send_other, False),
    "actor": (lambda stage: stage.actor(), lambda stage: stage.send_other, False),
    "killed": (lambda stage: stage.callback(), lambda stage: stage.kill, True),
    "actor-killed": (lambda stage: stage.actor(), lambda stage: stage.kill, True),
    "blocks-meanwhile": (lambda stage: stage.blocking(), lambda stage: stage.send_first, False),
    "blocked": (lambda stage: stage.blocked(), lambda stage: stage.event.set, False),
    "blocked-and-killed": (lambda stage: stage.blocked(), lambda stage: stage.kill, True),
    "blocked-and-taken-over": (lambda stage: stage.blocked(), lambda stage: stage.take_over, False),
    "taken-over": (lambda stage: stage.callback(), lambda stage: stage.take_over, False),
    "bounded": (lambda stage: stage.callback(limit=9), lambda stage: _nothing, False),
    "bounded-and-taken-over": (lambda stage: stage.blocked(limit=9), lambda stage: stage.take_over, False),
    "bounded-and-killed": (lambda stage: stage.blocked(limit=9), lambda stage: stage.kill, True),
}

REPLACED = {
    # The inbox adds by code of its own, or the mailbox is replaced while a thread is in it; as above.
    "traced": (lambda stage: stage.callback(), lambda stage: _nothing, False),
    "traced-and-killed": (lambda stage: stage.blocked(), lambda stage: stage.kill, True),
    "traced-and-taken-over": (lambda stage: stage.blocked(), lambda stage: stage.take_over, False),
    "tap-begins": (lambda stage: stage.blocked(limit=9), lambda stage: stage.tap, False),
    "tap-ends": (lambda stage: stage.callback().tap(), lambda stage: stage.untap, False),
    "tapped-and-killed": (lambda stage: stage.blocked().tap(), lambda stage: stage.kill, True),
    "bounded-and-tapped-and-taken-over": (
        lambda stage: stage.blocked(limit=9).tap(),
        lambda stage: stage.take_over,
        False,
    ),
    "traced-and-tapped-and-taken-over": (lambda stage: stage.blocked().tap(), lambda stage: stage.take_over, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("middle", [*MIDDLES, *REPLACED])
def test_a_thread_that_stops_anywhere_in_snd_loses_nothing_and_breaks_nothing(make_node, monkeypatch, middle):
    make, happens, dies = MIDDLES.get(middle) or REPLACED[middle]
    monkeypatch.setattr(port_module, "_are_traced", middle.startswith("traced"))

    def scene(point):
        node = make_node(None)
        stage = make(Stage(node))
        thread = StoppedThread(lambda: stage.node.snd(stage.port, "injected"), point)
        stage.then(happens(stage))
        thread.proceed()
        settle(node)
        context = f"stopped at point {point}: {stage.got} {stage.deaths}"
        if dies:
            assert stage.deaths == [("killed",)], context
            assert stage.got.count("injected") <= 1, context
        else:
            node.snd(stage.port, "second")
            turns(5)
            stage.event.set()
            wait_until(lambda: "second" in stage.got)
            assert stage.got.count("injected") == 1, context
            node.snd(stage.port, "last")
            node.kil(stage.port, "end")
            wait_until(lambda: stage.deaths)
            settle(node)
            assert stage.deaths == [("end",)], context
            assert stage.got[-1] == "last", context
        assert ports_of(node) == {}, context
        return thread

    at_every_point(scene, at_least=4)


@pytest.mark.slow
@pytest.mark.parametrize("middle", MIDDLES)
def test_a_thread_that_stops_anywhere_in_kil_kills_once(make_node, monkeypatch, middle):
    make, happens, dies = MIDDLES[middle]
    unmonitored: list[object] = []

    def scene(point):
        node = make_node(None)
        stage = make(Stage(node))
        monkeypatch.setattr(node.scheduler.owner, "unmonitored_death", lambda *death: unmonitored.append(death))
        thread = StoppedThread(lambda: stage.node.kil(stage.port, "thread"), point)
        stage.then(happens(stage))
        thread.proceed()
        node.snd(stage.port, "too late")
        stage.event.set()
        wait_until(lambda: stage.deaths, show=lambda: f"stopped at point {point}")
        settle(node)
        assert stage.deaths in ([("thread",)], [("killed",)] if dies else []), f"stopped at point {point}"
        assert "too late" not in stage.got
        assert unmonitored == [], f"stopped at point {point}: it died twice"
        assert ports_of(node) == {}
        return thread

    at_every_point(scene, at_least=4)


@pytest.mark.slow
def test_a_thread_that_stops_anywhere_while_it_fills_a_bounded_mailbox_ends_the_port_once(make_node, monkeypatch):
    def scene(point):
        node = make_node(None)
        unmonitored: list[object] = []
        monkeypatch.setattr(node.scheduler.owner, "unmonitored_death", lambda *death: unmonitored.append(death))
        stage = Stage(node).blocked(limit=2)
        node.snd(stage.port, "dropped")
        node.snd(stage.port, "dropped")
        thread = StoppedThread(lambda: stage.node.snd(stage.port, "too much"), point)
        node.kil(stage.port, "killed")
        stage.then(stage.event.set)
        thread.proceed()
        settle(node)
        wait_until(lambda: stage.deaths)
        settle(node)
        assert stage.deaths in ([("mailbox_overflow", 2)], [("killed",)]), f"stopped at point {point}"
        assert unmonitored == [], f"stopped at point {point}: it died twice"
        assert ports_of(node) == {}
        return thread

    at_every_point(scene)


@pytest.mark.slow
def test_a_thread_that_stops_anywhere_while_it_overflows_a_port_that_waits_ends_it_once(make_node, monkeypatch):
    def scene(point):
        node = make_node(None)
        unmonitored: list[object] = []
        monkeypatch.setattr(node.scheduler.owner, "unmonitored_death", lambda *death: unmonitored.append(death))
        stage = Stage(node)
        stage.port = node.port(limit=2)
        node.rcv_async(stage.port, lambda: receive("never sent", timeout=0.003, default=None))
        stage.watched()
        node.snd(stage.port, "kept")
        node.snd(stage.port, "kept")
        turns(2)
        thread = StoppedThread(lambda: stage.node.snd(stage.port, "too much"), point)
        with contextlib.suppress(AssertionError):  # it may have to wait for the thread
            wait_until(lambda: not ports_of(node), within=0.05)
        thread.proceed()
        wait_until(lambda: not ports_of(node))
        settle(node)
        assert stage.deaths in ([("mailbox_overflow", 2)], [()]), f"stopped at point {point}"
        assert unmonitored == [], f"stopped at point {point}: it died twice"
        return thread

    at_every_point(scene)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sent", "lost"])
def test_a_thread_that_stops_anywhere_while_it_sends_does_not_wait_for_a_closed_node(make_node, end):
    aside = gevent.get_hub().threadpool.apply

    def scene(point):
        node = make_node(high_water_bytes=1)
        with RawPeer.dial(node) as peer:
            peer.shake()
            wait_until(node.up_nodes)
            node.snd(f"{peer.name}#p", "known")
            thread = StoppedThread(lambda: node.snd(f"{peer.name}#p", "x" * 100), point, aside)
            if end == "lost":
                peer.close()
                wait_until(lambda: not node.up_nodes())
            else:
                turns(5)
            thread.proceed()
            if end == "sent":
                assert [peer.packet()[1] for _ in range(2)] == ["known", "x" * 100]
        node.shutdown(0)
        return thread

    at_every_point(scene, at_least=20)


@pytest.mark.slow
def test_two_threads_that_stop_anywhere_in_snd_to_a_new_port_are_both_heard(make_node):
    def scene(point):
        node = make_node(None)
        stage = Stage(node).callback()
        first = StoppedThread(lambda: stage.node.snd(stage.port, 1), point)
        in_thread(node.snd, stage.port, 2)
        first.proceed()
        settle(node)
        assert sorted(stage.got) == [1, 2], f"stopped at point {point}"
        node.kil(stage.port)
        settle(node)
        return first

    at_every_point(scene)


def _other_thread(call, *args):
    """Make a call in another thread, while this one waits, and the hub with it."""
    errors = []

    def run():
        try:
            call(*args)
        except BaseException as error:  # noqa: BLE001  # looked at below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive()
    assert errors == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["callback", "bounded", "traced"])
@pytest.mark.parametrize("does", ["snd", "kil"])
def test_a_thread_that_gets_the_interpreter_anywhere_in_a_ports_life_is_heard(node, monkeypatch, does, kind):
    """The other way round: the node's thread stands anywhere, while another one makes a whole call."""
    monkeypatch.setattr(port_module, "_are_traced", kind == "traced")

    def scene(chosen):
        got: list[object] = []
        deaths: list[tuple[object, ...]] = []

        def act():
            while True:
                got.append(receive()[0])

        def handler(number):
            got.append(number)
            if number == 1:
                node.rcv_async(port, act)

        port = node.port(handler, limit=99 if kind == "bounded" else None)
        node.mon(port, lambda *reason: deaths.append(reason))
        call = (node.snd, port, "injected") if does == "snd" else (node.kil, port, "injected")
        with Injector(lambda: _other_thread(*call), chosen) as injector:
            for number in range(5):
                node.snd(port, number)
                if number == 2:
                    settle(node)
            settle(node)
            sys.settrace(None)
            greenlet.settrace(None)
        settle(node)
        node.snd(port, "last")
        node.kil(port, "end")
        settle(node)
        numbers = [message for message in got if message != "injected"]
        if does == "snd" or not injector.fired:
            assert numbers == [0, 1, 2, 3, 4, "last"]
            assert got.count("injected") == injector.fired
            assert deaths == [("end",)]
        else:
            assert numbers == list(range(5))[: len(numbers)]
            assert deaths == [("injected",)]
        assert ports_of(node) == {}
        return injector.count

    total = scene(lambda _count: False)
    assert total > 150, "the tracer sees the library"
    for point in sampled(range(1, total + 1), 60):
        try:
            scene(lambda count, point=point: count == point)
        except BaseException:
            print(f"at point {point} of {total}")
            raise
