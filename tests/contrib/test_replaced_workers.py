# SPDX-License-Identifier: MIT
"""Workers of a real gunicorn that are replaced while they own shared state."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import gevent
import gevent.socket
import pytest

from tests.contrib.test_gunicorn import gunicorn_of, scratch
from tests.support.thoroughness import THOROUGH

__all__ = ["scratch"]

APPLICATION = """
import os
import time

time.sleep(4)  # so that the old workers are done before the new ones have joined

from aemp_gevent.shared import Counter, Once

def app(environ, start_response):
    start_response("200 OK", [])
    work = {"/add": Counter("hits", timeout=20).add, "/first": Once("mail", timeout=20).first}
    return [f"{work[environ['PATH_INFO']]()} by {os.getpid()}".encode()]
"""


@pytest.mark.slow
@pytest.mark.skipif(not THOROUGH, reason="it waits for workers of gunicorn: run make test-thorough")
@pytest.mark.parametrize("workers", [1, 3])
def test_hangup_loses_no_shared_state(scratch: Path, workers: int) -> None:
    (scratch / "app.py").write_text(APPLICATION)
    (scratch / "gunicorn.conf.py").write_text("from aemp_gevent.contrib.gunicorn import *")

    def get(path: str, *, within: float = 60) -> tuple[str, str]:
        """Return the answer, and the process that gave it."""
        with gevent.Timeout(within):
            while True:
                try:
                    with gevent.socket.socket(gevent.socket.AF_UNIX) as browser:
                        browser.connect(str(scratch / "http"))
                        browser.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                        answer = browser.makefile("rb").read().decode()
                    found = re.search(r"200 OK[\s\S]*\r\n\r\n(\S+) by (\d+)$", answer)
                    if found:
                        return found[1], found[2]
                except OSError:
                    pass
                gevent.sleep(0.1)

    with gunicorn_of(scratch, "-k", "gevent", "--graceful-timeout", "5", workers=workers) as server:
        former = {get("/add")[1] for _ in range(10)}
        added = 10
        assert get("/first")[0] == "True"
        for _ in range(2):
            server.send_signal(signal.SIGHUP)
            process = next(iter(former))
            while process in former:
                answer, process = get("/add")
                added += 1
            former.add(process)
            assert int(answer) >= added, "some may have been counted without an answer"
            assert get("/first")[0] == "False"
        log = (scratch / "log").read_text()
    assert "lost" not in log
