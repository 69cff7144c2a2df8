# SPDX-License-Identifier: MIT
"""Draining: the node leaves the directory first, and handles the messages that were sent before."""

from __future__ import annotations

import contextlib
from time import monotonic

import gevent
import pytest

from aemp_gevent import receive
from aemp_gevent.errors import AempError
from aemp_gevent.node.node import Node
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode


def keys(node: Node, family: str) -> list[str]:
    with contextlib.suppress(AempError):
        return node.db_keys(family, timeout=WAIT)
    return []


@pytest.mark.slow
def test_entries_are_gone_at_once_and_ports_work_on(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    other = make_node("127.0.0.1:0", node.NODE())
    done: list[int] = []

    def work(number: int) -> None:
        gevent.sleep(0.1)
        done.append(number)

    port = node.port(work)
    node.grp_reg("workers", port)
    node.db_set("family", "key", 1)
    wait_until(lambda: keys(other, "workers") == [port] and keys(other, "family") == ["key"], within=WAIT)
    for number in range(8):
        other.snd(port, number)
    assert other.syncal(WAIT, node.NODE(), "time")
    draining = gevent.spawn(node.drain, WAIT)
    wait_until(lambda: not keys(other, "workers") and not keys(other, "family"), within=WAIT)
    assert len(done) < 8
    assert node.scheduler.table.find(port)
    assert draining.get(timeout=WAIT)
    assert done == list(range(8))


@pytest.mark.slow
def test_waiting_ports_count_as_idle(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    waiting = node.port_async(receive)
    node.port(lambda: None)
    begin = monotonic()
    assert node.drain(WAIT)
    assert 0.5 <= monotonic() - begin < WAIT
    node.kil(waiting)


def test_work_that_does_not_end_is_not_waited_for(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    port = node.port(lambda: gevent.sleep(1000))
    node.snd(port)
    begin = monotonic()
    assert node.drain(0.2) is False
    assert monotonic() - begin < WAIT
    node.kil(port)


@pytest.mark.slow
def test_port_whose_code_drains_the_node_counts_as_idle(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    done: list[bool] = []
    port = node.port_async(lambda: done.append(node.drain(WAIT)))
    wait_until(lambda: done == [True], within=WAIT)
    assert not node.scheduler.table.find(port)


@pytest.mark.slow
def test_a_private_node_can_be_drained(node: Node) -> None:
    assert Node().drain(WAIT)
