# SPDX-License-Identifier: MIT
"""Limits of messages, in bytes and elements, and of the length of names.

A limit in bytes does not limit memory. An empty list takes one byte of msgpack and 56 of memory, with
8 more in its container; a map of one pair three bytes, and 230: 64 MiB may become 5 GiB. So the
*elements* are counted as well: every value in a message, including lists, maps and their keys.

Most messages need not be counted, as a message never has more elements than bytes. Longer ones are counted by
their sender, where an error helps, and by their receiver, which trusts no peer: while they arrive,
if the end of a read cuts them.

**Names** of ports, nodes, functions, families and keys are what a node remembers of others, thousands of each. So
their number is limited, and so is their length: by :func:`is_long`, where a name enters
(:mod:`aemp_gevent.node.requests`, and ``split_port`` for the IDs of ports in messages).

Incoming messages are counted in :mod:`aemp_gevent.wire.counting`. The decoders limit the
nesting themselves, to some hundred levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from aemp_gevent.errors import MessageTooLargeError

MAX_ELEMENTS = 1_000_000
"""About 80 MB at worst, and 8 MB for floats."""

UNCOUNTED_BYTES = 256 * 1024
"""The size of a read: a message within one read is decoded at once, and not counted."""


MAX_NUMBER_KEYS = 4096
"""Keys of one map that may be numbers. Python hashes a number to itself, so a peer can choose thousands with the same
place in the table, and building that map takes quadratic time. Texts and bytes are hashed with a random key."""

MAX_ANNOUNCED_BYTES = 256 * 2**20
"""For elements that all peers together announced and have not sent: a list's header allocates 8 bytes for each."""

_JUDGED_SECONDS = 1.0
"""Seconds that a message must have taken before its speed is meaningful."""

MAX_NAME_BYTES = 1024
"""The longest name, as UTF-8. IDs of slaves of nodes with many addresses have about 300 bytes."""


def is_long(name: str, limit: int) -> bool:
    """Return whether a name has more than this many bytes; fast, however long it is."""
    size = len(name)
    if 4 * size <= limit:  # the usual case: a character has at most four bytes
        return False
    return size > limit or not (name.isascii() or len(name.encode("utf-8", "surrogatepass")) <= limit)


class Waiting(Protocol):
    """A decoder that waits for elements that a peer has announced."""

    def give_up(self, why: str) -> None:
        """Drop the unfinished message, and refuse whatever comes next. Must not raise."""


class _Announcement(NamedTuple):
    size: int
    received: int
    since: float

    def bytes_per_second(self, now: float) -> float:
        """Return the speed of the message; one that has just begun counts as slow."""
        return self.received / max(now - self.since, _JUDGED_SECONDS)


class Announced:
    """The elements that the decoders of one node wait for.

    When they are too many, the slowest message is dropped, and among equals the one that has waited longest.
    Not the newest: peers that announce much and send little could keep all others from sending large lists. So
    a peer must send as fast as the others do.

    Args:
        limit: Bytes of all together.
        clock: Returns the time in seconds. Without one all count as equally slow.
    """

    def __init__(self, limit: int = MAX_ANNOUNCED_BYTES, clock: Callable[[], float] = float) -> None:
        self.limit = limit
        self._clock = clock
        # Few: only decoders in the middle of a message with large lists. Those that began first come first.
        self._by: WeakKeyDictionary[Waiting, _Announcement] = WeakKeyDictionary()

    @property
    def total(self) -> int:
        """The bytes of all together."""
        return sum(announcement.size for announcement in self._by.values())

    def allows(self, decoder: Waiting, size: int, received: int = 0) -> bool:
        """Note how much a decoder waits for; return whether it is allowed to.

        Nothing is always allowed. Other decoders may have to give up for it.

        Args:
            decoder: The decoder.
            size: The bytes of memory for what it waits for.
            received: The bytes of the message that have come.
        """
        if not size:
            self._by.pop(decoder, None)
            return True
        now = self._clock()
        former = self._by.get(decoder)
        self._by[decoder] = _Announcement(size, received, now if former is None else former.since)
        if self.total <= self.limit:
            return True
        if size > self.limit:
            del self._by[decoder]
            return False
        return self._make_room(decoder, now)

    def _make_room(self, newest: Waiting, now: float) -> bool:
        for decoder, _ in sorted(self._by.items(), key=lambda item: item[1].bytes_per_second(now)):
            missing = self._by.pop(decoder).size // 8
            if decoder is newest:
                return False
            decoder.give_up(
                f"the peer announced {missing} more elements, which came too slowly: with those that others announced "
                f"they take more than {self.limit} bytes"
            )
            if self.total <= self.limit:
                return True
        return True  # not reached: the newest alone is within the limit


class Limits(NamedTuple):
    """The limits of a message, with everything around it."""

    bytes: int
    elements: int = MAX_ELEMENTS
    announced: Announced | None = None
    """The record of what a node's decoders wait for; None: each decoder has its own."""

    @property
    def unchecked_bytes(self) -> int:
        """The longest message, in bytes, that needs no check at all."""
        return min(self.bytes, self.counted_bytes)

    @property
    def counted_bytes(self) -> int:
        """The longest message, in bytes, whose elements are not counted."""
        return max(self.elements, UNCOUNTED_BYTES)

    def check(self, packet: list[Any], size: int) -> None:
        """Check a packet of ``size`` bytes that is to be sent.

        Raises:
            MessageTooLargeError: It is too large.
        """
        if size > self.bytes:
            raise MessageTooLargeError(size, self.bytes)
        if size > self.counted_bytes:
            elements = count_elements(packet)
            if elements > self.elements:
                raise MessageTooLargeError(elements, self.elements, "elements")

    def less(self, size: int, elements: int) -> Limits:
        """Return the limits of a packet that is sent inside another one."""
        return Limits(self.bytes - size, self.elements - elements)


def count_elements(packet: list[Any] | tuple[Any, ...]) -> int:
    """Return the number of elements in a packet, including itself."""
    count = 1
    todo: list[Any] = [packet]
    while todo:
        container = todo.pop()
        count += len(container)
        if isinstance(container, dict):
            count += len(container)
            container = container.values()
        todo += [element for element in container if isinstance(element, (list, tuple, dict))]
    return count
