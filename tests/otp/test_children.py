# SPDX-License-Identifier: MIT
"""Children: what can be one, and how they are stopped."""

from __future__ import annotations

import gevent
import pytest

from aemp_gevent import SELF, Node, receive
from aemp_gevent.errors import PortKilled, StartError
from aemp_gevent.otp import Child, Server, Supervisor, cast
from aemp_gevent.otp.children import Stopping
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.otp.carts import Cart
from tests.support.helpers import turns
from tests.support.networking import WAIT
from tests.support.seams import ports_of

seen: list[object] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


def body(*args: object) -> None:
    seen.append((SELF(), *args))
    while True:
        seen.append(receive())


# --- what can be one ---


def test_a_server(node):
    port = Child(Cart, "ada", name="cart").run(node)
    assert Cart.at(f"{node.NODE()}#cart").add("apple") == 1
    assert Cart.at(port).add("apple") == 2


def test_start_of_a_server_means_the_server(node):
    child = Child(Cart.start, "ada")
    assert child.is_server
    assert child.title == "Cart"
    assert Cart.at(child.run(node)).add("apple") == 1


@pytest.mark.parametrize("kind", ["function", "actor"])
def test_a_function_that_runs_in_a_port_of_its_own(node, kind):
    port = Child(body if kind == "function" else node.actor(body), 1, 2, name="body").run(node)
    node.snd(f"{node.NODE()}#body", "hello")
    wait_until(lambda: len(seen) == 2, within=WAIT)
    assert seen == [(port, 1, 2), ("hello",)]


@pytest.mark.parametrize("lives_on", [True, False])
def test_a_name_that_another_port_has_is_refused_and_nothing_is_left(node, lives_on):
    node.reg(node.port(), "body")
    with pytest.raises(StartError, match="the name 'body' belongs to"):
        Child(print if lives_on else body, name="body", lives_on=lives_on).run(node)
    turns(3)
    assert len(set(ports_of(node).values())) == 2


def handlers(node: Node, tag: str) -> None:
    gevent.sleep(0.001)
    node.rcv(SELF(), tag, seen.append)
    if tag == "fail":
        raise ValueError("in the function")


def test_a_function_that_gives_its_port_handlers(node):
    port = Child(handlers, node, "note", lives_on=True).run(node)
    node.snd(port, "other", 1)
    node.snd(port, "note", 2)
    wait_until(lambda: seen, within=WAIT)
    assert seen == [2]
    with pytest.raises(StartError, match="handlers did not start: ValueError: in the function") as raised:
        Child(handlers, node, "fail", lives_on=True).run(node)
    assert isinstance(raised.value.__cause__, ValueError)
    turns(2)
    assert len(set(ports_of(node).values())) == 2


def test_a_function_that_takes_too_long_to_give_its_port_handlers(node):
    with pytest.raises(StartError, match=r"did not return within 0\.01 s; give it more time with start_timeout"):
        Child(gevent.sleep, WAIT, lives_on=True, start_timeout=0.01).run(node)
    turns(2)
    assert len(set(ports_of(node).values())) == 1


def test_the_name_of_a_function_which_is_spawned(node):
    port = Child("tests.otp.carts.Cart", "ada").run(node)
    assert Cart.at(port).add("apple") == 1


@pytest.mark.parametrize(
    ("args", "options", "text"),
    [
        ((5,), {}, r"Child\(5\): give a Server class, a function, or the full name of one"),
        ((dict,), {}, "give a Server class, a function"),
        ((body,), {"restart": "always"}, "restart must be 'permanent', 'transient' or 'temporary', not 'always'"),
        ((body,), {"significant": True}, "a significant child must be transient or temporary"),
        ((Cart,), {"lives_on": True}, "lives_on=True is for plain functions"),
        (("a.b",), {"lives_on": True}, "lives_on=True is for plain functions"),
        ((body,), {"shutdown": "soon"}, "shutdown must be a number of seconds"),
        ((body,), {"start_timeout": float("nan")}, "start_timeout is nan"),
        ((body,), {"id": 5}, "id must be a str, not 5"),
    ],
)
def test_what_cannot_be_a_child_is_refused(args, options, text):
    with pytest.raises((TypeError, ValueError), match=text):
        Child(*args, **options)


def test_supervisors_may_take_any_time_and_other_children_may_not():
    assert (Child(Supervisor).shutdown, Child(Supervisor).start_timeout) == (None, None)
    assert (Child(Cart).shutdown, Child(Cart).start_timeout) == (5, 30)
    assert (Child(Supervisor, shutdown=1).shutdown, Child(Cart, shutdown=None).shutdown) == (1, None)


# --- how they are stopped ---


class Stubborn(Server):
    """Blocks, or takes its time to terminate."""

    terminate_timeout = None

    def init(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    @cast
    def block(self) -> None:
        try:
            gevent.sleep(WAIT)
        except PortKilled as killed:
            seen.append(killed.reason)
            raise

    def terminate(self, reason: tuple[object, ...]) -> None:
        seen.append(reason)
        gevent.sleep(self.seconds)
        seen.append("terminated")


def stop(node, child, port):
    death = death_of(port, node=node)
    Stopping(node, child, port).wait("the supervisor")
    return death.get(timeout=0)


def test_a_server_may_finish_its_work(node):
    child = Child(Stubborn, 0.01)
    assert stop(node, child, child.run(node)) == ("shutdown",)
    assert seen == [("shutdown",), "terminated"]


def test_a_server_that_is_blocked_is_killed_and_named_in_the_log(node, caplog):
    child = Child(Stubborn, shutdown=0.01)
    port = child.run(node)
    Stubborn.at(port).block()
    turns(2)
    assert stop(node, child, port) == ("killed",)
    assert seen[0] == ("killed",)
    [record] = caplog.records
    assert record.getMessage() == (
        f"the supervisor: the child Stubborn ({port}) did not stop within 0.01 s, and is killed"
    )


def test_a_server_whose_terminate_takes_too_long_is_killed(node, caplog):
    child = Child(Stubborn, WAIT, shutdown=0.01)
    assert stop(node, child, child.run(node)) == ("killed",)
    assert "did not stop within 0.01 s" in caplog.text


def test_a_child_without_time_is_killed_and_not_logged(node, caplog):
    child = Child(Stubborn, shutdown=0)
    assert stop(node, child, child.run(node)) == ("killed",)
    assert not caplog.records


def test_a_function_gets_port_killed_where_it_waits(node):
    def function() -> None:
        try:
            receive()
        except PortKilled as killed:
            seen.append(killed.reason)
            raise

    child = Child(function)
    port = child.run(node)
    turns(2)
    assert stop(node, child, port) == ("shutdown",)
    assert seen == [("shutdown",)]


def test_what_does_not_even_die_is_reported(node, caplog, monkeypatch):
    monkeypatch.setattr("aemp_gevent.otp.children.LAST_SECONDS", 0.01)
    monkeypatch.setattr(node, "kil", lambda *_: None)
    child = Child(body, shutdown=0.01)
    port = child.run(node)
    Stopping(node, child, port).wait("the supervisor")
    assert f"the child body ({port}) is still running" in caplog.text
