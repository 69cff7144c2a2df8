# SPDX-License-Identifier: MIT
"""Framings: how a stream of packets becomes a stream of bytes, and back.

After the handshake each direction is a stream of arrays, ``[portname, element,
...]``, in the framing its sender chose. A framing is a row of :data:`FRAMINGS`;
adding one is adding a row::

    encode = FRAMINGS["json"].encoder()
    decoder = FRAMINGS["json"].decoder(Limits(max_message_bytes))

    decoder.feed(data)
    try:
        for packet in decoder:
            check_packet(packet)
            ...
    except framing.errors as error:
        raise framing.translate(error) from error

The last two lines are there for speed: msgpack's own iterator runs the loop, and
its own exceptions come out of it (:mod:`~.framing_msgpack` has the figures). What
the loop's body may raise has to be caught inside of the loop, or it would be taken for
the peer's fault.

Not here: which framing is spoken (:mod:`~.handshake`), and what packets mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from aemp_gevent.errors import FramingError
from aemp_gevent.runtime.quoting import of_type
from aemp_gevent.wire.limits import Limits

from . import decoding, framing_json, framing_msgpack

# [portname, *elements]. Any: the elements are whatever the framing carries.
Encoder = Callable[[list[Any] | tuple[Any, ...]], bytes]


class Decoder(Protocol):
    """Turns a stream of bytes, cut anywhere, into packets."""

    def feed(self, data: bytes | memoryview) -> None:
        """Take what came next; iterate to the end before reusing its buffer."""

    def __iter__(self) -> Iterator[Any]:
        """Give every packet that is complete, in order.

        Raises the ``errors`` of its framing.
        """
        ...

    def quickly(self) -> Iterator[Any]:
        """Give the same in the quickest way, which may raise an error that :meth:`retry` has an answer to."""
        ...

    def retry(self, error: Exception) -> Iterator[Any]:
        """Go on after an error out of :meth:`quickly`, in another way; raise it if it is the peer's fault."""
        ...


@dataclass(frozen=True)
class Framing:
    """One way to write packets.

    Attributes:
        name: As in the greeting.
        encoder: Makes a function from a packet to bytes, for one link. It raises
            :class:`~aemp_gevent.errors.UnencodableMessageError`, and stays usable.
        decoder: Makes a decoder for one link with a node of ours, given how large messages may be.
        foreign_decoder: The same for a link with another program, whose strings may have no mark
            for text or binary, as Perl's have none: there everything is ``str``.
        errors: What iterating a decoder raises when the peer's bytes are wrong.
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
    """Return the row of CBOR, or none if cbor2 is not installed."""
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
            foreign_decoder=framing_msgpack.MsgpackDecoder,  # whoever speaks it marks its strings
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

    Not done by the decoders, because a loop that looks the name up in a dict
    needs only ``type(packet) is list`` in the good case.

    Raises:
        FramingError: The peer sent something else.
    """
    if type(packet) is not list:
        raise FramingError(f"the peer sent a packet that is {of_type(packet)} instead of an array")
    if packet:
        name_of_port(packet[0])


def name_of_port(name: object) -> str:
    """Return the port name that a peer sent, as text.

    To Perl ``"7"`` and 7 are the same, and which of them goes out depends on what was done with it
    before. So a number stands for what Perl makes of it when it prints it.

    Raises:
        FramingError: It sent something else.
    """
    if type(name) is str:
        return name
    if type(name) is int or (type(name) is float and math.isfinite(name)):
        return str(name) if type(name) is int else format(name, ".15g")
    raise FramingError(f"the peer sent something whose port name is {of_type(name)} instead of a text")
