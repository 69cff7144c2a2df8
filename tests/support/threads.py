# SPDX-License-Identifier: MIT
"""Calls in native threads of their own."""

from __future__ import annotations

from collections.abc import Callable

import gevent

from tests.support.native import threading
from tests.support.networking import WAIT


class Thread:
    """A native thread that runs a function; ``result()`` waits for it, while other greenlets keep running."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._value: object = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._function()
        except BaseException as error:  # noqa: BLE001  # raised again where the result is asked for
            self._error = error

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, within: float = WAIT):
        # Not wait_until(): a hub that spins hardly ever lets another thread have the interpreter.
        gevent.get_hub().threadpool.apply(self._thread.join, (within,))
        assert self.is_done, f"the thread still runs after {within} s"
        if self._error is not None:
            raise self._error
        return self._value


def in_thread(function, *args, **kwargs):
    """Call a function in a native thread, and return what it returns, or raise what it raises."""
    return Thread(lambda: function(*args, **kwargs)).result()
