# SPDX-License-Identifier: MIT
"""The figures of one node: what each says, how those of several nodes are put together, and what is not accepted."""

from __future__ import annotations

import itertools
import random
import zlib
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from aemp_gevent import CallTimeout, Node, RemoteError
from aemp_gevent.links.traffic import Traffic
from aemp_gevent.node.figures import (
    MAX_LABELS,
    MAX_VALUE,
    METRICS,
    LabelSets,
    Rows,
    from_afar,
    merged,
    to_travel,
    totals_in,
)
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.runtime.totals import MOST_GIVEN, OTHER, Labels
from aemp_gevent.testing import wait_until
from tests.support.networking import MakeNode


def figures(node: Node) -> Rows:
    return from_afar(node.call(node.NODE(), "inspect", ["metrics"])["metrics"]["rows"])


def test_every_metric_keeps_prometheus_rules() -> None:
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert bool(metric.buckets) == metric.kind.endswith("histogram"), name
        assert list(metric.buckets) == sorted(metric.buckets), name
        assert metric.text.endswith("."), name
        assert not (metric.largest and metric.is_total), name
    assert not {label for metric in METRICS.values() for label in metric.labels} & {"port", "host", "le"}


def test_private_node_has_figures_too() -> None:
    node = Node()
    node.port()
    found = figures(node)
    assert found["aemp_nodes",] == 1
    assert found["aemp_ports", "idle"] == 1


def test_mailboxes_are_counted_by_their_depth() -> None:
    node = Node()

    def busy(*_message: Any) -> None:
        """Handle nothing of it before the figures were taken."""

    ports = [node.port(busy) for _ in range(3)]
    for port, number in zip(ports, (1, 7, 150), strict=True):
        for _ in range(number):
            node.snd(port, "x")
    metrics = node._requests.metrics  # without a switch, so that nothing is handled before
    depths = Counter(len(node.scheduler.ports[port].inbox or ()) for port in ports)
    seen = type("Seen", (), {"messages": 158, "states": Counter(queued=3), "depths": depths})
    given = {"messages": 150, "handler": "app.busy", "kind": "callback"}
    figures = dict.fromkeys(("seconds", "lag", "worst_lag", "memory"), None) | {
        "link_count": 0,
        "queue": 3,
        "discarded": 0,
        "cpu": 1.0,
        "refusals": {},
    }
    rows = metrics.rows(figures, seen, [given, {**given, "messages": 7}])
    assert rows["aemp_mailbox_messages",] == [158, 0, 1, 1, 0, 1, 0, 0, 0]
    assert rows["aemp_mailbox_top_messages", "app.busy"] == 150
    assert rows["aemp_ports", "queued"] == 3


def test_calls_are_measured_from_the_first_question_on() -> None:
    node = Node()
    port = node.port()

    def fail() -> None:
        raise ValueError("on purpose")

    node.serve(port, good=lambda: 1, bad=fail)
    node.call(port, "good")
    assert not [key for key in figures(node) if key[0] == "aemp_call_seconds"]
    node.call(port, "good")
    node.call_async(port, "good").get()
    with pytest.raises(RemoteError):
        node.call(port, "bad")
    with pytest.raises(CallTimeout):
        node.call(node.port(lambda *_message: None), "never", timeout=0.01)
    found = figures(node)
    counts = {key[1]: sum(value[1:]) for key, value in found.items() if key[0] == "aemp_call_seconds"}  # type: ignore[index]
    assert counts == {"ok": 2, "error": 1, "timeout": 1}
    assert found["aemp_call_seconds", "timeout"][0] >= 0.01  # type: ignore[index]


def test_monitors_are_counted_by_the_reason_of_the_death() -> None:
    node = Node()
    fired: list[Any] = []
    for reason in ((), ("die", "x"), ("my", "reason")):
        port = node.port()
        node.mon(port, lambda *reason: fired.append(reason))
        node.mon(port, lambda *reason: fired.append(reason)).cancel()
        node.kil(port, *reason)
    wait_until(lambda: len(fired) == 3)
    found = figures(node)
    assert {key[1]: value for key, value in found.items() if key[0] == "aemp_monitors_fired_total"} == {
        "normal": 1,
        "die": 1,
        OTHER: 1,
    }


@pytest.mark.parametrize(
    ("reason", "label"),
    [
        pytest.param((), "normal", id="normal"),
        pytest.param(("shutdown", "a"), "shutdown", id="known"),
        pytest.param(("port-17",), OTHER, id="own"),
        pytest.param((17,), OTHER, id="no-text"),
        pytest.param(([],), OTHER, id="unhashable"),
    ],
)
def test_reason_becomes_one_of_few_labels(reason: tuple[Any, ...], label: str) -> None:
    scheduler = Node().scheduler
    assert Monitor(None, print, None, scheduler).died(reason)
    assert {cause: count for cause, count in scheduler.totals.fired.items() if count} == {label: 1}


def test_labels_are_few_and_do_not_depend_on_the_order() -> None:
    values = list("abcdefgh")
    found = set()
    for order in itertools.permutations(values, 3):
        labels = Labels(2)
        labels.see(order)
        labels.see(values)
        found.add(tuple(map(labels.of, values)))
    (chosen,) = found
    assert sorted(chosen).count(OTHER) == 6


def test_labels_are_bounded_over_time_whatever_values_come() -> None:
    given = set()
    labels = Labels(2)
    for value in sorted(map(str, range(1000)), key=lambda text: zlib.crc32(text.encode()), reverse=True):
        labels.see([value])
        given.add(labels.of(value))
    assert len(given - {OTHER}) == 2 * MOST_GIVEN


def test_sum_over_processes_that_saw_more_than_have_labels_is_right() -> None:
    peers = [f"peer{number}" for number in range(300)]
    of_workers = []
    for seed in range(3):
        random.Random(seed).shuffle(peers)
        labels, rows = LabelSets(), {}
        for count in (50, 150, 300):  # a worker fits its figures each time that somebody asks
            rows = {("aemp_link_messages_sent_total", peer): float(count) for peer in peers[:count]}
            fitted = labels.fitted(rows)
        of_workers.append(fitted)
    page = LabelSets().fitted(merged(of_workers))
    with_label = {key[1]: value for key, value in page.items() if key[1] != OTHER}
    assert set(with_label.values()) == {900.0}
    assert len(with_label) == MAX_LABELS
    assert page["aemp_link_messages_sent_total", OTHER] == 900.0 * (300 - MAX_LABELS)


def test_traffic_of_more_peers_than_have_labels_is_added_up() -> None:
    class Ended:
        received_packets, sent_packets, received, is_up, closed = 1, 2, 3, True, True
        transport = SimpleNamespace(sent=4)

        def __init__(self, number: int) -> None:
            self.greeting: Any = SimpleNamespace(node=f"shop/host{number}")

    traffic = Traffic([])
    for number in range(MAX_LABELS + 50):
        traffic.ended(Ended(number))
    sums = traffic.sums()
    assert len(sums) == MAX_LABELS + 1
    assert sums[OTHER] == (50, 100, 150, 200)


def test_pauses_of_senders_are_counted(make_node: MakeNode) -> None:
    one = make_node(high_water_bytes=1000)
    two = make_node("127.0.0.1:0", one.NODE())
    got: list[int] = []
    sink = two.port(lambda data: got.append(len(data)))
    assert two.syncal(10, one.NODE(), "time")
    for _ in range(20):
        one.snd(sink, "x" * 50_000)
    wait_until(lambda: len(got) == 20)
    found = figures(one)
    pauses, seconds = found["aemp_sender_pauses_total",], found["aemp_sender_paused_seconds_total",]
    assert isinstance(pauses, float) and pauses >= 1
    assert isinstance(seconds, float) and seconds > 0


def test_traffic_of_a_link_that_ended_stays_in_the_sum(make_node: MakeNode) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    got: list[Any] = []
    sink = one.port(lambda *message: got.append(message))
    for number in range(100):
        two.snd(sink, number)
    wait_until(lambda: len(got) == 100)
    key = ("aemp_link_messages_received_total", two.NODE())
    bytes_key = ("aemp_link_bytes_received_total", two.NODE())
    before = figures(one)
    assert before[key] >= 100  # type: ignore[operator]
    two.shutdown()
    wait_until(lambda: not one.up_nodes())
    after = figures(one)
    assert after[key] >= before[key]  # type: ignore[operator]
    assert after[bytes_key] >= before[bytes_key]  # type: ignore[operator]
    assert ("aemp_link_unsent_bytes", two.NODE()) not in after


def test_processes_that_replace_each_other_have_one_label(make_node: MakeNode) -> None:
    one = make_node()
    for _ in range(3):
        worker = make_node(None)
        worker.configure(nodeid="web/%u", seeds=[one.NODE()], secret="a secret of the tests")
        worker.wait_for_seeds()
        worker.shutdown()
    labels = {key[1] for key in figures(one) if key[0] == "aemp_link_messages_received_total"}
    assert labels == {"web/*"}


def test_figures_travel_as_they_are() -> None:
    node = Node()
    rows = figures(node)
    assert from_afar(to_travel(rows)) == rows
    assert from_afar([["aemp_of_a_later_version", [], "odd"]]) == {}
    assert from_afar([["aemp_ports", ["\ud800"], 1]]) == {("aemp_ports", "?"): 1}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param({}, id="map"),
        pytest.param([["aemp_nodes", []]], id="short"),
        pytest.param([["aemp_nodes", ["x"], 1]], id="label"),
        pytest.param([["aemp_ports", ["x" * 201], 1]], id="long-label"),
        pytest.param([["aemp_ports", [7], 1]], id="number-as-label"),
        pytest.param([["aemp_nodes", [], -1]], id="negative"),
        pytest.param([["aemp_nodes", [], float("nan")]], id="nan"),
        pytest.param([["aemp_nodes", [], 10**400]], id="huge"),
        pytest.param([["aemp_nodes", [], True]], id="bool"),
        pytest.param([["aemp_call_seconds", ["ok"], [1, 2]]], id="buckets"),
        pytest.param([["aemp_nodes", [], 1]] * 6000, id="many"),
    ],
)
def test_what_is_not_figures_is_refused(sent: Any) -> None:
    with pytest.raises(ValueError, match="."):
        from_afar(sent)


def test_figures_of_several_nodes_are_added_up_or_the_largest_counts() -> None:
    one: Rows = {("aemp_nodes",): 1, ("aemp_loop_lag_seconds",): 3.0, ("aemp_mailbox_messages",): [1.0, 2.0]}
    two: Rows = {("aemp_nodes",): 1, ("aemp_loop_lag_seconds",): 2.0, ("aemp_mailbox_messages",): [5.0, 6.0]}
    both = merged([one, two])
    assert both == {("aemp_nodes",): 2, ("aemp_loop_lag_seconds",): 3.0, ("aemp_mailbox_messages",): [6.0, 8.0]}
    assert totals_in(both) == {}


def test_sums_can_always_be_sent() -> None:
    rows: Rows = {("aemp_cpu_seconds_total",): MAX_VALUE}
    assert from_afar(to_travel(merged([rows, rows]))) == rows
