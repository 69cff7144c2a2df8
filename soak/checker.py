# SPDX-License-Identifier: MIT
"""Check whether the events that nodes logged agree with the guarantees of the library.

The module is longer than 400 lines because each event and each rule is documented here.

Every incarnation of a node keeps a log: the events that it saw, in its own order. The
rules below are pure functions over all the logs together; they know neither nodes nor
networks, so hand-made logs test them, and simulations as well as real processes can be
checked. Times are ``time.monotonic()`` of one machine.

What a program must do so that its logs can be judged:

- a message names its sender, its session and its number, and these together are unique
  for a receiver; it is logged before it is sent, and when it is handled;
- session 0 is what is sent without monitoring; every other session begins with a
  :class:`Monitored`, is logged once ``mon`` returned, and ends with its :class:`Fired`,
  after which nothing more is sent in it;
- the news of a death may come as a message, too: :class:`ToldOf` says when that was handled;
- every port that is to receive has its :class:`Created`, and its :class:`Died`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

UNMONITORED = 0
"""The session of what is sent without monitoring."""

_LINK_REASONS = ("transport_error", "shutdown")


class NodeUp(NamedTuple):
    """A node began to be; the first event of each log."""

    at: float
    node: str


class Stopped(NamedTuple):
    """The node crashed, or was shut down; the last event of its log."""

    at: float
    node: str


class LinkUp(NamedTuple):
    """A link to a node came up."""

    at: float
    node: str


class LinkDown(NamedTuple):
    """A link to a node went down."""

    at: float
    node: str
    reason: Sequence[Any]


class Created(NamedTuple):
    """A port of this node exists."""

    at: float
    port: str


class Died(NamedTuple):
    """A port of this node is dead."""

    at: float
    port: str


class Spawned(NamedTuple):
    """This node spawned a port on another one."""

    at: float
    port: str


class Monitored(NamedTuple):
    """``mon`` of a target returned: a session begins."""

    at: float
    watcher: str
    target: str
    session: int


class Fired(NamedTuple):
    """The monitor's action runs: the session is over."""

    at: float
    watcher: str
    target: str
    session: int
    reason: Sequence[Any]


class ToldOf(NamedTuple):
    """The message that a monitor's action sent to its watcher is being handled: it has its place among the others."""

    at: float
    watcher: str
    target: str
    session: int


class Sent(NamedTuple):
    """A message is about to be sent."""

    at: float
    sender: str
    target: str
    session: int
    number: int


class Received(NamedTuple):
    """A message is being handled."""

    at: float
    port: str
    sender: str
    session: int
    number: int


Event: TypeAlias = (
    "NodeUp | Stopped | LinkUp | LinkDown | Created | Died | Spawned | Monitored | Fired | ToldOf | Sent | Received"
)
Logs: TypeAlias = "Mapping[str, Sequence[Event]]"
Session: TypeAlias = "tuple[str, str, int]"  # watcher, target, number


@dataclass(frozen=True)
class Violation:
    """A promise that was not kept.

    Attributes:
        rule: The name of the rule.
        text: What happened.
        logs: The names of the logs that show it.
        at: When it showed.
    """

    rule: str
    text: str
    logs: tuple[str, ...]
    at: float

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


class Facts:
    """All logs, sorted by what the rules ask.

    Args:
        logs: By the incarnation that kept them.
        within: Seconds within which a monitor must fire.
        until: Up to when the logs go; what has not happened by then may still be due. None: the
            last event of all.
    """

    def __init__(self, logs: Logs, within: float, until: float | None) -> None:
        self.logs = logs
        self.within = within
        self.until = max((log[-1].at for log in logs.values() if log), default=0.0) if until is None else until
        self.node: dict[str, str] = {}
        """The node's ID, by log."""
        self.started: dict[str, float] = {}
        self.stopped: dict[str, float] = {}
        self.home: dict[str, str] = {}
        """The log of each port that ever was."""
        self.died: dict[str, float] = {}
        self.sent: dict[tuple[str, str], list[Sent]] = defaultdict(list)
        self.received: dict[tuple[str, str], list[Received]] = defaultdict(list)
        self.monitored: dict[Session, Monitored] = {}
        self.fired: dict[Session, list[Fired]] = defaultdict(list)
        self.watcher_log: dict[Session, str] = {}
        for name, log in logs.items():
            for event in log:
                self._sort(name, event)
        self.arrived: set[tuple[str, str, int, int]] = {
            (event.sender, event.port, event.session, event.number)
            for events in self.received.values()
            for event in events
        }

    def _sort(self, name: str, event: Event) -> None:
        if isinstance(event, Sent):
            self.sent[event.sender, event.target].append(event)
        elif isinstance(event, Received):
            self.received[event.sender, event.port].append(event)
        elif isinstance(event, Monitored):
            session = (event.watcher, event.target, event.session)
            self.monitored[session] = event
            self.watcher_log[session] = name
        elif isinstance(event, Fired):
            session = (event.watcher, event.target, event.session)
            self.fired[session].append(event)
            self.watcher_log.setdefault(session, name)
        elif isinstance(event, Created):
            self.home[event.port] = name
        elif isinstance(event, Died):
            self.died.setdefault(event.port, event.at)
        elif isinstance(event, NodeUp):
            self.node[name] = event.node
            self.started[name] = event.at
        elif isinstance(event, Stopped):
            self.stopped[name] = event.at

    def has_arrived(self, message: Sent) -> bool:
        """Return whether a message was handled."""
        return (message.sender, message.target, message.session, message.number) in self.arrived

    def death_of(self, port: str) -> float | None:
        """Return when a port died or its node stopped; None while it lives. One that never was is dead from 0 on."""
        home = self.home.get(port)
        if home is None:
            return 0.0
        deaths = [at for at in (self.died.get(port), self.stopped.get(home)) if at is not None]
        return min(deaths, default=None)

    def was_linked(self, name: str | None, to: str, by: float) -> bool:
        """Return whether one process saw a link to the node that another one is, by then.

        Only who answers on the other side of a link knows which process that was; a node's own
        log may tell of a link to a predecessor.
        """
        node = self.node.get(to)
        return name is not None and any(
            isinstance(event, LinkUp) and event.node == node and event.at < by for event in self.logs[name]
        )

    def places(self, *ports: str) -> tuple[str, ...]:
        """Return the logs that tell about ports."""
        return tuple(dict.fromkeys(self.home[port] for port in ports if port in self.home))


def order(facts: Facts) -> Iterator[Violation]:
    """What one port sends another arrives in the order sent, at most once, and nothing else arrives."""
    for (sender, port), received in facts.received.items():
        sent = facts.sent.get((sender, port), ())
        places = {(event.session, event.number): place for place, event in enumerate(sent)}
        seen: set[int] = set()
        last = -1
        for event in received:
            place = places.get((event.session, event.number))
            what = f"{event.session}/{event.number} of {sender} to {port}"
            where = facts.places(sender, port)
            if place is None:
                yield Violation("order", f"{what} was never sent", where, event.at)
            elif place in seen:
                yield Violation("order", f"{what} arrived twice", where, event.at)
            elif place < last:
                yield Violation("order", f"{what} arrived after a later one", where, event.at)
            if place is not None:
                seen.add(place)
                last = max(last, place)


def holes(facts: Facts) -> Iterator[Violation]:
    """Of the messages of one session none arrives after one that was lost."""
    for (sender, target), sent in facts.sent.items():
        lost: dict[int, Sent] = {}
        for event in sent:
            if event.session == UNMONITORED:
                continue
            if not facts.has_arrived(event):
                lost.setdefault(event.session, event)
            elif event.session in lost:
                number = lost[event.session].number
                text = f"{event.session}/{number} of {sender} to {target} was lost, and {event.number} arrived"
                yield Violation("holes", text, facts.places(sender, target), event.at)


def monitors(facts: Facts) -> Iterator[Violation]:
    """A monitor fires, in time, when its target is dead or a message sent since is lost."""
    for session, monitored in facts.monitored.items():
        watcher, target, number = session
        log = facts.watcher_log[session]
        fired = facts.fired.get(session)
        causes: list[tuple[float, str]] = []
        death = facts.death_of(target)
        if death is not None:
            causes.append((death, "its target died"))
        for event in facts.sent.get((watcher, target), ()):
            if event.session == number and not facts.has_arrived(event):
                causes.append((event.at, f"message {event.number} was lost"))
                break
        if not causes:
            continue
        at, why = min(causes)
        due = max(at, monitored.at) + facts.within
        if death is not None and death < due:
            # The news of a death comes behind the last words, however slow the line is.
            words = max((event.at for event in facts.received.get((target, watcher), ())), default=0.0)
            due = max(due, words + facts.within)
        what = f"monitor {number} of {target} by {watcher}"
        where = tuple(dict.fromkeys((log, *facts.places(target))))
        if fired:
            if fired[0].at > due:
                late = fired[0].at - due
                yield Violation("monitors", f"{what} fired {late:.2f} s too late: {why}", where, fired[0].at)
        elif due < min(facts.until, facts.stopped.get(log, facts.until), facts.died.get(watcher, facts.until)):
            yield Violation("monitors", f"{what} never fired: {why}", where, due)


def once(facts: Facts) -> Iterator[Violation]:
    """A monitor fires at most once, only if it was set, and says of nobody that he is dead who is not."""
    for session, fired in facts.fired.items():
        watcher, target, number = session
        what = f"monitor {number} of {target} by {watcher}"
        where = tuple(dict.fromkeys((facts.watcher_log[session], *facts.places(target))))
        if session not in facts.monitored:
            yield Violation("once", f"{what} fired, and never was set", where, fired[0].at)
        if len(fired) > 1:
            yield Violation("once", f"{what} fired {len(fired)} times", where, fired[1].at)
        reason = fired[0].reason
        if not (reason and reason[0] in _LINK_REASONS) and facts.death_of(target) is None:
            yield Violation("once", f"{what} fired with {reason!r}, and its target is alive", where, fired[0].at)


def shunned(facts: Facts) -> Iterator[Violation]:
    """A port reported dead because of its link gets nothing from that node until it is monitored again."""
    for name, log in facts.logs.items():
        linked: dict[str, float] = {}  # when a link to a node came up last
        open_sessions: dict[str, set[Session]] = defaultdict(set)
        shun: dict[str, Fired] = {}
        for event in log:
            if isinstance(event, LinkUp):
                linked[event.node] = event.at
            elif isinstance(event, Monitored):
                open_sessions[event.target].add((event.watcher, event.target, event.session))
                shun.pop(event.target, None)
            elif isinstance(event, Fired):
                target = event.target
                open_sessions[target].discard((event.watcher, target, event.session))
                home = facts.home.get(target)
                # Both must have seen a link: the target's process may have one that is not let in yet,
                # as the link to the process before it is not lost.
                last_link = linked.get(target.partition("#")[0], 0.0)
                was_linked = last_link > facts.started.get(home or "", 0.0) and facts.was_linked(home, name, event.at)
                # While others' monitors have still to fire, it is unknown whether it was monitored again.
                if event.reason and event.reason[0] == "transport_error" and was_linked and not open_sessions[target]:
                    shun[target] = event
            elif isinstance(event, Sent) and event.target in shun and facts.has_arrived(event):
                text = (
                    f"{event.session}/{event.number} of {event.sender} reached {event.target}, reported dead "
                    f"{event.at - shun[event.target].at:.3f} s before"
                )
                yield Violation("shunned", text, tuple(dict.fromkeys((name, *facts.places(event.target)))), event.at)


def last_words(facts: Facts) -> Iterator[Violation]:
    """What a dead port had sent comes before the message that tells of its death."""
    for name, log in facts.logs.items():
        fired: dict[Session, Fired] = {}
        dead: set[tuple[str, str]] = set()
        for event in log:
            if isinstance(event, Fired):
                fired[event.watcher, event.target, event.session] = event
            elif isinstance(event, ToldOf):
                news = fired.get((event.watcher, event.target, event.session))
                if news is not None and not (news.reason and news.reason[0] in _LINK_REASONS):
                    dead.add((event.watcher, event.target))
            elif isinstance(event, Received) and (event.port, event.sender) in dead:
                text = f"{event.port} got {event.session}/{event.number} of {event.sender} after the news of its death"
                yield Violation("last_words", text, tuple(dict.fromkeys((name, *facts.places(event.sender)))), event.at)


def dead_stay_dead(facts: Facts) -> Iterator[Violation]:
    """A dead port handles nothing more, and neither does a node that stopped."""
    for name, log in facts.logs.items():
        dead: set[str] = set()
        stopped = False
        for event in log:
            if stopped:
                yield Violation("dead_stay_dead", f"{name} stopped, and then: {event}", (name,), event.at)
                break
            if isinstance(event, Died):
                dead.add(event.port)
            elif isinstance(event, Received) and event.port in dead:
                yield Violation("dead_stay_dead", f"{event.port} is dead, and handled {event}", (name,), event.at)
            stopped = isinstance(event, Stopped)


def orphans(facts: Facts) -> Iterator[Violation]:
    """What a node spawned, and was told is lost, is dead once there is a link again that lasts."""
    for name, log in facts.logs.items():
        if name in facts.stopped:
            continue  # nobody else knows what it spawned
        spawned: set[str] = set()
        lost: dict[str, dict[str, None]] = defaultdict(dict)  # by node
        returned: dict[str, float] = {}
        for event in log:
            if isinstance(event, Spawned):
                spawned.add(event.port)
            elif isinstance(event, Fired):
                if event.target in spawned and event.reason and event.reason[0] == "transport_error":
                    node = event.target.partition("#")[0]
                    lost[node][event.target] = None
            elif isinstance(event, LinkUp):
                returned[event.node] = event.at
            elif isinstance(event, LinkDown):
                returned.pop(event.node, None)
        for node, at in returned.items():
            for port in lost.get(node, ()):
                if at + facts.within < facts.until and port in facts.home and facts.death_of(port) is None:
                    text = f"{port}, spawned and given up by {name}, outlived the return of the link"
                    yield Violation("orphans", text, (name, *facts.places(port)), at)


RULES: tuple[Callable[[Facts], Iterator[Violation]], ...] = (
    order,
    holes,
    monitors,
    once,
    shunned,
    last_words,
    dead_stay_dead,
    orphans,
)


def check(logs: Logs, *, within: float, until: float | None = None) -> list[Violation]:
    """Return what violates the rules, in the order of time.

    Args:
        logs: Every incarnation's events, in its own order, by a name of its own.
        within: Seconds within which monitors must fire, and orphans die.
        until: The moment when the logs end; None: that of the last event.
    """
    facts = Facts(logs, within, until)
    return sorted((violation for rule in RULES for violation in rule(facts)), key=lambda violation: violation.at)
