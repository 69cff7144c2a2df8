# SPDX-License-Identifier: MIT
"""What users give to be called: which objects can be, and what their return values mean.

Every call of the library that takes a callable checks it with :func:`check_callable` when it is
given, because a generator function or an ``async def`` would be called later without an error
and without any effect.
"""

from __future__ import annotations

import functools
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

from aemp_gevent.runtime.quoting import quoted


class _Done:
    """The type of :data:`DONE`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "DONE"

    def __reduce__(self) -> str:
        return "DONE"  # a copy, pickled or not, is the object itself


DONE: Final = _Done()
"""What a handler returns to be removed; a port's default callback that returns it ends its port."""

# As in the module inspect, which takes longer to import than the rest of this package's ground floor.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
_NEVER_RUNS = _GENERATOR | _COROUTINE | _ASYNC_GENERATOR


def check_callable(call: str, function: Any) -> None:
    """Raise unless calling this object runs it.

    Args:
        call: What the user called, for the error's text.
        function: What is to be called later. Any object may be given.

    Raises:
        TypeError: It cannot be called, or its body would not run: it is a generator function or an ``async def``.
    """
    code = getattr(function, "__code__", None)
    if code is None:
        if not callable(function):
            raise TypeError(f"{call}: {quoted(function)} cannot be called; give a function")
        if isinstance(function, functools.partial):
            check_callable(call, function.func)
            return
        # Of its class, as for a call. Not of a class itself: calling that makes an instance.
        code = None if isinstance(function, type) else getattr(type(function).__call__, "__code__", None)
    if isinstance(code, CodeType) and code.co_flags & _NEVER_RUNS:
        kind = "a generator function" if code.co_flags & _GENERATOR else "declared with async def"
        text = f"{call}: {quoted(function)} is {kind}, and calling it would not run its body"
        raise TypeError(text + "; give a plain function, which may block")


def is_python_function(function: object) -> bool:
    """Return whether this is a function written in Python, a method that is, or a partial of such a one."""
    while isinstance(function, functools.partial):
        function = function.func
    return isinstance(function.__func__ if isinstance(function, MethodType) else function, FunctionType)


_CALLERS = frozenset({"serve", "_call_tag", "_call_pattern", "run", "_run", "_run_main"})
"""Code of the library that calls functions of users with what a message, or a reason, holds."""


def wrong_call(error: BaseException) -> str:
    """Return which function could not be called, if that is what an exception says; else ``""``.

    Python's own text names neither the line where the function stands nor what it was registered for, and the
    traceback has no frame of it.
    """
    trace = error.__traceback__
    if not isinstance(error, TypeError) or trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code, names = trace.tb_frame.f_code, trace.tb_frame.f_locals
    if code.co_name not in _CALLERS or not str(trace.tb_frame.f_globals.get("__name__")).startswith("aemp_gevent."):
        return ""
    function, what = _called(names)
    for _ in range(_MAX_WRAPPERS):
        function = getattr(function, "func", getattr(function, "__wrapped__", function))
    found = getattr(function, "__code__", None)
    if not isinstance(found, CodeType):
        return f"the {what} is {quoted(function)}"
    return f"the {what} is {found.co_name} at {found.co_filename}:{found.co_firstlineno}"


_MAX_WRAPPERS = 10


def _called(names: dict[str, Any]) -> tuple[Any, str]:
    """Return what a frame of the library was calling, and what that is for."""
    message = names.get("message", ())
    if "handler" in names:
        tag = names.get("tag", message[0] if message else "")
        return names["handler"], f"handler of {quoted(tag)}"
    if "entry" in names:
        return names["entry"][1], "handler of a pattern"
    if "action" in names:
        return names["action"], "monitor's action"
    if "function" in names:
        return names["function"], "function"
    if "port" in names:
        return names["port"].default, "handler"
    return getattr(names.get("self"), "function", None), "callback"
