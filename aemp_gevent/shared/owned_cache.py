# SPDX-License-Identifier: MIT
"""A cache on its owner: which caller computes what is missing, and what is dropped.

:mod:`aemp_gevent.shared.caches` is what programs use.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, NamedTuple

from aemp_gevent.calls.serve import fail, is_port
from aemp_gevent.errors import InvalidSharedError, MessageTooLargeError, StateMovedError
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.runtime.batches import size_of
from aemp_gevent.shared.owned import Owned, check_number, check_text
from aemp_gevent.shared.ownership import KINDS

MAX_ENTRIES = 10_000
"""Values of one cache; beyond that the one that was used longest ago is dropped."""

MAX_BYTES = 64 * 2**20
"""The same for what the values of one cache have together, encoded, with their keys and tags."""

MOST_BYTES = 16 * 2**30
"""The largest number that a program may choose instead."""

MAX_VALUE_BYTES = 2**20
"""The largest value, encoded."""

MAX_ASKERS = 10_000
"""Callers that compute a value or wait for one; beyond that each computes for itself, and nothing is kept."""
LONGEST = 365.0 * 86400
"""Seconds for which a value may be kept."""


class _Value(NamedTuple):
    data: bytes
    """The value, encoded: so nobody can change it, and it is encoded once."""
    until: float
    tags: tuple[str, ...]
    size: int
    """Its bytes, with its key and tags."""


class _Asker(NamedTuple):
    """A caller that has to compute the value, or waits for it."""

    reply: str
    lease: str
    """A port that dies when the call is over."""
    tags: tuple[str, ...]


class _Flight:
    """One computation, and all that wait for its result."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.tags: tuple[str, ...] = ()
        self.guard: Monitor | None = None
        self.waiting: deque[_Asker] = deque()


class OwnedCache(Owned):
    """A cache on its owner."""

    def __init__(self, node: Node) -> None:
        self._entries: OrderedDict[str, _Value] = OrderedDict()
        self._size = 0
        self._tagged: dict[str, dict[str, None]] = {}
        self._flights: dict[str, _Flight] = {}
        self._current: dict[str, str] = {}
        """The computation for each key that was not invalidated since it began."""
        self._askers = 0
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
            _call, key, lease, *tags = words[:-1]
            asker = _Asker(reply, lease, tuple(check_text("tag", tag) for tag in tags))
            check_text("key", key)
            if not is_port(host, lease):
                raise InvalidSharedError("lease", lease, "it must be a port")
        except (StateMovedError, InvalidSharedError, ValueError) as error:
            fail(host, reply, error)
            return
        entry = self._entries.get(key)
        if entry is not None:
            if entry.until > monotonic():
                self._entries.move_to_end(key)
                self._send_value(reply, entry.data)
                return
            self._drop(key)
        token = self._current.get(key)
        if self._askers >= MAX_ASKERS:
            self.node.snd(reply, False, "")  # it computes the value for itself
        elif token is None:
            token = self._current[key] = f"{self.port} {next(self._tokens)}"
            self._flights[token] = _Flight(key)
            self._askers += 1
            self._begin(token, asker)
        else:
            self._flights[token].waiting.append(asker)
            self._askers += 1

    def _begin(self, token: str, asker: _Asker) -> None:
        """Ask one client to compute; if its lease dies before the result is here, ask the next one."""
        flight = self._flights[token]
        flight.tags = asker.tags
        flight.guard = ports_host_of(self.node).monitor(asker.lease, lambda *_reason: self._failed(token), None)
        self.node.snd(asker.reply, False, token)

    def _failed(self, token: str) -> None:
        flight = self._flights.get(token)
        if flight is None:
            return
        if flight.waiting:
            self._askers -= 1
            self._begin(token, flight.waiting.popleft())
        else:
            self._end(token)

    def _end(self, token: str) -> _Flight:
        flight = self._flights.pop(token)
        self._askers -= 1 + len(flight.waiting)
        if self._current.get(flight.key) == token:
            del self._current[flight.key]
        if flight.guard is not None:
            flight.guard.cancel()
        return flight

    def _put(self, token: Any, data: Any, ttl: Any, max_bytes: Any = MAX_BYTES) -> None:
        flight = self._flights.get(token)
        if flight is None:
            return
        if not isinstance(data, bytes) or len(data) > MAX_VALUE_BYTES:
            raise InvalidSharedError("value", data, f"it must be bytes, at most {MAX_VALUE_BYTES}")
        is_current = self._current.get(flight.key) == token
        until = monotonic() + check_number("ttl", ttl, 0, LONGEST)
        check_number("max_bytes", max_bytes, 0, MOST_BYTES)
        self._end(token)
        for asker in flight.waiting:
            self._send_value(asker.reply, data)
        if is_current:
            size = len(data) + sum(map(size_of, (flight.key, *flight.tags)))
            self._store(flight.key, _Value(data, until, flight.tags, size), max_bytes)

    def _send_value(self, reply: str, data: bytes) -> None:
        try:
            self.node.snd(reply, True, data)
        except MessageTooLargeError:  # with the setting max_message_bytes, the value reaches callers on this node only
            self.node.snd(reply, False, "")

    def _store(self, key: str, entry: _Value, max_bytes: int) -> None:
        self._drop(key)
        if entry.size > max_bytes:
            return  # all others would be dropped in vain
        self._entries[key] = entry
        self._size += entry.size
        for tag in entry.tags:
            self._tagged.setdefault(tag, {})[key] = None
        while len(self._entries) > MAX_ENTRIES or self._size > max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> bool:
        entry = self._entries.pop(key, None)
        self._size -= 0 if entry is None else entry.size
        for tag in () if entry is None else entry.tags:
            tagged = self._tagged.get(tag, {})
            tagged.pop(key, None)
            if not tagged:
                self._tagged.pop(tag, None)
        return entry is not None

    # --- invalidating ---

    def _invalidate(self, *keys: Any) -> int:
        for key in keys:
            # What is being computed may be outdated, too.
            self._current.pop(check_text("key", key), None)
        return sum(self._drop(key) for key in keys)

    def _invalidate_tags(self, *tags: Any) -> int:
        dropped = {check_text("tag", tag) for tag in tags}
        for key, token in list(self._current.items()):
            if not dropped.isdisjoint(self._flights[token].tags):
                del self._current[key]
        return sum(self._drop(key) for tag in dropped for key in list(self._tagged.get(tag, ())))

    def parts(self) -> Iterator[Any]:
        """Return one part without anything: its receiver drops what it has, and all is computed again."""
        yield None

    def merge(self, state: Any) -> None:
        """Drop everything: another node may have invalidated it."""
        self._current.clear()
        for key in list(self._entries):
            self._drop(key)


KINDS["cache"] = OwnedCache
