# SPDX-License-Identifier: MIT
"""Errors that a call raises because its own node shuts down: a port that dies of one has not crashed.

The error itself carries the mark, and not the port that called: a port may catch the error and continue, and whatever
goes wrong in it afterwards is a crash.
"""

from __future__ import annotations

from typing import TypeVar

from aemp_gevent.errors import AempError
from aemp_gevent.ports.port import Port
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.runtime.logs import cause_of

_MARK = "aemp_own_end"

_MAX_CAUSES = 100
"""The most exceptions of one chain that are looked at, which may be a circle."""

Failure = TypeVar("Failure", bound=AempError)


def marked(error: Failure, end: Reason | None) -> Failure:
    """Return an error, marked if it is due to the shutdown of the node that the call was made on.

    Args:
        error: What the call raises.
        end: That shutdown as a reason; None: the error is due to something else.
    """
    if end is not None:
        vars(error)[_MARK] = end
    return error


def end_behind(error: BaseException | None, port: Port | None) -> Reason | None:
    """Return the shutdown of a port's node, as a reason, if an exception is due to it; otherwise None.

    An exception raised ``from`` a marked one is due to the same. One that is raised while a marked one is handled
    may be a mistake in the handling.

    Args:
        error: The exception.
        port: The port whose code raised it; None when it ran outside any port.
    """
    if port is None:
        return None
    shutdown = ("shutdown", port.id.partition("#")[0])
    for _ in range(_MAX_CAUSES):
        if error is None:
            break
        if isinstance(error, AempError) and vars(error).get(_MARK) == shutdown:
            return shutdown
        error = cause_of(error)
    return None
