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

from aemp_gevent.quoting import quoted


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
