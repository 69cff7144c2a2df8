# SPDX-License-Identifier: MIT
"""Events with a port."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from aemp_gevent.errors import PortDied
from aemp_gevent.node import Node
from aemp_gevent.toolkit import PortEvent, RemoteEvent
from tests.helpers import wait_until
from tests.networking import WAIT, MakeNode, node_factory, settled_tables, tables


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> tuple[Node, Node]:
    owner = make_node()
    return owner, owner if request.param == "here" else make_node()


@pytest.fixture
def event(nodes: tuple[Node, Node]) -> PortEvent:
    return PortEvent(node=nodes[0])


@pytest.fixture
def remote(nodes: tuple[Node, Node], event: PortEvent) -> RemoteEvent:
    return RemoteEvent(event, node=nodes[1])


def test_it_is_an_event_of_gevents_that_others_set_and_clear(nodes, event, remote):
    assert isinstance(event, Event)
    assert str(event) == str(remote) == event.port
    assert (remote.is_set(), remote.ready()) == (False, False)
    waiter = gevent.spawn(event.wait, WAIT)
    remote.set()
    assert waiter.get(timeout=WAIT)
    assert remote.is_set()
    remote.clear()
    assert not event.is_set()
    nodes[1].snd(event.port, "set")
    assert event.wait(WAIT)


def test_waiting_for_it_from_elsewhere(event, remote):
    assert remote.wait(0.02) is False
    waiters = [gevent.spawn(remote.wait, WAIT) for _ in range(3)]
    wait_until(lambda: len(event._house.lodgers) == 3)
    event.set()
    assert [waiter.get(timeout=WAIT) for waiter in waiters] == [True] * 3
    assert remote.wait() is True


def test_who_waits_hears_of_its_end_and_nothing_is_left(nodes, event, remote):
    waiter = gevent.spawn(remote.wait)
    wait_until(lambda: event._house.lodgers)
    event.close()
    with pytest.raises(PortDied):
        waiter.get(timeout=WAIT)
    assert not event._house.lodgers


def test_who_gave_up_waits_no_more(nodes, event, remote):
    remote.is_set()
    before = settled_tables(*nodes)
    waiters = [gevent.spawn(remote.wait) for _ in range(3)]
    wait_until(lambda: len(event._house.lodgers) == 3)
    gevent.killall(waiters)
    wait_until(lambda: not event._house.lodgers)
    wait_until(lambda: tables(*nodes) == before)
