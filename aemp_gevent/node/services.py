# SPDX-License-Identifier: MIT
# pyright: reportPrivateUsage=false
"""Services: functions and modules that the settings start with a node.

All of them are imported before the node binds an address, so that a misspelt name is
noticed at once and changes nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from aemp_gevent.errors import InvalidSettingError, PortDied, SpawnRefusedError
from aemp_gevent.node.node_monitors import event_jobs
from aemp_gevent.node.spawnable_functions import find_for_us
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.runtime.logs import Log

if TYPE_CHECKING:
    from aemp_gevent.node.linked_node import LinkedNode

_log = Log()


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


def start_service(node: LinkedNode, service: Service, ended: Callable[..., None] | None = None) -> str:
    """Run a service in a port of its own, which an exception of the service kills. Never switches.

    Args:
        node: The node to run it on.
        service: From :func:`load_services`.
        ended: Called with the reason when the port has died.

    Returns:
        The port's ID.
    """
    name = node._new_name()
    node._spawn_here(name, service.name, service.args, lambda _name: service.function)
    port = node._prefix + name

    def died(*reason: Any) -> None:
        if reason and reason != ("shutdown", node.NODE()):
            _log.error("the service %s, port %s, died: %s", service.name, port, reason)
            node._node_monitors.enqueue(event_jobs(PortDied(port, reason)))
        if ended is not None:
            ended(*reason)

    node._monitor(port, died, None)
    return port


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
