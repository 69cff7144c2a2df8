# SPDX-License-Identifier: MIT
"""Figures for systems that monitor nodes: the table of all of them, how they travel, and how they are put together.

A figure has few labels, with few values: never the ID of a port. Values of different nodes can be put together: they
are added up, or the largest counts. :mod:`aemp_gevent.node.metrics` makes those of one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from typing import TypeGuard

from aemp_gevent.runtime.totals import MAX_LABEL, Labels, short_label

Kind = Literal["counter", "gauge", "histogram", "gaugehistogram"]

Value: TypeAlias = "float | list[float]"
"""A number; of a histogram a list: the sum of what was observed, then how many are in each bucket, and above all."""

Key: TypeAlias = "tuple[str, ...]"
"""The name of a metric, and the values of its labels."""

Rows: TypeAlias = "dict[Key, Value]"

MAX_LABELS = 100
"""Different values of one label."""

MAX_ENDED = 64
"""Processes whose totals are kept apart, so that they can be recognised on other nodes. Older ones are added up."""

MAX_ROWS = 5000
"""Figures in one answer: those of a node with every label that it may have are fewer."""

MAX_VALUE = 1e18
"""The largest value of a figure. Beyond it sums stay as they are, so that they can always be sent."""

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
        of_process: Whether all nodes of one process report the same.
    """

    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    largest: bool = False
    of_process: bool = False

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
    "aemp_loop_blocks_total": Metric(
        "counter", "How often the event loop was blocked for longer than a second.", of_process=True
    ),
    "aemp_loop_blocked_seconds_total": Metric(
        "counter", "How long it was blocked, all these times together.", of_process=True
    ),
    "aemp_service_restarts_total": Metric("counter", "Crashes of services that `aemp run` restarts.", ("service",)),
    "aemp_supervisor_restarts_total": Metric(
        "counter",
        "Children that supervisors restarted, by the supervisor's class; `Services` is that of `aemp run`.",
        ("supervisor",),
    ),
    "aemp_call_seconds": Metric(
        "histogram",
        "How long calls to ports took, by how they ended: ok, timeout, died (the port) or error.",
        ("outcome",),
        CALL_SECONDS,
    ),
    "aemp_directory_entries": Metric("gauge", "The node's own entries in the directory, by family.", ("family",)),
    "aemp_memory_bytes": Metric("gauge", "Memory that processes use.", of_process=True),
    "aemp_cpu_seconds_total": Metric("counter", "Processor time that processes used.", of_process=True),
    "aemp_nodes_ended_total": Metric("counter", "Nodes that ended, and handed over their totals."),
    "aemp_nodes_lost_total": Metric(
        "counter",
        "Nodes that ended without handing over their totals: what they had counted since the last look is missing.",
    ),
}
"""Every figure, by its name."""


# --- of several nodes ---


def merged(several: Iterable[Rows]) -> Rows:
    """Return the figures of several nodes together."""
    found: Rows = {}
    for rows in several:
        for key, value in rows.items():
            found[key] = together(METRICS[key[0]], found[key], value) if key in found else value
    return found


def of_processes(parts: Iterable[tuple[int, Rows]]) -> Rows:
    """Return the figures of several nodes of one host together.

    Args:
        parts: Of each node, the ID of its process, and its figures.
    """
    rows: list[Rows] = []
    processes: dict[Key, dict[int, Value]] = {}
    for pid, figures in parts:
        rows.append({key: value for key, value in figures.items() if not METRICS[key[0]].of_process})
        for key in figures.keys() - rows[-1].keys():
            each = processes.setdefault(key, {})
            each[pid] = _larger(each[pid], figures[key]) if pid in each else figures[key]
    rows.extend({key: value} for key, each in processes.items() for value in each.values())
    return merged(rows)


def totals_in(rows: Rows) -> Rows:
    """Return those figures that others keep when the node has ended."""
    return {key: value for key, value in rows.items() if METRICS[key[0]].is_total}


def together(metric: Metric, one: Value, two: Value) -> Value:
    """Return two values of one metric together."""
    if isinstance(one, list) and isinstance(two, list):
        return [min(each + other, MAX_VALUE) for each, other in zip(one, two, strict=True)]
    assert not isinstance(one, list)  # two of one metric are of one kind
    assert not isinstance(two, list)
    return max(one, two) if metric.largest else min(one + two, MAX_VALUE)


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
        if not all(isinstance(label, str) and len(label) <= MAX_LABEL for label in labels):
            raise ValueError(f"a label of {name} is not a short text")
        key = (name, *map(short_label, labels))
        rows[key] = _value(name, metric, value)
    return rows


def _value(name: str, metric: Metric, value: object) -> Value:
    if not metric.buckets:
        return _number(name, value)
    if not isinstance(value, (list, tuple)) or len(value) != len(metric.buckets) + 2:
        raise ValueError(f"{name} does not have {len(metric.buckets)} buckets")
    return [_number(name, each) for each in value]


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= MAX_VALUE:
        raise ValueError(f"a value of {name} is not a number")
    return value


# --- labels ---


class LabelSets:
    """Gives each metric few labels, whatever nodes send: see :class:`~aemp_gevent.runtime.totals.Labels`."""

    def __init__(self) -> None:
        self._sets = {name: Labels(MAX_LABELS) for name, metric in METRICS.items() if metric.labels}

    def fitted(self, rows: Rows) -> Rows:
        """Return figures with only such labels."""
        for name, *labels in rows:
            if labels:
                self._sets[name].see(labels)
        found: Rows = {}
        for (name, *labels), value in rows.items():
            key = (name, *map(self._sets[name].of, labels)) if labels else (name,)
            found[key] = together(METRICS[name], found[key], value) if key in found else value
        return found


# --- of processes that ended ---


@dataclass(frozen=True)
class EndedProcess:
    """The totals of a process that ended.

    Attributes:
        process: The incarnation of its node.
        pid: Its process ID.
        is_lost: Whether it ended without handing over its totals, so that these are not its last ones.
        rows: Its totals.
    """

    process: str
    pid: int
    is_lost: bool
    rows: Rows

    def counted(self) -> Rows:
        """Return its totals, and one more node that ended."""
        return merged([self.rows, {("aemp_nodes_lost_total" if self.is_lost else "aemp_nodes_ended_total",): 1}])

    def to_travel(self) -> list[Any]:
        """Return it as it is sent."""
        return [self.process, self.pid, self.is_lost, to_travel(self.rows)]

    @classmethod
    def from_afar(cls, sent: object) -> EndedProcess:
        """Return what another node sent.

        Raises:
            ValueError: It is something else.
        """
        if not isinstance(sent, (list, tuple)) or len(sent) != 4:
            raise ValueError("the totals of a process are not a list of four")
        process, pid, is_lost, rows = sent
        if not is_process(process):
            raise ValueError("the process has no name")
        return cls(process, checked_pid(pid), bool(is_lost), totals_in(from_afar(rows)))


def ended_from_afar(sent: object) -> list[EndedProcess]:
    """Return the totals of several processes that another node sent.

    Raises:
        ValueError: They are something else, or too many.
    """
    if not isinstance(sent, (list, tuple)) or len(sent) > 2 * MAX_ENDED:
        raise ValueError("the processes that ended are not a list of acceptable length")
    found = [EndedProcess.from_afar(each) for each in sent]
    if sum(len(each.rows) for each in found) > MAX_ROWS:
        raise ValueError("these are the totals of too many processes")
    return found


def is_process(sent: object) -> TypeGuard[str]:
    """Return whether this can be the name of a process."""
    return isinstance(sent, str) and 0 < len(sent) <= MAX_LABEL


def checked_pid(pid: object) -> int:
    """Return what may be the ID of a process.

    Raises:
        ValueError: It cannot be one.
    """
    if not isinstance(pid, int) or isinstance(pid, bool) or not 0 < pid < 2**31:
        raise ValueError("the ID of the process is not a number that it can be")
    return pid


def both_of(one: EndedProcess, two: EndedProcess) -> EndedProcess:
    """Return what is known of a process from two nodes: of each total the larger value, as none ever falls."""
    rows = dict(one.rows)
    for key, value in two.rows.items():
        rows[key] = _larger(rows[key], value) if key in rows else value
    return EndedProcess(one.process, one.pid, one.is_lost and two.is_lost, rows)


def _larger(one: Value, two: Value) -> Value:
    if isinstance(one, list) and isinstance(two, list):
        return [*map(max, one, two)]
    assert not isinstance(one, list)  # two of one metric are of one kind
    assert not isinstance(two, list)
    return max(one, two)
