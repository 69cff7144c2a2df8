# SPDX-License-Identifier: MIT
"""The table of framings, which turn a stream of packets into a stream of bytes, and back.

After the handshake each direction is a stream of arrays, ``[portname, element,
...]``, in the framing its sender chose. A framing is a row of :data:`FRAMINGS`;
adding one is adding a row (only ``msgpack`` has shortcuts for packets that are encoded already, in the sending code
of peers)::

    encode = FRAMINGS["json"].encoder()
    decoder = FRAMINGS["json"].decoder(Limits(max_message_bytes))

    decoder.feed(data)
    try:
        for packet in decoder:
            check_packet(packet)
            ...
    except framing.errors as error:
        raise framing.translate(error) from error

The last two lines are for speed: msgpack's own iterator runs the loop, and
raises its own exceptions (:mod:`~.framing_msgpack` has the figures). Exceptions of the
loop's body must be caught inside of the loop, or they would look like the peer's
fault.

Not here: which framing is chosen (:mod:`~.handshake`), and what packets mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from aemp_gevent.errors import FramingError
from aemp_gevent.runtime.quoting import of_type
from aemp_gevent.wire.limits import Limits

from . import decoding, framing_json, framing_msgpack
from .decoding import Decoder

# [portname, *elements]. Any: the elements are whatever the framing carries.
Encoder = Callable[[list[Any] | tuple[Any, ...]], bytes]


@dataclass(frozen=True)
class Framing:
    """One way to write packets.

    Attributes:
        name: As in the greeting.
        encoder: Makes a function from a packet to bytes, for one link. It raises
            :class:`~aemp_gevent.errors.UnencodableMessageError`, and stays usable.
        decoder: Makes a decoder for one link with a node of this library, given the limits of messages.
        foreign_decoder: The same for a link with another program, whose strings may have no mark
            for text or binary, as Perl's have none: there everything is ``str``.
        errors: The exceptions of iterating a decoder when the peer's bytes are wrong.
        translate: Turns one of these into a
            :class:`~aemp_gevent.errors.FramingError`.
    """

    name: str
    encoder: Callable[[], Encoder]
    decoder: Callable[[Limits], Decoder]
    foreign_decoder: Callable[[Limits], Decoder]
    errors: tuple[type[Exception], ...]
    translate: Callable[[Exception], FramingError]


def _cbor() -> list[Framing]:
    """Return the row of CBOR, or no row if cbor2 is not installed."""
    try:
        from . import framing_cbor  # noqa: PLC0415  # an extra
    except ModuleNotFoundError as error:
        if error.name != "cbor2":
            raise
        return []
    return [
        Framing(
            name="cbor",
            encoder=framing_cbor.make_encoder,
            decoder=framing_cbor.CborDecoder,
            foreign_decoder=partial(framing_cbor.CborDecoder, bytes_are_text=True),
            errors=decoding.ERRORS,
            translate=decoding.translate,
        )
    ]


# Best first: the order in which a greeting offers them. A Perl node takes the first that it knows.
FRAMINGS: dict[str, Framing] = {
    framing.name: framing
    for framing in (
        Framing(
            name="msgpack",
            encoder=framing_msgpack.make_encoder,
            decoder=framing_msgpack.MsgpackDecoder,
            foreign_decoder=framing_msgpack.MsgpackDecoder,  # all programs with msgpack mark their strings
            errors=framing_msgpack.ERRORS,
            translate=framing_msgpack.translate,
        ),
        *_cbor(),
        Framing(
            name="json",
            encoder=framing_json.make_encoder,
            decoder=framing_json.JsonDecoder,
            foreign_decoder=framing_json.JsonDecoder,
            errors=decoding.ERRORS,
            translate=decoding.translate,
        ),
    )
}


def check_packet(packet: object) -> None:
    """Raise unless this is an array that is empty or begins with a port name.

    The decoders do not call it, because a loop that looks the name up in a dict
    needs only ``type(packet) is list`` in the usual case.

    Raises:
        FramingError: The peer sent something else.
    """
    if type(packet) is not list:
        raise FramingError(f"the peer sent a packet that is {of_type(packet)} instead of an array")
    if packet:
        name_of_port(packet[0])


def name_of_port(name: object) -> str:
    """Return the port name that a peer sent, as text.

    To Perl ``"7"`` and 7 are the same, and which of them it sends depends on how the value was used
    before. So a number stands for the text that Perl prints for it.

    Raises:
        FramingError: It sent something else.
    """
    if type(name) is str:
        return name
    if type(name) is int or (type(name) is float and math.isfinite(name)):
        return str(name) if type(name) is int else format(name, ".15g")
    raise FramingError(f"the peer sent something whose port name is {of_type(name)} instead of a text")
