# SPDX-License-Identifier: MIT
"""Queues with a port: gevent's own for who has them, and the same for who is elsewhere; no item gets lost."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.queue import Empty, Full, Queue

from aemp_gevent.errors import PortDied, RemoteError
from aemp_gevent.node import Node
from aemp_gevent.toolkit import PortQueue, RemoteQueue
from tests.helpers import wait_until
from tests.networking import WAIT, MakeNode, node_factory, settled_tables, tables

Nodes = tuple[Node, Node]


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> Nodes:
    """Who has the queue, and who uses it from outside."""
    owner = make_node()
    return owner, owner if request.param == "here" else make_node()


def both(nodes: Nodes, *args: Any) -> tuple[PortQueue, RemoteQueue]:
    queue = PortQueue(*args, node=nodes[0])
    return queue, RemoteQueue(queue, node=nodes[1])


def test_it_is_a_queue_of_gevents_and_a_port(nodes):
    queue, remote = both(nodes)
    assert isinstance(queue, Queue)
    queue.put("by hand")
    nodes[1].snd(queue.port, "put", "by message")
    remote.put("from elsewhere")
    assert [queue.get(timeout=WAIT) for _ in range(3)] == ["by hand", "by message", "from elsewhere"]
    assert str(queue) == str(remote) == queue.port


def test_items_come_out_in_the_order_they_went_in(nodes):
    queue, remote = both(nodes)
    for number in range(20):
        (queue if number % 2 else remote).put(number)
    assert [(remote if number % 3 else queue).get() for number in range(20)] == list(range(20))


@pytest.mark.parametrize("side", [0, 1], ids=["owner", "remote"])
class TestAsAQueue:
    """The same for the queue itself and for its stand-in: what gevent's queues do."""

    def test_nothing_to_get(self, nodes, side):
        queue = both(nodes)[side]
        for arguments in ({"block": False}, {"timeout": 0.02}):
            with pytest.raises(Empty):
                queue.get(**arguments)
        with pytest.raises(Empty):
            queue.get_nowait()
        assert (queue.empty(), queue.full(), queue.qsize(), len(queue), bool(queue)) == (True, False, 0, 0, True)

    def test_no_room_to_put(self, nodes, side):
        queue = both(nodes, 2, [1])[side]
        queue.put_nowait(2)
        for arguments in ({"block": False}, {"timeout": 0.02}):
            with pytest.raises(Full):
                queue.put(3, **arguments)
        with pytest.raises(Full):
            queue.put_nowait(3)
        assert (queue.empty(), queue.full(), queue.qsize()) == (False, True, 2)
        assert [queue.get(), queue.get_nowait()] == [1, 2]

    def test_get_waits_for_an_item(self, nodes, side):
        pair = both(nodes)
        getter = gevent.spawn(pair[side].get, timeout=WAIT)
        gevent.sleep(0.02)
        pair[1 - side].put("item")
        assert getter.get(timeout=WAIT) == "item"

    def test_put_waits_for_room(self, nodes, side):
        pair = both(nodes, 1, ["first"])
        putter = gevent.spawn(pair[side].put, "second", timeout=WAIT)
        gevent.sleep(0.02)
        assert not putter.dead
        assert [pair[1 - side].get(timeout=WAIT), pair[1 - side].get(timeout=WAIT)] == ["first", "second"]
        putter.get(timeout=WAIT)

    def test_a_loop_ends_with_stop_iteration(self, nodes, side):
        pair = both(nodes, None, [1, 2])
        pair[1 - side].put(StopIteration)
        assert list(pair[side]) == [1, 2]

    def test_join_waits_until_all_tasks_are_done(self, nodes, side):
        pair = both(nodes)
        pair[0].put(1)
        assert pair[side].join(timeout=0.02) is False
        joiner = gevent.spawn(pair[side].join)
        pair[1 - side].get()
        pair[side].task_done()
        joiner.get(timeout=WAIT)
        assert pair[side].join(timeout=WAIT) is not False


def test_a_message_beyond_maxsize_waits_for_room(nodes):
    queue, remote = both(nodes, 1)
    for number in range(3):
        nodes[1].snd(queue.port, "put", number)
    assert [remote.get(timeout=WAIT) for _ in range(3)] == [0, 1, 2]


def test_many_getters_are_served_in_turn(nodes):
    queue, remote = both(nodes)
    getters = []
    for _ in range(5):
        getters.append(gevent.spawn(remote.get, timeout=WAIT))
        wait_until(lambda: f"getters[{len(getters)}]" in repr(queue))
    for number in range(5):
        queue.put(number)
    assert [getter.get(timeout=WAIT) for getter in getters] == list(range(5))


def test_an_item_for_a_getter_that_gave_up_stays_and_in_its_place(nodes):
    queue, remote = both(nodes)
    with pytest.raises(Empty):
        remote.get(timeout=0.02)
    wait_until(lambda: not queue._house.lodgers)
    queue.put(1)
    queue.put(2)
    assert [queue.get_nowait(), queue.get_nowait()] == [1, 2]


def test_an_item_that_was_under_way_when_its_getter_gave_up_is_the_next_again(nodes):
    queue, remote = both(nodes, None, [1, 2, 3])
    reply = nodes[1].port()
    nodes[1].snd(queue.port, "get", reply)
    wait_until(lambda: queue.qsize() == 2)
    nodes[1].kil(reply, "gave up")
    wait_until(lambda: queue.qsize() == 3)
    assert [remote.get() for _ in range(3)] == [1, 2, 3]


@pytest.mark.slow
def test_no_item_is_lost_or_doubled_however_getters_give_up(nodes):
    """Getters are killed and timed out at any time, while items come."""
    queue, remote = both(nodes)
    rng = random.Random(7)
    got: list[int] = []

    def getter(seconds: float) -> None:
        with contextlib.suppress(Empty):
            got.append(remote.get(timeout=seconds))

    remote.qsize()
    before = settled_tables(*nodes)
    getters: list[gevent.Greenlet] = []
    for number in range(300):
        queue.put(number)
        for _ in range(2):
            getters.append(gevent.spawn(getter, rng.choice((0.0005, 0.001, 0.002, 0.1))))
        gevent.sleep(rng.choice((0, 0, 0.0005, 0.001)))
        gevent.kill(rng.choice(getters[-20:]))
    gevent.joinall(getters, timeout=WAIT)
    wait_until(lambda: tables(*nodes) == before, show=lambda: (tables(*nodes), before))
    while queue.qsize():
        got.append(remote.get(timeout=WAIT))
    assert sorted(got) == list(range(300))


def test_an_item_that_cannot_travel_is_told_and_does_not_stand_in_the_way(make_node):
    queue, remote = both((make_node(), make_node()), None, [object(), "next"])
    with pytest.raises(RemoteError, match="UnencodableMessageError"):
        remote.get()
    assert remote.get(timeout=WAIT) == "next"


def test_the_end_of_the_queue_is_told_to_all_who_wait_and_leaves_nothing(nodes):
    before = settled_tables(*nodes)
    queue, remote = both(nodes, 1)
    waiting = [gevent.spawn(remote.get)]
    wait_until(lambda: queue._house.lodgers)
    queue.close()
    for greenlet in waiting:
        with pytest.raises(PortDied):
            greenlet.get(timeout=WAIT)
    with pytest.raises(PortDied):
        remote.put(1)
    wait_until(lambda: not queue._house.lodgers)
    wait_until(lambda: [each[:2] + each[3:] for each in tables(*nodes)] == [each[:2] + each[3:] for each in before])


def test_it_lives_on_the_default_node_unless_told():
    from aemp_gevent import default_node

    queue = PortQueue(items=[1])
    try:
        assert default_node.node_of(queue) == default_node.NODE()
        assert RemoteQueue(queue).get() == 1
    finally:
        queue.close()
        wait_until(lambda: default_node.find(queue.port) is None)
