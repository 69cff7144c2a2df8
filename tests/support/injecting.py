# SPDX-License-Identifier: MIT
"""Doing something at every point of the library where the interpreter can run other code, or another thread."""

from __future__ import annotations

import dis
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import greenlet
import pytest
from gevent.hub import Hub

import aemp_gevent
from tests.support.native import threading

SCHEDULER = (
    *("ports/timer_queue.py", "ports/hub_thread.py", "ports/run_queue.py", "ports/jobs.py", "ports/pacing.py"),
    *("ports/port_table.py", "ports/deaths.py", "ports/giving_way.py", "ports/scheduler.py"),
)
"""The modules of the scheduler's layers, like all modules here by their paths in the package."""

CORE = (
    *SCHEDULER,
    *("ports/receive.py", "ports/receiving.py", "ports/port.py", "ports/monitors.py"),
    *("node/node_ports.py", "node/sending.py", "node/monitoring.py", "node/registering.py", "node/running.py"),
    "node/calling.py",
)
"""The modules of what a local node does."""

TRACED = (*CORE, "ports/patterns.py")

PACKAGE = Path(aemp_gevent.__file__).parent

LOOP = Hub.run.__code__


QUIET = (
    *("LOAD_", "POP_JUMP_FORWARD", "POP_JUMP_IF", "COPY", "SWAP", "PUSH_NULL", "IS_OP", "TO_BOOL", "NOP", "CACHE"),
    *("NOT_TAKEN", "EXTENDED_ARG", "UNARY_NOT", "DUP_TOP", "ROT_", "SETUP_FINALLY"),
)
"""How the opcodes begin at which no version of CPython runs other code, on what our code uses them for.
Calls, allocations, jumps back, and whatever drops a user's object may: collections, finalizers, signals."""

QUIET_STORES = {"state", "cell", "inbox", "mailbox", "waiter", "pumped", "credit", "idle"}
"""Attributes that hold nothing whose end anybody hears of: numbers, None, or what another name keeps."""


JUMPS_BACK = ("JUMP_BACKWARD", "JUMP_ABSOLUTE", "POP_JUMP_BACKWARD")
"""What lets other code run when it jumps, and not when it does not."""


def jumps_back(step: dis.Instruction) -> bool:
    """Say whether an instruction is one of these: on Python 3.10 only the target tells it of a condition's."""
    return step.opname.startswith(JUMPS_BACK) or (step.opname.startswith("POP_JUMP") and step.argval <= step.offset)


def in_order(code: CodeType) -> Iterator[tuple[dis.Instruction, int]]:
    """Yield each instruction with the offset before which other code may run because of it."""
    for step, after in itertools.pairwise(dis.get_instructions(code)):
        yield step, (step.argval if jumps_back(step) else after.offset)


def ends_of_jumps(code: CodeType) -> set[int]:
    """Return the offsets before which a jump of a condition lets other threads run: on Python 3.10, also forward."""
    if sys.version_info >= (3, 11):
        return set()
    return {step.argval for step in dis.get_instructions(code) if step.opname.startswith("POP_JUMP_IF")}


@functools.cache
def points(code: CodeType) -> frozenset[int]:
    """Return the offsets in a function before which other code may have run, or may run now."""

    def is_quiet(step: dis.Instruction) -> bool:
        if step.opname == "STORE_ATTR":
            return step.argval in QUIET_STORES
        return step.opname.startswith(QUIET)

    steps = list(dis.get_instructions(code))
    found = {step.offset for step in steps if not is_quiet(step)}
    found |= {after for step, after in in_order(code) if not is_quiet(step)}
    return begins(code) | found | ends_of_jumps(code)


@functools.cache
def begins(code: CodeType) -> frozenset[int]:
    """Return the offsets where a function begins, or a generator continues: all versions check for signals there."""
    # Since 3.11 that is in RESUME, at which nothing is traced, unless it is that of an await or a "yield from".
    found = {after for step, after in in_order(code) if step.opname == "RESUME" and ((step.arg or 0) & 3) < 2}
    return frozenset(found or {0, *(after for step, after in in_order(code) if step.opname == "YIELD_VALUE")})


@functools.cache
def strike_points(code: CodeType) -> frozenset[int]:
    """Return the offsets in a function at which an exception may come out of a signal handler."""
    return begins(code) | {
        after for step, after in in_order(code) if step.opname.startswith("CALL") or jumps_back(step)
    }


def begins_in_the_loop(frame: FrameType) -> bool:
    """Say whether the event loop itself is about to call this function, which has not run a line yet.

    No code of ours can catch what strikes there: gevent logs it, and may stop the watcher. Heartbeats find such a link.
    """
    caller = frame.f_back
    return caller is not None and caller.f_code is LOOP and frame.f_lasti in begins(frame.f_code)


@functools.cache
def switch_points(code: CodeType) -> frozenset[int]:
    """Return the offsets in a function before which the interpreter may switch threads."""
    # After a call, not before it: what it is called with, and on, was loaded in the same step.
    steps = list(dis.get_instructions(code))
    quiet = (*QUIET, "PRECALL", "KW_NAMES")
    found = {
        after
        for step, after in in_order(code)
        if not step.opname.startswith(quiet) and not (step.opname == "STORE_ATTR" and step.argval in QUIET_STORES)
    }
    return frozenset(found | ends_of_jumps(code) | {steps[0].offset})


between_bytecodes = pytest.mark.skipif(
    aemp_gevent.is_compiled, reason="acts between the library's bytecodes, which compiled modules do not have"
)
"""For tests that need to act in the scheduler's modules. Compiled ones run other code only where they call some.

Others that use these classes find enough places in modules that are not compiled.
"""


class Injector:
    """Runs ``action`` at the chosen ones of the library's points, in whichever greenlet gets to them.

    Args:
        action: Called at each chosen point.
        chosen: Whether a point is one, by its number from 1.
        points: Return the points in a function.
        traced: The modules to trace, by their paths in the package.
        has_begun: Whether to count, and choose, from now on: a call that fails before it has changed anything has done
            nothing, which is for a caller to handle.
    """

    def __init__(
        self,
        action: Any,
        chosen: Any,
        points: Any = points,
        traced: tuple[str, ...] = TRACED,
        has_begun: Callable[[], object] = lambda: True,
    ) -> None:
        self.count = 0
        self._has_begun = has_begun
        self._points = points
        missing = [path for path in traced if not (PACKAGE / path).exists()]
        assert not missing, f"these modules were moved or renamed: {missing}"
        self._traced = frozenset(str(PACKAGE / path) for path in traced)
        self._action = action
        self._chosen = chosen
        self._busy = False
        self._is_over = False
        self.fired = 0

    def __enter__(self) -> Injector:
        self._before = greenlet.settrace(self._switched)
        self._tracer = sys.gettrace()  # that of the coverage, for instance
        self._adopt(sys._getframe().f_back)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        # First: frames that live on, such as those of the hub's doorbell, keep the tracer, and use it again as soon as
        # a later test switches tracing on.
        self._is_over = True
        sys.settrace(self._tracer)
        greenlet.settrace(self._before)

    def _switched(self, _event: str, _greenlets: object) -> None:
        # Tracing is a greenlet's own: switch it on in each one, for the frames it has already, too.
        sys.settrace(self._trace)
        self._adopt(sys._getframe().f_back)

    def _adopt(self, frame: FrameType | None) -> None:
        while frame is not None:
            self._trace(frame, "call", None)
            frame = frame.f_back

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        if self._is_over or frame.f_code.co_filename not in self._traced:
            return None
        frame.f_trace = self._step
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if sys.version_info >= (3, 12):
            sys.settrace(self._trace)  # again: it looks now which events are wanted
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: object) -> Any:
        if self._is_over:
            return None
        if event == "opcode" and not self._busy and frame.f_lasti in self._points(frame.f_code):
            if self.count == 0 and not self._has_begun():
                return self._step
            if self._points is strike_points and begins_in_the_loop(frame):
                return self._step
            self.count += 1
            if self._chosen(self.count):
                self._busy = True
                try:
                    self.fired += 1
                    self._action()
                finally:
                    self._busy = False
        return self._step


class StoppedThread:
    """A native thread that makes a call, and stops at the n-th point where it may lose the interpreter.

    The test does what it likes then, and calls :meth:`proceed`.

    Args:
        call: What it does.
        point: Where it stops, from 1.
        wait: How to call a function that blocks; by default nothing else happens meanwhile.
    """

    def __init__(self, call: Callable[[], object], point: int, wait: Callable[..., Any] | None = None) -> None:
        self.has_stopped = False
        """Whether there are that many points."""
        self._call = call
        self._left = point
        self._wait = wait or (lambda function, args: function(*args))
        self._stopped = threading.Event()
        self._go = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._wait(self._stopped.wait, (10,))

    def _run(self) -> None:
        sys.settrace(self._trace)
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001  # raised by proceed()
            self._error = error
        finally:
            self._left = 0  # frames that live on never stop again
            sys.settrace(None)
            self._stopped.set()

    def _trace(self, frame: FrameType, event: str, _arg: object) -> Any:
        if "aemp_gevent/" not in frame.f_code.co_filename.replace("\\", "/"):
            return None
        frame.f_trace = self._step  # first: otherwise Python 3.13 does not look at the next
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        sys.settrace(self._trace)  # again: Python 3.12 looks now which events are wanted
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode" and frame.f_lasti in switch_points(frame.f_code):
            self._left -= 1
            if self._left == 0:
                self.has_stopped = True
                self._stopped.set()
                assert self._go.wait(10)
        return self._step

    def proceed(self) -> None:
        """Run the rest of it, and wait for its end."""
        self._go.set()
        self._wait(self._thread.join, (10,))
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error
