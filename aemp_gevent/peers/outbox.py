# SPDX-License-Identifier: MIT
"""The outbox of a peer: packets that wait for a link, encoded as msgpack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.framing_msgpack import make_resting_encoder
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.vocabulary import CALL, SPAWN


class Outbox:
    """Keeps packets in their order while there is no link."""

    __slots__ = ("_answers", "encode", "packets", "size")

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.size = 0
        """Bytes of all packets. Any thread may read this."""
        self.encode = make_resting_encoder()
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


def packets_in(data: bytes, *, with_calls: bool, with_traces: bool) -> Iterator[list[Any]]:
    """Yield the packets in what was kept, to be encoded in another framing, or for a peer that reads less.

    Args:
        data: Encoded packets, one behind the other.
        with_calls: Whether the peer takes calls, or else messages in place of them.
        with_traces: Whether it reads the traces of messages and spawned functions.
    """
    decoder = FRAMINGS["msgpack"].decoder(Limits(len(data) + 1, len(data) + 1))
    decoder.feed(data)
    packets = iter(decoder) if with_traces else map(without_trace, decoder)
    return packets if with_calls else map(as_message, packets)


def without_trace(packet: list[Any]) -> list[Any]:
    """Return a message, or a request to spawn, that carries a trace as it is without one; other packets as they are."""
    header = _header_of(packet)
    if header is not None and "reply" not in header:
        return packet[3:]
    if packet[:2] == ["", SPAWN] and len(packet) > 3 and isinstance(packet[3], dict):
        return [*packet[:3], *packet[3], *packet[4:]]
    return packet


def as_message(packet: list[Any]) -> list[Any]:
    """Return a call as the message that other programs understand; other packets as they are."""
    header = _header_of(packet)
    return packet if header is None or "reply" not in header else [*packet[3:], header["reply"]]


def _header_of(packet: list[Any]) -> dict[Any, Any] | None:
    """Return the header of a call, or of a message with a trace; None for other packets, whatever programs send."""
    is_call = packet[:2] == ["", CALL] and len(packet) > 3
    return packet[2] if is_call and isinstance(packet[2], dict) else None
