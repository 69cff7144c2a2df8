# SPDX-License-Identifier: MIT
"""A cache that all nodes share: one of them computes what is missing, and what was invalidated is gone everywhere."""

from __future__ import annotations

import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from time import monotonic
from typing import Any, Generic, ParamSpec, TypeVar

from aemp_gevent import Node, default_node
from aemp_gevent.calls.serve import fail, is_port
from aemp_gevent.errors import InvalidSharedError, StateMovedError, StateUnavailableError
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.copying import copy_as_sent
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.shared.handles import SharedState
from aemp_gevent.shared.owned import Owned, check_number, check_text
from aemp_gevent.shared.ownership import KINDS, ownership_of
from aemp_gevent.wire.limits import Limits

P = ParamSpec("P")
T = TypeVar("T")

MAX_ENTRIES = 10_000
"""Values of one cache; beyond that the one that was used longest ago is dropped."""

MAX_VALUE_BYTES = 2**20
"""The largest value, encoded."""

_PATIENCE = 60.0
"""Seconds to wait for a value that another node computes, before it is computed once more."""

_LONGEST = 365.0 * 86400


class _Value:
    def __init__(self, value: Any, until: float, tags: tuple[str, ...]) -> None:
        self.value = value
        self.until = until
        self.tags = tags


class _Flight:
    """One computation, and all that wait for its result."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.guard: Monitor | None = None
        self.waiting: list[tuple[str, str]] = []
        """The reply port and the lease of each."""


class OwnedCache(Owned):
    """A cache on its owner."""

    def __init__(self, node: Node) -> None:
        self._entries: OrderedDict[str, _Value] = OrderedDict()
        self._tagged: dict[str, dict[str, None]] = {}
        self._flights: dict[str, _Flight] = {}
        self._current: dict[str, str] = {}
        """The computation for each key that was not invalidated since it began."""
        self._tokens = itertools.count()
        super().__init__(node)
        node.rcv(self.port, "get", self._get)

    def served(self) -> dict[str, Callable[..., Any]]:
        """Return the functions that clients call, by tag."""
        return {"put": self._put, "invalidate": self._invalidate, "invalidate_tags": self._invalidate_tags}

    # --- getting and computing ---

    def _get(self, *words: Any) -> None:
        host = ports_host_of(self.node)
        reply: Any = words[-1] if words else None
        if not is_port(host, reply):
            return
        try:
            self.check_is_here()
            key, lease = check_text("key", words[0]), words[1]
            if not is_port(host, lease):
                raise InvalidSharedError("lease", lease, "it must be a port")
        except (StateMovedError, InvalidSharedError, IndexError) as error:
            fail(host, reply, error)
            return
        entry = self._entries.get(key)
        if entry is not None:
            if entry.until > monotonic():
                self._entries.move_to_end(key)
                self.node.snd(reply, True, entry.value)
                return
            self._drop(key)
        token = self._current.get(key)
        if token is None:
            token = self._current[key] = f"{self.port} {next(self._tokens)}"
            self._flights[token] = _Flight(key)
            self._begin(token, reply, lease)
        else:
            self._flights[token].waiting.append((reply, lease))

    def _begin(self, token: str, reply: str, lease: str) -> None:
        """Ask one client to compute; if its lease dies before the result is here, ask the next one."""
        flight = self._flights[token]
        flight.guard = ports_host_of(self.node).monitor(lease, lambda *_reason: self._failed(token), None)
        self.node.snd(reply, False, token)

    def _failed(self, token: str) -> None:
        flight = self._flights.get(token)
        if flight is None:
            return
        if flight.waiting:
            self._begin(token, *flight.waiting.pop(0))
        else:
            self._end(token)

    def _end(self, token: str) -> _Flight:
        flight = self._flights.pop(token)
        if self._current.get(flight.key) == token:
            del self._current[flight.key]
        if flight.guard is not None:
            flight.guard.cancel()
        return flight

    def _put(self, token: Any, value: Any, ttl: Any, tags: Any) -> None:
        flight = self._flights.get(token)
        if flight is None:
            return
        is_current = self._current.get(flight.key) == token
        until = monotonic() + check_number("ttl", ttl, 0, _LONGEST)
        checked = tuple(check_text("tag", tag) for tag in tags)
        self._end(token)
        for reply, _lease in flight.waiting:
            if is_port(ports_host_of(self.node), reply):
                self.node.snd(reply, True, value)
        if is_current:
            self._store(flight.key, _Value(value, until, checked))

    def _store(self, key: str, entry: _Value) -> None:
        self._drop(key)
        self._entries[key] = entry
        for tag in entry.tags:
            self._tagged.setdefault(tag, {})[key] = None
        if len(self._entries) > MAX_ENTRIES:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> bool:
        entry = self._entries.pop(key, None)
        for tag in () if entry is None else entry.tags:
            tagged = self._tagged.get(tag, {})
            tagged.pop(key, None)
            if not tagged:
                self._tagged.pop(tag, None)
        return entry is not None

    # --- invalidating ---

    def _invalidate(self, *keys: Any) -> int:
        for key in keys:
            self._current.pop(key, None)  # what is being computed may be outdated, too
        return sum(self._drop(key) for key in keys)

    def _invalidate_tags(self, *tags: Any) -> int:
        # The tags of what is being computed are not known yet.
        self._current.clear()
        return sum(self._drop(key) for tag in tags for key in list(self._tagged.get(tag, ())))

    def export(self) -> Any:
        """Return nothing: what was cached is computed again."""
        return None

    def merge(self, state: Any) -> None:
        """Drop everything: another node may have invalidated it."""
        self._current.clear()
        for key in list(self._entries):
            self._drop(key)


KINDS["cache"] = OwnedCache


class Cache(SharedState):
    """Values that all nodes share, each computed by one of them when it is missing.

    The values are on one node, so that what is invalidated is gone for all at once. When that node ends, they are
    computed again.
    """

    _kind = "cache"

    def get(self, key: str, compute: Callable[[], T], *, ttl: float, tags: Iterable[str] = ()) -> T:
        """Return a value; compute it if it is missing, while all others that need it wait. Switches.

        The value is message data, and comes as it would from another node: with lists for tuples. If ``compute``
        raises, this call raises, and the next one that waits computes it. If no node could be asked in time, the value
        is computed and not kept.

        Args:
            key: The value's key, up to 200 characters.
            compute: Returns the value.
            ttl: Seconds for which it is kept.
            tags: Words by which :meth:`invalidate` finds it.

        Raises:
            InvalidSharedError: The key, the time or a tag cannot be used.
            UnencodableMessageError, MessageTooLargeError: The value cannot travel, or has more than 1 MiB.
        """
        check_text("key", key)
        check_number("ttl", ttl, 0, _LONGEST)
        words = [check_text("tag", tag) for tag in tags]
        lease = self.node.port()
        try:
            try:
                is_there, found = self._ask("get", key, lease, patience=_PATIENCE)
            except StateUnavailableError as error:
                ownership_of(self.node).complaints.warn("%s computes a value without its cache: %s", self, error)
                return _copied(compute())
            if is_there:
                there: T = found
                return there
            value = _copied(compute())
            try:
                self._ask("put", found, value, ttl, words)
            except StateUnavailableError as error:
                ownership_of(self.node).complaints.warn("%s did not keep a value: %s", self, error)
            return value
        finally:
            self.node.kil(lease)

    def invalidate(self, *keys: str, tags: Iterable[str] = ()) -> int:
        """Drop values by their keys and tags; return how many there were. Switches.

        Calls of :meth:`get` that begin after this returned get nothing that was computed, or began to be computed,
        before.

        Raises:
            StateUnavailableError: No node could be asked in time.
        """
        words = [check_text("tag", tag) for tag in tags]
        dropped: int = self._ask("invalidate", *(check_text("key", key) for key in keys)) if keys else 0
        if words:
            dropped += self._ask("invalidate_tags", *words)
        return dropped

    def cached(
        self, ttl: float, tags: Iterable[str] | Callable[..., Iterable[str]] = ()
    ) -> Callable[[Callable[P, T]], CachedFunction[P, T]]:
        """Return a decorator for functions whose results are kept; see :func:`aemp_gevent.shared.cached`."""
        check_number("ttl", ttl, 0, _LONGEST)
        given = tags if callable(tags) else tuple(check_text("tag", tag) for tag in tags)

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

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the function's result for these arguments, from the cache or by a call."""
        tags = self._tags(*args, **kwargs) if callable(self._tags) else self._tags
        compute = functools.partial(self._function, *args, **kwargs)
        return self._cache.get(self._key(args, kwargs), compute, ttl=self._ttl, tags=tags)

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Drop the result for these arguments; return whether there was one. Switches."""
        return bool(self._cache.invalidate(self._key(args, kwargs)))

    def _key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        from aemp_gevent.wire.framing_msgpack import make_encoder  # noqa: PLC0415  # loads much

        data = make_encoder()([list(args), sorted(kwargs.items())])
        name = f"{self._function.__module__}.{self._function.__qualname__}"[-150:]
        return f"{name} {blake2b(data, digest_size=16).hexdigest()}"


def _copied(value: T) -> T:
    copied: T = copy_as_sent([value], Limits(MAX_VALUE_BYTES))[0]
    return copied


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
    result. The arguments and the result are message data; the result comes with lists for tuples.
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
