# SPDX-License-Identifier: MIT
"""A long byte string within a packet is copied as rarely as possible, and never as a whole.

To copy a megabyte takes as long as a round trip, and nothing else can be done meanwhile. So a packet that is sent in
fragments is encoded *around* its byte string (:class:`PartedPacket`), of which each fragment gets its share; and where
it arrives, the string is put together beside the decoder (:class:`LongBinary`), which sees an empty one in its place.

All of this is for msgpack, and for byte strings that are elements of the packet itself, not of a list in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import msgpack

_BINARY = 0xC6
"""In msgpack: bytes whose length takes the next four bytes."""

_HEADER_BYTES = 5

_MOST_ROOM = 4 * 2**20
"""How much memory is taken at once, in bytes, and at most twice as much in the last step: the system clears it, and
nothing else is done meanwhile."""

EMPTY = b"\xc4\x00"
"""In msgpack: no bytes."""

_LOOKED_AT_BYTES = 512
"""Where a long byte string must begin to be put together by itself: behind a name, a tag and the header of a call."""


class PartedPacket:
    """An encoded packet that is not in one piece.

    Args:
        head: What comes before the byte string.
        binary: The byte string.
        tail: What comes behind it.
    """

    __slots__ = ("_size", "parts")

    def __init__(self, head: bytes, binary: bytes, tail: bytes) -> None:
        self.parts = (head, binary, tail)
        self._size = len(head) + len(binary) + len(tail)

    @classmethod
    def encode(
        cls,
        packet: list[Any] | tuple[Any, ...],
        binary: bytes,
        pack: Callable[[object], bytes],
        pack_header: Callable[[int], bytes],
    ) -> PartedPacket:
        """Encode a packet.

        Args:
            packet: The packet.
            binary: An element of it, exactly of type bytes.
            pack: Encodes a list.
            pack_header: Encodes the header of a list with so many elements.
        """
        index = next(index for index, element in enumerate(packet) if element is binary)

        def inner(elements: Any) -> bytes:
            return pack(elements)[len(pack_header(len(elements))) :]

        size = len(binary).to_bytes(_HEADER_BYTES - 1, "big")
        head = b"".join((pack_header(len(packet)), inner(packet[:index]), bytes((_BINARY,)), size))
        return cls(head, binary, inner(packet[index + 1 :]))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b"".join(self.parts)


def cut(data: bytes | PartedPacket, begin: int, end: int) -> Iterator[memoryview]:
    """Yield the pieces of an encoded packet from one place to another."""
    for part in data.parts if isinstance(data, PartedPacket) else (data,):
        if end <= 0:
            return
        if begin < len(part):
            yield memoryview(part)[max(begin, 0) : end]
        begin -= len(part)
        end -= len(part)


class LongBinary:
    """A byte string that arrives bit by bit, and where it belongs.

    Args:
        index: Which element of its packet it is.
        begin: Where its header begins in the packet, in bytes.
        size: Its length.
    """

    def __init__(self, index: int, begin: int, size: int) -> None:
        self.index = index
        self.begin = begin
        self.left_out = _HEADER_BYTES + size - len(EMPTY)
        """How many bytes the packet is shorter with :data:`EMPTY` in its place."""
        self.missing = size
        """How many bytes have not come."""
        self._size = size
        # Its memory becomes that of the byte string, without a copy.
        self._file = BytesIO()
        self._room = 0

    @classmethod
    def find(cls, data: bytes) -> LongBinary | None:
        """Return the first byte string with a long header at the beginning of an encoded packet.

        Args:
            data: The beginning of the packet. What is wrong with it is found by whatever decodes it.
        """
        head = data[:_LOOKED_AT_BYTES]
        unpacker: Any = msgpack.Unpacker(read_size=_LOOKED_AT_BYTES)  # Any: msgpack has no types
        unpacker.feed(head)
        try:
            for index in range(unpacker.read_array_header()):
                begin = unpacker.tell()
                if head[begin] == _BINARY:
                    size = head[begin + 1 : begin + _HEADER_BYTES]
                    return cls(index, begin, int.from_bytes(size, "big")) if len(size) == _HEADER_BYTES - 1 else None
                unpacker.skip()
        except (IndexError, ValueError, RecursionError, msgpack.UnpackException):
            pass
        return None

    def behind_header(self, data: bytes) -> memoryview:
        """Return what follows its header in the data in which it was found."""
        return memoryview(data)[self.begin + _HEADER_BYTES :]

    def take(self, data: bytes | memoryview) -> memoryview:
        """Take the next bytes; return those that do not belong to it."""
        data = memoryview(data)
        part = data[: self.missing]
        needed = self._size - self.missing + len(part)
        if needed > self._room:
            # Not all of it at once, as much may be announced that never comes. The last step is a large one, because
            # for a small one Python takes more than is needed, and the system then provides new memory each time.
            is_last = self._size <= min(4 * needed, needed + 2 * _MOST_ROOM)
            self._room = self._size if is_last else min(2 * needed, needed + _MOST_ROOM)
            self._file.seek(self._room - 1)
            self._file.write(b"\0")
            self._file.seek(self._size - self.missing)
        self._file.write(part)
        self.missing -= len(part)
        return data[len(part) :]

    def value(self) -> bytes:
        """Return the byte string, once nothing is missing."""
        return self._file.getvalue()
