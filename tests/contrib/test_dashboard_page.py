# SPDX-License-Identifier: MIT
"""The dashboard in a real browser: what it shows of real nodes, of a thousand made-up ones, and by keyboard alone."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent
import pytest
from gevent.pywsgi import WSGIServer

from aemp_gevent import Node
from aemp_gevent.contrib.dashboard import dashboard_app, pages
from aemp_gevent.contrib.dashboard.survey import Survey
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.tap import MailboxTap
from aemp_gevent.testing import NodeProcess, wait_until
from soak.browser import Browser
from tests.support.networking import MakeNode, node_factory

pytestmark = [
    pytest.mark.slow,
    pytest.mark.no_cover,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="there is no chromedriver"),
]

PATIENCE = 30.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with TemporaryDirectory() as scratch:
        browser = Browser(Path(scratch))
        yield browser
        browser.close()


@contextmanager
def served(node: Node, **options: Any) -> Iterator[str]:
    """Serve the dashboard of a node; yield its address."""
    server = WSGIServer(("127.0.0.1", 0), dashboard_app(token="t", node=node, **options), log=None, spawn=32)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/?token=t"
    finally:
        server.stop(timeout=1)


def text(browser: Browser, tab: str, selector: str) -> str:
    return str(browser.run(tab, f"return document.querySelector({selector!r})?.textContent ?? ''"))


def count(browser: Browser, tab: str, selector: str) -> int:
    return int(browser.run(tab, f"return document.querySelectorAll({selector!r}).length"))


@pytest.fixture
def watched() -> Iterator[Node]:
    with node_factory() as make:
        yield make()


def test_killed_node_turns_red_at_once(browser: Browser, watched: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    # After the first survey there is no other, so that only the loss of the link can be what the page shows.
    monkeypatch.setattr(pages, "Survey", partial(Survey, interval=3600.0))
    with served(watched) as url, NodeProcess(seeds=[watched.NODE()]) as victim:
        wait_until(lambda: watched.node_is_up(victim.node), within=PATIENCE)
        tab = browser.open(url)
        dot = f'#dots g[aria-label^="{victim.node}:"]'
        of_dot = f"return document.querySelector('{dot}')?.getAttribute('class')"
        wait_until(lambda: browser.run(tab, of_dot) in {"ok", "warn"}, within=PATIENCE)
        assert "?token" not in browser.run(tab, "return location.href")
        assert count(browser, tab, "#edges line") == 1
        began = time.monotonic()
        victim.kill()
        wait_until(lambda: browser.run(tab, of_dot) == "down", within=PATIENCE)
        print("red after s:", time.monotonic() - began)  # on an idle machine 0.1
        assert f"{victim.node} is gone" in text(browser, tab, "#news")
        assert text(browser, tab, "tr.down td:nth-child(2)") == "gone"
        assert count(browser, tab, "#edges line") == 0
        browser.close_tab(tab)


def test_node_is_looked_into_with_the_keyboard_alone(browser: Browser, make_node: MakeNode, watched: Node) -> None:
    other = make_node("127.0.0.1:0", watched.NODE())
    port = other.port(lambda: None)
    with served(watched, allow_kill=True) as url:
        tab = browser.open(url)
        wait_until(lambda: count(browser, tab, "#dots g") == 2, within=PATIENCE)
        find = f'#dots g[aria-label^="{other.NODE()}:"]'
        browser.run(tab, f"document.querySelector('{find}').focus()")
        browser.press(tab, "\ue007")  # Enter
        wait_until(lambda: text(browser, tab, "#details-title") == other.NODE(), within=PATIENCE)
        assert browser.run(tab, "return document.activeElement.id") == "details-title"
        browser.run(tab, "document.querySelector('[role=tab][aria-selected=true]').focus()")
        browser.press(tab, "\ue014")  # the next tab: right
        assert text(browser, tab, "[role=tab][aria-selected=true]") == "Ports"
        wait_until(lambda: port.partition("#")[2] in text(browser, tab, "#panel"), within=PATIENCE)
        assert count(browser, tab, f'#panel [aria-label="Kill {port}"]') == 1
        browser.press(tab, "\ue00c")  # Escape
        assert browser.run(tab, "return document.getElementById('details').hidden")
        assert browser.run(tab, "return document.activeElement.getAttribute('aria-label')").startswith(other.NODE())
        browser.close_tab(tab)


def test_log_is_shown_as_text(browser: Browser, watched: Node) -> None:
    with served(watched) as url:
        tab = browser.open(url)
        wait_until(lambda: text(browser, tab, "#rows button"), within=PATIENCE)
        browser.run(tab, "document.querySelector('#rows button').click()")
        browser.run(tab, "[...document.querySelectorAll('[role=tab]')].find(t => t.textContent === 'Log').click()")
        wait_until(lambda: "listening" in text(browser, tab, ".log"), within=PATIENCE)
        watched.scheduler.log(30, "<img src=x onerror='document.title=1'> <b>bold</b>")
        wait_until(lambda: "<b>bold</b>" in text(browser, tab, ".log .WARNING"), within=PATIENCE)
        assert count(browser, tab, ".log img, .log b") == 0
        browser.close_tab(tab)


def press_tab(browser: Browser, tab: str, name: str) -> None:
    browser.run(tab, f"[...document.querySelectorAll('[role=tab]')].find(t => t.textContent === {name!r}).click()")


def test_details_of_an_odd_form_are_shown_as_such(
    browser: Browser, watched: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[dict[str, Any]] = [{"ports": [5]}, {"ports": []}]
    monkeypatch.setattr(pages, "look_at", lambda *_: answers.pop(0) if len(answers) > 1 else answers[0])
    with served(watched) as url:
        tab = browser.open(url)
        wait_until(lambda: text(browser, tab, "#rows button"), within=PATIENCE)
        press_tab(browser, tab, "Ports")
        browser.run(tab, "document.querySelector('#rows button').click()")
        wait_until(lambda: "unexpected answer" in text(browser, tab, "#panel"), within=PATIENCE)
        wait_until(lambda: text(browser, tab, "#panel") == "none", within=PATIENCE)  # it asks again
        browser.close_tab(tab)


def test_stack_and_messages_of_a_port_are_shown_on_demand(browser: Browser, watched: Node) -> None:
    port = watched.port_async(lambda: gevent.sleep(1000))
    wait_until(lambda: watched.scheduler.ports[port].state == 2)
    with served(watched, allow_trace=True) as url:
        tab = browser.open(url)
        wait_until(lambda: text(browser, tab, "#rows button"), within=PATIENCE)
        browser.run(tab, "document.querySelector('#rows button').click()")
        press_tab(browser, tab, "Blocked")
        wait_until(lambda: count(browser, tab, f'[aria-label="Look into {port}"]') == 1, within=PATIENCE)
        browser.run(tab, f"document.querySelector('[aria-label=\"Look into {port}\"]').click()")
        wait_until(lambda: "gevent.sleep(1000)" in text(browser, tab, "#panel pre"), within=PATIENCE)
        assert text(browser, tab, "#panel h3") == port
        assert isinstance(watched.scheduler.ports[port].mailbox, (Port, deque)), "nothing is traced yet"
        browser.run(tab, "document.querySelector('#panel [aria-pressed]').click()")
        wait_until(lambda: isinstance(watched.scheduler.ports[port].mailbox, MailboxTap), within=PATIENCE)
        watched.snd(port, "<b>buy</b>", "private")
        wait_until(lambda: "<b>buy</b>" in text(browser, tab, "#panel .log li"), within=PATIENCE)
        assert "private" not in text(browser, tab, "#panel")
        assert count(browser, tab, "#panel b") == 0
        browser.run(tab, "[...document.querySelectorAll('#panel button')].find(b => b.textContent === 'Back').click()")
        wait_until(lambda: count(browser, tab, "#panel table") == 1, within=PATIENCE)
        browser.close_tab(tab)
    watched._requests.views.stop()
    watched.kil(port)


def test_supervisors_and_their_children_are_shown(
    browser: Browser, watched: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = {"id": "cart-<1>", "kind": "server", "restart": "permanent", "state": "restarting", "port": None}
    child |= {"restarts": 3, "reason": "die ValueError", "messages": None}
    tree = {
        "port": "a#b",
        "name": "Shop",
        "strategy": "one_for_one",
        "child_count": 2,
        "active": 1,
        "children": [child],
    }
    monkeypatch.setattr(watched._request_host, "trees", lambda limit: [tree])
    with served(watched) as url:
        tab = browser.open(url)
        wait_until(lambda: text(browser, tab, "#rows button"), within=PATIENCE)
        browser.run(tab, "document.querySelector('#rows button').click()")
        browser.run(
            tab, "[...document.querySelectorAll('[role=tab]')].find(t => t.textContent === 'Supervision').click()"
        )
        wait_until(lambda: "one_for_one: 1 of 2 children running" in text(browser, tab, "#panel h3"), within=PATIENCE)
        cells = text(browser, tab, "#panel tbody tr")
        assert "cart-<1>" in cells and "restarting" in cells and "die ValueError" in cells
        browser.close_tab(tab)


def test_stranger_is_asked_for_the_token(browser: Browser, watched: Node) -> None:
    with served(watched) as url:
        browser.run(browser.open("about:blank"), "return 1")
        tab = browser.open(url.partition("?")[0].replace("127.0.0.1", "localhost"))
        browser.type(tab, "token", "t\n")
        wait_until(lambda: text(browser, tab, "#rows button") == watched.NODE(), within=PATIENCE)
        browser.close_tab(tab)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_and_its_colours_can_be_read(browser: Browser, watched: Node, scheme: str) -> None:
    with served(watched) as url:
        tab = browser.open(url)
        browser.emulate(tab, 390, 800, scheme)
        wait_until(lambda: text(browser, tab, "#rows button"), within=PATIENCE)
        assert browser.run(tab, "return document.documentElement.scrollWidth <= innerWidth")
        assert browser.run(tab, "return document.documentElement.lang") == "en"
        contrast = """
            const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => { v /= 255;
              return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return .2126*r + .7152*g + .0722*b; };
            const root = getComputedStyle(document.body), probe = document.createElement('i');
            document.body.append(probe);
            const value = name => { probe.style.color = `var(${name})`; return light(getComputedStyle(probe).color); };
            const back = light(root.backgroundColor);
            return ['--front', '--soft', '--ok', '--warn', '--down', '--accent'].map(name => {
              const one = value(name); return (Math.max(one, back) + .05) / (Math.min(one, back) + .05); });"""
        assert min(browser.run(tab, contrast)) >= 4.5
        unnamed = """return [...document.querySelectorAll('button, input, select, [role=button]')].filter(e =>
            !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"""
        assert browser.run(tab, unnamed) == 0
        browser.close_tab(tab)


def made_up(number: int, turn: int) -> dict[str, Any]:
    is_down = number % 100 == 7
    return {
        "id": f"shop/host{number % 20}/w{number}", "group": f"shop/host{number % 20}/*", "host": f"host{number % 20}",
        "up": not is_down, "error": "it is gone" if is_down else "", "roles": "named", "links": 2, "ports": number,
        "messages": (number + turn) % 50, "deepest": 3, "blocked": 0, "queue": 0, "lag": 1, "memory": 60,
        "cpu": (number * turn) % 100, "in": (number * turn) % 977, "out": 5, "unsent": 0, "since": 1_700_000_000,
    }  # fmt: skip


class ThousandNodes:
    """Stands in for a survey: a thousand nodes, all of which change with each look."""

    def __init__(self) -> None:
        self.turn = 0
        self.is_over = False
        self.links: dict[str, Any] = {}
        self.nodes: dict[str, Any] = {}
        self._look()

    def _look(self) -> None:
        self.turn += 1
        rows = [made_up(number, self.turn) for number in range(1000)]
        self.nodes = {row["id"]: row for row in rows}
        pairs = [(rows[number]["id"], rows[number * 7 % 1000]["id"]) for number in range(1, 1000)]
        self.links = {
            f"{a} {b}": {
                "a": a,
                "b": b,
                "state": "up",
                "via": "",
                "rate": self.turn,
                "unsent": 0,
                "rtt": 1,
                "tls": True,
            }
            for a, b in pairs
        }

    def watch(self) -> None:
        """Count nobody."""

    def leave(self) -> None:
        """Count nobody."""

    def wait(self, timeout: float) -> bool:
        import gevent

        gevent.sleep(0.2)
        self._look()
        return True


def test_a_thousand_nodes_stay_fluid(browser: Browser, watched: Node) -> None:
    app = dashboard_app(allow=lambda _environ: True, node=watched)
    app._survey = ThousandNodes()  # type: ignore[attr-defined]
    server = WSGIServer(("127.0.0.1", 0), app, log=None, spawn=32)
    server.start()
    try:
        tab = browser.open(f"http://127.0.0.1:{server.server_port}/")
        wait_until(lambda: browser.run(tab, "return document.body.dataset.nodes") == "1000", within=PATIENCE)
        taken = []
        for _ in range(5):
            turn = app._survey.turn  # type: ignore[attr-defined]
            wait_until(lambda: app._survey.turn > turn + 1, within=PATIENCE)  # type: ignore[attr-defined] # noqa: B023
            taken.append(float(browser.run(tab, "return document.body.dataset.milliseconds")))
        assert min(taken) < 100, "an update must not be felt"
        assert count(browser, tab, "#dots g") == 20
        assert "1000 nodes, drawn as nodes of one kind" in text(browser, tab, "#graph-note")
        assert count(browser, tab, "#rows tr") == 100
        assert text(browser, tab, "#rows tr td:nth-child(2)") == "gone", "trouble comes first"
        browser.type(tab, "filter", "host3/")
        wait_until(lambda: count(browser, tab, "#dots g") == 50, within=PATIENCE)
        print("update times in ms:", taken)
    finally:
        browser.close_tab(tab)
        server.stop(timeout=1)
