# SPDX-License-Identifier: MIT
"""Figures for Prometheus: of one node, of workers that end and are killed, and of many."""

from __future__ import annotations

import http.client
import itertools
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event

from aemp_gevent import Node
from aemp_gevent.contrib import heirs
from aemp_gevent.contrib.heirs import _birth_of, _Remembered, estate_of
from aemp_gevent.contrib.reported_figures import Answer, asked, figures_of_all
from aemp_gevent.errors import RemoteError
from aemp_gevent.links.link import Link
from aemp_gevent.node.access import metrics_of, network_of, request_host_of
from aemp_gevent.node.figures import MAX_ENDED, METRICS, EndedProcess, Rows, of_processes
from aemp_gevent.testing import MemoryNetwork, NodeProcess
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


def host_scraper_of(node: Node) -> Callable[[], Samples]:
    return scraper_of(Collector("host", node=node, timeout=30))


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
    prometheus_client.CollectorRegistry(auto_describe=True).register(Collector("host", node=node, timeout=30))
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
    in_utf_8 = "Grüße".encode().decode("latin-1")  # as WSGI has it
    assert get("/m", HTTP_AUTHORIZATION=f"bearer {in_utf_8}")[0] == "200 OK"
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
        self.network = MemoryNetwork()
        self.nodes: list[Node] = []

    def add(self) -> Node:
        """Return a node that is linked to all that are there."""
        return self.add_to(*(node for node in self.nodes if node._network and not node._network.is_closed))

    def add_to(self, *others: Node) -> Node:
        seeds = [node.NODE() for node in others]
        node = self.network.node(f"127.0.0.1:{len(self.nodes) + 1}", *seeds)
        self.nodes.append(node)
        node.wait_for_seeds()
        assert estate_of(node) is not None
        return node


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    for name in ("_ASK_SECONDS", "_HAND_OVER_SECONDS"):
        monkeypatch.setattr(heirs, name, 30.0)  # a busy machine must not decide which node is the heir
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


def worker_of_four_calls(workers: Workers) -> tuple[Node, Node, Callable[[], Samples], Samples]:
    """Return a node that shows a page, one that has made four calls, the page, and what it showed of them."""
    keeper, worker = workers.add(), workers.add()
    scrape = host_scraper_of(keeper)
    scrape()
    work(worker, 4)
    return keeper, worker, scrape, scrape()


def test_one_page_shows_all_nodes_of_a_host(workers: Workers) -> None:
    nodes = [workers.add() for _ in range(3)]
    scrape = host_scraper_of(nodes[0])
    first = scrape()
    assert first["aemp_nodes",] == 3
    for node in nodes[1:]:
        work(node, 4)
    assert calls(scrape()) == 8


def test_totals_never_fall_while_nodes_end_and_others_begin(workers: Workers) -> None:
    keeper, *nodes = [workers.add() for _ in range(3)]
    scrape = host_scraper_of(keeper)
    before = scrape()
    for _ in range(5):
        leaving = nodes.pop(0)
        work(leaving, 3)
        leaving.shutdown(30)
        nodes.append(workers.add())
        after = scrape()
        assert_nothing_fell(before, after)
        before = after
    assert calls(before) == 15
    assert before["aemp_nodes_ended_total",] == 5
    assert before["aemp_nodes_lost_total",] == 0


def test_totals_survive_the_node_that_kept_them(workers: Workers) -> None:
    one, two, three = [workers.add() for _ in range(3)]
    scrape = host_scraper_of(three)
    scrape()
    work(two, 5)
    two.shutdown(30)
    one.shutdown(30)  # the heir of the first, as its ID comes first
    found = scrape()
    assert calls(found) == 5
    assert found["aemp_nodes_ended_total",] == 2


DISCARDED = ("aemp_messages_discarded_total",)
CPU = ("aemp_cpu_seconds_total",)
CLEAN, LOST = ("aemp_nodes_ended_total",), ("aemp_nodes_lost_total",)


def ended(process: str, discarded: float = 5.0, *, lost: bool = False, pid: int = 1, cpu: float = 0.0) -> EndedProcess:
    return EndedProcess(process, pid, lost, {DISCARDED: discarded} | ({CPU: cpu} if cpu else {}))


def answer(
    node: str, *kept: EndedProcess, discarded: float = 0.0, added: Iterable[str] = (), heir: str = "", **more: Any
) -> Answer:
    rows: Rows = {("aemp_nodes",): 1.0} | ({} if heir else {DISCARDED: discarded})
    rows |= {CPU: more.pop("cpu")} if "cpu" in more else {}
    pid = more.pop("pid", 1000 + len(node))
    return Answer(node, f"process of {node}", "host", pid, heir, frozenset(added), rows, kept)


def test_totals_of_a_process_count_once_although_two_keep_them() -> None:
    found = figures_of_all([answer("a", ended("x")), answer("b", ended("x", lost=True))], [answer("other")])
    assert found == {("aemp_nodes",): 2, DISCARDED: 5, CLEAN: 1}


def test_what_is_remembered_of_a_process_counts_until_another_node_keeps_it() -> None:
    remembered = [answer("gone", ended("x"), discarded=7.0)]
    assert figures_of_all([answer("a")], remembered)[DISCARDED] == 12
    kept = ended("process of gone", 6.0, lost=True)
    both = figures_of_all([answer("a", kept)], remembered)
    assert both == {("aemp_nodes",): 1, DISCARDED: 12, LOST: 1, CLEAN: 1}, "the one who keeps it knew less"
    added = figures_of_all([answer("a", added=["process of gone"])], remembered)
    assert added[DISCARDED] == 0, "what it kept itself was handed over with it"


def test_node_that_answers_is_believed_about_itself() -> None:
    liar = answer("liar", ended("process of b", 900.0), added=["process of b"])
    assert figures_of_all([liar, answer("b", discarded=5.0)])[DISCARDED] == 5


def test_nodes_of_one_process_report_its_processor_time_once() -> None:
    nodes = [
        answer("a", pid=7, cpu=3.0),
        answer("b", pid=7, cpu=4.0),
        answer("c", ended("x", pid=7, cpu=2.0), pid=8, cpu=1.0),
    ]
    assert figures_of_all(nodes)[CPU] == 5


def test_processor_time_of_a_process_whose_node_lives_on_is_added_once() -> None:
    metrics = metrics_of(Node())
    metrics.keep([ended(f"process {number}", pid=7, cpu=float(number)) for number in range(1, MAX_ENDED + 9)])
    parts = [(each.pid, each.rows) for each in metrics.freeze()]
    cpu = of_processes([(pid, rows) for pid, rows in parts if pid == 7])[CPU]
    assert cpu == MAX_ENDED + 8
    assert CPU not in metrics._added, "the oldest ones were of the same process"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_zombie_and_process_of_the_same_number_are_not_alive() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        os.kill(child.pid, 0)  # it is still there
        assert _birth_of(child.pid) is None
    born = _birth_of(os.getpid())
    remembered = _Remembered(answer("a", pid=os.getpid()), born)
    assert not remembered.is_gone
    remembered.born = "earlier"
    assert remembered.is_gone


@pytest.fixture
def keeper(make_node: MakeNode) -> tuple[Node, Node]:
    """Two linked nodes, of which the first keeps totals."""
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    assert estate_of(one) is not None
    return one, two


def test_node_that_keeps_totals_takes_each_process_once(keeper: tuple[Node, Node]) -> None:
    one, two = keeper
    sent = [ended("a process").to_travel()]
    assert [two.call(f"{one.NODE()}#aemp.totals", "keep", sent) for _ in range(2)] == [True, False]
    found = host_scraper_of(one)()
    assert found[DISCARDED] == 5


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        pytest.param({}, "not a list", id="map"),
        pytest.param([["x", 1, False]], "not a list of four", id="short"),
        pytest.param([["", 1, False, []]], "no name", id="nameless"),
        pytest.param([["x", 2**40, False, []]], "ID of the process", id="pid"),
        pytest.param([["x", 1, False, [["aemp_nodes", [], "many"]]]], "not a number", id="text"),
        pytest.param([["x", 1, False, [["aemp_cpu_seconds_total", [], 1e308]]]], "not a number", id="huge"),
        pytest.param([["x", 1, False, []]] * 999, "acceptable length", id="many"),
    ],
)
def test_totals_of_another_form_are_refused(keeper: tuple[Node, Node], sent: Any, why: str) -> None:
    one, two = keeper
    with pytest.raises(RemoteError, match=why):
        two.call(f"{one.NODE()}#aemp.totals", "keep", sent)


@pytest.mark.parametrize(("tag", "argument"), [("keep", []), ("forget", "x")])
def test_only_nodes_of_the_host_have_a_say_in_what_is_kept(
    keeper: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch, tag: str, argument: Any
) -> None:
    one, two = keeper
    network = network_of(one)
    assert network is not None
    link = network.up_peers()[0].link
    assert isinstance(link, Link)
    monkeypatch.setattr(type(link.transport), "peer_address", "192.0.2.1:4040")
    with pytest.raises(RemoteError, match="only nodes of the same host"):
        two.call(f"{one.NODE()}#aemp.totals", tag, argument)


def test_labels_are_few_whatever_nodes_send(keeper: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = keeper
    scrape = host_scraper_of(one)
    honest = len(scrape())
    numbers = itertools.count()

    def many(*_: Any) -> Rows:
        return {("aemp_link_bytes_sent_total", str(next(numbers))): 1.0 for _ in range(300)}

    monkeypatch.setattr(metrics_of(two), "rows", many)
    assert max(len(scrape()) for _ in range(3)) <= honest + 101
    metrics_of(one).keep([EndedProcess(f"process {number}", 1, False, many()) for number in range(9)])
    assert len(metrics_of(one).totals()) <= honest + 101
    assert scrape()[MISSING,] == 0


def test_answer_counts_for_the_node_that_was_asked(keeper: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = keeper
    inspection = two._requests._inspection
    figures = inspection._figures
    monkeypatch.setattr(inspection, "_figures", lambda *args: {**figures(*args), "node": one.NODE()})
    answers, silent = asked(one, [one.NODE(), two.NODE()], 5)
    assert [found.node for found in answers] == [one.NODE()]
    assert "as another node" in silent[two.NODE()]


def test_heir_that_answers_too_late_does_not_double_totals(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    late, other, leaving = [workers.add() for _ in range(3)]
    scrape = host_scraper_of(other)
    scrape()
    work(leaving, 5)
    keep, has_time = metrics_of(late).keep, Event()

    def keep_late(several: list[EndedProcess]) -> None:
        has_time.wait(30)
        keep(several)

    monkeypatch.setattr(metrics_of(late), "keep", keep_late)
    estate = estate_of(leaving)
    assert estate is not None
    give = estate._give

    def give_without_waiting(heir: str, totals: Sequence[EndedProcess]) -> bool | None:
        if heir != late.NODE():
            return give(heir, totals)
        gevent.spawn(give, heir, totals)
        return None

    monkeypatch.setattr(estate, "_give", give_without_waiting)
    leaving.shutdown(30)
    assert metrics_of(leaving).heir == other.NODE()
    assert calls(scrape()) == 5
    has_time.set()
    process = next(iter(metrics_of(other)._ended))
    wait_until(lambda: metrics_of(late).keeps(process))
    assert calls(scrape()) == 5
    wait_until(lambda: not metrics_of(other).keeps(process))
    found = scrape()
    assert (calls(found), found[CLEAN]) == (5, 1)


def test_nodes_that_do_not_know_each_other_keep_a_killed_one_once(workers: Workers) -> None:
    one = workers.add()
    two = workers.add_to()
    both = workers.add_to(one, two)
    dead = answer("w", discarded=9.0, pid=2**31 - 1)
    for node in (one, two):
        metrics_of(node).keep(dead.as_lost())
    scrape = host_scraper_of(both)
    found = scrape()
    assert (found[DISCARDED], found[LOST]) == (9, 1)
    wait_until(lambda: [metrics_of(node).keeps(dead.process) for node in (one, two)].count(True) == 1)
    found = scrape()
    assert (found[DISCARDED], found[LOST]) == (9, 1)
    for node in (one, two):  # although only one of them keeps it now
        found = host_scraper_of(node)()
        assert (found[DISCARDED], found[LOST]) == (9, 1)


def test_what_any_of_several_keepers_knew_stays(workers: Workers) -> None:
    one, two = sorted((workers.add() for _ in range(2)), key=Node.NODE)
    metrics_of(one).keep([ended("x", 5.0, lost=True)])
    metrics_of(two).keep([ended("x", 9.0, lost=True)])
    assert host_scraper_of(workers.add())()[DISCARDED] == 9
    wait_until(lambda: not metrics_of(two).keeps("x"))
    found = host_scraper_of(workers.add())()
    assert (found[DISCARDED], found[LOST]) == (9, 1), "one of them is forgotten, and a new node remembers nothing"
    assert ("aemp_call_seconds_count", "ok") not in found, "such calls of the nodes are not those of their programs"


@pytest.mark.parametrize(
    "part",
    [
        pytest.param({"process": "x" * 201}, id="long-name"),
        pytest.param({"kept": ["x" * 201]}, id="long-names"),
        pytest.param({"kept": ["x"] * 401}, id="many"),
    ],
)
def test_what_is_remembered_of_a_node_is_small(part: dict[str, Any]) -> None:
    sent = {"process": "p", "heir": "", "kept": ["x" * 200] * 200, "ended": [], "rows": []}
    Answer.read({"node": "a", "host": "h", "pid": 7, "metrics": sent})
    with pytest.raises(ValueError, match="it does not say"):
        Answer.read({"node": "a", "host": "h", "pid": 7, "metrics": sent | part})


def test_node_that_ends_without_handing_over_is_counted_and_its_totals_stay(workers: Workers) -> None:
    keeper, leaving, scrape, before = worker_of_four_calls(workers)
    request_host_of(leaving).last_calls.clear()
    leaving.shutdown(30)
    assert calls(scrape()) == 4
    wait_until(lambda: scrape()[LOST] == 1)
    assert_nothing_fell(before, scrape())


def test_totals_of_a_process_that_stands_still_stay_when_its_link_is_lost(workers: Workers) -> None:
    keeper, stopped, scrape, before = worker_of_four_calls(workers)
    workers.network.crash(stopped)  # but the process lives
    wait_until(lambda: not keeper.up_nodes())
    after = scrape()
    assert_nothing_fell(before, after)
    assert (after[LOST], after[MISSING,]) == (0, 1)


def test_totals_are_handed_over_although_nobody_asked_for_them(make_node: MakeNode) -> None:
    keeper = make_node()
    scrape = host_scraper_of(keeper)
    leaving = make_node(None)
    Collector("host", node=leaving, timeout=30)  # while it is private, as when a module is imported
    leaving.configure(binds=["127.0.0.1:0"], seeds=[keeper.NODE()], secret="a secret of the tests")
    leaving.wait_for_seeds()
    leaving.snd(leaving.port(), "nobody handles this")
    wait_until(lambda: leaving.scheduler.discarded)
    leaving.shutdown(30)
    found = scrape()
    assert (found[CLEAN], found[DISCARDED]) == (1, 1)


def test_hand_over_does_not_depend_on_answers_of_the_own_node(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, leaving = workers.add(), workers.add()
    monkeypatch.setattr(leaving._requests._inspection, "_at_once", 16)  # it refuses to answer
    estate = estate_of(leaving)
    assert estate is not None
    estate.hand_over()
    assert metrics_of(leaving).heir == keeper.NODE()


def test_those_who_ask_at_the_same_time_share_one_look(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = workers.add(), workers.add()
    inspection = two._requests._inspection
    ask, questions = inspection.ask, itertools.count()
    monkeypatch.setattr(inspection, "ask", lambda *args: (next(questions), ask(*args)))
    scrape = host_scraper_of(one)
    before = next(questions)
    scrapes = [gevent.spawn(scrape) for _ in range(10)]
    assert all(each.get()["aemp_nodes",] == 2 for each in scrapes)
    assert next(questions) == before + 2


def test_two_services_do_not_share_an_address_by_accident() -> None:
    server = serve_metrics("127.0.0.1:0", node=Node())
    try:
        with pytest.raises(OSError, match="in use"):
            serve_metrics(f"127.0.0.1:{server.server_port}", node=Node())
    finally:
        server.stop(timeout=1)


@pytest.mark.slow
def test_killed_node_is_counted_and_what_was_seen_of_it_stays(make_node: MakeNode) -> None:
    keeper = make_node()
    scrape = host_scraper_of(keeper)
    scrape()
    with NodeProcess(seeds=[keeper.NODE()]) as worker:
        wait_until(lambda: keeper.node_is_up(worker.node))
        scrape()
        code = ["from aemp_gevent import port, serve, call", "asked = port()", "serve(asked, x=lambda: 1)"]
        code += ["for _ in range(7): call(asked, 'x')"]
        worker.run("\n".join(code))
        seen = wait_until(lambda: (found := scrape()).get(("aemp_call_seconds_count", "ok")) == 7 and found)
        worker.kill()  # and its parent has not noticed yet, so that it is a zombie
        after = seen
        until = time.monotonic() + 20
        while not after["aemp_nodes_lost_total",]:
            assert time.monotonic() < until
            before, after = after, scrape()
            assert_nothing_fell(before, after)
            gevent.sleep(0)
    assert_nothing_fell(seen, scrape())
    assert after["aemp_nodes",] == 1


def test_node_that_does_not_answer_is_reported_and_its_totals_stay(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    scrape = host_scraper_of(one)
    scrape()
    work(two, 3)
    before = scrape()
    inspection = two._requests._inspection
    monkeypatch.setattr(inspection, "ask", lambda _peer, _what, answered: answered(inspection.refusal("busy")))
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
    found = scraper_of(Collector("network", node=two, timeout=30))()
    assert found["aemp_nodes", socket.gethostname()] == 2


@pytest.mark.slow
@pytest.mark.no_cover
def test_forty_eight_workers_are_scraped_quickly_and_a_thousand_restarts_change_nothing(workers: Workers) -> None:
    first_node = workers.add()
    nodes = [first_node, *(workers.add_to(first_node) for _ in range(47))]
    scrape = host_scraper_of(nodes[0])
    first = scrape()
    assert first["aemp_nodes",] == 48
    taken: list[float] = []
    for _ in range(5):
        began = time.process_time()  # of all nodes together, and not while others use the processor
        scrape()
        taken.append(time.process_time() - began)
    assert min(taken) < 0.1
    keeper = metrics_of(nodes[0])
    rows = {key: value for key, value in keeper.totals().items() if key != DISCARDED}
    for number in range(1000):
        keeper.keep([EndedProcess(f"process {number}", number + 1, False, rows | {DISCARDED: 1.0})])
    found = scrape()
    assert (found[DISCARDED], found[CLEAN]) == (1000, 1000)
    assert len(found) == len(first)
    assert len(keeper._added_of) <= 200
    taken = []
    for _ in range(5):
        began = time.process_time()
        scrape()
        taken.append(time.process_time() - began)
    assert min(taken) < 0.1
