# SPDX-License-Identifier: MIT
"""Which function of users an exception came from: its kind, name, file and line, for the log line of a crash.

All code of the library that calls functions of users notes it on the exception, because compiled modules have no frames
that could be asked. The log line itself is written by ``fail`` in :mod:`aemp_gevent.ports.deaths`.
"""

from __future__ import annotations

import functools
from contextlib import suppress
from types import BuiltinMethodType, CodeType, FunctionType, MethodType
from typing import Any

from aemp_gevent.ports.patterns import Handler
from aemp_gevent.runtime.logs import frames_of

_MARK = "_aemp_blamed"
"""The attribute of an exception that keeps the text."""

_PACKAGE = __name__.partition(".")[0]

_MAX_NAME = 150
"""Characters of a function's name, and of its file's name, that are shown."""

_MAX_WRAPPERS = 10

_KINDS = {"function", "cython_function_or_method", "builtin_function_or_method"}
"""The types of functions written in Python, and of those in compiled modules: ``receive`` and ``snd`` are built-in."""


def blame(error: BaseException, function: Any, what: str) -> None:
    """Note on an exception which function of users was called when it was raised.

    The traceback shows what was running, but not what that was registered for; and it has no frame of a function that
    could not be called, nor of one that is not written in Python.

    Args:
        error: What was raised.
        function: What was called.
        what: What that is.
    """
    function = _unwrapped(function)
    if type(function).__name__ in _KINDS and _is_ours(_module_of(function)):
        return
    with suppress(Exception):  # raised by a class of users
        vars(error)[_MARK] = f"the {what} is {_where(function)}"


def called_function(error: BaseException, default: Handler | None) -> str:
    """Return what was noted on an exception, once; or ``""``.

    Args:
        error: What was raised.
        default: The default handler of the port whose code raised, for which the scheduler notes nothing; or None.
    """
    if default is not None and _is_from_default(error):
        blame(error, default, "handler")
    with suppress(Exception):
        return str(vars(error).pop(_MARK, ""))
    return ""


def _is_from_default(error: BaseException) -> bool:
    """Return whether the loop of the runners called the function that raised."""
    trace = frames_of(error)
    caller = ""
    while trace is not None and _is_ours(trace.tb_frame.f_globals.get("__name__")):
        caller = trace.tb_frame.f_code.co_name
        trace = trace.tb_next
    return caller.rpartition(".")[2] == "_run"  # compiled modules show the whole name


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.partition(".")[0] == _PACKAGE


def _module_of(function: Any) -> object:
    """Return the name of the module that has a function; of a built-in method, that of its object's class."""
    module: object = function.__module__
    return type(function.__self__).__module__ if module is None and type(function) is BuiltinMethodType else module


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
