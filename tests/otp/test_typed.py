# SPDX-License-Identifier: MIT
"""Typed servers: what is checked and converted, on both sides, and what a wrong value does."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated
from uuid import UUID

import gevent
import pytest

from aemp_gevent.errors import RemoteError
from aemp_gevent.otp import Later, Server, call, cast, reply_later
from aemp_gevent.testing.waiting import wait_until
from tests.otp.carts import Cart
from tests.support.networking import WAIT, MakeNode

msgspec = pytest.importorskip("msgspec")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    name: str
    price: Decimal
    tags: set[str] = field(default_factory=set)


class Point(msgspec.Struct):
    x: int
    y: int


Pairs = dict[int, tuple[str, ...]]


class Shop(Server, typed=True):
    """Gives back what it gets, of every kind."""

    def init(self) -> None:
        self.seen: list[object] = []

    @call
    def item(self, item: Item) -> Item:
        assert type(item) is Item
        self.seen.append(item)
        return item

    @call
    def every(
        self,
        when: datetime,
        key: UUID,
        colour: Colour,
        point: Point,
        span: timedelta,
        pairs: dict[int, tuple[str, ...]],
    ) -> tuple[datetime, UUID, Colour, Point, timedelta, dict[int, tuple[str, ...]]]:
        assert (type(when), type(key), type(colour), type(point)) == (datetime, UUID, Colour, Point)
        return when, key, colour, point, span, pairs

    @call
    def raw(self, data: bytes, anything, more: object = None) -> bytes:  # type: ignore[no-untyped-def]
        self.seen.append(anything)
        return data

    @call
    def count(self, number: int, *others: int) -> int:
        return number + sum(others)

    @call
    def positive(self, number: Annotated[int, msgspec.Meta(gt=0)]) -> int:
        return number

    @call
    def wrong(self) -> int:
        return "text"  # type: ignore[return-value]

    @call
    def later(self, item: Item) -> Later[Item]:
        later: Later[Item] = reply_later()
        gevent.spawn(later.send, item)
        return later

    @call
    def cart(self, cart: Cart) -> int:
        return cart.add("apple")

    @call
    def carts(self) -> Cart:
        return Cart.start("ada")

    @cast
    def note(self, item: Item) -> None:
        self.seen.append(item)

    @call
    def unlucky(self, text: str) -> str:
        raise TypeError("the method's own")


NUTS = Item("nuts", Decimal("1.50"), {"food", "small"})
EVERY = (
    datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
    UUID(int=5),
    Colour.BLUE,
    Point(1, 2),
    timedelta(seconds=90),
    {1: ("a", "b"), 2: ()},
)


@pytest.fixture(params=["here", "there"])
def shop(request: pytest.FixtureRequest, make_node: MakeNode):
    """A shop in this node, and one in another."""
    one, two = make_node(), make_node()
    with one.attach():
        shop = Shop.start()
    with (one if request.param == "here" else two).attach():
        yield Shop.at(str(shop))


def test_values_of_all_kinds_travel_in_both_directions(shop):
    assert shop.item(NUTS) == NUTS
    assert shop.every(*EVERY) == EVERY
    assert shop.raw(b"\xff", {"x": [1]}) == b"\xff"
    assert shop.later(NUTS) == NUTS
    assert shop.async_.item(NUTS).get(timeout=WAIT) == NUTS
    assert shop.count(1, 2, 3) == 6
    assert shop.item(item=NUTS) == NUTS


def test_references_travel_as_port_ids_and_arrive_as_references(shop):
    cart = shop.carts()
    assert cart.add("apple") == 1
    assert isinstance(cart, Cart)
    assert isinstance(cart, str)
    assert shop.cart(cart) == 2
    assert shop.cart(str(cart)) == 3


def test_a_caller_without_the_class_sends_plain_values(shop):
    node = shop._node
    assert node.call(shop, "item", {"name": "nuts", "price": "1.5"}) == {"name": "nuts", "price": "1.5", "tags": []}


@pytest.mark.parametrize(
    ("method", "args", "text"),
    [
        ("count", ("5",), r"Shop\.count\(\): argument 'number' is '5': Expected `int`, got `str`"),
        ("count", (5, "x"), r"argument 2 is 'x': Expected `int`, got `str`"),
        ("item", ({"name": 5, "price": "1"},), r"Expected `str`, got `int` - at `\$\.name`"),
        ("item", ({"name": "nuts"},), "missing required field `price`"),
        ("item", (5,), "Expected `object`, got `int`"),
        ("positive", (0,), "Expected `int` >= 1"),
        ("cart", ("no port",), "no port"),
    ],
)
def test_a_wrong_argument_is_the_callers_error_and_the_server_lives_on(shop, method, args, text):
    with pytest.raises(RemoteError, match=text):
        shop._node.call(shop, method, *args)
    assert shop.count(1) == 1


def test_a_wrong_result_is_an_error_of_the_call(shop):
    with pytest.raises(RemoteError, match=r"Shop\.wrong\(\): its result is 'text': Expected `int`, got `str`"):
        shop.wrong()
    assert shop.count(1) == 1


def test_what_cannot_travel_is_raised_in_the_caller(shop):
    with pytest.raises(TypeError, match=r"Shop\.item\(\): argument 'item' cannot travel: objects of type object are"):
        shop.item(object())
    with pytest.raises(RemoteError, match="the method's own"):
        shop.unlucky("x")


def test_an_answer_that_is_not_what_the_annotation_says_is_raised_in_the_caller(make_node, monkeypatch):
    node = make_node()
    with node.attach():
        liar = node.port()
        node.serve(liar, count=lambda number: "many")
        with pytest.raises(TypeError, match=r"its result is 'many': Expected `int`, got `str`"):
            Shop.at(liar).count(1)
        with pytest.raises(TypeError, match="its result is 'many'"):
            Shop.at(liar).async_.count(1).get(timeout=WAIT)


def test_a_wrong_argument_of_a_cast_is_discarded_and_logged(shop, caplog):
    shop._node.snd(shop, "note", {"name": 5})
    shop.note(NUTS)
    assert shop.count(1) == 1
    wait_until(lambda: "discarded a message" in caplog.text, within=WAIT)
    assert "Shop.note(): argument 'item' is {'name': 5}" in caplog.text


def test_only_classes_that_say_so_and_those_derived_from_them_are_typed():
    class More(Shop):
        @call
        def more(self, number: int) -> int:
            return number

    class Less(Shop, typed=False):
        pass

    assert [kind._aemp_typed for kind in (Cart, Shop, More, Less)] == [False, True, True, False]


def test_annotations_that_cannot_be_evaluated_are_reported_when_the_method_is_used(node):
    class Odd(Server, typed=True):
        @call
        def ask(self, thing: Nowhere) -> int:  # noqa: F821
            return 1

    odd = Odd.start()
    with pytest.raises(TypeError, match=r"Odd\.ask\(\): its annotations cannot be evaluated: name 'Nowhere'"):
        odd.ask(1)
    with pytest.raises(RemoteError, match="its annotations cannot be evaluated"):
        node.call(odd, "ask", 1)


def test_without_msgspec_the_class_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ImportError, match=r"Cart2 with typed=True needs the extra 'typed': pip install msgspec"):

        class Cart2(Server, typed=True):
            pass


@dataclass
class Nested:
    parts: list[Nested]


class Nesting(Server, typed=True):
    @cast
    def keep(self, nested: Nested) -> None: ...

    @call
    def count(self, nested: Nested) -> int:
        return len(nested.parts)

    @call
    def later(self) -> Later[int]:
        later = reply_later()
        gevent.spawn(give, later, "not a number")
        return later


def give(later: Later[object], value: object) -> None:
    with pytest.raises(TypeError, match="its result is"):
        later.send(value)


class Deep(Server):
    @call
    def count(self, nested: object) -> object:
        return DEEP


DEEP: dict[str, object] = {"parts": []}
for _ in range(100_000):  # more than any CPython allows C code to go into
    DEEP = {"parts": [DEEP]}


def test_what_is_nested_too_deeply_is_a_wrong_argument(node, caplog):
    server = Nesting.start()
    node.snd(server, "keep", DEEP)
    with pytest.raises(RemoteError, match="argument 'nested' is"):
        node.call(server, "count", DEEP)
    assert server.count(Nested([])) == 0
    assert "discarded a message: Nesting.keep(): argument 'nested' is" in caplog.text


def test_an_answer_that_is_nested_too_deeply_is_raised_in_the_caller_also_later(node, monkeypatch):
    server = Deep.start()
    for error in (TypeError, KeyError):
        with pytest.raises(error):
            Typed.at(server).async_.count(1).get(timeout=WAIT)
        monkeypatch.setattr(msgspec, "convert", lambda *_args, **_options: {}["key"])  # any other error, too


class Typed(Server, typed=True):
    @call
    def count(self, nested: int) -> Nested: ...


def test_a_wrong_later_answer_fails_the_call_and_where_it_is_given(node):
    with pytest.raises(RemoteError, match="its result is 'not a number'"):
        Nesting.start().later()
