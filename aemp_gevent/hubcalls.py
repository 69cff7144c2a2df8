# SPDX-License-Identifier: MIT
"""Calls that the event loop makes, and that an interrupt cannot make it forget.

The interpreter runs signal handlers where a function begins, before the function's first
``try``. If one raises there (Ctrl-C), the loop takes the call for made, and nobody makes
it again. So what the loop calls is the ``__next__`` of a suspended generator: it goes on inside a ``try``.

What repeats by itself needs none of this: sockets that stay readable, and timers that repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Generator


def hub_call(
    call: Callable[[], object], again: Callable[[], object], report: Callable[[BaseException], object]
) -> Callable[[], None]:
    """Return a form of ``call`` for the loop to call, which raises nothing.

    Args:
        call: What is to be done, on the hub.
        again: Called when something struck ``call``, or came before it: has the loop make the call again, if need be.
        report: Called with what struck, afterwards.
    """
    calls = _calls(call, again, report)
    next(calls)
    return calls.__next__


def _calls(
    call: Callable[[], object], again: Callable[[], object], report: Callable[[BaseException], object]
) -> Generator[None, None, None]:
    while True:
        try:
            while True:
                yield
                call()
        except GeneratorExit:
            return
        except BaseException as error:  # noqa: BLE001
            stray = error
        try:
            again()
        except BaseException:  # noqa: BLE001  # struck a second time
            again()
        report(stray)
        del stray
