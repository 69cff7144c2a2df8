# SPDX-License-Identifier: MIT
"""What the toolkit's objects show of themselves is short, and has nothing of what they carry."""

from __future__ import annotations

import io
import sys

import gevent
import pytest

from aemp_gevent import spawnable
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.forking import Helper
from aemp_gevent.toolkit import (
    PortEvent,
    PortQueue,
    PortSemaphore,
    RemoteEvent,
    RemotePool,
    RemoteQueue,
    RemoteSemaphore,
)

CARD = "4111111111111111"


@spawnable
def fail_with(card: str, number: int) -> None:
    if not number:
        raise ValueError("x")


def test_reprs_are_short_and_show_no_data() -> None:
    node = Node()
    queue: PortQueue[str] = PortQueue(items=[CARD] * 3, node=node)
    event, semaphore, pool = PortEvent(node=node), PortSemaphore(2, node=node), RemotePool([node.NODE()], node=node)
    assert repr(queue) == f"<PortQueue {queue.port}: 3 items>"
    assert repr(event) == f"<PortEvent {event.port}: clear>"
    assert repr(semaphore) == f"<PortSemaphore {semaphore.port}: 2 free>"
    assert repr(pool) == f"<RemotePool {pool.port}: 0 of 1 workers busy on 1 nodes>"
    for remote in (RemoteQueue(queue, node=node), RemoteEvent(event, node=node), RemoteSemaphore(semaphore, node=node)):
        assert repr(remote) == f"<{type(remote).__name__} of {remote.port}>"
    pool.close()


def test_failing_run_of_a_pool_is_reported_without_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()
    pool = RemotePool([node.NODE()], workers=5, node=node)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for number in range(5):
        pool.spawn(fail_with, CARD, number)
    pool.join()
    said = sys.stderr.getvalue()  # type: ignore[attr-defined]
    pool.close()
    assert "a RemotePool's run of tests.toolkit.test_reprs.fail_with> failed with RemoteError" in said
    assert CARD not in said
    assert len(max(said.splitlines(), key=len)) < 300


def test_greenlets_of_ours_show_no_arguments() -> None:
    helper = Helper.spawn(gevent.sleep, 0)
    assert repr(helper) == f"<Helper at {id(helper):#x}: sleep>"
    helper.join()
    assert repr(helper) == f"<Helper at {id(helper):#x}: ended>"
