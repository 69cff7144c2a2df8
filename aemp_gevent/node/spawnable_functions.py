# SPDX-License-Identifier: MIT
"""Functions by name: which ones ``spawn`` and function requests may call, and for which node.

A peer may run only functions that are marked ``@spawnable``, and functions whose names an ``allow_spawn`` pattern of
the settings covers. Only for the latter is a module imported on demand. This node itself may spawn any function.

**A pattern covers** the functions that a module *defines*, under their own names. A module's namespace has much
more: modules that it imports, their functions, classes, instances, and all their attributes. So a
name from a peer is not followed from attribute to attribute: it is a module's name and one name in that module's
namespace, and the object there must have been defined in that module. Mark every other function that peers may run.

Not here: spawning a port for this node (:mod:`aemp_gevent.node.running`), and for a peer, with the rules for it and the
log lines about refusals (``spawn_for`` in :mod:`aemp_gevent.node.request_host`).
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
"""Marked functions by name. They belong to the process, like the modules that define them: marks are part of the
program's text, not of a node's state."""

_OURS = {
    "aemp_gevent.otp.agent": "aemp_gevent.otp",
    "aemp_gevent.toolkit.pool_worker": "aemp_gevent.toolkit.pools",
}
"""Marked functions of this library, by name, and the modules that mark them. Programs need not have imported these:
the functions do for a peer only what that peer may do anyway."""


@overload
def spawnable(function: F, /) -> F: ...
@overload
def spawnable(name: str, /) -> Callable[[F], F]: ...
def spawnable(what: Any, /) -> Any:
    """Allow peers to spawn this function: ``@spawnable``, or ``@spawnable("Any::Name")``.

    The name is ``module.function``, unless another is given (for
    example the name under which Perl nodes know it). A function of the program's main
    module has the name under which others would import it, ``program.function``,
    and also ``__main__.function``.

    Patterns of ``allow_spawn`` do not cover the static methods of a class: mark those.

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
    """Return the function that is marked with a name, or None."""
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
    """Return the name by which other nodes find a function: the name of its mark, or else its full name.

    Raises:
        SpawnRefusedError: It has no such name, because it is inside another function, a method or a lambda.
    """
    if callable(function):  # other objects have no name either
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
    """Find a function by its full name, importing the module or else its parents, as AnyEvent::MP does."""
    module_name, _, rest = name.rpartition(".")
    attributes = [rest]
    while module_name and not name.startswith("."):  # a relative name has no meaning here
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            # An existing module that fails to import another is an error, which passes through.
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
    """Return the function of this name for this node's own use, importing its module.

    Raises:
        SpawnRefusedError: There is no such function. Errors of the import pass through.
    """
    if not isinstance(name, str):
        raise SpawnRefusedError(
            f"{quoted(name)} is not a function's name: give its full name, 'package.module.function'"
        )
    marked = _marked(name)
    return marked if marked is not None else _import(name)


def _defined_function(name: str) -> Callable[..., Any] | None:
    """Return the function of a full name, importing its module, if that module defines it under this name."""
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
    found = vars(module).get(attribute)  # not getattr(), for which a module can run code of its own
    # The exact type: proxies, mocks and partials can have any __module__.
    if type(found) is not FunctionType or (found.__module__, found.__qualname__) != (module_name, attribute):
        return None
    return found


def _is_plain(word: str) -> bool:
    """Return whether a part of a full name is an identifier and not a dunder, which has a meaning to Python."""
    return word.isidentifier() and not (word.startswith("__") and word.endswith("__"))


def find_for_peer(name: object, allowed: Sequence[str]) -> Callable[..., Any]:
    """Return the function of this name if a peer may call it.

    Args:
        name: What the peer sent.
        allowed: ``allow_spawn``: shell patterns for dotted names, such as ``"shop.*"``. They cover the functions
            that a module defines, but not those that it imports.

    Raises:
        SpawnRefusedError: The peer may not, or there is no such function; the text does not reveal which modules exist.
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
