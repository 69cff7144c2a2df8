# SPDX-License-Identifier: MIT
"""How children are stopped, also when that is interrupted."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event

from aemp_gevent import receive
from aemp_gevent.errors import PortKilled, StartError
from aemp_gevent.otp import Child, DynamicSupervisor, Server, Supervisor, cast
from aemp_gevent.otp.stopping import stop_children
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.support.helpers import turns
from tests.support.networking import WAIT
from tests.support.seams import ports_of

seen: list[object] = []


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    seen.clear()


class Stubborn(Server):
    """Blocks, or takes its time to terminate."""

    terminate_timeout = None

    def init(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    @cast
    def block(self) -> None:
        try:
            gevent.sleep(WAIT)
        except PortKilled as killed:
            seen.append(killed.reason)
            raise

    def terminate(self, reason: tuple[object, ...]) -> None:
        seen.append(reason)
        gevent.sleep(self.seconds)
        seen.append("terminated")


def stop(node, child, port):
    death = death_of(port, node=node)
    stop_children(node, [(child, port)], "the supervisor")
    return death.get(timeout=0)


def test_a_server_may_finish_its_work(node):
    child = Child(Stubborn, 0.01)
    assert stop(node, child, child.run(node)) == ("shutdown",)
    assert seen == [("shutdown",), "terminated"]


def test_a_server_that_is_blocked_is_killed_and_named_in_the_log(node, caplog):
    child = Child(Stubborn, shutdown=0.01)
    port = child.run(node)
    Stubborn.at(port).block()
    turns(2)
    assert stop(node, child, port) == ("killed",)
    assert seen[0] == ("killed",)
    [record] = caplog.records
    assert record.getMessage() == (
        f"the supervisor: the child Stubborn ({port}) did not stop within 0.01 s, and is killed"
    )


def test_a_server_whose_terminate_takes_too_long_is_killed(node, caplog):
    child = Child(Stubborn, WAIT, shutdown=0.01)
    assert stop(node, child, child.run(node)) == ("killed",)
    assert "did not stop within 0.01 s" in caplog.text


def test_a_child_without_time_is_killed_and_not_logged(node, caplog):
    child = Child(Stubborn, shutdown=0)
    assert stop(node, child, child.run(node)) == ("killed",)
    assert not caplog.records


def test_a_function_gets_port_killed_where_it_waits(node):
    def function() -> None:
        try:
            receive()
        except PortKilled as killed:
            seen.append(killed.reason)
            raise

    child = Child(function)
    port = child.run(node)
    turns(2)
    assert stop(node, child, port) == ("shutdown",)
    assert seen == [("shutdown",)]


def test_what_does_not_even_die_is_reported(node, caplog, monkeypatch):
    monkeypatch.setattr("aemp_gevent.otp.stopping.LAST_SECONDS", 0.01)
    monkeypatch.setattr(node, "kil", lambda *_: None)
    child = Child(receive, shutdown=0.01)
    port = child.run(node)
    stop_children(node, [(child, port)], "the supervisor")
    assert f"the child receive ({port}) is still running" in caplog.text


# --- when the stop is interrupted ---


class Waiting(Server):
    """Ends when the test lets it."""

    terminate_timeout = None

    def init(self, name: str, may_end: Event) -> None:
        if name == "bad":
            raise ValueError("bad")
        self.may_end = may_end

    def terminate(self, reason: tuple[object, ...]) -> None:
        seen.append(reason)
        self.may_end.wait(WAIT)


@pytest.fixture
def may_end(node) -> Iterator[Event]:
    may_end = Event()
    yield may_end
    may_end.set()


def waiting(name: str, may_end: Event) -> Child:
    return Child(Waiting, name, may_end, id=name, shutdown=WAIT)


def nothing_is_left(node):
    wait_until(lambda: len(set(ports_of(node).values())) == 1, within=WAIT / 2, show=lambda: ports_of(node))


@pytest.mark.parametrize("together", [True, False])
def test_a_timeout_of_the_caller_passes_and_kills_all_that_are_left(node, may_end, together):
    children = [waiting(name, may_end) for name in "abc"]
    running = [(child, child.run(node)) for child in children]
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.01) as limit:
        stop_children(node, running, "the supervisor", together=together)
    assert raised.value is limit
    nothing_is_left(node)


@pytest.mark.parametrize("kind", [Supervisor, DynamicSupervisor])
def test_a_supervisor_that_is_killed_while_it_stops_leaves_no_children(node, may_end, kind):
    tree = kind.start()
    for name in "abc":
        tree.start_child(waiting(name, may_end))
    gevent.spawn(tree.stop)
    wait_until(lambda: seen, within=WAIT)
    node.kil(tree, "impatient")
    nothing_is_left(node)


def test_a_supervisor_that_is_killed_while_it_stops_one_child_leaves_none(node, may_end):
    tree = Supervisor.start([Child(Stubborn), waiting("b", may_end)])
    tree.async_.terminate("b")
    wait_until(lambda: seen, within=WAIT)
    node.kil(tree, "impatient")
    nothing_is_left(node)


def test_a_supervisor_whose_start_takes_too_long_while_it_stops_children_leaves_none(node, may_end):
    """It stops those that have started, because the last one fails."""
    children = [waiting(name, may_end) for name in ("a", "b", "bad")]
    with pytest.raises(StartError, match=r"did not end within 0\.1 s"):
        Supervisor.start(children, start_timeout=0.1)
    nothing_is_left(node)
