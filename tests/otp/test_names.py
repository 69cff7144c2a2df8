# SPDX-License-Identifier: MIT
"""Names of ports, on their node and in the network."""

from __future__ import annotations

import pytest

from aemp_gevent.errors import AlreadyStartedError, NoPortContextError, StartError
from aemp_gevent.otp import Child, names, register, whereis
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.otp.carts import Cart
from tests.support.networking import WAIT


@pytest.fixture
def nodes(make_node):
    seed = make_node()
    return seed, make_node("127.0.0.1:0", seed.NODE())


def test_a_name_on_a_node_is_found_there(node):
    cart = Cart.start("ada", name="cart")
    assert whereis("cart") == cart
    assert whereis("other") is None
    cart.stop()
    assert whereis("cart") is None


def test_a_private_node_is_a_network_of_its_own(node):
    cart = Cart.start("ada", network_name="cart")
    assert whereis("cart") == cart
    with pytest.raises(AlreadyStartedError) as raised:
        Cart.start("bob", network_name="cart")
    assert raised.value.port == cart
    cart.stop()
    wait_until(lambda: whereis("cart") is None, within=WAIT)
    assert Cart.start("bob", network_name="cart").add("apple") == 1


def test_a_name_in_the_network_is_found_by_all_nodes_and_belongs_to_one_port(nodes):
    one, other = nodes
    cart = Cart.start("ada", network_name="cart", node=one)
    wait_until(lambda: whereis("cart", node=other) == cart, within=WAIT)
    with pytest.raises(AlreadyStartedError):
        Cart.start("bob", network_name="cart", node=other)
    with one.attach(), pytest.raises(StartError, match="the name 'cart' belongs to"):
        Cart.start("bob", network_name="cart", node=other.NODE())
    with other.attach(), pytest.raises(AlreadyStartedError):
        register("cart")
    one.kil(cart)
    wait_until(lambda: whereis("cart", node=other) is None, within=WAIT)


def test_of_two_claims_that_did_not_know_of_each_other_the_earliest_wins(nodes, monkeypatch):
    one, other = nodes
    for node in nodes:
        monkeypatch.setattr(node, "db_family", lambda *_args, **_options: {})
    monkeypatch.setattr(names, "time", iter([2.0, 1.0]).__next__)
    late = Cart.start("ada", network_name="cart", node=one)
    death = death_of(late, node=one)
    early = Cart.start("bob", network_name="cart", node=other)
    assert death.get(timeout=WAIT) == ("name_taken", "cart", early)
    assert early.add("apple") == 1


def test_of_two_claims_at_the_same_time_the_smaller_id_wins(nodes, monkeypatch):
    for node in nodes:
        monkeypatch.setattr(node, "db_family", lambda *_args, **_options: {})
    monkeypatch.setattr(names, "time", lambda: 1.0)
    carts = [Cart.start("ada", network_name="cart", node=node) for node in nodes]
    winner, loser = sorted(carts)
    death = death_of(loser, node=nodes[carts.index(loser)])
    assert death.get(timeout=WAIT) in {
        ("name_taken", "cart", winner),
        ("no_such_port", "cannot monitor nonexistent port", loser),
    }
    assert winner.add("apple") == 1


def test_other_entries_of_the_family_do_no_harm(node):
    node.db_set(names._family("cart"), "anything", ["not a time"])
    cart = Cart.start("ada", network_name="cart")
    node.db_set(names._family("cart"), "anything", None)
    assert cart.add("apple") == 1
    assert whereis("cart") == cart


def test_children_have_names(node):
    port = Child(Cart, "ada", network_name="cart").run(node)
    assert whereis("cart") == port
    with pytest.raises(StartError):
        Child(Cart, "ada", network_name="cart").run(node)
    function = Child(lambda: node.attach, name="x", network_name="y").run(node)
    assert function


def test_what_cannot_be_a_name_is_refused(node):
    for name in ("", 5):
        with pytest.raises(TypeError, match="a name in the network must be a text"):
            Cart.start("ada", network_name=name)
    assert whereis("5") is None


def test_a_name_in_the_network_needs_a_port():
    with pytest.raises(NoPortContextError, match=r"register\(\)"):
        register("cart")
