# SPDX-License-Identifier: MIT
"""The timers of a node, behind one timer of the loop."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent.exceptions import LoopExit

from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports import timer_queue
from aemp_gevent.ports.timer_queue import TimerQueue
from aemp_gevent.runtime.hub_calls import see_through
from aemp_gevent.testing.virtual_time import VirtualTime
from tests.support.helpers import wait_until
from tests.support.injecting import Injector, between_bytecodes, strike_points
from tests.support.threads import in_thread

TRACED = ("ports/timer_queue.py",)


class StrikeError(Exception):
    """What strikes."""


class Alarms:
    """A hub and its loop, which note after how many seconds the timers of the loop ring."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.loop = self

    def timer(self, seconds: float) -> Any:
        self.seconds.append(seconds)
        return gevent.get_hub().loop.timer(seconds)


@pytest.fixture
def queue() -> TimerQueue:
    return TimerQueue(gevent.get_hub())


def set_off(queue: TimerQueue, seconds: float, call: Callable[..., object], *args: Any) -> int:
    timer = queue.new()
    queue.set_off(timer, timer_queue.monotonic() + seconds, call, args)  # which may be virtual
    return timer


def ends_the_loop() -> bool:
    """Say whether the loop ends: nothing is left that it waits for."""
    try:
        gevent.get_hub().switch()
    except LoopExit:
        return True
    return False


def test_calls_are_made_when_they_are_due_whatever_is_set_off_and_ended_meanwhile() -> None:
    with VirtualTime(seed=1) as virtual:
        dice, queue = random.Random(2), TimerQueue(gevent.get_hub())
        due: dict[int, float] = {}
        made: list[tuple[int, float]] = []
        expected: list[tuple[int, float]] = []
        for number in range(2000):
            seconds = dice.choice((0.0, 1.0, 5.0, 30.0, dice.random()))
            due[number] = virtual.seconds + seconds
            timers = {number: set_off(queue, seconds, lambda number=number: made.append((number, virtual.seconds)))}
            if dice.random() < 0.8:
                queue.end(timers[number])
            else:
                expected.append((number, due[number]))
            if dice.random() < 0.05:
                gevent.sleep(dice.choice((0.0, 0.5, 3.0)))
        gevent.sleep(40)
        assert len(queue) == 0
        assert [at for _, at in made] == sorted(at for _, at in made)
        assert dict(made) == pytest.approx(dict(expected)) and len(made) == len(expected)


def test_those_due_at_the_same_time_are_made_in_the_order_in_which_they_were_set_off(queue: TimerQueue) -> None:
    made: list[int] = []
    now = monotonic()
    for number in range(20):
        queue.set_off(queue.new(), now, made.append, (number,))
    wait_until(lambda: len(made) == 20)
    assert made == list(range(20))


def test_many_timers_that_end_early_need_one_timer_of_the_loop() -> None:
    alarms = Alarms()
    queue = TimerQueue(alarms)
    for _ in range(200):
        queue.end(set_off(queue, 30, print))
    assert len(alarms.seconds) == 1


def test_no_timer_of_the_loop_is_shorter_than_the_loops_can_wait() -> None:
    """libuv warns of those; it also rings up to a millisecond early, and then the rest is as short."""
    alarms = Alarms()
    queue = TimerQueue(alarms)
    made: list[float] = []
    for seconds in (0.0009, 0.0004, 0.0):
        set_off(queue, seconds, made.append, seconds)
    wait_until(lambda: len(made) == 3)
    assert alarms.seconds and all(seconds == 0 or seconds >= 0.001 for seconds in alarms.seconds)


def test_a_timer_that_is_due_earlier_than_all_others_is_in_time(queue: TimerQueue) -> None:
    made: list[float] = []
    ended = [set_off(queue, seconds, print) for seconds in (60, 30)]
    begin = monotonic()
    set_off(queue, 0.01, lambda: made.append(monotonic()))
    wait_until(lambda: made)
    assert made[0] - begin >= 0.01
    for timer in ended:
        queue.end(timer)


def test_a_call_that_sets_off_the_next_does_not_keep_the_loop_from_its_other_work(
    queue: TimerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    now = monotonic()
    monkeypatch.setattr(timer_queue, "monotonic", lambda: now)  # so that what is set off is due at once

    def again() -> None:
        gevent.get_hub().loop.run_callback(made.append, "loop")
        made.append("timer")
        if len(made) < 20:
            set_off(queue, 0, again)

    set_off(queue, 0, again)
    wait_until(lambda: len(made) > 20)
    assert made[:4] == ["timer", "loop"] * 2


def test_ended_timers_keep_neither_what_they_were_to_call_nor_ever_more_entries(queue: TimerQueue) -> None:
    class Large:
        pass

    large = Large()
    known = weakref.ref(large)
    queue.end(set_off(queue, 600, print, large))
    del large
    gc.collect()
    assert known() is None
    for _ in range(20):
        for _ in range(100):
            queue.end(set_off(queue, 600, print))
        gevent.sleep(0.001)
    # How many entries there are is not to be seen from outside; the alarm that clears them away rings at once.
    assert len(queue) == 0


def test_the_loop_ends_when_no_timer_is_left_though_the_alarm_was_set() -> None:
    def wait() -> tuple[float, float]:
        with VirtualTime(seed=1) as virtual:
            queue = TimerQueue(gevent.get_hub())
            queue.end(set_off(queue, 600, print))
            assert ends_the_loop()
            before = virtual.seconds
            set_off(queue, 300, print)  # earlier than the alarm, and then later
            queue.end_all()
            set_off(queue, 500, print)
            assert ends_the_loop()
            return before, virtual.seconds

    # In a thread, whose loop has nothing that other tests left: that would keep it alive.
    assert in_thread(wait) == (0, pytest.approx(500))


def test_a_timer_keeps_the_node_of_its_call_alive_and_an_ended_one_does_not() -> None:
    node = LocalNode()
    made: list[int] = []
    node.after(0.01, made.append, 1)
    known = weakref.ref(node.scheduler)
    node.after(600, print).cancel()
    del node
    gc.collect()
    assert known() is not None
    wait_until(lambda: made == [1])
    node = LocalNode()
    node.after(600, print).cancel()
    known = weakref.ref(node.scheduler)
    del node
    gc.collect()
    assert known() is None


def test_a_call_that_raises_is_made_again_and_keeps_no_other_from_its_time(
    queue: TimerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda _context, kind, *_rest: reported.append(kind))
    monkeypatch.setattr(gevent.get_hub(), "handle_system_error", lambda *_args: pytest.fail("the main greenlet got it"))
    made: list[str] = []

    def failing() -> None:
        made.append("failing")
        if len(made) < 3:
            raise LookupError

    now = monotonic()
    queue.set_off(queue.new(), now, failing)
    queue.set_off(queue.new(), now, made.append, ("other",))
    wait_until(lambda: made == ["failing", "other", "failing"])
    assert reported == [LookupError] and len(queue) == 0


@pytest.mark.no_cover
@between_bytecodes
def test_wherever_an_exception_strikes_the_other_timers_make_their_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer_queue, "RETRY_SECONDS", 0.001)
    monkeypatch.setattr(timer_queue, "SPARE", 3)
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *_args: None)

    def strike() -> None:
        raise StrikeError

    for point in itertools.count(1):
        queue = TimerQueue(gevent.get_hub())
        made: set[int] = set()
        wanted: set[int] = set()

        def start(number: int, queue: TimerQueue = queue, made: set[int] = made, wanted: set[int] = wanted) -> int:
            timer = queue.new()
            queue.set_off(timer, monotonic() + number % 3 / 1000, made.add, (number,))
            wanted.add(number)
            return timer

        with Injector(strike, point.__eq__, strike_points, TRACED) as injector:
            for number in range(12):
                with suppress(StrikeError):
                    timer = start(number)
                    if number % 2:
                        wanted.discard(number)
                        see_through(queue.end, timer)
                    elif number == 6:
                        gevent.sleep(0.002)
            gevent.sleep(0.004)
        wait_until(lambda: wanted <= made, within=3, show=lambda: (point, wanted, made))  # noqa: B023
        wait_until(lambda: len(queue) == 0, within=3, show=lambda: point)  # noqa: B023
        if not injector.fired:
            break
    assert point > 50
