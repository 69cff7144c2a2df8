# SPDX-License-Identifier: MIT
"""A user's program as type checkers see it. Lines that end with "error" are wrong; all others are right."""

from datetime import timedelta
from typing import assert_type

from gevent.event import AsyncResult

import aemp_gevent
from aemp_gevent import PeerRule, actor, configure, initialise_node, port, rcv, receive, serve, snd, spawnable
from aemp_gevent.contrib import join_host
from aemp_gevent.otp import Later, Server, call, cast, reply_later
from aemp_gevent.toolkit import PortQueue, RemoteQueue

# Settings have names and types.
configure(nodeid="backend", seeds=["10.0.0.1:4040"], secret="s", heartbeat_timeout=timedelta(seconds=9))
configure("web", secret=["new", "old"], rules=[PeerRule(peer="web-*"), {"peer": "x", "spawn": False}], services=["a.b"])
initialise_node("127.0.0.1:0", "10.0.0.1:4040", secret=b"s", idle_timeout=None)
join_host("shop", "10.0.0.1:4040", secret="s")
configure(secrt="s")  # error
configure(seeds=4040)  # error
configure(require_tls="yes")  # error
initialise_node("127.0.0.1:0", secret="s", heartbeat=5)  # error
join_host("shop", nodeid=5)  # error

# Decorators return the function that they get, with its type.
shop = port()
assert_type(shop, str)


@rcv(shop, "order")
def order(customer: str, item: str, pieces: int = 1) -> None:
    print(customer, item, pieces)


@serve(shop, "price")
def price(item: str) -> float:
    return 9.5 if item == "book" else 1.0


@spawnable
def work(name: str) -> int:
    return len(name)


@actor
def clerk(name: str) -> None:
    print(name, receive())


order("jane", "book")
assert_type(price("book"), float)
assert_type(work("jane"), int)
assert_type(clerk("jane"), str)
assert_type(rcv(shop, print), str)
assert_type(rcv(shop, "paid", print, gone=None), str)
assert_type(serve(shop, price=price), str)
order(1, "book")  # error
price()  # error
work(5)  # error
clerk()  # error
rcv(shop, gone=5)  # error
snd(shop, "order", "jane", "book")
aemp_gevent.call(shop, "price", "book", timeout="soon")  # error

# Queues know what is in them.
orders: PortQueue[str] = PortQueue(maxsize=10)
orders.put("book")
assert_type(orders.get(), str)
orders.put(5)  # error
remote = RemoteQueue[int](orders.port)
assert_type(remote.get(), int)
remote.put("book")  # error


# A server's methods keep their types through a reference.
class Cart(Server):
    def init(self, owner: str, size: int = 10) -> None:
        self.owner = owner
        self.size = size

    @call
    def add(self, item: str, pieces: int = 1) -> int:
        return len(item) * pieces

    @call(fatal=KeyError)
    def owner_of(self) -> str:
        return self.owner

    @call
    def price(self, item: str) -> Later[float]:
        return reply_later()

    @cast
    def forget(self, item: str) -> None:
        self.add(item)


cart = Cart.start("ada", name="cart")
assert_type(cart, Cart)
assert_type(Cart.at(shop), Cart)
assert_type(cart.add("apple"), int)
assert_type(cart.add("apple", pieces=2), int)
assert_type(cart.add("apple", timeout=5), int)
assert_type(cart.within(timedelta(seconds=5)).add("apple", 2), int)
assert_type(cart.owner_of(), str)
assert_type(cart.price("apple"), float)
assert_type(cart.add.async_("apple"), AsyncResult[int])
cart.async_.add("apple").get()
cart.forget("apple")
cart.cast.forget("apple")
snd(cart, "forget", "apple")
cart.add(5)  # error
cart.add()  # error
cart.add("apple", timeout="soon")  # error
cart.within(5).add(5)  # error
cart.forget(5)  # error
cart.cast.forget()  # error
len(cart.add("apple"))  # error
