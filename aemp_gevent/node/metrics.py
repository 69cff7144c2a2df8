# SPDX-License-Identifier: MIT
"""The figures of a node for systems that monitor many: the part ``metrics`` of the answer to ``inspect``.

:data:`METRICS` is the table of all of them. Most are read from what exists when somebody asks. The time that calls take
is measured from the first question on, so that nodes which nobody monitors pay nothing.

A figure has few labels, with few values: never the ID of a port. Values of different nodes can be put together: they
are added up, or the largest counts.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from aemp_gevent.errors import CallTimeout, PortDied
from aemp_gevent.peers.network import Network
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.totals import MONITORS_FIRED, PAUSED_SECONDS, PAUSES, RESTARTS, Labels

if TYPE_CHECKING:
    from aemp_gevent.calls.watching import CallWatch

Kind = Literal["counter", "gauge", "histogram", "gaugehistogram"]

Value: TypeAlias = "float | list[float]"
"""A number; of a histogram a list: the sum of what was observed, then how many are in each bucket, and above all."""

Key: TypeAlias = "tuple[str, ...]"
"""The name of a metric, and the values of its labels."""

Rows: TypeAlias = "dict[Key, Value]"

MAX_FULLEST = 10
"""The fullest mailboxes that are looked at one by one."""

MAX_LABELS = 100
"""Different values of one label."""

MAX_ENDED = 200
"""Processes that are remembered as those whose totals a node keeps."""

MAX_ROWS = 5000
"""Figures in one answer: those of a node with every label that it may have are fewer."""

_MAX_LABEL = 200  # characters

CALL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DEPTHS = (0, 1, 10, 100, 1000, 10_000, 100_000)


@dataclass(frozen=True)
class Metric:
    """A figure that nodes report.

    Attributes:
        kind: How it behaves. Counters and histograms never fall while the process runs.
        text: What it says.
        labels: The names of its labels.
        buckets: The upper bounds of a histogram's buckets.
        largest: Whether the largest value of several nodes counts, instead of the sum.
    """

    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    largest: bool = False

    @property
    def is_total(self) -> bool:
        """Whether it never falls, so that others keep it when the process ends."""
        return self.kind in {"counter", "histogram"}


METRICS: dict[str, Metric] = {
    "aemp_nodes": Metric("gauge", "Nodes that these figures are of."),
    "aemp_uptime_seconds": Metric("gauge", "For how long the node has been part of a network.", largest=True),
    "aemp_ports": Metric("gauge", "Ports, by what they are doing.", ("state",)),
    "aemp_mailbox_messages": Metric("gaugehistogram", "Messages in each port's mailbox.", (), DEPTHS),
    "aemp_mailbox_top_messages": Metric(
        "gauge",
        "Messages in the fullest mailbox, for each function that handles messages of one of the ten fullest.",
        ("handler",),
        largest=True,
    ),
    "aemp_run_queue_length": Metric("gauge", "Ports and callbacks that wait for their turn."),
    "aemp_messages_discarded_total": Metric("counter", "Messages that no handler took."),
    "aemp_links": Metric("gauge", "Links that are up."),
    "aemp_link_messages_received_total": Metric("counter", "Messages that came, without heartbeats.", ("peer",)),
    "aemp_link_messages_sent_total": Metric("counter", "Messages that left, without heartbeats.", ("peer",)),
    "aemp_link_bytes_received_total": Metric("counter", "Bytes that came, before TLS.", ("peer",)),
    "aemp_link_bytes_sent_total": Metric("counter", "Bytes that left, before TLS.", ("peer",)),
    "aemp_link_unsent_bytes": Metric("gauge", "Bytes that wait to be sent.", ("peer",)),
    "aemp_sender_pauses_total": Metric("counter", "How often a sender was paused, because too much was unsent."),
    "aemp_sender_paused_seconds_total": Metric("counter", "How long senders were paused."),
    "aemp_monitors_fired_total": Metric("counter", "Monitors that fired, by the reason of the death.", ("reason",)),
    "aemp_refusals_total": Metric("counter", "Requests and connections that were refused, by kind.", ("kind",)),
    "aemp_loop_lag_seconds": Metric("gauge", "By how much the event loop was late at the last check.", largest=True),
    "aemp_loop_worst_lag_seconds": Metric("gauge", "The worst of these in the last half minute or so.", largest=True),
    "aemp_loop_blocks_total": Metric("counter", "How often the event loop was blocked for longer than a second."),
    "aemp_loop_blocked_seconds_total": Metric("counter", "How long it was blocked, all these times together."),
    "aemp_service_restarts_total": Metric("counter", "Crashes of services that `aemp run` restarts.", ("service",)),
    "aemp_call_seconds": Metric(
        "histogram",
        "How long calls to ports took, by how they ended: ok, timeout, died (the port) or error.",
        ("outcome",),
        CALL_SECONDS,
    ),
    "aemp_directory_entries": Metric("gauge", "The node's own entries in the directory, by family.", ("family",)),
    "aemp_memory_bytes": Metric("gauge", "Memory that processes use."),
    "aemp_cpu_seconds_total": Metric("counter", "Processor time that processes used."),
    "aemp_nodes_ended_total": Metric("counter", "Nodes that ended, and handed over their totals."),
    "aemp_nodes_lost_total": Metric(
        "counter",
        "Nodes that ended without handing over their totals: what they had counted since the last look is missing.",
    ),
}
"""Every figure, by its name."""


class MeasuredNode(Protocol):
    """The node whose figures these are."""

    @property
    def scheduler(self) -> Scheduler: ...

    @property
    def network(self) -> Network | None:
        """Its links; None while it is private."""
        ...

    @property
    def own_families(self) -> dict[str, int]:
        """The number of entries in each family of the directory that it, and clients that cannot be asked, have set."""
        ...

    def watch_calls(self, watch: CallWatch) -> None:
        """Observe the calls that the node's code makes, from now on."""


class SeenPorts(Protocol):
    """What was found when all ports were looked at."""

    messages: int
    """Messages in all mailboxes."""
    states: Counter[str]
    """Ports in each state."""
    depths: Counter[int]
    """Mailboxes with each number of messages."""


class Metrics:
    """The figures of one node.

    Args:
        host: The node.
    """

    def __init__(self, host: MeasuredNode) -> None:
        self._host = host
        self._calls: CallTimes | None = None
        self._labels = {name: Labels(MAX_LABELS) for name, metric in METRICS.items() if metric.labels}
        self._kept: Rows = {}  # the totals of nodes that ended
        self._kept_of: deque[str] = deque(maxlen=MAX_ENDED)
        self._is_frozen = False
        self._last: Rows | None = None  # the totals that are handed over
        self.heir = ""
        """The node that has this one's totals, and reports them; ``""``: none."""

    def answer(
        self, figures: Mapping[str, Any], seen: SeenPorts, fullest: Iterable[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the part of the answer to ``inspect``: see :meth:`rows`."""
        network = self._host.network
        return {
            "process": "" if network is None else network.incarnation,
            "heir": self.heir,
            "kept": list(self._kept_of),
            "rows": to_travel(self.rows(figures, seen, fullest)),
        }

    def keep(self, process: str, totals: Rows, *, lost: bool) -> None:
        """Report the totals of a process that ended as this node's own from now on. Idempotent.

        Args:
            process: The incarnation of its node.
            totals: What is known of them.
            lost: Whether it ended without a word, so that these are not its last ones.

        Raises:
            ValueError: This node is handing over its own at this moment.
        """
        if self._is_frozen or self.heir:
            raise ValueError("this node is handing over its own totals")
        if process in self._kept_of:
            return
        self._kept_of.append(process)
        ended: Rows = {("aemp_nodes_lost_total" if lost else "aemp_nodes_ended_total",): 1}
        self._kept = merged([self._kept, totals_in(totals), ended])

    def freeze(self) -> None:
        """Stop counting with the next question: the totals are to be handed over as they are then."""
        self._is_frozen = True

    def thaw(self) -> None:
        """Count again: nobody took the totals."""
        self._is_frozen, self._last = False, None

    def rows(self, figures: Mapping[str, Any], seen: SeenPorts, fullest: Iterable[Mapping[str, Any]]) -> Rows:
        """Return the figures. Never switches.

        Args:
            figures: What ``inspect`` answers about the node as a whole.
            seen: The ports.
            fullest: What it answers about the ports with most messages.
        """
        if self._calls is None:
            self._calls = CallTimes()
            self._host.watch_calls(self._calls)
        rows: Rows = {("aemp_nodes",): 1, ("aemp_nodes_ended_total",): 0, ("aemp_nodes_lost_total",): 0}
        for metric, name in _FIGURES.items():
            if figures[name] is not None:
                rows[metric,] = figures[name]
        for state, count in seen.states.items():
            rows["aemp_ports", state] = count
        counts = [0.0] * (len(DEPTHS) + 1)
        for depth, count in seen.depths.items():
            counts[bisect_left(DEPTHS, depth)] += count
        rows["aemp_mailbox_messages",] = [seen.messages, *counts]
        for port in fullest:
            if port["messages"]:
                self._add(rows, "aemp_mailbox_top_messages", port["handler"] or port["kind"], port["messages"])
        for kind, count in figures["refusals"].items():
            self._add(rows, "aemp_refusals_total", kind, count)
        for family, entries in self._host.own_families.items():
            self._add(rows, "aemp_directory_entries", family, entries)
        self._add_totals(rows)
        self._add_links(rows)
        rows |= self._calls.rows()
        rows = merged([rows, self._kept])
        if not self._is_frozen:
            return rows
        if self._last is None:
            self._last = totals_in(rows)
        return without_totals(rows) | ({} if self.heir else self._last)

    def _add(self, rows: Rows, metric: str, label: str, value: float) -> None:
        key = (metric, self._labels[metric].of(label[:_MAX_LABEL]))
        rows[key] = _together(METRICS[metric], rows[key], value) if key in rows else value

    def _add_totals(self, rows: Rows) -> None:
        totals = self._host.scheduler.totals
        rows["aemp_sender_pauses_total",] = totals.get((PAUSES,), 0)
        rows["aemp_sender_paused_seconds_total",] = totals.get((PAUSED_SECONDS,), 0)
        for (name, *label), value in list(totals.items()):
            if name in _LABELLED:
                self._add(rows, _LABELLED[name], label[0], value)

    def _add_links(self, rows: Rows) -> None:
        network = self._host.network
        if network is None:
            return
        watch = network.loop_watch
        if watch is not None:
            rows["aemp_loop_blocks_total",] = watch.blocks
            rows["aemp_loop_blocked_seconds_total",] = watch.blocked_seconds
        traffic = network.link_maker.traffic
        for peer, carried in traffic.sums().items():
            rows["aemp_link_messages_received_total", peer] = carried.packets_in
            rows["aemp_link_messages_sent_total", peer] = carried.packets_out
            rows["aemp_link_bytes_received_total", peer] = carried.bytes_in
            rows["aemp_link_bytes_sent_total", peer] = carried.bytes_out
        for one in network.up_peers():
            self._add(rows, "aemp_link_unsent_bytes", traffic.label_of(one.node), one.unsent)


_FIGURES = {
    "aemp_uptime_seconds": "seconds",
    "aemp_links": "link_count",
    "aemp_run_queue_length": "queue",
    "aemp_messages_discarded_total": "discarded",
    "aemp_loop_lag_seconds": "lag",
    "aemp_loop_worst_lag_seconds": "worst_lag",
    "aemp_memory_bytes": "memory",
    "aemp_cpu_seconds_total": "cpu",
}
"""Metrics that are figures of the node as a whole."""

_LABELLED = {MONITORS_FIRED: "aemp_monitors_fired_total", RESTARTS: "aemp_service_restarts_total"}
"""Metrics that are totals with a label."""


class CallTimes:
    """Measures how long calls take. Calls to nodes, which operators' tools make, do not count."""

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}

    def began(self, port: str, tag: object) -> _TimedCall | None:
        return _TimedCall(self.take) if "#" in port else None

    def take(self, seconds: float, outcome: str) -> None:
        """Count a call."""
        found = self._seen.get(outcome)
        if found is None:
            found = self._seen[outcome] = [0.0] * (len(CALL_SECONDS) + 2)
        found[0] += seconds
        found[1 + bisect_left(CALL_SECONDS, seconds)] += 1

    def rows(self) -> Rows:
        """Return how long the calls took, by how they ended."""
        return {("aemp_call_seconds", outcome): list(found) for outcome, found in self._seen.items()}


class _TimedCall:
    def __init__(self, take: Callable[[float, str], None]) -> None:
        self._take = take
        self._began = perf_counter()

    def sent(self) -> None:
        """Wait for the end."""

    def ended(self, error: BaseException | None) -> None:
        self._take(perf_counter() - self._began, _outcome_of(error))


def _outcome_of(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    return "timeout" if isinstance(error, CallTimeout) else "died" if isinstance(error, PortDied) else "error"


# --- figures of several nodes ---


def merged(several: Iterable[Rows]) -> Rows:
    """Return the figures of several nodes together."""
    found: Rows = {}
    for rows in several:
        for key, value in rows.items():
            found[key] = _together(METRICS[key[0]], found[key], value) if key in found else value
    return found


def totals_in(rows: Rows) -> Rows:
    """Return those figures that others keep when the node has ended."""
    return {key: value for key, value in rows.items() if METRICS[key[0]].is_total}


def without_totals(rows: Rows) -> Rows:
    """Return the other figures."""
    return {key: value for key, value in rows.items() if not METRICS[key[0]].is_total}


def _together(metric: Metric, one: Value, two: Value) -> Value:
    if isinstance(one, list) and isinstance(two, list):
        return [each + other for each, other in zip(one, two, strict=True)]
    assert not isinstance(one, list)  # two of one metric are of one kind
    assert not isinstance(two, list)
    return max(one, two) if metric.largest else one + two


def to_travel(rows: Rows) -> list[list[Any]]:
    """Return figures as they are sent: each metric's name, its labels in a list, and its value."""
    return [[name, labels, value] for (name, *labels), value in rows.items()]


def from_afar(sent: object) -> Rows:
    """Return figures that another node sent, without metrics that this version does not know.

    Raises:
        ValueError: They are not figures.
    """
    rows: Rows = {}
    if not isinstance(sent, Sequence) or len(sent) > MAX_ROWS:
        raise ValueError("the figures are not a list of acceptable length")
    for row in sent:
        if not isinstance(row, (list, tuple)) or len(row) != 3:
            raise ValueError("a figure is not a list of three")
        name, labels, value = row
        metric = METRICS.get(name) if isinstance(name, str) else None
        if metric is None:
            continue
        if not isinstance(labels, (list, tuple)) or len(labels) != len(metric.labels):
            raise ValueError(f"{name} does not have the labels {metric.labels}")
        if not all(isinstance(label, str) and len(label) <= _MAX_LABEL for label in labels):
            raise ValueError(f"a label of {name} is not a short text")
        key = (name, *labels)
        rows[key] = _value(name, metric, value)
    return rows


def _value(name: str, metric: Metric, value: object) -> Value:
    if not metric.buckets:
        return _number(name, value)
    if not isinstance(value, (list, tuple)) or len(value) != len(metric.buckets) + 2:
        raise ValueError(f"{name} does not have {len(metric.buckets)} buckets")
    return [_number(name, each) for each in value]


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value) or value < 0:
        raise ValueError(f"a value of {name} is not a number")
    return value
