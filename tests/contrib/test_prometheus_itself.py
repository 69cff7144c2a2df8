# SPDX-License-Identifier: MIT
"""Prometheus itself, where it is installed, scrapes gunicorn's workers while they are replaced.

``AEMP_TEST_SCRAPE_SECONDS=60`` does it for a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent.socket
import pytest

from soak.web import WebConnection
from tests.contrib.test_gunicorn import gunicorn_of
from tests.support.helpers import wait_until
from tests.support.networking import free_address

pytest.importorskip("prometheus_client", reason="the extra 'prometheus' is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.no_cover,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

SECONDS = float(os.environ.get("AEMP_TEST_SCRAPE_SECONDS", "12"))

APPLICATION = """
from aemp_gevent import port, serve, call, kil

def app(environ, start_response):
    asked = port(); serve(asked, x=lambda: 1); call(asked, "x"); kil(asked)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

CONFIGURATION = """
from aemp_gevent.contrib.gunicorn import *
from aemp_gevent.contrib.gunicorn import on_join
from aemp_gevent.contrib.prometheus import serve_metrics

on_join(lambda: serve_metrics("{address}", "host"))
"""


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def get(address: str, path: str) -> bytes:
    connection = WebConnection(address)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


def answer(address: str, query: str) -> float:
    """Return what Prometheus answers to a query of one value; -1: nothing."""
    found: Any = json.loads(get(address, f"/api/v1/query?query={quote(query)}"))["data"]["result"]
    return float(found[0]["value"][1]) if found else -1


def is_up(address: str) -> bool:
    try:
        return answer(address, "sum(aemp_nodes)") == 2
    except (OSError, ValueError):  # it is not there yet, or it is starting
        return False


def test_no_total_falls_while_workers_are_replaced(scratch: Path) -> None:
    pages, own = free_address(), free_address()
    (scratch / "app.py").write_text(APPLICATION)
    (scratch / "gunicorn.conf.py").write_text(CONFIGURATION.format(address=pages))
    scrape = {"job_name": "shop", "static_configs": [{"targets": [pages]}]}
    config = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]}
    (scratch / "prometheus.yml").write_text(json.dumps(config))  # YAML has JSON in it
    command = ["prometheus", f"--config.file={scratch}/prometheus.yml", f"--storage.tsdb.path={scratch}/data"]
    with gunicorn_of(scratch, "-k", "gevent", "--max-requests", "30", "--max-requests-jitter", "15", workers=2):
        with (scratch / "prometheus.log").open("wb") as log:
            prometheus = subprocess.Popen([*command, f"--web.listen-address={own}"], stdout=log, stderr=log)
        try:
            wait_until(lambda: is_up(own), within=60)
            until = time.monotonic() + SECONDS
            requests = failed = 0
            while time.monotonic() < until or answer(own, "max(aemp_nodes_ended_total)") < 2:
                try:
                    requests += get(f":{scratch}/http".removeprefix(":"), "/") == b"ok"
                except OSError:
                    failed += 1
                gevent.sleep(0.02)
                assert time.monotonic() < until + 60
            window = f"[{int(SECONDS) + 60}s]"
            assert answer(own, f"max(count_over_time(aemp_nodes{window}))") > SECONDS / 4, "most scrapes failed"
            for name in ("aemp_call_seconds_count", "aemp_nodes_ended_total", "aemp_link_bytes_sent_total"):
                assert answer(own, f"sum(resets({name}{window}))") == 0, name
            assert answer(own, "max(aemp_nodes_lost_total)") == 0
            assert 0 < answer(own, "sum(aemp_call_seconds_count)") <= requests + failed
            print("requests", requests, "workers replaced", answer(own, "max(aemp_nodes_ended_total)"))
        finally:
            prometheus.kill()
            prometheus.wait()
