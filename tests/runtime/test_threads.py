# SPDX-License-Identifier: MIT
"""Other native threads: what they may call, in which order it arrives, and when they block."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter

import gevent
import greenlet
import pytest
from gevent.event import Event
from greenlet import getcurrent

from aemp_gevent import LinkBusyError, MessageTooLargeError, UnencodableMessageError, psub, receive
from aemp_gevent.errors import InvalidPortError, WrongThreadError
from aemp_gevent.links.link import Link
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.peers.remote_ports import RemotePorts
from aemp_gevent.runtime.threads import Doorbell, doorbell_of, get_ident
from aemp_gevent.toolkit import RemotePool, death_of
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.injecting import Injector, StoppedThread
from tests.support.native import threading
from tests.support.networking import (
    ROOT,
    UNIQUE,
    WAIT,
    Deaths,
    Inbox,
    RawListener,
    RawPeer,
    line_of,
    process,
    tables,
)
from tests.support.seams import network_of, ports_of
from tests.support.settling import settle
from tests.support.thoroughness import sampled


class Thread:
    """A native thread that runs a function; ``result()`` waits for it, while everybody here goes on."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._value: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001  # raised again where the result is asked for
            self._error = error

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, within: float = WAIT):
        # Not wait_until(): a hub that spins hardly ever lets another thread have the interpreter.
        gevent.get_hub().threadpool.apply(self._thread.join, (within,))
        assert self.is_done, f"the thread still runs after {within} s"
        if self._error is not None:
            raise self._error
        return self._value


def in_thread(function, *args, **kwargs):
    """Call a function in a native thread, and return what it returns, or raise what it raises."""
    return Thread(lambda: function(*args, **kwargs)).result()


@pytest.fixture
def eager_switches():
    """Let the interpreter switch threads as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# --- what another thread may call -------------------------------------------------


def _closure(node, port):
    return node.peval(port, lambda: psub(lambda: None))


REFUSED = {
    "port": ("port()", lambda node, port: node.port),
    "rcv": ("rcv()", lambda node, port: lambda: node.rcv(port, tag=print)),
    "rcv-decorator": ("rcv()", lambda node, port: functools.partial(node.rcv(port, "tag"), print)),
    "reg": ("reg()", lambda node, port: lambda: node.reg(port, "name")),
    "reg-self": ("reg()", lambda node, port: lambda: node.reg("name")),
    "mon": ("mon()", lambda node, port: lambda: node.mon(port, print)),
    "mon-self": ("mon()", lambda node, port: lambda: node.mon(port)),
    "mon_guard": ("mon_guard()", lambda node, port: lambda: node.mon_guard(port, [])),
    "cancel": ("cancel()", lambda node, port: node.mon(port, print).cancel),
    "spawn": ("spawn()", lambda node, port: lambda: node.spawn(node.NODE(), "os.getpid")),
    "after": ("after()", lambda node, port: lambda: node.after(0, print)),
    "timer": ("cancel()", lambda node, port: node.after(None, print).cancel),
    "cal": ("cal()", lambda node, port: lambda: node.cal(port, cb=print)),
    "syncal": ("syncal()", lambda node, port: lambda: node.syncal(1, port)),
    "port_async": ("port_async()", lambda node, port: lambda: node.port_async(print)),
    "rcv_async": ("rcv_async()", lambda node, port: lambda: node.rcv_async(port, print)),
    "actor": ("port_async()", lambda node, port: node.actor(print)),
    "attach": ("attach()", lambda node, port: node.attach),
    "peval": ("peval()", lambda node, port: lambda: node.peval(port, print)),
    "peval_async": ("peval_async()", lambda node, port: lambda: node.peval_async(port, print)),
    "psub": ("psub()", _closure),
    "initialise_node": ("initialise_node()", lambda node, port: node.initialise_node),
    "configure": ("configure()", lambda node, port: node.configure),
    "shutdown": ("shutdown()", lambda node, port: node.shutdown),
    "mon_nodes": ("mon_nodes()", lambda node, port: lambda: node.mon_nodes(print)),
    "mon_nodes-guard": ("cancel()", lambda node, port: node.mon_nodes(print).cancel),
}


@pytest.mark.parametrize("call", REFUSED)
def test_calls_of_other_threads_raise_an_error(make_node, call):
    node = make_node(None)
    port = node.port()
    named, prepare = REFUSED[call]
    function = prepare(node, port)
    with pytest.raises(WrongThreadError, match=r"use snd\(\) or kil\(\)") as caught:
        in_thread(function)
    assert named in str(caught.value)
    assert node.find(port).state == 0, "the call had an effect all the same"
    node.kil(port)
    settle(node)
    assert not ports_of(node)


def test_another_thread_cannot_receive_for_an_attached_greenlet(make_node):
    node = make_node(None)
    attachment = node.attach()
    port = getcurrent().aemp_port

    def receive_over_there():
        getcurrent().aemp_port = port
        receive()

    with pytest.raises(WrongThreadError, match=r"receive\(\)"):
        in_thread(receive_over_there)
    with pytest.raises(WrongThreadError, match=r"detach\(\)"):
        in_thread(attachment.detach)
    attachment.detach()


def test_a_node_without_ports_belongs_to_the_thread_that_makes_the_first():
    node = LocalNode()
    in_thread(node.port)
    with pytest.raises(WrongThreadError):
        node.port()


def test_pure_look_ups_work_from_everywhere(make_node):
    a = make_node()
    b = make_node("127.0.0.1:0", a.NODE())
    wait_until(a.up_nodes)
    assert in_thread(a.NODE) == a.NODE()
    assert in_thread(a.node_of, f"{b.NODE()}#x") == b.NODE()
    assert in_thread(a.up_nodes) == [b.NODE()]
    assert in_thread(a.node_is_up, b.NODE()) is True
    assert in_thread(a.resolve_node, "127.0.0.1:7") == "127.0.0.1:7"


def test_greenlets_of_a_patched_program_are_not_foreign_and_its_thread_pool_is():
    program = """
import gevent.monkey; gevent.monkey.patch_all()
import threading, gevent
import aemp_gevent as mp
got = []
port = mp.port(lambda *message: got.append(message))

def in_a_patched_thread():
    with mp.attach() as me:
        mp.mon(port, print).cancel()
        mp.snd(me, "hello")
        got.append(mp.receive(timeout=5))

thread = threading.Thread(target=in_a_patched_thread)
thread.start()
thread.join()

def elsewhere():
    mp.snd(port, "from the pool")
    try:
        mp.port()
    except mp.WrongThreadError:
        mp.snd(port, "refused")

gevent.get_hub().threadpool.apply(elsewhere)
while len(got) < 3:
    gevent.sleep(0.01)
print(got)
"""
    with process(program) as child:
        assert line_of(child) == "[('hello',), ('from the pool',), ('refused',)]"


# --- local ports --------------------------------------------------------------------


def test_messages_and_the_kill_of_another_thread_arrive_in_its_order(node):
    got: list[object] = []
    deaths = Deaths()
    port = node.port(got.append)
    node.mon(port, deaths)

    def work():
        for number in range(100):
            node.snd(port, number)
        node.kil(port, "enough")
        node.snd(port, "too late")

    in_thread(work)
    assert deaths.wait() == ("enough",)
    assert got == list(range(100))


def test_messages_after_a_kill_from_another_thread_are_not_handled(node):
    got: list[object] = []
    port = node.port(got.append)
    sent_in_time = Event()

    def block():  # the hub, so that the kill has not got there yet when we send
        killer = threading.Thread(target=node.kil, args=(port, "gone"))
        killer.start()
        killer.join(WAIT)
        node.snd(port, "too late")
        sent_in_time.set()

    on_hub(block)
    assert sent_in_time.is_set()
    settle(node)
    wait_until(lambda: node.find(port) is None)
    assert got == []


def test_a_hub_that_sleeps_is_woken_at_once():
    # In a process of its own: here anything may wake it.
    program = """
import threading, time
from gevent.event import Event
import aemp_gevent as mp
woken = Event()
port = mp.port(woken.set)

def work():
    time.sleep(0.2)
    mp.snd(port)

threading.Thread(target=work).start()
started = time.monotonic()
woken.wait(8)
print(time.monotonic() - started < 4)
"""
    with process(program) as child:
        assert line_of(child) == "True"


def test_killing_a_dead_port_or_a_node_port_from_another_thread(node):
    port = node.port()
    node.kil(port)
    in_thread(node.kil, port, "again")
    from aemp_gevent.errors import NodePortError

    with pytest.raises(NodePortError):
        in_thread(node.kil, node.NODE())


def test_an_actor_in_receive_is_woken_and_killed_from_another_thread(node):
    got: list[object] = []
    deaths = Deaths()

    def body():
        while True:
            got.append(receive())

    port = node.port_async(body)
    node.mon(port, deaths)
    wait_until(lambda: node.find(port).waiter is not None)
    in_thread(node.snd, port, "hello")
    wait_until(lambda: got == [("hello",)])
    in_thread(node.kil, port, "over")
    assert deaths.wait() == ("over",)


def test_a_bounded_mailbox_that_another_thread_fills_dies_in_its_own_thread(node):
    deaths: list[tuple[object, ...]] = []
    port = node.port(lambda *_message: gevent.sleep(WAIT), limit=3)
    node.mon(port, lambda *reason: deaths.append((threading.get_ident(), *reason)))
    in_thread(lambda: [node.snd(port, number) for number in range(20)])
    wait_until(lambda: deaths)
    assert deaths == [(threading.get_ident(), "mailbox_overflow", 3)]


def test_requests_to_our_own_node_port_are_handled_in_the_nodes_thread(make_node):
    node = make_node()
    inbox = Inbox(node)
    threads = []
    original = node._requests.handle
    node._requests.handle = lambda *args: (threads.append(threading.get_ident()), original(*args))
    in_thread(node.snd, node.NODE(), "snd", inbox.port, "relayed")
    wait_until(lambda: inbox.messages == [("relayed",)])
    assert threads == [threading.get_ident()]


def test_a_thread_that_sends_to_a_dead_port_logs_in_the_nodes_thread(node, caplog):
    threads = []

    class Handler(logging.Handler):
        def emit(self, record):
            threads.append(threading.get_ident())

    handler = Handler()
    log = logging.getLogger("aemp_gevent")
    log.addHandler(handler)
    try:
        node.port()
        with caplog.at_level(logging.DEBUG, logger="aemp_gevent"):
            in_thread(node.snd, node.NODE() + "#nobody", 1)
            wait_until(lambda: threads)
    finally:
        log.removeHandler(handler)
    assert threads == [threading.get_ident()]
    assert "this node has no such port" in caplog.text


# --- the doorbell --------------------------------------------------------------------


def test_a_doorbell_makes_calls_in_order_and_what_one_raises_stops_no_other(monkeypatch):
    hub = gevent.get_hub()
    errors: list[object] = []
    monkeypatch.setattr(hub, "handle_error", lambda context, kind, value, traceback: errors.append(value))
    bell = Doorbell(hub)
    calls: list[object] = []
    error = ValueError("x")

    def fail():
        raise error

    def ring():
        bell.ring(calls.append, 1)
        bell.ring(fail)
        bell.ring(calls.append, 2)

    in_thread(ring)
    wait_until(lambda: len(calls) == 2)
    assert calls == [1, 2]
    wait_until(lambda: errors)  # when it was tried once more
    assert errors == [error]
    bell._watcher.stop()
    bell._watcher.close()


def test_all_nodes_of_a_thread_share_one_doorbell():
    hub = gevent.get_hub()
    assert doorbell_of(hub) is doorbell_of(hub)


def test_a_thread_that_rings_all_the_time_keeps_no_timer_waiting(node):
    """The calls rung meanwhile wait for the next loop iteration."""
    scheduler = node.scheduler
    _ = scheduler.hub
    rung = 0

    def ring():
        nonlocal rung
        rung += 1
        if rung < 1_000_000:
            scheduler.call_on_hub(ring)

    scheduler.call_on_hub(ring)
    gevent.sleep(0.005)
    assert rung < 1_000_000
    rung = 1_000_000
    turns(3)


# --- ports of other nodes ----------------------------------------------------------------


def test_messages_and_kills_for_other_nodes_keep_the_threads_order(make_node):
    a, b = make_node(), make_node()
    got: list[object] = []
    first, second = b.port(got.append), b.port(lambda n: got.append(-n))
    deaths = Deaths()
    b.mon(first, deaths)

    def work():
        for number in range(1, 200):
            a.snd(first, number)
            a.snd(second, number)
        a.kil(first, "enough")
        a.snd(first, "too late")
        a.snd(second, 1000)

    in_thread(work)
    wait_until(lambda: got and got[-1] == -1000, show=lambda: got[-3:])
    assert deaths.wait() == ("enough",)
    assert [number for number in got if number > 0] == list(range(1, 200))
    assert [-number for number in got if number < 0] == [*range(1, 200), 1000]


def test_a_message_of_another_thread_is_copied_when_it_is_sent(make_node):
    a, b = make_node(), make_node()
    inbox = Inbox(b)
    data = [1, 2]

    def work():
        a.snd(inbox.port, data)
        data.append(3)

    in_thread(work)
    wait_until(lambda: inbox.messages)
    assert inbox.messages == [([1, 2],)]


@pytest.mark.parametrize("known", [False, True], ids=["never-sent-to", "known"])
def test_bad_data_raises_in_the_thread_that_sends_it_and_hurts_nobody_else(make_node, known):
    a, b = make_node(max_message_bytes=1000), make_node()
    inbox = Inbox(b)
    if known:
        a.snd(inbox.port, "first")
        wait_until(lambda: inbox.messages)
    with pytest.raises(UnencodableMessageError):
        in_thread(a.snd, inbox.port, object())
    with pytest.raises(MessageTooLargeError):
        in_thread(a.snd, inbox.port, "x" * 1001)
    with pytest.raises(UnencodableMessageError):
        in_thread(a.kil, inbox.port, object())
    with pytest.raises(InvalidPortError):
        in_thread(a.snd, "no port at all", 1)
    in_thread(a.snd, inbox.port, "fine")
    wait_until(lambda: inbox.messages[-1:] == [("fine",)])


def test_what_the_link_cannot_carry_is_lost_and_reported(make_node):
    node = make_node()
    with RawPeer.dial(node, framing="json") as peer:
        peer.shake()
        wait_until(node.up_nodes)
        deaths = Deaths()
        port = f"{peer.name}#p"
        node.mon(port, deaths)
        in_thread(node.snd, port, b"bytes do not travel as JSON")
        in_thread(node.snd, f"{peer.name}#q", "text does")
        assert deaths.wait()[0] == "transport_error"
        assert [peer.packet()[:2] for _ in range(3)] == [["", "mon1"], ["", "mon0"], ["q", "text does"]]


def test_a_port_reported_dead_gets_nothing_that_was_handed_over_before_that(make_node):
    """Handed over while the hub was busy losing the link: it must not go out over the next one."""
    a = make_node()
    same = (("uniq", "same"),)
    with RawListener() as listener:
        peer = RawPeer.dial(a, listener.id, extras=same).shake()
        wait_until(a.up_nodes)
        deaths = Deaths()
        port = f"{peer.name}#{UNIQUE}"
        a.mon(port, deaths)
        assert peer.packet() == ["", "mon1", UNIQUE]

        def lose():
            thread = threading.Thread(target=a.snd, args=(port, "lost"))
            thread.start()
            thread.join(WAIT)
            network_of(a).peers[peer.name]._lose("a test")

        on_hub(lose)
        assert deaths.wait()[0] == "transport_error"
        peer.close()
        turns(3)
        a.snd(f"{peer.name}#other", "marker")
        with listener.accept(extras=same) as again:
            assert again.shake().packet() == ["other", "marker"]
            assert again.answers(), "and nothing behind it"


def test_the_first_messages_of_a_thread_may_go_to_an_unreachable_node(make_node):
    node = make_node()
    deaths = Deaths()
    in_thread(node.snd, "127.0.0.1:1#p", "x")
    node.mon("127.0.0.1:1#p", deaths)
    assert deaths.wait()[0] == "transport_error"


# --- waiting for room ---------------------------------------------------------------------


class Stalled:
    """A node with a peer that does not read, and a thread that sends until it blocks."""

    def __init__(self, make_node, high_water=20_000) -> None:
        self.node = make_node(high_water_bytes=high_water)
        self.peer = RawPeer.dial(self.node).shake()
        wait_until(self.node.up_nodes)
        self.link_to = network_of(self.node).peers[self.peer.name]
        self.port = f"{self.peer.name}#p"
        self.sent = 0
        self.wanted = 100_000

    def flood(self):
        while self.sent < self.wanted:
            self.node.snd(self.port, self.sent, "x" * 1000)
            self.sent += 1

    def fill(self):
        """Send from a thread, until that blocks; return it."""
        thread = Thread(self.flood)
        # The hub takes everything that was handed over, and the thread does not go on.
        seen = -1

        def blocked():
            nonlocal seen
            before, seen = seen, self.sent
            gevent.sleep(0.1)
            return before == self.sent and self.link_to.unsent > 10_000

        wait_until(blocked, within=WAIT, show=lambda: self.sent)
        assert not thread.is_done
        return thread

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.wanted = 0
        self.peer.close()


@pytest.mark.slow
def test_a_thread_blocks_above_the_high_water_mark_and_goes_on_when_there_is_room(make_node):
    with Stalled(make_node) as stalled:
        thread = stalled.fill()
        # What is unsent is bounded: the mark, one message, and what may be handed over at once.
        assert stalled.link_to.unsent <= 20_000 + 2 * 1100
        before = stalled.sent
        stalled.wanted = before + 300
        for number in range(before + 300):
            packet = stalled.peer.packet()
            assert packet[:2] == ["p", number]
        thread.result()
        assert stalled.sent == before + 300


@pytest.mark.slow
@pytest.mark.parametrize("end", ["lost", "shutdown"])
def test_a_blocked_thread_goes_on_when_the_link_is_lost_or_the_node_shuts_down(make_node, end):
    with Stalled(make_node) as stalled:
        thread = stalled.fill()
        stalled.wanted = stalled.sent + 1
        if end == "lost":
            stalled.peer.close()
        else:
            stalled.node.shutdown(0.1)
        thread.result()


@pytest.mark.slow
def test_a_thread_that_must_not_block_gets_an_error_if_the_link_is_busy(make_node):
    with Stalled(make_node) as stalled:
        # More than the system's buffers may grow to.
        thread = Thread(lambda: stalled.node.snd(stalled.port, "x" * 30_000_000))
        wait_until(lambda: stalled.link_to.unsent > 1_000_000)
        with pytest.raises(LinkBusyError, match="high-water mark is 20000") as caught:
            in_thread(stalled.node.snd_nowait, stalled.port, "x")
        assert caught.value.unsent > 1_000_000
        assert caught.value.node == stalled.peer.name
        assert not thread.is_done
        stalled.peer.close()
        thread.result()


@pytest.mark.parametrize("call", ["snd", "snd_nowait"])
def test_only_the_nodes_own_thread_touches_links_and_what_is_known_of_ports(make_node, monkeypatch, call):
    a, b = make_node(), make_node()
    threads: set[int] = set()

    def noting(function):
        def noted(*args):
            threads.add(get_ident())
            return function(*args)

        return noted

    for owner, name in [(Link, "send"), (Link, "send_encoded"), (RemotePorts, "get")]:
        monkeypatch.setattr(owner, name, noting(getattr(owner, name)))
    send = getattr(a, call)
    known, unknown = Inbox(b), Inbox(b)
    a.snd(known.port, "makes a link")
    wait_until(lambda: known.messages)
    for inbox in (known, unknown):
        in_thread(send, inbox.port, call)
        wait_until(lambda: (call,) in inbox.messages)  # noqa: B023
    assert threads == {get_ident()}


@pytest.mark.slow
def test_a_thread_is_held_back_while_the_hub_takes_nothing(make_node):
    """A handler that computes keeps the hub from running, and memory must not fill meanwhile."""
    a, b = make_node(high_water_bytes=20_000), make_node()
    inbox = Inbox(b)
    sent = 0

    def flood():
        nonlocal sent
        for sent in range(60):
            a.snd(inbox.port, sent, "x" * 1000)

    thread = Thread(flood)
    deadline = perf_counter() + 0.3
    while perf_counter() < deadline:
        pass
    assert sent < 40
    assert thread.is_done is False
    thread.result()
    wait_until(lambda: len(inbox.messages) == 60)
    assert [number for number, _ in inbox.messages] == list(range(60))


# --- a thread that stops in the middle of a call, wherever the interpreter may let it --------------


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
        self.node.snd(self.port, "first")
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

    def take_over(self):
        def act():
            while True:
                self.got.extend(receive())

        self.node.rcv_async(self.port, act)
        self.event.set()

    def then(self, *calls):
        for call in calls:
            call()
            turns(20)  # not settle(): the thread may stand where a pump is asked for


def _nothing():
    pass


MIDDLES = {
    # name: (the port, what happens to it meanwhile, whether it must be dead)
    "first-message": (lambda stage: stage.callback(), lambda stage: _nothing, False),
    "somebody-else-sends": (
        lambda stage: stage.callback(),
        lambda stage: lambda: stage.node.snd(stage.port, "other"),
        False,
    ),
    "actor": (lambda stage: stage.actor(), lambda stage: lambda: stage.node.snd(stage.port, "other"), False),
    "killed": (lambda stage: stage.callback(), lambda stage: lambda: stage.node.kil(stage.port, "killed"), True),
    "actor-killed": (lambda stage: stage.actor(), lambda stage: lambda: stage.node.kil(stage.port, "killed"), True),
    "blocks-meanwhile": (
        lambda stage: stage.blocking(),
        lambda stage: lambda: stage.node.snd(stage.port, "first"),
        False,
    ),
    "blocked": (lambda stage: stage.blocked(), lambda stage: stage.event.set, False),
    "blocked-and-killed": (
        lambda stage: stage.blocked(),
        lambda stage: lambda: stage.node.kil(stage.port, "killed"),
        True,
    ),
    "blocked-and-taken-over": (lambda stage: stage.blocked(), lambda stage: stage.take_over, False),
    "taken-over": (lambda stage: stage.callback(), lambda stage: stage.take_over, False),
    "bounded": (lambda stage: stage.callback(limit=9), lambda stage: _nothing, False),
    "bounded-and-taken-over": (lambda stage: stage.blocked(limit=9), lambda stage: stage.take_over, False),
    "bounded-and-killed": (
        lambda stage: stage.blocked(limit=9),
        lambda stage: lambda: stage.node.kil(stage.port, "killed"),
        True,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("middle", MIDDLES)
def test_a_thread_that_stops_anywhere_in_snd_loses_nothing_and_breaks_nothing(make_node, middle):
    make, happens, dies = MIDDLES[middle]

    def scene(point):
        node = make_node(None)
        stage = make(Stage(node))
        thread = StoppedThread(lambda: stage.node.snd(stage.port, "injected"), point)
        stage.then(happens(stage))
        thread.go_on()
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
        monkeypatch.setattr(node.scheduler, "on_unmonitored_death", lambda *death: unmonitored.append(death))
        thread = StoppedThread(lambda: stage.node.kil(stage.port, "thread"), point)
        stage.then(happens(stage))
        thread.go_on()
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
        monkeypatch.setattr(node.scheduler, "on_unmonitored_death", lambda *death: unmonitored.append(death))
        stage = Stage(node).blocked(limit=2)
        node.snd(stage.port, "dropped")
        node.snd(stage.port, "dropped")
        thread = StoppedThread(lambda: stage.node.snd(stage.port, "too much"), point)
        node.kil(stage.port, "killed")
        stage.then(stage.event.set)
        thread.go_on()
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
        monkeypatch.setattr(node.scheduler, "on_unmonitored_death", lambda *death: unmonitored.append(death))
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
        thread.go_on()
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
            thread.go_on()
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
        first.go_on()
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
@pytest.mark.parametrize("kind", ["callback", "bounded"])
@pytest.mark.parametrize("does", ["snd", "kil"])
def test_a_thread_that_gets_the_interpreter_anywhere_in_a_ports_life_is_heard(node, does, kind):
    """The other way round: the node's thread stands anywhere, while another one makes a whole call."""

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


# --- everything at once ------------------------------------------------------------------------

THREADS = 4


class Record:
    """What a port got, by sender; each sender's numbers must come in order, with no hole and none twice."""

    def __init__(self) -> None:
        self.numbers: dict[int, list[int]] = {}

    def take(self, sender: int, number: int) -> None:
        self.numbers.setdefault(sender, []).append(number)

    def is_complete(self, count: int, senders: int = THREADS) -> bool:
        return sum(map(len, self.numbers.values())) >= count * senders

    def check(self, count: int) -> None:
        for sender, numbers in self.numbers.items():
            assert numbers == list(range(count)), f"sender {sender}: {numbers[:20]}…"


def _together(work: Callable[[int], None]) -> list[Thread]:
    barrier = threading.Barrier(THREADS)

    def run(number: int) -> None:
        barrier.wait(WAIT)
        work(number)

    return [Thread(lambda number=number: run(number)) for number in range(THREADS)]


@pytest.mark.slow
def test_hammering_all_kinds_of_ports_from_many_threads(make_node, eager_switches):
    a, b = make_node(high_water_bytes=2000), make_node()
    count = 3000
    records = [Record() for _ in range(4)]
    callback = a.port(records[0].take)

    def act():
        while True:
            records[1].take(*receive())

    actor = a.port_async(act)
    bounded = a.port(records[2].take, limit=10**6)
    remote = b.port(records[3].take)
    ports = [callback, actor, bounded, remote]

    def work(sender):
        for number in range(count):
            for port in ports:
                a.snd(port, sender, number)

    threads = _together(work)
    for number in range(count):  # the node's own thread takes part
        for port in ports:
            a.snd(port, THREADS, number)
        gevent.sleep(0)
    for thread in threads:
        thread.result(60)
    wait_until(
        lambda: all(record.is_complete(count, THREADS + 1) for record in records),
        within=60,
        show=lambda: [{who: len(got) for who, got in record.numbers.items()} for record in records],
    )
    for record in records:
        record.check(count)
    a.kil(actor)
    settle(a)


@pytest.mark.slow
def test_hammering_ports_that_get_a_greenlet_of_their_own_meanwhile(make_node, eager_switches):
    """The inbox is taken away from the runner while threads append to it: nothing may be lost, or overtake."""
    node = make_node(None)
    ports, per_port = 1500, 12
    records = [Record() for _ in range(ports)]
    ids = []

    def prepare(record, limit):
        def act():
            while not record.is_complete(per_port):
                record.take(*receive())

        def first(*message):
            node.rcv_async(port, act)
            record.take(*message)

        port = node.port(first, limit=limit)
        ids.append(port)

    for number, record in enumerate(records):
        prepare(record, 10**6 if number % 2 else None)

    def work(sender):
        for port in ids:
            for number in range(per_port):
                node.snd(port, sender, number)

    threads = _together(work)
    for thread in threads:
        thread.result(60)
    wait_until(lambda: not ports_of(node), within=60, show=lambda: [record.numbers for record in records][:3])
    for record in records:
        record.check(per_port)


@pytest.mark.slow
def test_hammering_ports_that_are_killed_meanwhile(make_node, eager_switches):
    """Each thread kills ports of its own after some messages; others kill theirs in the middle of it."""
    node = make_node(None)
    rounds = 2000
    own: list[list[str]] = [[] for _ in range(THREADS)]
    got: dict[str, list[int]] = {}
    deaths: dict[str, list[tuple[object, ...]]] = {}

    def victim():
        messages: list[int] = []
        port = node.port(messages.append)
        got[port] = messages
        deaths[port] = []
        node.mon(port, lambda *reason: deaths[port].append(reason))
        return port

    for ports in own:
        ports.extend(victim() for _ in range(rounds))
    shared = [victim() for _ in range(rounds)]

    def work(sender):
        for port, common in zip(own[sender], shared, strict=True):
            for number in range(5):
                node.snd(port, number)
                node.snd(common, number)
            node.kil(port, "thread", sender)
            node.kil(common, "somebody")
            node.snd(port, "too late")

    threads = _together(work)
    for port in shared[::2]:
        node.snd(port, -1)
        node.kil(port, "somebody")
        gevent.sleep(0)
    for thread in threads:
        thread.result(60)
    wait_until(lambda: not ports_of(node), within=60, show=lambda: len(ports_of(node)))
    settle(node)
    for sender, ports in enumerate(own):
        for port in ports:
            assert got[port] == [0, 1, 2, 3, 4]
            assert deaths[port] == [("thread", sender)]
    assert all(deaths[port] == [("somebody",)] for port in shared)


@pytest.mark.slow
def test_hammering_bounded_mailboxes_until_they_overflow(make_node, eager_switches):
    node = make_node(None)
    deaths: list[tuple[object, ...]] = []
    ports = [node.port(lambda *_message: None, limit=5) for _ in range(2000)]
    for port in ports:
        node.mon(port, lambda *reason: deaths.append(reason))

    def work(_sender):
        for port in ports:
            for number in range(10):
                node.snd(port, number)

    for thread in _together(work):
        thread.result(60)
    for port in ports:
        node.kil(port)
    wait_until(lambda: len(deaths) == len(ports), within=30, show=lambda: len(deaths))
    settle(node)
    assert set(deaths) <= {(), ("mailbox_overflow", 5)}


@pytest.mark.slow
def test_hammering_a_slow_link_blocks_threads_and_loses_nothing(make_node, eager_switches):
    """Many threads, a tiny high-water mark, large messages: everybody is blocked most of the time."""
    a, b = make_node(high_water_bytes=500), make_node()
    count = 400
    record = Record()
    remote = b.port(lambda sender, number, _load: record.take(sender, number))

    def work(sender):
        for number in range(count):
            a.snd(remote, sender, number, b"x" * 3000)

    threads = _together(work)
    for number in range(count):
        a.snd(remote, THREADS, number, b"x" * 3000)
    for thread in threads:
        thread.result(60)
    wait_until(lambda: record.is_complete(count, THREADS + 1), within=60)
    record.check(count)


def test_what_a_thread_sent_before_comes_before_what_the_nodes_own_thread_sends(make_node):
    """Who joined the thread, or heard of it otherwise, may count on the order."""
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    one.mon(inbox.port, print)
    wait_until(one.up_nodes)
    for number in range(20):
        thread = threading.Thread(target=one.snd, args=(inbox.port, "thread", number))
        thread.start()
        thread.join()  # blocks the loop: nothing is taken on the hub meanwhile
        one.snd(inbox.port, "own", number)
    wait_until(lambda: len(inbox.messages) == 40)
    assert inbox.messages == [(who, number) for number in range(20) for who in ("thread", "own")]


def test_what_a_thread_sent_before_a_shutdown_is_sent(make_node):
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    one.mon(inbox.port, print)
    wait_until(one.up_nodes)
    thread = threading.Thread(target=lambda: [one.snd(inbox.port, number) for number in range(10)])
    thread.start()
    thread.join()
    one.shutdown()
    wait_until(lambda: len(inbox.messages) == 10, show=lambda: inbox.messages)


# --- the end of watchers ------------------------------------------------------------------

WATCHERS = """
import gc, sys, threading
from gevent._ffi.watcher import watcher

left = []
watcher.__del__ = lambda self: self._watcher and left.append(type(self).__name__)  # its memory goes, unclosed

import gevent
import aemp_gevent as mp

seed = mp.Node()
seed.initialise_node("127.0.0.1:0", secret="s")
remote = seed.port(lambda *message: None)

def run(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    while thread.is_alive():
        gevent.sleep(0.001)

def live():
    node = mp.Node()
    node.initialise_node("127.0.0.1:0", seed.NODE(), secret="s")
    port = node.port(lambda *message: None)
    for receiver in (port, remote):
        node.mon(receiver, lambda *reason: None)
        node.snd(receiver, "hello")
    node.after(0.001, lambda: None)
    node.syncal(5, seed.NODE(), "time")
    gevent.sleep(0.002)
    node.shutdown(1)

def live_and_end(destroyed):
    live()
    gc.collect()
    gevent.sleep(0)
    if destroyed:
        gevent.get_hub().destroy(destroy_loop=True)

for _ in range(3):
    live()
for destroyed in (False, True):
    run(live_and_end, destroyed)
seed.shutdown(1)
private = [mp.Node()]
private[0].port()
run(lambda: (private.clear(), gc.collect()))  # so it is collected there
gc.collect()
gevent.sleep(0.01)
gc.collect()
print(type(gevent.get_hub().loop).__module__, left)
"""


def test_every_watcher_of_a_collected_node_is_closed():
    """libuv goes on using the memory of one that is not, and sooner or later the process aborts."""
    environment = {**os.environ, "GEVENT_LOOP": "libuv"}
    done = subprocess.run(
        [sys.executable, "-c", WATCHERS], env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    if "ImportError" in done.stderr:
        pytest.skip("this gevent has no libuv")
    assert (done.stdout, done.stderr) == ("gevent.libuv.loop []\n", "")


GUARDS = {
    "attach": lambda node, port: node.attach(),
    "mon": lambda node, port: node.mon(port, print),
    "after": lambda node, port: node.after(60, print),
    "db_set": lambda node, port: node.db_set("family", "key", 1),
    "db_mon": lambda node, port: node.db_mon("family", print),
    "mon_nodes": lambda node, port: node.mon_nodes(print),
    "death_of": lambda node, port: death_of(port, node=node),
    "pool": lambda node, port: RemotePool([node.NODE()], node=node),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_the_collector_may_close_a_block_in_any_thread(make_node, guard):
    """It runs in each, also in those of gevent's pool, and finds generators that nobody needs any more."""
    node = make_node(None)
    port = node.port()

    def generator():
        with GUARDS[guard](node, port):
            yield

    running = [generator()]
    next(running[0])
    before = tables(node)
    in_thread(running.clear)
    wait_until(lambda: tables(node) != before or guard in {"db_set", "db_mon", "mon_nodes"})
    node.kil(port)
    settle(node)
    wait_until(lambda: not ports_of(node))
