# SPDX-License-Identifier: MIT
"""Events with a port."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from aemp_gevent.errors import PortDied
from aemp_gevent.node.node import Node
from aemp_gevent.toolkit import PortEvent, RemoteEvent
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, settled_tables, tables


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
    wait_until(lambda: len(event._object_port.waiters) == 3)
    event.set()
    assert [waiter.get(timeout=WAIT) for waiter in waiters] == [True] * 3
    assert remote.wait() is True


def test_who_waits_hears_of_its_end_and_nothing_is_left(nodes, event, remote):
    waiter = gevent.spawn(remote.wait)
    wait_until(lambda: event._object_port.waiters)
    event.close()
    with pytest.raises(PortDied):
        waiter.get(timeout=WAIT)
    assert not event._object_port.waiters


def test_who_gave_up_waits_no_more(nodes, event, remote):
    remote.is_set()
    before = settled_tables(*nodes)
    waiters = [gevent.spawn(remote.wait) for _ in range(3)]
    wait_until(lambda: len(event._object_port.waiters) == 3)
    gevent.killall(waiters)
    wait_until(lambda: not event._object_port.waiters)
    wait_until(lambda: tables(*nodes) == before)


def test_no_time_is_a_look(event, remote):
    assert remote.wait(timeout=0) is event.wait(timeout=0) is False
    event.set()
    assert remote.wait(timeout=0) is event.wait(timeout=0) is True


def test_a_timeout_of_gevents_ends_a_wait_and_one_of_somebody_else_passes(event, remote):
    assert remote.wait(timeout=gevent.Timeout(0.02)) is False
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
        remote.wait(timeout=gevent.Timeout(WAIT))
    with pytest.raises(LookupError):
        remote.wait(timeout=gevent.Timeout(0.02, LookupError))


def test_gevent_waits_for_it_with_others(nodes, event, remote):
    other, never = RemoteEvent(event, node=nodes[1]), Event()
    remote.is_set()
    before = settled_tables(*nodes)
    assert gevent.wait([remote, never], timeout=0.02) == []
    wait_until(lambda: tables(*nodes) == before)
    waiter = gevent.spawn(gevent.wait, [remote, never, other], timeout=WAIT, count=2)
    wait_until(lambda: len(event._object_port.waiters) == 2)
    event.set()
    assert set(waiter.get(timeout=WAIT)) == {remote, other}
    assert gevent.wait([remote], timeout=WAIT) == [remote], "it is set already"
    wait_until(lambda: tables(*nodes) == before)


def test_gevent_waits_for_it_until_it_is_gone(nodes, event, remote):
    waiter = gevent.spawn(gevent.wait, [remote], timeout=WAIT)
    wait_until(lambda: event._object_port.waiters)
    event.close()
    assert waiter.get(timeout=WAIT) == [remote]
    with pytest.raises(PortDied):
        remote.wait()


def test_a_link_that_raises_hurts_no_other(event, remote, monkeypatch):
    errors: list[object] = []
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *error: errors.append(error[1]))
    called: list[object] = []
    remote.rawlink(lambda _event: 1 / 0)
    remote.rawlink(called.append)
    remote.rawlink(errors.append)
    remote.unlink(errors.append)
    remote.unlink(print)
    event.set()
    wait_until(lambda: called)
    assert (called, errors) == ([remote], [ZeroDivisionError])
    with pytest.raises(TypeError, match="cannot be called"):
        remote.rawlink(None)
