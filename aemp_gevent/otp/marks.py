# SPDX-License-Identifier: MIT
"""``@call`` and ``@cast``: the marks of the methods of a server that other ports may use.

A marked method is called directly inside the server. Through a reference (:mod:`aemp_gevent.otp.references`) it is a
message. For type checkers it is the latter in both cases: with its own parameters, its own result, and ``timeout=``.

Arguments travel by position, as with ``call`` and ``snd``, so that any node can use a server without its class, and
the class may get more parameters with defaults.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from math import inf
from types import FunctionType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeAlias, TypeVar, overload

from gevent.event import AsyncResult

from aemp_gevent.node.access import Later
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.runtime.quoting import quoted

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound="MarkedMethod")

Errors: TypeAlias = "bool | type[Exception] | tuple[type[Exception], ...]"
"""Exceptions: those of these classes; True: all, False: none."""


class BoundCall(Generic[P, R]):
    """A ``@call`` method of a reference, as type checkers see it."""

    if TYPE_CHECKING:

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        @overload
        def __call__(self, *args: Any, timeout: Seconds | None, **kwargs: Any) -> R: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            """Call the method, wait for its answer, and return it."""

        def async_(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
            """Call the method, and return what will hold the answer."""
            ...


class BoundCast(Generic[P]):
    """A ``@cast`` method of a reference, as type checkers see it."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> None:
            """Send the message, and return."""


class MarkedMethod:
    """A method of a server that other ports may use.

    Args:
        function: The method.
        kind: ``"call"`` or ``"cast"``.

    Raises:
        TypeError: Its parameters cannot travel.
    """

    kind: str

    def __init__(self, function: Callable[..., Any]) -> None:
        what = f"@{self.kind}"
        if not isinstance(function, FunctionType):
            raise TypeError(
                f"{what} marks methods of a Server, not {quoted(function)}; it comes above other decorators"
            )
        name = function.__qualname__
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"{what}: {name} is a generator or async; write a plain method, which may block")
        self.function = function
        self.name = function.__name__
        self.signature = _readable(inspect.signature(function))
        _, *parameters = self.signature.parameters.values() or (None,)
        by_name = [each.name for each in parameters if each.kind in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]
        if by_name or not self.signature.parameters:
            why = f"the parameters {by_name} cannot" if by_name else "it has no 'self', so it cannot"
            raise TypeError(f"{what}: {name} takes its arguments by position, as they travel; {why}")
        if any(each.name == "timeout" for each in parameters):
            raise TypeError(f"{what}: {name} has a parameter 'timeout', which belongs to the caller; rename it")
        several = any(each.kind is each.VAR_POSITIONAL for each in parameters)
        self.most = inf if several else len(parameters)
        """The most arguments that the method takes, without ``self``."""
        self.least = sum(each.default is each.empty and each.kind is not each.VAR_POSITIONAL for each in parameters)
        """The fewest."""
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # for help() and Sphinx

    def __repr__(self) -> str:
        return f"<@{self.kind} {self.function.__qualname__}{self.signature}>"

    def why_not(self, count: int) -> str | None:
        """Return why the method cannot take so many arguments; None if it can."""
        if self.least <= count <= self.most:
            return None
        some = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        some = f"at least {self.least}" if self.most == inf else some
        return f"{self.name}{self._shown()} takes {some} argument{'' if some == '1' else 's'}, not {count}"

    def _shown(self) -> str:
        parameters = list(self.signature.parameters.values())[1:]
        return str(self.signature.replace(parameters=parameters))

    def by_position(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return arguments as they travel: all by position, without defaults at the end.

        Raises:
            TypeError: They do not fit.
        """
        try:
            bound = self.signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}{self._shown()}: {error}") from None
        given = set(bound.arguments)
        bound.apply_defaults()
        names = list(self.signature.parameters)[1:]
        while names and names[-1] not in given:
            names.pop()
        if names and self.signature.parameters[names[-1]].kind is inspect.Parameter.VAR_POSITIONAL:
            return bound.args[1:]
        return bound.args[1 : 1 + len(names)]


class CallMark(MarkedMethod, Generic[P, R]):
    """A method marked ``@call``."""

    kind = "call"

    def __init__(self, function: Callable[..., Any], fatal: Errors = False) -> None:
        super().__init__(function)
        self.fatal: tuple[type[Exception], ...] = _classes(fatal)
        """The exceptions of the method that end the server."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> CallMark[P, R]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> BoundCall[P, R]: ...
        def __get__(self, instance: object, owner: type) -> Any: ...
    else:

        def __get__(self, instance, owner):
            return self if instance is None else self.function.__get__(instance, owner)


class CastMark(MarkedMethod, Generic[P]):
    """A method marked ``@cast``."""

    kind = "cast"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> CastMark[P]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> BoundCast[P]: ...
        def __get__(self, instance: object, owner: type) -> Any: ...
    else:

        def __get__(self, instance, owner):
            return self if instance is None else self.function.__get__(instance, owner)


@overload
def call(method: Callable[Concatenate[Any, P], Later[R]], /) -> CallMark[P, R]: ...
@overload
def call(method: Callable[Concatenate[Any, P], R], /) -> CallMark[P, R]: ...
@overload
def call(*, fatal: Errors) -> Callable[[Callable[Concatenate[Any, P], R]], CallMark[P, R]]: ...
def call(method: Any = None, /, *, fatal: Errors = False) -> Any:
    """Mark a method of a :class:`Server` whose result goes back to the caller: ``@call``.

    An exception is raised in the caller, as ``RemoteError``, and the server continues with the state that the method
    left behind. ``@call(fatal=KeyError)`` ends the server as well for exceptions of this class, or of one of several
    in a tuple; ``fatal=True`` for all.

    Raises:
        TypeError: The method has keyword-only parameters, or one named ``timeout``; or it is a generator or ``async``.
    """
    if method is None:
        _classes(fatal)
        return lambda function: CallMark(function, fatal)
    return CallMark(method)


def cast(method: Callable[Concatenate[Any, P], Any], /) -> CastMark[P]:
    """Mark a method of a :class:`Server` that is used without waiting for it: ``@cast``. Nothing goes back.

    An exception ends the server.

    Raises:
        TypeError: As for :func:`call`.
    """
    return CastMark(method)


class _Bare(str):
    """An annotation from a module with postponed annotations, shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str.__str__(self)


def _readable(signature: inspect.Signature) -> inspect.Signature:
    """Return a signature whose annotations are shown as they are written."""

    def bare(annotation: Any) -> Any:
        return _Bare(annotation) if isinstance(annotation, str) else annotation

    parameters = [each.replace(annotation=bare(each.annotation)) for each in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=bare(signature.return_annotation))


def marks_of(cls: type) -> dict[str, MarkedMethod]:
    """Return the marked methods of a class, and of those that it is derived from."""
    return {name: mark for name, mark in _attributes(cls) if isinstance(mark, MarkedMethod)}


def _attributes(cls: type) -> Iterator[tuple[str, Any]]:
    for each in reversed(cls.__mro__):
        yield from vars(each).items()


def _classes(errors: Errors) -> tuple[type[Exception], ...]:
    """Return exceptions as a tuple of classes."""
    if isinstance(errors, bool):
        return (Exception,) if errors else ()
    classes = errors if isinstance(errors, tuple) else (errors,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise TypeError(f"@call: 'fatal' must be True, or exception classes, not {quoted(errors)}")
    return classes
