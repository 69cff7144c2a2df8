# SPDX-License-Identifier: MIT
"""Calls that the event loop makes, and that an interrupt cannot make it forget.

The interpreter runs signal handlers where a function begins, before the function's first
``try``. If one raises there (Ctrl-C), the loop takes the call for made, and nobody makes
it again. So what the loop calls is the ``__next__`` of a suspended generator: it goes on inside a ``try``.
A second strike, while the first is being reported, ends the generator; the next call is made by a new one.

What repeats by itself needs none of this with libev: sockets that stay readable, and timers that repeat. With libuv,
gevent stops whatever watcher has a call that raises, so these calls must not: see :func:`repeated`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from itertools import chain, repeat
from typing import Any

from gevent.hub import Hub


def hub_call(
    call: Callable[[], object], again: Callable[[], object], report: Callable[[BaseException], object]
) -> Callable[[], None]:
    """Return a form of ``call`` for the loop to call, which raises only what strikes while ``report`` runs.

    Args:
        call: What is to be done, on the hub.
        again: Called when something struck ``call``, or came before it: has the loop make the call again, if need be.
        report: Called with what struck, afterwards.
    """
    waiting = _calls(call, again, report, waits=True)
    next(waiting)
    others = map(_calls, repeat(call), repeat(again), repeat(report))  # each is made when the one before has ended
    return chain.from_iterable(chain([waiting], others)).__next__


def repeated(hub: Hub, call: Callable[..., object], *args: Any) -> Callable[[], object]:
    """Return a form of ``call(*args)`` for a watcher that repeats: whatever it raises, the watcher goes on.

    Args:
        hub: Whose loop calls it, and which has what it raises.
        call: What bears to be called again after something struck it.
        args: Its arguments.
    """
    whole = partial(call, *args) if args else call
    if not stops_what_raises(hub):
        return whole

    return hub_call(whole, _nothing, partial(report_to, hub))


def report_to(hub: Hub, error: BaseException, context: object = None) -> None:
    """Give a hub an exception that ended no greenlet: it prints the traceback, or ends the program with it.

    Args:
        hub: The hub.
        error: What was raised on it.
        context: The object whose call raised. None, as gevent has it for callbacks: what ends the program goes to
            the main greenlet.
    """
    hub.handle_error(context, type(error), error, error.__traceback__)


def stops_what_raises(hub: Hub) -> bool:
    """Return whether the loop of this hub stops a watcher whose call raises."""
    return "libuv" in type(hub.loop).__module__


def _nothing() -> None:
    """Do nothing: the watcher repeats."""


def see_through(call: Callable[..., object], *args: Any) -> None:
    """Make a call that must come to its end: once more if something strikes it, and then raise what did.

    Args:
        call: What bears to be begun again wherever it was struck.
        args: Its arguments.
    """
    try:
        call(*args)
    except BaseException:
        call(*args)
        raise


def _calls(
    call: Callable[[], object],
    again: Callable[[], object],
    report: Callable[[BaseException], object],
    *,
    waits: bool = False,
) -> Generator[None, None, None]:
    while True:
        try:
            if waits:
                yield
            waits = True
            while True:
                call()
                yield
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001
            stray = error
        try:
            again()
        except BaseException:  # noqa: BLE001  # struck a second time
            again()
        report(stray)
        del stray
