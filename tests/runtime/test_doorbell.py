# SPDX-License-Identifier: MIT
"""The doorbell: other threads ring it, and the hub makes their calls."""

from __future__ import annotations

import gevent

from aemp_gevent.runtime.threads import Doorbell, doorbell_of
from tests.support.helpers import turns, wait_until
from tests.support.threads import in_thread


def test_a_doorbell_makes_calls_in_order_and_what_one_raises_stops_no_other(monkeypatch):
    hub = gevent.get_hub()
    errors: list[object] = []
    monkeypatch.setattr(hub, "handle_error", lambda context, kind, value, traceback: errors.append(value))
    bell = Doorbell(hub)
    calls: list[object] = []
    error = ValueError("x")

    def fail():
        raise error

    def ring():
        bell.ring(calls.append, 1)
        bell.ring(fail)
        bell.ring(calls.append, 2)

    in_thread(ring)
    wait_until(lambda: len(calls) == 2)
    assert calls == [1, 2]
    wait_until(lambda: errors)  # when it was tried once more
    assert errors == [error]
    bell._watcher.stop()
    bell._watcher.close()


def test_all_nodes_of_a_thread_share_one_doorbell():
    hub = gevent.get_hub()
    assert doorbell_of(hub) is doorbell_of(hub)


def test_a_thread_that_rings_all_the_time_keeps_no_timer_waiting(node):
    """The calls rung meanwhile wait for the next loop iteration."""
    scheduler = node.scheduler
    _ = scheduler.hub
    rung = 0

    def ring():
        nonlocal rung
        rung += 1
        if rung < 1_000_000:
            scheduler.call_on_hub(ring)

    scheduler.call_on_hub(ring)
    gevent.sleep(0.005)
    assert rung < 1_000_000
    rung = 1_000_000
    turns(3)
