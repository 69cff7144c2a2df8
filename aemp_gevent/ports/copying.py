# SPDX-License-Identifier: MIT
"""Copies messages as the network would: checked, encoded and decoded, within this process."""

from __future__ import annotations

from typing import Any

from aemp_gevent.wire.limits import Limits


def copy_of_data(value: Any) -> Any:
    """Return a copy of what came with a message, which has only lists and dicts that can be changed."""
    if isinstance(value, list):
        return [copy_of_data(element) for element in value]
    if isinstance(value, dict):
        return {key: copy_of_data(element) for key, element in value.items()}
    return value


def copy_as_sent(packet: list[Any], limits: Limits) -> list[Any]:
    """Return a packet as another node would get it: tuples as lists, members of enums as their values.

    Args:
        packet: A port name, and the elements of a message; or ``""``, and those of a request.
        limits: How large it may be.

    Raises:
        UnencodableMessageError: An element cannot travel.
        MessageTooLargeError: The packet exceeds the limits.
    """
    # Imported here because only strict nodes, groups and entries of the directory need it.
    from aemp_gevent.wire.framing_msgpack import MsgpackDecoder, make_encoder  # noqa: PLC0415

    data = make_encoder()(packet)
    limits.check(packet, len(data))
    decoder = MsgpackDecoder(limits)
    decoder.feed(data)
    copied: list[Any] = next(iter(decoder))
    return copied
