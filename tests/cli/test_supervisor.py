# SPDX-License-Identifier: MIT
"""Services that crash are started again after longer and longer waits, and others are left alone."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
import zope.event

from aemp_gevent import SELF, receive
from aemp_gevent.cli.supervisor import ServiceSupervisor
from aemp_gevent.errors import PortDied
from aemp_gevent.node.node import Node
from aemp_gevent.node.services import Service
from aemp_gevent.runtime.totals import RESTARTS
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of

started: list[tuple[str, tuple[object, ...]]] = []


def work(*args: object) -> None:
    started.append((str(SELF()), args))


def crash(times: int = 1000, *_args: object) -> None:
    started.append((str(SELF()), ()))
    if len(started) <= times:
        raise RuntimeError("on purpose")


def wait(*_args: object) -> None:
    started.append((str(SELF()), ()))
    receive("end")


def service(function: object, *args: object) -> Service:
    return Service(f"{__name__}.{function.__name__}", function, args)  # type: ignore[attr-defined, arg-type]


@pytest.fixture(autouse=True)
def nothing_started() -> None:
    started.clear()


@pytest.fixture
def node() -> Iterator[Node]:
    with MemoryNetwork(1, time="virtual") as network:
        yield network.node()


def alive(node: Node) -> list[str]:
    return [port for port, _args in started if node.scheduler.table.find(port)]


def pauses(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"restart in ([0-9.]+) s", text)]


def test_waits_double_up_to_the_longest_and_it_never_gives_up(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    supervisor.become([service(crash)])
    gevent.sleep(600)
    found = pauses(caplog.text)
    assert len(found) > 10
    for index, pause in enumerate(found):
        least = min(2.0**index, 60)
        assert 0.9 * least <= pause <= 1.6 * least
    assert "the child tests.cli.test_supervisor.crash died: ('die', 'RuntimeError: on purpose')" in caplog.text
    assert node.scheduler.totals[RESTARTS, f"{__name__}.crash"] == len(found)


def test_a_service_that_lived_long_begins_with_the_first_wait_again(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    supervisor.become([service(work)])
    for life in (1, 1, 100, 1):
        gevent.sleep(life)
        node.kil(started[-1][0], "on purpose")
        gevent.sleep(5)
    assert [round(pause) for pause in pauses(caplog.text)] in ([1, 2, 1, 2], [1, 3, 1, 2], [1, 2, 1, 3], [1, 3, 1, 3])


def test_becoming_leaves_alone_what_is_wanted_still(node: Node) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    supervisor.become([service(work, {"a": []}), service(work, 1), service(work, 1)])
    gevent.sleep(1)
    first, one, other = (port for port, _args in started)
    supervisor.become([service(work, 1), service(work, {"a": []}), service(work, 2)])
    gevent.sleep(1)
    assert started[3][1] == (2,)
    left = alive(node)
    assert first in left
    assert (one in left) != (other in left), "one of two that are the same"
    death = death_of(first, node=node)
    supervisor.become([])
    assert death.get(timeout=1) == ()
    assert alive(node) == []
    assert supervisor.down == []


def test_what_waits_for_its_restart_is_down_and_is_not_started_again_at_the_end(node: Node) -> None:
    changes: list[list[str]] = []
    supervisor = ServiceSupervisor(node, lambda: changes.append(supervisor.down))
    supervisor.become([service(crash, 1), service(work)])
    gevent.sleep(0.5)
    assert supervisor.down == [f"{__name__}.crash"] == changes[-1]
    gevent.sleep(3)
    assert supervisor.down == [] == changes[-1]
    supervisor.become([service(crash)])
    gevent.sleep(0.5)
    supervisor.let_be()
    count = len(started)
    gevent.sleep(600)
    assert len(started) == count
    supervisor.become([service(crash)])
    assert len(started) == count, "it is over"


def test_a_service_that_crashes_at_the_end_is_not_started_again_and_others_live_on(node: Node) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    supervisor.become([service(wait, 1), service(wait, 2)])
    gevent.sleep(0.5)
    (first, _), (second, _) = started
    supervisor.let_be()
    node.kil(first, "crash")
    gevent.sleep(600)
    assert alive(node) == [second]
    assert len(started) == 2


def test_a_service_that_ends_normally_is_not_started_again(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    supervisor = ServiceSupervisor(node, lambda: None)
    supervisor.become([service(wait)])
    gevent.sleep(0.5)
    node.kil(started[0][0])
    gevent.sleep(600)
    assert (len(started), supervisor.down) == (1, [])
    assert f"service {__name__}.wait ended" in caplog.text
    supervisor.become([service(wait)])
    gevent.sleep(0.5)
    assert len(started) == 1, "a reload does not start it, either"


@contextmanager
def subscribed() -> Iterator[list[object]]:
    events: list[object] = []
    zope.event.subscribers.append(events.append)
    try:
        yield events
    finally:
        zope.event.subscribers.remove(events.append)


def test_subscribers_to_events_get_each_crash(node: Node) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    with subscribed() as events:
        supervisor.become([service(crash, 1)])
        gevent.sleep(0.5)
        wait_until(lambda: PortDied(started[0][0], ("die", "RuntimeError: on purpose")) in events)


def test_all_services_are_started_again_when_their_supervisor_was_killed(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    supervisor.become([service(work), service(wait)])
    gevent.sleep(0.5)
    node.kil(started[1][0])  # a normal end, so that it is not started again
    gevent.sleep(0.5)
    node.kil(supervisor._tree, "by hand")
    gevent.sleep(0.5)
    assert supervisor.down == [f"{__name__}.work"]
    assert "the supervisor of all services died: ('by hand',); starting all services again in 1 s" in caplog.text
    supervisor.become([service(work), service(wait), service(work, 1)])
    gevent.sleep(10)
    assert supervisor.down == []
    assert sorted(args for port, args in started if port in alive(node)) == [(), (1,)]
    assert len(started) == 4
    supervisor.become([])
    assert alive(node) == []


def test_reloads_at_the_same_time_start_each_service_once(node: Node) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    gevent.joinall([gevent.spawn(supervisor.become, [service(work)]) for _ in range(2)], raise_error=True)
    gevent.sleep(1)
    assert len(started) == 1


ending: list[ServiceSupervisor] = []


def end() -> None:
    ending.pop().let_be()


def test_a_reload_that_is_overtaken_by_the_end_starts_nothing_more(node: Node) -> None:
    supervisor = ServiceSupervisor(node, lambda: None)
    ending.append(supervisor)
    supervisor.become([service(end), *(service(work, number) for number in range(20))])
    gevent.sleep(10)
    assert not ending
    assert len(started) < 5
