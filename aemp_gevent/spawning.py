# SPDX-License-Identifier: MIT
"""Names to functions: what ``spawn`` and function requests may call, and for whom.

A peer may run only what somebody here allowed: functions marked ``@spawnable``, and
names that an ``allow_spawn`` pattern of the settings covers; only for the latter is a
module imported on demand. This node itself may spawn anything.
"""

from __future__ import annotations

import importlib
import reprlib
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar, overload

from aemp_gevent.callbacks import check_callable
from aemp_gevent.errors import SpawnRefusedError

F = TypeVar("F", bound=Callable[..., Any])


_spawnable: dict[str, Callable[..., Any]] = {}
"""Marked functions by name. Of the process, like the modules that hold them: marks are part of the
program's text, not of a node's state."""


@overload
def spawnable(function: F, /) -> F: ...
@overload
def spawnable(name: str, /) -> Callable[[F], F]: ...
def spawnable(what: Any, /) -> Any:
    """Allow peers to spawn this function: ``@spawnable``, or ``@spawnable("Any::Name")``.

    The name is the dotted one, ``module.function``, unless another is given (for
    instance the name under which Perl nodes know it). A function of the program's main
    module goes by the name under which others would import it, ``program.function``,
    as well as by ``__main__.function``.
    """
    if isinstance(what, str):

        def mark(function: F) -> F:
            check_callable("spawnable()", function)
            _spawnable[what] = function
            return function

        return mark
    check_callable("spawnable()", what)
    _spawnable[f"{what.__module__}.{what.__qualname__}"] = what
    if what.__module__ == "__main__":
        _spawnable[f"{_main_module_name()}.{what.__qualname__}"] = what
    return what


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which other nodes would find a function: its mark's, or else its dotted one.

    Raises:
        SpawnRefusedError: It has none, as it stands inside another function, or is a method or a lambda.
    """
    check_callable("a function to be run on other nodes", function)
    marks = [name for name, marked in _spawnable.items() if marked is function and not name.startswith("__main__.")]
    if marks:
        return marks[0]
    name = getattr(function, "__qualname__", "<")
    if "<" in name or getattr(function, "__self__", None) is not None:
        raise SpawnRefusedError(f"{function!r} has no name on other nodes: give a function of a module, or a name")
    module = _main_module_name() if function.__module__ == "__main__" else function.__module__
    return f"{module}.{name}"


def _main_module_name() -> str:
    """Return the name under which other programs would import this one's main module."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return spec.name if spec is not None else Path(getattr(main, "__file__", None) or "__main__").stem


def _import(name: str) -> Callable[..., Any]:
    """Find a function by its dotted name, importing the module, else its parents, as the seed does."""
    module_name, _, rest = name.rpartition(".")
    attributes = [rest]
    while module_name and not name.startswith("."):  # a relative name has no meaning here
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # What a module that does exist fails to import is news, and passes through.
            if not f"{module_name}.".startswith(f"{error.name}."):
                raise
        else:
            try:
                for attribute in attributes:
                    found = getattr(found, attribute)
            except AttributeError:
                pass
            else:
                if callable(found):
                    return found  # type: ignore[no-any-return]
                raise SpawnRefusedError(f"{name!r} is no function")
        module_name, _, attribute = module_name.rpartition(".")
        attributes.insert(0, attribute)
    raise SpawnRefusedError(f"there is no function {name!r}: give its full name, 'package.module.function'")


def find_for_us(name: str) -> Callable[..., Any]:
    """Return the function of this name for this node's own use, importing what is needed.

    Raises:
        SpawnRefusedError: There is none. What an import raises passes through.
    """
    if not isinstance(name, str):
        raise SpawnRefusedError(f"{name!r} is no function's name: give its full name, 'package.module.function'")
    marked = _spawnable.get(name)
    return marked if marked is not None else _import(name)


def find_for_peer(name: object, allowed: Sequence[str]) -> Callable[..., Any]:
    """Return the function of this name if a peer may call it.

    Args:
        name: What the peer sent.
        allowed: ``allow_spawn``: shell patterns for dotted names, such as ``"shop.*"``.

    Raises:
        SpawnRefusedError: It may not, or there is none; the text does not tell which modules exist.
    """
    if isinstance(name, str):
        marked = _spawnable.get(name)
        if marked is not None:
            return marked
        if any(fnmatchcase(name, pattern) for pattern in allowed):
            return _import(name)
    raise SpawnRefusedError(
        f"{reprlib.repr(name)} is not allowed here: mark it @spawnable, or cover it with allow_spawn "
        "(the name of a script's function is FILE.function)"
    )
