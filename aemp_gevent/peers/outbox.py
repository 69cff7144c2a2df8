# SPDX-License-Identifier: MIT
"""The outbox of a peer: packets that wait for a link, encoded as msgpack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.vocabulary import CALL


class Outbox:
    """Keeps packets in their order while there is no link."""

    __slots__ = ("_answers", "encode", "packets", "size")

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.size = 0
        """Bytes of all packets. Any thread may read this."""
        self.encode = FRAMINGS["msgpack"].encoder()
        self._answers = 0  # how many packets at the head only answer the peer

    def put(self, packet: list[Any], limits: Limits) -> int:
        """Encode a packet and keep it; return its size in bytes.

        Raises:
            UnencodableMessageError, MessageTooLargeError: Nothing was kept.
        """
        data = self.encode(packet)
        limits.check(packet, len(data))
        self.put_encoded(data)
        return len(data)

    def put_encoded(self, data: bytes) -> None:
        """Keep a packet that is msgpack already."""
        self.packets.append(data)
        self.size += len(data)

    def take(self) -> list[bytes]:
        """Empty the outbox, and return what was in it."""
        packets, self.packets = self.packets, []
        self.clear()
        return packets

    def clear(self) -> None:
        """Drop all packets."""
        self.packets.clear()
        self.size = 0
        self._answers = 0

    # --- answers, which are not worth a new link ---

    @property
    def has_only_answers(self) -> bool:
        """Whether nothing but answers is kept, if anything."""
        return len(self.packets) == self._answers

    def mark_answers(self) -> None:
        """Mark all packets as answers."""
        self._answers = len(self.packets)

    def drop_answers(self) -> None:
        """Drop the packets that were marked."""
        self.size -= sum(map(len, self.packets[: self._answers]))
        del self.packets[: self._answers]
        self._answers = 0


def packets_in(data: bytes, *, with_calls: bool) -> Iterator[list[Any]]:
    """Yield the packets in what was kept, to be encoded in another framing.

    Args:
        data: Encoded packets, one behind the other.
        with_calls: Whether the peer takes calls, or else messages in place of them.
    """
    decoder = FRAMINGS["msgpack"].decoder(Limits(len(data) + 1, len(data) + 1))
    decoder.feed(data)
    return iter(decoder) if with_calls else map(as_message, decoder)


def as_message(packet: list[Any]) -> list[Any]:
    """Return a call as the message that other programs understand; other packets as they are."""
    if packet[:2] == ["", CALL]:
        _name, _request, header, name, *message = packet
        return [name, *message, header["reply"]]
    return packet
