# SPDX-License-Identifier: MIT
"""Check the times that callers give to methods inherited from gevent, which would take a NaN and stop every timer."""

from __future__ import annotations

import functools
from types import FunctionType
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
            setattr(kind, name, _checked(name, method, parameters))
    return kind


def _checked(name: str, method: Any, parameters: tuple[str, ...]) -> FunctionType:  # Any: Cython's, too
    # Compiled with the method's own parameters, as namedtuple() does: *args and **kwargs would double the time of a
    # get() or acquire() that does not wait.
    check = f"timeout if timeout is None else check(timeout, '{name}()')"
    passed = ", ".join(check if parameter == "timeout" else parameter for parameter in parameters)
    code = f"lambda {', '.join(parameters)}: method({passed})"
    checked: FunctionType = eval(code, {"method": method, "check": _for_gevent})  # noqa: S307  # made of names of gevent
    functools.update_wrapper(checked, method)
    checked.__defaults__ = method.__defaults__
    checked.__doc__ = (
        f"Do what gevent's ``{name}`` does; ``timeout`` may be anything that is a time: a number, a ``timedelta``, …"
    )
    return checked


def _for_gevent(timeout: Seconds | None, call: str) -> Timeout | float | None:
    seconds = to_seconds(timeout, call)
    if seconds is None or not isinstance(timeout, Timeout):
        return seconds
    return timeout  # it may carry an exception of its own, and may have been started
