# SPDX-License-Identifier: MIT
"""Applications behind a real gunicorn whose configuration lacks the library's hooks, and where log lines go."""

from __future__ import annotations

import logging
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import gevent
import pytest

from aemp_gevent.node.log_tap import LogTap
from aemp_gevent.node.node import Node
from aemp_gevent.runtime import gunicorn
from tests.support.networking import MakeNode

base = pytest.importorskip("gunicorn.workers.base")
config = pytest.importorskip("gunicorn.config")


class Worker(base.Worker):  # type: ignore[misc]  # gunicorn has no types
    """A worker as far as the library looks at it."""

    def __init__(self, hook: object, *, booted: bool = True) -> None:
        self.cfg = SimpleNamespace(post_worker_init=hook)
        self.booted = booted


NO_HOOK = config.PostWorkerInit.default


@pytest.fixture(autouse=True)
def handled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(gunicorn._Joining, "is_settled", False)
    monkeypatch.setattr(gunicorn._Joining, "looked_in", 0)
    before = signal.getsignal(signal.SIGABRT)
    yield
    signal.signal(signal.SIGABRT, before)


def run_in(worker: Worker) -> None:
    """Make this process look like one of gunicorn's workers."""
    signal.signal(signal.SIGABRT, worker.handle_abort)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_first_port_of_a_worker_without_hooks_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    run_in(Worker(NO_HOOK))
    node = Node()
    node.port()
    node.port()
    Node().port()
    (warning,) = warnings(caplog)
    assert "add the line 'from aemp_gevent.contrib.gunicorn import *' to gunicorn.conf.py" in warning


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda node: node.grp_snd("group", 1), id="grp_snd"),
        pytest.param(lambda node: node.grp_get("group"), id="grp_get"),
        pytest.param(lambda node: node.db_set("family", "key"), id="db_set"),
    ],
)
def test_first_call_that_needs_no_port_is_warned_of_as_well(
    caplog: pytest.LogCaptureFixture, call: Callable[[Node], object]
) -> None:
    run_in(Worker(NO_HOOK))
    call(Node())
    assert len(warnings(caplog)) == 1


def test_greenlet_of_the_application_is_warned_of_as_well(caplog: pytest.LogCaptureFixture) -> None:
    run_in(Worker(NO_HOOK))
    gevent.spawn(Node().attach).get().detach()
    assert len(warnings(caplog)) == 1


def test_hook_of_the_users_own_that_does_not_call_ours_is_warned_of_when_requests_are_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker(lambda worker: None, booted=False)
    run_in(worker)
    Node().port()
    assert warnings(caplog) == []
    worker.booted = True
    Node().port()
    assert len(warnings(caplog)) == 1


def test_worker_that_has_joined_is_not_warned_of(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    run_in(Worker(NO_HOOK))
    make_node().port()
    Node().port()  # another one, for itself
    assert warnings(caplog) == []


def test_process_that_gunicorn_does_not_run_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Node().port()
    assert warnings(caplog) == []


def test_gunicorn_is_looked_for_once_in_each_process(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = []
    look = gunicorn._things_of_gunicorn
    monkeypatch.setattr(gunicorn, "_things_of_gunicorn", lambda: looks.append(os.getpid()) or look())
    node = Node()
    node.port()
    for _ in range(3):
        node.grp_get("group")
    assert len(looks) == 1
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a child that was forked
    run_in(Worker(NO_HOOK))
    node.grp_get("group")
    assert (len(looks), len(warnings(caplog))) == (2, 1)


class Value:
    """Something that a program lets go of."""


def test_looking_for_gunicorn_keeps_no_values_of_the_program_alive() -> None:
    value = Value()
    ref = weakref.ref(value)
    Node().port()
    del value
    assert ref() is None


def test_handler_of_a_signal_that_belongs_to_a_proxy_is_not_taken_for_gunicorns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Proxy:
        """Its class does not say in which module it is, as some do whose objects stand for others."""

        __module__ = property(lambda _self: "gunicorn")  # type: ignore[assignment]

        def abort(self, *_args: object) -> None: ...

    signal.signal(signal.SIGABRT, Proxy().abort)
    Node().port()
    assert warnings(caplog) == []


# --- log lines -----------------------------------------------------------------------------


class Lines(logging.Handler):
    """A handler that keeps the lines."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """The root logger as it is in a program that has not configured logging."""
    root = logging.RootLogger(logging.WARNING)
    logger = logging.getLogger("aemp_gevent")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "parent", root)
    return root


@pytest.fixture
def gunicorns(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """The handler of gunicorn's error log."""
    lines = Lines(logging.WARNING)
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "handlers", [lines])
    return lines


def log(text: str) -> None:
    logging.getLogger("aemp_gevent.etcd").warning(text)


@pytest.mark.usefixtures("root")
def test_lines_go_to_gunicorns_log(gunicorns: Lines) -> None:
    gunicorn.log_as_gunicorn()
    gunicorn.log_as_gunicorn()
    log("first")
    logging.getLogger("aemp_gevent").log(logging.WARNING - 1, "below the level of gunicorn's handler")
    assert gunicorns.lines == ["first"]


@pytest.mark.parametrize("name", ["", "aemp_gevent", "aemp_gevent.etcd"])
@pytest.mark.parametrize("is_first", [True, False], ids=["before", "after"])
def test_logging_that_the_program_configures_replaces_gunicorns(
    monkeypatch: pytest.MonkeyPatch, root: logging.Logger, gunicorns: Lines, name: str, is_first: bool
) -> None:
    logger = logging.getLogger(name) if name else root
    monkeypatch.setattr(logger, "handlers", [])
    own = Lines()
    if is_first:
        logger.addHandler(own)
    gunicorn.log_as_gunicorn()
    logger.addHandler(own)
    log("first")
    assert (own.lines, gunicorns.lines) == (["first"], [])


def test_listener_to_the_log_of_a_node_does_not_replace_gunicorns(root: logging.Logger, gunicorns: Lines) -> None:
    root.addHandler(LogTap())
    gunicorn.log_as_gunicorn()
    log("first")
    assert gunicorns.lines == ["first"]


def test_without_a_log_of_gunicorns_the_library_logs_as_without_gunicorn(
    monkeypatch: pytest.MonkeyPatch, root: logging.Logger
) -> None:
    monkeypatch.setattr(logging.getLogger("gunicorn.error"), "handlers", [])
    gunicorn.log_as_gunicorn()
    assert not any(logger.handlers for logger in (root, logging.getLogger("aemp_gevent")))
