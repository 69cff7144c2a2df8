# SPDX-License-Identifier: MIT
"""The port in whose context code runs: ``SELF``, and the calls that set it.

The context is an attribute of the greenlet, not a context variable, because a greenlet that
user code spawns must start without one, and some ways to spawn copy context
variables.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from greenlet import getcurrent, greenlet

from aemp_gevent.errors import NoPortContextError, PortKilled
from aemp_gevent.ports.blame import blame
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.port import DEAD, AttachedPort, Port

P = ParamSpec("P")
T = TypeVar("T")

ON_THE_HUB = "it was called on the hub, which must never wait: spawn a greenlet"
"""The remedy that a :class:`~aemp_gevent.errors.NoPortContextError` names for a call that waits."""


def current_port() -> Port | None:
    """Return the port in whose context this greenlet runs."""
    return getattr(getcurrent(), "aemp_port", None)


def require_port(call: str) -> Port:
    """Return the current port.

    Raises:
        NoPortContextError: This greenlet has no port. The text names ``call``.
    """
    port = current_port()
    if port is None:
        raise NoPortContextError(call)
    return port


def port_or_self(port: object, call: str) -> object:
    """Return a port, or for ``SELF`` (the function) the ID of the current port.

    Raises:
        NoPortContextError: It is ``SELF``, and this greenlet has no port. The text names ``call``.
    """
    return require_port(call).id if port is SELF else port


def SELF() -> str | None:
    """Return the ID of the port in whose context this code runs, else None.

    Set in handlers, in a port's own greenlet, in :func:`psub` closures, ``peval`` and
    ``peval_async``, and, to the port that set them up, in callbacks of ``mon``,
    ``after`` and ``cal``. A greenlet that you spawn yourself has none.
    """
    port = getattr(getcurrent(), "aemp_port", None)
    return None if port is None else port.id


@contextmanager
def port_context(port: Port | None) -> Generator[None, None, None]:
    """Set the current greenlet's context inside the block."""
    current = getcurrent()
    before = getattr(current, "aemp_port", None)
    current.aemp_port = port  # type: ignore[attr-defined]  # any greenlet can carry it
    try:
        yield
    finally:
        current.aemp_port = before  # type: ignore[attr-defined]  # at the recursion limit, the next call may fail
        give_back(current, before)


def give_back(current: greenlet, before: Port | None) -> None:
    """Restore a greenlet's former context, or the one around it if an ``attach`` block ended meanwhile."""
    # A generator may hold the attach block, and another greenlet may close it at any time.
    while isinstance(before, AttachedPort) and before.is_left:
        before = before.before
    if before is not None and before.cell.scheduler.is_abandoned:
        before = None  # the greenlet forked, and this is the child
    current.aemp_port = before  # type: ignore[attr-defined]  # any greenlet can carry it


def run_in(port: Port, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call a function in a port's context; an exception kills the port, and None is returned."""
    port.cell.scheduler.check_thread("running code in a port's context (peval(), a psub() closure)")
    try:
        with port_context(port):
            return function(*args, **kwargs)
    except PortKilled:
        # The kill of the borrowed port ends this call; the kill of the port that borrowed it passes through.
        borrowers = (current_port(), getattr(getcurrent(), "at", None))
        if port.state != DEAD or port in borrowers or any(one and one.dying is not None for one in borrowers):
            raise
        return None
    # Not BaseException: a foreign Timeout or SystemExit is meant for the code that runs this greenlet.
    except Exception as error:  # noqa: BLE001
        failure = error
    blame(failure, function, "function")
    port.cell.scheduler.fail(port, failure)
    del failure  # its traceback has this frame: a reference cycle, which would keep the arguments alive
    return None


def psub(function: Callable[P, T]) -> Callable[P, T | None]:
    """Return a closure that runs ``function`` with the current port as ``SELF()``. Also a decorator.

    For callbacks given to other libraries from inside a port. An exception in it kills
    the port at once, as in a handler, and the closure returns None then. Called after the
    port's death it still runs, because the other library may rely on it to clean up:
    ``SELF()`` names the dead port, blocking calls such as ``receive`` raise ``PortKilled``, which
    ends the closure, and an exception is logged.

    Raises:
        NoPortContextError: ``SELF()`` is None here.
        TypeError: Calling the function would not run its body: see ``port``.

    Source:
        AnyEvent::MP, ``psub``.
    """
    port = require_port("psub()")
    check_callable("psub()", function)

    @functools.wraps(function)
    def closure(*args: P.args, **kwargs: P.kwargs) -> T | None:
        return run_in(port, function, *args, **kwargs)

    return closure
