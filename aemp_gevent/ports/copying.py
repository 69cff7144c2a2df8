# SPDX-License-Identifier: MIT
"""Messages as another node would get them: checked, and copied, without leaving this process."""

from __future__ import annotations

from typing import Any

from aemp_gevent.wire.limits import Limits


def copy_as_sent(packet: list[Any], limits: Limits) -> list[Any]:
    """Return a packet as it arrives at another node: tuples are lists, an enum's member is its value.

    Args:
        packet: A port name, and the elements of a message; or ``""``, and those of a request.
        limits: How large it may be.

    Raises:
        UnencodableMessageError: An element cannot travel.
        MessageTooLargeError: The packet exceeds the limits.
    """
    # Only strict nodes, groups and entries of the directory need it.
    from aemp_gevent.wire.framing_msgpack import MsgpackDecoder, make_encoder  # noqa: PLC0415

    data = make_encoder()(packet)
    limits.check(packet, len(data))
    decoder = MsgpackDecoder(limits)
    decoder.feed(data)
    copied: list[Any] = next(iter(decoder))
    return copied
