# SPDX-License-Identifier: MIT
"""Starting servers: here and on other nodes, and how it fails."""

from __future__ import annotations

import gevent
import pytest

from aemp_gevent import SELF
from aemp_gevent.errors import AlreadyStartedError, PortKilled, StartError
from aemp_gevent.otp import Server, call, starting
from tests.otp.carts import Cart
from tests.support.helpers import turns
from tests.support.networking import WAIT, MakeNode
from tests.support.seams import ports_of


def alive(node):
    """The ports of a node without that of the test."""
    return len(set(ports_of(node).values())) - 1


class Eager(Server):
    """Sends itself a message from init, which others also do."""

    def init(self, started: list[str]) -> None:
        started.append(str(self))
        self.log = ["init"]
        self.cast_from_init()
        gevent.sleep(0.01)
        self.log.append("ready")

    def cast_from_init(self) -> None:
        self.async_.note("first")

    @call
    def note(self, text: str) -> list[str]:
        self.log.append(text)
        return self.log


def test_messages_wait_until_init_has_returned(node):
    started = []
    greenlet = gevent.spawn(Eager.start, started, node=node)
    while not started:
        turns(1)
    other = node.call_async(started[0], "note", "second")
    assert other.get(timeout=WAIT) == ["init", "ready", "first", "second"]
    greenlet.get(timeout=WAIT)


def test_an_exception_of_init_is_raised_with_its_cause_and_nothing_is_left(node):
    with pytest.raises(StartError, match="Cart did not start: ValueError: no owner") as raised:
        Cart.start("", name="cart")
    assert isinstance(raised.value.__cause__, ValueError)
    assert raised.value.reason == ("die", "ValueError: no owner")
    turns(3)
    assert alive(node) == 0
    assert Cart.start("ada", name="cart").add("apple") == 1, "the name was not given back"


def test_an_exception_of_init_is_not_logged_as_well(node, caplog):
    with pytest.raises(StartError):
        Cart.start("")
    assert not caplog.records


def test_wrong_arguments_of_init_are_raised(node):
    with pytest.raises(StartError, match="TypeError: Cart.init"):
        Cart.start()


def test_init_that_takes_too_long_is_ended(node):
    class Slow(Server):
        def init(self) -> None:
            try:
                gevent.sleep(WAIT)
            except PortKilled as killed:
                ended.append(killed.reason)
                raise

    ended: list[object] = []
    with pytest.raises(StartError, match=r"init\(\) did not end within 0\.01 s; give it more time with start_timeout"):
        Slow.start(start_timeout=0.01)
    turns(3)
    assert ended == [("start_timeout",)]
    assert alive(node) == 0


def test_a_server_that_stops_in_init_has_not_started(node):
    class Unwilling(Server):
        def init(self, *reason: str) -> None:
            self.stop(*reason)

    with pytest.raises(StartError, match="stopped it") as raised:
        Unwilling.start()
    assert raised.value.reason == ()
    with pytest.raises(StartError, match="no disk") as raised:
        Unwilling.start("no disk")
    assert raised.value.reason == ("no disk",)


def test_a_server_whose_starter_is_killed_meanwhile_is_ended(node):
    class Slow(Server):
        def init(self) -> None:
            began.append(str(self))
            gevent.sleep(WAIT)

    began: list[str] = []
    starter = node.port_async(Slow.start)
    while not began:
        turns(1)
    node.kil(starter)
    turns(5)
    assert alive(node) == 0


def test_a_name_reaches_the_server_and_is_free_again_after_it(node):
    cart = Cart.start("ada", name="cart")
    assert Cart.at(f"{node.NODE()}#cart").add("apple") == 1
    with pytest.raises(AlreadyStartedError, match="belongs to") as raised:
        Cart.start("bob", name="cart")
    assert raised.value.port == cart
    cart.stop()
    assert Cart.start("bob", name="cart").add("apple") == 1


def test_the_name_of_a_server_that_did_not_start_is_free(node):
    class Slow(Server):
        def init(self) -> None:
            gevent.sleep(WAIT)

    with pytest.raises(StartError, match="did not end within"):
        Slow.start(name="slow", start_timeout=0.01)
    with pytest.raises(StartError, match="no owner"):
        Cart.start("", name="slow")
    assert Cart.start("ada", name="slow").add("apple") == 1


def test_a_server_starts_on_another_node_with_its_arguments_and_its_name(make_node: MakeNode):
    here, there = make_node(), make_node()
    with here.attach():
        cart = Cart.start("ada", size=5, node=there.NODE(), name="cart")
        assert here.node_of(cart) == there.NODE()
        assert cart.add("apple") == 1
        assert Cart.at(f"{there.NODE()}#cart").add("pear") == 2
        with pytest.raises(StartError, match="belongs to"):
            Cart.start("bob", node=there.NODE(), name="cart")
        turns(5)
        with pytest.raises(StartError, match="ValueError: no owner"):
            Cart.start("", node=there.NODE())


def test_only_classes_marked_spawnable_start_on_other_nodes(make_node: MakeNode):
    here, there = make_node(), make_node()
    with here.attach(), pytest.raises(StartError, match="spawn_refused"):
        Eager.start([], node=there.NODE())


def test_a_node_that_cannot_be_reached_is_a_failed_start(make_node: MakeNode):
    here = make_node(monitor_timeout=0.5)
    gone = make_node()
    gone.shutdown()
    with here.attach(), pytest.raises(StartError, match="transport_error"):
        Cart.start("ada", node=gone.NODE())


def test_a_port_that_another_node_spawned_can_become_a_server(node):
    port = node.spawn(node.NODE(), "tests.otp.carts.Cart", "ada")
    assert Cart.at(port).add("apple") == 1
    assert SELF() is not None


def test_messages_to_a_name_wait_also_while_the_name_in_the_network_is_claimed(node, monkeypatch):
    plain = starting.claim
    answers = []

    def claim_and_wait(*args: object) -> None:
        answers.append(node.call_async(f"{node.NODE()}#cart", "add", "apple"))
        turns(5)
        plain(*args)

    monkeypatch.setattr(starting, "claim", claim_and_wait)
    cart = Cart.start("ada", name="cart", network_name="cart")
    assert answers[0].get(timeout=WAIT) == 1
    assert cart.content() == ["apple"]
