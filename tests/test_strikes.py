# SPDX-License-Identifier: MIT
"""Exceptions that strike in the middle of our own code: at the recursion limit, and from signal handlers.

Each call either has its whole effect or none, and everything goes on afterwards; or a port that was struck is dead,
and whoever monitors it knows.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import zope.event

from aemp_gevent.errors import CallTimeout, PortDied, RemoteError
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import current_port, psub
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.port import IDLE, RUNNING, AttachedPort, Port
from aemp_gevent.ports.receive import receive
from aemp_gevent.settings.fields import Settings
from aemp_gevent.toolkit import PortQueue, PortSemaphore, RemotePool, RemoteSemaphore
from tests.helpers import wait_until
from tests.injecting import SCHEDULER, Injector, strike_points
from tests.native import threading
from tests.networking import Inbox, MakeNode, node_factory, tables
from tests.seams import ports_of
from tests.settling import settle
from tests.thoroughness import tries

SAMPLE = int(os.environ.get("AEMP_STRIKES", tries(10, 25)))
"""At how many of the points each scene is struck; 0: at all of them, which takes minutes."""

# Coverage traces, too, and would be struck as well.
pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.no_cover]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print nothing of what strikes on the hub."""
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_args: None)


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


def works(node: LocalNode) -> None:
    """See that new ports, timers and timeouts of this node work."""
    got: list[object] = []
    died: list[tuple[object, ...]] = []
    port = node.port(got.append)
    node.mon(port, lambda *reason: died.append(reason))
    node.snd(port, "probe")
    with node.after(0.001, got.append, "timer"), node.attach():
        assert receive(timeout=0.001, default="timeout") == "timeout"
        wait_until(lambda: sorted(map(str, got)) == ["probe", "timer"], within=3, show=lambda: got)
    node.kil(port, "end")
    wait_until(lambda: died == [("end",)], within=3, show=lambda: died)
    settle(node)


# --- the recursion limit --------------------------------------------------------------


DEPTHS = 50
"""How far from the limit it is tried: the deepest of the calls that cannot wait take some 30."""


def at_every_depth(
    call: Callable[[int], object], before: Callable[[int], object] = lambda _: None
) -> Iterator[RecursionError | None]:
    """Make a call (with its number) ever deeper in the stack; give what it raised, until it could not even begin."""

    def deep(levels: int, number: int) -> object:
        return deep(levels - 1, number) if levels else call(number)

    depth, frame = 0, sys._getframe()
    while frame:
        depth, frame = depth + 1, frame.f_back  # type: ignore[assignment]
    failed = 0
    limit = sys.getrecursionlimit() - depth
    for number, levels in enumerate(range(limit - DEPTHS + 3, limit + 3)):
        before(number)
        try:
            deep(levels, number)
        except RecursionError as error:
            failed += 1
            yield error.with_traceback(None)
        else:
            yield None
    assert failed > 2


def test_snd_at_the_recursion_limit_sends_or_does_not(node):
    got: list[object] = []
    port = node.port(got.append)
    sent = []
    for number, error in enumerate(at_every_depth(lambda _: node.snd(port, "x"))):
        settle(node)
        assert got == ([] if error else ["x"]), f"call {number}"
        sent += got
        got.clear()
    assert sent
    works(node)


def test_snd_to_a_new_port_at_the_recursion_limit_sends_or_does_not(node):
    got: list[object] = []
    ports = [node.port(got.append) for _ in range(DEPTHS)]
    for number, error in enumerate(at_every_depth(lambda number: node.snd(ports[number], "x"))):
        settle(node)
        assert got == ([] if error else ["x"]), f"call {number}"
        got.clear()
    works(node)


def test_kil_at_the_recursion_limit_kills_or_does_not(node):
    died: list[tuple[object, ...]] = []

    def victim(handler: Any = None) -> str:
        port = node.port(handler)
        node.mon(port, lambda *reason: died.append(reason))
        return port

    def blocked() -> str:
        port = victim(lambda: gevent.sleep(60))
        node.snd(port)
        return port

    for make in (victim, blocked):
        ports = [make() for _ in range(DEPTHS)]
        settle(node)
        for number, error in enumerate(at_every_depth(lambda number, ports=ports: node.kil(ports[number], "first"))):
            settle(node)
            assert died == ([] if error else [("first",)]), f"call {number}"
            node.kil(ports[number], "second")
            settle(node)
            assert died == ([("second",)] if error else [("first",)]), f"call {number}"
            died.clear()
        works(node)


def nothing(*_args: object) -> None:
    """Be spawned, and called."""


def attach_and_receive(node: LocalNode, _port: str) -> None:
    with node.attach():
        receive(timeout=0, default=None)


def call_in_vain(node: LocalNode, port: str) -> None:
    with contextlib.suppress(CallTimeout, RemoteError):
        node.call(port, "tag", timeout=0.01)


CALLS: dict[str, Callable[[LocalNode, str], object]] = {
    "port": lambda node, _: node.kil(node.port(nothing)),
    "rcv": lambda node, port: node.rcv(port, "tag", nothing),
    "rcv-pattern": lambda node, port: node.rcv(port, ["tag", 1], nothing),
    "reg": lambda node, port: node.reg(port, "name"),
    "mon": lambda node, port: node.mon(port, nothing),
    "mon-cancel": lambda node, port: node.mon(port, nothing).cancel(),
    "mon_guard": lambda node, port: node.mon_guard(port, []),
    "after": lambda node, _: node.after(0, nothing),
    "after-cancel": lambda node, _: node.after(60, nothing).cancel(),
    "cal": lambda node, port: node.cal(port, "tag", cb=lambda *_: None, timeout=0.01),
    "call_async": lambda node, port: node.call_async(port, "tag", timeout=0.01),
    "syncal": lambda node, port: node.syncal(0.01, port, "tag"),
    "call": call_in_vain,
    "serve": lambda node, port: node.serve(port, "served", nothing),
    "port_async": lambda node, _: node.port_async(nothing),
    "rcv_async": lambda node, port: node.rcv_async(port, nothing),
    "spawn": lambda node, _: node.spawn(node.NODE(), f"{__name__}.nothing"),
    "attach": attach_and_receive,
    "peval": lambda node, port: node.peval(port, nothing),
    "psub": lambda node, port: node.peval(port, psub, nothing),
}


@pytest.mark.parametrize("name", CALLS)
def test_any_call_at_the_recursion_limit_leaves_a_node_that_works(node, name):
    """And the port that it is about can be killed, and then whoever monitors it knows."""
    died: list[int] = []
    ports = [node.port() for _ in range(DEPTHS)]
    for number, port in enumerate(ports):
        node.mon(port, lambda *_, number=number: died.append(number))
    for number, _error in enumerate(at_every_depth(lambda number: CALLS[name](node, ports[number]))):
        got: list[object] = []
        probe = node.port(got.append)
        node.snd(probe, number)
        node.kil(ports[number], "end")
        wait_until(lambda: number in died and got, within=3, show=lambda: (number, died, got))  # noqa: B023
        node.kil(probe)
    works(node)


# --- interrupts: what a signal handler raises, wherever CPython may run it ------------------

TRACED = (
    *SCHEDULER,
    *(
        "receive.py",
        "port.py",
        "node_ports.py",
        "sending.py",
        "monitoring.py",
        "registering.py",
        "running.py",
        "asking.py",
        "monitors.py",
        "handlers.py",
        "hub_calls.py",
        "threads.py",
    ),
    *("timers.py", "attachment.py", "answers.py", "cal.py", "call.py", "context.py"),
)
STRIKES = [KeyboardInterrupt, MemoryError]


class Scene:
    """A node with ports of each kind, to which everything is done that a program does."""

    def __init__(self, node: LocalNode) -> None:
        self.node = node
        self.got: dict[str, list[object]] = {}
        self.died: dict[str, list[tuple[object, ...]]] = {}
        self.store = self._watched(node.port(lambda *message: self.got[self.store].append(message)))
        self.actor = self._watched(node.port_async(self._act))
        self.server = self._watched(node.port())
        node.serve(self.server, add=lambda a, b: a + b)
        node.rcv(self.server, probe=lambda number: self.got[self.server].append(("probe", number)))
        self.blocked = self._watched(node.port(lambda *_: gevent.sleep(60)))
        node.snd(self.blocked)
        self.killed: list[str] = []
        settle(node)

    def _watched(self, port: str) -> str:
        died: list[tuple[object, ...]] = []
        self.node.mon(port, lambda *reason: died.append(reason))
        self.got[port], self.died[port] = [], died
        return port

    def _act(self) -> None:
        while True:
            message = receive(timeout=0.001, default=None)
            if message is not None:
                self.got[self.actor].append(message)

    def steps(self) -> Iterator[Callable[[], object]]:
        node = self.node
        yield lambda: [node.snd(port, "x", number) for number in range(3) for port in (self.store, self.actor)]
        yield lambda: gevent.sleep(0.002)
        yield lambda: node.call(self.server, "add", 1, 2, timeout=1)
        yield lambda: node.after(0.001, self.store, "later")
        yield self._kill
        yield self._receive
        yield lambda: gevent.sleep(0.003)
        yield lambda: from_afar(node.snd, self.store, "from afar")
        yield lambda: gevent.sleep(0.001)
        yield self._kill_from_afar
        yield lambda: gevent.sleep(0.003)

    def _kill(self) -> None:
        ports = [self._watched(self.node.port()), self.blocked]
        self.node.snd(ports[0], "x")
        for port in ports:
            self.node.kil(port, "killed")
            self.killed.append(port)

    def _kill_from_afar(self) -> None:
        port = self._watched(self.node.port())
        from_afar(self.node.kil, port, "killed")
        self.killed.append(port)

    def _receive(self) -> None:
        with self.node.attach() as me:
            self.node.snd(me, "x")
            receive("x")
            receive(timeout=0.001, default=None)

    def check(self) -> None:
        """See that each port handles what is sent to it, or is dead, and its monitor knows; then the node."""
        node = self.node
        settle(node)
        for port in self.killed:
            assert self.died[port], f"{port} was killed"
        for number, port in enumerate((self.store, self.actor, self.server)):
            node.snd(port, "probe", number)
            wait_until(
                lambda: self.died[port] or ("probe", number) in self.got[port],  # noqa: B023
                within=3,
                show=lambda: (port, node.find(port), self.got),  # noqa: B023
            )
        for port in list(self.died):
            node.kil(port, "end")
        wait_until(lambda: all(self.died.values()), within=3, show=lambda: (self.died, ports_of(node)))
        works(node)
        # A port that was made, and a greenlet that was attached, just before the interrupt came are what they are.
        ours = gevent.getcurrent()
        assert [port for port in left_over(node) if port.runner is not ours or port.is_for_answer] == []
        ours.aemp_port = None  # type: ignore[attr-defined]
        wait_until(lambda: not node.scheduler._timers, within=3, show=lambda: node.scheduler._timers)


def left_over(node: LocalNode) -> list[Port]:
    """Return the ports that are in use, and those that were made for a call or a block."""
    return [
        port
        for port in ports_of(node).values()
        if port.state != IDLE or port.is_for_answer or isinstance(port, AttachedPort)
    ]


def from_afar(call: Callable[..., object], *args: object) -> None:
    thread = threading.Thread(target=call, args=args, daemon=True)
    thread.start()
    thread.join(5)


def play(node: LocalNode, error: type[BaseException] | None, chosen: Callable[[int], bool]) -> int:
    """Play the scene, struck at the chosen points; return how many there are."""
    scene = Scene(node)

    def strike() -> None:
        if error is not None:
            raise error

    with Injector(strike, chosen, strike_points, TRACED) as injector:
        for step in scene.steps():
            with contextlib.suppress(KeyboardInterrupt, MemoryError, CallTimeout, PortDied, RemoteError):
                step()
    for _ in range(3):  # what struck on the hub may still come
        with contextlib.suppress(KeyboardInterrupt):
            gevent.sleep(0.002)
    scene.check()
    return injector.count


@pytest.mark.parametrize("error", STRIKES)
def test_an_interrupt_anywhere_leaves_ports_that_work_or_are_known_to_be_dead(error):
    count = play(LocalNode(), None, lambda _: False)
    assert count > 300
    rng = random.Random(7)
    for point in rng.sample(range(count), SAMPLE) if SAMPLE else range(count):
        try:
            play(LocalNode(), error, lambda seen: seen == point + 1)  # noqa: B023
        except BaseException as failure:
            raise AssertionError(f"struck at point {point}") from failure


# Those that make a port of their own.
ASKING: dict[str, Callable[[LocalNode, str], object]] = {
    "cal": lambda node, port: node.cal(port, "add", 1, 2, cb=nothing, timeout=0.05),
    "syncal": lambda node, port: node.syncal(0.05, port, "add", 1, 2),
    "call": lambda node, port: node.call(port, "add", 1, 2, timeout=0.05),
    "call_async": lambda node, port: node.call_async(port, "add", 1, 2, timeout=0.05).get(),
    "attach": attach_and_receive,
    "port_async": lambda node, _: node.port_async(nothing),
    "spawn": lambda node, _: node.spawn(node.NODE(), f"{__name__}.end_at_once"),
}


def end_at_once() -> None:
    """Be spawned, and die."""
    port = current_port()
    assert port is not None
    port.scheduler.kill(port, ())


def detach_if_attached(node: LocalNode) -> None:
    """End the attachment of a call that was struck when it was done: the greenlet is attached then, as a whole."""
    ours: Any = gevent.getcurrent()
    port = getattr(ours, "aemp_port", None)
    if port is not None:
        assert (node.find(port.id), port.runner, port.state) == (port, ours, RUNNING)
        node.scheduler.die(port, ())
        ours.aemp_port = None


@pytest.mark.parametrize("name", ASKING)
def test_a_call_that_is_struck_anywhere_leaves_no_port_behind(node, name):
    server = node.port()
    node.serve(server, add=lambda a, b: a + b)
    ASKING[name](node, server)
    settle(node)

    def strike() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        with Injector(strike, lambda seen: seen == point, strike_points, TRACED) as injector:  # noqa: B023
            with contextlib.suppress(KeyboardInterrupt, CallTimeout, PortDied, RemoteError):
                ASKING[name](node, server)
            with contextlib.suppress(KeyboardInterrupt):
                settle(node)
        for _ in range(3):  # what struck on the hub may still come
            with contextlib.suppress(KeyboardInterrupt):
                settle(node)
        detach_if_attached(node)
        if node.find(server) is None:  # it was struck in its handler
            server = node.port()
            node.serve(server, add=lambda a, b: a + b)
        wait_until(lambda: list(ports_of(node)) == [server], within=3, show=lambda: (point, ports_of(node)))  # noqa: B023
        if not injector.fired:
            break
    assert point > 20


TOOLKIT = ("semaphores.py", "remotes.py", "lifetimes.py", "proxy_waiters.py", "queues.py", "pools.py")


def enter(semaphore: RemoteSemaphore) -> None:
    with semaphore:
        pass


def link(semaphore: RemoteSemaphore) -> None:
    semaphore.rawlink(nothing)
    semaphore.unlink(nothing)


TOOLS: dict[str, Callable[[RemoteSemaphore], object]] = {
    "acquire": lambda semaphore: (semaphore.acquire(), semaphore.release()),
    "acquire-without-waiting": lambda semaphore: (semaphore.acquire(timeout=0), semaphore.release()),
    "with": enter,
    "rawlink": link,
    "queue": lambda semaphore: PortQueue(node=semaphore.node),
    "semaphore": lambda semaphore: PortSemaphore(node=semaphore.node),
    "pool": lambda semaphore: RemotePool([semaphore.node.NODE()], node=semaphore.node),
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_that_is_struck_anywhere_leaves_no_port_behind_and_holds_nothing(node, name):
    semaphore = PortSemaphore(1, node=node)
    remote = RemoteSemaphore(semaphore.port, node=node)
    TOOLS[name](remote)

    def strike() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        injector = Injector(strike, lambda seen: seen == point, strike_points, TOOLKIT)  # noqa: B023
        made = None
        with contextlib.suppress(KeyboardInterrupt), injector:
            made = TOOLS[name](remote)
        del made  # not before: what strikes a finalizer ends it
        while remote._leases:  # struck between acquire() and release(), or in the latter
            remote.release()
        remote.unlink(nothing)
        if node.find(semaphore.port) is None:  # it was struck in its own handler
            semaphore = PortSemaphore(1, node=node)
            remote = RemoteSemaphore(semaphore.port, node=node)
        gc.collect()
        wait_until(lambda: list(ports_of(node)) == [semaphore.port], within=3, show=lambda: (point, ports_of(node)))  # noqa: B023
        wait_until(lambda: semaphore.counter == 1, within=3, show=lambda: point)  # noqa: B023
        if not injector.fired:
            break
    assert point > 3


@pytest.mark.parametrize("monitored", [False, True])
def test_a_death_that_is_struck_anywhere_and_begun_again_is_reported_once(monkeypatch, monitored):
    node = Node()
    heard: list[object] = []
    monkeypatch.setattr(zope.event, "subscribers", [heard.append])

    def strike() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        port = node.make()
        node.scheduler.table.add(port)
        if monitored:
            node.mon(port.id, lambda *reason: heard.append(PortDied("monitored", reason)))
        injector = Injector(strike, lambda seen: seen == point, strike_points, (*SCHEDULER, "node.py"))  # noqa: B023
        with contextlib.suppress(KeyboardInterrupt), injector:
            node.scheduler.die(port, ("die", "test"))
        node.scheduler.die(port, ("die", "test"))
        settle(node)
        assert [str(event) for event in heard] == [
            str(PortDied("monitored" if monitored else port.id, ("die", "test")))
        ]
        heard.clear()
        if not injector.fired:
            break
    assert point > 8


# --- the same over links -------------------------------------------------------------------

LINKS = (
    "outbox.py",
    "link.py",
    "handshaking.py",
    "transport.py",
    "tls_transport.py",
    "peer.py",
    "sending.py",
    "remote_port.py",
    "remote_ports.py",
    "watchers.py",
    "flow_control.py",
    "thread_handover.py",
    "hub_calls.py",
    *SCHEDULER,
)


class Linked:
    """Two nodes, one of which sends to and calls ports of the other."""

    def __init__(self, make_node: MakeNode, **settings: Any) -> None:
        self.node, self.other = make_node(**settings), make_node(**settings)
        self.inbox = Inbox(self.other)
        self.server = self.serve()
        self.lost: list[tuple[object, ...]] = []
        self.node.mon(self.inbox.port, lambda *reason: self.lost.append(reason))
        self.echo()
        self.sent: list[object] = []

    def serve(self) -> str:
        port = self.other.port()
        self.other.serve(port, echo=lambda value: value)
        return port

    def send(self, value: object, *load: object) -> None:
        self.node.snd(self.inbox.port, value, *load)
        self.sent.append(value)

    def echo(self) -> None:
        assert self.node.call(self.server, "echo", 1, timeout=5) == 1

    def monitor(self) -> None:
        port = self.other.port()
        died: list[tuple[object, ...]] = []
        self.node.mon(port, lambda *reason: died.append(reason))
        self.node.kil(port, "killed")
        wait_until(lambda: died, within=5)

    def steps(self) -> Iterator[Callable[[], object]]:
        yield lambda: [self.send(number) for number in range(3)]
        yield self.echo
        yield self.monitor
        yield lambda: self.send("large", "x" * 300_000)
        yield lambda: from_afar(self.node.snd, self.inbox.port, "from afar")
        yield self.echo

    def check(self) -> None:
        """See that all that was accepted arrived in order or was reported lost, and that the nodes go on."""

        def arrived() -> list[object]:
            return [message[0] for message in self.inbox.messages if message[0] in self.sent]

        wait_until(lambda: self.lost or arrived() == self.sent, within=5, show=lambda: (self.sent, arrived()))
        assert arrived() == self.sent[: len(arrived())]

        def works() -> bool:
            with contextlib.suppress(PortDied):
                self.server = self.serve()  # the former may have died of what struck
                self.echo()
                self.monitor()
                return True
            return False

        wait_until(works, within=5)
        for node in (self.node, self.other):
            settle(node)


def play_linked(make_node: MakeNode, error: type[BaseException] | None, chosen: Callable[[int], bool]) -> int:
    """As :func:`play`, with two nodes."""
    scene = Linked(make_node)

    def strike() -> None:
        if error is not None:
            raise error

    with Injector(strike, chosen, strike_points, LINKS) as injector:
        for step in scene.steps():
            with contextlib.suppress(KeyboardInterrupt, MemoryError, CallTimeout, PortDied, RemoteError):
                step()
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt):
            gevent.sleep(0.002)
    scene.check()
    return injector.count


@pytest.mark.slow
@pytest.mark.parametrize("error", STRIKES)
def test_an_interrupt_anywhere_in_a_link_loses_nothing_in_silence(make_node, error):
    count = play_linked(make_node, None, lambda _: False)
    assert count > 300
    rng = random.Random(8)
    for point in rng.sample(range(count), SAMPLE) if SAMPLE else range(count):
        try:
            play_linked(make_node, error, lambda seen: seen == point + 1)  # noqa: B023
        except BaseException as failure:
            raise AssertionError(f"struck at point {point}") from failure


LOSSES = (
    "peer.py",
    "sending.py",
    "remote_port.py",
    "remote_ports.py",
    "watchers.py",
    "direct_peer.py",
    "resting.py",
    "monitors.py",
    *SCHEDULER,
    "link.py",
    "handshaking.py",
    "node.py",
    "network.py",
)


def lose_struck(
    make_node: MakeNode, subscribers: list[Any], error: type[BaseException], chosen: Callable[[int], bool]
) -> int:
    """Lose a link, struck at the chosen points; return how many there are."""
    node, other = make_node(), make_node()
    inbox = Inbox(other)
    died: list[int] = []
    ports = [inbox.port, other.port()]
    for number in range(4):
        node.mon(ports[number % 2], lambda *_, number=number: died.append(number))
    node.mon(other.NODE(), lambda *_: died.append(4))
    node.flush()
    links: list[object] = []
    for number in range(2):
        node.mon_nodes(lambda *change, number=number: links.append((number, *change[:2])))
    subscribers.append(lambda event: links.append(event.node) if event.by == node.NODE() else None)
    link = node.network.peer(other.NODE()).link  # type: ignore[union-attr]

    def strike() -> None:
        raise error

    with Injector(strike, chosen, strike_points, LOSSES) as injector:
        with contextlib.suppress(KeyboardInterrupt, MemoryError):
            link.fail("cut by the test")  # type: ignore[union-attr]
        with contextlib.suppress(KeyboardInterrupt, MemoryError):
            node.port()
    wait_until(lambda: sorted(set(died)) == list(range(5)), within=3, show=lambda: died)
    assert len(died) == 5
    node.scheduler.enqueue_job(CallJob(None, links.append, ("end",)))
    wait_until(lambda: "end" in links, within=3)
    assert links == [(0, other.NODE(), False), (1, other.NODE(), False), other.NODE(), "end"]
    subscribers.clear()
    node.mon(inbox.port, nothing)
    node.snd(inbox.port, "afterwards")
    wait_until(lambda: inbox.messages == [("afterwards",)], within=3, show=lambda: inbox.messages)
    return injector.count


@pytest.mark.slow
@pytest.mark.parametrize("error", STRIKES)
def test_monitors_fire_though_an_interrupt_strikes_while_the_link_is_lost(monkeypatch, error):
    """And whoever listens to links coming and going hears of it once."""
    subscribers: list[Any] = []
    monkeypatch.setattr(zope.event, "subscribers", subscribers)
    with node_factory() as make_node:
        count = lose_struck(make_node, subscribers, error, lambda _: False)
    assert count > 50
    rng = random.Random(9)
    for point in rng.sample(range(count), SAMPLE) if SAMPLE else range(count):
        try:
            with node_factory() as make_node:
                subscribers.clear()
                lose_struck(make_node, subscribers, error, lambda seen: seen == point + 1)  # noqa: B023
        except BaseException as failure:
            raise AssertionError(f"struck at point {point}") from failure


@pytest.mark.slow
def test_snd_over_a_link_at_the_recursion_limit_sends_or_does_not(make_node):
    scene = Linked(make_node)
    failed = 0
    for number, error in enumerate(at_every_depth(lambda number: scene.node.snd(scene.inbox.port, number))):
        scene.echo()
        assert [message[0] for message in scene.inbox.messages] == ([] if error else [number])
        scene.inbox.messages.clear()
        failed += error is not None
    assert failed > 5  # it is deeper than its own first step
    scene.check()


@pytest.mark.slow
def test_what_another_thread_sent_is_kept_though_who_passes_it_on_is_at_the_recursion_limit(make_node):
    scene = Linked(make_node)

    def send(number: int) -> None:
        scene.node.snd(scene.inbox.port, number, "mine")

    for number, error in enumerate(
        at_every_depth(send, lambda number: from_afar(scene.node.snd, scene.inbox.port, number))
    ):
        scene.echo()
        assert scene.inbox.messages == [(number,), *([] if error else [(number, "mine")])]
        scene.inbox.messages.clear()
    scene.check()


REMOTE_CALLS: dict[str, Callable[[LocalNode, str, Callable[..., object]], object]] = {
    "mon": lambda node, port, died: node.mon(port, died),
    "mon-more": lambda node, port, died: (node.mon(port, nothing), node.mon(port, died)),
    "mon_guard": lambda node, port, died: node.mon_guard(port, Closing(died)),
    "cal": lambda node, port, died: node.cal(port, "x", cb=died),
    "call_async": lambda node, port, died: node.call_async(port, "x", timeout=None).rawlink(died),
}


class Closing:
    """What calls a function when it is closed."""

    def __init__(self, close: Callable[..., object]) -> None:
        self.close = close


@pytest.mark.slow
@pytest.mark.parametrize("name", REMOTE_CALLS)
def test_who_watches_over_a_link_hears_of_the_death_though_a_call_before_was_at_the_recursion_limit(make_node, name):
    """The call is whole, or it left nothing behind; and the next one to watch the port does hear of its death."""
    scene = Linked(make_node)
    node, other = scene.node, scene.other
    call = REMOTE_CALLS[name]
    # Two calls of each port: what is looked up the first time only goes deeper than what is to be seen here.
    ports = [other.port(nothing) for _ in range(DEPTHS)]
    for port in ports:
        node.mon(port, nothing).cancel()
    node.flush()
    before = tables(node, other)
    died: list[int] = []
    for number, error in enumerate(
        at_every_depth(lambda number: call(node, ports[number], lambda *_: died.append(number)))
    ):
        if error:
            node.flush()
            assert tables(node, other) == before
            call(node, ports[number], lambda *_, number=number: died.append(number))
        other.kil(ports[number], "end")
        wait_until(lambda: number in died, within=5, show=lambda: (number, died))  # noqa: B023
        before[1] = (before[1][0] - 1, *before[1][1:])
        wait_until(lambda: tables(node, other) == before, within=5, show=lambda: (tables(node, other), before))
    assert sorted(died) == list(range(DEPTHS))
    scene.check()


@pytest.mark.slow
@pytest.mark.parametrize("call", ["kil", "spawn"])
def test_what_changes_another_node_at_the_recursion_limit_does_it_or_does_not(make_node, call):
    node, other = make_node(), make_node(allow_spawn=[f"{__name__}.*"])
    ports = [other.port() for _ in range(DEPTHS)]
    for port in ports:
        node.mon(port, nothing)
    node.flush()

    def make(number: int) -> None:
        if call == "kil":
            node.kil(ports[number])
        else:
            node.spawn(other.NODE(), f"{__name__}.nothing")

    there = tables(other)[0][0]
    for error in at_every_depth(make):
        node.flush()
        there += 0 if error else (-1 if call == "kil" else 1)
        assert tables(other)[0][0] == there


@pytest.mark.slow
def test_a_link_that_is_at_its_hard_limit_at_the_recursion_limit_is_kept_or_its_loss_is_told(make_node, monkeypatch):
    scene = Linked(make_node)
    node, other = scene.node, scene.other
    ports = [other.port() for _ in range(DEPTHS)]
    limit = 2**30
    monkeypatch.setattr(Settings, "hard_limit_bytes", property(lambda _: limit))
    died: list[int] = []

    def kill(number: int) -> None:
        node.kil(ports[number], "x" * 1000)

    def before(number: int) -> None:
        nonlocal limit
        for port in (ports[number], scene.inbox.port):
            node.mon(port, lambda *_: died.append(number))
        node.flush()
        limit = 500  # less than what is about to be sent

    def answers() -> bool:
        with contextlib.suppress(PortDied):  # the other side may not have noticed that the link is gone
            scene.echo()
            return True
        return False

    def is_settled(number: int) -> bool:
        return died.count(number) == 2 or (died.count(number) == 1 and (number,) in scene.inbox.messages)

    lost = 0
    for number, error in enumerate(at_every_depth(kill, before)):
        limit = 2**30
        node.snd(scene.inbox.port, number)
        if error:
            kill(number)
        wait_until(lambda: is_settled(number), within=3, show=lambda: (died, scene.inbox.messages))  # noqa: B023
        lost += died.count(number) == 2
        wait_until(answers, within=5)
    assert lost > 20


UNREACHED: dict[str, Callable[[LocalNode, str, Callable[..., object]], object]] = {
    **REMOTE_CALLS,
    "mon-node": lambda node, port, died: node.mon(node.node_of(port), died),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREACHED)
def test_a_node_is_dialled_though_the_call_that_wanted_it_was_at_the_recursion_limit(make_node, name):
    """The monitors of the next call fire, as there is nobody at that address."""
    node = make_node()
    node.mon("unix:/nowhere/first#port", nothing)  # what is imported, and looked up, once
    call = UNREACHED[name]
    died: list[int] = []

    def port(number: int) -> str:
        return f"unix:/nowhere/{number}#port"

    failed = 0
    for number, error in enumerate(
        at_every_depth(lambda number: call(node, port(number), lambda *_: died.append(number)))
    ):
        if error:
            failed += 1
            call(node, port(number), lambda *_, number=number: died.append(number))
        wait_until(lambda: number in died, within=3, show=lambda: (number, died))  # noqa: B023
    assert failed > 5
    assert sorted(died) == list(range(DEPTHS))
    assert tables(node)[0][:2] == (0, 0)


@pytest.mark.slow
def test_who_watches_a_family_hears_of_it_though_a_call_before_was_at_the_recursion_limit(make_node):
    node = make_node()
    other = make_node("127.0.0.1:0", node.NODE())
    assert other.wait_for_seeds(5)
    other.db_mon("first", nothing)  # what is looked up once
    heard: list[int] = []
    failed = 0
    for number, error in enumerate(
        at_every_depth(lambda number: other.db_mon(f"{number}", lambda *_: heard.append(number)))
    ):
        if error:
            failed += 1
            other.db_mon(f"{number}", lambda *_, number=number: heard.append(number))
        wait_until(lambda: number in heard, within=3, show=lambda: (number, heard))  # noqa: B023
    assert failed > 5
    assert sorted(heard) == list(range(DEPTHS))


@pytest.mark.slow
def test_an_entry_is_published_or_not_at_the_recursion_limit(make_node):
    node = make_node()
    other = make_node("127.0.0.1:0", node.NODE())
    assert other.wait_for_seeds(5)
    other.db_set("first", "key", 1)
    failed = 0
    for number, error in enumerate(at_every_depth(lambda number: other.db_set(f"{number}", "key", number))):
        assert other.flush()
        assert node.db_family(f"{number}") == ({} if error else {"key": number})
        failed += error is not None
        other.db_set(f"{number}", "key", "again")
        assert other.flush()
        assert node.db_family(f"{number}") == {"key": "again"}
    assert failed > 5
