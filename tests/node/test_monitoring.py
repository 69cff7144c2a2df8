# SPDX-License-Identifier: MIT
"""Monitors: what mon and mon_guard promise."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import pytest

from aemp_gevent.errors import (
    InvalidPortError,
    NodePortError,
    NoPortContextError,
)
from tests.node.local import Closable, Log, deaths_of, in_port, not_here
from tests.support.seams import ports_of
from tests.support.settling import settle, wait_for_timers

# --- mon ------------------------------------------------------------------------------


def test_mon_calls_back_with_the_reason(node):
    port = node.port()
    deaths = deaths_of(node, port)
    node.kil(port, "why", 1)
    assert deaths == []
    settle(node)
    assert deaths == [("why", 1)]


@pytest.mark.parametrize(("reason", "expected"), [((), []), (("why",), [("why",)]), ((None,), [(None,)])])
@pytest.mark.parametrize("form", ["mon(port)", "mon(port, rcvport)"])
def test_a_link_passes_on_abnormal_deaths_only(node, reason, expected, form):
    watched = node.port()
    if form == "mon(port)":
        linked = in_port(node, lambda: node.mon(watched))
    else:
        linked = node.port()
        node.mon(watched, linked)
    deaths = deaths_of(node, linked)
    node.kil(watched, *reason)
    settle(node)
    assert deaths == expected


@pytest.mark.parametrize("reason", [(), ("why", 2)])
@pytest.mark.parametrize("msg", [("down",), ("down", 1), (None,), ([],)])
def test_mon_sends_a_message_ending_with_the_reason_also_for_normal_deaths(node, log, reason, msg):
    watched = node.port()
    node.mon(watched, node.port(log), *msg)
    node.kil(watched, *reason)
    settle(node)
    assert log == [(*msg, *reason)]


def test_messages_of_a_dead_port_come_before_the_message_of_its_death(node, log):
    listener = node.port(log)

    def last_words():
        for number in range(100):
            node.snd(listener, number)
        raise LookupError

    port = node.port(last_words)
    node.mon(port, listener, "down")
    node.snd(port)
    settle(node)
    assert log == [(number,) for number in range(100)] + [("down", "die", "LookupError")]


@pytest.mark.parametrize("how", ["handler", "own greenlet"])
def test_last_words_come_before_the_kill_of_a_linked_port(node, log, how):
    linked = node.port(log)

    def last_words():
        node.snd(linked, "last words")
        raise LookupError

    port = node.port_async(last_words) if how == "own greenlet" else node.port(last_words)
    node.mon(port, linked)
    node.mon(linked, functools.partial(log, "died"))
    node.snd(port)
    settle(node)
    assert log == [("last words",), ("died", "die", "LookupError")]


@pytest.mark.parametrize("which", ["dead", "never"])
def test_monitoring_a_missing_port_fires_at_once_but_not_within_mon(node, dead, which):
    port = not_here(node, dead, which)
    deaths = deaths_of(node, port)
    assert deaths == []
    settle(node)
    [death] = deaths
    assert death[0] == "no_such_port"
    assert isinstance(death[1], str)
    assert death[2] == port


@pytest.mark.parametrize("port", ["elsewhere", "elsewhere#p", "1.2.3.4:4040#p"])
def test_monitoring_another_node_from_a_private_one_fires_with_the_remedy(node, port):
    deaths = deaths_of(node, port)
    settle(node)
    [death] = deaths
    assert death[:2] == ("transport_error", node.NODE(port))
    assert "initialise_node()" in str(death[2])


def test_monitoring_a_dying_port_gives_its_true_reason(node):
    port = node.port()
    node.kil(port, "true")
    deaths = deaths_of(node, port)
    settle(node)
    assert deaths == [("true",)]


def test_mon_without_an_action_outside_a_port_is_refused_with_the_remedy(node):
    with pytest.raises(NoPortContextError, match=r"mon\(port\) needs a port context.*with attach"):
        node.mon(node.port())


@pytest.mark.parametrize("action", [(None,), ("two words",), ("",), ("two words", "down"), (None, "down")])
def test_an_action_that_is_neither_function_nor_port_is_refused_with_the_remedy(node, action):
    with pytest.raises(InvalidPortError, match=r"as returned by port\(\)"):
        node.mon(node.port(), *action)


def test_linking_a_node_port_is_refused_with_the_remedy(node):
    with pytest.raises(NodePortError, match="name a port of it"):
        node.mon(node.port(), node.NODE())


def test_the_guard_cancels_every_form(node, log):
    watched, linked = node.port(), node.port(log)
    guards = [node.mon(watched, log), node.mon(watched, linked), node.mon(watched, linked, "down")]
    node.peval(linked, lambda: guards.append(node.mon(watched)))
    for guard in guards:
        guard.cancel()
    node.kil(watched, "why")
    settle(node)
    assert log == []
    assert linked in ports_of(node)


def test_of_the_messages_sent_after_mon_every_one_arrives_or_the_action_runs(node, log):
    for kill_at in range(6):
        got = Log()
        port = node.port(got)
        deaths = deaths_of(node, port)
        for number in range(6):
            if number == kill_at:
                node.kil(port, "why")
            node.snd(port, number)
        settle(node)
        assert got == [(number,) for number in range(kill_at)], "no holes"
        assert deaths == [("why",)]


# --- mon_guard ------------------------------------------------------------------------


class Cancellable:
    def __init__(self, noted: list[str]) -> None:
        self.noted = noted

    def cancel(self) -> None:
        self.noted.append("cancel")


class Plain:
    pass


def test_mon_guard_keeps_objects_alive_until_the_port_dies(node):
    port, thing = node.port(), Plain()
    gone = weakref.ref(thing)
    node.mon_guard(port, thing)
    del thing
    settle(node)
    assert gone() is not None
    node.kil(port)
    settle(node)
    assert gone() is None


def test_mon_guard_closes_objects_in_order(node):
    port = node.port()
    noted: list[Any] = []
    node.mon_guard(port, Closable(noted), Plain(), Cancellable(noted), None, 7)
    settle(node)
    assert noted == []
    node.kil(port)
    settle(node)
    assert noted == ["close", "cancel"]


def test_mon_guard_closes_also_for_normal_deaths_and_for_ports_that_are_dead_already(node, dead):
    noted: list[str] = []
    node.mon_guard(dead, Closable(noted))
    settle(node)
    assert noted == ["close"]


def test_mon_guard_ends_the_timers_of_a_port(node, log):
    port = node.port()
    node.mon_guard(port, node.after(0.002, log, "fired"))
    node.kil(port)
    wait_for_timers(node, 0.01)
    assert log == []


def test_a_cancelled_mon_guard_releases_objects_unclosed(node):
    port = node.port()
    noted: list[Any] = []
    thing = Closable(noted)
    gone = weakref.ref(thing)
    guard = node.mon_guard(port, thing)
    del thing
    guard.cancel()
    assert gone() is None
    node.kil(port)
    settle(node)
    assert noted == []


def test_an_object_that_fails_to_close_does_not_keep_others_open(node, caplog):
    class Failing:
        def close(self):
            raise OSError("cannot close")

    port = node.port()
    noted: list[Any] = []
    node.mon_guard(port, Failing(), Closable(noted))
    node.kil(port)
    settle(node)
    assert noted == ["close"]
    assert "cannot close" in caplog.text
