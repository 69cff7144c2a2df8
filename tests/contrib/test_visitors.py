# SPDX-License-Identifier: MIT
"""Connections of visitors that do nothing are closed, without a word in the log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.pywsgi import WSGIServer

from aemp_gevent.contrib import visitors
from aemp_gevent.contrib.visitors import ImpatientHandler
from aemp_gevent.testing import wait_until


def app(environ: Any, start_response: Any) -> Iterator[bytes]:
    if environ["PATH_INFO"] != "/unread":
        environ["wsgi.input"].read()
    start_response("200 OK", [])
    while environ["PATH_INFO"] == "/endless":
        yield b"x" * 65536
    yield b"ok"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WSGIServer]:
    monkeypatch.setattr(visitors, "PATIENCE_SECONDS", 0.1)
    server = WSGIServer(("127.0.0.1", 0), app, log=None, spawn=9, handler_class=ImpatientHandler)
    server.start()
    yield server
    server.stop(timeout=1)


def visit(server: WSGIServer, sent: bytes) -> socket.socket:
    """Connect to the server, and send it something."""
    visitor = socket.create_connection(("127.0.0.1", server.server_port), 30)
    visitor.sendall(sent)
    return visitor


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(b"GET / HT", b"", id="half-a-line"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: ", b"400 Bad Request", id="half-the-headers"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx", b"", id="half-the-body"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK", id="no-more-requests"),
    ],
)
def test_visitor_that_sends_no_more_is_sent_away(
    server: WSGIServer, sent: bytes, answer: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with visit(server, sent) as visitor:
        found = b"".join(iter(lambda: visitor.recv(4096), b""))
    assert answer in found
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("sent", "piece"),
    [
        pytest.param(b"", b"x", id="line"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"x", id="header"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"Host: x\r\n", id="headers"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"x", id="body"),
        pytest.param(b"POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"x", id="unread-body"),
    ],
)
def test_visitor_that_sends_a_little_again_and_again_is_sent_away(
    server: WSGIServer, sent: bytes, piece: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with visit(server, sent) as visitor, contextlib.suppress(ConnectionError):
        for _ in range(99):  # a second and a half; more than a hundred headers are refused
            visitor.sendall(piece)
            gevent.sleep(0.015)
        pytest.fail("it may send on and on")
    assert "Traceback" not in "".join(capfd.readouterr())


def test_visitor_that_reads_nothing_is_sent_away(server: WSGIServer, capfd: pytest.CaptureFixture[str]) -> None:
    with visit(server, b"GET /endless HTTP/1.0\r\n\r\n") as visitor:
        while not visitor.recv(1):
            pass
        assert len(server.pool) == 1
        wait_until(lambda: len(server.pool) == 0)
    assert "Traceback" not in "".join(capfd.readouterr())
