# SPDX-License-Identifier: MIT
"""Each public function, at every depth of the stack from the recursion limit down, and struck by an interrupt anywhere.

Afterwards the node works, and the port that it was about is whole, or it is dead and its monitors know.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable

import gevent
import pytest

import aemp_gevent
from aemp_gevent.errors import CallTimeout, DirectoryTimeout, PortDied, PortKilled, ReceiveTimeout, RemoteError
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import SELF, psub
from aemp_gevent.ports.receive import get, get_cond, receive
from tests.support.helpers import wait_until
from tests.support.injecting import PACKAGE, Injector, strike_points
from tests.support.settling import settle
from tests.support.striking import DEPTHS, at_every_depth, nothing, strike_in_turn, works

# Coverage traces, too, and would be struck as well.
pytestmark = [pytest.mark.usefixtures("quiet_hub"), pytest.mark.no_cover]


def attached(node: Node, call: Callable[[], object]) -> None:
    with node.attach():
        call()


def in_vain(call: Callable[[], object]) -> None:
    with contextlib.suppress(CallTimeout, RemoteError, DirectoryTimeout, ReceiveTimeout):
        call()


CALLS: dict[str, Callable[[Node, str], object]] = {
    "NODE": lambda node, _: node.NODE(),
    "SELF": lambda node, port: node.peval(port, SELF),
    "actor": lambda node, _: node.actor(nothing)(),
    "addresses": lambda node, _: node.addresses(),
    "after": lambda node, _: node.after(0, nothing),
    "after-cancel": lambda node, _: node.after(60, nothing).cancel(),
    "attach": lambda node, _: attached(node, lambda: None),
    "cal": lambda node, port: node.cal(port, "tag", cb=lambda *_: None, timeout=0.01),
    "call": lambda node, port: in_vain(lambda: node.call(port, "tag", timeout=0.01)),
    "call_async": lambda node, port: node.call_async(port, "tag", timeout=0.01),
    "db_del": lambda node, _: node.db_del("family", "key"),
    "db_family": lambda node, _: node.db_family("family", timeout=0.01),
    "db_family-cb": lambda node, _: node.db_family("family", nothing),
    "db_keys": lambda node, _: node.db_keys("family", timeout=0.01),
    "db_mon": lambda node, _: node.db_mon("family", nothing).cancel(),
    "db_reg": lambda node, port: node.db_reg("family", port),
    "db_set": lambda node, _: node.db_set("family", "key", 1),
    "db_set-cancel": lambda node, _: node.db_set("family", "key", 1).cancel(),
    "db_values": lambda node, _: node.db_values("family", timeout=0.01),
    "db_wait": lambda node, _: in_vain(lambda: node.db_wait("family", lambda _: False, 0.01)),
    "drain": lambda node, _: node.drain(0.01),
    "flush": lambda node, _: node.flush(0.01),
    "get": lambda node, _: attached(node, lambda: in_vain(lambda: get("tag", 0.001))),
    "get_cond": lambda node, _: attached(node, lambda: in_vain(lambda: get_cond(lambda *_: True, 0.001))),
    "grp_get": lambda node, _: node.grp_get("group"),
    "grp_mon": lambda node, _: node.grp_mon("group", nothing).cancel(),
    "grp_reg": lambda node, port: node.grp_reg("group", port),
    "grp_snd": lambda node, _: node.grp_snd("group", "tag", timeout=0.01),
    "info": lambda node, _: node.info(),
    "kil": lambda node, port: node.kil(port, "killed"),
    "mon": lambda node, port: node.mon(port, nothing),
    "mon-cancel": lambda node, port: node.mon(port, nothing).cancel(),
    "mon_guard": lambda node, port: node.mon_guard(port, []),
    "mon_nodes": lambda node, _: node.mon_nodes(nothing).cancel(),
    "node_is_up": lambda node, _: node.node_is_up("127.0.0.1:9"),
    "node_state": lambda node, _: node.node_state("127.0.0.1:9"),
    "node_of": lambda node, port: node.node_of(port),
    "peval": lambda node, port: node.peval(port, nothing),
    "peval_async": lambda node, port: node.peval_async(port, nothing),
    "port": lambda node, _: node.kil(node.port(nothing)),
    "port_async": lambda node, _: node.port_async(nothing),
    "psub": lambda node, port: node.peval(port, psub, nothing),
    "rcv": lambda node, port: node.rcv(port, "tag", nothing),
    "rcv-pattern": lambda node, port: node.rcv(port, ["tag", 1], nothing),
    "rcv_async": lambda node, port: node.rcv_async(port, nothing),
    "receive": lambda node, _: attached(node, lambda: receive(timeout=0.001, default=None)),
    "reg": lambda node, port: node.reg(port, "name"),
    "resolve_node": lambda node, _: node.resolve_node("127.0.0.1:9"),
    "serve": lambda node, port: node.serve(port, "served", nothing),
    "snd": lambda node, port: node.snd(port, "tag"),
    "snd_nowait": lambda node, port: node.snd_nowait(port, "tag"),
    "spawn": lambda node, _: node.spawn(node.NODE(), "tests.support.striking.nothing"),
    "syncal": lambda node, port: node.syncal(0.01, port, "tag"),
    "time_left": lambda _node, _port: aemp_gevent.time_left(),
    "up_nodes": lambda node, _: node.up_nodes(),
    "wait_for_seeds": lambda node, _: node.wait_for_seeds(0.01),
}
ELSEWHERE = {
    "configure": "only keeps settings, which initialise_node() takes over",
    "initialise_node": "see test_interrupts.py",
    "reload": "is for initialised nodes",
    "reset": "is for tests of users, and ends all ports",
    "shutdown": "ends the node; see test_interrupts.py",
    "shutdown_on_signal": "sets a handler of the process",
    "spawnable": "is a decorator that marks a function",
}


def test_the_table_has_every_public_function():
    """Those of the package and those of nodes: each is in the table, or is named with the reason why not."""
    public = {
        name
        for name in aemp_gevent.__all__
        if callable(getattr(aemp_gevent, name)) and not inspect.isclass(getattr(aemp_gevent, name))
    }
    public |= {name for name in dir(Node) if not name.startswith("_") and callable(getattr(Node, name))}
    public -= {"DONE", "any_", "default_node"}
    tried = {name.partition("-")[0] for name in CALLS}
    assert tried | set(ELSEWHERE) == public
    assert not tried & set(ELSEWHERE)


@pytest.fixture
def node() -> Node:
    return Node()


def killable(node: Node, number: int, died: list[int]) -> str:
    port = node.port()
    node.mon(port, lambda *_: died.append(number))
    return port


def is_whole(node: Node, port: str, number: int, died: list[int]) -> None:
    """Check that a new port gets messages, and that this one, as it can be killed, dies or is dead."""
    got: list[object] = []
    probe = node.port(got.append)
    node.snd(probe, number)
    node.kil(port, "end")
    wait_until(lambda: number in died and got == [number], within=5, show=lambda: (number, died, got))
    node.kil(probe)


def all_works(node: Node) -> None:
    works(node)
    with node.db_set("afterwards", "key", 1):
        assert node.db_family("afterwards") == {"key": 1}
    heard: list[object] = []
    with node.db_mon("afterwards", lambda *_: heard.append(1)):
        wait_until(lambda: heard, within=5)
    assert node.db_family("afterwards") == {}


@pytest.mark.parametrize("name", CALLS)
def test_any_call_at_the_recursion_limit_leaves_a_node_that_works(node, name):
    died: list[int] = []
    ports = [killable(node, number, died) for number in range(DEPTHS)]
    for number, _error in enumerate(at_every_depth(lambda number: CALLS[name](node, ports[number]))):
        is_whole(node, ports[number], number, died)
    all_works(node)


TRACED = tuple(
    path.relative_to(PACKAGE).as_posix()
    for folder in ("node", "ports", "calls", "directory", "runtime")
    for path in (PACKAGE / folder).rglob("*.py")
)


def end_attachment() -> None:
    """Take the context of a block off this greenlet, as what struck it came when it was entered, or had been left."""
    gevent.getcurrent().aemp_port = None  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CALLS)
def test_any_call_that_is_struck_leaves_a_node_that_works(name):
    def strike() -> None:
        raise KeyboardInterrupt

    def play(point: int) -> int:
        node, died = Node(), []
        port = killable(node, 1, died)
        with Injector(strike, lambda seen: seen == point, strike_points, TRACED) as injector:
            with contextlib.suppress(KeyboardInterrupt, CallTimeout, PortDied, PortKilled, RemoteError):
                CALLS[name](node, port)
            with contextlib.suppress(KeyboardInterrupt):
                settle(node)
        for _ in range(3):  # what struck on the hub may still come
            with contextlib.suppress(KeyboardInterrupt):
                gevent.sleep(0)
        end_attachment()
        is_whole(node, port, 1, died)
        all_works(node)
        return injector.count

    strike_in_turn(play, play(0), 300)


@pytest.mark.parametrize("name", ["db_set", "db_set-cancel", "db_reg", "db_del", "grp_reg"])
def test_a_change_of_the_directory_that_is_struck_is_seen_by_monitors_and_readers_or_by_neither(name):
    def strike() -> None:
        raise KeyboardInterrupt

    def play(point: int) -> int:
        node, copies = Node(), {}
        port = node.port()
        if name == "db_del":
            node.db_set("family", "key", 1)
        for family in ("family", "group"):
            node.db_mon(family, lambda entries, *_, family=family: copies.update({family: dict(entries)}))
        settle(node)
        with Injector(strike, lambda seen: seen == point, strike_points, TRACED) as injector:
            with contextlib.suppress(KeyboardInterrupt):
                CALLS[name](node, port)
            with contextlib.suppress(KeyboardInterrupt):
                settle(node)

        def agree() -> bool:
            return all(copies.get(family, {}) == node.db_family(family) for family in ("family", "group"))

        wait_until(agree, within=5, show=lambda: (copies, node.db_family("family"), node.db_family("group")))
        node.kil(port)
        wait_until(lambda: not any(port in entries for entries in copies.values()), within=5, show=lambda: copies)
        wait_until(agree, within=5, show=lambda: copies)
        return injector.count

    strike_in_turn(play, play(0), 300)
