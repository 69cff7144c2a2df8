# SPDX-License-Identifier: MIT
"""gevent's own tests of queues, events, semaphores and pools, run over the toolkit's."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import unittest
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import gevent
import gevent.event
import gevent.lock
import gevent.pool
import gevent.queue
import pytest

from aemp_gevent.node.node import Node
from aemp_gevent.node.spawnable_functions import _spawnable, spawnable
from aemp_gevent.toolkit import (
    PortEvent,
    PortQueue,
    PortSemaphore,
    RemoteEvent,
    RemotePool,
    RemoteQueue,
    RemoteSemaphore,
)
from soak.leftovers import live_greenlets
from tests.support import preloaded
from tests.support.helpers import lateness
from tests.support.native import PATCHED
from tests.support.networking import ROOT
from tests.support.thoroughness import THOROUGH
from tests.toolkit.gevents_own import cases_of, load, run

if PATCHED:
    pytest.skip("they want native threads", allow_module_level=True)

# A private node: its loop has nothing else to wait for, as several of the tests expect.
node = Node()


class LocalQueue(PortQueue[Any]):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args, node=node)


class FarQueue(RemoteQueue[Any]):
    def __init__(self, *args: Any) -> None:
        super().__init__(LocalQueue(*args), node=node)


LocalQueue.__name__ = FarQueue.__name__ = "Queue"  # the name by which a test finds the standard library's


def local_event() -> Any:
    # Some tests make one in another native thread, beside the one that they are about.
    is_here = threading.current_thread() is threading.main_thread()
    return PortEvent(node=node) if is_here else gevent.event.Event()


def far_event() -> RemoteEvent:
    return RemoteEvent(local_event(), node=node)


def local_semaphore(value: int = 1) -> PortSemaphore:
    return PortSemaphore(value, node=node)


def far_semaphore(value: int = 1) -> RemoteSemaphore:
    return RemoteSemaphore(local_semaphore(value), node=node)


class SizedPool(RemotePool):
    """A pool like those of gevent's tests, which pass functions of all kinds to it."""

    _names = (f"gevents_own.function{number}" for number in itertools.count())

    def __init__(self, size: int | None = None) -> None:
        super().__init__([node.NODE()], workers=10 if size is None else size, node=node)

    def spawn(self, function: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> Any:
        return super().spawn(self._named(function) if callable(function) else function, *args, **kwargs)

    def _named(self, function: Callable[..., Any]) -> str:
        name = next(self._names)
        spawnable(name)(lambda *args, **kwargs: function(*args, **kwargs))  # noqa: PLW0108  # it may be a builtin
        return name


MODULES: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "queue-local": ("test__queue", {"gevent.queue": {"Queue": LocalQueue, "SimpleQueue": LocalQueue}}),
    "queue-remote": ("test__queue", {"gevent.queue": {"Queue": FarQueue, "SimpleQueue": FarQueue}}),
    "event-local": ("test__event", {"gevent.event": {"Event": local_event}}),
    "event-remote": ("test__event", {"gevent.event": {"Event": far_event}}),
    "semaphore-local": ("test__semaphore", {"gevent.lock": {"Semaphore": local_semaphore}}),
    "semaphore-remote": ("test__semaphore", {"gevent.lock": {"Semaphore": far_semaphore}}),
    "pool-remote": ("test__pool", {"gevent.pool": {"Pool": SizedPool}}),
}

OTHERS = {
    "queue": ["TestChannel", "*LifoQueue", "*PriorityQueue", "*InterruptChannel"],
    "event": ["TestAsyncResult*"],
    "semaphore": ["TestBoundedSemaphore*"],
    "pool": [],
}
"""Classes that test what the toolkit has no form of."""

OTHER_SIZES = ["TestPool.*", "TestPool2.*", "TestPool10.*", "TestPoolUnlimit.*"]
"""The same as ``TestPool3`` for pools of other sizes, for half a minute: only thorough runs try them."""

ALONE = {
    "queue-local": ["*.test_peek_empty"],
    "queue-remote": ["*.test_peek_empty"],
    "semaphore-local": ["TestSemaphoreFair.test_fair_or_hangs"],
}
"""They wait until nothing is left that the loop could wait for; timers of other tests are, for seconds."""

SLOW = [
    "TestPool*.test_imap_unordered_bounded_queue",
    "TestPool*.test_imap_unordered_sleep",
    "TestSpawn.test",
    "TestSemaphoreMultiThread.test_dueling_threads_with_hub",
]

UNPREDICTABLE = {
    "queue-remote": ["*.test_max_size"],
    "event-remote": ["TestEventCrossThread.*", "TestEvent_SetThenClear*"],
    "semaphore-remote": ["TestSemaphoreFair.test_fair_or_hangs"],
}
"""Exceptions that pass or fail depending on what comes first, or leave a native thread that waits forever."""

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "toolkit.md"


def exceptions() -> dict[str, list[str]]:
    """Return the patterns of cases that cannot apply, by form: the first columns of the reference's table."""
    found: dict[str, list[str]] = {form: [] for form in MODULES}
    for line in REFERENCE.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[1] in MODULES:
            found[cells[1]] += cells[2].replace("`", "").split(", ")
    return found


def is_one_of(case: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(case, pattern) for pattern in patterns)


def cases(group: str = "usual") -> Iterator[Any]:
    """Return the cases of one group: "usual", "alone" (in a process of their own), or "excepted"."""
    excepted = exceptions()
    for form, (name, replaced) in MODULES.items():
        others = [f"{pattern}.*" for pattern in OTHERS[form.partition("-")[0]]]
        for case_name, case in cases_of(load(name, form.replace("-", "_"), replaced)).items():
            if is_one_of(case_name, others) or is_one_of(case_name, UNPREDICTABLE.get(form, [])):
                continue
            is_of_another_size = is_one_of(case_name, OTHER_SIZES)
            its_group = "usual"
            if is_one_of(case_name, excepted[form]):
                its_group = "excepted"
            elif is_one_of(case_name, ALONE.get(form, [])):
                its_group = "alone"
            if its_group == group and (THOROUGH or not is_of_another_size):
                marks = [pytest.mark.slow] if is_one_of(case_name, SLOW) else []
                yield pytest.param(case, id=f"{form}-{case_name}", marks=marks)


@pytest.fixture
def no_greenlet_is_left_over() -> None:
    """Do not check what cases leave: gevent's own tests do that."""


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left_in_the_end() -> Iterator[None]:
    before = set(live_greenlets())
    yield
    gevent.killall([left for left in live_greenlets() if isinstance(left, gevent.Greenlet) and left not in before])
    gc.collect()
    for name in [name for name in _spawnable if name.startswith("gevents_own.")]:
        del _spawnable[name]


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("no_greenlet_is_left_over")
@pytest.mark.parametrize("case", list(cases()))
def test_it_does_what_gevents_does(case: unittest.TestCase) -> None:
    for attempt in range(5):
        with lateness(0.002) as worst:
            try:
                run(case)
            except pytest.fail.Exception:
                # The cases sleep for 10 ms and expect that much is done: a failure in which the machine stood still
                # for half of that says nothing.
                if worst() < 0.005 or attempt == 4:
                    raise
            else:
                break


@pytest.mark.slow
def test_it_does_what_gevents_does_where_nothing_else_is_waited_for() -> None:
    assert run_in_a_process("alone", "print(run(case))").split() == ["None"] * 5


@pytest.mark.slow
def test_what_the_reference_excepts_still_fails() -> None:
    """In a process of its own: some cases leave native threads that wait forever."""
    printed = run_in_a_process("excepted", "print(name, not fails(case))")
    passed = [line.split()[0] for line in printed.splitlines() if line.endswith(" True")]
    assert not passed, "take them off the list in the reference"
    assert printed.count(" False") > 20


def run_in_a_process(group: str, statement: str) -> str:
    program = f"""
import os, sys
from tests.toolkit.test_gevents_own import cases, fails, run
for param in cases({group!r}):
    case, name = *param.values, param.id
    {statement}
sys.stdout.flush()
os._exit(0)
"""
    done = preloaded.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(case: unittest.TestCase) -> bool:
    try:
        run(case)
    except (pytest.fail.Exception, pytest.skip.Exception):
        return True
    return False


def test_each_exception_is_one() -> None:
    """The list in the reference has no pattern without a case, and each form has cases left."""
    for form, patterns in exceptions().items():
        name, replaced = MODULES[form]
        names = list(cases_of(load(name, form.replace("-", "_"), replaced)))
        for pattern in patterns:
            assert any(fnmatchcase(each, pattern) for each in names), (form, pattern)
    assert sum(map(len, exceptions().values())) > 10
