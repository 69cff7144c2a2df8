# SPDX-License-Identifier: MIT
"""The figures of a node for systems that monitor many: the part ``metrics`` of the answer to ``inspect``.

:data:`~aemp_gevent.node.figures.METRICS` is the table of all of them. Most are read from what exists when somebody
asks. The time that calls take is measured from the first question on, so that nodes which nobody monitors pay nothing.

A node also reports the totals of processes that ended and handed them over. Those of the last ones are kept apart, by
process, so that who adds up several nodes can see that two of them keep the same.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Protocol

from aemp_gevent.errors import CallTimeout, PortDied
from aemp_gevent.links.traffic import label_of
from aemp_gevent.node.figures import (
    CALL_SECONDS,
    DEPTHS,
    MAX_ENDED,
    METRICS,
    EndedProcess,
    LabelSets,
    Rows,
    both_of,
    merged,
    to_travel,
    together,
)
from aemp_gevent.peers.network import Network
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.totals import CHILD_RESTARTS, PAUSED_SECONDS, PAUSES, RESTARTS, short_label

if TYPE_CHECKING:
    from aemp_gevent.calls.watching import CallWatch

MAX_FULLEST = 10
"""The fullest mailboxes that are looked at one by one."""

MAX_ADDED = 200
"""Processes that are remembered as those whose totals were added to a node's own."""

MAX_ENDED_ROWS = 2000
"""Figures of all these together."""


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
        self._labels = LabelSets()
        self._ended: dict[str, EndedProcess] = {}  # processes whose totals are kept apart
        self._added: Rows = {}  # the totals of processes that ended before
        self._added_of: deque[str] = deque(maxlen=MAX_ADDED)
        self._last: Rows | None = None  # the own totals that are being handed over
        self.heir = ""
        """The node that has this one's totals, and reports them; ``""``: none."""

    def answer(
        self, figures: Mapping[str, Any], seen: SeenPorts, fullest: Iterable[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Return the part of the answer to ``inspect``: see :meth:`rows`."""
        return {
            "process": self._process,
            "heir": self.heir,
            "kept": [] if self.heir else list(self._added_of),
            "ended": [] if self.heir else [each.to_travel() for each in self._ended.values()],
            "rows": to_travel(self.rows(figures, seen, fullest)),
        }

    @property
    def _process(self) -> str:
        network = self._host.network
        return "" if network is None else network.incarnation

    # --- processes that ended ---

    def keep(self, several: Iterable[EndedProcess]) -> None:
        """Report the totals of processes that ended from now on. Idempotent.

        Raises:
            ValueError: This node is handing over its own at this moment.
        """
        if self._last is not None:
            raise ValueError("this node is handing over its own totals")
        for each in several:
            if each.process in self._added_of or each.process == self._process:
                continue
            known = self._ended.get(each.process)
            fitting = EndedProcess(each.process, each.pid, each.is_lost, self._labels.fitted(each.rows))
            self._ended[each.process] = fitting if known is None else both_of(known, fitting)
        while len(self._ended) > MAX_ENDED or sum(len(each.rows) for each in self._ended.values()) > MAX_ENDED_ROWS:
            self._add_oldest()

    def keeps(self, process: str) -> bool:
        """Return whether this node keeps the totals of a process."""
        return process in self._ended or process in self._added_of

    def forget(self, process: str) -> EndedProcess | None:
        """Report a process's totals no more, because another node does; return them if they were kept apart."""
        return self._ended.pop(process, None)

    def _add_oldest(self) -> None:
        oldest = self._ended.pop(next(iter(self._ended)))
        rows = oldest.counted()
        if oldest.pid in {os.getpid(), *(each.pid for each in self._ended.values())}:
            # Another node of that process reports these, with larger values.
            rows = {key: value for key, value in rows.items() if not METRICS[key[0]].of_process}
        self._added = self._labels.fitted(merged([self._added, rows]))
        self._added_of.append(oldest.process)

    def freeze(self) -> list[EndedProcess]:
        """Return all totals, to hand them over, and report them unchanged from now on."""
        if self._last is None:
            self._last = self.totals()
        return [EndedProcess(self._process, os.getpid(), False, self._last), *self._ended.values()]

    def thaw(self) -> None:
        """Count again: nobody took the totals."""
        self._last = None

    # --- the node's own figures ---

    def rows(self, figures: Mapping[str, Any], seen: SeenPorts, fullest: Iterable[Mapping[str, Any]]) -> Rows:
        """Return the figures, without those of processes that are kept apart. Never switches.

        Args:
            figures: What ``inspect`` answers about the node as a whole.
            seen: The ports.
            fullest: What it answers about the ports with most messages.
        """
        if self._calls is None:
            self._calls = CallTimes()
            self._host.watch_calls(self._calls)
        rows: Rows = {("aemp_nodes",): 1}
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
                _add(rows, "aemp_mailbox_top_messages", port["handler"] or port["kind"], port["messages"])
        for family, entries in self._host.own_families.items():
            _add(rows, "aemp_directory_entries", family, entries)
        network = self._host.network
        if network is not None:
            for one in network.up_peers():
                _add(rows, "aemp_link_unsent_bytes", label_of(one.node), one.unsent)
        rows = self._labels.fitted(rows)
        if self.heir:
            return rows
        return rows | (self.totals() if self._last is None else self._last)

    def totals(self) -> Rows:
        """Return those figures that others keep when the node has ended. Never switches."""
        scheduler, network = self._host.scheduler, self._host.network
        rows: Rows = {("aemp_nodes_ended_total",): 0, ("aemp_nodes_lost_total",): 0}
        rows["aemp_messages_discarded_total",] = scheduler.discarded
        rows["aemp_cpu_seconds_total",] = process_time()
        rows["aemp_sender_pauses_total",] = scheduler.totals.get((PAUSES,), 0)
        rows["aemp_sender_paused_seconds_total",] = scheduler.totals.get((PAUSED_SECONDS,), 0)
        for (name, *label), value in list(scheduler.totals.items()):
            if name in _LABELLED:
                _add(rows, _LABELLED[name], label[0], value)
        for cause, count in scheduler.totals.fired.items():
            if count:
                rows["aemp_monitors_fired_total", cause] = count
        if network is not None:
            self._add_links(rows, network)
        if self._calls is not None:
            rows |= self._calls.rows()
        return self._labels.fitted(merged([rows, self._added]))

    @staticmethod
    def _add_links(rows: Rows, network: Network) -> None:
        for kind, count in network.refusals.items():
            _add(rows, "aemp_refusals_total", kind, count)
        watch = network.loop_watch
        if watch is not None:
            rows["aemp_loop_blocks_total",] = watch.blocks
            rows["aemp_loop_blocked_seconds_total",] = watch.blocked_seconds
        for peer, carried in network.link_maker.traffic.sums().items():
            _add(rows, "aemp_link_messages_received_total", peer, carried.packets_in)
            _add(rows, "aemp_link_messages_sent_total", peer, carried.packets_out)
            _add(rows, "aemp_link_bytes_received_total", peer, carried.bytes_in)
            _add(rows, "aemp_link_bytes_sent_total", peer, carried.bytes_out)


def _add(rows: Rows, metric: str, label: str, value: float) -> None:
    key = (metric, short_label(label))
    rows[key] = together(METRICS[metric], rows[key], value) if key in rows else value


_FIGURES = {
    "aemp_uptime_seconds": "seconds",
    "aemp_links": "link_count",
    "aemp_run_queue_length": "queue",
    "aemp_loop_lag_seconds": "lag",
    "aemp_loop_worst_lag_seconds": "worst_lag",
    "aemp_memory_bytes": "memory",
}
"""Metrics that are figures of the node as a whole."""

_LABELLED = {
    RESTARTS: "aemp_service_restarts_total",
    CHILD_RESTARTS: "aemp_supervisor_restarts_total",
}
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
