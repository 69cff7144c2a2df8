# SPDX-License-Identifier: MIT
"""The scheduler: each trap that its design paid for, its invariants, and how ports live and die.

Traps carry their name in the docstring; each test fails when its rule is taken out.
"""

from __future__ import annotations

import contextvars
import gc
import itertools
import logging
import random
import sys
import weakref
from collections import deque
from importlib import import_module
from typing import Any

import gevent
import gevent.event
import gevent.local
import gevent.socket
import greenlet
import pytest
from gevent import get_hub
from gevent.exceptions import LoopExit

from aemp_gevent.errors import EndlessWaitError, NoPortContextError, PortKilled, ReceiverBusyError, ReceiveTimeout
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import SELF, psub
from aemp_gevent.ports.port import DEAD, IDLE, QUEUED, RUNNING
from aemp_gevent.ports.reasons import describe
from aemp_gevent.ports.receive import get, receive
from aemp_gevent.ports.runner import Runner
from aemp_gevent.ports.scheduler import MAX_IDLE_RUNNERS
from aemp_gevent.ports.turns import CREDIT, FIRST_LOOK, SLICE
from tests.helpers import on_hub, turns, wait_until
from tests.injecting import Injector
from tests.native import threading
from tests.ports.clocks import use_clock
from tests.settling import settle
from tests.thoroughness import sampled, tries

# By name: in the package's surface, "port" and "receive" are functions.
port_module = import_module("aemp_gevent.ports.port")
receive_module = import_module("aemp_gevent.ports.receive")
scheduler_module = import_module("aemp_gevent.ports.scheduler")


class Log(list[Any]):
    """What happened, in order."""

    def add(self, *what: Any) -> None:
        self.append(what)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def slow_clock(monkeypatch):
    """A clock that advances a millisecond a look: turns are then counted in messages, whatever the machine does."""
    ticks = itertools.count(1)
    use_clock(monkeypatch, lambda: next(ticks) * 0.001)
    return CREDIT * 5 + SLICE * 2  # the most messages one turn can have: five looks, and the slice it ends in


@pytest.fixture
def runners(monkeypatch):
    """Every runner that is made."""
    made: list[Runner] = []

    class CountedRunner(Runner):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(scheduler_module, "Runner", CountedRunner)
    return made


def monitored(node, port, log):
    """Log a port's death."""
    node.mon(port, lambda *reason: log.add("died", *reason))
    return port


def blocked_runners(runners):
    return [runner for runner in runners if not runner.dead and not runner.idle]


# --- traps: wake-ups ----------------------------------------------------------


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
    assert not node._scheduler.pumped
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


def test_a_runner_is_not_started_by_whoever_waits(node, runners):
    """Trap "RecursionError": also runners are started by the hub alone, whose stack is flat."""
    starters = []
    start = node._scheduler._run

    def run(runner):
        starters.append(runner.parent)
        depth.append(_recursion_left())
        start(runner)

    depth: list[int] = []
    node._scheduler._run = run

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


def test_a_busy_node_serves_a_socket_within_few_turns(node, slow_clock):
    """Trap "starved sockets": gevent runs fifty of its run_callbacks between two looks at the sockets."""
    scheduler = node._scheduler
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
def test_whatever_keeps_itself_busy_yields_to_timers_within_a_bound(node, slow_clock, kind):
    """Runners yield to the hub after a budget, whatever it is that they run."""
    count = [0]
    fired: list[bool] = []
    limit = 50 * slow_clock

    def goes_on():
        if not count[0]:
            get_hub().loop.run_callback(fired.append, True)
        count[0] += 1
        return not fired and count[0] < limit

    if kind == "ring":

        def relay():
            if goes_on():
                node.snd(second)

        first = node.port(relay)
        second = node.port(lambda: node.snd(first))
        node.snd(first)
    elif kind == "bodies":  # a greenlet that starts another and ends

        def body():
            if goes_on():
                node.port_async(body)

        node.port_async(body)
    elif kind == "jobs":  # a death whose monitor makes the next

        def action():
            if goes_on():
                port = node.port()
                node.mon(port, action)
                node.kil(port)

        first = node.port()
        node.mon(first, action)
        node.kil(first)
    elif kind == "handlers":  # served inside a receive that finds nothing itself

        def served():
            if goes_on():
                node.snd(SELF(), "served")

        def host():
            node.rcv(SELF(), "served", served)
            receive("never")

        node.snd(node.port_async(host), "served")
    else:  # two that receive nothing, but whose predicates send

        def picky(other):
            def sends(*message):
                if goes_on():
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


# --- traps: finalizers that send ------------------------------------------------


def test_a_finalizer_that_sends_while_the_mailbox_is_made_loses_nothing(node, log, monkeypatch):
    """Trap "two mailboxes": making the deque collects garbage, whose finalizer sends to this very port."""
    real = deque
    ports: list[str] = []

    def collecting_deque():
        if not log:
            log.append("collected")
            node.snd(ports[0], "from the finalizer")
        return real()

    port = node.port(log.append)
    ports.append(port)
    monkeypatch.setattr(port_module, "deque", collecting_deque)
    node.snd(port, "from the sender")
    settle(node)
    assert log == ["collected", "from the finalizer", "from the sender"]


def test_a_message_sent_after_the_last_look_wakes_the_reader(node, log):
    """Trap "send while registering": scanned, empty; a finalizer sends; only then idle, then asleep."""
    scheduler = node._scheduler
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


def test_a_message_that_does_not_match_does_not_hide_one_sent_after_the_last_look(node, log):
    """Trap "send while registering": the length is compared with what was scanned, not with zero."""
    scheduler = node._scheduler
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


# --- traps: runners ---------------------------------------------------------------


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


def test_an_exception_thrown_into_an_idle_runner_takes_it_from_the_pool(node, log, runners, caplog):
    """Trap "runner switched into twice": it still stands in the pool."""
    node.snd(node.port(lambda: None))
    settle(node)
    pool = node._scheduler._pool
    get_hub().loop.run_callback(pool[0].throw, gevent.Timeout(1))
    wait_until(lambda: "reached an idle runner" in caplog.text, show=lambda: caplog.text)
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


# --- what handlers leave on their greenlet ---------------------------------------

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


def test_a_runner_on_which_nothing_is_left_goes_on(node, runners):
    pairs = [node.port(lambda *_: None) for _ in range(3)]
    for _ in range(10):
        for port in pairs:
            node.snd(port)
            node.after(0, lambda: None)
        settle(node)
    assert len(runners) == 1


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
def test_a_message_in_the_loop_iteration_of_the_timeout_wins(node, log, monkeypatch, order, pattern):
    """Trap "timeout beats message": scan before looking at the flag."""
    deadlines: list[Any] = []

    class Seen(receive_module.Deadline):  # type: ignore[name-defined, misc]
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            deadlines.append(self)

    monkeypatch.setattr(receive_module, "Deadline", Seen)
    port = node.port_async(lambda: log.append(receive(*pattern, timeout=5, default="timeout")))
    wait_until(lambda: deadlines)
    steps = [lambda: node.snd(port, "tag"), deadlines[0]._expire]
    if order == "timer-first":
        steps.reverse()
    on_hub(lambda: [step() for step in steps])
    settle(node)
    assert log == [("tag",)]


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError, PortKilled, gevent.Timeout, greenlet.GreenletExit, GeneratorExit, BaseException, StopIteration],
    ids=lambda error: error.__name__,
)
def test_whatever_a_handler_raises_the_runner_goes_on(node, log, runners, error):
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


def test_an_exception_in_the_pump_itself_leaves_the_node_working(node, log, monkeypatch, capsys):
    """Ctrl-C may strike between two ports; a program that catches it and shuts down needs its ports."""
    real = scheduler_module.Runner
    struck: list[bool] = []

    def strike(*args):
        if not struck:
            struck.append(True)
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(scheduler_module, "Runner", strike)
    node.snd(node.port(log.add), "message")
    with pytest.raises(KeyboardInterrupt):
        wait_until(lambda: False, within=5)
    settle(node)
    assert log == [("message",)]


def test_ctrl_c_in_an_idle_runner_is_not_swallowed(node, monkeypatch):
    monkeypatch.setattr(get_hub(), "NOT_ERROR", (KeyboardInterrupt,))
    node.snd(node.port(lambda: None))
    settle(node)
    (runner,) = node._scheduler._pool
    with pytest.raises(KeyboardInterrupt):
        on_hub(lambda: runner.throw(KeyboardInterrupt))
    settle(node)
    turns(2)
    assert node._scheduler._pool.count(runner) <= 1


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
        entry = node._ports[port]
        found = [weakref.ref(thing), weakref.ref(entry.default), weakref.ref(entry.handlers.find(("tag",))[0])]
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


def test_a_port_with_a_context_keeps_what_its_handlers_set_and_nobody_else_sees_it(node, log):
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
def test_a_greenlet_killed_before_it_started_never_runs_and_its_death_is_told(node, log, how):
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
    assert len(node._scheduler._pool) <= MAX_IDLE_RUNNERS
    assert sum(not runner.dead for runner in runners) <= MAX_IDLE_RUNNERS


# --- traps: kills ------------------------------------------------------------------


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
    assert port in node._ports


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
            log.add("finally", number, SELF() in node._ports)

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


def test_a_greenlet_killed_on_its_visit_to_the_hub_is_interrupted_when_it_blocks(node, log, slow_clock):
    """Trap "blocked port never dies": a port on its visit is queued, where the reaper passes it over."""
    visits: list[bool] = []
    visit_hub = node._scheduler.visit_hub

    def visit(*args):
        visits.append(True)
        visit_hub(*args)

    node._scheduler.visit_hub = visit

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
    waiter = node._ports[port].waiter

    def collide():
        node.kil(port, "reason")
        waiter.throw(Foreign)

    on_hub(collide)
    settle(node)
    assert log == [("left",), ("died", "reason")]


def test_messages_in_the_finalizers_of_a_dropped_backlog_reach_nobody(node, log):
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
    assert port not in node._ports


# --- what fell out ---------------------------------------------------------------


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
    runner = node._ports[port].runner
    on_hub(lambda: runner.throw(greenlet.GreenletExit))
    settle(node)
    assert log == [("died", "die", "GreenletExit")]


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


# --- how ports live -----------------------------------------------------------------


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


def test_one_flooder_is_served_a_slice_before_its_thousand_neighbours(node):
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
    assert node._ports == {}


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda node: receive(), id="receive"),
        pytest.param(lambda node: get("tag"), id="get"),
        pytest.param(lambda node: node.syncal(None, node.port()), id="syncal"),
        pytest.param(lambda node: node.db_wait("f", len), id="db_wait"),
    ],
)
def test_waiting_for_what_can_never_come_is_told_in_words(wait):
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


def test_a_stray_switch_into_a_waiting_greenlet_harms_nobody(node, log):
    port = node.port_async(lambda: log.append(receive("tag")))
    settle(node)
    waiter = node._ports[port].waiter
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
    assert port in node._ports


def test_an_init_function_that_fails_kills_its_port(node, log):
    monitored(node, node.spawn(node.NODE(), f"{__name__}.init_that_fails", log), log)
    settle(node)
    assert log == [("died", "die", "ValueError: in init")]


def test_a_monitor_action_sees_the_port_dead_and_may_use_every_function(node, log):
    port = node.port(lambda: True)

    def action():
        log.add(port in node._ports)
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


def test_the_states_a_port_goes_through(node):
    states = []
    event = gevent.event.Event()

    def callback():
        states.append(node._ports[port].state)
        event.wait()

    port = node.port(callback)
    entry = node._ports[port]
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


# --- a send, or a kill, injected wherever other code can run ---------------------------


class Conversation:
    """Three ports of different kinds that talk to each other; the main greenlet is one of them."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.logs: dict[str, list[Any]] = {}
        self.deaths: list[Any] = []
        self.kept: list[str] = []

    def run(self, inject: Any, chosen: Any) -> Injector:
        node, snd = self.node, self.node.snd
        callback = self.callback = node.port(self.callback_body)
        body = self.body = node.port_async(self.own_greenlet)
        self.kept = [callback, body]
        for port in self.kept:
            self.logs[port] = []
            node.mon(port, lambda *reason: self.deaths.append(reason))
            node.mon(port, lambda *reason: self.deaths.append(reason))
        with node.attach() as me, Injector(lambda: inject(self), chosen) as injector:
            self.me = me
            self.logs[me] = []
            self.kept.append(me)
            snd(callback, "ping", me, 1)
            snd(body, "ping", me, 2)
            for wanted in (2, 1):
                self.take(me, "pong", wanted)
            snd(body, "tagged")
            snd(body, "ping", callback, 3)
            snd(body, "wait")
            self.logs[me].append(receive("done", timeout=5))
            sys.settrace(None)
            while (message := receive(timeout=0.0, default=None)) is not None:
                self.logs[me].append(message)
            greenlet.settrace(None)
            settle(node)
            while (message := receive(timeout=0.0, default=None)) is not None:
                self.logs[me].append(message)
        for port in (callback, body):
            node.kil(port)
        settle(node)
        return injector

    def take(self, me: str, tag: str, number: int) -> None:
        self.logs[me].append(receive([tag, number], timeout=5))

    def callback_body(self, *message: Any) -> None:
        self.logs[self.callback].append(message)
        if message[0] == "ping":
            self.node.snd(message[1], "pong", message[2])

    def own_greenlet(self) -> None:
        log = self.logs[self.body]
        me = SELF()
        while True:
            message = receive()
            log.append(message)
            if message[0] == "ping":
                self.node.snd(message[1], "pong", message[2])
            elif message[0] == "wait":
                self.node.snd(me, "last")
                log.append(receive("last", timeout=5))
                self.node.snd(self.me, "done")

    def heard(self, which: int) -> list[Any]:
        """Return what one of the ports got, but for what was injected."""
        return [message for message in self.logs[self.kept[which]] if message[0] != "injected"]

    def check(self) -> None:
        assert self.heard(0) == [("ping", self.me, 1), ("pong", 3)]
        assert [message[0] for message in self.heard(1)] == ["ping", "tagged", "ping", "wait", "last"]
        assert self.heard(2) == [("pong", 2), ("pong", 1), ("done",)]
        assert self.deaths == [(), (), (), ()]


@pytest.mark.slow
@pytest.mark.parametrize("receiver", [0, 1, 2], ids=["callback", "own-greenlet", "attached"])
def test_a_send_injected_wherever_other_code_can_run_is_neither_lost_nor_doubled(node, receiver):
    def inject(conversation):
        if len(conversation.kept) > receiver:
            node.snd(conversation.kept[receiver], "injected")

    total = Conversation(node).run(inject, lambda _count: False).count
    assert total > 700, "the tracer sees the library"
    for point in sampled(range(1, total + 1), 120):
        conversation = Conversation(node)
        injector = conversation.run(inject, lambda count, point=point: count == point)
        try:
            conversation.check()
            assert conversation.logs[conversation.kept[receiver]].count(("injected",)) == injector.fired
        except BaseException:
            print(f"injected at point {point} of {total}: {conversation.logs}")
            raise


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(tries(10, 60)))
def test_sends_injected_at_random_points_keep_their_order(node, seed):
    rng = random.Random(seed)
    print("seed", seed)
    conversation = Conversation(node)
    sent: dict[str, list[Any]] = {}
    numbers = itertools.count()

    def inject(conversation):
        port = rng.choice(conversation.kept)
        message = ("injected", next(numbers))
        node.snd(port, *message)
        sent.setdefault(port, []).append(message)

    share = rng.choice([0.002, 0.01, 0.05])
    conversation.run(inject, lambda _count: rng.random() < share)
    conversation.check()
    for port, messages in sent.items():
        assert [message for message in conversation.logs[port] if message[0] == "injected"] == messages


@pytest.mark.slow
def test_a_send_at_every_garbage_collection_is_neither_lost_nor_doubled(node):
    """The very points at which this interpreter collects: an allocation each, as the threshold is one object."""
    sent: dict[str, list[Any]] = {}
    numbers = itertools.count()
    busy: list[bool] = []
    conversation = Conversation(node)
    rng = random.Random(1)

    def collected(phase, _info):
        if phase == "start" and conversation.kept and not busy and len(sent.setdefault("all", [])) < 400:
            busy.append(True)
            message = ("injected", next(numbers))
            sent["all"].append(message)
            port = rng.choice(conversation.kept)
            node.snd(port, *message)
            sent.setdefault(port, []).append(message)
            busy.clear()

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1, 1000, 1000)
    try:
        conversation.run(lambda _conversation: None, lambda _count: False)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)
    assert len(sent.pop("all")) > 50
    conversation.check()
    for port, messages in sent.items():
        assert [message for message in conversation.logs[port] if message[0] == "injected"] == messages


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["callback", "own-greenlet"])
def test_a_kill_injected_wherever_other_code_can_run_is_told_once_and_leaves_nobody_stuck(node, victim, caplog):
    caplog.set_level(logging.CRITICAL)

    def scene(chosen):
        deaths: list[Any] = []
        ports: list[str] = []
        echo = node.port(node.snd)

        def body():
            while True:
                node.snd(*receive())

        other = node.port_async(body)
        ports += [echo, other]
        for port in ports:
            node.mon(port, lambda *reason: deaths.append(reason))
            node.mon(port, lambda *reason: deaths.append(reason))
        with node.attach() as me, Injector(lambda: node.kil(ports[victim], "injected"), chosen) as injector:
            for number in range(2):
                node.snd(echo, me, number)
                node.snd(other, me, number)
            settle(node)
            sys.settrace(None)
            greenlet.settrace(None)
            got = []
            while (message := receive(timeout=0, default=None)) is not None:
                got.append(message)
        for port in ports:
            node.kil(port, "end")
        settle(node)
        killed = ["injected"] * 2 if injector.fired else ["end"] * 2
        assert sorted(deaths) == sorted([(reason,) for reason in [*killed, "end", "end"]])
        assert node._ports == {}
        return injector.count

    total = scene(lambda _count: False)
    assert total > 300, "the tracer sees the library"
    for point in sampled(range(1, total + 1), 60):
        scene(lambda count, point=point: count == point)
