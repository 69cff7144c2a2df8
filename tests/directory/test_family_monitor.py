# SPDX-License-Identifier: MIT
"""Monitors of families, with every engine: calls in order, in context, one at a time."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from gevent.event import Event

from aemp_gevent import SELF
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import port_context
from tests.directory.changes import Changes, see
from tests.support.directories import WAIT, MakeNodes
from tests.support.helpers import turns, wait_until
from tests.support.injecting import Injector, strike_points
from tests.support.networking import Deaths
from tests.support.settling import settle


def test_monitor_gets_the_whole_first_and_then_each_change_in_order(directory_nodes: MakeNodes) -> None:
    writer, watcher = directory_nodes(2)
    writer.db_set("family", "a", 1)
    see([watcher], "family", {"a": 1})
    changes, later = Changes(), Changes()
    with watcher.db_mon("family", changes):
        changes.wait({"a": 1})
        writer.db_set("family", "b", 1)
        writer.db_set("family", "a", 2)
        writer.db_set("family", "a", 2)  # no change
        writer.db_del("family", "b")
        changes.wait({"a": 2})
        assert [call[1:] for call in changes.calls] == [
            (["a"], [], []),
            (["b"], [], []),
            ([], ["a"], []),
            ([], [], ["b"]),
        ]
        watcher.db_mon("family", later)
        later.wait({"a": 2})
        assert later.calls == [({"a": 2}, ["a"], [], [])]
        writer.db_del("family", "a")
        changes.wait({})
    later.wait({})


def test_monitor_of_an_empty_family_is_called_once(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    changes = Changes()
    node.db_mon("family", changes)
    wait_until(lambda: changes.calls, within=WAIT)
    assert changes.calls == [({}, [], [], [])]


def test_cancelled_monitor_makes_no_more_calls(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    cancelled, other = Changes(), Changes()
    guard = node.db_mon("family", cancelled)
    node.db_mon("family", other)
    other.wait({})
    cancelled.wait({})
    guard.cancel()
    guard.cancel()
    node.db_set("family", "key", 2)
    other.wait({"key": 2})
    assert cancelled.calls == [({}, [], [], [])]


def test_call_that_is_due_is_not_made_after_cancel(private: Node, caplog: pytest.LogCaptureFixture) -> None:
    changes = Changes()
    guard = private.db_mon("family", changes)
    guard.cancel()
    turns(5)
    assert not changes.calls
    assert not caplog.records


def test_callbacks_run_in_the_context_of_the_port_one_at_a_time_and_in_order(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    changes, seen, go = Changes(), [], Event()

    def slow(*args: Any) -> None:
        seen.append((SELF(), dict(args[0])))
        assert go.wait(WAIT)
        changes(*args)

    port = node.port()
    with port_context(node.scheduler.table.find(port)):
        node.db_mon("family", slow)
    wait_until(lambda: seen, within=WAIT)
    for number in range(5):
        node.db_set("family", "key", number)
    assert node.db_family("family") == {"key": 4}  # the answer comes behind the changes
    turns(5)
    assert seen == [(port, {})]
    go.set()
    changes.wait({"key": 4})
    assert [call[0] for call in changes.calls] == [{}, *({"key": number} for number in range(5))]
    assert {context for context, _ in seen} == {port}
    node.kil(port)
    wait_until(lambda: not node.scheduler.table.find(port), within=WAIT)
    node.db_set("family", "key", "after its death")
    see([node], "family", {"key": "after its death"})
    turns(5)
    assert changes.last == {"key": 4}
    assert not node._directory._copies


def test_exception_in_a_callback_kills_the_port_and_ends_the_calls(directory_nodes: MakeNodes) -> None:
    (node,) = directory_nodes(1)
    calls: list[Any] = []

    def fail(*args: Any) -> None:
        calls.append(args)
        raise ZeroDivisionError

    port, deaths = node.port(), Deaths()
    node.mon(port, deaths)
    with port_context(node.scheduler.table.find(port)):
        node.db_mon("family", fail)
    assert deaths.wait() == ("die", "ZeroDivisionError")
    node.db_set("family", "key")
    see([node], "family", {"key": None})
    assert len(calls) == 1


def test_exception_in_a_callback_outside_any_port_is_logged_and_the_calls_continue(
    private: Node, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    def fail(entries: Any, *_keys: Any) -> None:
        calls.append(dict(entries))
        raise ZeroDivisionError

    private.db_mon("family", fail)
    private.db_set("family", "key", 1)
    wait_until(lambda: calls[-1:] == [{"key": 1}], within=WAIT)
    assert "ZeroDivisionError" in caplog.text


def test_map_of_a_callback_cannot_be_changed_and_its_lists_are_its_own(private: Node) -> None:
    changes, spoilt = Changes(), []

    def spoil(entries: Any, added: list[str], changed: list[str], deleted: list[str]) -> None:
        with pytest.raises(TypeError):
            entries["more"] = 1
        added.append("more")
        deleted.append("more")
        spoilt.append(1)

    private.db_mon("family", spoil)
    private.db_mon("family", changes)
    private.db_set("family", "key", 1)
    changes.wait({"key": 1})
    assert changes.calls[-1][1:] == (["key"], [], [])
    assert len(spoilt) == 2


def test_monitor_that_is_far_behind_gets_one_change_for_many(private: Node) -> None:
    changes, go, waiting = Changes(), Event(), []

    def slow(*args: Any) -> None:
        waiting.append(1)
        assert go.wait(WAIT)
        changes(*args)

    private.db_mon("family", slow)
    wait_until(lambda: waiting, within=WAIT)
    for number in range(1200):
        private.db_set("family", f"key {number % 7}", number)
    private.db_del("family", "key 3")
    go.set()
    changes.wait(private.db_family("family"))
    assert len(changes.calls) < 10
    private.db_set("family", "later")
    changes.wait(private.db_family("family"))
    assert changes.calls[-1][1:] == (["later"], [], [])


@pytest.mark.slow
def test_calls_of_a_monitor_never_overlap_wherever_a_change_is_struck(private: Node) -> None:
    """Struck where the job of a call was just queued, a second job was, and began while the first call was blocked."""

    def strike() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        calling, overlaps, go_on = [0], [0], Event()

        def block(*_: object, calling=calling, overlaps=overlaps, go_on=go_on) -> None:
            overlaps[0] += calling[0]
            calling[0] += 1
            go_on.wait()
            calling[0] -= 1

        guard = private.db_mon("family", block)
        wait_until(lambda: calling[0], within=5)  # noqa: B023
        traced = ("directory/family_monitor.py", "ports/jobs.py", "ports/run_queue.py")
        injector = Injector(strike, lambda seen: seen == point, strike_points, traced)  # noqa: B023
        with contextlib.suppress(KeyboardInterrupt), injector:
            private.db_set("family", "key", point)
            go_on.set()
            turns(3)
        go_on.clear()
        for number in range(3):
            with contextlib.suppress(KeyboardInterrupt):  # it may only come now
                private.db_set("family", "other", number)
                turns(3)
        go_on.set()
        wait_until(lambda: not calling[0], within=5)  # noqa: B023
        assert not overlaps[0], point
        guard.cancel()
        if not injector.fired:
            break
    assert point > 20


def test_monitor_continues_wherever_a_call_of_it_is_struck(private: Node) -> None:
    """Struck where it began, before its first line, it waited forever for the end of a call that nobody was making."""

    def strike() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        copies: list[dict[str, Any]] = []
        guard = private.db_mon("family", lambda entries, *_, copies=copies: copies.append(dict(entries)))
        traced = ("directory/family_monitor.py", "ports/jobs.py")
        injector = Injector(strike, lambda seen: seen == point, strike_points, traced)  # noqa: B023
        with contextlib.suppress(KeyboardInterrupt), injector:
            settle(private)
        private.db_set("family", "key", point)
        with contextlib.suppress(KeyboardInterrupt):  # it may only come now
            settle(private)
        wait_until(lambda: copies and copies[-1] == {"key": point}, within=5, show=lambda: (point, copies))  # noqa: B023
        guard.cancel()
        if not injector.fired:
            break
    assert point > 8
