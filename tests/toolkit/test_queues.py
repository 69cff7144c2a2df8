# SPDX-License-Identifier: MIT
"""Queues with a port: gevent's own in their process, and the same from other nodes; no item gets lost."""

from __future__ import annotations

import contextlib
import random
from datetime import timedelta
from typing import Any

import gevent
import pytest
from gevent.queue import Empty, Full, Queue, ShutDown

from aemp_gevent.errors import PortDied, RemoteError
from aemp_gevent.node.node import Node
from aemp_gevent.toolkit import PortQueue, RemoteQueue
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, settled_tables, tables

Nodes = tuple[Node, Node]


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> Nodes:
    """The node that has the queue, and the node that uses it."""
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

    def test_no_time_is_a_look_and_what_is_there_is_taken(self, nodes, side):
        queue = both(nodes, 2, [1])[side]
        assert queue.join(timeout=0) is False
        assert queue.put(2, timeout=0) is None
        with pytest.raises(Full):
            queue.put(3, timeout=0)
        assert [queue.peek(timeout=0), queue.get(timeout=0), queue.get(timeout=0)] == [1, 1, 2]
        for method in (queue.get, queue.peek):
            with pytest.raises(Empty):
                method(timeout=0)
        queue.task_done()
        queue.task_done()
        assert queue.join(timeout=0) is True
        with pytest.raises(ValueError, match="called too many times"):
            queue.task_done()

    def test_a_timeout_of_gevents_is_raised_itself(self, nodes, side):
        queue = both(nodes, 1)[side]
        mine = gevent.Timeout(0.02)
        for _ in range(2):
            with pytest.raises(gevent.Timeout) as raised:
                queue.get(timeout=mine)
            assert raised.value is mine
        with pytest.raises(LookupError, match="late"):
            queue.get(timeout=gevent.Timeout(0.02, LookupError("late")))
        queue.put(1, timeout=gevent.Timeout(WAIT))
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):  # somebody else's
            queue.put(2, timeout=gevent.Timeout(WAIT))
        assert queue.join(timeout=gevent.Timeout(0.02)) is False
        assert queue.get(timeout=gevent.Timeout(WAIT)) == 1

    def test_looking_at_the_next_item_leaves_it_there(self, nodes, side):
        pair = both(nodes, 3)
        with pytest.raises(Empty):
            pair[side].peek(timeout=0.01)
        looking = gevent.spawn(pair[side].peek, timeout=WAIT)
        gevent.sleep(0.01)
        pair[1 - side].put(1)
        assert looking.get(timeout=WAIT) == pair[side].peek_nowait() == 1
        assert (pair[side].qsize(), pair[side].unfinished_tasks, pair[side].maxsize) == (1, 1, 3)

    def test_after_its_shutdown_the_rest_can_be_taken_and_nothing_put(self, nodes, side):
        pair = both(nodes, 2, [1, 2])
        putter = gevent.spawn(pytest.raises, ShutDown, pair[side].put, 3)
        gevent.sleep(0.01)
        pair[1 - side].shutdown()
        putter.get(timeout=WAIT)
        with pytest.raises(ShutDown):
            pair[side].put(4)
        with pytest.raises(ShutDown):
            pair[side].put_nowait(4)
        assert [pair[side].get(), pair[side].get_nowait()] == [1, 2]
        for arguments in ({}, {"block": False}, {"timeout": 0}, {"timeout": WAIT}):
            with pytest.raises(ShutDown):
                pair[side].get(**arguments)
        assert nodes[0].scheduler.table.find(pair[0].port), "its port died of that"

    @pytest.mark.parametrize("immediate", [False, True])
    def test_its_shutdown_reaches_those_who_wait(self, nodes, side, immediate):
        pair = both(nodes)
        waiting = [gevent.spawn(pytest.raises, ShutDown, pair[side].get) for _ in range(3)]
        wait_until(lambda: "getters[3]" in pair[0]._format())
        pair[1 - side].shutdown(immediate)
        gevent.joinall(waiting, timeout=WAIT, raise_error=True)

    def test_an_immediate_shutdown_drops_the_rest(self, nodes, side):
        pair = both(nodes, None, [1, 2])
        pair[1 - side].shutdown(immediate=True)
        with pytest.raises(ShutDown):
            pair[side].get()
        assert pair[side].join(timeout=WAIT) is True

    def test_the_end_waits_for_room_as_items_do(self, nodes, side):
        pair = both(nodes, 1, [1])
        with pytest.raises(Full):
            pair[side].put(StopIteration, timeout=0.01)
        ending = gevent.spawn(pair[side].put, StopIteration)
        assert list(pair[1 - side]) == [1]
        ending.get(timeout=WAIT)


def test_what_one_sender_puts_comes_out_in_order_however_full_the_queue(nodes):
    queue, remote = both(nodes, 1)
    for number in range(100):
        nodes[1].snd(queue.port, "put", number)
    putting = gevent.spawn(lambda: [remote.put(number) for number in range(100, 120)])
    got = []
    while len(got) < 120:
        got.append(queue.get(timeout=WAIT))
        if len(got) % 7:  # others get a look in between, or several items do
            gevent.sleep(0)
    assert got == list(range(120))
    putting.get(timeout=WAIT)


def test_who_gave_up_putting_leaves_the_line_and_the_others_keep_their_order(nodes):
    queue, remote = both(nodes, 1, ["first"])
    settled_tables(*nodes)
    putters = []
    for number in range(6):
        putters.append(gevent.spawn(remote.put, number))
        wait_until(lambda: len(queue._line._turns) == len(putters))
    for number in (0, 3, 1):  # the first in line, one in the middle, and the new first
        putters[number].kill()
        wait_until(lambda: len(queue._line._turns) == 6 - sum(putter.ready() for putter in putters))
    with pytest.raises(Full):
        remote.put("no", timeout=0)
    assert [queue.get(timeout=WAIT) for _ in range(4)] == ["first", 2, 4, 5]
    gevent.joinall(putters, timeout=WAIT)
    assert queue.empty()


def test_an_item_that_was_not_taken_can_still_be_after_a_shutdown(nodes):
    queue, remote = both(nodes, None, [1, 2])
    reply = nodes[1].port()
    nodes[1].snd(queue.port, "get", reply)
    wait_until(lambda: queue.qsize() == 1)
    queue.shutdown()
    nodes[1].kil(reply, "gave up")
    wait_until(lambda: queue.qsize() == 2)
    assert [remote.get(), queue.get()] == [1, 2]
    queue.task_done()
    queue.task_done()
    assert queue.join(timeout=0)


def test_no_message_ends_its_port(nodes):
    queue, remote = both(nodes)
    bad = [
        ("put",),
        ("put", 1, 5),
        ("put", 1, "x#y", 3),
        ("get",),
        ("get", 5),
        ("join", {}),
        ("size",),
        (),
        ([],),
        ("hm",),
    ]
    for message in bad:
        nodes[1].snd(queue.port, *message)
        remote.qsize()


@pytest.mark.parametrize("call", ["get", "put", "join"])
def test_invalid_time_is_refused_before_anything_is_sent(nodes, call):
    queue, remote = both(nodes)
    remote.qsize()
    before = settled_tables(*nodes)
    for timeout in (float("nan"), "3", True, gevent.Timeout(float("nan"))):
        with pytest.raises((TypeError, ValueError), match=call):
            getattr(remote, call)(*[1] * (call == "put"), timeout=timeout)
    assert tables(*nodes) == before
    assert queue.empty()
    assert remote.join(timeout=timedelta(seconds=WAIT))


def test_a_copy_has_a_port_of_its_own(make_node):
    queue = PortQueue(3, [1, 2], node=make_node(None))
    queue.task_done()
    copy = queue.copy()
    assert (copy.maxsize, list(copy.queue), copy.unfinished_tasks) == (3, [1, 2], 1)
    assert copy.node is queue.node
    assert copy.port != queue.port


def test_types_of_items_can_be_given():
    numbers: PortQueue[int] = PortQueue[int](items=[1])
    remote: RemoteQueue[int] = RemoteQueue[int](numbers)
    assert remote.get() == 1


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
        wait_until(lambda: f"getters[{len(getters)}]" in queue._format())
    for number in range(5):
        queue.put(number)
    assert [getter.get(timeout=WAIT) for getter in getters] == list(range(5))


def test_an_item_for_a_getter_that_gave_up_stays_and_in_its_place(nodes):
    queue, remote = both(nodes)
    with pytest.raises(Empty):
        remote.get(timeout=0.02)
    wait_until(lambda: not queue._object_port.waiters)
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


def test_an_item_that_cannot_travel_is_reported_and_does_not_stand_in_the_way(make_node):
    queue, remote = both((make_node(), make_node()), None, [object(), "next"])
    with pytest.raises(RemoteError, match="UnencodableMessageError"):
        remote.get()
    assert remote.get(timeout=WAIT) == "next"


def test_the_end_of_the_queue_is_reported_to_all_who_wait_and_leaves_nothing(nodes):
    before = settled_tables(*nodes)
    queue, remote = both(nodes, 1)
    waiting = [gevent.spawn(remote.get)]
    wait_until(lambda: queue._object_port.waiters)
    queue.close()
    for greenlet in waiting:
        with pytest.raises(PortDied):
            greenlet.get(timeout=WAIT)
    with pytest.raises(PortDied):
        remote.put(1)
    wait_until(lambda: not queue._object_port.waiters)
    wait_until(lambda: [each[:2] + each[3:] for each in tables(*nodes)] == [each[:2] + each[3:] for each in before])


def test_it_lives_on_the_default_node_unless_told():
    from aemp_gevent import default_node

    queue = PortQueue(items=[1])
    try:
        assert default_node.node_of(queue) == default_node.NODE()
        assert RemoteQueue(queue).get() == 1
    finally:
        queue.close()
        wait_until(lambda: default_node.scheduler.table.find(queue.port) is None)
