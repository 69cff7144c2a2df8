# SPDX-License-Identifier: MIT
"""Supervisors of many children that come and go."""

from __future__ import annotations

import gevent
import pytest

from aemp_gevent import Node
from aemp_gevent.errors import RemoteError, StartError
from aemp_gevent.otp import Child, DynamicSupervisor, Server, call
from aemp_gevent.otp.entries import Entries
from aemp_gevent.testing import VirtualTime
from aemp_gevent.testing.waiting import wait_until
from tests.otp.carts import Cart
from tests.support.networking import WAIT


class Slow(Server):
    """Takes its time to end."""

    running = 0

    @call
    def end(self, *reason: str) -> None:
        self.stop(*reason)

    def terminate(self, reason: tuple[object, ...]) -> None:
        Slow.running += 1
        wait_until(lambda: Slow.running == 3, within=WAIT)


def ports(tree: DynamicSupervisor) -> dict[str, str | None]:
    return {each["id"]: each["port"] for each in tree.which_children()}


def test_children_come_and_go(node):
    carts = DynamicSupervisor.start()
    first, second = (carts.start_child(Child(Cart, name)) for name in ("ada", "bob"))
    assert ports(carts) == {"Cart": first, "Cart-2": second}
    carts.terminate("Cart")
    assert ports(carts) == {"Cart-2": second}
    third = carts.start_child(Child(Cart, "eve"))
    assert ports(carts) == {"Cart-2": second, "Cart-3": third}, "an ID was used twice"


@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("reason", [(), ("crash",)])
def test_children_that_end_and_are_not_restarted_are_forgotten(node, restart, reason):
    carts = DynamicSupervisor.start(backoff=None)
    port = carts.start_child(Child(Cart, "ada", restart=restart))
    node.kil(port, *reason)
    is_back = restart == "permanent" or (restart == "transient" and bool(reason))
    wait_until(lambda: carts.count()["active"] == is_back and port not in ports(carts).values(), within=WAIT)
    assert carts.count()["specs"] == is_back


def test_children_stop_at_the_same_time(node):
    Slow.running = 0
    slow = DynamicSupervisor.start()
    for _ in range(3):
        slow.start_child(Child(Slow))
    slow.stop(timeout=WAIT)
    assert Slow.running == 3


class Deaf(Server):
    """Does not end by itself."""

    terminate_timeout = None

    def terminate(self, reason: tuple[object, ...]) -> None:
        gevent.sleep(1000)


def test_all_children_together_have_the_time_that_each_may_take(caplog):
    with VirtualTime() as virtual:
        node = Node()
        with node.attach():
            deaf = DynamicSupervisor.start()
            for _ in range(20):
                deaf.start_child(Child(Deaf, shutdown=5))
            begin = virtual.seconds
            deaf.stop(timeout=None)
            assert virtual.seconds - begin == pytest.approx(5)
        node.shutdown()
    assert len(caplog.records) == 20


def test_a_child_is_stopped_without_a_look_at_all_others(node, monkeypatch):
    carts = DynamicSupervisor.start()
    for key in ("ada", "bob"):
        carts.start_child(Child(Cart, key, id=key))
    monkeypatch.setattr(Entries, "__iter__", lambda _self: pytest.fail("all children were looked at"))
    assert carts.keeps("no such port") is False
    for key in ("ada", "bob"):
        carts.terminate(key)


def test_there_may_be_a_limit(node):
    carts = DynamicSupervisor.start(max_children=1)
    carts.start_child(Child(Cart, "ada"))
    with pytest.raises(RemoteError, match="there are 1 children, and max_children is 1"):
        carts.start_child(Child(Cart, "bob"))


def test_only_one_strategy_makes_sense(node):
    with pytest.raises(StartError, match="strategy cannot be 'one_for_all'"):
        DynamicSupervisor.start(strategy="one_for_all")
