# SPDX-License-Identifier: MIT
"""Check the times that callers give to methods inherited from gevent, which would take a NaN and stop every timer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from gevent import Timeout

from aemp_gevent.runtime.quantities import Seconds, to_seconds

K = TypeVar("K", bound=type)


def checks_times(kind: K) -> K:
    """Wrap all methods with a ``timeout`` that a class inherits, so that they take what all calls of this library take.

    All of them, by their signatures: other versions of gevent have other ones.
    """
    for name in dir(kind):
        method = getattr(kind, name)
        code = getattr(method, "__code__", None)  # inspect.signature() would take milliseconds for all classes
        if name.startswith("_") or name in vars(kind) or code is None:
            continue
        parameters = code.co_varnames[: code.co_argcount]
        if "timeout" in parameters:
            setattr(kind, name, _checked(name, method, parameters.index("timeout")))
    return kind


def _checked(name: str, method: Callable[..., Any], place: int) -> Callable[..., Any]:
    call = f"{name}()"

    @functools.wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if "timeout" in kwargs:
            kwargs["timeout"] = _for_gevent(kwargs["timeout"], call)
        elif len(args) > place:
            args = (*args[:place], _for_gevent(args[place], call), *args[place + 1 :])
        return method(*args, **kwargs)

    checked.__doc__ = (
        f"Do what gevent's ``{name}`` does; ``timeout`` may be anything that is a time: a number, a ``timedelta``, …"
    )
    return checked


def _for_gevent(timeout: Seconds | None, call: str) -> Timeout | float | None:
    seconds = to_seconds(timeout, call)
    if seconds is None or not isinstance(timeout, Timeout):
        return seconds
    return timeout  # it may carry an exception of its own, and may have been started
