# SPDX-License-Identifier: MIT
"""Counting the elements of messages that come, before they are objects, or few of them are.

Why they are counted, and which: :mod:`aemp_gevent.limits`. In CBOR the scanner of
:mod:`~.framing_cbor` counts, which looks at each element anyhow.
"""

from __future__ import annotations

import re

from aemp_gevent.errors import FramingError


def too_many(limit: int) -> FramingError:
    """Return the error of a peer that sent more elements."""
    return FramingError(f"the peer sent a message of more than {limit} elements")


# --- in msgpack -----------------------------------------------------------------------

# What is complete in its first byte, as far as counting goes: lists and maps are elements, too.
_ONE_BYTE = re.compile(rb"[\x00-\xa0\xc0\xc2\xc3\xe0-\xff]+")

# The others: how many bytes say how long the rest is, and how long it is besides.
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

    That it is msgpack is the decoder's to tell.

    Args:
        limit: How many it may have.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._skip = 0  # bytes of an element that began before
        self._header = b""  # the beginning of one that does not say yet how long it is

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Look at what came next.

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
            else:
                end = self._end_of(text, position)
                if end < 0:
                    break
                self._count += 1
                position = end
            if self._count > self._limit:
                raise too_many(self._limit)
        self._header, self._skip = text[position:], max(0, position - size)

    @staticmethod
    def _end_of(text: bytes, position: int) -> int:
        """Return where an element ends, lists and maps behind their headers; -1 if it does not say yet."""
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
    # First what may be in strings as well: most texts are through with that.
    if sum(map(text.count, b"[{,:")) < limit:
        return
    bare = _STRING.sub(b"0", bytes(text)).translate(None, b" \t\r\n")
    # A list of n elements has n - 1 commas, a map of n pairs as many and n colons; unless they are empty.
    count = 1 + sum(map(bare.count, b"[{,:")) - bare.count(b"[]") - bare.count(b"{}")
    if count > limit:
        raise too_many(limit)
