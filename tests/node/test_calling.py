# SPDX-License-Identifier: MIT
"""Questions and answers: what cal and syncal promise."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from aemp_gevent.errors import (
    NoPortContextError,
    PortKilled,
)
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from tests.node.local import Log, in_port, not_here, spin
from tests.support.helpers import on_hub, wait_until
from tests.support.seams import ports_of
from tests.support.settling import settle, wait_for_timers

# --- cal ------------------------------------------------------------------------------


def test_cal_sends_the_message_with_a_reply_port_appended(node, log):
    asked = Log()
    port = node.port(lambda *msg: [asked(*msg[:-1]), node.snd(msg[-1], "answer", 1)])  # type: ignore[func-returns-value]
    assert node.cal(port, "question", 2, cb=log) is None
    assert asked == log == []
    settle(node)
    assert asked == [("question", 2)]
    assert log == [("answer", 1)]


def test_cal_runs_once_for_several_replies(node, log):
    port = node.port(lambda reply: [node.snd(reply, number) for number in range(3)] and None)
    node.cal(port, cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    assert log == [(0,)]


@pytest.mark.parametrize("timeout", [0, 0.001])
def test_cal_calls_back_with_nothing_after_the_timeout(node, log, timeout):
    node.cal(node.port(), "x", cb=log, timeout=timeout)
    assert log == []
    wait_for_timers(node, 0.005)
    assert log == [()]


def test_a_late_reply_is_discarded(node, log):
    replies: list[str] = []
    port = node.port(replies.append)
    node.cal(port, cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    node.snd(replies[0], "late")
    settle(node)
    assert log == [()]


@pytest.mark.parametrize("which", ["dead", "never", "remote", "dying", "dies of the question"])
def test_cal_calls_back_with_nothing_when_the_port_died(node, dead, log, which):
    dying = node.port()
    node.kil(dying, "why")
    dies = node.port(lambda *_msg: 1 / 0)
    port = {"dying": dying, "dies of the question": dies}.get(which) or not_here(node, dead, which)
    node.cal(port, "x", cb=log)
    settle(node)
    assert log == [()]


@pytest.mark.parametrize("order", ["reply-first", "death-first"])
def test_cal_runs_once_when_reply_and_death_race(node, log, order):
    helper = node.port(lambda reply: node.snd(reply, "answer"))

    def answer(reply):
        if order == "reply-first":
            node.snd(reply, "answer")
        else:
            node.snd(helper, reply)
        return True

    node.cal(node.port(answer), cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    assert len(log) == 1
    if order == "reply-first":
        assert log == [("answer",)], "what the dead port sent before comes before its death"


def test_cal_runs_once_when_reply_and_timeout_race(node, log):
    for late in range(2):
        port = node.port(lambda reply: node.after(0.001, reply, "answer"))
        if late:
            node.cal(port, cb=log, timeout=0.001)
        else:
            node.cal(port, cb=log, timeout=0.0015)
        settle(node)
        spin(0.004)  # both timers are due in the same turn of the loop
        wait_for_timers(node, 0.004)
        assert len(log) == late + 1


def test_cal_leaves_nothing_behind(node, log):
    port = node.port(lambda *msg: node.snd(msg[-1]))
    silent = node.port()
    node.cal(port, cb=log, timeout=1)
    node.cal(silent, cb=log, timeout=0)
    wait_for_timers(node, 0.005)
    assert set(ports_of(node)) == {port, silent}
    assert ports_of(node)[port].monitors is None
    assert ports_of(node)[silent].monitors is None


def test_a_cal_that_raises_leaves_nothing_behind(node, log, monkeypatch):
    port = node.port()

    def refuse(*_msg):
        raise LookupError

    monkeypatch.setattr(ports_host_of(node), "snd", refuse)
    with pytest.raises(LookupError):
        node.cal(port, object(), cb=log, timeout=0)
    settle(node)
    assert set(ports_of(node)) == {port}
    assert log == []


def test_cal_calls_back_when_the_reply_port_is_killed(node, log):
    port = node.port(lambda reply: node.kil(reply, "why"))
    node.cal(port, cb=log, timeout=0.001)
    wait_for_timers(node, 0.005)
    assert log == [()]


# --- syncal ---------------------------------------------------------------------------


def test_syncal_waits_for_the_answer(node):
    echo = node.port(lambda *msg: node.snd(msg[-1], *msg[:-1]))
    assert node.syncal(5, echo, "a", 1) == ("a", 1)
    assert node.syncal(None, echo) == ()


@pytest.mark.parametrize("timeout", [0, 0.001, -1])
def test_syncal_returns_nothing_after_the_timeout(node, timeout):
    assert node.syncal(timeout, node.port(), "x") == ()


@pytest.mark.parametrize("which", ["dead", "never", "remote", "dying", "dies of the question", "dies later"])
def test_syncal_returns_nothing_when_the_port_dies(node, dead, which):
    dying = node.port()
    node.kil(dying, "why")
    dies = node.port(lambda *_msg: 1 / 0)
    later = node.port(lambda *_msg: node.after(0.001, lambda: node.kil(later, "why")) and None)  # type: ignore[has-type]
    port = {"dying": dying, "dies of the question": dies, "dies later": later}.get(which) or not_here(node, dead, which)
    assert node.syncal(None, port, "x") == ()


def test_syncal_takes_the_answer_that_came_before_the_death(node):
    port = node.port(lambda reply: (node.snd(reply, "answer"), True)[1])
    assert node.syncal(5, port) == ("answer",)


def test_syncal_leaves_nothing_behind(node):
    port = node.port(lambda *msg: node.snd(msg[-1]))
    silent = node.port()
    node.syncal(5, port)
    node.syncal(0.001, silent)
    assert set(ports_of(node)) == {port, silent}
    assert ports_of(node)[port].monitors is None
    assert ports_of(node)[silent].monitors is None


def test_a_late_answer_to_syncal_is_discarded(node):
    replies: list[str] = []
    slow = node.port(replies.append)
    echo = node.port(lambda *msg: node.snd(msg[-1], "in time"))
    assert node.syncal(0.001, slow) == ()
    node.snd(replies[0], "late")
    assert node.syncal(5, echo) == ("in time",)


def test_syncal_does_not_touch_the_mailbox_of_the_port_it_runs_in(node, log):
    echo = node.port(lambda *msg: node.snd(msg[-1], "answer"))

    def body():
        node.snd(SELF(), "mine")
        log(*node.syncal(5, echo))
        log(*receive())

    node.port_async(body)
    settle(node)
    assert log == [("answer",), ("mine",)]


@pytest.mark.parametrize(
    "how",
    [
        "handler",
        "own greenlet",
        "attached",
        "peval_async",
        "mon action",
        pytest.param("job right after"),
    ],
)
def test_syncal_raises_when_the_port_it_waits_in_is_killed(node, dead, log, how):
    silent = node.port()
    selves: list[str] = []

    def ask(*_reason):
        selves.append(SELF() or "none")
        try:
            log(*node.syncal(0.05, silent, "x"), "timed out")
        except PortKilled as kill:
            log("killed", *kill.reason)
            raise

    def attached():
        with node.attach():
            ask()

    greenlet = None
    match how:
        case "handler":
            in_port(node, ask)
        case "own greenlet":
            node.port_async(ask)
        case "attached":
            greenlet = gevent.spawn(attached)
        case "peval_async":
            greenlet = node.peval_async(node.port(), ask)
        case "mon action":
            victim = node.port()
            in_port(node, lambda: node.mon(victim, ask))
            node.kil(victim)
        case _:  # the runner that served the port runs its job next
            in_port(node, lambda: node.mon(dead, ask))
    wait_until(lambda: selves and ports_of(node)[silent].monitors is not None, show=lambda: (selves, log))
    settle(node)
    node.kil(selves[0], "why")
    wait_until(lambda: log, show=lambda: log)
    if greenlet is not None:
        greenlet.join()
    assert log == [("killed", "why")]


def test_every_later_syncal_of_a_killed_port_raises_too(node, log):
    echo = node.port(lambda *msg: node.snd(msg[-1], "answer"))

    def stubborn():
        for _ in range(3):
            try:
                Event().wait() if not log else log(*node.syncal(5, echo))
            except PortKilled as kill:
                log("killed", *kill.reason)

    port = in_port(node, stubborn)
    node.kil(port, "why")
    settle(node)
    assert log == [("killed", "why")] * 3


def test_a_foreign_timeout_passes_through_syncal(node):
    silent = node.port()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.001):
        node.syncal(5, silent)
    assert set(ports_of(node)) == {silent}


def test_syncal_on_the_hub_is_refused_with_advice(node):
    silent, errors = node.port(), []

    def ask():
        try:
            node.syncal(0.001, silent)
        except NoPortContextError as error:
            errors.append(str(error))

    on_hub(ask)
    assert "spawn a greenlet" in errors[0]
