# SPDX-License-Identifier: MIT
"""A fresh node for a test, and the rule that a test leaves no greenlet behind.

With ``AEMP_TEST_PATCH=1`` the whole suite runs monkey-patched: see ``native.py``.
"""

from __future__ import annotations

# First: it may patch.
from tests.support.native import PATCHED  # isort: skip

import functools
import gc
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import gevent
import greenlet
import pytest
from greenlet import getcurrent
from hypothesis import settings

import aemp_gevent.node.node_ports
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime import loop_watch as loopwatch
from soak.leftovers import live_greenlets
from tests.support.helpers import wait_until
from tests.support.settling import fresh_node, set_aside
from tests.support.thoroughness import EXAMPLES

pytest_plugins = ["aemp_gevent.testing.fixtures"]

# The tests ignore the configuration of the user who runs them. Their processes inherit that.
os.environ["AEMP_CONFIG"] = os.devnull
# Each test decides whether its nodes are strict.
os.environ["AEMP_STRICT"] = "0"
# The loop stands still between tests, and in those that do not need it; tests of the watch set a bound of their own.
loopwatch.BLOCKED_SECONDS = math.inf

# How long an example takes says nothing: the machine may be busy.
settings.register_profile("here", settings.get_profile("default"), max_examples=EXAMPLES, deadline=None)
settings.load_profile("here")

if sys.dont_write_bytecode:
    # Rewriting the assertions of all test modules takes every worker ten seconds: keep the result, but apart.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "bytecode")

PACKAGE = Path(aemp_gevent.__file__).parent
WIRE = Path(__file__).parent / "wire"

MEASURED_FOLDERS = {"cli", "contrib", "runtime", "testing"}
"""Tests of these start processes that count for the coverage, which makes them slow."""


def pytest_configure(config: pytest.Config) -> None:
    if PATCHED and config.getoption("numprocesses", None):
        raise pytest.UsageError("pytest-xdist has threads and no gevent: with AEMP_TEST_PATCH=1, run without it")
    refuse_stale_modules()
    # A shell starts what it puts in the background with SIGINT ignored, and processes inherit that: programs
    # that a test interrupts would continue.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def refuse_stale_modules() -> None:
    """Fail if compiled modules are older than sources that were edited: these would be tested without effect."""
    if not aemp_gevent.is_compiled:
        return
    for path in PACKAGE.rglob("*.pxd"):
        if not path.with_suffix(".py").exists():  # C functions for the others
            continue
        made = path.with_suffix(EXTENSION_SUFFIXES[0]).stat().st_mtime
        by_hand = path.with_suffix(".pyx")
        source = by_hand if by_hand.exists() else path.with_suffix(".py")
        if made < max(path.stat().st_mtime, source.stat().st_mtime):
            raise pytest.UsageError("the compiled modules are older than their sources: run 'make compiled'")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Allow ports to crash: many tests are about what happens then."""
    item.add_marker(pytest.mark.aemp_crashes)
    if asks_how_much_to_try(item.path):
        item.add_marker(pytest.mark.thorough)


def pytest_collection_finish() -> None:
    """Set aside what the modules hold: a node among that would have the first test wait for its end in vain."""
    gc.freeze()


@functools.cache
def asks_how_much_to_try(path: Path) -> bool:
    """Return whether a module has tests that try more when they are thorough."""
    return "from tests.support.thoroughness import" in path.read_text()


@pytest.fixture(autouse=True, scope="session")
def native_threads_are_not_traced() -> None:
    """Keep coverage's C tracer away from native threads on CPython 3.11.

    It keeps weak references to the main greenlet of each thread. Where greenlet clears up after a
    dead thread, their callback is a traced call inside of a pending call, and when another thread
    dies in that moment, the interpreter's main loop goes round in the first instruction of that
    call forever: it looks for pending calls before it lets the tracer have it, again and again.
    One run in fifty of a test with many threads ended there.
    """
    if sys.version_info[:2] == (3, 11):
        threading.settrace(None)  # type: ignore[arg-type]


@pytest.fixture(autouse=True, scope="module")
def child_processes_are_measured_where_it_pays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Spare the processes that a test starts coverage's tracer, except where they reach what no other test reaches."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.relative_to(Path(__file__).parent).parts[0] not in MEASURED_FOLDERS:
            patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture(autouse=True)
def no_context_is_left_over() -> Iterator[None]:
    """Fail a test after which the greenlet of all tests still has a port."""
    yield
    context = getattr(getcurrent(), "aemp_port", None)
    if context is not None:
        getcurrent().aemp_port = None  # type: ignore[attr-defined]
    assert context is None, "the test left the context of a port behind"


@pytest.fixture(autouse=True)
def no_tracer_is_left_over() -> Iterator[None]:
    """Fail a test that leaves a tracer behind, which would do what it does, such as to interrupt, in later tests."""
    before = sys.gettrace(), greenlet.gettrace()
    yield
    after = sys.gettrace(), greenlet.gettrace()
    if after != before:
        sys.settrace(before[0])
        greenlet.settrace(before[1])
    assert after == before, "the test left a tracer behind"


@pytest.fixture(autouse=True)
def logger_is_left_as_it_was() -> Iterator[None]:
    """Fail a test that leaves the library's logger muted: tests of log lines that come later would fail instead."""
    logger = logging.getLogger("aemp_gevent")
    before = logger.level, logger.propagate, logger.disabled
    yield
    after = logger.level, logger.propagate, logger.disabled
    logger.setLevel(before[0])
    logger.propagate, logger.disabled = before[1:]
    assert after == before, "the test left the logger's level, or whether it propagates or is disabled, changed"


@pytest.fixture(autouse=True)
def no_greenlet_is_left_over(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose greenlets (a blocked runner is one) live on after it.

    What there was before the test is set aside, so that looking for what it left takes no time. Greenlets of fixtures
    with a wider scope are among that, and those for which an earlier test failed already.
    """
    if WIRE in request.path.parents:  # knows no greenlets
        yield
        return
    set_aside()
    yield
    if live_greenlets():
        wait_until(lambda: not live_greenlets(), within=2.0, show=lambda: [(g, g.gr_frame) for g in live_greenlets()])


class OpenScheduler(Scheduler):
    """A scheduler with a ``__dict__``, in which its own calls find the methods that a test has put there."""


@pytest.fixture
def open_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nodes with schedulers whose methods can be replaced, which compiled ones do not allow."""
    monkeypatch.setattr(aemp_gevent.node.node_ports, "Scheduler", OpenScheduler)


@pytest.fixture
def make_node() -> Iterator[Callable[..., Any]]:
    """A function that makes networked nodes, which are shut down afterwards; see ``tests.support.networking``."""
    from tests.support.networking import node_factory

    with node_factory() as make:
        yield make


@pytest.fixture
def node() -> Iterator[LocalNode]:
    """A node of its own; afterwards every port of it can be killed, and none is left."""
    with fresh_node() as fresh:
        yield fresh


@pytest.fixture
def quiet_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Print nothing of what is raised on the hub."""
    monkeypatch.setattr(gevent.get_hub(), "print_exception", lambda *_args: None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the hostile peers did: their tests record figures."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for report in terminalreporter.getreports("passed")
        for name, text in report.user_properties
        if name == "hostile"
    ]
    if lines:
        terminalreporter.section("what hostile peers came to")
        for line in lines:
            terminalreporter.write_line(line)
