# SPDX-License-Identifier: MIT
"""Times and counts that users give: every call that takes one accepts or refuses it before it does anything."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.event
import pytest
from gevent.queue import Empty, Full

import aemp_gevent
from aemp_gevent import testing, toolkit
from aemp_gevent.errors import (
    CallTimeout,
    DirectoryTimeout,
    DirectoryUnavailableError,
    InvalidPortError,
    ReceiveTimeout,
    ResolveError,
)
from aemp_gevent.ports.receive import get, get_cond, receive
from aemp_gevent.runtime.quantities import FOREVER_SECONDS, to_count, to_limited_seconds, to_seconds
from aemp_gevent.testing import wait_until as wait_until_of_users
from tests.support.networking import node_factory
from tests.support.seams import network_of, ports_of

HUGE = 10**5000


class FakeNumpyScalar(float):
    """Behaves as numpy's float64 does: a number with a dtype."""

    dtype = SimpleNamespace(kind="f")


class FakeTimedelta64(int):
    """Behaves as numpy's timedelta64 does: an integer, of a unit that only it knows."""

    dtype = SimpleNamespace(kind="m")


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no")


GOOD = {
    "int": (3, 3),
    "float": (0.5, 0.5),
    "none": (None, None),
    "negative": (-1, 0),
    "minus-infinity": (-inf, 0),
    "huge-negative": (-HUGE, 0),
    "infinity": (inf, None),
    "huge": (HUGE, None),
    "over-68-years": (FOREVER_SECONDS, None),
    "68-years": (FOREVER_SECONDS - 1, FOREVER_SECONDS - 1),
    "large-float": (1e300, None),
    "timedelta": (timedelta(minutes=1), 60),
    "largest-timedelta": (timedelta.max, None),
    "decimal": (Decimal("1.5"), 1.5),
    "huge-decimal": (Decimal("1e999"), None),
    "fraction": (Fraction(1, 2), 0.5),
    "huge-fraction": (Fraction(HUGE), None),
    "numpy-scalar": (FakeNumpyScalar(2.5), 2.5),
    "timeout": (gevent.Timeout(4), 4),
    "endless-timeout": (gevent.Timeout(None), None),
}

BAD = {
    "nan": (nan, ValueError),
    "decimal-nan": (Decimal("nan"), ValueError),
    "signaling-nan": (Decimal("snan"), ValueError),
    "nan-in-a-timeout": (gevent.Timeout(None), ValueError),
    "text": ("1", TypeError),
    "bytes": (b"1", TypeError),
    "bool": (True, TypeError),
    "complex": (1j, TypeError),
    "list": ([1], TypeError),
    "timedelta64": (FakeTimedelta64(1), TypeError),
    "unprintable": (Unprintable(), TypeError),
}
BAD["nan-in-a-timeout"][0].seconds = nan


@pytest.mark.parametrize(("value", "seconds"), GOOD.values(), ids=GOOD)
def test_values_with_an_obvious_meaning_are_taken_as_seconds(value, seconds):
    assert to_seconds(value, "call()") == seconds
    assert to_limited_seconds(value, "call()") == (FOREVER_SECONDS if seconds is None else seconds)


def call_nobody(node, timeout):
    return node.call(node.port(), "tag", timeout=timeout)


# What takes a time: the call, its name in error texts, and what it raises when nothing comes in no time.
CALLS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "receive": (lambda _node, timeout: receive(timeout=timeout), "receive()"),
    "receive-with-default": (lambda _node, timeout: receive("tag", timeout=timeout, default=1), "receive()"),
    "get": (lambda _node, timeout: get("tag", timeout), "get()"),
    "get_cond": (lambda _node, timeout: get_cond(lambda *_message: True, timeout), "get_cond()"),
    "after": (lambda node, timeout: node.after(timeout, print), "after()"),
    "after-with-a-port": (lambda node, timeout: node.after(timeout, node.NODE(), "devnull"), "after()"),
    "cal": (lambda node, timeout: node.cal(node.NODE(), "time", cb=print, timeout=timeout), "cal()"),
    "syncal": (lambda node, timeout: node.syncal(timeout, node.NODE(), "devnull"), "syncal()"),
    "call": (lambda node, timeout: node.call(node.NODE(), "devnull", timeout=timeout), "call()"),
    "call_async": (lambda node, timeout: node.call_async(node.NODE(), "time", timeout=timeout), "call_async()"),
    "call-of-another-node": (lambda node, timeout: node.call("other", "tag", timeout=timeout), "call()"),
    "db_family": (lambda node, timeout: node.db_family("family", timeout=timeout), "db_family()"),
    "db_keys": (lambda node, timeout: node.db_keys("family", timeout=timeout), "db_keys()"),
    "db_values": (lambda node, timeout: node.db_values("family", timeout=timeout), "db_values()"),
    "db_wait": (lambda node, timeout: node.db_wait("family", len, timeout), "db_wait()"),
    "shutdown": (lambda node, timeout: node.shutdown(timeout), "shutdown()"),
    "shutdown_on_signal": (lambda node, timeout: node.shutdown_on_signal(timeout=timeout), "shutdown_on_signal()"),
    "grp_snd": (lambda node, timeout: node.grp_snd("group", timeout=timeout), "grp_snd()"),
    "flush": (lambda node, timeout: node.flush(timeout), "flush()"),
    "drain": (lambda node, timeout: node.drain(timeout), "drain()"),
    "wait_for_seeds": (lambda node, timeout: node.wait_for_seeds(timeout), "wait_for_seeds()"),
    "reset": (lambda node, timeout: node.reset(timeout), "reset()"),
    "resolve_node": (lambda node, timeout: node.resolve_node("127.0.0.1:1", timeout=timeout), "resolve_node()"),
    "wait_until": (lambda _node, timeout: wait_until_of_users(lambda: False, within=timeout), "wait_until()"),
}


class Tools:
    """Objects of the toolkit on a private node, all of which would have to be waited for."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.empty, self.full = toolkit.PortQueue(1, node=node), toolkit.PortQueue(1, ["item"], node=node)
        self.semaphore, self.event = toolkit.PortSemaphore(0, node=node), toolkit.PortEvent(node=node)
        self.far_empty = toolkit.RemoteQueue(self.empty, node=node)
        self.far_full = toolkit.RemoteQueue(self.full, node=node)
        self.far_semaphore = toolkit.RemoteSemaphore(self.semaphore, node=node)
        self.far_event = toolkit.RemoteEvent(self.event, node=node)
        self.port = node.port()
        self.death = toolkit.PortDeath(self.port, node=node)
        self.pool = toolkit.RemotePool([node.NODE()], node=node)
        self.busy = gevent.event.Event()
        self.pool.add(gevent.spawn(self.busy.wait))

    def end_the_waits(self) -> None:
        self.busy.set()
        self.semaphore.release()
        self.event.set()
        self.node.kil(self.port)
        if self.empty.empty():
            self.empty.put("item")
        while not self.full.empty():
            self.full.get()
            self.full.task_done()


def add_another(tools: Tools, timeout: Any) -> None:
    tools.pool.add(gevent.spawn(tools.busy.wait), timeout=timeout)


# What the toolkit's objects have that takes a time.
TOOLS: dict[str, Callable[[Tools, Any], Any]] = {
    "PortQueue.put": lambda tools, timeout: tools.full.put("more", timeout=timeout),
    "PortQueue.get": lambda tools, timeout: tools.empty.get(True, timeout),
    "PortQueue.peek": lambda tools, timeout: tools.empty.peek(timeout=timeout),
    "PortQueue.join": lambda tools, timeout: tools.full.join(timeout),
    "RemoteQueue.put": lambda tools, timeout: tools.far_full.put("more", timeout=timeout),
    "RemoteQueue.get": lambda tools, timeout: tools.far_empty.get(timeout=timeout),
    "RemoteQueue.peek": lambda tools, timeout: tools.far_empty.peek(timeout=timeout),
    "RemoteQueue.join": lambda tools, timeout: tools.far_full.join(timeout),
    "PortSemaphore.acquire": lambda tools, timeout: tools.semaphore.acquire(True, timeout),
    "PortSemaphore.wait": lambda tools, timeout: tools.semaphore.wait(timeout=timeout),
    "RemoteSemaphore.acquire": lambda tools, timeout: tools.far_semaphore.acquire(timeout=timeout),
    "RemoteSemaphore.wait": lambda tools, timeout: tools.far_semaphore.wait(timeout),
    "PortEvent.wait": lambda tools, timeout: tools.event.wait(timeout),
    "RemoteEvent.wait": lambda tools, timeout: tools.far_event.wait(timeout),
    "PortDeath.get": lambda tools, timeout: tools.death.get(timeout=timeout),
    "PortDeath.result": lambda tools, timeout: tools.death.result(timeout),
    "PortDeath.wait": lambda tools, timeout: tools.death.wait(timeout),
    "RemotePool": lambda tools, timeout: toolkit.RemotePool(["x"], timeout=timeout, node=tools.node).close(),
    "RemotePool.add": add_another,
    "RemotePool.join": lambda tools, timeout: tools.pool.join(timeout),
    "RemotePool.kill": lambda tools, timeout: tools.pool.kill(timeout=timeout),
    "RemotePool.killone": lambda tools, timeout: tools.pool.killone(next(iter(tools.pool)), timeout=timeout),
    "RemotePool.wait_available": lambda tools, timeout: tools.pool.wait_available(timeout),
}


def given(value: Any) -> Any:
    """Return the value, or a copy of a timeout, which can be used up."""
    return gevent.Timeout(value.seconds) if isinstance(value, gevent.Timeout) else value


@pytest.fixture
def tools(make):
    tools = Tools(make(None))
    yield tools
    tools.busy.set()
    tools.pool.kill()


@pytest.fixture
def make():
    with node_factory() as make:
        yield make


@pytest.mark.parametrize(("value", "error"), BAD.values(), ids=BAD)
def test_every_call_refuses_what_is_not_a_time_before_it_does_anything(make, value, error):
    node = make()
    with node.attach():
        for call, name in CALLS.values():
            before = (dict(ports_of(node)), len(node.scheduler.timers), list(node.scheduler.runq), node.up_nodes())
            with pytest.raises(error) as refused:
                call(node, value)
            assert str(refused.value).startswith(f"{name}: ")
            shown = "<Unprintable object" if isinstance(value, Unprintable) else repr(getattr(value, "seconds", value))
            assert shown in str(refused.value)
            after = (dict(ports_of(node)), len(node.scheduler.timers), list(node.scheduler.runq), node.up_nodes())
            assert after == before, name
            assert not network_of(node).peers


@pytest.mark.parametrize(("value", "error"), BAD.values(), ids=BAD)
def test_the_whole_toolkit_refuses_what_is_not_a_time(tools, value, error):
    for name, call in TOOLS.items():
        with pytest.raises(error) as refused:
            call(tools, given(value))
        assert str(refused.value).startswith(f"{name.partition('.')[2] or name}(): "), name
    assert not [thing for thing in (tools.empty, tools.full, tools.event) if thing._object_port.waiters]
    assert (list(tools.full.queue), len(tools.pool)) == (["item"], 1)


def test_methods_that_are_checked_keep_the_parameters_they_have_in_gevent():
    checked = [toolkit.PortQueue.put, toolkit.PortSemaphore.acquire, toolkit.RemotePool.join, toolkit.RemotePool.kill]
    for method in checked:
        wrapper, theirs = inspect.signature(method, follow_wrapped=False), inspect.signature(method.__wrapped__)
        assert [(name, one.default) for name, one in wrapper.parameters.items()] == [
            (name, one.default) for name, one in theirs.parameters.items()
        ]


NOTHING_CAME = (ReceiveTimeout, CallTimeout, DirectoryTimeout, DirectoryUnavailableError, ResolveError, AssertionError)
NOTHING_IN_THE_TOOLKIT = (Empty, Full, gevent.Timeout)
PAST = {name: value for name, (value, seconds) in GOOD.items() if seconds == 0}
FUTURE = {name: value for name, (value, seconds) in GOOD.items() if seconds != 0}


@pytest.mark.parametrize("value", [0, *PAST.values()], ids=["zero", *PAST])
def test_no_call_waits_when_the_time_is_over(make, value):
    """On a private node, as nothing answers there; what waits all the same hangs here."""
    node = make(None)
    for name, (call, _) in CALLS.items():
        if name in {"shutdown_on_signal", "reset"}:  # these would end the program, and the block of attach()
            continue
        with node.attach(), gevent.Timeout(5), contextlib.suppress(NOTHING_CAME):
            call(node, value)


class HungError(Exception):
    pass


@pytest.mark.parametrize("value", [0, *PAST.values()], ids=["zero", *PAST])
def test_nothing_in_the_toolkit_waits_when_the_time_is_over(make, value):
    for name, call in TOOLS.items():
        tools = Tools(make(None))
        with gevent.Timeout(5, HungError(name)), contextlib.suppress(NOTHING_IN_THE_TOOLKIT):
            call(tools, value)
        tools.busy.set()


@pytest.mark.parametrize("value", FUTURE.values(), ids=FUTURE)
def test_every_wait_of_the_toolkit_takes_what_has_a_meaning_and_ends_when_something_comes(make, value):
    for name, call in TOOLS.items():
        tools = Tools(make(None))
        with gevent.Timeout(5, HungError(name)):
            gevent.spawn(tools.end_the_waits)
            call(tools, given(value))
            tools.pool.kill()


@pytest.mark.parametrize("value", FUTURE.values(), ids=FUTURE)
def test_every_wait_takes_what_has_a_meaning_and_ends_when_something_comes(make, value):
    """A message, an answer or a change is under way: the wait ends with it, whatever the time is."""
    node = make(None)
    answering = node.port(lambda *message: node.snd(message[-1], "answer") and None)

    def soon(port):
        gevent.spawn(node.snd, port, "tag")

    with gevent.Timeout(5):
        with node.attach() as me:
            for wait in (
                lambda: receive(timeout=value),
                lambda: receive("tag", timeout=value),
                lambda: get("tag", value),
                lambda: get_cond(lambda *_message: True, value),
            ):
                soon(me)
                wait()
        assert node.syncal(value, answering) == ("answer",)
        assert node.call(answering, "tag", timeout=value) == "answer"
        assert node.call_async(answering, "tag", timeout=value).get() == "answer"
        answers = []
        node.cal(answering, cb=lambda *answer: answers.append(answer), timeout=value)
        with node.db_set("family", "key"):
            assert node.db_wait("family", len, value)
            assert node.db_family("family", timeout=value) == {"key": None}
        wait_until_of_users(lambda: answers, within=value)
        node.after(value, print).cancel()


def test_nan_stops_no_timer_of_the_process(node):
    with node.attach(), pytest.raises(ValueError, match=r"^receive\(\): timeout is nan, which is not a number"):
        receive(timeout=nan)
    struck = gevent.Timeout(0.01)
    with pytest.raises(gevent.Timeout), struck:
        gevent.sleep(5)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        pytest.param("3", TypeError, id="text"),
        pytest.param(1.0, TypeError, id="float"),
        pytest.param(True, TypeError, id="bool"),
        pytest.param(inf, TypeError, id="infinity"),
        pytest.param(0, ValueError, id="zero"),
        pytest.param(-HUGE, ValueError, id="huge-negative"),
    ],
)
def test_a_port_with_a_limit_that_is_not_a_count_is_refused(node, value, error):
    before = dict(ports_of(node))
    with pytest.raises(error, match=r"^port\(\): limit must be "):
        node.port(limit=value)
    assert ports_of(node) == before


def test_counts_are_any_kind_of_integer(node):
    class Index:
        def __index__(self):
            return 2

    assert to_count(Index(), "call()", "n") == 2
    assert to_count(HUGE, "call()", "n") == HUGE
    assert node.port(limit=HUGE)


@pytest.mark.parametrize("port", [5, None, True, 1.5, b"node#port", ["node#port"], {}, object], ids=repr)
def test_values_that_are_not_strings_name_no_node(node, port):
    with pytest.raises(InvalidPortError):
        node.snd(port, "message")


TIMES = {"timeout", "seconds", "within"}


ELSEWHERE = {
    "Timer",  # after() makes it
    "NodeProcess.run",  # of a process, which the tests of aemp_gevent.testing make
    "NodeProcess.wait",
    "MemoryNetwork.delay",  # how late things come, where forever has no meaning
    "MemoryNetwork.dial",  # called by the node
    "Proxy.delay",
}


def with_a_time(*modules: Any) -> set[str]:
    """Return the functions, classes and methods in the API of modules that take a time; methods as "Class.method"."""
    found: dict[str, Any] = {}
    for module in modules:
        found |= {name: getattr(module, name) for name in module.__all__}
    for name, kind in [(name, kind) for name, kind in found.items() if isinstance(kind, type)]:
        if issubclass(kind, BaseException):  # those only report times
            del found[name]
            continue
        found |= {f"{name}.{method}": getattr(kind, method) for method in dir(kind) if not method.startswith("_")}
    return {
        name
        for name, thing in found.items()
        if name != "RemotePool.greenlet_class"
        and (inspect.isroutine(thing) or isinstance(thing, type))
        and TIMES & parameters_of(thing)
    }


def parameters_of(thing: Any) -> set[str]:
    try:
        return set(inspect.signature(thing).parameters)
    except ValueError:  # compiled classes do not say what they take
        assert aemp_gevent.is_compiled
        assert isinstance(thing, type)
        return set()


def test_the_tables_have_every_call_of_the_library_that_takes_a_time():
    assert with_a_time(toolkit) == set(TOOLS)
    checked = {name.removesuffix("()") for _, name in CALLS.values()}
    assert {name.removeprefix("Node.") for name in with_a_time(aemp_gevent, testing)} == checked | ELSEWHERE
