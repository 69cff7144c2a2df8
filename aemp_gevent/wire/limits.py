# SPDX-License-Identifier: MIT
"""How large a message may be: its bytes, and the elements that they become; and how long a name.

Bytes alone are no bound for memory. An empty list is one byte of msgpack and 56 of memory, with
8 more where it stands; a map of one pair three bytes, and 230: what 64 MiB become may be 5 GiB. So the
*elements* are counted as well: every value in a message, lists, maps and their keys
included.

Most messages need no count, as no message has more elements than bytes. Those that are longer than
the bound are counted by their sender, who hears of it, and by their receiver, who trusts nobody:
while they come, in what is cut by the end of a read.

**Names** are what a node keeps of others: of ports, nodes, functions, families and keys, thousands of each. So their
number is bounded, and their length is, too: by :func:`is_long`, where a name enters
(:mod:`aemp_gevent.node.requests`, and ``split_port`` for the IDs of ports in messages).

How it counts what comes is :mod:`aemp_gevent.wire.counting`'s. Nesting needs no bound of
ours: the decoders refuse what is deeper than some hundred levels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from aemp_gevent.errors import MessageTooLargeError

MAX_ELEMENTS = 1_000_000
"""Some 80 MB at worst, and 8 MB of floats."""

RESOLVE_SECONDS = 15.0
"""What all look-ups for one noderef may take together."""

UNCOUNTED_BYTES = 256 * 1024
"""A read: what comes in one is decoded at once, and not counted."""


MAX_NUMBER_KEYS = 4096
"""Keys of one map that are numbers. Python hashes a number to itself, so that a peer can choose thousands that share a
place in the table, and the time that a map of them takes is quadratic. Texts and bytes are hashed with a random key."""

MAX_ANNOUNCED_BYTES = 256 * 2**20
"""For what all peers together have announced, and not yet sent: a list's header sets aside 8 bytes for each element."""

_JUDGED_SECONDS = 1.0
"""For how long a message is waited for before its speed is more than a guess."""

MAX_NAME_BYTES = 1024
"""Of a name, as UTF-8. The longest in use are the IDs of slaves of nodes with many addresses, some 300 bytes."""


def is_long(name: str, limit: int) -> bool:
    """Return whether a name has more than this many bytes; quickly, however long it is."""
    size = len(name)
    if 4 * size <= limit:  # the usual case: a character has at most four bytes
        return False
    return size > limit or not (name.isascii() or len(name.encode("utf-8", "surrogatepass")) <= limit)


class Waiting(Protocol):
    """A decoder that waits for what a peer has announced."""

    def give_up(self, why: str) -> None:
        """Drop the unfinished message, and refuse whatever comes next. Must not raise."""


class _Announcement(NamedTuple):
    size: int
    received: int
    since: float

    def bytes_per_second(self, now: float) -> float:
        """Return how fast the message comes; one that has just begun is taken for slow."""
        return self.received / max(now - self.since, _JUDGED_SECONDS)


class Announced:
    """What the decoders of one node have announced, and not yet got.

    When that is too much, the message goes that comes most slowly, and among equals the one that has waited longest.
    Not the newest: peers that announce much and send little could keep all others from sending large lists. So
    whoever wants to stay has to send as fast as the others do.

    Args:
        limit: Bytes of all together.
        clock: Returns the time in seconds. Without one all are taken for equally slow.
    """

    def __init__(self, limit: int = MAX_ANNOUNCED_BYTES, clock: Callable[[], float] = float) -> None:
        self.limit = limit
        self._clock = clock
        # Few: those amid a message with large lists. Those that began first come first.
        self._by: WeakKeyDictionary[Waiting, _Announcement] = WeakKeyDictionary()

    @property
    def total(self) -> int:
        """The bytes of all together."""
        return sum(announcement.size for announcement in self._by.values())

    def allows(self, decoder: Waiting, size: int, received: int = 0) -> bool:
        """Note what one of them waits for; return whether it may, which it may if that is nothing.

        Others may have to give up for it.

        Args:
            decoder: Who waits.
            size: For how many bytes of memory.
            received: How many bytes of the message have come.
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
    """What a message may have, with everything around it."""

    bytes: int
    elements: int = MAX_ELEMENTS
    announced: Announced | None = None
    """Where a node's decoders note what they wait for; None: each is alone."""

    @property
    def unchecked_bytes(self) -> int:
        """How long a message may be that needs no check at all."""
        return min(self.bytes, self.counted_bytes)

    @property
    def counted_bytes(self) -> int:
        """How long one is at least whose elements are counted, less one."""
        return max(self.elements, UNCOUNTED_BYTES)

    def check(self, packet: list[Any], size: int) -> None:
        """Look at a packet that is to be sent, and has ``size`` bytes.

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
        """Return the limits of what is sent inside of something else."""
        return Limits(self.bytes - size, self.elements - elements)


def count_elements(packet: list[Any] | tuple[Any, ...]) -> int:
    """Return how many elements there are in a packet, itself included."""
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
