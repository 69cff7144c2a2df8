# SPDX-License-Identifier: MIT
"""Exceptions that strike in the middle of our own code, at the recursion limit and from signal handlers: one node.

Each call either has its whole effect or none, and everything works afterwards; or a port that was struck is dead,
and its monitors know.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import zope.event

from aemp_gevent import is_compiled
from aemp_gevent.errors import CallTimeout, PortDied, PortKilled, RemoteError
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.port import IDLE, RUNNING, AttachedPort, Port
from aemp_gevent.ports.receive import receive
from aemp_gevent.toolkit import PortQueue, PortSemaphore, RemotePool, RemoteSemaphore
from tests.support.helpers import wait_until
from tests.support.injecting import CORE, SCHEDULER, Injector, between_bytecodes, strike_points
from tests.support.seams import ports_of
from tests.support.settling import settle
from tests.support.striking import DEPTHS, STRIKES, at_every_depth, from_afar, nothing, strike_in_turn, works

# Coverage traces, too, and would be struck as well.
pytestmark = [pytest.mark.usefixtures("quiet_hub"), pytest.mark.no_cover]


@pytest.fixture
def node() -> LocalNode:
    return LocalNode()


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


def attach_and_receive(node: LocalNode, _port: str) -> None:
    with node.attach():
        receive(timeout=0, default=None)


TRACED = (
    *CORE,
    *("runtime/hub_calls.py", "runtime/threads.py"),
    *("ports/handlers.py", "ports/timers.py", "ports/attachment.py", "ports/context.py"),
    *("calls/answers.py", "calls/cal.py", "calls/call.py"),
)


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
            self.node.after(0.001, me, "y")
            with contextlib.suppress(PortKilled):  # by what struck the message's sending
                receive("y", timeout=600)

    def check(self) -> None:
        """Check that each port handles messages, or is dead and its monitor knows; then the same for the node."""
        node = self.node
        settle(node)
        for port in self.killed:
            assert self.died[port], f"{port} was killed"
        for number, port in enumerate((self.store, self.actor, self.server)):
            node.snd(port, "probe", number)
            wait_until(
                lambda: self.died[port] or ("probe", number) in self.got[port],  # noqa: B023
                within=3,
                show=lambda: (port, node.scheduler.table.find(port), self.got),  # noqa: B023
            )
        for port in list(self.died):
            node.kil(port, "end")
        wait_until(lambda: all(self.died.values()), within=3, show=lambda: (self.died, ports_of(node)))
        works(node)
        # A port that was made, and a greenlet that was attached, just before the interrupt came are what they are.
        ours = gevent.getcurrent()
        assert [port for port in left_over(node) if port.cell.runner is not ours or port.is_for_answer] == []
        ours.aemp_port = None  # type: ignore[attr-defined]
        wait_until(lambda: not node.scheduler.timers, within=3, show=lambda: node.scheduler.timers)


def left_over(node: LocalNode) -> list[Port]:
    """Return the ports that are in use, and those that were made for a call or a block."""
    return [
        port
        for port in ports_of(node).values()
        if port.state != IDLE or port.is_for_answer or isinstance(port, AttachedPort)
    ]


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


@between_bytecodes
@pytest.mark.slow
@pytest.mark.parametrize("error", STRIKES)
def test_an_interrupt_anywhere_leaves_ports_that_work_or_are_known_to_be_dead(error):
    count = play(LocalNode(), None, lambda _: False)
    assert count > 300
    strike_in_turn(lambda point: play(LocalNode(), error, lambda seen: seen == point), count, 300)


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
    """Serve as a function that is spawned, and die."""
    port = current_port()
    assert port is not None
    port.scheduler.kill(port, ())


def detach_if_attached(node: LocalNode) -> None:
    """End the attachment of a call that was struck when it was done: the greenlet is attached then, as a whole."""
    ours: Any = gevent.getcurrent()
    port = getattr(ours, "aemp_port", None)
    if port is not None:
        assert (node.scheduler.table.find(port.id), port.cell.runner, port.state) == (port, ours, RUNNING)
        node.scheduler.die(port, ())
        ours.aemp_port = None


@pytest.mark.slow
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
        if node.scheduler.table.find(server) is None:  # it was struck in its handler
            server = node.port()
            node.serve(server, add=lambda a, b: a + b)
        wait_until(lambda: list(ports_of(node)) == [server], within=3, show=lambda: (point, ports_of(node)))  # noqa: B023
        if not injector.fired:
            break
    assert point > 20


def test_the_death_of_a_port_that_is_asked_ends_the_wait_wherever_that_is_struck(node):
    """Without a timeout, nothing else ends it."""

    def strike() -> None:
        raise KeyboardInterrupt

    def ask(port: str) -> None:
        with contextlib.suppress(PortDied):
            node.call(port, "add", timeout=None)

    for point in itertools.count(1):
        port = node.port(nothing)
        asking = gevent.spawn(ask, port)
        wait_until(lambda: ports_of(node)[port].monitors)  # noqa: B023
        with Injector(strike, lambda seen: seen == point, strike_points, ("calls/call.py",)) as injector:  # noqa: B023
            node.kil(port)
            with contextlib.suppress(KeyboardInterrupt):
                settle(node)
        with contextlib.suppress(KeyboardInterrupt):
            settle(node)
        wait_until(lambda: asking.dead, within=3, show=lambda: point)  # noqa: B023
        if not injector.fired:
            break
    assert is_compiled or point > 3


TOOLKIT = (
    *("toolkit/semaphores.py", "toolkit/remotes.py", "toolkit/lifetimes.py", "toolkit/proxy_waiters.py"),
    *("toolkit/queues.py", "toolkit/pools.py"),
)


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
        if node.scheduler.table.find(semaphore.port) is None:  # it was struck in its own handler
            semaphore = PortSemaphore(1, node=node)
            remote = RemoteSemaphore(semaphore.port, node=node)
        gc.collect()
        wait_until(lambda: list(ports_of(node)) == [semaphore.port], within=3, show=lambda: (point, ports_of(node)))  # noqa: B023
        wait_until(lambda: semaphore.counter == 1, within=3, show=lambda: point)  # noqa: B023
        if not injector.fired:
            break
    assert point > 3


DEATHS = (*SCHEDULER, "node/node.py", "node/linked_node.py", "node/local_node.py")


@between_bytecodes
@pytest.mark.parametrize("monitored", [False, True])
def test_a_death_that_is_struck_anywhere_and_begun_again_is_reported_once(monkeypatch, monitored):
    node = Node()
    heard: list[object] = []
    monkeypatch.setattr(zope.event, "subscribers", [heard.append])

    def strike() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        port = ports_host_of(node).make()
        node.scheduler.table.add(port)
        if monitored:
            node.mon(port.id, lambda *reason: heard.append(PortDied("monitored", reason)))
        injector = Injector(strike, lambda seen: seen == point, strike_points, DEATHS)  # noqa: B023
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
