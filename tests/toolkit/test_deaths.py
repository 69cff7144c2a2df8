# SPDX-License-Identifier: MIT
"""Deaths that gevent waits for, together with everything else that it waits for."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from aemp_gevent.node.node import Node
from aemp_gevent.toolkit import death_of
from tests.support.helpers import turns, wait_until
from tests.support.networking import WAIT, MakeNode, settled_tables, tables


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> tuple[Node, Node]:
    owner = make_node()
    return owner, owner if request.param == "here" else make_node()


def test_gevent_waits_for_the_first_of_deaths_events_and_greenlets(nodes):
    owner, watcher = nodes
    ports = [owner.port() for _ in range(3)]
    deaths = [death_of(port, node=watcher) for port in ports]
    settled_tables(*nodes)
    things = [*deaths, Event(), gevent.spawn(gevent.sleep, 0)]
    assert gevent.wait(things, timeout=WAIT, count=1) == [things[-1]]
    owner.kil(ports[1], "because", 1)
    first = next(gevent.iwait(deaths, timeout=WAIT))
    assert (first.port, first.get()) == (ports[1], ("because", 1))
    owner.kil(ports[0])
    owner.kil(ports[2])
    assert len(gevent.wait(deaths, timeout=WAIT)) == 3
    assert deaths[0].get() == ()


def test_one_of_a_port_that_never_was_is_set(nodes):
    owner, watcher = nodes
    assert death_of(f"{owner.NODE()}#nobody", node=watcher).get(timeout=WAIT)[0] == "no_such_port"


def test_one_of_a_node_is_the_loss_of_its_link(make_node):
    owner, watcher = make_node(), make_node()
    death = death_of(owner.NODE(), node=watcher)
    wait_until(lambda: watcher.node_is_up(owner.NODE()))
    owner.shutdown()
    assert death.get(timeout=WAIT) == ("shutdown", owner.NODE())


def test_cancelled_it_is_never_set_and_leaves_nothing(nodes):
    owner, watcher = nodes
    port = owner.port()
    before = settled_tables(*nodes)
    with death_of(port, node=watcher) as death:
        pass
    wait_until(lambda: tables(*nodes) == before)
    owner.kil(port)
    turns(5)
    assert not death.ready()


def test_one_that_nobody_refers_to_watches_no_more(nodes):
    """A loop that waits for a death or something else, again and again, would have more of them each time."""
    owner, watcher = nodes
    port = owner.port()
    before = settled_tables(*nodes)
    for _ in range(20):
        assert gevent.wait([death_of(port, node=watcher), Event()], timeout=0) == []
    wait_until(lambda: tables(*nodes) == before)


def test_one_that_somebody_waits_for_needs_no_reference(nodes):
    owner, watcher = nodes
    port = owner.port()
    reasons: list[object] = []
    death_of(port, node=watcher).rawlink(lambda death: reasons.append(death.get()))
    waiter = gevent.spawn(lambda: death_of(port, node=watcher).get(timeout=WAIT))
    settled_tables(*nodes)
    owner.kil(port, "because")
    assert waiter.get(timeout=WAIT) == ("because",)
    wait_until(lambda: reasons)
    assert reasons == [("because",)]
