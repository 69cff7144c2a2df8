# SPDX-License-Identifier: MIT
"""Calls made by the event loop that are not lost when a signal handler raises in them (Ctrl-C).

The interpreter runs signal handlers where a function begins, before the function's first
``try``. If a handler raises there, the loop counts the call as done, and nothing makes
it again. So the loop calls the ``__next__`` of a suspended generator, which resumes inside a ``try``.
A second exception, while the first is being reported, ends the generator; a new one makes the next call.

With libev, calls that repeat by themselves need none of this: sockets that stay readable, and repeating timers. With
libuv, gevent stops each watcher whose call raises, so these calls must not raise: see :func:`repeated`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from itertools import chain, repeat
from typing import Any

from gevent.hub import Hub

from aemp_gevent.runtime.logs import frames_of


def hub_call(
    call: Callable[[], object], again: Callable[[], object], report: Callable[[BaseException], object]
) -> Callable[[], None]:
    """Return a form of ``call`` for the loop to call, which raises only exceptions that come while ``report`` runs.

    Args:
        call: The work to do, on the hub.
        again: Called when an exception ended ``call``, or came before it: makes the loop call again, if needed.
        report: Called with the exception, afterwards.
    """
    waiting = _calls(call, again, report, waits=True)
    next(waiting)
    others = map(_calls, repeat(call), repeat(again), repeat(report))  # each is made when the one before has ended
    return chain.from_iterable(chain([waiting], others)).__next__


def repeated(hub: Hub, call: Callable[..., object], *args: Any) -> Callable[[], object]:
    """Return a form of ``call(*args)`` for a repeating watcher, which keeps running whatever the call raises.

    Args:
        hub: The hub whose loop calls it, and which gets its exceptions.
        call: A function that can be called again after any exception.
        args: Its arguments.
    """
    whole = partial(call, *args) if args else call
    if not stops_what_raises(hub):
        return whole

    return hub_call(whole, _nothing, partial(report_to, hub, context=call))


def report_to(hub: Hub, error: BaseException, context: object = None) -> None:
    """Report an exception that ended no greenlet to a hub, which prints the traceback or ends the program.

    Args:
        hub: The hub.
        error: What was raised on it.
        context: The object whose call raised. With None, as gevent has it for callbacks, every exception goes to
            the main greenlet, and not only what ends the program.
    """
    hub.handle_error(context, type(error), error, frames_of(error))


def stops_what_raises(hub: Hub) -> bool:
    """Return whether the loop of this hub stops a watcher whose call raises."""
    return "libuv" in type(hub.loop).__module__


def _nothing() -> None:
    """Do nothing: the watcher repeats."""


def see_through(call: Callable[..., object], *args: Any) -> None:
    """Make a call that must complete: if it raises, repeat it once, and raise the exception all the same.

    If the second call raises, too, its exception is raised; but an ordinary exception never replaces Ctrl-C.

    Args:
        call: A function that can be started again wherever an exception ended it.
        args: Its arguments.
    """
    try:
        call(*args)
    except BaseException as first:
        try:
            call(*args)
        except Exception:
            if isinstance(first, Exception):
                raise
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
            while True:
                waits = False
                call()
                waits = True
                yield
        except BaseException as error:
            if waits and isinstance(error, GeneratorExit):  # it is being closed; otherwise the call raised this
                raise
            stray = error
            waits = True
        try:
            again()
        except BaseException:  # noqa: BLE001  # a second exception
            again()
        report(stray)
        del stray
