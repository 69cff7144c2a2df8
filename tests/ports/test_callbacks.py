# SPDX-License-Identifier: MIT
"""What can be given as a callback, and what its return value does."""

from __future__ import annotations

import copy
import functools
import logging
import pickle

import gevent.event
import gevent.lock
import pytest

import aemp_gevent
from aemp_gevent import DONE, Node, attach, get_cond, psub, receive, spawnable
from aemp_gevent.contrib.gunicorn import on_drain, on_join
from aemp_gevent.errors import InvalidSettingError
from aemp_gevent.node.services import load_services
from aemp_gevent.node.spawnable_functions import name_of
from aemp_gevent.ports.callbacks import check_callable
from tests.support.seams import ports_of
from tests.support.settling import settle

ran: list[str] = []


def generator(*message):
    ran.append("generator")
    yield


async def coroutine(*message):
    ran.append("coroutine")


async def async_generator(*message):
    ran.append("async generator")
    yield


class Callable:
    async def __call__(self, *message):
        ran.append("callable")

    async def method(self, *message):
        ran.append("method")


NEVER_RUN = [
    pytest.param(generator, id="generator"),
    pytest.param(coroutine, id="coroutine"),
    pytest.param(async_generator, id="async generator"),
    pytest.param(functools.partial(coroutine, 1), id="partial"),
    pytest.param(Callable(), id="object"),
    pytest.param(Callable().method, id="method"),
]

# Every public call that takes a callable. A new one belongs here.
TAKERS = {
    "port": lambda node, function: node.port(function),
    "rcv, default": lambda node, function: node.rcv(node.port(), function),
    "rcv, tag": lambda node, function: node.rcv(node.port(), "tag", function),
    "rcv, named": lambda node, function: node.rcv(node.port(), tag=function),
    "rcv, pattern": lambda node, function: node.rcv(node.port(), ["tag"], function),
    "rcv, predicate": lambda node, function: node.rcv(node.port(), [function], print),
    "rcv, decorator": lambda node, function: node.rcv(node.port(), "tag")(function),
    "serve": lambda node, function: node.serve(node.port(), tag=function),
    "serve, decorator": lambda node, function: node.serve(node.port(), "tag")(function),
    "mon": lambda node, function: node.mon(node.port(), function),
    "mon_nodes": lambda node, function: node.mon_nodes(function),
    "after": lambda node, function: node.after(0, function),
    "cal": lambda node, function: node.cal(node.port(), "tag", cb=function),
    "peval": lambda node, function: node.peval(node.port(), function),
    "peval_async": lambda node, function: node.peval_async(node.port(), function),
    "port_async": lambda node, function: node.port_async(function),
    "rcv_async": lambda node, function: node.rcv_async(node.port(), function),
    "actor": lambda node, function: node.actor(function),
    "db_family": lambda node, function: node.db_family("family", function),
    "db_mon": lambda node, function: node.db_mon("family", function),
    "db_wait": lambda node, function: node.db_wait("family", function, timeout=0),
    "grp_mon": lambda node, function: node.grp_mon("group", function),
    "psub": lambda node, function: psub(function),
    "receive": lambda node, function: receive(function, timeout=0),
    "receive, element": lambda node, function: receive([function], timeout=0),
    "get_cond": lambda node, function: get_cond(function, timeout=0),
    "spawnable": lambda node, function: spawnable("some.name")(function),
    "a function for other nodes": lambda node, function: name_of(function),
    "on_join": lambda node, function: on_join(function),
    "on_drain": lambda node, function: on_drain(function),
}


@pytest.fixture
def node():
    node = Node()
    yield node
    for port in set(ports_of(node).values()):
        node.scheduler.kill(port, ())
    settle(node)


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_a_function_whose_body_would_not_run_is_refused_when_it_is_given(node, take):
    for case in NEVER_RUN:
        with attach(), pytest.raises(TypeError, match="would not run its body; give a plain function"):
            take(node, case.values[0])
    settle(node)
    assert ran == []


# Elsewhere a number is something else: a value to be equal to, or a port.
STRICTLY = [name for name in TAKERS if name not in {"after", "mon", "rcv, predicate", "receive, element"}]


@pytest.mark.parametrize("take", [TAKERS[name] for name in STRICTLY], ids=STRICTLY)
def test_what_cannot_be_called_is_refused_when_it_is_given(node, take):
    with attach(), pytest.raises((TypeError, aemp_gevent.errors.SpawnRefusedError)):
        take(node, 5)


@pytest.mark.parametrize("function", NEVER_RUN)
def test_check_callable_sees_through_partials_objects_and_methods(function):
    with pytest.raises(TypeError, match=r"^f\(\): .* (async def|generator function)"):
        check_callable("f()", function)


@pytest.mark.parametrize(
    "function", [print, int, Callable, functools.partial(print), [].append, lambda: (yield_ for yield_ in ())]
)
def test_check_callable_lets_the_rest_pass(function):
    check_callable("f()", function)


def test_a_service_whose_body_would_not_run_is_an_invalid_setting():
    with pytest.raises(InvalidSettingError, match="async def"):
        load_services([("asyncio.sleep",)])


def test_a_spawned_coroutine_function_is_an_abnormal_death(node):
    reasons: list[tuple[object, ...]] = []
    node.mon(node.spawn(node.NODE(), "asyncio.sleep", 0), lambda *reason: reasons.append(reason))
    settle(node)
    assert reasons[0][0] == "die"
    assert "async def" in reasons[0][1]


# --- return values ---------------------------------------------------------------


def test_done_is_one_object_however_it_is_copied():
    assert copy.deepcopy(DONE) is DONE
    assert pickle.loads(pickle.dumps(DONE)) is DONE
    assert repr(DONE) == "DONE"


def test_a_handler_that_returns_done_is_removed(node):
    got: list[str] = []

    def note(what):
        got.append(what)
        return DONE

    port = node.rcv(node.port(lambda *message: got.append("default")), "tag", lambda: note("tag"), ["pattern"], note)
    for message in ("tag", "tag", "pattern", "pattern"):
        node.snd(port, message)
    settle(node)
    assert got == ["tag", "default", "pattern", "default"]


def test_a_default_callback_that_returns_done_ends_its_port(node):
    reasons: list[tuple[object, ...]] = []
    port = node.port(lambda: DONE)
    node.mon(port, lambda *reason: reasons.append(reason))
    node.snd(port)
    settle(node)
    assert reasons == [()]


class Truthful:
    """Its instances are not functions."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *message):
        self.calls += 1
        return True


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("tags", [(), ("tag",)], ids=["default", "tag"])
def test_a_coroutine_from_a_plain_function_kills_the_port_and_is_named(node, tags):
    reasons = []
    port = node.rcv(node.port(), *tags, lambda *_: coroutine())
    node.mon(port, lambda *reason: reasons.append(reason))
    node.snd(port, "tag")
    settle(node)
    assert [reason[0] for reason in reasons] == ["die"]
    assert "returned the coroutine coroutine(), whose body did not run; give a plain function" in reasons[0][1]


def test_true_from_what_is_not_a_python_function_removes_nothing(node):
    semaphore, event, callable_object = gevent.lock.Semaphore(10), gevent.event.Event(), Truthful()
    event.set()
    miniport = node.port(callable_object)
    port = node.rcv(node.port(), "take", semaphore.acquire, ["wait"], lambda *_message: None)
    node.rcv(port, "take_one_of", functools.partial(semaphore.acquire, True))
    node.rcv(port, [str], callable_object)
    for _ in range(3):
        node.snd(port, "take")
        node.snd(port, "take_one_of")
        node.snd(miniport)
    settle(node)
    assert semaphore.counter == 10 - 6
    assert callable_object.calls == 3 + 6
    assert node.scheduler.table.find(miniport) is not None


def test_the_first_removal_by_true_is_logged_once_per_function(node, caplog):
    caplog.set_level(logging.INFO, "aemp_gevent")

    def obsolete(*message):
        return True

    for _ in range(3):
        node.snd(node.rcv(node.port(), "tag", functools.partial(obsolete)), "tag")
        node.snd(node.port(obsolete))
    settle(node)
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(lines) == 1
    assert lines[0].startswith("handler obsolete (")
    assert f":{obsolete.__code__.co_firstlineno})" in lines[0]
    assert "return DONE" in lines[0]


def test_a_method_that_returns_true_is_a_python_function(node):
    class Machine:
        calls = 0

        def step(self):
            self.calls += 1
            return True

    machine = Machine()
    port = node.rcv(node.port(), "step", machine.step)
    node.snd(port, "step")
    node.snd(port, "step")
    settle(node)
    assert machine.calls == 1
