# SPDX-License-Identifier: MIT
"""Runners: what one port leaves on its greenlet never reaches another port."""

from __future__ import annotations

import contextvars
import gc
import logging
import weakref
from typing import Any

import gevent
import gevent.event
import gevent.local
import gevent.socket
import greenlet
import pytest
from gevent import get_hub

from aemp_gevent.errors import PortKilled
from aemp_gevent.ports.reasons import describe
from aemp_gevent.ports.receive import receive
from aemp_gevent.ports.scheduler import MAX_IDLE_RUNNERS
from tests.ports.logs import monitored
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.seams import ports_of
from tests.support.settling import settle


def blocked_runners(runners):
    return [runner for runner in runners if not runner.dead and not runner.idle]


def test_an_exception_thrown_into_an_idle_runner_takes_it_from_the_pool(node, log, runners, caplog):
    """Trap "runner switched into twice": it still stands in the pool."""
    node.snd(node.port(lambda: None))
    settle(node)
    pool = node.scheduler._pool
    get_hub().loop.run_callback(pool[0].throw, gevent.Timeout(1))
    wait_until(lambda: "was raised in an idle runner" in caplog.text, show=lambda: caplog.text)
    settle(node)
    assert len(pool) == len(set(pool)) <= 1
    # Were it there twice, the second of these would resume the first one's sleep.
    events = [gevent.event.Event(), gevent.event.Event()]

    def block(number):
        events[number].wait()
        log.append(number)

    for number in (0, 1):
        node.snd(node.port(block), number)
    settle(node)
    assert log == []
    for event in events:
        event.set()
    wait_until(lambda: sorted(log) == [0, 1], show=lambda: log)
    assert len(blocked_runners(runners)) == 0


LEAVINGS = gevent.local.local()


class LocalWithDefaults(gevent.local.local):
    def __init__(self) -> None:
        self.value = "default"


def leave_a_timeout() -> None:
    gevent.Timeout.start_new(0.0)


def leave_a_timeout_with_an_exception() -> None:
    gevent.Timeout.start_new(0.0, ValueError("of another port"))


def leave_a_callback() -> None:
    gevent.spawn_later(0.0, greenlet.getcurrent().throw, KeyError("of another port"))


def leave_a_value() -> None:
    LEAVINGS.value = "of another port"


def leave_an_attribute() -> None:
    greenlet.getcurrent().value = "of another port"


def leave_a_context_variable() -> None:
    CONTEXT_LEAVINGS.set("of another port")


CONTEXT_LEAVINGS = contextvars.ContextVar("leavings", default=None)


LEAVE = [
    leave_a_timeout,
    leave_a_timeout_with_an_exception,
    leave_a_callback,
    leave_a_value,
    leave_an_attribute,
    leave_a_context_variable,
]


def leave_in_handler(node, leave):
    node.snd(node.port(lambda: leave() and None))


def leave_in_tag_handler(node, leave):
    node.snd(node.rcv(node.port(), tag=lambda: leave() and None), "tag")


def leave_in_timer(node, leave):
    node.after(0, leave)


def leave_in_monitor(node, leave):
    port = node.port()
    node.mon(port, lambda *_reason: leave())
    node.kil(port)


def leave_in_body(node, leave):
    node.port_async(leave)


def leave_in_failing_handler(node, leave):
    def fails():
        leave()
        raise ZeroDivisionError

    node.snd(node.port(fails))


def leave_after_a_switch(node, leave):
    def waits():
        leave()
        with gevent.Timeout(5):
            gevent.sleep(0)

    # What strikes at once would strike this handler itself.
    node.snd(node.port(waits if leave in LEAVE[3:] else leave))


def leave_after_receiving(node, leave):
    def body():
        receive()
        leave()

    node.snd(node.port_async(body), "go")


def leave_in_served_call(node, leave):
    node.call_async(node.serve(node.port(), "tag", lambda: leave() and None), "tag")


WAYS = [
    leave_in_handler,
    leave_in_tag_handler,
    leave_in_timer,
    leave_in_monitor,
    leave_in_body,
    leave_in_failing_handler,
    leave_after_a_switch,
    leave_after_receiving,
    leave_in_served_call,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("leave", LEAVE, ids=lambda leave: leave.__name__)
@pytest.mark.parametrize("at_once", [True, False], ids=["at-once", "later"])
def test_what_a_handler_leaves_on_its_greenlet_never_reaches_another_port(node, log, leave, way, at_once):
    """Also when its runner would serve the next port in the same breath, before any Timeout has struck."""

    def innocent():
        log.append(getattr(LEAVINGS, "value", None))
        log.append(getattr(greenlet.getcurrent(), "value", None))
        log.append(CONTEXT_LEAVINGS.get())
        turns(3)  # here it would be struck
        gevent.sleep(0.001)
        log.append("done")

    way(node, leave)
    if not at_once:
        turns(3)
    for _ in range(2):
        port = node.port(innocent)
        node.mon(port, lambda *reason: log.append(reason))
        node.snd(port)
    wait_until(lambda: len(log) >= 8, show=lambda: log)
    assert sorted(log, key=str) == [None] * 6 + ["done"] * 2


def test_locals_with_defaults_are_made_for_each_turn(node, log):
    local = LocalWithDefaults()

    def handler(value):
        log.append(local.value)
        local.value = value

    for value in "ab":
        node.snd(node.port(handler), value)
    settle(node)
    assert log == ["default", "default"]


def test_what_was_left_on_a_greenlet_is_released_with_its_turn(node):
    """Though other ports, which this runner served before, live on."""

    class Resource:
        pass

    kept: list[Any] = []

    def keep():
        LEAVINGS.value = Resource()
        kept.append(weakref.ref(LEAVINGS.value))

    ports = [node.port(lambda: None), node.port(keep)]
    for port in ports:
        node.snd(port)
    settle(node)
    turns(2)
    assert kept[0]() is None


def test_a_runner_on_which_nothing_is_left_continues(node, runners):
    pairs = [node.port(lambda *_: None) for _ in range(3)]
    for _ in range(10):
        for port in pairs:
            node.snd(port)
            node.after(0, lambda: None)
        settle(node)
    assert len(runners) == 1


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError, PortKilled, gevent.Timeout, greenlet.GreenletExit, GeneratorExit, BaseException, StopIteration],
    ids=lambda error: error.__name__,
)
def test_the_runner_continues_after_any_exception_of_a_handler(node, log, runners, error):
    """Trap "runner dies": PortKilled, Timeout and others are BaseExceptions."""

    def callback():
        raise error(1)

    port = monitored(node, node.port(callback), log)
    node.snd(port)
    node.snd(node.port(lambda: log.add("another port")))
    settle(node)
    assert ("another port",) in log
    assert [entry for entry in log if entry[0] == "died"] == [("died", "die", describe(error(1)))]
    assert len(runners) == 1
    assert not runners[0].dead


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt], ids=lambda error: error.__name__)
@pytest.mark.parametrize("where", ["handler", "body", "job"])
def test_system_exit_and_ctrl_c_in_a_port_reach_the_main_greenlet(node, log, error, where, monkeypatch, caplog):
    """Trap "runner dies": these go to the main greenlet; the port dies, the scheduler lives, and nothing is printed."""
    printed = []
    monkeypatch.setattr(get_hub(), "print_exception", lambda *args: printed.append(args))

    def raises():
        raise error(7)

    if where == "job":
        port = node.port(lambda: node.after(0, raises))
        node.snd(port)
    elif where == "handler":
        port = node.port(raises)
        node.snd(port)
    else:
        port = node.port_async(raises)
    monitored(node, port, log)
    with pytest.raises(error):
        wait_until(lambda: False, within=5)
    settle(node)
    assert log == [("died", "die", f"{error.__name__}: 7")]
    assert printed == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    node.snd(node.port(log.add), "still works")
    settle(node)
    assert log[-1] == ("still works",)


def test_an_exception_without_a_text_to_get_kills_its_port_only(node, log):
    class Wordless(Exception):
        def __str__(self):
            raise ValueError

    def callback():
        raise Wordless

    node.snd(monitored(node, node.port(callback), log))
    node.snd(node.port(log.add), "another port")
    settle(node)
    assert sorted(log) == [("another port",), ("died", "die", "Wordless: <str() failed>")]


def test_ctrl_c_in_an_idle_runner_is_not_swallowed(node, monkeypatch):
    monkeypatch.setattr(get_hub(), "NOT_ERROR", (KeyboardInterrupt,))
    node.snd(node.port(lambda: None))
    settle(node)
    (runner,) = node.scheduler._pool
    with pytest.raises(KeyboardInterrupt):
        on_hub(lambda: runner.throw(KeyboardInterrupt))
    settle(node)
    turns(2)
    assert node.scheduler._pool.count(runner) <= 1


def test_idle_runners_keep_nothing_of_the_ports_they_served(node):
    """Trap "dead data kept": an idle runner's frame would hold the last port, message and callback."""

    class Thing:
        pass

    def serve():
        thing = Thing()
        port = node.port(lambda _thing: None)
        node.rcv(port, "tag", lambda _thing: None)
        node.snd(port, thing)
        node.snd(port, "tag", thing)
        entry = ports_of(node)[port]
        found = [weakref.ref(thing), weakref.ref(entry.default), weakref.ref(entry.cell.handlers.find(("tag",))[0])]
        settle(node)
        node.kil(port)
        settle(node)
        return found

    def raises():
        thing = Thing()

        def callback(_thing):
            raise ValueError(thing)

        node.snd(node.port(callback), thing)
        settle(node)
        return [weakref.ref(thing), weakref.ref(callback)]

    logging.disable(logging.CRITICAL)
    try:
        references = serve() + raises()
    finally:
        logging.disable(logging.NOTSET)
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


def test_a_context_variable_set_in_a_port_shows_in_no_other(node, log):
    """Trap "context variable leaks to next port"."""
    variable = contextvars.ContextVar("variable", default="unset")

    def sets(value):
        variable.set(value)

    def looks():
        log.append(variable.get())

    variable.set("main")
    node.snd(node.port(sets), "leaked")
    node.snd(node.port(looks))
    node.snd(node.port(sets), "leaked")
    node.port_async(looks)
    node.snd(node.port(sets), "leaked")
    node.mon(f"{node.NODE()}#nobody", lambda *_reason: looks())  # a job, right behind that message
    settle(node)
    wait_until(lambda: len(log) == 3, show=lambda: log)
    assert log == ["unset"] * 3


def test_a_port_with_a_context_keeps_what_its_handlers_set_and_hides_it_from_others(node, log):
    variable = contextvars.ContextVar("variable", default="unset")
    context = contextvars.Context()
    context.run(variable.set, "given")

    def handler(value):
        log.append(variable.get())
        variable.set(value)

    port = node.port(handler, context=context)
    other = node.port(lambda: log.append(variable.get()))
    node.snd(port, "changed")
    node.snd(other)
    settle(node)
    node.snd(port, "again")
    settle(node)
    assert log == ["given", "unset", "changed"]
    assert context[variable] == "again"


@pytest.mark.parametrize("how", ["port_async", "rcv_async"])
def test_a_greenlet_killed_before_it_started_never_runs_and_its_death_is_reported(node, log, how):
    """Trap "killed before start": the body never runs, so no ``finally`` in it runs either."""
    if how == "port_async":
        port = node.port_async(log.append, "ran")
    else:
        port = node.rcv_async(node.port(), log.append, "ran")
        node.snd(port, "message")
    monitored(node, port, log)
    node.kil(port, "reason")
    settle(node)
    assert log == [("died", "reason")]


def test_blocked_runners_are_not_limited_and_idle_ones_are(node, log, runners):
    """Trap "pool stays large": blocked callbacks that finish after the pump ended."""
    event = gevent.event.Event()
    count = MAX_IDLE_RUNNERS * 3

    def callback():
        event.wait()
        log.append(None)

    for _ in range(count):
        node.snd(node.port(callback))
    settle(node)
    assert len(blocked_runners(runners)) == count
    event.set()
    wait_until(lambda: len(log) == count, show=lambda: len(log))
    settle(node)
    assert len(node.scheduler._pool) <= MAX_IDLE_RUNNERS
    assert sum(not runner.dead for runner in runners) <= MAX_IDLE_RUNNERS
