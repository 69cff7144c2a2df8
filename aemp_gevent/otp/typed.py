# SPDX-License-Identifier: MIT
"""Typed messages: arguments and results that are checked, and converted, by the annotations of a server's methods.

Messages have plain values only: numbers, texts, bytes, lists, maps. The reference to a typed server converts its
arguments into these, and the server converts them back into the annotated types before the method runs. The result
takes the same way back. msgspec does both; it is needed for classes with ``typed=True`` only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from gevent.event import AsyncResult
from greenlet import getcurrent

from aemp_gevent.node.access import Later
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from types import ModuleType

    from aemp_gevent.otp.marks import MarkedMethod

_PLAIN = frozenset({int, float, str, bool, bytes, type(None)})
"""Types that travel as they are."""


def msgspec_for(what: str) -> ModuleType:
    """Return the module ``msgspec``.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import msgspec  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ImportError(f"{what} needs the extra 'typed': pip install msgspec") from error
    return msgspec


class TypedMethod:
    """The types of one marked method.

    Args:
        server: The class that it belongs to.
        mark: The method.

    Raises:
        ImportError: msgspec is not installed.
        TypeError: An annotation cannot be evaluated.
    """

    def __init__(self, server: type[Any], mark: MarkedMethod) -> None:
        self._spec = msgspec_for(f"{server.__name__} with typed=True")
        self.title = f"{server.__name__}.{mark.name}()"
        try:
            hints = get_type_hints(mark.function, localns={server.__name__: server}, include_extras=True)
        except Exception as error:
            raise TypeError(f"{self.title}: its annotations cannot be evaluated: {error}") from error
        _, *parameters = mark.signature.parameters.values()
        self.parameters = [each for each in parameters if each.kind is not inspect.Parameter.VAR_POSITIONAL]
        self.types = [hints.get(each.name, Any) for each in self.parameters]
        """The types of the parameters, without those of ``*args``."""
        variadic = [each.name for each in parameters if each.kind is inspect.Parameter.VAR_POSITIONAL]
        self.rest: Any = hints.get(variadic[0], Any) if variadic else None
        """The type of each of ``*args``; None: there are none."""
        result = hints.get("return", Any)
        if get_origin(result) is Later:
            [result] = get_args(result)
        elif result is Later:
            result = Any
        self.result: Any = result

    def encode_arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments as they travel.

        Raises:
            TypeError: One has a type that cannot.
        """
        return self._each(args, self._encode)

    def decode_arguments(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return arguments that have travelled, as the method takes them.

        Raises:
            TypeError: One is not what the annotation says.
        """
        return self._each(args, self._decode)

    def encode_result(self, value: Any) -> Any:
        """Return a result as it travels.

        Raises:
            TypeError: It is not what the annotation says, or cannot travel.
        """
        if self.result is Any or type(value) is self.result in _PLAIN:
            return value
        what = f"{self.title}: its result"
        plain = self._encode(value, self.result, what)
        self._decode(plain, self.result, what)
        return plain

    def decode_result(self, value: Any) -> Any:
        """Return a result that has travelled, as the caller gets it.

        Raises:
            TypeError: It is not what the annotation says.
        """
        return self._decode(value, self.result, f"{self.title}: its result")

    def decode_later(self, answer: AsyncResult[Any]) -> AsyncResult[Any]:
        """Return what will have the decoded result of a call."""
        decoded: AsyncResult[Any] = AsyncResult()

        def answered(result: AsyncResult[Any]) -> None:  # on the hub
            if result.exception is not None:
                decoded.set_exception(result.exception)
                return
            try:
                decoded.set(self.decode_result(result.value))
            except Exception as error:  # noqa: BLE001  # raised where the caller waits
                decoded.set_exception(error)

        answer.rawlink(answered)
        return decoded

    def _each(self, args: tuple[Any, ...], convert: Callable[[Any, Any, str], Any]) -> tuple[Any, ...]:
        found: list[Any] = []
        for index, value in enumerate(args):
            has_name = index < len(self.types)
            kind = self.types[index] if has_name else self.rest
            if kind is Any or type(value) is kind in _PLAIN:
                found.append(value)
            else:
                name = quoted(self.parameters[index].name) if has_name else f"{index + 1}"
                found.append(convert(value, kind, f"{self.title}: argument {name}"))
        return tuple(found)

    def _encode(self, value: Any, kind: Any, what: str) -> Any:
        try:
            return self._spec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview), enc_hook=_encode_other)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"{what} cannot travel: {error}") from None

    def _decode(self, value: Any, kind: Any, what: str) -> Any:
        if kind is Any:
            return value
        try:
            return self._spec.convert(value, kind, dec_hook=_decode_other)
        except (self._spec.ValidationError, RecursionError) as error:
            raise TypeError(f"{what} is {quoted(value)}: {error}") from None


def with_types(types_of: Callable[[], TypedMethod | None], method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method marked ``@call`` that takes arguments as they travel, and returns its result so."""

    def typed(*args: Any) -> Any:
        types = types_of()
        assert types is not None
        decoded = types.decode_arguments(args)
        greenlet = getcurrent()
        before = getattr(greenlet, "aemp_otp_types", None)
        greenlet.aemp_otp_types = types  # type: ignore[attr-defined]  # for typed_later()
        try:
            answer = method(*decoded)
        finally:
            greenlet.aemp_otp_types = before  # type: ignore[attr-defined]
        return answer if issubclass(type(answer), Later) else types.encode_result(answer)

    return typed


def typed_later(later: Later[Any]) -> Later[Any]:
    """Return a later answer to the call that this greenlet serves, which takes what the annotation says."""
    types: TypedMethod | None = getattr(getcurrent(), "aemp_otp_types", None)
    if types is None:
        return later
    encode = types.encode_result

    def send(value: Any) -> None:
        try:
            plain = encode(value)
        except TypeError as error:
            later.fail(error)  # as for a result of the method; otherwise the caller would wait in vain
            raise
        later.send(plain)

    return Later(send, later.fail)


def _encode_other(value: Any) -> Any:
    """Return a value of a type that msgspec does not know, as it travels."""
    if isinstance(value, str):  # of a class derived from it, as references are
        return str.__str__(value)
    raise TypeError(f"objects of type {type(value).__name__} are not supported")


def _decode_other(kind: Any, value: Any) -> Any:
    """Return a value of a type that msgspec does not know."""
    if is_server(kind):
        return kind.at(value)
    if isinstance(value, kind):
        return value
    raise TypeError(f"values of {quoted(kind)} cannot travel")


def is_server(kind: Any) -> bool:
    """Return whether a type is a class of servers, of which references travel."""
    return isinstance(kind, type) and hasattr(kind, "_aemp_reference")
