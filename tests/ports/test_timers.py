# SPDX-License-Identifier: MIT
"""Timers in port context."""

from __future__ import annotations

import gc
from time import monotonic, perf_counter
from typing import Any

import gevent
import pytest
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent.errors import InvalidPortError
from aemp_gevent.ports.timer_queue import MAX_TRIES
from aemp_gevent.ports.timers import Timer
from tests.support.helpers import wait_until
from tests.support.settling import PortLike, settle, wait_for_timers


def spin(seconds: float) -> None:
    """Keep the loop from running, so that several timers are due in one turn of it."""
    end = perf_counter() + seconds
    while perf_counter() < end:
        pass


def test_a_timer_calls_its_function_once_when_it_is_due(node):
    called, fired = [], Event()
    begin = monotonic()
    node.after(0.02, lambda: (called.append(monotonic()), fired.set()))  # type: ignore[func-returns-value]
    assert called == []
    assert fired.wait(5)
    assert called[0] - begin >= 0.019
    wait_for_timers(node, 0.03)
    assert len(called) == 1


@pytest.mark.parametrize("seconds", [0, 0.0, -1, -0.5, 0.001])
def test_a_timer_never_fires_inside_the_call_that_made_it(node, seconds):
    called: list[Any] = []
    node.after(seconds, called.append, "x")
    assert called == []
    wait_for_timers(node, 0.005)
    assert called == ["x"]


def test_a_timer_calls_its_function_with_the_rest_of_the_arguments(node):
    called = []
    node.after(0, lambda *args: called.append(args), 1, 2)
    wait_for_timers(node, 0.002)
    assert called == [(1, 2)]


@pytest.mark.parametrize("wrap", [str, PortLike])
def test_a_timer_sends_to_a_port(node, wrap):
    got = []
    port = node.port(lambda *msg: got.append(msg))
    node.after(0, wrap(port), "tag", 1)
    wait_for_timers(node, 0.002)
    assert got == [("tag", 1)]


def test_timers_fire_in_the_order_they_are_due(node):
    order: list[Any] = []
    took = 1.0
    while took > 0.002:  # another process had the processor in between: the first one may be due first
        order = []
        begin = monotonic()
        for seconds in (0.009, 0.003, 0.006):
            node.after(seconds, order.append, seconds)
        took = monotonic() - begin
    wait_for_timers(node, 0.015)
    assert order == [0.003, 0.006, 0.009]


def test_a_timer_counts_from_now_and_not_from_the_turns_beginning(node):
    fired = Event()
    times = []
    spin(0.03)
    begin = monotonic()
    node.after(0.02, lambda: (times.append(monotonic()), fired.set()))  # type: ignore[func-returns-value]
    assert fired.wait(5)
    assert times[0] - begin >= 0.019


def test_after_cancel_nothing_happens(node):
    called: list[Any] = []
    timer = node.after(0.001, called.append, "x")
    assert isinstance(timer, Timer)
    timer.cancel()
    timer.cancel()
    wait_for_timers(node, 0.005)
    assert called == []


def test_a_timer_may_be_cancelled_after_its_call(node):
    called: list[Any] = []
    timer = node.after(0, called.append, "x")
    wait_for_timers(node, 0.002)
    timer.cancel()
    assert called == ["x"]


def test_cancel_is_for_certain_also_when_the_call_is_queued_already(node):
    called = []
    timers: list[Any] = []
    for _ in range(3):
        timers.append(node.after(0.001, lambda: (called.append("first"), [timer.cancel() for timer in timers])))  # type: ignore[func-returns-value]
    spin(0.005)
    wait_for_timers(node, 0.005)
    assert called == ["first"]


def test_a_timer_cancels_when_its_block_is_left(node):
    called: list[Any] = []
    with node.after(0.001, called.append, "x"):
        pass
    wait_for_timers(node, 0.005)
    assert called == []


def test_dropping_the_timer_does_not_cancel(node):
    called: list[Any] = []
    node.after(0.001, called.append, "x")
    gc.collect()
    wait_for_timers(node, 0.005)
    assert called == ["x"]


def test_a_timer_may_block_and_delays_no_other_code(node):
    go_on = Event()
    called: list[Any] = []
    node.after(0, go_on.wait)
    node.after(0.001, called.append, "x")
    wait_for_timers(node, 0.005)
    assert called == ["x"]
    go_on.set()


def test_a_timer_does_not_run_on_the_hub(node):
    greenlets = []
    node.after(0, lambda: greenlets.append(getcurrent()))
    wait_for_timers(node, 0.002)
    assert greenlets[0] is not node.scheduler.hub


def test_a_timer_that_was_started_may_start_the_next(node):
    times, done = [], Event()

    def tick():
        times.append(1)
        if len(times) < 5:
            node.after(0, tick)
        else:
            done.set()

    node.after(0, tick)
    assert done.wait(5)
    settle(node)
    assert len(times) == 5


@pytest.mark.parametrize("what", [None, "", "not a port", "#p"])
def test_a_timer_for_neither_a_function_nor_a_port_is_refused_with_the_remedy(node, what):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\)"):
        node.after(0, what, "x")


def test_a_timer_after_none_never_fires(node):
    called: list[Any] = []
    timer = node.after(None, called.append, "x")
    wait_for_timers(node, 0.002)
    assert called == []
    timer.cancel()


def test_a_call_of_the_library_that_always_raises_is_not_made_forever(node, monkeypatch):
    monkeypatch.setattr("aemp_gevent.ports.timer_queue.RETRY_SECONDS", 0.001)
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *_: None)
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise LookupError

    node.scheduler.start_timer(0, call)
    wait_until(lambda: not node.scheduler.timers)
    assert len(calls) == MAX_TRIES
