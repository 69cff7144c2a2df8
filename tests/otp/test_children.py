# SPDX-License-Identifier: MIT
"""Children: what can be one."""

from __future__ import annotations

import gevent
import pytest

from aemp_gevent import SELF, Node, receive
from aemp_gevent.errors import InvalidPortError, StartError
from aemp_gevent.otp import Child, Supervisor
from aemp_gevent.testing.waiting import wait_until
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


@pytest.mark.parametrize("start", [body, Cart])
def test_a_child_that_cannot_have_its_name_has_not_started(node, start):
    with pytest.raises(StartError, match="InvalidPortError: .*it contains blanks") as raised:
        Child(start, "ada", name="a b").run(node)
    assert isinstance(raised.value.__cause__, InvalidPortError)


def test_a_timeout_of_the_caller_ends_the_start(node):
    child = Child(gevent.sleep, WAIT, lives_on=True, start_timeout=None)
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.01) as limit:
        child.run(node)
    assert raised.value is limit
    wait_until(lambda: len(set(ports_of(node).values())) == 1, within=WAIT)


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
