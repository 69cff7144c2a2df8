# SPDX-License-Identifier: MIT
"""Servers for the tests, also of other processes."""

from __future__ import annotations

import gevent

from aemp_gevent import spawnable
from aemp_gevent.otp import Later, Server, call, cast, reply_later


@spawnable
class Cart(Server):
    """A shopping cart."""

    def init(self, owner: str, size: int = 10) -> None:
        if not owner:
            raise ValueError("no owner")
        self.owner = owner
        self.size = size
        self.items: list[str] = []

    @call
    def add(self, item: str, count: int = 1) -> int:
        """Add an item."""
        self.items += [item] * count
        return len(self.items)

    @call
    def content(self) -> list[str]:
        return self.items

    @call
    def add_all(self, *items: str) -> int:
        self.items += items
        return len(self.items)

    @cast
    def forget(self, item: str) -> None:
        self.items.remove(item)

    @call(fatal=(KeyError, ArithmeticError))
    def divide(self, by: int) -> float:
        if by < 0:
            raise ValueError("negative")
        return len(self.items) / by

    @call
    def price(self, item: str) -> Later[int]:
        later = reply_later()
        gevent.spawn(lambda: later.send(len(item)) if item else later.fail(ValueError("no item")))
        return later

    @call
    def wait(self, seconds: float) -> str:
        gevent.sleep(seconds)
        return "waited"

    @call
    def add_twice(self, item: str) -> int:
        self.add(item)
        return self.add(item)
