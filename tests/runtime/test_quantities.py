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
import pytest

import aemp_gevent
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


@pytest.fixture
def make():
    with node_factory() as make:
        yield make


@pytest.mark.parametrize(("value", "error"), BAD.values(), ids=BAD)
def test_every_call_refuses_what_is_not_a_time_before_it_does_anything(make, value, error):
    node = make()
    with node.attach():
        for call, name in CALLS.values():
            before = (dict(ports_of(node)), set(node.scheduler._timers), list(node.scheduler.runq), node.up_nodes())
            with pytest.raises(error) as refused:
                call(node, value)
            assert str(refused.value).startswith(f"{name}: ")
            shown = "<Unprintable object" if isinstance(value, Unprintable) else repr(getattr(value, "seconds", value))
            assert shown in str(refused.value)
            after = (dict(ports_of(node)), set(node.scheduler._timers), list(node.scheduler.runq), node.up_nodes())
            assert after == before, name
            assert not network_of(node).peers


NOTHING_CAME = (ReceiveTimeout, CallTimeout, DirectoryTimeout, DirectoryUnavailableError, ResolveError, AssertionError)
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


def test_the_table_has_every_call_of_the_library_that_takes_a_time():
    functions = {name: getattr(aemp_gevent, name) for name in aemp_gevent.__all__}
    functions |= {name: getattr(aemp_gevent.Node, name) for name in dir(aemp_gevent.Node) if not name.startswith("_")}
    takes_a_time = {
        name
        for name, function in functions.items()
        if inspect.isroutine(function) and TIMES & set(inspect.signature(function).parameters)
    }
    checked = {name.removesuffix("()") for _, name in CALLS.values()}
    assert takes_a_time - checked == {"known_nodes"}  # for the command line, which checks its own options
