# SPDX-License-Identifier: MIT
"""The dashboard without a browser: pages and streams, visitors, and odd answers of nodes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from gevent.event import AsyncResult

from aemp_gevent import Node
from aemp_gevent.contrib.dashboard import dashboard, dashboard_app, pages
from aemp_gevent.contrib.dashboard import survey as module
from aemp_gevent.contrib.dashboard.survey import Survey, difference
from aemp_gevent.testing import wait_until
from tests.support.networking import MakeNode

TOKEN = "Grüße"


class Visitor:
    """Somebody who asks for pages. Streams are read event by event."""

    def __init__(self, app: Any, **environ: str) -> None:
        self._app = app
        self._environ = environ
        self.status = ""
        self.headers: dict[str, str] = {}

    def ask(self, path: str, method: str = "GET", body: bytes = b"", **environ: str) -> Any:
        plain, _, query = path.partition("?")
        given = {
            "REQUEST_METHOD": method,
            "PATH_INFO": plain,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            **self._environ,
            **environ,
        }
        return self._app(given, self._start)

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, dict(headers)

    def get(self, path: str, **environ: str) -> bytes:
        return b"".join(self.ask(path, **environ))

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        for piece in (stream := self.ask(path)):
            match = re.fullmatch(rb"event: (\w+)\ndata: (.*)\n\n", piece)
            if match is not None:
                yield match[1].decode(), json.loads(match[2])
        stream.close()


@pytest.fixture
def pair(make_node: MakeNode) -> tuple[Node, Node]:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    return one, two


def visitor_of(node: Node, **options: Any) -> Visitor:
    return Visitor(dashboard_app(node=node, allow=lambda _environ: True, **options))


# --- visitors ---


def test_without_a_token_or_another_rule_there_is_no_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AEMP_DASHBOARD_TOKEN", raising=False)
    with pytest.raises(ValueError, match="token=.*allow=.*AEMP_DASHBOARD_TOKEN"):
        dashboard_app(node=Node())
    monkeypatch.setenv("AEMP_DASHBOARD_TOKEN", "x")
    dashboard_app(node=Node())


PATHS = ["/", "/page.js", "/events", "/node?id=x", "/log?id=x", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_strangers_see_nothing(path: str) -> None:
    visitor = Visitor(dashboard_app(node=Node(), token=TOKEN))
    for environ in (
        {},
        {"HTTP_AUTHORIZATION": "Bearer wrong"},
        {"HTTP_AUTHORIZATION": f"Basic {TOKEN}"},
        {"HTTP_COOKIE": "aemp_dashboard=zz"},
        {"HTTP_COOKIE": f"aemp_dashboard={b'wrong'.hex()}"},
        {"HTTP_COOKIE": "aemp_dashboard=ff"},
        {"HTTP_COOKIE": "other=1; ="},
    ):
        page = visitor.get(path, **environ)
        assert visitor.status == "401 Unauthorized"
        assert b"EventSource" not in page and b"provider" not in page


def test_token_in_the_address_becomes_a_cookie_and_leaves_the_address() -> None:
    visitor = Visitor(dashboard_app(node=Node(), token="secret"), SCRIPT_NAME="/_aemp")
    visitor.get("/?token=secret", **{"wsgi.url_scheme": "https"})
    assert (visitor.status, visitor.headers["Location"]) == ("303 See Other", "/_aemp/")
    cookie, *rest = visitor.headers["Set-Cookie"].split("; ")
    assert rest == ["Path=/_aemp/", "HttpOnly", "SameSite=Lax", "Secure"]
    assert b"page.js" in visitor.get("/", HTTP_COOKIE=cookie)
    assert visitor.status == "200 OK"
    assert b'type="password"' in visitor.get("/")


def test_token_may_be_typed_or_sent_as_a_header() -> None:
    visitor = Visitor(dashboard_app(node=Node(), token=TOKEN))
    list(visitor.ask("/login", "POST", b"token=Gr%C3%BC%C3%9Fe"))
    assert visitor.status == "303 See Other"
    assert "Secure" not in visitor.headers["Set-Cookie"]
    list(visitor.ask("/login", "POST", b"token=wrong"))
    assert visitor.status == "401 Unauthorized"
    list(visitor.ask("/login", "POST", b"token=" + b"x" * 20_000))
    assert visitor.status == "401 Unauthorized"
    for wire in ("utf-8", "latin-1"):  # WSGI has the bytes as text in Latin-1
        visitor.get("/", HTTP_AUTHORIZATION="Bearer " + TOKEN.encode(wire).decode("latin-1"))
        assert visitor.status == "200 OK"


@pytest.mark.parametrize("others", ['prefs={"a":1}; ', "prefs=1; aemp_dashboard=zz; ", "x; =; ;"])
def test_cookies_of_others_may_have_any_form(others: str) -> None:
    visitor = Visitor(dashboard_app(node=Node(), token="t"))
    visitor.get("/", HTTP_COOKIE=f"{others}aemp_dashboard=74")
    assert visitor.status == "200 OK"


@pytest.mark.parametrize("length", ["-1", "x", "9" * 5000])
def test_length_of_a_form_may_be_anything(length: str) -> None:
    visitor = Visitor(dashboard_app(node=Node(), token=TOKEN))
    list(visitor.ask("/login", "POST", b"token=x", CONTENT_LENGTH=length))
    assert visitor.status == "401 Unauthorized"


def test_head_has_no_body_and_ends() -> None:
    visitor = visitor_of(Node())
    for path in ("/", "/events"):
        assert list(visitor.ask(path, "HEAD")) == []
        assert visitor.status == "200 OK"
    assert not visitor._app._survey._work


def test_application_may_decide_who_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_DASHBOARD_TOKEN", "of the environment")
    app = dashboard_app(node=Node(), allow=lambda environ: environ.get("REMOTE_USER") == "root")
    visitor = Visitor(app)
    visitor.get("/")
    assert visitor.status == "401 Unauthorized"
    visitor.get("/", HTTP_AUTHORIZATION="Bearer of the environment")
    assert visitor.status == "401 Unauthorized"
    visitor.get("/", REMOTE_USER="root")
    assert visitor.status == "200 OK"


def test_page_may_load_nothing_from_elsewhere() -> None:
    visitor = visitor_of(Node())
    page = visitor.get("/").decode()
    assert "default-src 'none'" in visitor.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in visitor.headers["Content-Security-Policy"]
    for path in ("/page.js", "/page.css"):
        assert f'"{path[1:]}"' in page
        text = visitor.get(path).decode()
        assert not re.search(r"(?<!www\.w3\.org)https?://(?!www\.w3\.org)", text)
        assert "innerHTML" not in text
    assert not re.search(r"\son\w+=|style=|<script>", page), "the policy forbids it"


def test_below_a_path_of_an_application() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"the application"]

    visitor = Visitor(dashboard(app, "/_aemp", node=Node(), token="x"))
    assert visitor.get("/") == visitor.get("/_aempty") == b"the application"
    visitor.get("/_aemp", HTTP_AUTHORIZATION="Bearer x")
    assert visitor.headers["Location"] == "/_aemp/"
    assert b"page.js" in visitor.get("/_aemp/", HTTP_AUTHORIZATION="Bearer x")
    for wrong in ("", "aemp", "/", "/aemp/"):
        with pytest.raises(ValueError, match="path such as"):
            dashboard(app, wrong, token="x")


# --- what it shows ---


def test_events_have_all_nodes_and_links_then_what_changes(pair: tuple[Node, Node]) -> None:
    one, two = pair
    events = visitor_of(two).events("/events")
    assert next(events) == ("hello", {"node": two.NODE(), "may_kill": False, "may_trace": False})
    seen: dict[str, Any] = {}
    links: dict[str, Any] = {}
    while len(seen) < 2 or not links:
        kind, changes = next(events)
        assert kind == "network"
        seen |= changes["nodes"]
        links |= changes["links"]
    assert set(seen) == {one.NODE(), two.NODE()}
    assert all(row["up"] and row["links"] == 1 for row in seen.values())
    (link,) = links.values()
    assert {link["a"], link["b"]} == set(seen)
    assert link["state"] == "up"
    one.shutdown()
    while seen[one.NODE()]["up"]:
        seen |= next(events)[1]["nodes"]
    assert seen[one.NODE()]["error"]
    assert seen[two.NODE()]["up"]
    events.close()


def test_nobody_is_asked_when_nobody_watches(pair: tuple[Node, Node]) -> None:
    _, two = pair
    visitor = visitor_of(two)
    survey = visitor._app._survey
    streams = [visitor.events("/events") for _ in range(2)]
    for stream in streams:
        next(stream)
    assert survey._work is not None
    streams[0].close()
    gevent.sleep(0)
    assert survey._work is not None
    streams[1].close()
    assert survey._work is None


def test_streams_are_few() -> None:
    visitor = visitor_of(Node())
    visitor._app._streams = 64
    assert b"too many" in visitor.get("/events")
    assert visitor.status == "503 Service Unavailable"


def test_one_node_shows_its_ports_and_what_is_blocked(pair: tuple[Node, Node]) -> None:
    one, two = pair
    port = one.port_async(lambda: gevent.sleep(100))
    wait_until(lambda: one.scheduler.ports[port].state == 2)
    found = visitor_of(two).json(f"/node?id={one.NODE()}")
    (row,) = [row for row in found["ports"] if row["port"] == port]
    assert row["state"] == "blocked"
    assert "test_dashboard.py" in row["at"]
    one.kil(port)


def test_stack_of_a_port_is_shown(pair: tuple[Node, Node]) -> None:
    one, two = pair
    port = one.port_async(lambda: gevent.sleep(100))
    wait_until(lambda: one.scheduler.ports[port].state == 2)
    found = visitor_of(two).json(f"/port?id={one.NODE()}&port={quote(port)}")
    assert found["state"] == "blocked"
    assert "test_dashboard.py" in "".join(found["stack"])
    assert "messages" not in found
    one.kil(port)
    wait_until(lambda: port not in one.scheduler.ports)
    assert "there is no port" in visitor_of(two).json(f"/port?id={one.NODE()}&port={quote(port)}")["error"]


def test_messages_of_a_port_are_shown_only_if_that_is_allowed(pair: tuple[Node, Node]) -> None:
    one, two = pair
    port = one.port(lambda *_message: None)
    path = f"/port?id={one.NODE()}&port={quote(port)}&messages=1"
    visitor = visitor_of(two)
    assert b"allow_trace" in visitor.get(path)
    assert visitor.status == "403 Forbidden"
    one.snd(port, "unseen")
    visitor = visitor_of(two, allow_trace=True)
    assert visitor.json(path)["messages"] == []
    one.snd(port, "buy", "something private")
    found = visitor.json(path)
    assert found["seen"] == 1
    (row,) = found["messages"]
    assert (row["number"], row["text"]) == (1, "message 'buy' with 1 more element")
    assert (row["elements"], row["is_call"]) == ("str of 3, str of 17", False)
    one._requests.views.stop()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"node": "another"}, id="another"),
        pytest.param({"port": 5, "stack": "x", "messages": {}, "seen": 1e300}, id="types"),
        pytest.param(
            {"port": {"state": []}, "stack": [5, "x" * 9999] * 999, "messages": [5, {"elements": [[]]}] * 999},
            id="many",
        ),
    ],
)
def test_odd_answers_about_a_port_are_cut(
    pair: tuple[Node, Node], answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    monkeypatch.setattr(
        one._requests._inspection, "ask", lambda peer, what, answered: answered({"node": one.NODE(), **answer})
    )
    found = visitor_of(two, allow_trace=True).get(f"/port?id={one.NODE()}&port=x&messages=1")
    assert len(found) < 60_000 and b"NaN" not in found
    assert json.loads(found).keys() in ({"error"}, {"state", "stack", "seen", "messages"})


def test_rules_of_a_node_hold_for_the_dashboard(make_node: MakeNode) -> None:
    one = make_node(rules=[{"peer": "*", "inspect": False}])
    two = make_node("127.0.0.1:0", one.NODE())
    two.wait_for_seeds()
    assert "refuses" in visitor_of(two).json(f"/node?id={one.NODE()}")["error"]
    survey = Survey(two)
    survey.take()
    assert "refuses" in survey.nodes[one.NODE()]["error"]


def test_no_links_are_made_for_visitors(pair: tuple[Node, Node]) -> None:
    visitor = visitor_of(pair[0])
    for path in ("/node?id=127.0.0.1:1", "/log?id=elsewhere", "/log"):
        visitor.get(path)
        assert visitor.status == "404 Not Found"
    visitor.get(f"/log?id={pair[0].NODE()}&level=loud")
    assert visitor.status == "400 Bad Request"


def test_log_of_a_node_is_streamed(pair: tuple[Node, Node]) -> None:
    one, two = pair
    events = visitor_of(two).events(f"/log?id={one.NODE()}&level=warning")
    assert next(events) == ("log", {"level": "warning"})
    answer = next(events)[1]
    assert answer["node"] == one.NODE()
    one.scheduler.log(30, "something %s", "odd <b>")
    record = next(events)[1]
    assert (record["level"], record["text"]) == ("WARNING", "something odd <b>")
    ports = len(two.scheduler.ports)
    events.close()
    wait_until(lambda: len(two.scheduler.ports) < ports)


def test_log_of_a_node_that_goes_away_says_so(pair: tuple[Node, Node]) -> None:
    one, two = pair
    events = visitor_of(two).events(f"/log?id={one.NODE()}")
    next(events)
    next(events)
    one.shutdown()
    with gevent.Timeout(30):
        *_, (_, last) = events
    assert "link is lost" in last["error"]


def test_log_record_that_a_node_makes_up_does_no_harm(pair: tuple[Node, Node]) -> None:
    one, two = pair
    events = visitor_of(two).events(f"/log?id={one.NODE()}")
    next(events)
    next(events)
    (port,) = one._log_feed._listeners
    one.snd(port, {"text": "x" * 99_999, "left_out": "many", "time": float("inf"), "level": ["x"], "name": {}})
    _, record = next(events)
    assert (len(record.pop("text")), record) == (20_000, {"left_out": 0})
    events.close()


# --- killing ---


def test_log_records_that_wait_for_a_slow_browser_are_short(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    waiting: list[Any] = []

    class Watched(pages.Queue):  # type: ignore[type-arg]  # of what waits
        def put_nowait(self, item: Any) -> None:
            waiting.append(item)
            super().put_nowait(item)

    ports: list[str] = []
    port = two.port
    monkeypatch.setattr(pages, "Queue", Watched)
    monkeypatch.setattr(two, "port", lambda *args: ports.append(port(*args)) or ports[-1])  # type: ignore[func-returns-value]
    events = visitor_of(two).events(f"/log?id={one.NODE()}&level=critical")
    next(events)
    one.snd(ports[-1], 7)
    one.snd(ports[-1], {"text": "x" * 50_000, "more": ["y"] * 9999})
    assert next(events) == ("log", {"text": "x" * 20_000, "left_out": 0})
    assert [item for item in waiting if "text" in item] == [{"text": "x" * 20_000, "left_out": 0}]


def test_ports_are_killed_only_if_that_is_allowed(pair: tuple[Node, Node]) -> None:
    one, two = pair
    victim = one.port(lambda: None)
    died: list[Any] = []
    one.mon(victim, lambda *reason: died.append(reason))
    body = f"port={victim}".replace("#", "%23").encode()
    visitor = visitor_of(two)
    list(visitor.ask("/kill", "POST", body, HTTP_X_AEMP="kill"))
    assert visitor.status == "403 Forbidden"
    visitor = visitor_of(two, allow_kill=True)
    list(visitor.ask("/kill", "POST", body))  # as a form of another site
    assert visitor.status == "403 Forbidden"
    list(visitor.ask("/kill", "POST", b"port=x", HTTP_X_AEMP="kill"))
    assert visitor.status == "400 Bad Request"
    list(visitor.ask("/kill", "PUT", body, HTTP_X_AEMP="kill"))
    assert visitor.status == "405 Method Not Allowed"
    assert not died
    list(visitor.ask("/kill", "POST", body, HTTP_X_AEMP="kill"))
    wait_until(lambda: died)
    assert died == [("killed", "by the dashboard")]


# --- odd answers ---


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="nothing"),
        pytest.param([1, 2], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({"error": ["x"]}, id="error"),
        pytest.param(dict.fromkeys(("time", "port_count", "messages", "deepest", "blocked", "cpu"), 1), id="no-links"),
    ],
)
def test_node_that_answers_something_odd_is_shown_as_such(
    pair: tuple[Node, Node], answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    monkeypatch.setattr(one._requests._inspection, "ask", lambda peer, what, answered: answered(answer))
    survey = Survey(two)
    survey.take()
    assert not survey.nodes[one.NODE()]["up"]
    assert survey.nodes[one.NODE()]["error"]
    assert survey.nodes[two.NODE()]["up"]


FIGURES = dict.fromkeys(("time", "port_count", "messages", "deepest", "blocked", "cpu"), 1)
HUGE = 10**400


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"links": [7, {}, {"node": 3, "state": "up"}]}, id="links"),
        pytest.param({"links": [{"node": "x", "state": "down", "packets_out": "many", "unsent": []}]}, id="link"),
        pytest.param({"links": [{"node": "x", "state": "up", "packets_in": [1], "round_trip": HUGE}]}, id="traffic"),
        pytest.param({"roles": [1, "public"], "memory": "much", "lag": None}, id="kinds"),
        pytest.param({"roles": 5, "host": 7, "seconds": "x"}, id="no-lists"),
        pytest.param({"time": float("inf")}, id="inf"),
        pytest.param({"messages": float("nan")}, id="nan"),
        pytest.param({"memory": HUGE, "cpu": HUGE, "seconds": float("inf")}, id="huge"),
    ],
)
def test_whatever_a_node_answers_is_shown_as_json(
    pair: tuple[Node, Node], odd: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    given = {**FIGURES, "links": [], "node": one.NODE(), **odd}
    answer_with(monkeypatch, two, one, given)
    survey = Survey(two)
    for _ in range(2):
        survey.take()
        assert set(survey.nodes) == {one.NODE(), two.NODE()}
    assert survey.nodes[two.NODE()]["up"]
    json.dumps([survey.nodes, survey.links], allow_nan=False)
    json.loads(visitor_of(two).get(f"/node?id={one.NODE()}"), parse_constant=pytest.fail)


def test_rates_of_hardly_any_time_are_shown_as_json(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pair
    links = [{"node": two.NODE(), "state": "up", "packets_out": 1}]
    given = {**FIGURES, "links": links, "node": one.NODE(), "packets_in": 1, "time": 0}
    answer_with(monkeypatch, two, one, given)
    survey = Survey(two)
    survey.take()
    given |= {"links": [{**links[0], "packets_out": 10**15}], "packets_in": 10**15, "cpu": 10**15, "time": 5e-324}
    survey.take()
    assert survey.nodes[one.NODE()]["in"] is None
    json.dumps([survey.nodes, survey.links], allow_nan=False)


def test_more_links_than_were_asked_for_are_left_out(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pair
    links = [{"node": f"node{number}", "state": "up"} for number in range(3000)]
    answer_with(monkeypatch, two, one, {**FIGURES, "links": links, "node": one.NODE()})
    survey = Survey(two)
    survey.take()
    assert 1000 <= len(survey.links) <= 1001, "and perhaps the other end of the real one"


def answer_with(monkeypatch: pytest.MonkeyPatch, asking: Node, asked: Node, answer: Any) -> list[str]:
    """Make one node seem to answer something that need not even travel; return which others are asked."""
    names: list[str] = []
    call_async, call = asking.call_async, asking.call

    def replaced_call(name: str, *args: Any, **options: Any) -> Any:
        return answer if name == asked.NODE() else call(name, *args, **options)

    def replaced(name: str, *args: Any, **options: Any) -> Any:
        names.append(name)
        if name != asked.NODE():
            return call_async(name, *args, **options)
        result: AsyncResult[Any] = AsyncResult()
        result.set(answer)
        return result

    monkeypatch.setattr(asking, "call_async", replaced)
    monkeypatch.setattr(
        asking, "call", lambda name, *args, **more: answer if name == asked.NODE() else call(name, *args, **more)
    )
    return names


@pytest.mark.parametrize(
    "name", ["{victim}#secret", "127.0.0.1:9", "elsewhere", "", "a b\n", "x" * 5000, "slave/x@127.0.0.1:9"]
)
def test_links_that_nodes_report_make_nobody_ask_strangers(
    pair: tuple[Node, Node], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    links = [{"node": name.format(victim=two.NODE()), "state": "up"}]
    names = answer_with(monkeypatch, two, one, {**FIGURES, "links": links, "node": one.NODE()})
    Survey(two).take()
    assert set(names) == {one.NODE(), two.NODE()}


def test_node_that_answers_as_another_is_shown_as_such(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = pair
    answer_with(monkeypatch, two, one, {**FIGURES, "links": [], "node": two.NODE()})
    survey = Survey(two)
    survey.take()
    assert "as another node" in survey.nodes[one.NODE()]["error"]
    assert survey.nodes[two.NODE()]["up"]


def test_long_answers_are_cut(pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pair
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    odd = {"python": "x" * 9999, "seeds": ["x"] * 9999, "trees": deep, b"bytes": 1, "directory": b"x"}
    odd |= {"memory": HUGE, "lag": float("nan")}
    answer_with(monkeypatch, two, one, {**FIGURES, "links": [], "node": one.NODE(), **odd})
    found = visitor_of(two).json(f"/node?id={one.NODE()}")
    assert (len(found["python"]), len(found["seeds"]), found["directory"]) == (300, 1000, None)
    assert found["memory"] is found["lag"] is None


def test_large_networks_are_asked_for_few_links_each_and_the_busiest_are_shown(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"node{number}" for number in range(100)]
    turn = 0

    def answer(name: str, limit: int) -> dict[str, Any]:
        links = [
            {"node": other, "state": "up", "packets_out": turn * number}
            for number, other in enumerate(names)
            if other != name
        ]
        sums = {"link_count": 99, "packets_in": turn * 7, "packets_out": turn * 5}
        return {**FIGURES, "node": name, "links": links[:limit], "time": turn, **sums}

    def ask_all(_node: Node, others: list[str], what: dict[str, int], _timeout: float) -> Any:
        limits.add(what["links"])
        return {name: answer(name, what["links"]) for name in others}, {}

    limits: set[int] = set()
    monkeypatch.setattr(module, "ask_all", ask_all)
    monkeypatch.setattr(module, "known_nodes", lambda *_: names)
    monkeypatch.setattr(module, "MAX_LINKS", 50)
    monkeypatch.setattr(module, "_MOST_ENDS", 3000)
    survey = Survey(pair[1])
    for turn in (1, 2):  # noqa: B007  # answer() reads it
        survey.take()
    assert max(limits) == 3000 // 102
    row = survey.nodes["node3"]
    assert (row["links"], row["in"], row["out"]) == (99, 7, 5), "of all links, not of those that were asked for"
    assert len(survey.links) == 50
    assert min(link["rate"] for link in survey.links.values()) > 20


def test_survey_that_ended_begins_again_for_those_who_come_back(
    pair: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = visitor_of(pair[1])
    survey = visitor._app._survey

    def fail() -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(survey, "take", fail)
    events = visitor.events("/events")
    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr(gevent.get_hub(), "handle_error", lambda *_: None)
        list(events)
    monkeypatch.undo()
    events = visitor.events("/events")
    while pair[0].NODE() not in next(events)[1].get("nodes", {}):
        pass
    events.close()


def test_difference_has_what_is_new_changed_or_gone() -> None:
    before = {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1}}
    now = {"a": {"x": 1}, "b": {"x": 2}, "d": {"x": 1}}
    assert difference(before, now) == {"b": {"x": 2}, "c": None, "d": {"x": 1}}
