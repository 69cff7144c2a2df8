# SPDX-License-Identifier: MIT
"""Handlers and names of a node's ports: ``rcv`` and ``reg``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from aemp_gevent.errors import InvalidPortError
from aemp_gevent.node.node_ports import NodePorts
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import require_port
from aemp_gevent.ports.handlers import Handlers, parse_registrations
from aemp_gevent.ports.patterns import Handler
from aemp_gevent.ports.port import Port, activate
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.tracing import handled

T = TypeVar("T")

H = TypeVar("H", bound=Handler)


class Registering(NodePorts):
    """A node whose ports can be given handlers and names."""

    @overload
    def rcv(self, port: object, what: str, /) -> Callable[[H], H]: ...
    @overload
    def rcv(self, port: T, /, *what: Any, **tags: Handler | None) -> T: ...
    def rcv(self, port: object, /, *what: Any, **tags: Handler | None) -> Any:
        """Set handlers of a local port, and return the port.

        ``rcv(port, cb)``
            ``cb(*msg)`` gets the messages that nothing else matched; returning ``DONE`` destroys the port.
        ``rcv(port, "tag", cb, "tag2", cb2, …)`` or ``rcv(port, tag=cb)``
            ``cb(*rest)`` gets messages with this first element. Each tag has one handler: a new
            one replaces it, None removes it.
        ``@rcv(port, "tag")``
            The same as a decorator; it returns the function.
        ``rcv(port, [p0, p1, …], cb)``
            ``cb(*msg)`` when the first elements match. An element is ``any_``, a type, a
            compiled regex (searched in strings), another callable (a predicate), or a
            value to be equal to. Patterns add up. Elements that cannot be compared (an array, an
            object whose ``__eq__`` raises) are not equal; an exception in a predicate kills the port.

        A handler that returns ``DONE`` is removed. True means the same if a Python function
        returns it; the return value of anything else, such as a method of gevent, is ignored.
        A message goes to its tag's handler first, then to every pattern that matches, in the
        order they were registered.

        Raises:
            NotLocalError: The port lives on another node.
            DeadPortError: It died.
            TypeError: The arguments have none of these forms.
        """
        target = self._local("rcv()", port)
        if len(what) == 1 and not tags and isinstance(what[0], str):

            def decorator(handler: Handler) -> Handler:
                self._scheduler.check_thread("rcv()")
                check_callable(f"rcv(), the handler of {quoted(what[0])}", handler)
                _handlers(target).set_tag(what[0], handled(handler))
                return handler

            return decorator
        default, registrations = parse_registrations(what, tags)
        if default is not None:
            target.default = handled(default)
        if registrations:
            _handlers(target).register([(what, function and handled(function)) for what, function in registrations])
        return port

    def reg(self, port: object, name: str | None = None) -> None:
        """Register a local port under a well-known name: ``nodeid#name`` reaches it. Also ``reg(name)`` for ``SELF()``.

        A port has one name. A name that is registered again moves to the new port, and it ends with its port.

        Raises:
            NotLocalError, DeadPortError: It is not a living port of this node.
            PortExistsError: A port was created with this name.
            NoPortContextError: ``reg(name)`` outside a port.
        """
        if name is None:
            self._scheduler.check_thread("reg()")
            name, target = str(port), require_port("reg(name)")
        else:
            target = self._local("reg()", port)
        alias = self._prefix + name
        if not self._split_port(alias)[1]:
            raise InvalidPortError(alias, "a registered name cannot be empty")
        if " " in name:
            raise InvalidPortError(alias, "it contains blanks")
        self._scheduler.table.register(target, alias)


def _handlers(port: Port) -> Handlers:
    # Make, test, store: a finalizer may register handlers while these are made.
    made = Handlers()
    cell = activate(port)
    if cell.handlers is None:
        cell.handlers = made
    return cell.handlers
