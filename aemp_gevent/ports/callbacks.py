# SPDX-License-Identifier: MIT
"""Callbacks: which objects users may give to be called, and what their return values mean.

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
        return "DONE"  # every copy, pickled or not, is the object itself


DONE: Final = _Done()
"""A handler that returns this is removed; a port's default callback that returns it ends the port."""

# As in the module inspect, which takes longer to import than this whole package's lowest floor.
_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200
_NEVER_RUNS = _GENERATOR | _COROUTINE | _ASYNC_GENERATOR


def check_callable(call: str, function: Any) -> None:
    """Raise unless calling this object runs it.

    Args:
        call: The function that the user called, for the error's text.
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
        # The class's code, as in a call; but not for a class, whose call makes an instance.
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
