# SPDX-License-Identifier: MIT
"""Virtual time: the timers of a test expire at once, in order, as soon as nothing else can run.

The model is trio's ``MockClock`` with ``autojump``. gevent takes each of its timers from ``hub.loop.timer()``: those of
``sleep``, ``Timeout`` and ``spawn_later``, and the library its own. So :class:`VirtualLoop` replaces the hub's loop,
passes everything else on to it, and keeps the timers in a heap. When no callback is waiting, it calls the next timer,
and the time is what that timer was due at. Code that only gives way, by ``sleep(0)``, never waits for a timer: in an
endless loop, it stops the time.

The library's modules read their clocks by the names that they imported from :mod:`time`. While virtual time runs,
these names are those of :class:`VirtualTime`. So are the sources of randomness that decide about order: pauses and new
IDs. With the same seed, a test does the same things in the same order.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import sys
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import gevent

import aemp_gevent
from aemp_gevent.runtime import loop_watch
from aemp_gevent.runtime.loop_watch import watch_loop

if TYPE_CHECKING:
    from typing_extensions import Self

START = 1_000_000.0
"""What the monotonic clock shows at the beginning, in seconds."""

WALL_START = 1_700_000_000.0
"""What the wall clock shows at the beginning, in seconds since 1970."""

_EDGE = ("cli", "contrib", "testing")
"""Folders whose modules are not imported for the sake of their clocks."""


class VirtualTimer:
    """A timer of a :class:`VirtualLoop`, with what gevent uses of its own timers."""

    def __init__(self, loop: VirtualLoop, after: float, repeat: float, *, ref: bool) -> None:
        self.loop = loop
        self._ref = ref
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] = ()
        self.pending = False
        self._after = after
        self._repeat = repeat
        self._round = 0  # entries of the heap of earlier rounds are stale

    @property
    def active(self) -> bool:
        """Whether it will expire."""
        return self.callback is not None

    @property
    def ref(self) -> bool:
        """Whether it keeps the loop running."""
        return self._ref

    @ref.setter
    def ref(self, wanted: bool) -> None:
        if self.active:
            self.loop.count(wanted - self._ref)
        self._ref = wanted

    def start(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Call a function when the time has passed."""
        self._begin(callback, args, self._after)

    def again(self, callback: Callable[..., Any], *args: Any, update: bool | None = None) -> None:
        """Call a function after the repeat time."""
        self._begin(callback, args, self._repeat or self._after)

    def stop(self) -> None:
        """Do not call it."""
        if self.callback is not None:
            self.loop.count(-self.ref)
        self.callback = None
        self.args = ()
        self._round += 1

    close = stop

    def _begin(self, callback: Callable[..., Any], args: tuple[Any, ...], after: float) -> None:
        self.stop()
        self.callback, self.args = callback, args
        self.loop.add(self, max(after, 0.0), self._round)

    def is_of(self, round_: int) -> bool:
        """Return whether it has not been stopped since this round began."""
        return self.callback is not None and self._round == round_

    def expire(self) -> None:  # on the hub
        """Call the function, and begin again or stop."""
        callback, args = self.callback, self.args
        assert callback is not None
        if self._repeat:
            self._begin(callback, args, self._repeat)
        else:
            self.stop()
        callback(*args)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class VirtualLoop:
    """A loop whose timers are virtual. Everything else is that of the real loop.

    Args:
        real: The hub's loop.
        dice: Decides the order of timers that are due at the same time.
    """

    def __init__(self, real: Any, dice: random.Random) -> None:  # gevent's loops have no types
        self.real = real
        """The hub's own loop."""
        self._dice = dice
        self.seconds = 0.0
        """How much time has passed."""
        self.jumps = 0
        """How many timers have expired."""
        self._heap: list[tuple[float, float, int, VirtualTimer, int]] = []
        self._serial = 0
        self._refs = 0
        self._calls = 0
        self._is_looking = False
        self.is_over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    @property
    def error_handler(self) -> Any:
        """What gets the exceptions of callbacks: the hub, while it runs the loop."""
        return self.real.error_handler

    @error_handler.setter
    def error_handler(self, handler: Any) -> None:
        self.real.error_handler = handler

    def timer(self, after: float, repeat: float = 0.0, ref: bool = True, priority: Any = None) -> VirtualTimer:
        """Return a new timer."""
        return VirtualTimer(self, after, repeat, ref=ref)

    def run_callback(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function on the hub soon, before any time passes."""
        self._calls += 1
        return self.real.run_callback(function, *args)

    def now(self) -> float:
        """Return the loop's time in seconds."""
        return START + self.seconds

    def update(self) -> None:
        """Do nothing: the time is always exact."""

    update_now = update

    def add(self, timer: VirtualTimer, after: float, round_: int) -> None:
        """Keep a timer until it expires."""
        self._serial += 1
        heappush(self._heap, (self.seconds + after, self._dice.random(), self._serial, timer, round_))
        self.count(timer.ref)

    def count(self, change: int) -> None:
        """Count how many timers keep the loop running."""
        self._refs += change
        self._look()

    def _look(self) -> None:
        # Without a timer that keeps the loop alive, the program ends, as it does in real time.
        if not self._is_looking and self._refs > 0 and not self.is_over:
            self._is_looking = True
            self.real.run_callback(self._step, self._calls)

    def _step(self, calls: int) -> None:  # on the hub
        self._is_looking = False
        try:
            if calls == self._calls and self._refs > 0:  # nothing was runnable in between
                self._expire_next()
        finally:
            self._look()

    def _expire_next(self) -> None:
        while self._heap and not self.is_over:
            due, _, _, timer, round_ = heappop(self._heap)
            if timer.is_of(round_):
                self.seconds = max(due, self.seconds)
                self.jumps += 1
                try:
                    timer.expire()
                except BaseException:  # noqa: BLE001  # as gevent's loops do
                    self.real.handle_error(timer, *sys.exc_info())
                return


class VirtualTime:
    """Virtual time for the running thread's hub, inside a ``with`` block.

    ::

        with VirtualTime(seed=1) as virtual:
            gevent.sleep(3600)  # returns at once
            assert virtual.seconds == 3600

    Nodes belong to the time in which they were made: make them in the block, and shut them down in it.

    Args:
        seed: The seed of everything random; None: draw one.
    """

    def __init__(self, seed: int | None = None) -> None:
        self.seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        """The seed of everything random."""
        self.dice = random.Random(self.seed)  # noqa: S311  # not a secret
        self._loop: VirtualLoop | None = None
        self._replaced: list[tuple[ModuleType, str, Any]] = []

    def __repr__(self) -> str:
        return f"<VirtualTime seed={self.seed}, {self.seconds:g} s>"

    @property
    def seconds(self) -> float:
        """How many seconds have passed since the block began."""
        return 0.0 if self._loop is None else self._loop.seconds

    @property
    def jumps(self) -> int:
        """How many timers have expired."""
        return 0 if self._loop is None else self._loop.jumps

    def monotonic(self) -> float:
        """Return the time, as ``time.monotonic`` does."""
        return START + self.seconds

    def time(self) -> float:
        """Return the time, as ``time.time`` does."""
        return WALL_START + self.seconds

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()

    def begin(self) -> None:
        """Begin virtual time in this thread.

        Raises:
            RuntimeError: It runs already.
        """
        hub: Any = gevent.get_hub()  # its stubs know only loops of gevent
        if isinstance(hub.loop, VirtualLoop):
            raise RuntimeError("virtual time runs already in this thread")  # noqa: TRY004  # not about a type
        self._watch = watch_loop(hub)  # in real time: it watches whether the test blocks the loop
        self._loop = VirtualLoop(hub.loop, self.dice)
        clocks: dict[Any, Any] = {
            time.monotonic: self.monotonic,
            time.perf_counter: self.monotonic,
            time.time: self.time,
        }
        for module, name, value in _places():
            if vars(module).get(name) is value:  # otherwise a test has replaced it
                self._replace(module, name, self.dice if value is random else clocks[value])
        ids = importlib.import_module("aemp_gevent.addresses.ids")
        self._replace(ids, "os", SimpleNamespace(urandom=self.dice.randbytes))
        hub.loop = self._loop

    def end(self) -> None:
        """Continue in real time. Timers that have not expired never will. Idempotent."""
        hub: Any = gevent.get_hub()  # its stubs know only loops of gevent
        if self._loop is None or self._loop.is_over:
            return
        self._loop.is_over = True
        hub.loop = self._loop.real
        self._watch.release()
        while self._replaced:
            module, name, value = self._replaced.pop()
            setattr(module, name, value)

    def _replace(self, module: ModuleType, name: str, value: Any) -> None:
        self._replaced.append((module, name, getattr(module, name)))
        setattr(module, name, value)


_CLOCKS = (time.monotonic, time.perf_counter, time.time)

_found: tuple[int, list[tuple[ModuleType, str, Any]]] = (0, [])
"""How many modules the process had when the library was searched, and what was found."""


def _places() -> list[tuple[ModuleType, str, Any]]:
    """Return where the library's modules have clocks and randomness: the module, the name, and the value."""
    global _found  # noqa: PLW0603  # searching takes longer than the rest of a short test
    if _found[0] != len(sys.modules):
        places = [
            (module, name, value)
            for module in list(_modules())
            for name, value in list(vars(module).items())
            if value is random or any(value is clock for clock in _CLOCKS)
        ]
        _found = len(sys.modules), places
    return _found[1]


def _modules() -> Iterator[ModuleType]:
    """Return the library's modules, all of them: one that is imported later would have the real clocks."""
    for found in pkgutil.walk_packages(aemp_gevent.__path__, "aemp_gevent."):
        folder = found.name.split(".")[1]
        if folder not in _EDGE and found.name != loop_watch.__name__:
            yield importlib.import_module(found.name)
    yield from [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("aemp_gevent.testing.") and name != __name__
    ]
