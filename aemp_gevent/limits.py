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
(:mod:`aemp_gevent.requests`, and ``split_port`` for the IDs of ports in messages).

How it counts what comes is :mod:`aemp_gevent.wire.counting`'s. Nesting needs no bound of
ours: the decoders refuse what is deeper than some hundred levels.
"""

from __future__ import annotations

from typing import Any, NamedTuple
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

MAX_NAME_BYTES = 1024
"""Of a name, as UTF-8. The longest in use are the IDs of slaves of nodes with many addresses, some 300 bytes."""


def is_long(name: str, limit: int) -> bool:
    """Return whether a name has more than this many bytes; quickly, however long it is."""
    size = len(name)
    if 4 * size <= limit:  # the usual case: a character has at most four bytes
        return False
    return size > limit or not (name.isascii() or len(name.encode("utf-8", "surrogatepass")) <= limit)


class Announced:
    """What the decoders of one node have announced, and not yet got.

    Args:
        limit: Bytes of all together.
    """

    def __init__(self, limit: int = MAX_ANNOUNCED_BYTES) -> None:
        self.limit = limit
        self._by: WeakKeyDictionary[object, int] = WeakKeyDictionary()  # few: those amid a message with large lists

    @property
    def total(self) -> int:
        """The bytes of all together."""
        return sum(self._by.values())

    def allows(self, decoder: object, size: int) -> bool:
        """Note what one of them waits for, in bytes; return whether that is within the limit, which 0 always is."""
        if not size:
            self._by.pop(decoder, None)
            return True
        self._by[decoder] = size
        return self.total <= self.limit


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
