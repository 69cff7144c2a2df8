# SPDX-License-Identifier: MIT
"""gunicorn's hooks, without gunicorn; the tests of the examples have the real one."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent import monkey

from aemp_gevent.contrib import gunicorn, join_host
from aemp_gevent.contrib.gunicorn import _name_of
from aemp_gevent.runtime import gunicorn as runtime_gunicorn
from tests.support.helpers import wait_until
from tests.support.networking import ROOT, line_of, node_factory, process


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def config(proc_name: str | None = None, **facts: Any) -> Any:
    usual = {"chdir": "/srv/app", "default_proc_name": "app:app", "bind": ["127.0.0.1:8000"]}
    return SimpleNamespace(settings={"proc_name": SimpleNamespace(value=proc_name)}, **{**usual, **facts})


def test_one_line_in_the_configuration_brings_the_hooks_and_nothing_else() -> None:
    names: dict[str, Any] = {}
    exec("from aemp_gevent.contrib.gunicorn import *", names)
    assert set(names) - {"__builtins__"} == {"on_reload", "post_worker_init", "worker_exit"}


def test_name_is_the_same_for_all_workers_of_one_application_at_one_address() -> None:
    names = [
        _name_of(config()),
        _name_of(config(chdir="/srv/other")),
        _name_of(config(default_proc_name="app:other")),
        _name_of(config(bind=["127.0.0.1:8001"])),
    ]
    assert len(set(names)) == 4
    assert _name_of(config()) == names[0]
    assert all(name.startswith("gunicorn-") for name in names)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        pytest.param("shop", "shop", id="plain"),
        pytest.param("my shop/v2", "my-shop-v2", id="odd"),
        pytest.param("../x", "-x", id="dots"),
        pytest.param("x" * 50, "x" * 40, id="long"),
        pytest.param("...", "gunicorn", id="nothing-left"),
    ],
)
def test_process_name_is_the_name(given: str, name: str) -> None:
    assert _name_of(config(given)) == name


def test_errors_for_other_kinds_of_workers_say_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    class SyncWorker:
        cfg = config()

        log = logging.getLogger("a-gunicorn")

    with pytest.raises(SystemExit) as ended:
        gunicorn.post_worker_init(SyncWorker())
    assert ended.value.code == pytest.importorskip("gunicorn.arbiter").Arbiter.WORKER_BOOT_ERROR
    (line,) = caplog.messages
    assert "SyncWorker does not have one; start gunicorn with --worker-class gevent" in line


@contextmanager
def gunicorn_of(scratch: Path, *options: str, workers: int = 1, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real gunicorn for the application in a folder; it writes to the file ``log`` there."""
    pytest.importorskip("gunicorn")
    command = [sys.executable, "-m", "gunicorn", *options, "-w", str(workers), "-b", f"unix:{scratch}/http", "app:app"]
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "HOME": str(scratch), "AEMP_CONFIG": os.devnull}
    with (scratch / "log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=scratch, env={**os.environ, **own, **variables}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@pytest.mark.slow
def test_request_to_a_worker_without_hooks_is_warned_of_in_gunicorns_log(scratch: Path) -> None:
    application = [
        "from aemp_gevent import grp_snd",
        "def app(environ, start_response):",
        "    start_response('200 OK', [])",
        "    return [b'%d' % len(grp_snd('readers', 1))]",
    ]
    (scratch / "app.py").write_text("\n".join(application))
    with gunicorn_of(scratch, "-k", "gevent"):
        with gevent.socket.socket(socket.AF_UNIX) as browser:
            # The socket's file is there a moment before anybody listens.
            wait_until(lambda: not browser.connect_ex(str(scratch / "http")), within=30)
            browser.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert browser.makefile("rb").read().endswith(b"\r\n\r\n0")
        (line,) = [line for line in (scratch / "log").read_text().splitlines() if "gunicorn.conf.py" in line]
    assert re.match(r"\[\d{4}-\d\d-\d\d .*\] \[\d+\] \[WARNING\] ", line), "not in gunicorn's format"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "variables", "said"),
    [
        pytest.param(["-k", "sync"], {}, "start gunicorn with --worker-class gevent", id="other-worker"),
        pytest.param(["-k", "gevent"], {"AEMP_SEEDS": "127.0.0.1:9"}, "AEMP_SECRET", id="no-secret"),
    ],
)
def test_worker_that_cannot_join_says_why_once(
    scratch: Path, options: list[str], variables: dict[str, str], said: str
) -> None:
    (scratch / "app.py").write_text("app = print")
    (scratch / "gunicorn.conf.py").write_text("from aemp_gevent.contrib.gunicorn import *")
    with gunicorn_of(scratch, *options, **variables) as server:
        assert server.wait(30) == 3
    log = (scratch / "log").read_text()
    (line,) = [line for line in log.splitlines() if said in line]
    assert "[ERROR]" in line
    assert "Traceback" not in log


WORKER = """
import logging, sys, tempfile
from types import SimpleNamespace
import gevent
import gevent.socket
tempfile.tempdir = sys.argv[1]
from aemp_gevent import *
from aemp_gevent.contrib import gunicorn
class GeventWorker:
    alive, log = True, logging
    cfg = SimpleNamespace(settings={"proc_name": SimpleNamespace(value="app")})
@gunicorn.on_join
def register():
    print("joins", flush=True)
    sys.stdin.readline()
    grp_reg("members", port())
gunicorn.post_worker_init(GeventWorker())
print("serves", flush=True)
gevent.wait()
"""


@pytest.mark.slow
def test_worker_serves_nobody_before_the_others_know_what_it_registered() -> None:
    with tempfile.TemporaryDirectory() as folder, node_factory() as make_node:
        node = make_node(None)
        join_host("app", folder=f"{folder}/aemp-{os.geteuid()}", node=node)
        with process(WORKER, folder) as worker:
            assert worker.stdin is not None
            assert line_of(worker) == "joins"
            worker.stdin.write("\n")
            worker.stdin.flush()
            # This node hears nothing as long as its loop stands still.
            readable = monkey.get_original("select", "select")([worker.stdout], [], [], 1.0)[0]
            assert not readable, "it serves already"
            assert line_of(worker) == "serves"
            assert len(node.db_keys("members")) == 1


def test_drain_begins_when_the_worker_accepts_no_more_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise clients that come back at once land on the same worker, after its streams were told to end."""
    monkeypatch.setattr(gunicorn, "_drains", [])
    monkeypatch.setattr(gunicorn._Draining, "is_draining", False)
    monkeypatch.setattr(gunicorn, "_LOOK_SECONDS", 0.001)
    seen: list[tuple[bool, int]] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        worker = SimpleNamespace(alive=True, sockets=[listening])
        gunicorn.on_drain(lambda: seen.append((gunicorn.is_draining(), listening.fileno())))
        watching = gevent.spawn(gunicorn._watch, worker)
        gevent.sleep(0.01)
        worker.alive = False
        gevent.sleep(0.01)
        assert not seen
        assert not gunicorn.is_draining()
    watching.join()
    wait_until(lambda: seen)
    assert seen == [(True, -1)]


def test_worker_leaves_even_if_its_totals_cannot_be_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[bool] = []

    def fail(_node: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(gunicorn, "default_node", SimpleNamespace(shutdown=lambda: left.append(True)))
    monkeypatch.setattr(gunicorn, "estate_of", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        gunicorn.worker_exit(None, None)
    assert left == [True]


def test_drain_begins_after_a_while_whatever_the_worker_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunicorn._Draining, "is_draining", False)
    monkeypatch.setattr(gunicorn, "_CLOSE_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        gunicorn._watch(SimpleNamespace(alive=False, sockets=[listening]))
        assert gunicorn.is_draining()


@pytest.mark.parametrize(
    ("facts", "waits"),
    [
        pytest.param({"age": 3}, 15.0, id="hangup"),
        pytest.param({"age": 3, "timeout": 8}, 4.0, id="short-timeout"),
        pytest.param({"age": 3, "timeout": 0}, 15.0, id="no-timeout"),
        pytest.param({"age": 4}, None, id="new"),
        pytest.param({"age": 4, "max_requests": 10}, 15.0, id="max-requests"),
        pytest.param({"age": 4, "max_requests": 10, "workers": 1}, None, id="alone"),
    ],
)
def test_worker_that_is_replaced_waits_for_one_that_takes_over(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], waits: float | None
) -> None:
    import aemp_gevent.shared.ownership

    waited: list[float] = []
    events: list[str] = []
    estate, state = SimpleNamespace(hand_over=waited.append), SimpleNamespace(leave=waited.append)
    monkeypatch.setattr(gunicorn, "_replaced", mmap.mmap(-1, 8))
    monkeypatch.setattr(gunicorn, "estate_of", lambda _node: estate)
    monkeypatch.setattr(aemp_gevent.shared.ownership, "ownership_of", lambda _node: state)
    monkeypatch.setattr(gunicorn, "default_node", SimpleNamespace(shutdown=lambda: events.append("shutdown")))
    given = {"workers": 2, "timeout": 30, "max_requests": 1000, **facts}
    worker = SimpleNamespace(age=given["age"], nr=10, max_requests=given["max_requests"], cfg=SimpleNamespace(**given))
    gunicorn.on_reload(SimpleNamespace(worker_age=3))
    gunicorn.worker_exit(None, worker)
    assert waited == ([] if waits is None else [waits] * 2)
    assert events == ["shutdown"]


def test_worker_ends_though_one_that_takes_over_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    def hang(_patience: float) -> None:
        try:
            gevent.sleep(1000)
        finally:
            events.append("given up")

    monkeypatch.setattr(gunicorn, "_replaced", mmap.mmap(-1, 8))
    monkeypatch.setattr(gunicorn, "estate_of", lambda _node: SimpleNamespace(hand_over=hang))
    monkeypatch.delitem(sys.modules, "aemp_gevent.shared.ownership", raising=False)
    monkeypatch.setattr(gunicorn, "default_node", SimpleNamespace(shutdown=lambda: events.append("shutdown")))
    gunicorn.on_reload(SimpleNamespace(worker_age=3))
    gunicorn.worker_exit(None, SimpleNamespace(age=3, cfg=SimpleNamespace(timeout=0.02)))
    wait_until(lambda: sorted(events) == ["given up", "shutdown"])


def load(hook: Callable[..., object]) -> None:
    """Import an application as gunicorn does: in a method of what has the configuration."""
    config = pytest.importorskip("gunicorn.config").Config()
    config.set("post_worker_init", hook)
    from gunicorn.workers.base import Worker

    class Application:
        def wsgi(self) -> None:
            gunicorn.on_join(list)
            gunicorn.on_drain(list)

    worker = Worker.__new__(Worker)
    worker.app, worker.cfg = Application(), config
    worker.load_wsgi()


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gunicorn, "_joins", [])
    monkeypatch.setattr(gunicorn, "_drains", [])
    monkeypatch.setattr(runtime_gunicorn._Joining, "is_settled", False)
    monkeypatch.setattr(runtime_gunicorn._Joining, "looked_in", 0)


@pytest.mark.usefixtures("fresh_process")
def test_configuration_without_the_hooks_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    load(pytest.importorskip("gunicorn.config").PostWorkerInit.default)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "add the line 'from aemp_gevent.contrib.gunicorn import *' to gunicorn.conf.py" in record.getMessage()


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize(
    "hook",
    [
        pytest.param(gunicorn.post_worker_init, id="ours"),
        pytest.param(lambda worker: gunicorn.post_worker_init(worker), id="calls-ours"),  # noqa: PLW0108
    ],
)
def test_configuration_with_the_hooks_is_not_warned_of(
    caplog: pytest.LogCaptureFixture, hook: Callable[..., object]
) -> None:
    load(hook)
    gunicorn.on_join(list)  # nor is a program that no gunicorn runs
    assert not caplog.records


@pytest.mark.usefixtures("fresh_process")
def test_functions_may_be_registered_in_the_configuration_itself(
    caplog: pytest.LogCaptureFixture, scratch: Path
) -> None:
    config = pytest.importorskip("gunicorn.config").Config()
    from gunicorn.app.base import Application

    file = scratch / "gunicorn.conf.py"
    file.write_text(
        "from aemp_gevent.contrib.gunicorn import *\nfrom aemp_gevent.contrib.gunicorn import on_join\non_join(list)\n"
    )
    master = Application.__new__(Application)
    master.cfg = config
    master.load_config_from_file(str(file))
    assert master.cfg.post_worker_init is gunicorn.post_worker_init
    assert not caplog.records
    load(pytest.importorskip("gunicorn.config").PostWorkerInit.default)
    assert caplog.records, "what else runs in that process is looked at again"
