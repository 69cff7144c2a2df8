# SPDX-License-Identifier: MIT
"""Large packets in fragments, between which others may be sent: what is small need not wait for what is large.

A node whose greeting says ``fragments=1`` reads packets that come in pieces, ``[nil, bytes]``. The bytes of one piece
after the other are the packet in msgpack. Only one packet at a time is sent so, but whole packets may stand between
its fragments.

**The order of each port's messages is kept.** Every packet has an *order*, usually the name of the port that it is
for (:func:`order_of`). While a packet waits in the :class:`Backlog`, others of the same order wait behind it. A name
that a program chose may be a second name of any port, so what is for such a name waits for everything, and all ports
wait for it. The news of a port's death waits for everything, because what the port had sent may be anywhere in there.

Nothing here knows connections. When the next fragment is sent is decided in :mod:`aemp_gevent.links.backlog_transport`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

import msgpack

from aemp_gevent.errors import FramingError
from aemp_gevent.runtime.quoting import of_type
from aemp_gevent.wire import framing_msgpack
from aemp_gevent.wire.framing import check_packet
from aemp_gevent.wire.framing_msgpack import MsgpackDecoder
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.long_binaries import EMPTY, LongBinary, PartedPacket, cut
from aemp_gevent.wire.vocabulary import BYE, CALL, IDLE, KIL0, KIL1, MON0, MON1, SPAWN, VIA

FRAGMENT_BYTES = 60 * 1024
"""The most bytes of a packet in one fragment. A loop's turn for each costs less than copying so much. With what is
around it, also TLS's, it fits into one TCP segment within a host. 64 KiB are two, the second one with 60 bytes."""

WHOLE_BYTES = 64 * 1024 + 4096
"""The largest packet that is sent whole: 64 KiB of data, and what is around them."""

_HEADER = b"\x92\xc0\xc6"
"""In msgpack: a list of two, nil, and bytes whose length takes the next four bytes."""

_HEADER_BYTES = len(_HEADER) + 4

_NOTHING: Any = object()
"""A value that no peer can send."""


class WideOrder(Enum):
    """The order of packets that wait for more, or for less, than what is for one port."""

    CHOSEN_NAME = "for a name that may be any port's: it waits for all, and what is for ports waits for it"
    BEHIND_ALL = "it waits for all, and nothing waits for it"
    AT_ONCE = "it waits for nothing"


Order: TypeAlias = "str | tuple[str, str] | WideOrder"
"""What packets have in common that must not overtake each other: a port's unique name, or the two ends of a route."""

_WIDE = ((WideOrder.BEHIND_ALL, (KIL0, BYE, IDLE)), (WideOrder.AT_ONCE, (SPAWN, MON1, MON0)))
"""The requests of each. Tuples, as users may send requests that cannot be hashed."""

_HEAD_ELEMENTS = 4
"""How many elements of a packet show its order."""


def order_of(head: Sequence[Any], is_unique: Callable[[str], bool]) -> Order:
    """Return the order of a packet.

    Args:
        head: Its beginning, or all of it.
        is_unique: Whether a name is one that only one port ever has, and that has no other name of this kind.
    """
    name = str(head[0]) if head else ""
    if not name and len(head) > 1:
        request = head[1]
        for order, requests in _WIDE:
            if request in requests:
                return order
        if request == VIA:
            ends = tuple(head[2:4])
            return ends if list(map(type, ends)) == [str, str] else ""
        about = head[3:4] if request == CALL else head[2:3] if request == KIL1 else ()
        name = about[0] if about and type(about[0]) is str else ""
    return name if not name or is_unique(name) else WideOrder.CHOSEN_NAME


def goes_whole(order: Order, size: int) -> bool:
    """Return whether a packet of this order and size is sent in one piece, if it need not wait.

    A spawn is, also if it is large: what is sent to other ports behind it may say that the new port is there. One that
    takes a route through other nodes is not, because everything else on that route waits for it.
    """
    return size <= WHOLE_BYTES or order is WideOrder.AT_ONCE


def head_of(data: bytes) -> list[Any]:
    """Return the beginning of a packet that is encoded as msgpack: as much as :func:`order_of` needs."""
    for size in (FRAGMENT_BYTES, len(data)):
        # Any: msgpack has no types. Its own limit is 100 MiB.
        unpacker: Any = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(data))
        unpacker.feed(data[:size])
        head: list[Any] = []
        try:
            for _ in range(min(unpacker.read_array_header(), _HEAD_ELEMENTS)):
                head.append(unpacker.unpack())
                if head[0]:
                    break  # a message, whose arguments are large
        except msgpack.OutOfData:
            continue
        return head
    raise AssertionError("a packet of ours is not complete")


class _BacklogEntry(NamedTuple):
    """A packet that waits."""

    order: Order
    data: bytes | PartedPacket


def _size_of(data: bytes | PartedPacket) -> int:
    """Return how many bytes are sent for a packet."""
    size = len(data)
    return size if size <= WHOLE_BYTES else size + _HEADER_BYTES * -(-size // FRAGMENT_BYTES)


class Backlog:
    """The packets that a link has accepted and sends bit by bit: large ones, and those that must not overtake these."""

    def __init__(self) -> None:
        self.size = 0
        """The bytes that will be sent for them."""
        self.packets: deque[_BacklogEntry] = deque()
        """Those that have not left, in their order."""
        self._sent = 0  # bytes of the first one that were taken
        self._by_order: defaultdict[Order, int] = defaultdict(int)  # how many wait; more, if this was struck

    def holds_up(self, order: Order) -> bool:
        """Return whether a packet of this order must wait."""
        if not self.packets or order is WideOrder.AT_ONCE:
            return False
        if isinstance(order, WideOrder):
            return True
        waiting = self._by_order.get
        is_for_port = isinstance(order, str) and order != ""
        return waiting(order, 0) > 0 or (is_for_port and waiting(WideOrder.CHOSEN_NAME, 0) > 0)

    def put(self, order: Order, data: bytes | PartedPacket) -> None:
        """Add a packet, encoded as msgpack, behind all others."""
        waiting, size = (_BacklogEntry(order, data),), _size_of(data)
        # No calls from here on, as a finalizer may put another one in between. Where this is struck, nothing is
        # counted too low.
        self.size += size
        self._by_order[order] += 1
        self.packets += waiting

    def take(self, write: Callable[[bytes], object]) -> bool:
        """Write the next bytes, at most a fragment; return whether these complete a packet.

        Until they are written, their packet holds up others: a finalizer may send one meanwhile.
        """
        order, data = self.packets[0]
        if len(data) <= WHOLE_BYTES:
            piece, taken = bytes(data), len(data)
        else:
            taken = min(self._sent + FRAGMENT_BYTES, len(data))
            size = (taken - self._sent).to_bytes(4, "big")
            piece = b"".join((_HEADER, size, *cut(data, self._sent, taken)))
        write(piece)
        if not self.packets:
            return True  # that finalizer lost the link
        self.size -= len(piece)
        if taken < len(data):
            self._sent = taken
            return False
        self._sent = 0
        self.packets.popleft()
        self._by_order[order] -= 1
        if not self._by_order[order]:
            del self._by_order[order]
        return True

    def clear(self) -> None:
        """Drop all packets."""
        self.packets.clear()
        self._by_order.clear()
        self._sent = self.size = 0


class Assembler:
    """Puts together the packets that a peer sends in fragments.

    Each fragment is decoded as it comes, as a packet is that is cut by the ends of reads: the same limits hold, and a
    packet that breaks one is refused at the byte that does.

    The decoder, whose buffers become as large as the packets, serves all of them: to touch new memory for each would
    take longer than everything else that is done with its bytes. See :meth:`rest`. It does not get long byte strings
    (:class:`~aemp_gevent.wire.long_binaries.LongBinary`).

    Args:
        limits: The limits of a whole packet.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._decoder: MsgpackDecoder | None = None
        self._fragments = 0
        self._is_within = False  # a packet, which is not complete
        self._long: LongBinary | None = None  # in it

    @property
    def unfinished(self) -> int:
        """A number that grows with each fragment of a packet that is not complete; 0 if there is no such packet."""
        return self._fragments if self._is_within else 0

    def rest(self) -> None:
        """Give the memory back in which packets are put together, unless one is not complete."""
        if self._decoder is not None:
            self._decoder.rest()

    def feed(self, fragment: list[Any]) -> list[Any] | None:
        """Take a fragment; return the packet that it completes.

        Args:
            fragment: What the peer sent, without the nil.

        Returns:
            A packet, which begins with a port's name; or None, as more must come.

        Raises:
            FramingError: That was not a fragment, or there is no such packet.
        """
        if len(fragment) != 1:
            raise FramingError(f"the peer sent a fragment with {len(fragment)} elements instead of one")
        if type(fragment[0]) is not bytes:
            raise FramingError(f"the peer sent a fragment that is {of_type(fragment[0])} instead of bytes")
        if not fragment[0]:
            raise FramingError("the peer sent an empty fragment")
        if self._decoder is None:
            self._decoder = MsgpackDecoder(self._limits)
        decoder = self._decoder
        try:
            decoder.feed(self._without_long(decoder, fragment[0]))
            # One by one: a fragment may be as long as the longest packet, and hold millions of others.
            packets = iter(decoder)
            packet = next(packets, _NOTHING)
            is_alone = next(packets, _NOTHING) is _NOTHING
        except framing_msgpack.ERRORS as error:
            raise framing_msgpack.translate(error) from error
        self._fragments += 1
        self._is_within = packet is _NOTHING
        if self._is_within:
            return None
        if not (is_alone and decoder.is_at_end):
            raise FramingError("the peer sent a fragment that does not end where its packet ends")
        if self._long is not None:
            packet[self._long.index] = self._long.value()
            self._long = None
        check_packet(packet)  # a fragment is not a packet
        if not packet:
            raise FramingError("the peer sent a heartbeat as a fragment")
        return packet  # type: ignore[no-any-return]  # that was just checked

    def _without_long(self, decoder: MsgpackDecoder, data: bytes) -> bytes:
        """Return the part of a fragment that is to be decoded, with an empty byte string instead of a long one."""
        long = self._long
        if self._is_within:
            if long is None or not long.missing:
                return data
            before, rest = b"", memoryview(data)
        else:
            long = self._long = LongBinary.find(data)
            decoder.leave_out(0 if long is None else long.left_out)
            if long is None:
                return data
            before, rest = data[: long.begin], long.behind_header(data)
        rest = long.take(rest)
        return before if long.missing else b"".join((before, EMPTY, rest))
