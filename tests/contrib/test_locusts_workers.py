# SPDX-License-Identifier: MIT
"""A test of Locust's with many workers, of which some are killed, blocked or cut off, and with a restarted master."""

from __future__ import annotations

import json
import mmap
import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from aemp_gevent.testing import Proxy
from aemp_gevent.testing.waiting import wait_until
from tests.support.networking import SECRET, free_address, line_of, process
from tests.support.thoroughness import tries

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("locust") is None, reason="Locust is not installed: pip install locust"),
]

WORKERS = int(os.environ.get("AEMP_TEST_WORKERS", tries(6, 12)))
"""``AEMP_TEST_WORKERS=50`` tries many, which takes an idle machine."""

KILLED = max(2, WORKERS // 5)
USERS = 2 * WORKERS
BLOCKED_SECONDS = tries(5, 20)
HEARTBEAT_TIMEOUT = tries(2, 5)
PATIENCE = 120.0

CUT_OFF, BLOCKED = 0, 1
"""The numbers of two workers; those with the highest numbers are killed."""

BOTH = """
import aemp_gevent.contrib.locust
import json, mmap, os, sys
import gevent
from gevent import monkey
from gevent.fileobject import FileObjectThread
from locust import User, constant, task, runners
from locust.env import Environment

file, port, proxy, workers = sys.argv[1], *map(int, sys.argv[2:])
# Which master it is; then, for each worker, its users, and its requests while there was the first and the second one.
cells = memoryview(mmap.mmap(os.open(file, os.O_RDWR), 0)).cast("q")
me = 0

class Visitor(User):
    wait_time = constant(0.3)
    @task
    def visit(self):
        cells[1 + workers * (1 + cells[0]) + me] += 1
        self.environment.events.request.fire(
            request_type="GET", name=str(me), response_time=1, response_length=0, exception=None, context={}
        )

# The links decide who lives, and not how busy this machine is.
runners.HEARTBEAT_LIVENESS = 600
runners.WORKER_REPORT_INTERVAL = 0.5
runners.WORKER_LOG_REPORT_INTERVAL = -1
environment = Environment(user_classes=[Visitor])
"""

WORK = """
def block(environment, msg):
    if msg.data["worker"] == me:
        monkey.get_original("time", "sleep")(msg.data["seconds"])

children = []
for me in range(workers):
    child = gevent.fork()
    if not child:
        break
    children.append(child)
else:
    print(json.dumps(children), flush=True)
    gevent.sleep(1000)
runner = environment.create_worker_runner("127.0.0.1", proxy if me == 0 else port)
runner.register_message("block", block)
while True:
    cells[1 + me] = runner.user_count
    gevent.sleep(0.2)
"""

LEAD = """
runner = environment.create_master_runner("127.0.0.1", port)
print("listens", flush=True)
for line in FileObjectThread(sys.stdin):
    call, *args = json.loads(line)
    if call == "start":
        gevent.spawn(runner.start, *args)
    elif call != "look":
        getattr(runner, call)(*args)
    counted = {entry.name: entry.num_requests for entry in runner.stats.entries.values()}
    print(json.dumps([runner.worker_count, runner.user_count, counted, runner.state]), flush=True)
"""


def asker(master: Any) -> Callable[..., Any]:
    """Return a function that asks a master to do something, and returns its workers, users, counts and state."""

    def ask(*call: Any) -> Any:
        master.stdin.write(json.dumps(call) + "\n")
        master.stdin.flush()
        return json.loads(line_of(master))

    assert line_of(master) == "listens"
    return ask


def test_statistics_add_up_and_no_user_is_lost_or_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    monkeypatch.setenv("AEMP_HEARTBEAT_TIMEOUT", str(HEARTBEAT_TIMEOUT))
    port = free_address().rpartition(":")[2]
    file = tmp_path / "cells"
    file.write_bytes(bytes(8 * (1 + 3 * WORKERS)))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        cells = memoryview(mapped).cast("q")
        try:
            with Proxy(f"127.0.0.1:{port}") as proxy:
                args = [str(file), port, proxy.address.rpartition(":")[2], str(WORKERS)]
                go_through_it(cells, proxy, args)
        finally:
            cells.release()


def go_through_it(cells: Any, proxy: Proxy, args: list[str]) -> None:
    living = WORKERS - KILLED

    def users() -> int:
        return sum(cells[1 : 1 + living])

    def wait_for(ask: Callable[..., Any], workers: int, wanted: int) -> None:
        """Wait until the master has so many workers and users, so many there are, and it has ended what it does."""

        def seen() -> Any:
            master = ask("look")
            return master[0], master[1], sum(cells[1 : 1 + workers]), not wanted or master[3] == "running"

        wait_until(lambda: seen() == (workers, wanted, wanted, True), within=PATIENCE, show=seen)

    with process(BOTH + WORK, *args) as workers:
        children = json.loads(line_of(workers))
        with process(BOTH + LEAD, *args) as master:
            ask = asker(master)
            wait_until(lambda: ask("look")[0] == WORKERS, within=PATIENCE, show=lambda: ask("look"))
            ask("start", USERS, 1000)
            wait_for(ask, WORKERS, USERS)
            for child in children[living:]:
                os.kill(child, signal.SIGKILL)
            wait_for(ask, living, USERS)
        wait_until(lambda: users() == 0, within=PATIENCE, show=lambda: list(cells))
        cells[0] = 1
        with process(BOTH + LEAD, *args) as master:
            ask = asker(master)
            wait_for(ask, living, 0)
            ask("start", USERS, 1000)
            wait_for(ask, living, USERS)
            ask("send_message", "block", {"worker": BLOCKED, "seconds": BLOCKED_SECONDS})
            proxy.blackhole()
            # The one that is cut off is gone, and the blocked one is not.
            wait_until(lambda: ask("look")[0] == living - 1, within=PATIENCE, show=lambda: ask("look"))
            proxy.heal()
            wait_for(ask, living, USERS)
            ask("stop")
            wait_for(ask, living, 0)
            truth = {str(worker): cells[1 + 2 * WORKERS + worker] for worker in range(living)}
            wait_until(lambda: ask("look")[2] == truth, within=PATIENCE, show=lambda: (ask("look")[2], truth))
            assert min(truth.values()) > 0
