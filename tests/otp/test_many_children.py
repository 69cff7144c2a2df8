# SPDX-License-Identifier: MIT
"""Thousands of children of one supervisor."""

from __future__ import annotations

import logging
from time import monotonic, process_time

from aemp_gevent.otp import Child, DynamicSupervisor
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.otp.carts import Cart
from tests.support.networking import WAIT
from tests.support.seams import ports_of
from tests.support.thoroughness import tries


def test_many_children_crash_at_once_and_come_back_and_nothing_is_left(node, caplog):
    caplog.set_level(logging.CRITICAL, "aemp_gevent")
    count = tries(200, 10_000)
    carts = DynamicSupervisor.start(backoff=(0.001, 1))
    children = {carts.start_child(Child(Cart, "ada")) for _ in range(count)}
    begin, busy = monotonic(), process_time()
    for port in children:
        node.kil(port, "crash")
    # When all are dead, the call is behind the messages that say so.
    wait_until(
        lambda: ports_of(node).keys().isdisjoint(children) and carts.count()["active"] == count, within=12 * WAIT
    )
    seconds, busy = monotonic() - begin, process_time() - busy
    print(f"{count} children crashed and were back after {seconds:.2f} s, in which this process worked {busy:.2f} s")
    assert len(set(ports_of(node).values())) == count + 2
    death = death_of(carts, node=node)
    carts.stop(timeout=12 * WAIT)
    assert death.get(timeout=WAIT) == ()
    assert len(set(ports_of(node).values())) == 1
