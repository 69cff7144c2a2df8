# SPDX-License-Identifier: MIT
"""Services that crash are started again after longer and longer waits, and others are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

import gevent
import pytest
from gevent.event import Event

from aemp_gevent import SELF
from aemp_gevent.cli import supervisor as supervisor_module
from aemp_gevent.cli.supervisor import ServiceSupervisor
from aemp_gevent.node.node import Node
from aemp_gevent.node.services import Service
from aemp_gevent.runtime import backoff
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode, node_factory

SECOND = 0.02


@pytest.fixture(autouse=True)
def short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all pauses to a fiftieth, and leave out what varies them."""
    monkeypatch.setattr(supervisor_module, "FIRST_DELAY", supervisor_module.FIRST_DELAY * SECOND)
    monkeypatch.setattr(supervisor_module, "MAX_DELAY", 8 * SECOND)
    monkeypatch.setattr(supervisor_module, "LONG_LIFE", 30 * SECOND)
    monkeypatch.setattr(backoff.random, "random", lambda: 0.0)  # no jitter


@pytest.fixture
def private() -> Iterator[Node]:
    with node_factory() as make:
        yield _private(make)


def _private(make: MakeNode) -> Node:
    return make(None)


def test_waits_double_up_to_the_longest(private: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []
    later = gevent.spawn_later
    monkeypatch.setattr(supervisor_module.gevent, "spawn_later", lambda s, f: (delays.append(s), later(0, f))[1])

    def crash() -> None:
        raise RuntimeError("on purpose")

    supervisor = ServiceSupervisor(private, lambda: None)
    supervisor.become([Service("crash", crash, ())])
    wait_until(lambda: len(delays) >= 6)
    supervisor.become([])
    assert [round(delay / SECOND) for delay in delays[:6]] == [1, 2, 4, 8, 8, 8]


def test_a_service_that_lived_long_begins_with_the_first_delay_again(
    private: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    later = gevent.spawn_later
    monkeypatch.setattr(supervisor_module.gevent, "spawn_later", lambda s, f: (delays.append(s), later(0, f))[1])
    now = [monotonic()]
    monkeypatch.setattr(supervisor_module, "monotonic", lambda: now[0])
    started: list[str] = []

    def work() -> None:
        started.append(str(SELF()))

    supervisor = ServiceSupervisor(private, lambda: None)
    supervisor.become([Service("work", work, ())])
    for number, life in enumerate((0, 0, 2 * supervisor_module.LONG_LIFE, 0)):
        wait_until(lambda number=number: len(started) == number + 1)
        now[0] += life
        private.kil(started[-1], "on purpose")
    wait_until(lambda: len(started) == 5)
    supervisor.become([])
    assert [round(delay / SECOND) for delay in delays] == [1, 2, 1, 2]


def test_becoming_leaves_alone_what_is_wanted_still(private: Node) -> None:
    started: list[tuple[str, tuple[object, ...]]] = []

    def work(*args: object) -> None:
        started.append((str(SELF()), args))

    def service(*args: object) -> Service:
        return Service("work", work, args)

    supervisor = ServiceSupervisor(private, lambda: None)
    supervisor.become([service({"a": []}), service(1), service(1)])
    wait_until(lambda: len(started) == 3)
    first, one, other = (port for port, _args in started)
    supervisor.become([service(1), service({"a": []}), service(2)])
    wait_until(lambda: len(started) == 4)
    assert started[3][1] == (2,)
    wait_until(lambda: not (private.scheduler.table.find(one) and private.scheduler.table.find(other)))
    assert private.scheduler.table.find(first)
    assert private.scheduler.table.find(one) or private.scheduler.table.find(other), "one of two that are the same"
    supervisor.become([])
    wait_until(lambda: not any(private.scheduler.table.find(port) for port, _args in started))
    assert supervisor.down == []


@pytest.mark.slow
def test_who_waits_to_be_started_again_is_down_and_can_be_stopped(private: Node) -> None:
    changes: list[list[str]] = []
    started: list[int] = []

    def crash() -> None:
        started.append(1)
        raise RuntimeError("on purpose")

    supervisor = ServiceSupervisor(private, lambda: changes.append(supervisor.down))
    supervisor.become([Service("crash", crash, ())])
    wait_until(lambda: ["crash"] in changes)
    supervisor.let_be()
    count = len(started)
    gevent.sleep(20 * SECOND)  # nothing is to happen
    assert len(started) == count
    supervisor.become([Service("crash", crash, ())])
    assert len(started) == count, "it is over"


def test_who_crashes_at_the_end_is_not_started_again(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    go = Event()
    started: list[int] = []

    def crash() -> None:
        started.append(1)
        go.wait()
        raise RuntimeError("on purpose")

    supervisor = ServiceSupervisor(private, lambda: None)
    supervisor.become([Service("crash", crash, ())])
    wait_until(lambda: started)
    supervisor.let_be()
    go.set()
    wait_until(lambda: "on purpose" in caplog.text)
    gevent.sleep(5 * SECOND)  # nothing is to happen
    assert len(started) == 1
    assert "started again" not in caplog.text
