# SPDX-License-Identifier: MIT
"""The targets. Each is given bytes, and raises if the library does wrong by them.

What "wrong" is stands in each: above all, any exception but those that are documented.
The first byte says what the others are for.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aemp_gevent.errors import FramingError, GreetingError, RemoteProtocolError, UnencodableMessageError
from aemp_gevent.wire.fragments import Assembler
from aemp_gevent.wire.framing import FRAMINGS, check_packet
from aemp_gevent.wire.greeting import MAX_LINE_BYTES, Greeting, parse_greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import TRANSITIONS, PeerGreeted, State, TlsDue
from aemp_gevent.wire.limits import Limits
from fuzz.node_requests import Victim

Target = Callable[[bytes], None]

CORPUS = Path(__file__).parent / "corpus"

SECRET = b"what no peer in here knows"


class Wrong(Exception):  # a verdict
    """The library did wrong by these bytes."""


def hold(what: object, why: str) -> None:
    """Raise if it does not hold; an assert would be gone with ``-O``."""
    if not what:
        raise Wrong(why)


# --- the greeting, and the line behind it ----------------------------------------------

_OURS = Greeting("ours", ("tls_sha3_512", "hmac_sha3_512"), tuple(FRAMINGS), (("provider", "aemp_gevent-0"),))
_OFFERING = Greeting("ours", ("tls_sha3_512", "hmac_sha3_512"), tuple(FRAMINGS), (("tls", "1.0"),))
_THEIRS = b"aemp;1;theirs;tls_sha3_512,hmac_sha3_512;msgpack,json;tls=1.0\nnonce\n"


def greeting(data: bytes) -> None:
    """What a stranger says. It may be refused; it never proves anything, and little of it is kept.

    The first byte: 1: we offer TLS, 2: and require it, 4: a good greeting came before, 8: our proof is sent as
    soon as may be, 16: it comes byte by byte, 32: TLS, if it is due, comes up at once.
    """
    flags, data = data[:1], data[1:]
    bits = flags[0] if flags else 0
    handshake = Handshake(_OFFERING if bits & 1 else _OURS, "our nonce", SECRET, require_tls=bits & 3 == 3)
    handshake.start()
    stream = (_THEIRS if bits & 4 else b"") + data
    try:
        for begin in range(0, len(stream), step := 1 if bits & 16 else MAX_LINE_BYTES):
            events = handshake.receive(stream[begin : begin + step])
            for event in events:
                if isinstance(event, TlsDue):
                    hold(bits & 1, "TLS is due that we do not offer")
                    rest = handshake.take_rest()
                    if not bits & 32:
                        return
                    events += [*handshake.secured(None), *handshake.receive(rest)]
                elif isinstance(event, PeerGreeted) and bits & 8:
                    handshake.prove()
            hold(len(handshake._buffer) < 2 * MAX_LINE_BYTES, "more is kept than one line and what came last")
            hold(handshake.state in TRANSITIONS and not handshake.leftover, "no such state")
            hold(handshake.state not in (State.OPEN, State.VERIFIED) or bits & 33 == 33, "who knows no secret is in")
            if handshake.state in (State.OPEN, State.VERIFIED):
                return  # inside TLS the proof is a hash of the handshake, which every peer that gets here knows
    except RemoteProtocolError as error:
        hold(handshake.state is State.FAILED and str(error), "refused, and not failed")
        hold(len(str(error)) < 1000, "the log is as long as the stranger likes")
        hold(SECRET.decode() not in str(error), "the secret is in the log")
    _parse(stream.partition(b"\n")[0])


def _parse(line: bytes) -> None:
    """Whatever is read as a greeting is the same greeting when it is written and read again."""
    try:
        read = parse_greeting(line)
    except GreetingError:
        return
    hold(read.node.isprintable() and "#" not in read.node, "no node ID")
    _ = read.heartbeat, read.offers_tls, read.is_ours, read.is_of_another
    try:
        again = parse_greeting(read.encode())
    except GreetingError as error:
        raise Wrong(f"it cannot be read again: {error}") from error
    # Empty words and keys are left out when it is written, or read.
    hold(again.node == read.node and again.auth_methods == read.auth_methods, f"{again} for {read}")
    hold(again.framings == read.framings and again.offers_tls == read.offers_tls, f"{again} for {read}")


# --- framings ------------------------------------------------------------------------------

_LIMITS = (Limits(64 * 2**20), Limits(300, 20))


def _decode(name: str, data: bytes, step: int, limits: Limits, *, foreign: bool) -> tuple[list[Any], str]:
    """Return the packets that come of bytes, and what was wrong with the rest."""
    framing = FRAMINGS[name]
    decoder = (framing.foreign_decoder if foreign else framing.decoder)(limits)
    packets: list[Any] = []
    try:
        for begin in range(0, len(data), step):
            decoder.feed(memoryview(data)[begin : begin + step])
            packets += decoder
    except framing.errors as error:
        translated = framing.translate(error)
        hold(isinstance(translated, FramingError) and str(translated), "not translated")
        return packets, str(translated)
    return packets, ""


def _framing(name: str, data: bytes) -> None:
    """What comes is the same however it is cut, and what was read can be written, and read as the same.

    The first byte: 1: the limits are low, 2: it is another program's. The rest of it: how long the pieces are.
    """
    flags, data = data[:1], data[1:]
    bits = flags[0] if flags else 0
    limits, foreign = _LIMITS[bits & 1], bool(bits & 2)
    whole, why = _decode(name, data, max(len(data), 1), limits, foreign=foreign)
    pieces, also = _decode(name, data, 1 + (bits >> 2), limits, foreign=foreign)
    # In pieces more may come before the fault: then the whole read was refused. And only what is cut is counted.
    if not why and not also:
        hold(_flat(whole) == _flat(pieces), "cut it is something else")
    elif not bits & 1:
        hold(why and also, f"cut: {also or 'good'}; whole: {why or 'good'}")
        hold(_flat(whole) == _flat(pieces[: len(whole)]), "a packet before the fault is another when it is cut")
    encode = FRAMINGS[name].encoder()
    for packet in pieces:
        try:
            check_packet(packet)
            text = encode(packet)
        except (FramingError, UnencodableMessageError):
            continue
        again, why = _decode(name, text, len(text), _LIMITS[0], foreign=False)
        hold(not why, f"what we write cannot be read: {why}")
        hold(_flat(again) == _flat([packet]), "what we write is read as something else")


def _flat(packets: list[Any]) -> bytes:
    """Return packets so that they can be compared: equal, and of the same types, however deep they are.

    Raises:
        ValueError: There is something in them that no message may hold.
    """
    # No array: whatever it is, the link refuses it. 0: without what depends on how a value came about.
    return marshal.dumps([packet if type(packet) is list else type(packet).__name__ for packet in packets], 0)


def json(data: bytes) -> None:
    """Packets in JSON."""
    _framing("json", data)


def msgpack(data: bytes) -> None:
    """Packets in msgpack."""
    _framing("msgpack", data)


def cbor(data: bytes) -> None:
    """Packets in CBOR."""
    if "cbor" in FRAMINGS:
        _framing("cbor", data)


# --- requests -----------------------------------------------------------------------------

_victims: list[Victim] = []


def requests(data: bytes) -> None:
    """What an authenticated peer asks the node port. The first byte says who asks, and in which framing."""
    if not _victims:
        _victims.append(Victim())
    try:
        _victims[0].hear(data)
    except BaseException:
        end()  # the next one starts afresh
        raise


def end() -> None:
    """Shut down the node that requests are made of, if there is one."""
    while _victims:
        _victims.pop().shut_down()


# --- fragments ----------------------------------------------------------------------------


def fragments(data: bytes) -> None:
    """Packets in fragments. What they are put together to is what they are as a whole.

    The first byte: 1: the limits are low. The rest of it: how long the fragments are.
    """
    flags, data = data[:1], data[1:]
    bits = flags[0] if flags else 0
    limits, step = _LIMITS[bits & 1], 1 + (bits >> 1)
    assembler = Assembler(limits)
    begin = end = 0
    while end < len(data):
        piece = data[end : end + step]
        end += len(piece)
        try:
            packet = assembler.feed([piece])
        except FramingError as error:
            hold(str(error) and len(str(error)) < 1000, "the log is as long as the peer likes")
            return
        hold(bool(assembler.unfinished) == (packet is None), "it is not known whether a packet is complete")
        if packet is not None:
            whole, why = _decode("msgpack", data[begin:end], max(end - begin, 1), _LIMITS[0], foreign=False)
            hold(not why and _flat(whole) == _flat([packet]), f"in fragments it is something else: {why}")
            early, _why = _decode("msgpack", data[begin : end - 1], max(end - begin, 1), _LIMITS[0], foreign=False)
            hold(not early, "the last fragment is longer than its packet")
            begin = end
        hold(end - begin <= limits.bytes, "more is kept of a packet than it may have")


TARGETS: dict[str, Target] = {
    "greeting": greeting,
    "json": json,
    "msgpack": msgpack,
    "cbor": cbor,
    "fragments": fragments,
    "requests": requests,
}


def corpus(name: str) -> list[bytes]:
    """Return what to begin with."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
