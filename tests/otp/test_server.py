# SPDX-License-Identifier: MIT
"""Servers: what their class may look like, and how they are used, here and from another node."""

from __future__ import annotations

import copy
import pickle

import gevent
import pytest
from gevent.event import AsyncResult

from aemp_gevent import Node, receive
from aemp_gevent.errors import CallCycleError, InvalidPortError, NoPortContextError, PortDied, RemoteError, StartError
from aemp_gevent.otp import Child, Reference, Server, Supervisor, call, cast, reply_later
from aemp_gevent.toolkit import death_of
from tests.otp.carts import Cart
from tests.support.networking import WAIT, MakeNode


@pytest.fixture(params=["here", "there", "strict"])
def cart(request: pytest.FixtureRequest, make_node: MakeNode) -> Cart:
    """A cart of the same node, of another one, and of one that copies messages as another would get them."""
    owner = make_node(strict=request.param == "strict")
    cart = Cart.start("ada", node=owner)
    return Cart.at(cart, node=make_node()) if request.param == "there" else cart


def test_a_call_returns_what_the_method_returns(cart):
    assert cart.add("apple") == 1
    assert cart.add("pear", 2) == 3
    assert cart.add("fig", count=2) == 5
    assert cart.add(item="fig", timeout=WAIT) == 6
    assert cart.add_all("a", "b") == 8
    assert cart.add_all() == 8
    assert list(cart.content()) == ["apple", "pear", "pear", "fig", "fig", "fig", "a", "b"]


def test_a_cast_is_done_in_its_turn(cart):
    cart.add("apple", 2)
    assert cart.forget("apple") is None
    assert cart.cast.forget(item="apple") is None
    assert list(cart.content()) == []


def test_a_call_without_waiting_returns_a_result_that_will_have_the_answer(cart):
    results = [cart.async_.add("apple"), cart.add.async_("pear", count=2)]
    assert all(isinstance(result, AsyncResult) for result in results)
    assert [result.get(timeout=WAIT) for result in results] == [1, 3]
    with pytest.raises(RemoteError, match="negative"):
        cart.async_.divide(-1).get(timeout=WAIT)


def test_an_exception_goes_back_and_the_server_continues_with_its_state(cart):
    cart.add("apple")
    with pytest.raises(RemoteError, match="ValueError: negative") as raised:
        cart.divide(-1)
    assert "in divide" in raised.value.traceback
    assert cart.add("pear") == 2


def test_a_fatal_exception_goes_back_and_ends_the_server(cart):
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        cart.divide(0)
    with pytest.raises(PortDied):
        cart.add("apple")


def test_an_answer_may_come_later_from_another_greenlet(cart):
    assert cart.price("apple") == 5
    with pytest.raises(RemoteError, match="ValueError: no item"):
        cart.price("")


def test_a_method_may_block_and_the_server_does_one_thing_at_a_time(cart):
    slow = cart.async_.wait(0.05)
    assert cart.add("apple") == 1
    assert slow.ready()
    assert slow.get() == "waited"


def test_the_time_that_a_call_waits_is_that_of_the_call_or_of_the_reference(cart):
    assert cart.within(WAIT).wait(0) == "waited"
    cart.async_.wait(10 * WAIT)  # the others wait behind it
    for slow in (lambda: cart.content(timeout=0.01), lambda: cart.within(0.01).content()):
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            slow()
    death = death_of(cart, node=cart._node)
    cart._node.kil(cart)
    death.get(timeout=WAIT)


def test_inside_the_server_marked_methods_are_called_directly(cart):
    assert cart.add_twice("apple") == 2


def test_any_node_may_use_a_server_without_its_class(cart):
    client = Node()
    here = cart._node
    assert here.call(cart, "add", "apple", 2) == 2
    here.snd(cart, "forget", "apple")
    assert here.syncal(WAIT, str(cart), "add", "pear") == (2,)
    with pytest.raises(RemoteError, match=r"no method marked @call that is named 'ad'; did you mean 'add'\?"):
        here.call(cart, "ad", "apple")
    client.shutdown()


@pytest.mark.parametrize("args", [(), ("a", 1, 2)], ids=["too-few", "too-many"])
def test_a_wrong_number_of_arguments_is_the_callers_mistake(cart, args):
    with pytest.raises(TypeError, match=r"add\(item: str, count: int = 1\) -> int takes 1 to 2 arguments, not"):
        cart.add(*args)
    with pytest.raises(RemoteError, match="takes 1 to 2 arguments, not"):
        cart._node.call(cart, "add", *args)
    cart._node.snd(cart, "forget", *args, 1, 2)
    assert cart.add("apple") == 1, "a cast with a wrong number of arguments ended the server"


def test_names_of_arguments_that_do_not_exist_are_the_callers_mistake(cart):
    with pytest.raises(TypeError, match=r"add\(.*\) -> int: got an unexpected keyword argument 'number'"):
        cart.add("apple", number=2)


def test_a_reference_is_the_ports_id(node):
    cart = Cart.start("ada")
    assert isinstance(cart, str)
    assert isinstance(cart, Reference)
    assert cart == str(cart)
    assert hash(cart) == hash(str(cart))
    assert type(str(cart)) is str
    assert repr(cart) == f"<Cart {cart!s}>"
    assert {cart: 1}[str(cart)] == 1


def test_a_reference_in_a_message_arrives_as_a_port_id_that_makes_a_reference(make_node):
    one, other = make_node(), make_node()
    cart = Cart.start("ada", node=one)
    with other.attach() as me:
        one.snd(me, "here it is", cart, [cart], {"cart": cart})
        tag, arrived, [inside], by_name = receive(timeout=WAIT)
        assert (tag, arrived, inside, by_name) == ("here it is", str(cart), str(cart), {"cart": str(cart)})
        assert Cart.at(arrived).add("apple") == 1


def test_a_copy_of_a_reference_is_one(node):
    cart = Cart.start("ada")
    for same in (copy.copy(cart), copy.deepcopy([cart])[0], pickle.loads(pickle.dumps(cart))):
        assert type(same) is type(cart)
        assert same.add("apple") > 0


def test_what_a_reference_does_not_have_is_explained(node):
    cart = Cart.start("ada")
    with pytest.raises(AttributeError, match=r"a reference to a Cart has no 'items', only the methods marked"):
        cart.items  # noqa: B018
    with pytest.raises(AttributeError, match=r"did you mean 'forget'\?"):
        cart.forgot  # noqa: B018
    with pytest.raises(AttributeError, match="add is not marked @cast: call it"):
        cart.cast.add  # noqa: B018
    with pytest.raises(AttributeError, match="forget is not marked @call"):
        cart.async_.forget  # noqa: B018


def test_methods_of_str_may_be_names_of_methods(node):
    class Words(Server):
        @call
        def count(self) -> int:
            return 3

        @call
        def join(self, words: list[str]) -> str:
            return "+".join(words)

    words = Words.start()
    assert words.count() == 3
    assert words.join(["a", "b"]) == "a+b"


def test_at_takes_any_id_of_a_port_and_nothing_else(node):
    assert Cart.at("other#port") == "other#port"
    with pytest.raises(InvalidPortError):
        Cart.at("not a port")


def test_subclasses_have_the_methods_of_their_bases(node):
    class Wishlist(Cart):
        @call
        def add(self, item: str, count: int = 1) -> int:
            return super().add(item.upper(), count) * 100

    wishes = Wishlist.start("ada")
    assert wishes.add("apple") == 100
    assert wishes.content() == ["APPLE"]


def test_a_server_that_calls_itself_through_a_reference_gets_an_error(node):
    class Loop(Server):
        @call
        def turn(self) -> int:
            return Loop.at(self).turn()

    with pytest.raises(RemoteError, match="CallCycleError"):
        Loop.start().turn()
    assert CallCycleError  # the class that the text names


def test_servers_that_call_each_other_in_a_circle_get_an_error_and_continue(node):
    class Partner(Server):
        def init(self) -> None:
            self.other: str | None = None

        @call
        def know(self, other: str) -> None:
            self.other = other

        @call
        def ask(self) -> str:
            return Partner.at(self.other).ask()

        @call
        def greet(self) -> str:
            return "hello"

    one, two = Partner.start(), Partner.start()
    one.know(two)
    two.know(one)
    with pytest.raises(RemoteError, match="CallCycleError"):
        one.ask(timeout=WAIT)
    assert (one.greet(), two.greet()) == ("hello", "hello")


def test_a_child_that_asks_its_supervisor_while_it_starts_fails_to_start(node):
    class Curious(Server):
        def init(self) -> None:
            Supervisor.at(f"{node.NODE()}#tree").count(timeout=WAIT)

    with pytest.raises(StartError, match="CallCycleError"):
        Supervisor.start([Child(Curious)], name="tree")


def test_reply_later_outside_of_a_call_is_refused(node):
    with pytest.raises(NoPortContextError, match="marked @call"):
        reply_later()


def test_an_answer_whose_later_is_not_returned_is_the_result(node):
    class Hasty(Server):
        @call
        def ask(self) -> int:
            later = reply_later()
            gevent.spawn(later.send, 2)
            return 1

    assert Hasty.start().ask() == 1


def test_a_server_is_not_made_by_calling_its_class():
    with pytest.raises(TypeError, match=r"Cart\.start\(\) starts one"):
        Cart("ada")


def wrong_classes():
    def init(self):
        pass

    @call
    def ask(self):
        pass

    @call
    def stop(self):
        pass

    @call
    def server(self):
        pass

    @call
    def _hidden(self):
        pass

    base = type("Base", (Server,), {"ask": ask})
    yield pytest.param((Server,), {"__init__": init}, r"write init\(\) in place of __init__\(\)", id="init")
    yield pytest.param((Server,), {"stop": stop}, "choose another name", id="taken")
    yield pytest.param((Server,), {"server": server}, "choose another name", id="reference")
    yield pytest.param((Server,), {"_hidden": _hidden}, "choose another name", id="private")
    yield pytest.param((Server,), {"other": ask}, "cannot use it under this name", id="renamed")
    yield pytest.param((base,), {"ask": init}, r"Wrong\.ask must be marked @call, as .*ask is", id="unmarked")
    yield pytest.param((base,), {"ask": cast(ask.function)}, "must be marked @call", id="other-mark")


@pytest.mark.parametrize(("bases", "names", "text"), list(wrong_classes()))
def test_classes_that_cannot_work_are_refused(bases, names, text):
    with pytest.raises(TypeError, match=text):
        type("Wrong", bases, names)
