# SPDX-License-Identifier: MIT
"""A cache that all nodes share: one of them computes what is missing, and what was invalidated is gone everywhere.

The values are on the cache's owner, :mod:`aemp_gevent.shared.owned_cache`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any, Generic, ParamSpec, TypeVar

from aemp_gevent import Node, default_node
from aemp_gevent.errors import InvalidSharedError, StateUnavailableError, UnencodableMessageError
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.shared.handles import SharedState
from aemp_gevent.shared.owned import check_number, check_text
from aemp_gevent.shared.owned_cache import LONGEST, MAX_BYTES, MAX_VALUE_BYTES, MOST_BYTES
from aemp_gevent.shared.ownership import ownership_of
from aemp_gevent.wire.limits import Limits

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds to wait for a value that another node computes, before it is computed once more."""

_computing: ContextVar[frozenset[tuple[Node, str, str]]] = ContextVar("aemp_computing", default=frozenset())
"""The values that this greenlet computes."""


class Cache(SharedState):
    """Values that all nodes share, each computed by one of them when it is missing.

    The values are on one node, so that what is invalidated is gone for all at once. When that node ends, they are
    computed again. When they are too many, or too large together, those that were used longest ago are dropped.

    Args:
        name: Its name, up to 200 characters.
        max_bytes: What the values may have together, encoded, with their keys and tags. If callers give different
            numbers, that of the one who computed the last value counts.
        timeout: As for :class:`SharedState`.
        node: This node.

    Raises:
        InvalidSharedError: It is not such a name, or ``max_bytes`` is not a number from 0 to 16 GiB.
    """

    _kind = "cache"

    def __init__(
        self,
        name: str,
        *,
        max_bytes: int = MAX_BYTES,
        timeout: Seconds | None = 5.0,
        node: Node = default_node,
    ) -> None:
        super().__init__(name, timeout=timeout, node=node)
        self.max_bytes: int = check_number("max_bytes", max_bytes, 0, MOST_BYTES)
        """What the values may have together, in bytes."""

    def get(self, key: str, compute: Callable[[], T], *, ttl: float, tags: Iterable[str] = ()) -> T:
        """Return a value; compute it if it is missing, while all others that need it wait. Switches.

        The value is message data. It is a copy, and comes as it would from another node: with lists for tuples. If
        ``compute`` raises, this call raises, and the next one that waits computes it. If no node could be asked in
        time, the value is computed and not kept.

        Args:
            key: The value's key, up to 200 characters.
            compute: Returns the value.
            ttl: Seconds for which it is kept.
            tags: Words by which :meth:`invalidate` finds it.

        Raises:
            InvalidSharedError: The key, the time or a tag cannot be used, or ``compute`` asks for this value itself.
            UnencodableMessageError, MessageTooLargeError: The value cannot travel, or has more than 1 MiB.
        """
        check_text("key", key)
        check_number("ttl", ttl, 0, LONGEST)
        words = _checked(tags)
        this = self.node, self._state_key, key
        computing = _computing.get()
        if this in computing:
            raise InvalidSharedError("key", key, "the function that computes its value asks for it itself")
        lease = self.node.port()
        before = _computing.set(computing | {this})
        try:
            try:
                is_there, found = self._ask("get", key, lease, *words, patience=_PATIENCE)
            except StateUnavailableError as error:
                ownership_of(self.node).complaints.warn("%s computes a value without its cache: %s", self, error)
                value: T = _decoded(_encoded(compute()))
                return value
            if is_there:
                there: T = _decoded(found)
                return there
            data = _encoded(compute())
            try:
                self._ask("put", found, data, ttl, self.max_bytes)
            except StateUnavailableError as error:
                ownership_of(self.node).complaints.warn("%s did not keep a value: %s", self, error)
            computed: T = _decoded(data)
            return computed
        finally:
            _computing.reset(before)
            self.node.kil(lease)

    def invalidate(self, *keys: str, tags: Iterable[str] = ()) -> int:
        """Drop values by their keys and tags; return how many there were. Switches.

        Calls of :meth:`get` that begin after this returned get nothing that was computed, or began to be computed,
        before.

        Raises:
            StateUnavailableError: No node could be asked in time.
        """
        words = _checked(tags)
        dropped: int = self._ask("invalidate", *(check_text("key", key) for key in keys)) if keys else 0
        if words:
            dropped += self._ask("invalidate_tags", *words)
        return dropped

    def cached(
        self, ttl: float, tags: Iterable[str] | Callable[..., Iterable[str]] = ()
    ) -> Callable[[Callable[P, T]], CachedFunction[P, T]]:
        """Return a decorator for functions whose results are kept; see :func:`aemp_gevent.shared.cached`."""
        check_number("ttl", ttl, 0, LONGEST)
        given = tags if callable(tags) else _checked(tags)

        def decorate(function: Callable[P, T]) -> CachedFunction[P, T]:
            check_callable("cached()", function)
            return CachedFunction(self, function, ttl, given)

        return decorate


class CachedFunction(Generic[P, T]):
    """A function whose results are kept in a cache; ``invalidate`` drops one of them."""

    def __init__(
        self,
        cache: Cache,
        function: Callable[P, T],
        ttl: float,
        tags: tuple[str, ...] | Callable[..., Iterable[str]],
    ) -> None:
        functools.update_wrapper(self, function)
        self._cache = cache
        self._function = function
        self._ttl = ttl
        self._tags = tags
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (TypeError, ValueError):  # some that are written in C have none
            self._signature = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the function's result for these arguments, from the cache or by a call."""
        tags = self._tags(*args, **kwargs) if callable(self._tags) else self._tags
        compute = functools.partial(self._function, *args, **kwargs)
        return self._cache.get(self._key(args, kwargs), compute, ttl=self._ttl, tags=tags)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Drop the result for these arguments; return whether there was one. Switches."""
        return bool(self._cache.invalidate(self._key(args, kwargs)))

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        given: dict[str, Any] = {"args": args, "kwargs": kwargs}
        if self._signature is not None:  # the same for f(1), f(x=1), and f(1, y=2) if that is the default
            given = self._signature.bind(*args, **kwargs).arguments
            given = {name: value for name, value in given.items() if not self._is_default(name, value)}
        data = _encoded_arguments(given)
        name = f"{self._function.__module__}.{self._function.__qualname__}"[-150:]
        return f"{name} {blake2b(data, digest_size=16).hexdigest()}"

    def _is_default(self, name: str, value: object) -> bool:
        default = self._signature.parameters[name].default if self._signature is not None else value
        if default is value or type(default) is not type(value):
            return default is value
        try:
            return _encoded_arguments(default) == _encoded_arguments(value)
        except UnencodableMessageError:
            return False


def _encoded_arguments(value: object) -> bytes:
    """Return arguments as bytes, which are the same for dicts of another order."""
    plain = _decoded(_encoded(value))
    return _encoded(_sorted(plain))


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=_encoded)}
    return value


def _checked(tags: Any) -> tuple[str, ...]:
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidSharedError("tags", tags, "write a list of words, such as ['users']")
    return tuple(check_text("tag", tag) for tag in tags)


def _encoded(value: Any) -> bytes:
    from aemp_gevent.wire.framing_msgpack import make_encoder  # noqa: PLC0415  # loads much

    packet = [value]
    data = make_encoder()(packet)
    Limits(MAX_VALUE_BYTES).check(packet, len(data))
    return data


def _decoded(data: Any) -> Any:
    from aemp_gevent.wire.framing_msgpack import MsgpackDecoder  # noqa: PLC0415

    decoder = MsgpackDecoder(Limits(MAX_VALUE_BYTES))
    decoder.feed(data)
    return next(iter(decoder))[0]


def cached(
    ttl: float,
    tags: Iterable[str] | Callable[..., Iterable[str]] = (),
    *,
    name: str = "default",
    timeout: Seconds | None = 5.0,
    node: Node = default_node,
) -> Callable[[Callable[P, T]], CachedFunction[P, T]]:
    """Return a decorator for functions whose results all nodes share for a while.

    Of all calls with the same arguments, on whatever nodes, one runs the function, and the others wait for its
    result. Arguments that are left out count as their defaults, and dicts of another order as the same. The arguments
    and the result are message data; the result is a copy, and comes with lists for tuples.
    ``function.invalidate(*args)`` drops one result, and :func:`invalidate` all those with a tag.

    Args:
        ttl: Seconds for which results are kept.
        tags: Words by which they are found, or a function that is called with the arguments and returns such words.
        name: The name of the cache.
        timeout: Seconds after which the function is called without the cache, if no node answers.
        node: This node.

    Raises:
        InvalidSharedError: The time or a tag cannot be used.
    """
    return Cache(name, timeout=timeout, node=node).cached(ttl, tags)


def invalidate(*tags: str, name: str = "default", timeout: Seconds | None = 5.0, node: Node = default_node) -> int:
    """Drop all results of :func:`cached` that have one of these tags, for all nodes; return how many. Switches.

    Raises:
        InvalidSharedError: A tag cannot be used.
        StateUnavailableError: No node could be asked in time.
    """
    return Cache(name, timeout=timeout, node=node).invalidate(tags=tags)
