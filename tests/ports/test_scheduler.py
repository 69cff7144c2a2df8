# SPDX-License-Identifier: MIT
"""The scheduler: its pump, and how ports live. Traps that its design paid for carry their name in the docstring."""

from __future__ import annotations

import contextvars
import gc
import sys
from collections import deque
from importlib import import_module
from typing import Any

import gevent
import gevent.event
import gevent.local
import gevent.socket
import pytest
from gevent import get_hub
from gevent.exceptions import LoopExit

from aemp_gevent.errors import EndlessWaitError
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.port import DEAD, IDLE, QUEUED, RUNNING
from aemp_gevent.ports.receive import get, receive
from aemp_gevent.ports.scheduler import Scheduler
from tests.ports.logs import Log, monitored
from tests.support.helpers import on_hub, wait_until
from tests.support.injecting import between_bytecodes
from tests.support.native import threading
from tests.support.seams import ports_of
from tests.support.settling import settle

# By name: in the package's surface, "port" and "receive" are functions.
scheduler_module = import_module("aemp_gevent.ports.scheduler")


def test_a_runner_that_a_timer_resumed_has_its_leftover_work_pumped(node, log, slow_clock):
    """Trap "lost wake-up": the pump ended while the callback was blocked, and the slice is used up."""
    resume = gevent.event.Event()

    def callback(number):
        if number == 0:
            resume.wait()
        log.append(number)

    port = node.port(callback)
    node.snd(port, 0)
    settle(node)  # blocked; the pump ended
    count = slow_clock * 3
    for number in range(1, count):
        node.snd(port, number)
    assert not node.scheduler.pumped
    resume.set()
    wait_until(lambda: len(log) == count, show=lambda: log)
    assert log == list(range(count))


def test_a_thousand_greenlets_that_start_each_other_do_not_inherit_depth(node, log):
    """Trap "RecursionError, 1,000 greenlets": only the hub starts greenlets and runners."""
    count = sys.getrecursionlimit() * 2

    def body(left):
        if left:
            node.snd(node.port_async(body, left - 1), "go")
        receive("go")
        log.append(left)
        receive("never")

    node.snd(node.port_async(body, count), "go")
    wait_until(lambda: len(log) == count + 1, show=lambda: len(log))


def test_a_finalizer_that_sends_while_the_mailbox_is_made_loses_nothing(node, log, monkeypatch):
    """Trap "two mailboxes": making the deque collects garbage, whose finalizer sends to this very port."""
    ports: list[str] = []

    def collecting_deque():
        if not log:
            log.append("collected")
            node.snd(ports[0], "from the finalizer")
        return deque()

    port = node.port(log.append)
    ports.append(port)
    monkeypatch.setattr(import_module("aemp_gevent.ports.port"), "deque", collecting_deque)
    node.snd(port, "from the sender")
    settle(node)
    assert log == ["collected", "from the finalizer", "from the sender"]


@between_bytecodes
def test_a_monitor_added_by_a_finalizer_while_another_is_added_is_kept(node, log, monkeypatch):
    """Trap "two mailboxes", with monitors: making the dict of several may run a finalizer that monitors, too."""
    monitors_module = import_module("aemp_gevent.ports.monitors")

    port = node.port()
    node.mon(port, lambda: log.append("first"))

    def meddling_isinstance(thing, kind):
        if kind is dict and not meddled:
            meddled.append(True)
            node.mon(port, lambda: log.append("finalizer's"))
        return isinstance(thing, kind)

    meddled: list[bool] = []
    monkeypatch.setattr(monitors_module, "isinstance", meddling_isinstance, raising=False)
    node.mon(port, lambda: log.append("second"))
    monkeypatch.undo()
    node.kil(port)
    settle(node)
    assert sorted(log) == ["finalizer's", "first", "second"]


def test_an_exception_in_the_pump_itself_leaves_the_node_working(node, log, monkeypatch, capsys):
    """Ctrl-C may strike between two ports; a program that catches it and shuts down needs its ports."""
    real = scheduler_module._make_runner
    struck: list[bool] = []

    def strike(*args):
        if not struck:
            struck.append(True)
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(scheduler_module, "_make_runner", strike)
    node.snd(node.port(log.add), "message")
    with pytest.raises(KeyboardInterrupt):
        wait_until(lambda: False, within=5)
    settle(node)
    assert log == [("message",)]


def test_greenlets_that_user_code_spawns_have_no_self(node, log):
    def handler():
        variable.set("handler's")
        child = gevent.spawn(lambda: log.add(SELF()))
        raw = gevent.spawn_raw(lambda: log.add(SELF()))
        child.join()
        wait_until(lambda: raw.dead)
        copied = gevent.Greenlet(lambda: log.add(SELF()))
        copied.gr_context = contextvars.copy_context()
        copied.start()
        copied.join()
        log.add(SELF() == port)

    variable = contextvars.ContextVar("variable", default="unset")
    port = node.port(handler)
    node.snd(port)
    wait_until(lambda: len(log) == 4, show=lambda: log)
    assert log == [(None,), (None,), (None,), (True,)]


def test_a_port_does_one_thing_at_a_time(node, log):
    def callback(number):
        log.add("in", number)
        gevent.sleep(0)
        log.add("out", number)

    port = node.port(callback)
    for number in range(3):
        node.snd(port, number)
    wait_until(lambda: len(log) == 6, show=lambda: log)
    assert log == [(way, number) for number in range(3) for way in ("in", "out")]


@pytest.mark.parametrize("where", ["callback", "tag", "body", "monitor", "timer", "cal", "rcv predicate"])
def test_nothing_of_the_users_runs_on_the_hub(node, log, where):
    def user(*_args):
        log.append(gevent.getcurrent() is get_hub())

    match where:
        case "callback":
            node.snd(node.port(user))
        case "tag":
            node.snd(node.rcv(node.port(), "tag", user), "tag")
        case "body":
            node.port_async(user)
        case "monitor":
            port = node.port()
            node.mon(port, user)
            on_hub(lambda: node.kil(port))
        case "timer":
            node.after(0, user)
        case "cal":
            node.cal(node.port(), cb=user, timeout=0)
        case "rcv predicate":
            node.snd(node.rcv(node.port(), [user], user), "message")
    wait_until(lambda: log, show=lambda: log)
    assert set(log) == {False}


def test_a_blocked_handler_or_monitor_action_delays_only_its_own_port(node, log):
    event = gevent.event.Event()
    watched = node.port()
    node.mon(watched, event.wait)
    node.kil(watched)
    node.snd(node.port(event.wait))
    for number in range(3):
        node.snd(node.port(log.add), number)
    settle(node)
    assert log == [(0,), (1,), (2,)]
    event.set()
    settle(node)


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda node: receive(), id="receive"),
        pytest.param(lambda node: get("tag"), id="get"),
        pytest.param(lambda node: node.syncal(None, node.port()), id="syncal"),
        pytest.param(lambda node: node.db_wait("f", len), id="db_wait"),
    ],
)
def test_an_endless_wait_raises_an_error_of_ours(wait):
    def in_a_thread_of_its_own():  # whose hub has nothing else to wait for
        node = Node()
        with node.attach():
            try:
                wait(node)
            except LoopExit as error:  # as gevent's
                seen.append(error)
        get_hub().destroy(destroy_loop=True)

    seen: list[BaseException] = []
    thread = threading.Thread(target=in_a_thread_of_its_own)
    thread.start()
    thread.join(5)
    assert len(seen) == 1
    assert isinstance(seen[0], EndlessWaitError)
    assert str(seen[0]).startswith("this wait could never end")
    assert "give a timeout" in str(seen[0])


def init_that_receives(log: Log) -> None:
    log.add("init", *receive())


def init_that_sets_a_handler(log: Log, node: Any) -> None:
    gevent.sleep(0)
    node.rcv(SELF(), lambda *message: log.add("handler", *message))
    log.add("init")


def init_that_fails(log: Log) -> None:
    raise ValueError("in init")


def test_messages_to_a_spawned_port_wait_for_its_init_function(node, log):
    port = node.spawn(node.NODE(), f"{__name__}.init_that_sets_a_handler", log, node)
    node.snd(port, "message")
    assert log == [], "spawn is quiet"
    wait_until(lambda: len(log) == 2, show=lambda: log)
    assert log == [("init",), ("handler", "message")]


def test_an_init_function_that_receives_gets_the_messages(node, log):
    port = node.spawn(node.NODE(), f"{__name__}.init_that_receives", log)
    node.snd(port, "message")
    settle(node)
    assert log == [("init", "message")]
    assert port in ports_of(node)


def test_an_init_function_that_fails_kills_its_port(node, log):
    monitored(node, node.spawn(node.NODE(), f"{__name__}.init_that_fails", log), log)
    settle(node)
    assert log == [("died", "die", "ValueError: in init")]


def test_the_states_a_port_goes_through(node):
    states = []
    event = gevent.event.Event()

    def callback():
        states.append(ports_of(node)[port].state)
        event.wait()

    port = node.port(callback)
    entry = ports_of(node)[port]
    states.append(entry.state)
    node.snd(port)
    states.append(entry.state)
    settle(node)
    event.set()
    settle(node)
    wait_until(lambda: entry.state == IDLE)
    node.kil(port)
    states.append(entry.state)
    settle(node)
    states.append(entry.state)
    assert states == [IDLE, QUEUED, RUNNING, QUEUED, DEAD]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="earlier versions have no inline values")
@pytest.mark.parametrize("kind", [Scheduler, Node])
def test_attributes_on_the_hot_paths_are_looked_up_without_a_dictionary(kind):
    """Each message needs some ten of them. With 30 attributes, or once ``__dict__`` was used, each takes longer."""
    assert not any(isinstance(held, dict) and "_scheduler" in held for held in gc.get_referents(kind()))
    assert not any(isinstance(held, dict) and "runq" in held for held in gc.get_referents(kind()))
