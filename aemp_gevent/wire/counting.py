# SPDX-License-Identifier: MIT
"""Counts the elements of incoming messages, before many of them have become objects.

Why and which elements are counted is explained in :mod:`aemp_gevent.wire.limits`. In CBOR,
:mod:`~.cbor_scanner` counts them, as it reads each element anyway.
"""

from __future__ import annotations

import re

from aemp_gevent.errors import FramingError
from aemp_gevent.wire.limits import MAX_NUMBER_KEYS


def too_many(limit: int) -> FramingError:
    """Return the error for a peer that sent more elements."""
    return FramingError(f"the peer sent a message of more than {limit} elements")


def too_many_numbers() -> FramingError:
    """Return the error for a peer that sent a map with more keys that are numbers."""
    return FramingError(f"the peer sent a map with more than {MAX_NUMBER_KEYS} keys that are numbers")


# --- in msgpack -----------------------------------------------------------------------

# Elements that are counted by their first byte alone: lists and maps are elements, too.
_ONE_BYTE = re.compile(rb"[\x00-\xa0\xc0\xc2\xc3\xe0-\xff]+")

# Those among them that announce elements: the number in the last four bits, or twice that.
_NO_LIST = bytes(set(range(256)) - set(range(0x90, 0xA0)))
_NO_MAP = bytes(set(range(256)) - set(range(0x80, 0x90)))

ANNOUNCING = {0xDC: 1, 0xDD: 1, 0xDE: 2, 0xDF: 2}
"""Headers of lists and maps, and how many elements each unit of their length announces."""

# The others: the number of bytes with the length of the rest, and the bytes added to that length.
_REST: dict[int, tuple[int, int]] = {
    **{0xA0 + length: (0, length) for length in range(1, 32)},  # str
    **{first: (size, 0) for first, size in ((0xC4, 1), (0xC5, 2), (0xC6, 4), (0xD9, 1), (0xDA, 2), (0xDB, 4))},
    **{first: (size, 1) for first, size in ((0xC7, 1), (0xC8, 2), (0xC9, 4))},  # ext
    **{first: (0, size) for first, size in ((0xCA, 4), (0xCB, 8))},  # float
    **{0xCC + power: (0, 1 << power) for power in range(4)},  # unsigned
    **{0xD0 + power: (0, 1 << power) for power in range(4)},  # signed
    **{0xD4 + power: (0, 1 + (1 << power)) for power in range(5)},  # ext
    **{first: (0, size) for first, size in ((0xDC, 2), (0xDD, 4), (0xDE, 2), (0xDF, 4))},  # array and map
}


class MsgpackCounter:
    """Counts the elements of one message in msgpack, as it comes.

    The decoder checks that it is msgpack.

    Args:
        limit: The most elements that it may have.

    Attributes:
        limit: The same; it may be changed.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._count = 0
        self._announced = 1  # elements, by the headers that came; the message itself is one
        self._skip = 0  # bytes of an element that began before
        self._header = b""  # the beginning of one whose length is not complete yet

    @property
    def missing(self) -> int:
        """The number of elements that were announced and have not begun."""
        return max(self._announced - self._count, 0)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Count the elements in the next bytes.

        Raises:
            FramingError: There are too many.
        """
        if self._skip >= len(data):
            self._skip -= len(data)
            return
        text = self._header + bytes(data[self._skip :])
        position, size = 0, len(text)
        while position < size:
            run = _ONE_BYTE.match(text, position)
            if run is not None:
                self._count += run.end() - position
                position = run.end()
                self._announced += sum(byte & 15 for byte in run[0].translate(None, _NO_LIST))
                self._announced += 2 * sum(byte & 15 for byte in run[0].translate(None, _NO_MAP))
            else:
                end = self._end_of(text, position)
                if end < 0:
                    break
                self._count += 1
                per_unit = ANNOUNCING.get(text[position], 0)
                if per_unit:
                    self._announced += per_unit * int.from_bytes(text[position + 1 : end], "big")
                position = end
            if self._count > self.limit:
                raise too_many(self.limit)
        self._header, self._skip = text[position:], max(0, position - size)
        if self._announced > self.limit:  # it would not be complete with fewer
            raise too_many(self.limit)

    @staticmethod
    def _end_of(text: bytes, position: int) -> int:
        """Return where an element ends, lists and maps behind their headers; -1 if its length is not complete."""
        length_bytes, rest = _REST.get(text[position], (0, 0))
        begin = position + 1 + length_bytes
        if begin > len(text):
            return -1
        return begin + rest + int.from_bytes(text[position + 1 : begin], "big")


# --- in JSON ---------------------------------------------------------------------------

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def count_json(text: bytes | bytearray, limit: int) -> None:
    """Count the elements of a complete JSON text whose brackets balance.

    Raises:
        FramingError: There are more than ``limit``.
    """
    # First an upper bound that includes strings, which is enough for most texts.
    if sum(map(text.count, b"[{,:")) < limit:
        return
    bare = _STRING.sub(b"0", bytes(text)).translate(None, b" \t\r\n")
    # A list of n elements has n - 1 commas, a map of n pairs as many and n colons; unless they are empty.
    count = 1 + sum(map(bare.count, b"[{,:")) - bare.count(b"[]") - bare.count(b"{}")
    if count > limit:
        raise too_many(limit)
