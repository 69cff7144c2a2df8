# SPDX-License-Identifier: MIT
"""Calls that the event loop makes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from aemp_gevent.runtime.hub_calls import hub_call, see_through
from tests.support.injecting import between_bytecodes

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_exception_in_a_call_is_reported_and_the_call_is_made_again(error):
    seen: list[object] = []

    def call() -> None:
        seen.append("call")
        if len(seen) == 1:
            raise error

    made = hub_call(call, lambda: seen.append("again"), seen.append)
    made()
    made()
    assert seen[:2] == ["call", "again"]
    assert isinstance(seen[2], error)
    assert seen[3:] == ["call"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, StopIteration, GeneratorExit])
def test_a_second_strike_during_the_report_does_not_end_the_calls(error):
    seen: list[str] = []

    def call() -> None:
        seen.append("call")
        if len(seen) == 1:
            raise MemoryError

    def report(_: BaseException) -> None:
        raise error

    made = hub_call(call, lambda: seen.append("again"), report)
    with pytest.raises(RuntimeError if error is StopIteration else error):
        made()
    assert seen == ["call", "again"]
    made()
    made()
    assert seen == ["call", "again", "call", "call"]


def test_a_call_without_references_is_collected():
    class Owner:
        def call(self) -> None:
            pass

    owner = Owner()
    owner.made = hub_call(owner.call, owner.call, id)  # type: ignore[attr-defined]
    owner.made()  # type: ignore[attr-defined]
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None


STRUCK = """
import sys
from collections import Counter
import gevent
import aemp_gevent as mp

calls, struck = Counter(), {}

def trace(frame, event, arg):
    code, owner = frame.f_code, frame.f_locals.get("self")
    if code.co_name in names and "aemp_gevent" in code.co_filename and struck.get(code.co_name, owner) is owner:
        calls[code.co_name] += 1
        if code.co_name not in struck:
            struck[code.co_name] = owner
            raise KeyboardInterrupt

def strike(is_done, *wanted):
    global names
    names = wanted
    struck.clear()
    calls.clear()
    with gevent.Timeout(20):
        while not is_done():
            sys.settrace(trace)  # what raises ends it
            try:
                gevent.sleep(0.001)
            except KeyboardInterrupt:
                continue
    sys.settrace(None)
    assert set(struck) == set(wanted), (wanted, struck)

one, other = mp.Node(), mp.Node()
one.initialise_node("127.0.0.1:0", secret="s", heartbeat_interval=0.1)
other.initialise_node("127.0.0.1:0", one.NODE(), secret="s", heartbeat_interval=0.1)
assert other.wait_for_seeds(5)
strike(lambda: calls["_tick"] > 2, "_tick")  # of the heartbeat
strike(lambda: calls["_beat"] > 2, "_beat")  # of the loop's watch
for name in ("_due", "enqueue_job"):
    fired = []
    one.after(0.001, fired.append, name)
    strike(lambda: fired, name)
got = []
port = one.port(got.append)
other.snd(port, "first")
strike(lambda: got, "_readable")
print(type(gevent.get_hub().loop).__module__, got)
"""


@between_bytecodes
@pytest.mark.slow
def test_with_libuv_too_repeated_calls_continue_after_an_exception():
    """It strikes where the loop's call begins. gevent stops a watcher of libuv whose call raises."""
    environment = {**os.environ, "GEVENT_LOOP": "libuv"}
    done = subprocess.run(
        [sys.executable, "-c", STRUCK], env=environment, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    if "ImportError" in done.stderr:
        pytest.skip("this gevent has no libuv")
    assert (done.returncode, done.stdout) == (0, "gevent.libuv.loop ['first']\n"), done.stderr


@pytest.mark.parametrize(
    ("errors", "raised"),
    [
        ([KeyboardInterrupt], KeyboardInterrupt),
        ([MemoryError], MemoryError),
        ([KeyboardInterrupt, ValueError], KeyboardInterrupt),
        ([MemoryError, ValueError], ValueError),
        ([ValueError, KeyboardInterrupt], KeyboardInterrupt),
    ],
)
def test_call_that_must_complete_is_made_twice_and_ctrl_c_is_raised_in_any_case(errors, raised):
    made: list[object] = []

    def call() -> None:
        made.append("call")
        if errors:
            raise errors.pop(0)

    with pytest.raises(raised):
        see_through(call)
    assert made == ["call"] * 2
