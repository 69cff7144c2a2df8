# SPDX-License-Identifier: MIT
"""The rate-limited API behind a real gunicorn, in a real browser: all workers count together."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from aemp_gevent.shared import Counter, Limiter
from aemp_gevent.testing import MemoryNetwork, wait_until
from soak.browser import Browser
from soak.web import EXAMPLES, PATIENCE, Gunicorn
from tests.support.networking import free_address

pytest.importorskip("flask")
pytest.importorskip("gunicorn")

API = EXAMPLES / "rate_limited_api"


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    monkeypatch.setenv("API_SECONDS", "3000")
    with TemporaryDirectory() as path:
        yield Path(path)


def ask(server: Gunicorn) -> tuple[int, dict[str, object]]:
    """Use the API over a connection of its own, so that any worker may get it."""
    connection = server.connect()
    try:
        answer = connection.ask("POST", "/api")
        found = json.loads(answer.read())
        return answer.status, {**found, "Retry-After": answer.headers.get("Retry-After")}
    finally:
        connection.close()


@pytest.mark.slow
def test_workers_count_together_and_another_one_continues_when_one_is_replaced(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_LIMIT", "60")
    with Gunicorn(API, scratch, "--preload", workers=2) as server:
        answers = [ask(server) for _ in range(20)]
        nodes = {found["node"] for _, found in answers}
        while len(nodes) < 2:  # until both workers have answered
            answers.append(ask(server))
            nodes.add(answers[-1][1]["node"])
        count = len(answers)
        assert [status for status, _ in answers] == [200] * count
        assert [found["number"] for _, found in answers] == list(range(1, count + 1))
        assert [found["remaining"] for _, found in answers] == list(range(59, 59 - count, -1))
        for pid in list(server.workers):  # one of which has the counts
            os.kill(pid, signal.SIGTERM)
            server.wait_for_workers(pid)
        answers = [ask(server) for _ in range(61 - count)]
        assert answers[0][1]["remaining"] == 59 - count, "the counts were handed over"
        assert answers[-1][0] == 429
        assert 2000 < int(str(answers[-1][1]["Retry-After"])) <= 3000


@pytest.mark.slow
def test_page_shows_who_answered_and_when_it_was_too_often(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("chromedriver"):
        pytest.skip("there is no chromedriver")
    monkeypatch.setenv("API_LIMIT", "2")
    with Gunicorn(API, scratch, "--preload", workers=2, address=free_address()) as server:
        browser = Browser(scratch)
        try:
            tab = browser.open(f"http://{server.address}/")
            script = "return [...document.querySelectorAll('#answers li')].map(line => line.textContent)"
            for count in (1, 2, 3):
                browser.run(tab, "document.getElementById('ask').click()")
                wait_until(lambda count=count: len(browser.run(tab, script)) == count, within=PATIENCE)
            lines = browser.run(tab, script)
            assert [line.partition(" by ")[0] for line in lines[:2]] == ["number 1, 1 left,", "number 2, 0 left,"]
            assert all(line.partition(" by ")[2] in server.workers.values() for line in lines[:2])
            assert lines[2].startswith("too many, try again in ")
            assert browser.run(tab, "return document.getElementById('state').textContent") == "429"
        finally:
            browser.close()


def test_everybody_may_use_it_while_the_worker_that_counts_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("rate_limited_api", API / "app.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    quick: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_timeout": 3.0}
    with MemoryNetwork(time="virtual") as network:
        owner = network.node("10.7.0.1:4040", "10.7.0.1:4040", **quick)
        Limiter("api", 2, 1000.0, node=owner).hit("127.0.0.1")
        Counter("api", node=owner).add(6)
        worker = network.node(None, "10.7.0.1:4040", **quick)
        monkeypatch.setattr(example.limiter, "node", worker)
        monkeypatch.setattr(example.used, "node", worker)
        client = example.app.test_client()

        def ask() -> tuple[int, Any, Any]:
            answer = client.post("/api")
            found = answer.get_json()
            return answer.status_code, found.get("number"), found.get("remaining")

        monkeypatch.setattr(example.limiter, "_rate", Limiter("api", 2, 1000.0)._rate)
        assert ask() == (200, 7, 0)
        assert ask() == (429, None, None)
        network.partition([owner])
        assert ask() == (200, None, 0)
        network.heal()
        wait_until(lambda: ask()[0] == 429, within=PATIENCE)
