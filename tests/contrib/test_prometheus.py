# SPDX-License-Identifier: MIT
"""Figures for Prometheus: of one node, of workers that end and are killed, and of many."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest

from aemp_gevent import Node
from aemp_gevent.contrib.heirs import Answer, asked, estate_of, figures_of_all
from aemp_gevent.node.metrics import METRICS, to_travel
from aemp_gevent.testing import MemoryNetwork, NodeProcess
from tests.contrib.test_gunicorn import gunicorn_of
from tests.support.helpers import wait_until
from tests.support.networking import MakeNode

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra 'prometheus' is not installed")

from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from aemp_gevent.contrib.prometheus import MISSING, Collector, metrics, metrics_app, serve_metrics  # noqa: E402

Samples = dict[tuple[str, ...], float]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def samples_in(text: str) -> Samples:
    """Return what prometheus_client's own parser finds, without exemplars and times."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraper_of(collector: Any) -> Callable[[], Samples]:
    registry = prometheus_client.CollectorRegistry()
    registry.register(collector)
    return lambda: samples_in(prometheus_client.generate_latest(registry).decode())


def totals(found: Samples) -> Samples:
    return {
        key: value for key, value in found.items() if re.search(r"_total$|call_seconds_(count|sum|bucket)$", key[0])
    }


def assert_nothing_fell(before: Samples, after: Samples) -> None:
    fallen = {key: (value, after.get(key)) for key, value in totals(before).items() if after.get(key, -1.0) < value}
    assert not fallen


def test_page_has_every_metric_with_text_and_type() -> None:
    registry = prometheus_client.CollectorRegistry()
    registry.register(Collector(node=Node()))
    text = prometheus_client.generate_latest(registry).decode()
    for name in [*METRICS, MISSING]:
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} " in text
    assert samples_in(text)["aemp_nodes",] == 1


def test_registering_a_collector_asks_nobody() -> None:
    node = Node()
    prometheus_client.CollectorRegistry(auto_describe=True).register(Collector("host", node=node))
    assert not node.scheduler.ports


def test_scope_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match="scope must be one of .*'process', 'host', 'network'.*, not 'all'"):
        Collector("all")  # type: ignore[arg-type]


def test_collecting_in_another_native_thread_says_so(make_node: MakeNode) -> None:
    from aemp_gevent.errors import WrongThreadError

    node = make_node()
    scrape = scraper_of(Collector(node=node))
    with pytest.raises(WrongThreadError, match="collecting metrics"):
        gevent.get_hub().threadpool.apply(scrape)


def test_wsgi_page_is_at_its_path_and_behind_its_token() -> None:
    node = Node()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"the application"]

    page = metrics(app, "/m", scope="process", node=node, token="Grüße")

    def get(path: str, **more: str) -> tuple[str, bytes]:
        statuses: list[str] = []
        body = b"".join(page({"PATH_INFO": path, **more}, lambda status, headers: statuses.append(status)))  # type: ignore[arg-type]
        return statuses[0], body

    assert get("/") == ("200 OK", b"the application")
    assert get("/m")[0] == "401 Unauthorized"
    assert get("/m", HTTP_AUTHORIZATION="Bearer wrong") == ("401 Unauthorized", b"")
    status, body = get("/m", HTTP_AUTHORIZATION="Bearer Grüße")
    assert status == "200 OK"
    assert b"aemp_nodes 1.0" in body
    both = metrics_app("process", node=node, registry=prometheus_client.REGISTRY)
    found = b"".join(both({"HTTP_ACCEPT": "application/openmetrics-text"}, lambda *_: None))  # type: ignore[arg-type]
    assert found.count(b"# EOF") == 1
    assert b"aemp_nodes" in found and b"python_info" in found


def test_page_has_an_address_of_its_own() -> None:
    server = serve_metrics("127.0.0.1:0", node=Node())
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)) as connection:
            answer = gevent.get_hub().threadpool.apply(
                lambda: (connection.request("GET", "/metrics"), connection.getresponse().read())[1]
            )
        assert samples_in(answer.decode())["aemp_nodes",] == 1
    finally:
        server.stop(timeout=1)


@pytest.mark.parametrize("address", ["9100", "host:", ":65536", ":x", ""])
def test_wrong_address_is_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        serve_metrics(address, node=Node())


# --- several nodes ---


class Workers:
    """Nodes of a simulated network that seem to be on one host."""

    def __init__(self) -> None:
        self._network = MemoryNetwork()
        self.nodes: list[Node] = []

    def add(self) -> Node:
        """Return a node that is linked to all that are there."""
        return self.add_to(*(node for node in self.nodes if node._network and not node._network.is_closed))

    def add_to(self, *others: Node) -> Node:
        seeds = [node.NODE() for node in others]
        node = self._network.node(f"127.0.0.1:{len(self.nodes) + 1}", *seeds)
        self.nodes.append(node)
        node.wait_for_seeds()
        assert estate_of(node) is not None
        return node


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    for node in made.nodes:
        node.shutdown(0.5)


def work(node: Node, times: int) -> None:
    port = node.port()
    node.serve(port, add=lambda: None)
    for _ in range(times):
        node.call(port, "add")
    node.kil(port)


def calls(found: Samples) -> float:
    return found["aemp_call_seconds_count", "ok"]


def test_one_page_shows_all_nodes_of_a_host(workers: Workers) -> None:
    nodes = [workers.add() for _ in range(3)]
    scrape = scraper_of(Collector("host", node=nodes[0]))
    first = scrape()
    assert first["aemp_nodes",] == 3
    for node in nodes[1:]:
        work(node, 4)
    assert calls(scrape()) == 8


def test_totals_never_fall_while_nodes_end_and_others_begin(workers: Workers) -> None:
    keeper, *nodes = [workers.add() for _ in range(3)]
    scrape = scraper_of(Collector("host", node=keeper))
    before = scrape()
    for _ in range(5):
        leaving = nodes.pop(0)
        work(leaving, 3)
        leaving.shutdown(1)
        nodes.append(workers.add())
        after = scrape()
        assert_nothing_fell(before, after)
        before = after
    assert calls(before) == 15
    assert before["aemp_nodes_ended_total",] == 5
    assert before["aemp_nodes_lost_total",] == 0


def test_totals_survive_the_node_that_kept_them(workers: Workers) -> None:
    one, two, three = [workers.add() for _ in range(3)]
    scrape = scraper_of(Collector("host", node=three))
    scrape()
    work(two, 5)
    two.shutdown(1)
    one.shutdown(1)  # the heir of the first, as its ID comes first
    found = scrape()
    assert calls(found) == 5
    assert found["aemp_nodes_ended_total",] == 2


def test_totals_that_another_node_keeps_count_once() -> None:
    def answer(node: str, *kept: str, heir: str = "") -> Answer:
        rows = {("aemp_nodes",): 1.0} | ({} if heir else {("aemp_messages_discarded_total",): 5.0})
        return Answer(node, f"process of {node}", "host", 1, heir, frozenset(kept), rows)

    both = figures_of_all([answer("a", "process of b"), answer("b")])
    assert both == {("aemp_nodes",): 2, ("aemp_messages_discarded_total",): 5}


def test_node_that_keeps_totals_takes_each_process_once(make_node: MakeNode) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    estate_of(one)
    rows = to_travel({("aemp_messages_discarded_total",): 5.0})
    for _ in range(2):
        two.call(f"{one.NODE()}#aemp.totals", "keep", "a process", rows, False)
    found = scraper_of(Collector("host", node=one))()
    assert found["aemp_messages_discarded_total",] == 5
    with pytest.raises(Exception, match="not a number"):
        two.call(f"{one.NODE()}#aemp.totals", "keep", "x", [["aemp_nodes", [], "many"]], False)


@pytest.mark.slow
def test_killed_node_is_counted_and_what_was_seen_of_it_stays(make_node: MakeNode) -> None:
    keeper = make_node()
    scrape = scraper_of(Collector("host", node=keeper))
    scrape()
    with NodeProcess(seeds=[keeper.NODE()]) as worker:
        wait_until(lambda: keeper.node_is_up(worker.node))
        scrape()
        code = ["from aemp_gevent import port, serve, call", "asked = port()", "serve(asked, x=lambda: 1)"]
        code += ["for _ in range(7): call(asked, 'x')"]
        worker.run("\n".join(code))
        seen = wait_until(lambda: (found := scrape()).get(("aemp_call_seconds_count", "ok")) == 7 and found)
        worker.kill()
        wait_until(lambda: scrape()["aemp_nodes_lost_total",] == 1, within=20)
    after = scrape()
    assert_nothing_fell(seen, after)
    assert after["aemp_nodes",] == 1


def test_node_that_does_not_answer_is_reported_and_its_totals_stay(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    scrape = scraper_of(Collector("host", node=one, timeout=0.3))
    scrape()
    work(two, 3)
    before = scrape()
    monkeypatch.setattr(two._requests._inspection, "ask", lambda *_: None)
    after = scrape()
    assert after[MISSING,] == 1
    assert after["aemp_nodes",] == 1
    assert_nothing_fell({key: value for key, value in before.items() if key[0] != "aemp_cpu_seconds_total"}, after)


def test_rules_decide_who_sees_the_figures(make_node: MakeNode) -> None:
    one = make_node(rules=[{"peer": "*", "inspect": False}])
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    answers, silent = asked(two, [one.NODE()], 5)
    assert not answers
    assert "refuses" in silent[one.NODE()]


def test_network_page_has_a_label_for_hosts(make_node: MakeNode) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    found = scraper_of(Collector("network", node=two))()
    assert found["aemp_nodes", socket.gethostname()] == 2


@pytest.mark.slow
@pytest.mark.no_cover
def test_forty_eight_workers_are_scraped_quickly_and_a_thousand_restarts_change_nothing(workers: Workers) -> None:
    first_node = workers.add()
    nodes = [first_node, *(workers.add_to(first_node) for _ in range(47))]
    scrape = scraper_of(Collector("host", node=nodes[0]))
    first = scrape()
    assert first["aemp_nodes",] == 48
    taken: list[float] = []
    for _ in range(5):
        began = time.process_time()  # of all nodes together, and not while others use the processor
        scrape()
        taken.append(time.process_time() - began)
    assert min(taken) < 0.1
    keeper = nodes[0]._requests.metrics
    for number in range(1000):
        keeper.keep(f"process {number}", {("aemp_messages_discarded_total",): 1.0}, lost=False)
    assert scrape()["aemp_messages_discarded_total",] == 1000
    assert len(scrape()) == len(first)
    assert len(keeper._kept_of) <= 200


PAGES = """
from aemp_gevent.contrib.prometheus import metrics
from aemp_gevent import port, serve, call

def app(environ, start_response):
    p = port(); serve(p, x=lambda: 1); call(p, "x")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

app = metrics(app)
"""


@pytest.mark.slow
def test_page_of_gunicorn_workers_that_are_replaced_never_falls(scratch: Path) -> None:
    (scratch / "app.py").write_text(PAGES)
    (scratch / "gunicorn.conf.py").write_text("from aemp_gevent.contrib.gunicorn import *")

    def get(path: str) -> str:
        with gevent.socket.socket(socket.AF_UNIX) as browser:
            browser.settimeout(30)
            browser.connect(str(scratch / "http"))
            browser.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return browser.makefile("rb").read().partition(b"\r\n\r\n")[2].decode()

    def scrape() -> Samples:
        return samples_in(get("/metrics"))

    def is_up() -> bool:
        try:
            return scrape()["aemp_nodes",] == 2
        except OSError:
            return False

    with gunicorn_of(scratch, "-k", "gevent", "--max-requests", "15", workers=2) as server:
        wait_until(is_up, within=30)
        before = scrape()
        requests = 0
        until = time.monotonic() + 60
        while before.get(("aemp_nodes_ended_total",), 0) < 3 and time.monotonic() < until:
            get("/")
            requests += 1
            after = scrape()
            assert_nothing_fell(before, after)
            before = after
        assert before["aemp_nodes_ended_total",] >= 3
        assert before["aemp_nodes_lost_total",] == 0
        assert calls(before) <= requests
        os.kill(server.pid, signal.SIGTERM)
        server.wait(30)
