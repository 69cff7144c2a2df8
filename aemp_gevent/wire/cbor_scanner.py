# SPDX-License-Identifier: MIT
"""Finds where an item of CBOR ends that is cut by the ends of reads, without decoding it.

cbor2 cannot stop in the middle of an item: :mod:`~.framing_cbor` explains when it needs this scanner, which also
counts elements, and limits nesting, before objects are made.
"""

from __future__ import annotations

import re

from aemp_gevent.errors import FramingError
from aemp_gevent.wire.limits import MAX_NUMBER_KEYS, UNCOUNTED_BYTES, Limits

from .counting import too_many, too_many_numbers

# CBOR::XS neither sends nor takes more. Tags count as a level, there and here.
MAX_NESTING_RECEIVED = 512

# Major types, the first three bits of an item.
_BYTES, _TEXT, _ARRAY, _MAP, _TAG = 2, 3, 4, 5, 6

_INDEFINITE = 31  # as the length: items follow until a break
_BREAK = 0xFF

_UNTIL_BREAK = -1  # instead of how many items are still to come

_NUMBERS = (0, 1, 7)  # major types; the last has few other values

# The header of a map with more keys than may be numbers. These bytes may also be in a text. With fewer bytes
# behind them the map is not complete.
_LARGE_MAP = re.compile(rb"\xb9[\x10-\xff]|[\xba\xbb\xbf]", re.DOTALL)
_MIN_LARGE_MAP = 2 * MAX_NUMBER_KEYS


def find_large_map(data: bytes, begin: int) -> int:
    """Return where the next complete map may begin that has too many keys to be numbers; else where data ends."""
    found = _LARGE_MAP.search(data, begin, max(len(data) - _MIN_LARGE_MAP, begin))
    return len(data) if found is None else found.start()


class CborScanner:
    """Finds the end of one item that is cut by the ends of reads.

    It checks only what it must: cbor2 checks later whether chunks are strings, and whether a map has a
    value for each key.

    Args:
        text: Its first bytes, which are not copied: a read may hold as many items as bytes.
        limits: The limits of a message.
    """

    def __init__(self, text: memoryview, limits: Limits) -> None:
        self.text: memoryview | bytearray = text
        self._limit = limits.bytes
        self._elements = limits.elements
        self._count = 0
        self._position = 0  # of the next header; beyond the text while a string is incomplete
        self._open: list[int] = []  # how many items are still to come, the innermost last
        self._numbers: list[int] = []  # for each of them, how many keys are numbers; -1: it is not a map
        self._is_whole = False

    def keep(self, more: bytes = b"") -> None:
        """Keep the bytes of the item beyond this read, and add the next ones."""
        if not isinstance(self.text, bytearray):
            self.text = bytearray(self.text)
        self.text += more

    def find_end(self) -> int:
        """Return where the item ends in ``text``, which may have grown; 0 if it is incomplete.

        Raises:
            FramingError: It is malformed, or too long.
        """
        size = len(self.text)
        while not self._is_whole and self._position < size and self._skip_header(size):
            if self._count > self._elements and self._position > UNCOUNTED_BYTES:
                raise too_many(self._elements)
        is_complete = self._is_whole and self._position <= size
        # One more, because an incomplete item needs at least one more byte.
        if max(self._position, size + 1 if not is_complete else 0) > self._limit:
            raise FramingError(f"the peer sent a message of more than {self._limit} bytes")
        return self._position if is_complete else 0

    def _skip_header(self, size: int) -> bool:
        """Move behind one header, and behind the string that it announces; return False if the header is cut."""
        text, position = self.text, self._position
        header = text[position]
        major, length = header >> 5, header & 31
        position += 1
        if 24 <= length <= 27:
            end = position + (1 << (length - 24))
            if end > size:
                return False
            length, position = int.from_bytes(text[position:end], "big"), end
        elif length == _INDEFINITE and _BYTES <= major <= _MAP:
            length = _UNTIL_BREAK
        elif length > 27 and header != _BREAK:
            raise FramingError(f"the peer sent bytes that are not CBOR: the header {header:#04x} does not exist")
        self._position = position
        if major in _NUMBERS and self._open and self._numbers[-1] >= 0 and header != _BREAK:
            self._look_at_number()
        self._count += major != _TAG and header != _BREAK
        if header == _BREAK:
            if not self._open or self._open.pop() != _UNTIL_BREAK:
                raise FramingError("the peer sent bytes that are not CBOR: a break outside of a list, map or string")
            self._numbers.pop()
        elif length == _UNTIL_BREAK:
            self._enter(length, is_map=major == _MAP)
            return True
        elif major in (_BYTES, _TEXT):
            self._position += length
        elif major in (_ARRAY, _MAP, _TAG):
            count = 1 if major == _TAG else 2 * length if major == _MAP else length
            if position + count > self._limit:  # an item takes at least one byte
                raise FramingError(f"the peer sent a message of more than {self._limit} bytes")
            if count:
                self._enter(count, is_map=major == _MAP)
                return True
        self._leave()
        return True

    def _look_at_number(self) -> None:
        """Count a number in a map if it is, or may be, a key."""
        left = self._open[-1]
        if left % 2 and left != _UNTIL_BREAK:
            return
        self._numbers[-1] += 1
        # In a map of indefinite length it is unknown which values are keys; no program is known to send one.
        if self._numbers[-1] > (2 * MAX_NUMBER_KEYS if left == _UNTIL_BREAK else MAX_NUMBER_KEYS):
            raise too_many_numbers()

    def _enter(self, count: int, *, is_map: bool) -> None:
        if len(self._open) == MAX_NESTING_RECEIVED:
            raise FramingError(f"the peer sent a message nested more than {MAX_NESTING_RECEIVED} levels deep")
        self._open.append(count)
        self._numbers.append(0 if is_map else -1)

    def _leave(self) -> None:
        """Note that an item is complete, and with it the containers of which it is the last item."""
        while self._open:
            left = self._open[-1]
            if left != 1:
                if left != _UNTIL_BREAK:
                    self._open[-1] = left - 1
                return
            self._open.pop()
            self._numbers.pop()
        self._is_whole = True
