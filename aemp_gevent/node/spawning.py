# SPDX-License-Identifier: MIT
"""Names to functions: what ``spawn`` and function requests may call, and for whom.

A peer may run only what somebody here allowed: functions marked ``@spawnable``, and
names that an ``allow_spawn`` pattern of the settings covers; only for the latter is a
module imported on demand. This node itself may spawn anything.

**What a pattern covers** are the functions that a module *defines*, under their own names. A
module is full of other things: modules that it imports, functions of theirs, classes, instances,
and what hangs on all of these. So a name from a peer is never followed from attribute to
attribute: it is a module's name and one name in that module's namespace, and what stands there
must say itself that it was defined there. Whatever else is to be run is marked.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar, overload

from aemp_gevent.errors import SpawnRefusedError
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.runtime.quoting import quoted

F = TypeVar("F", bound=Callable[..., Any])


_spawnable: dict[str, Callable[..., Any]] = {}
"""Marked functions by name. Of the process, like the modules that hold them: marks are part of the
program's text, not of a node's state."""

_OURS = {"aemp_gevent.toolkit.pool_worker": "aemp_gevent.toolkit.pools"}
"""Marked functions of this library, by name, and the modules that mark them. Programs need not have imported these:
the function does no more for a peer than what it may have run anyway."""


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

    No pattern of ``allow_spawn`` covers the static functions of a class: mark those.

    Raises:
        TypeError: It is a builtin, such as ``os.system``.
    """
    if isinstance(what, str):

        def mark(function: F) -> F:
            _check_markable(function)
            _spawnable[what] = function
            return function

        return mark
    _check_markable(what)
    _spawnable[f"{what.__module__}.{what.__qualname__}"] = what
    if what.__module__ == "__main__":
        _spawnable[f"{_main_module_name()}.{what.__qualname__}"] = what
    return what


def _marked(name: str) -> Callable[..., Any] | None:
    """Return the function that is marked with a name, if there is one."""
    if name in _OURS and name not in _spawnable:
        importlib.import_module(_OURS[name])
    return _spawnable.get(name)


def _check_markable(function: object) -> None:
    check_callable("spawnable()", function)
    if isinstance(function, BuiltinFunctionType):
        raise TypeError(
            f"{quoted(function)} is a builtin, which other nodes must not call: mark a function that calls it"
        )


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which other nodes would find a function: its mark's, or else its dotted one.

    Raises:
        SpawnRefusedError: It has none, as it stands inside another function, or is a method or a lambda.
    """
    if callable(function):  # else it has no name either
        check_callable("a function to be run on other nodes", function)
    marks = [name for name, marked in _spawnable.items() if marked is function and not name.startswith("__main__.")]
    if marks:
        return marks[0]
    name = getattr(function, "__qualname__", "<")
    if "<" in name or getattr(function, "__self__", None) is not None:
        raise SpawnRefusedError(
            f"{quoted(function)} has no name on other nodes: give a function of a module, or a name"
        )
    module = _main_module_name() if function.__module__ == "__main__" else function.__module__
    return f"{module}.{name}"


def _main_module_name() -> str:
    """Return the name under which other programs would import this one's main module."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    from pathlib import Path  # noqa: PLC0415  # not when the package is imported

    return Path(getattr(main, "__file__", None) or "__main__").stem


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
                raise SpawnRefusedError(f"{quoted(name)} is not a function")
        module_name, _, attribute = module_name.rpartition(".")
        attributes.insert(0, attribute)
    raise SpawnRefusedError(f"there is no function {quoted(name)}: give its full name, 'package.module.function'")


def find_for_us(name: str) -> Callable[..., Any]:
    """Return the function of this name for this node's own use, importing what is needed.

    Raises:
        SpawnRefusedError: There is none. What an import raises passes through.
    """
    if not isinstance(name, str):
        raise SpawnRefusedError(
            f"{quoted(name)} is not a function's name: give its full name, 'package.module.function'"
        )
    marked = _marked(name)
    return marked if marked is not None else _import(name)


def _defined_function(name: str) -> Callable[..., Any] | None:
    """Return the function of a dotted name, importing its module, if that module defines it under this name."""
    module_name, _, attribute = name.rpartition(".")
    packages = [] if module_name == "__main__" else module_name.split(".")
    if not all(map(_is_plain, (*packages, attribute))):
        return None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise  # as in _import()
        return None
    found = vars(module).get(attribute)  # not getattr(), which a module can answer with code of its own
    # An exact type: proxies, mocks and partials can claim any __module__.
    if type(found) is not FunctionType or (found.__module__, found.__qualname__) != (module_name, attribute):
        return None
    return found


def _is_plain(word: str) -> bool:
    """Return whether a part of a dotted name is an identifier without a meaning to Python itself, as dunders have."""
    return word.isidentifier() and not (word.startswith("__") and word.endswith("__"))


def find_for_peer(name: object, allowed: Sequence[str]) -> Callable[..., Any]:
    """Return the function of this name if a peer may call it.

    Args:
        name: What the peer sent.
        allowed: ``allow_spawn``: shell patterns for dotted names, such as ``"shop.*"``. They cover functions
            that a module defines, and nothing that it imports.

    Raises:
        SpawnRefusedError: It may not, or there is none; the text does not tell which modules exist.
    """
    if isinstance(name, str):
        marked = _marked(name)
        if marked is not None:
            return marked
        if any(fnmatchcase(name, pattern) for pattern in allowed):
            found = _defined_function(name)
            if found is not None:
                return found
    what = f"{quoted(name)} is not {'allowed here' if isinstance(name, str) else 'the name of a function'}"
    raise SpawnRefusedError(
        f"{what}: mark the function @spawnable, or cover its full name, "
        "'package.module.function', with allow_spawn; in a script that name is FILE.function"
    )
