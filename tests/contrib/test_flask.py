# SPDX-License-Identifier: MIT
"""The extension for Flask: requests have ports, and ``/healthz`` says how the node is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gevent
import pytest

pytest.importorskip("flask")

import flask
from gevent import monkey
from gevent.pywsgi import WSGIServer

from aemp_gevent import SELF, Node, receive
from aemp_gevent.contrib import gunicorn, joining
from aemp_gevent.contrib.flask import Aemp
from aemp_gevent.contrib.joining import parse_url
from aemp_gevent.contrib.per_process import PerProcess
from aemp_gevent.errors import InvalidSettingError, WrongThreadError
from soak.web import WebConnection
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, WAIT, Deaths, MakeNode, free_address
from tests.support.threads import in_thread


def make_app(node: Node, **config: Any) -> tuple[flask.Flask, Aemp]:
    app = flask.Flask("app")
    app.config.update({"TESTING": True, **config})
    return app, Aemp(app, node=node)


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as path:
        yield Path(path, "own")


def test_request_has_one_port_that_can_receive_and_dies_with_it(make_node: MakeNode) -> None:
    node = make_node(None)
    app, aemp = make_app(node)
    died = Deaths()

    @app.get("/")
    def view() -> list[str]:
        mine = aemp.port
        assert SELF() == mine == aemp.port
        node.mon(mine, died)
        node.snd(mine, "hello", "there")
        return list(receive("hello", timeout=WAIT))

    for _ in range(2):
        assert app.test_client().get("/").json == ["hello", "there"]
        assert SELF() is None
    wait_until(lambda: died.count == 2, within=WAIT)
    assert died.wait() == ()


def test_requests_at_once_have_ports_of_their_own(make_node: MakeNode) -> None:
    node = make_node(None)
    app, aemp = make_app(node)
    ports: list[str] = []

    @app.get("/<int:number>")
    def view(number: int) -> list[int]:
        ports.append(aemp.port)
        return list(receive(int, timeout=WAIT))

    asking = [gevent.spawn(app.test_client().get, f"/{number}") for number in range(3)]
    wait_until(lambda: len(set(ports)) == 3, within=WAIT)
    for number, port in enumerate(ports):
        node.snd(port, number)
    answers = [greenlet.get(timeout=WAIT).json for greenlet in asking]
    assert sorted(answers) == [[0], [1], [2]]


def test_request_that_fails_leaves_no_port(make_node: MakeNode) -> None:
    node = make_node(None)
    app, aemp = make_app(node, PROPAGATE_EXCEPTIONS=False)
    died = Deaths()

    @app.get("/")
    def view() -> None:
        node.mon(aemp.port, died)
        raise ValueError

    assert app.test_client().get("/").status_code == 500
    assert died.wait() == ()


def test_port_of_a_stream_lives_until_its_end(make_node: MakeNode) -> None:
    node = make_node(None)
    app, aemp = make_app(node)
    died = Deaths()

    @app.get("/")
    def view() -> flask.Response:
        @flask.stream_with_context
        def pieces() -> Iterator[str]:
            node.mon(aemp.port, died)
            for number in range(3):
                node.snd(aemp.port, str(number))
                yield receive(timeout=WAIT)[0]
            assert not died.count

        return flask.Response(pieces())

    assert app.test_client().get("/").text == "012"
    assert died.wait() == ()


def test_there_is_no_port_without_a_request(make_node: MakeNode) -> None:
    _, aemp = make_app(make_node(None))
    with pytest.raises(RuntimeError, match=r"call attach\(\)"):
        _ = aemp.port


def test_process_joins_before_its_first_request_and_probes_see_it(make_node: MakeNode, folder: Path) -> None:
    nodes = [make_node(None) for _ in range(2)]
    servers = []
    for node in nodes:
        app, _ = make_app(node, AEMP_URL=f"aemp://shop?folder={folder}", TESTING=False)
        servers.append(WSGIServer(("127.0.0.1", 0), app, log=None))
        servers[-1].start()
        assert node.settings is None, "it joined too early: it may still fork"
    try:
        for node, server in zip(nodes, servers, strict=True):
            # Several first requests at once join once.
            asked = [gevent.spawn(probe, f"127.0.0.1:{server.server_port}") for _ in range(3)]
            for greenlet in asked:
                assert greenlet.get(timeout=WAIT) == (200, {"status": "ok", "node": node.NODE()})
        assert nodes[0].up_nodes() == [nodes[1].NODE()]
    finally:
        for server in servers:
            server.stop()


def probe(address: str) -> tuple[int, Any]:
    connection = WebConnection(address)
    answer = connection.ask("GET", "/healthz")
    try:
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def status(app: flask.Flask) -> tuple[int, str]:
    answer = app.test_client().get("/healthz")
    assert answer.json is not None
    return answer.status_code, answer.json["status"]


def test_probes_see_what_is_wrong(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    private = make_node(None)
    app, _ = make_app(private)
    assert status(app) == (503, "private")
    seed = make_node()
    assert status(make_app(seed)[0]) == (200, "ok"), "it has no seeds"
    private.initialise_node("127.0.0.1:0", seed.NODE(), secret=SECRET)
    wait_until(lambda: status(app) == (200, "ok"), within=WAIT)
    monkeypatch.setattr(gunicorn._Draining, "is_draining", True)
    assert status(app) == (503, "draining")
    monkeypatch.undo()
    seed.shutdown()
    wait_until(lambda: status(app) == (503, "cut off"), within=WAIT)
    private.shutdown()
    assert status(app) == (503, "shut down")


def test_seed_of_itself_is_not_cut_off_while_it_is_alone(make_node: MakeNode) -> None:
    address = free_address()
    app, _ = make_app(make_node(address, address))
    wait_until(lambda: status(app) == (200, "ok"), within=WAIT)  # when it has found out whom it dials


def test_probes_have_another_path_or_none(make_node: MakeNode) -> None:
    node = make_node()
    assert make_app(node, AEMP_HEALTHZ="/up")[0].test_client().get("/up").status_code == 200
    assert make_app(node, AEMP_HEALTHZ=None)[0].test_client().get("/healthz").status_code == 404


def test_invalid_url_is_refused_when_the_application_is_made(make_node: MakeNode) -> None:
    with pytest.raises(InvalidSettingError, match="aemp://NAME"):
        make_app(make_node(None), AEMP_URL="redis://")


def test_probe_of_a_process_that_cannot_join_says_so_and_other_requests_fail(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    app, _ = make_app(make_node(None), AEMP_URL="aemp://shop?folder=/proc/nowhere")
    app.testing = False
    app.add_url_rule("/", "index", lambda: "never")
    assert gevent.spawn(status, app).get(timeout=WAIT) == (503, "private")
    assert "/healthz answers that this process has not joined" in caplog.text
    assert gevent.spawn(app.test_client().get, "/").get(timeout=WAIT).status_code == 500


def test_applications_may_use_any_name_in_g(make_node: MakeNode) -> None:
    app, aemp = make_app(make_node(None))

    @app.get("/")
    def view() -> str:
        flask.g.aemp = "mine"
        return aemp.port

    assert app.test_client().get("/").text.startswith(aemp._node.NODE())


def test_server_without_greenlets_stays_private_and_warns_once(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(joining, "_warned", PerProcess(set))
    app, _ = make_app(make_node(None), AEMP_URL="aemp://shop")
    for _ in range(2):
        assert status(app) == (503, "private")
    (line,) = caplog.messages
    assert "AEMP_URL: this process stays private" in line


def test_native_thread_joins_nothing(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loop would not run, and other threads could not use the node."""
    monkeypatch.setattr(monkey, "is_module_patched", lambda _name: False)
    node = make_node(None)
    with pytest.raises(WrongThreadError, match="it works only in the native thread"):
        in_thread(parse_url("aemp://shop").join, "it", node)
    assert node.settings is None
