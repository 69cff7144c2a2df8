# SPDX-License-Identifier: MIT
"""Services: functions and modules that the settings start with a node.

All of them are imported before the node binds an address, so that a misspelt name is
noticed at once and changes nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from aemp_gevent.errors import InvalidSettingError, SpawnRefusedError
from aemp_gevent.node.spawnable_functions import find_for_us
from aemp_gevent.ports.callbacks import check_callable


class Service(NamedTuple):
    """A function that runs in a port of its own."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]


def load_services(wanted: Iterable[tuple[Any, ...]]) -> list[Service]:
    """Import modules and return the functions to run. May switch greenlets, because imports may.

    If a name fits both a function and a module, it means the function.

    Args:
        wanted: Names, each with the function's arguments.

    Raises:
        InvalidSettingError: There is no such function or module, or importing it failed
            (``__cause__`` has the error).
    """
    services: list[Service] = []
    for name, *args in wanted:
        try:
            function = _load(name)
        except SpawnRefusedError as error:
            raise InvalidSettingError("services", name, str(error), "") from error
        except Exception as error:  # a module's code may raise anything
            why = f"importing it failed: {type(error).__name__}: {error}"
            raise InvalidSettingError("services", name, why, "") from error
        if function is not None:
            try:
                check_callable("a service", function)
            except TypeError as error:
                raise InvalidSettingError("services", name, str(error), "") from None
            services.append(Service(name, function, tuple(args)))
        elif args:
            raise InvalidSettingError("services", name, "a module is imported, and takes no arguments", "")
    return services


def _load(name: str) -> Callable[..., Any] | None:
    """Return the function of this name, or import the module."""
    try:
        return find_for_us(name)
    except SpawnRefusedError:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not f"{name}.".startswith(f"{error.name}."):
                raise  # the module exists, and imports one that does not
        else:
            return None
    raise SpawnRefusedError("there is no such function or module: give its full name, 'package.module.function'")
