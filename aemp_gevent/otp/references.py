# SPDX-License-Identifier: MIT
"""References: what you call a server through.

A reference is the ID of the server's port, a ``str``, with the marked methods of the server's class. So it travels,
prints, compares and hashes as what it is, and every function that takes a port takes it.

Type checkers see a reference as the class itself, which has these methods with their types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from gevent.event import AsyncResult

from aemp_gevent.otp.marks import CallMark, MarkedMethod
from aemp_gevent.otp.requests import stop
from aemp_gevent.runtime import hints
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent import Node

CALL_SECONDS = 30.0
"""How long a call waits for its answer unless the caller says something else: as ``call`` does."""

_AS_REFERENCE: Any = object()


class Reference(str):
    """A server, as other code sees it: its port's ID, with the marked methods of its class.

    ``Cart.start(…)`` and ``Cart.at(port)`` return one, of a class that is made for ``Cart``. Both say that they
    return a ``Cart``, because type checkers find the methods there.

    Args:
        port: The server's port.
        node: This node.
        timeout: Seconds that its calls wait.
    """

    __slots__ = ("_node", "_timeout")

    server: ClassVar[type[Any]]
    """The server's class."""

    _node: Node
    _timeout: float | None

    def __new__(cls, port: str, node: Node, timeout: float | None = CALL_SECONDS) -> Reference:
        self = super().__new__(cls, port)
        self._node = node
        self._timeout = timeout
        return self

    if not TYPE_CHECKING:

        @property
        def __class__(self):
            """The server's class: ``isinstance(cart, Cart)``, as type checkers see it. It is also a ``str``."""
            return type(self).server

    def __repr__(self) -> str:
        return f"<{self.server.__name__} {str.__str__(self)}>"

    def __str__(self) -> str:
        return str.__str__(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.server.at, (str(self),)

    def __getattr__(self, name: str) -> Any:
        server = type(self).server
        marked = [each for each, thing in vars(type(self)).items() if isinstance(thing, MethodOfReference)]
        nearest = hints.nearest(name, marked)
        raise AttributeError(
            f"a reference to a {server.__name__} has no {quoted(name)}, only the methods marked @call or @cast{nearest}"
        )

    def within(self, timeout: Seconds | None) -> Reference:
        """Return a reference whose calls wait so many seconds; None: until the server dies."""
        return type(self)(str(self), self._node, to_seconds(timeout, "within()"))

    def stop(self, *reason: Any, timeout: Seconds | None = CALL_SECONDS) -> None:
        """Stop the server after the messages that it has, and wait for that. See ``Server.stop``."""
        stop(self._node, str(self), reason, timeout)

    @property
    def cast(self) -> Casts:
        """The methods marked ``@cast``."""
        return Casts(self)

    @property
    def async_(self) -> Asyncs:
        """The methods marked ``@call``; they return an ``AsyncResult`` at once."""
        return Asyncs(self)


class Method:
    """A marked method of a reference, as :class:`~aemp_gevent.otp.marks.BoundCall` and ``BoundCast`` describe it."""

    __slots__ = ("_mark", "_reference", "_types")

    def __init__(self, reference: Any, mark: MarkedMethod) -> None:  # a Reference, whose attributes are private
        self._reference = reference
        self._mark = mark
        self._types = type(reference).server.aemp_types_of(mark)

    def __repr__(self) -> str:
        return f"{quoted(self._mark)} of {self._reference!s}"

    def _by_position(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        mark = self._mark
        if kwargs:
            args = mark.by_position(args, kwargs)
        elif not mark.least <= len(args) <= mark.most:
            raise TypeError(mark.why_not(len(args)))
        return args if self._types is None else self._types.encode_arguments(args)


class CallMethod(Method):
    """A method that answers."""

    __slots__ = ()

    def __call__(self, *args: Any, timeout: Any = _AS_REFERENCE, **kwargs: Any) -> Any:
        reference = self._reference
        if timeout is _AS_REFERENCE:
            timeout = reference._timeout
        answer = reference._node.call(reference, self._mark.name, *self._by_position(args, kwargs), timeout=timeout)
        return answer if self._types is None else self._types.decode_result(answer)

    def async_(self, *args: Any, timeout: Any = _AS_REFERENCE, **kwargs: Any) -> AsyncResult[Any]:
        """Make the call, and return what will hold the answer."""
        reference = self._reference
        if timeout is _AS_REFERENCE:
            timeout = reference._timeout
        result: AsyncResult[Any] = reference._node.call_async(
            reference, self._mark.name, *self._by_position(args, kwargs), timeout=timeout
        )
        return result if self._types is None else self._types.decode_later(result)


class CastMethod(Method):
    """A method that does not answer."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        reference = self._reference
        reference._node.snd(reference, self._mark.name, *self._by_position(args, kwargs))


class MethodOfReference:
    """Makes a :class:`Method` of the reference that it is looked up in."""

    __slots__ = ("_kind", "_mark")

    def __init__(self, mark: MarkedMethod) -> None:
        self._mark = mark
        self._kind = CallMethod if isinstance(mark, CallMark) else CastMethod

    def __get__(self, reference: Reference | None, owner: type) -> Any:
        return self._mark if reference is None else self._kind(reference, self._mark)


class Casts:
    """The methods of a reference that are marked ``@cast``."""

    __slots__ = ("_reference",)

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def __getattr__(self, name: str) -> Callable[..., None]:
        method: Callable[..., None] = getattr(self._reference, name)
        if not isinstance(method, CastMethod):
            raise AttributeError(f"{name} is not marked @cast: call it")  # noqa: TRY004  # as for other names
        return method


class Asyncs:
    """The methods of a reference that are marked ``@call``. Each returns an ``AsyncResult`` at once."""

    __slots__ = ("_reference",)

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    def __getattr__(self, name: str) -> Callable[..., AsyncResult[Any]]:
        method = getattr(self._reference, name)
        if not isinstance(method, CallMethod):
            raise AttributeError(f"{name} is not marked @call, so it has no answer to wait for")  # noqa: TRY004
        return method.async_


def reference_class(server: type[Any], marks: dict[str, MarkedMethod]) -> type[Reference]:
    """Return the class of the references to servers of a class, which has these methods."""
    methods = {name: MethodOfReference(mark) for name, mark in marks.items()}
    names = {"__slots__": (), "__doc__": f"A reference to a {server.__name__}.", "server": server, **methods}
    return type(server.__name__, (Reference,), names)
