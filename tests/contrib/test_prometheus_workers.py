# SPDX-License-Identifier: MIT
"""Figures of gunicorn's workers, for Prometheus, while they are replaced."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import gevent.socket
import pytest

from tests.contrib.test_gunicorn import gunicorn_of, scratch
from tests.contrib.test_prometheus import Samples, assert_nothing_fell, calls, samples_in
from tests.support.helpers import wait_until

__all__ = ["scratch"]

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
