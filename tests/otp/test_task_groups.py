# SPDX-License-Identifier: MIT
"""Task groups: ports that end together."""

from __future__ import annotations

import sys

import gevent
import pytest
from gevent.event import Event

from aemp_gevent import SELF, Node, receive
from aemp_gevent.errors import PortDied, PortKilled, StartError
from aemp_gevent.otp import Server, TaskGroup
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.otp.carts import Cart
from tests.support.helpers import turns
from tests.support.networking import WAIT
from tests.support.seams import ports_of

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


@pytest.fixture(autouse=True)
def nothing_is_left(node: Node):
    yield
    assert len(set(ports_of(node).values())) == 1, "a port is left beside that of the test"


def fails(text: str) -> None:
    gevent.sleep(0.001)
    raise ValueError(text)


def waits(ended: list[object]) -> None:
    try:
        receive()
    except PortKilled as killed:
        ended.append(killed.reason)
        raise


def test_the_block_is_left_when_all_ports_have_ended(node):
    done: list[int] = []

    def work(number: int) -> None:
        gevent.sleep(0.001 * number)
        done.append(number)

    with TaskGroup() as group:
        for number in (3, 1, 2):
            group.start(work, number)
        done.append(0)
    assert sorted(done) == [0, 1, 2, 3]


def test_an_empty_group_is_left_at_once(node):
    with TaskGroup():
        pass


def test_when_one_fails_the_others_are_stopped_and_its_error_is_raised(node, caplog):
    ended: list[object] = []
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        group.start(waits, ended)
        group.start(fails, "x")
    [error] = raised.value.exceptions
    assert isinstance(error, ValueError)
    assert ended == [("shutdown",)]
    assert not caplog.records, "the error was logged although it was raised"


def test_the_block_is_interrupted_where_it_waits(node):
    reached = False
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        group.start(fails, "x")
        gevent.sleep(WAIT)
        reached = True
    assert not reached
    assert [str(error) for error in raised.value.exceptions] == ["x"]


def test_an_error_of_the_block_stops_the_ports_and_is_in_the_group(node):
    ended: list[object] = []
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        group.start(waits, ended)
        turns(2)
        raise KeyError("block")
    assert [type(error) for error in raised.value.exceptions] == [KeyError]
    assert ended == [("shutdown",)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, gevent.Timeout, PortKilled])
def test_what_is_not_an_exception_passes_alone(node, error):
    ended: list[object] = []
    with pytest.raises(error), TaskGroup() as group:
        group.start(waits, ended)
        turns(2)
        raise error
    assert ended == [("shutdown",)]


def test_a_port_that_the_group_kills_has_not_failed(node):
    """Its reason is not a normal one, as it has no time to stop."""
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        group.start(waits, [], shutdown=0)
        group.start(waits, [], shutdown=0)
        turns(2)
        group.start(fails, "x")
    assert [str(error) for error in raised.value.exceptions] == ["x"]


def test_a_server_that_does_not_start_is_raised_once_and_where_it_is_started(node):
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        group.start(Cart, "")
    [error] = raised.value.exceptions
    assert isinstance(error, StartError)
    with TaskGroup() as group, pytest.raises(StartError):
        group.start(Cart, "")


def test_several_errors_are_raised_together(node):
    def late() -> None:
        try:
            receive()
        finally:
            raise KeyError("while it was stopped")

    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        group.start(fails, "one")
        group.start(fails, "two")
        gevent.sleep(WAIT)
    assert "one" in {str(error) for error in raised.value.exceptions}


def test_servers_and_killed_ports_belong_to_a_group(node):
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        cart = Cart.at(group.start(Cart, "ada"))
        assert cart.add("apple") == 1
        node.kil(cart, "crash", 1)
        gevent.sleep(WAIT)
    assert raised.value.exceptions == (PortDied(str(cart), ("crash", 1)),)


def test_a_port_that_does_not_start_is_raised_at_once_in_the_block(node):
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as group:
        group.start(Cart, "")
    assert isinstance(raised.value.exceptions[0], StartError)


def test_the_ports_of_a_killed_owner_are_stopped(node):
    ended: list[object] = []

    def owner() -> None:
        with TaskGroup() as group:
            group.start(waits, ended)
            began.append(SELF())

    began: list[object] = []
    port = node.port_async(owner)
    wait_until(lambda: began, within=WAIT)
    turns(2)
    death = death_of(port, node=node)
    node.kil(port, "why")
    assert death.get(timeout=WAIT) == ("why",)
    wait_until(lambda: ended == [("shutdown",)], within=WAIT)


def test_groups_nest(node):
    ended: list[object] = []

    def inner() -> None:
        with TaskGroup() as group:
            group.start(waits, ended)

    with pytest.raises(ExceptionGroup), TaskGroup() as group:
        group.start(inner)
        turns(3)
        group.start(fails, "x")
    assert ended == [("shutdown",)]


def test_a_group_starts_nothing_outside_of_its_block_or_after_a_failure(node):
    group = TaskGroup()
    with pytest.raises(RuntimeError, match="inside its 'with' block"):
        group.start(waits, [])
    with pytest.raises(ExceptionGroup), group:
        group.start(fails, "x")
        try:
            gevent.sleep(WAIT)
        finally:
            with pytest.raises(RuntimeError, match="a port of it has failed"):
                group.start(waits, [])


class Slow(Server):
    """Takes its time to end."""

    def init(self, may_end: Event) -> None:
        self.may_end = may_end

    def terminate(self, reason: tuple[object, ...]) -> None:
        self.may_end.wait(WAIT)


def test_the_failure_of_an_outer_group_interrupts_the_stop_of_an_inner_one(node):
    may_end = Event()
    with pytest.raises(ExceptionGroup) as raised, TaskGroup() as outer:
        outer.start(fails, "outer")
        with TaskGroup() as inner:
            inner.start(Slow, may_end, shutdown=WAIT)
            raise KeyError("inner")
    assert [str(error) for error in raised.value.exceptions] == ["outer"]
    wait_until(lambda: len(set(ports_of(node).values())) == 1, within=WAIT)
    may_end.set()


def test_a_timeout_of_the_caller_interrupts_the_stop(node):
    may_end = Event()
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.01) as limit, TaskGroup() as group:
        group.start(Slow, may_end, shutdown=WAIT)
        raise KeyError("block")
    assert raised.value is limit
    wait_until(lambda: len(set(ports_of(node).values())) == 1, within=WAIT)
    may_end.set()
