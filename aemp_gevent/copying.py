# SPDX-License-Identifier: MIT
"""Messages as another node would get them: checked, and copied, without leaving this process."""

from __future__ import annotations

from typing import Any

from aemp_gevent.limits import Limits
from aemp_gevent.wire.framing import FRAMINGS


def copy_as_sent(packet: list[Any], limits: Limits) -> list[Any]:
    """Return a packet as it arrives at another node: tuples are lists, an enum's member is its value.

    Args:
        packet: A port name or ``""``, and the elements of a message.
        limits: How large it may be.

    Raises:
        UnencodableMessageError: An element cannot travel.
        MessageTooLargeError: The packet exceeds the limits.
    """
    msgpack = FRAMINGS["msgpack"]
    data = msgpack.encoder()(packet)
    limits.check(packet, len(data))
    decoder = msgpack.decoder(limits)
    decoder.feed(data)
    copied: list[Any] = next(iter(decoder))
    return copied
