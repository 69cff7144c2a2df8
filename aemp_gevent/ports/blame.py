# SPDX-License-Identifier: MIT
"""Which function of users an exception came from: its kind, name, file and line, for the log line of a crash.

The log line itself is written by ``fail`` in :mod:`aemp_gevent.ports.deaths`.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from types import CodeType, FunctionType, MethodType
from typing import Any

from aemp_gevent.runtime.logs import frames_of
from aemp_gevent.runtime.quoting import quoted

_CALLERS = frozenset({"serve", "_call_tag", "_call_pattern", "run", "_run", "_run_main", "run_in"})
"""Functions of the library that call functions of users with the elements of a message, or a reason."""

_PACKAGE = __name__.partition(".")[0]

_MAX_NAME = 150
"""Characters of a function's name, and of its file's name, that are shown."""

_MAX_WRAPPERS = 10


def called_function(error: BaseException, default: Any) -> str:
    """Return which function of users the library had called when this was raised, and why; or ``""``.

    The traceback shows what is running, but not what that was registered for; and it has no frame of a function that
    could not be called, nor of one that is not written in Python.

    Args:
        error: What was raised.
        default: The default handler of the port whose code raised, or None.
    """
    caller = None
    trace = frames_of(error)
    while trace is not None and _is_ours(trace.tb_frame.f_globals.get("__name__")):
        if trace.tb_frame.f_code.co_name in _CALLERS:
            caller = trace.tb_frame
        trace = trace.tb_next
    if caller is None:
        return ""
    if caller.f_code.co_name == "_run":  # of a runner, which lives on and would keep the variables that were read
        function, what = default, "handler"
    else:
        names = caller.f_locals
        function, what = _called(names)
        if isinstance(names, dict):  # until Python 3.12 the frame keeps it, with the error, which has the frame
            names.clear()
    function = _unwrapped(function)
    if function is None or (type(function) is FunctionType and _is_ours(function.__module__)):
        return ""
    return f"the {what} is {_where(function)}"


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == _PACKAGE


def _unwrapped(function: Any) -> Any:
    """Return the function that a partial or a decorated function calls in the end. Runs no code of users."""
    for _ in range(_MAX_WRAPPERS):
        kind = type(function)
        if issubclass(kind, functools.partial):
            function = function.func
        elif kind is MethodType:
            function = function.__func__
        elif kind is FunctionType and "__wrapped__" in function.__dict__:
            function = function.__dict__["__wrapped__"]
        else:
            break
    return function


def _where(function: Any) -> str:
    """Return the qualified name of a callable, and the file and line of its code if they are known."""
    kind = type(function)
    name = None
    with suppress(Exception):  # raised by the object's own code
        name = getattr(function, "__qualname__", None)
    if type(name) is not str:
        name = f"an object of the class {kind.__qualname__}"
    code = function.__code__ if kind is FunctionType else getattr(kind.__call__, "__code__", None)
    if len(name) > _MAX_NAME:
        name = f"{name[:_MAX_NAME]}…"
    if not isinstance(code, CodeType):
        return name
    file = code.co_filename
    if len(file) > _MAX_NAME:  # its end is more useful
        file = f"…{file[-_MAX_NAME:]}"
    return f"{name} at {file}:{code.co_firstlineno}"


def _called(names: dict[str, Any]) -> tuple[Any, str]:
    """Return the function that a frame of the library was calling, and its kind."""
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
    return getattr(names.get("self"), "function", None), "callback"
