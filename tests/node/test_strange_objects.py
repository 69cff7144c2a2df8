# SPDX-License-Identifier: MIT
"""Objects of the user's whose own code raises, whatever it is, wherever a call of ours runs it.

Each call is made with each strange object again and again: the first time the object raises when its code runs for
the first time, then the second time, and so on, until the call runs less of it than that. Each call has its whole
effect or none, and afterwards both nodes work.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from aemp_gevent.errors import CallTimeout, PortDied, RemoteError
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.quoting import quoted, worded
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, Inbox, node_factory, tables
from tests.support.settling import settle
from tests.support.thoroughness import tries


class Fuse:
    """Raises when the code of a strange object runs for the n-th time, and each time after that."""

    def __init__(self, error: type[BaseException], good_for: int) -> None:
        self.left = good_for
        self.is_blown = False
        self._error = error

    def burn(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.is_blown = True
            raise self._error


def strange(base: type, value: Any, *methods: str) -> Callable[[Fuse], Any]:
    """Return what makes an object of a class derived from ``base``, whose methods burn a fuse."""

    def make(fuse: Fuse) -> Any:
        def burning(name: str) -> Any:
            usual = getattr(base, name, None)

            def method(self: Any, *args: Any) -> Any:
                fuse.burn()
                return "strange" if usual is None else usual(self, *args)

            return method

        body = {name: burning(name) for name in methods}
        if "__str__" in body and base is object:
            body["__str__"] = lambda _self: (fuse.burn(), value)[1]
            return type("Strange", (), body)()
        return type("Strange", (base,), body)(value)

    return make


COMMON = ("__str__", "__repr__", "__hash__", "__eq__", "__bool__", "__len__", "__iter__", "__del__")


def of(base: type, *others: str) -> tuple[str, ...]:
    """Return the special methods that a class derived from ``base`` has."""
    return (*(name for name in COMMON if hasattr(base, name) or name == "__del__"), *others)


KINDS: dict[str, Callable[[str], Callable[[Fuse], Any]]] = {
    "object": lambda value: strange(object, value, *COMMON[:5], "__del__", "__iter__", "__len__"),
    "str": lambda value: strange(str, value, *of(str, "encode", "partition", "__contains__")),
    "list": lambda value: strange(list, [value], *of(list, "__getitem__")),
    "dict": lambda value: strange(dict, {value: 1}, *of(dict, "items", "values", "keys", "__getitem__")),
    "int": lambda _value: strange(int, 1, *of(int, "__index__", "__bool__")),
}
ERRORS = (
    *(ValueError, TypeError, KeyError, StopIteration, RecursionError, MemoryError),
    *(KeyboardInterrupt, SystemExit, GeneratorExit, gevent.GreenletExit, gevent.Timeout),
)


class World:
    """Two nodes with a link, in which ports of both get what is sent to them."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        make_node = self._stack.enter_context(node_factory())
        self.node = make_node()
        self.other = make_node("127.0.0.1:0", self.node.NODE())
        wait_until(lambda: self.node.node_is_up(self.other.NODE()) and self.other.node_is_up(self.node.NODE()))
        self.died: list[tuple[object, ...]] = []
        self.inboxes: dict[str, Inbox] = {}

    def close(self) -> None:
        self._stack.close()

    def target(self, where: str) -> str:
        """Return a port that is monitored from here, and from over there."""
        node = self.node if where == "here" else self.other
        inbox = Inbox(node)
        self.inboxes[inbox.port] = inbox
        for watcher in (self.node, self.other):
            watcher.mon(inbox.port, lambda *reason: self.died.append(reason))
        return inbox.port

    def works(self, target: str) -> None:
        """Check that a target gets messages or is known to be dead on both nodes, and that the nodes are as before."""
        inbox = self.inboxes.pop(target)
        inbox.messages.clear()
        for number, node in enumerate((self.node, self.other)):
            node.snd(target, "probe", number)

        def probes() -> list[tuple[Any, ...]]:
            return [message for message in inbox.messages if type(message[0]) is str and message[0] == "probe"]

        wait_until(
            lambda: len(self.died) == 2 or sorted(probes()) == [("probe", 0), ("probe", 1)],
            within=WAIT,
            show=lambda: (self.died, inbox.messages),
        )
        self.node.kil(target)
        wait_until(lambda: len(self.died) == 2, within=WAIT, show=lambda: self.died)
        self.died.clear()


def nothing(*_args: object) -> None:
    """Serve as a function that is called."""


CALLS: dict[str, Callable[[Node, str, Any], Any]] = {
    "snd": lambda node, port, thing: node.snd(port, "x", thing),
    "snd-tag": lambda node, port, thing: node.snd(port, thing, "x"),
    "snd_nowait": lambda node, port, thing: node.snd_nowait(port, thing),
    "kil": lambda node, port, thing: node.kil(port, "x", thing),
    "mon": lambda node, port, thing: node.mon(port, nothing, thing).cancel(),
    "mon-send": lambda node, port, thing: node.mon(port, port, thing).cancel(),
    "mon_guard": lambda node, port, thing: node.mon_guard(port, thing).cancel(),
    "cal": lambda node, port, thing: node.cal(port, thing, cb=nothing, timeout=0.001),
    "syncal": lambda node, port, thing: node.syncal(0.001, port, thing),
    "call": lambda node, port, thing: node.call(port, thing, timeout=0.001),
    "call-argument": lambda node, port, thing: node.call(port, "x", thing, timeout=0.001),
    "call_async": lambda node, port, thing: node.call_async(port, thing, timeout=0.001),
    "after": lambda node, port, thing: node.after(0, port, thing),
    "spawn": lambda node, port, thing: node.kil(node.spawn(node.node_of(port), f"{__name__}.nothing", thing)),
    "spawn-function": lambda node, port, thing: node.kil(node.spawn(node.node_of(port), thing)),
}
TO_STRANGE_PORTS: dict[str, Callable[[Node, Any], Any]] = {
    "snd": lambda node, port: node.snd(port, "x"),
    "snd_nowait": lambda node, port: node.snd_nowait(port, "x"),
    "kil": lambda node, port: node.kil(port),
    "mon": lambda node, port: node.mon(port, nothing).cancel(),
    "mon-kill": lambda node, port: node.mon(node.NODE(), port).cancel(),
    "mon-send": lambda node, port: node.mon(node.NODE(), port, "x").cancel(),
    "mon_guard": lambda node, port: node.mon_guard(port).cancel(),
    "cal": lambda node, port: node.cal(port, "x", cb=nothing, timeout=0.001),
    "syncal": lambda node, port: node.syncal(0.001, port, "x"),
    "call": lambda node, port: node.call(port, "x", timeout=0.001),
    "call_async": lambda node, port: node.call_async(port, "x", timeout=0.001),
    "after": lambda node, port: node.after(0, port, "x"),
    "spawn": lambda node, port: node.kil(node.spawn(port, f"{__name__}.nothing")),
    "node_of": lambda node, port: node.node_of(port),
    "db_reg": lambda node, port: node.db_reg("family", port).cancel(),
    "grp_reg": lambda node, port: node.grp_reg("group", port).cancel(),
    "grp_get": lambda node, port: node.grp_get(port),
    "db_set": lambda node, port: node.db_set("family", port, 1).cancel(),
    "db_del": lambda node, port: node.db_del("family", port),
    "db_set-value": lambda node, port: node.db_set("family", "key", port).cancel(),
    "db_keys": lambda node, port: node.db_keys(port, timeout=0.01),
    "rcv": lambda node, port: node.rcv(port, "tag", None),
    "reg": lambda node, port: node.reg(port, "name"),
    "peval": lambda node, port: node.peval(port, nothing),
    "serve": lambda node, port: node.serve(port, "tag", None),
    "node_is_up": lambda node, port: node.node_is_up(port),
}


def calls_with(kind: str) -> dict[str, Any]:
    """Return the calls that are made with a kind of strange objects: those that can be ports are given as such, too."""
    to_ports = {
        f"{name} to it": lambda node, _port, thing, call=call: call(node, thing)
        for name, call in TO_STRANGE_PORTS.items()
    }
    return CALLS | (to_ports if kind in ("object", "str") else {})


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print nothing of what is raised on the hub, and do not hand it to the greenlet of the test."""
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *_args: None)
    monkeypatch.setattr(gevent.get_hub(), "handle_system_error", lambda *_args: None)
    monkeypatch.setattr(sys, "unraisablehook", lambda _args: None)


def try_everywhere(world: World, call: Any, kind: str, where: str, error: type[BaseException], waits: float) -> None:
    for good_for in itertools.count():
        port = world.target(where)
        fuse = Fuse(error, good_for)
        thing = KINDS[kind](port)(fuse)
        messages = world.inboxes[port].messages
        try:
            call(world.node, port, thing)
        except (CallTimeout, PortDied, RemoteError):
            pass  # it was made, and that is its answer
        except BaseException:  # noqa: BLE001  # whatever it is
            settle(world.node)
            if where == "there":
                world.node.flush()
            shown = (error, good_for, len(messages), len(world.died))
            assert not (messages or world.died), f"it raised, and has sent or killed: {shown}"
        del thing
        gevent.sleep(waits)
        world.works(port)
        fuse.left = sys.maxsize  # whatever is still left of the object may go in peace
        if not fuse.is_blown:
            return
        assert good_for < 60


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_strange_object_raises_leaves_a_call_whole_or_undone(world, kind, where):
    nodes = (world.node, world.other)
    world.works(world.target(where))
    before = tables(*nodes)
    for name, call in calls_with(kind).items():
        for error in random.sample(ERRORS, tries(1, 4)):
            try:
                try_everywhere(world, call, kind, where, error, waits=0.0015 if "cal" in name else 0)
                wait_until(lambda: tables(*nodes) == before, within=3, show=lambda: (tables(*nodes), before))
            except Exception as failure:  # noqa: BLE001
                raise AssertionError(f"{name}, {error.__name__}: {failure}") from None  # nothing strange is shown


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_value_raises_it_can_be_quoted(kind, error):
    fuse = Fuse(error, 0)
    thing = KINDS[kind]("x")(fuse)
    texts = quoted(thing), quoted([thing]), quoted({"x": thing}), worded(thing)
    fuse.left = sys.maxsize
    assert all(texts)


SHOWN = {
    "reason": lambda node, port, thing: node.kil(port, thing),
    "reasons": lambda node, port, thing: node.kil(port, [thing], {"x": thing}),
    "exception": lambda node, port, thing: node.snd(port, "raise", thing),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("error", ERRORS)
def test_a_death_is_reported_to_all_though_showing_its_reason_raises_each_time(world, name, error):
    port = world.target("here")

    class Strange(Exception):
        def __str__(self) -> str:
            raise error

        __repr__ = __str__

    class StrangeList(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            raise error

        __repr__ = __iter__

    def throw(thing: Any) -> None:
        raise thing if isinstance(thing, Strange) else ValueError

    world.node.rcv(port, "raise", throw)
    for thing in (Strange(), StrangeList([1])):
        SHOWN[name](world.node, port, thing)
        wait_until(lambda: len(world.died) == 2, within=3, show=lambda: len(world.died))
        world.died.clear()
        port = world.target("here")
        world.node.rcv(port, "raise", throw)
    world.works(port)
