# SPDX-License-Identifier: MIT
"""Monitors: one-shot, cancellable for certain, run by nobody's killer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent.ports import monitors
from aemp_gevent.ports.monitors import KillMonitor, Monitor, MonitoredRemote
from aemp_gevent.ports.scheduler import Scheduler
from tests.support.helpers import wait_until
from tests.support.seams import ports_of
from tests.support.settling import settle


def monitors_of(monitored):
    """Return the monitors of a monitored thing, in the order they were registered."""
    found = monitored.monitors
    if found is None:
        return []
    return list(found) if isinstance(found, dict) else [found]


class Calls(list[tuple[object, ...]]):
    """An action that notes the reasons it was called with."""

    def __call__(self, *reason: object) -> None:
        self.append(reason)


# --- the register of one monitored thing ----------------------------------------


class Noted(MonitoredRemote):
    """A watch that notes whenever its last monitor was cancelled."""

    def __init__(self, emptied: list[bool]) -> None:
        super().__init__()
        self.emptied = emptied

    def unmonitored(self) -> None:
        self.emptied.append(True)


def monitored_by(count: int):
    emptied: list[bool] = []
    watch = Noted(emptied)
    found = [Monitor(watch, Calls(), None, Scheduler()) for _ in range(count)]
    for monitor in found:
        monitors.add(watch, monitor)
    return watch, found, emptied


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_monitors_are_listed_in_the_order_they_were_registered(count):
    watch, found, _ = monitored_by(count)
    assert monitors_of(watch) == found


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_watch_hears_once_when_its_last_monitor_is_cancelled(count):
    watch, found, emptied = monitored_by(count)
    for monitor in found:
        assert emptied == []
        monitor.cancel()
        monitor.cancel()
    assert emptied == [True]
    assert watch.monitors is None


def test_removing_a_monitor_of_something_else_does_nothing():
    watch, found, emptied = monitored_by(2)
    _, strangers, _ = monitored_by(1)
    monitors.remove(watch, strangers[0])
    assert monitors_of(watch) == found
    lone, [only], lone_emptied = monitored_by(1)
    monitors.remove(lone, strangers[0])
    assert monitors_of(lone) == [only]
    assert emptied == lone_emptied == []


def test_firing_a_watch_takes_all_monitors_off_and_queues_the_wanted_ones(node):
    watch, emptied, calls = Noted([]), [], [Calls() for _ in range(3)]  # type: ignore[var-annotated]
    watch.emptied = emptied
    found = [Monitor(watch, call, None, Scheduler()) for call in calls]
    for monitor in found:
        monitors.add(watch, monitor)
    found[1]._action = None  # cancelled at the very moment of the loss
    order: list[object] = []
    watch.fire(node.scheduler, ("gone",), lambda: order.append([len(call) for call in calls]))
    assert watch.monitors is None
    assert calls == [[], [], []], "they are queued, not run"
    watch.fire(node.scheduler, ("again",), lambda: order.append("nobody is left"))
    settle(node)
    assert calls == [[("gone",)], [], [("gone",)]]
    assert order == [[1, 0, 0], "nobody is left"], "right before the last"
    assert emptied == [], "nobody cancelled: the peer need not be told"


def test_a_monitor_runs_its_action_once_with_the_reason():
    calls = Calls()
    monitor = Monitor(None, calls, None, Scheduler())
    assert monitor.died(("why", 1)) is True
    monitor.run()
    monitor.run()
    assert calls == [("why", 1)]


def test_a_cancelled_monitor_does_not_want_to_run():
    monitor = Monitor(None, Calls(), None, Scheduler())
    monitor.cancel()
    assert monitor.died(("why",)) is False


def test_a_kill_monitor_kills_its_victim_and_needs_no_turn_of_its_own(node):
    victim = node.port()
    calls = Calls()
    node.mon(victim, calls)
    monitor = KillMonitor(None, ports_of(node)[victim])
    assert monitor.died(("why",)) is False
    settle(node)
    assert calls == [("why",)]


def test_a_cancelled_kill_monitor_spares_its_victim(node):
    victim = node.port()
    monitor = KillMonitor(None, ports_of(node)[victim])
    monitor.cancel()
    assert monitor.died(("why",)) is False
    settle(node)
    assert victim in ports_of(node)


# --- what mon promises ----------------------------------------------------------


def test_actions_run_in_the_order_they_were_registered(node):
    order: list[int] = []
    port = node.port()
    for number in range(5):
        node.mon(port, lambda *_reason, number=number: order.append(number))
    node.kil(port)
    settle(node)
    assert order == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("reason", [(), ("why",), ("die", {"a": 1}, None)])
def test_an_action_gets_the_reason_and_runs_once(node, reason):
    port, calls = node.port(), Calls()
    node.mon(port, calls)
    node.kil(port, *reason)
    node.kil(port, "again")
    settle(node)
    node.kil(port, "and again")
    settle(node)
    assert calls == [reason]


def test_reasons_go_by_reference(node):
    port, calls, thing = node.port(), Calls(), object()
    node.mon(port, calls)
    node.kil(port, thing)
    settle(node)
    assert calls[0][0] is thing


def test_after_cancel_the_action_does_not_run(node):
    port, calls = node.port(), Calls()
    guard = node.mon(port, calls)
    guard.cancel()
    guard.cancel()
    node.kil(port)
    settle(node)
    guard.cancel()
    assert calls == []


def test_cancelling_one_of_several_leaves_the_others(node):
    port, calls = node.port(), [Calls() for _ in range(3)]
    guards = [node.mon(port, call) for call in calls]
    guards[1].cancel()
    node.kil(port)
    settle(node)
    assert calls == [[()], [], [()]]


def test_cancel_is_for_certain_also_after_the_kill(node):
    port, calls = node.port(), Calls()
    guard = node.mon(port, calls)
    node.kil(port)
    guard.cancel()
    settle(node)
    assert calls == []


def test_cancel_is_for_certain_also_when_the_action_is_queued_already(node):
    port, calls = node.port(), Calls()
    guards: list[Any] = []
    node.mon(port, lambda *_reason: [guard.cancel() for guard in guards])
    guards = [node.mon(port, calls), node.mon(port, calls)]
    node.kil(port)
    settle(node)
    assert calls == []


def test_cancel_is_for_certain_also_for_a_port_that_never_existed(node):
    calls = Calls()
    node.mon(f"{node.NODE()}#never", calls).cancel()
    node.mon("elsewhere#p", calls).cancel()
    settle(node)
    assert calls == []


def test_a_guard_cancels_when_its_block_is_left(node):
    port, calls = node.port(), Calls()
    with node.mon(port, calls) as guard:
        assert isinstance(guard, Monitor)
    node.kil(port)
    settle(node)
    assert calls == []


def test_dropping_the_guard_does_not_cancel(node):
    port, calls = node.port(), Calls()
    node.mon(port, calls)
    node.kil(port)
    settle(node)
    assert calls == [()]


def test_a_monitor_may_cancel_itself_in_its_own_action(node):
    port, calls = node.port(), Calls()

    def action(*reason):
        guard.cancel()
        calls(*reason)

    guard = node.mon(port, action)
    node.kil(port)
    settle(node)
    assert calls == [()]


@pytest.mark.parametrize("how", ["kil", "True", "exception", "peval", "end of its greenlet"])
def test_actions_never_run_inside_the_stack_of_the_one_who_killed(node, how):
    in_killer = [True]
    ran_inside = []

    def die():
        in_killer[0] = True
        try:
            match how:
                case "kil":
                    node.kil(port)
                case "peval":
                    node.peval(port, lambda: 1 / 0)
                case "exception":
                    raise LookupError
            return True
        finally:
            in_killer[0] = False

    if how == "end of its greenlet":
        port = node.port_async(die)
    else:
        port = node.port(die)
        node.snd(port)
    killer = []
    node.mon(port, lambda *_reason: ran_inside.append(in_killer[0]))
    node.mon(port, lambda *_reason: killer.append(getcurrent()))
    settle(node)
    assert ran_inside == [False]
    assert killer != [getcurrent()]


def test_an_action_may_use_every_function_of_the_library(node):
    port, done = node.port(), []

    def action(*_reason):
        echo = node.port(lambda *msg: node.snd(msg[-1], "answer"))
        done.append(node.syncal(5, echo, "x"))
        other = node.port_async(lambda: None)
        node.mon(other, lambda *reason: done.append(("other", *reason)))
        with node.attach() as mine:
            node.reg(mine, "mine")
        node.after(0, done.append, "timer")
        done.append(node.peval(echo, lambda: "peval"))
        node.kil(echo)

    node.mon(port, action)
    node.kil(port)
    settle(node)
    wait_until(lambda: len(done) == 4, show=lambda: done)
    assert done[:2] == [("answer",), "peval"]
    assert set(done[2:]) == {("other",), "timer"}


def test_an_action_that_blocks_delays_no_other(node):
    port, calls, go_on = node.port(), Calls(), Event()
    node.mon(port, lambda *_reason: go_on.wait())
    node.mon(port, calls)
    node.kil(port)
    settle(node)
    assert calls == [()]
    go_on.set()


def test_an_action_that_raises_stops_no_other(node, caplog):
    port, calls = node.port(), Calls()
    node.mon(port, lambda *_reason: 1 / 0)
    node.mon(port, calls)
    node.kil(port)
    settle(node)
    assert calls == [()]
    assert "ZeroDivisionError" in caplog.text


def test_monitors_registered_by_an_action_on_the_dead_port_fire_too(node):
    port, calls = node.port(), Calls()
    node.mon(port, lambda *_reason: node.mon(port, calls))
    node.kil(port, "why")
    settle(node)
    assert calls == [("no_such_port", "cannot monitor nonexistent port", port)]


def test_a_dying_port_is_monitored_for_its_true_reason(node):
    port, calls = node.port(), Calls()
    node.kil(port, "why")
    node.mon(port, calls)
    settle(node)
    assert calls == [("why",)]


def test_a_chain_of_linked_ports_dies_to_its_end(node):
    ports = [node.port() for _ in range(2000)]
    for one, other in pairwise(ports):
        node.mon(one, other)
    calls = Calls()
    node.mon(ports[-1], calls)
    node.kil(ports[0], "chain")
    settle(node)
    assert calls == [("chain",)]
    assert ports_of(node) == {}


def test_a_monitor_that_comes_while_another_is_taken_off_is_kept(node):
    """A finalizer may run while the dict is looked at, end all that was monitored, and monitor again."""
    monitored = MonitoredRemote()
    came = Monitor(None, print, None, node.scheduler)

    class Hooked(Monitor):
        is_armed = False

        def __hash__(self) -> int:
            if self.is_armed:
                self.is_armed = False
                monitored.fire(node.scheduler, (), lambda: None)
                monitors.add(monitored, came)
            return id(self)

    one, other = (Hooked(monitored, print, None, node.scheduler) for _ in range(2))
    monitors.add(monitored, one)
    monitors.add(monitored, other)
    monitors.remove(monitored, other)
    one.is_armed = True
    monitors.remove(monitored, one)
    assert monitored.monitors is came
