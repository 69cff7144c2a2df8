# SPDX-License-Identifier: MIT
"""The checker of simulations finds each kind of broken promise, and nothing in a run that keeps them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from soak.checker import (
    Created,
    Died,
    Event,
    Fired,
    LinkDown,
    LinkUp,
    Monitored,
    NodeUp,
    Received,
    Sent,
    Spawned,
    Stopped,
    ToldOf,
    check,
)

A, B = "10.0.0.1:1", "10.0.0.2:1"
P, Q, W, Q2 = f"{A}#p", f"{B}#q", f"{B}#w", f"{B}#q2"
LOST = ("transport_error", B, "cut")
UNTIL = 100.0


class Run:
    """A run in which all is well: p of node A monitors q and the w it spawned, both of node B; told event by event."""

    def __init__(self) -> None:
        self.now = 0.0
        self.logs: dict[str, list[Event]] = {"a": [], "b": []}
        self.a(NodeUp, A).b(NodeUp, B).a(Created, P).b(Created, Q)

    def a(self, kind: Callable[..., Event], *args: object, after: float = 0.1) -> Run:
        return self._log("a", kind, args, after)

    def b(self, kind: Callable[..., Event], *args: object, after: float = 0.1) -> Run:
        return self._log("b", kind, args, after)

    def later(self, kind: Callable[..., Event], *args: object, after: float = 0.1) -> Run:
        """An event of the process that node B is after it stopped."""
        return self._log("b2", kind, args, after)

    def _log(self, node: str, kind: Callable[..., Event], args: tuple[object, ...], after: float) -> Run:
        self.now += after
        self.logs.setdefault(node, []).append(kind(self.now, *args))
        return self

    def session(self, number: int, sent: int, received: int) -> Run:
        """Monitor, and send so many messages, of which the first so many arrive."""
        self.a(Monitored, P, Q, number)
        for message in range(sent):
            self.a(Sent, P, Q, number, message)
        for message in range(received):
            self.b(Received, Q, P, number, message)
        return self

    def problems(self) -> list[str]:
        return [str(violation) for violation in check(self.logs, within=5.0, until=UNTIL)]


def linked() -> Run:
    return Run().a(LinkUp, B).b(LinkUp, A)


GOOD = {
    "nothing": Run(),
    "all-arrives": linked().session(1, 3, 3),
    "loss-is-reported": linked().session(1, 5, 2).a(Fired, P, Q, 1, LOST).session(2, 2, 2),
    "loss-of-unmonitored": linked().a(Sent, P, Q, 0, 0).a(Sent, P, Q, 0, 1).b(Received, Q, P, 0, 1),
    "target-died": linked().session(1, 2, 1).b(Died, Q).a(Fired, P, Q, 1, ("die", "x")),
    "news-of-a-death-behind-slow-words": linked()
    .session(1, 2, 1)
    .b(Sent, Q, P, 0, 0)
    .b(Died, Q)
    .a(Received, P, Q, 0, 0, after=6)
    .a(Fired, P, Q, 1, ()),
    "target-crashed": linked().session(1, 2, 1).b(Stopped, B).a(Fired, P, Q, 1, LOST),
    "target-never-was": linked().a(Monitored, P, "x#y", 1).a(Fired, P, "x#y", 1, ("no_such_port", "", "x#y")),
    "watcher-crashed": linked().session(1, 2, 1).b(Died, Q).a(Stopped, A),
    "watcher-died": linked().session(1, 2, 1).a(Died, P).b(Died, Q),
    "loss-just-now": Run()._log("a", Monitored, (P, Q, 1), UNTIL - 1).b(Died, Q),
    "shunned": linked().session(1, 1, 1).a(Fired, P, Q, 1, LOST).a(Sent, P, Q, 0, 0),
    "not-shunned-without-a-link": Run()
    .session(1, 0, 0)
    .a(Fired, P, Q, 1, LOST)
    .a(Sent, P, Q, 0, 0)
    .b(Received, Q, P, 0, 0),
    "not-shunned-of-a-later-process": linked()
    .b(Stopped, B)
    .later(NodeUp, B)
    .later(Created, Q2)
    .a(Monitored, P, Q2, 1)
    .a(Fired, P, Q2, 1, LOST)
    .a(LinkUp, B)
    .a(Sent, P, Q2, 0, 0)
    .later(LinkUp, A)
    .later(Received, Q2, P, 0, 0),
    "not-shunned-of-a-later-process-not-let-in": linked()
    .b(Stopped, B)
    .later(NodeUp, B)
    .later(Created, Q2)
    .a(Monitored, P, Q2, 1)
    .later(LinkUp, A)
    .a(Fired, P, Q2, 1, LOST)
    .a(LinkUp, B)
    .a(Sent, P, Q2, 0, 0)
    .later(Received, Q2, P, 0, 0),
    "monitored-again-by-another": linked()
    .session(1, 0, 0)
    .a(Monitored, f"{A}#o", Q, 1)
    .a(Fired, P, Q, 1, LOST)
    .a(Monitored, P, Q, 2)
    .a(Fired, f"{A}#o", Q, 1, LOST)
    .a(Sent, f"{A}#o", Q, 0, 0)
    .b(Received, Q, f"{A}#o", 0, 0),
    "last-words": linked()
    .a(Monitored, P, Q, 1)
    .b(Sent, Q, P, 0, 0)
    .b(Died, Q)
    .a(Received, P, Q, 0, 0)
    .a(Fired, P, Q, 1, ())
    .a(ToldOf, P, Q, 1),
    "action-overtakes-the-mailbox": linked()
    .a(Monitored, P, Q, 1)
    .b(Sent, Q, P, 0, 0)
    .b(Died, Q)
    .a(Fired, P, Q, 1, ())
    .a(Received, P, Q, 0, 0),
    "orphan-killed": linked()
    .a(Spawned, W)
    .a(Monitored, P, W, 1)
    .b(Created, W)
    .a(Fired, P, W, 1, LOST)
    .a(LinkUp, B)
    .b(Died, W),
    "orphan-whose-link-is-lost-again": linked()
    .a(Spawned, W)
    .a(Monitored, P, W, 1)
    .b(Created, W)
    .a(LinkDown, B, LOST)
    .a(Fired, P, W, 1, LOST)
    .a(LinkUp, B)
    .a(LinkDown, B, LOST),
    "orphan-without-a-link": linked()
    .a(Spawned, W)
    .a(Monitored, P, W, 1)
    .b(Created, W)
    .a(LinkDown, B, LOST)
    .a(Fired, P, W, 1, LOST),
    "orphan-never-was": linked().a(Spawned, W).a(Monitored, P, W, 1).a(Fired, P, W, 1, LOST).a(LinkUp, B),
}

BAD = {
    "unsent": ("order: 1/7 of .* was never sent", linked().b(Received, Q, P, 1, 7)),
    "twice": ("order: 1/2 of .* arrived twice", linked().session(1, 3, 3).b(Received, Q, P, 1, 2)),
    "overtaken": (
        "order: 0/0 of .* arrived after a later one",
        linked().a(Sent, P, Q, 0, 0).a(Sent, P, Q, 0, 1).b(Received, Q, P, 0, 1).b(Received, Q, P, 0, 0),
    ),
    "earlier-session-after-later": (
        "order: 1/1 of .* arrived after a later one",
        linked().session(1, 2, 1).a(Fired, P, Q, 1, LOST).session(2, 1, 1).b(Received, Q, P, 1, 1),
    ),
    "hole": (
        "holes: 1/1 of .* was lost, and 2 arrived",
        linked().session(1, 3, 1).b(Received, Q, P, 1, 2).a(Fired, P, Q, 1, LOST),
    ),
    "silent-loss": ("monitors: .* never fired: message 2 was lost", linked().session(1, 3, 2)),
    "late": (
        "monitors: .* fired 1.00 s too late: message 1 was lost",
        linked().session(1, 2, 1).a(Fired, P, Q, 1, LOST, after=5.9),
    ),
    "late-although-its-target-spoke": (
        "monitors: .* fired .* s too late: message 1 was lost",
        linked().session(1, 2, 1).b(Sent, Q, P, 0, 0).a(Received, P, Q, 0, 0, after=6).b(Died, Q).a(Fired, P, Q, 1, ()),
    ),
    "death-unnoticed": ("monitors: .* never fired: its target died", linked().session(1, 1, 1).b(Died, Q)),
    "crash-unnoticed": ("monitors: .* never fired: its target died", linked().session(1, 1, 1).b(Stopped, B)),
    "nobody-unnoticed": ("monitors: .* never fired: its target died", linked().a(Monitored, P, "x#y", 1)),
    "fired-twice": (
        "once: .* fired 2 times",
        linked().session(1, 1, 1).a(Fired, P, Q, 1, LOST).a(Fired, P, Q, 1, LOST),
    ),
    "never-set": ("once: .* never was set", linked().a(Fired, P, Q, 1, LOST)),
    "false-alarm": ("once: .* its target is alive", linked().session(1, 1, 1).a(Fired, P, Q, 1, ("die", "x"))),
    "not-shunned": (
        "shunned: 0/0 of .* reached .*, reported dead 0.100 s before",
        linked().session(1, 1, 1).a(Fired, P, Q, 1, LOST).a(Sent, P, Q, 0, 0).b(Received, Q, P, 0, 0),
    ),
    "not-shunned-by-another-port": (
        "shunned: 0/0 of .*#o reached",
        linked().session(1, 1, 1).a(Fired, P, Q, 1, LOST).a(Sent, f"{A}#o", Q, 0, 0).b(Received, Q, f"{A}#o", 0, 0),
    ),
    "words-after-death": (
        "last_words: .* after the news of its death",
        linked()
        .a(Monitored, P, Q, 1)
        .b(Sent, Q, P, 0, 0)
        .b(Died, Q)
        .a(Fired, P, Q, 1, ())
        .a(ToldOf, P, Q, 1)
        .a(Received, P, Q, 0, 0),
    ),
    "back-from-the-dead": (
        "dead_stay_dead: .* is dead, and handled",
        linked().a(Sent, P, Q, 0, 0).b(Died, Q).b(Received, Q, P, 0, 0),
    ),
    "ghost-node": ("dead_stay_dead: b stopped, and then", linked().b(Stopped, B).b(Created, W)),
    "orphan": (
        "orphans: .*#w, spawned and given up by a, outlived",
        linked().a(Spawned, W).a(Monitored, P, W, 1).b(Created, W).a(Fired, P, W, 1, LOST).a(LinkUp, B),
    ),
}


@pytest.mark.parametrize("run", [pytest.param(run, id=name) for name, run in GOOD.items()])
def test_run_that_keeps_the_promises_is_left_alone(run: Run) -> None:
    assert run.problems() == []


@pytest.mark.parametrize(("text", "run"), [pytest.param(*case, id=name) for name, case in BAD.items()])
def test_broken_promise_is_found_and_nothing_else(text: str, run: Run) -> None:
    problems = run.problems()
    assert len(problems) == 1, problems
    assert re.match(text, problems[0]), problems
