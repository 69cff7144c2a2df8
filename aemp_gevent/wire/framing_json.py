# SPDX-License-Identifier: MIT
"""Encodes and decodes packets as JSON, the framing that every AnyEvent::MP node understands.

Texts follow each other with only white space between them, so their ends
must be found before json can parse them. The scanner only counts brackets and
recognises strings, and reads each byte once, however the stream
is cut: a large text in small pieces costs no more than a whole one.
Trying to parse from the start at each piece, the obvious alternative, is quadratic.

json parses exactly the texts that the scanner finds: each begins with ``[`` and ends
where the brackets balance.

Not here: what is in a packet. Read :mod:`~.framing` first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from aemp_gevent.errors import FramingError, UnencodableMessageError
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.limits import Limits

from .counting import count_json
from .decoding import Decoder
from .values import Rules, lone_surrogate

# JSON::XS neither sends nor takes more, so no Perl node loses its link by this.
MAX_NESTING_RECEIVED = 512

# Outside of strings only these matter, ...
_STRUCTURAL = re.compile(rb'[][{}"]')
# ... inside of them only what ends them. Stops at the quote, at a backslash whose
# partner is still to come, or at the end of the data. Nothing here can match in
# two ways, so there is no backtracking.
_STRING_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
_WHITE_SPACE = re.compile(rb"[ \t\r\n]*")

_QUOTE, _BACKSLASH = b'"\\'
_OPENING, _CLOSING = b"[{", b"]}"


def _objection(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}, which JSON cannot carry"
    return lone_surrogate(value)


_RULES = Rules(
    framing="JSON",
    scalars=frozenset({type(None), bool, int, float, str}),
    # json would silently turn 1, None and True into text.
    keys=frozenset({str}),
    objection=_objection,
)

# check_circular: Rules has limited the nesting before.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))


def make_encoder() -> Callable[[list[Any] | tuple[Any, ...]], bytes]:
    """Return a function that turns one packet into bytes.

    It raises :class:`~aemp_gevent.errors.UnencodableMessageError`. It has no state.
    """
    return _encode


def _encode(packet: list[Any] | tuple[Any, ...]) -> bytes:
    if not _RULES.has_only_plain(packet):
        _RULES.refuse(packet)
    try:
        return _ENCODER.encode(packet).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        _RULES.refuse(packet, error)
        # An int of more digits than Python converts, or a stack too deep already.
        raise UnencodableMessageError("as a whole it", f"was refused by json: {error}") from error


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# Floats need a hook because float('1e999') is infinite, which no encoder of ours
# would send on.
_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)


class JsonDecoder(Decoder):
    """Decodes a stream of bytes into packets.

    After each :meth:`feed` iterate to the end; packets that a loop does not reach
    are lost. Iterating raises nothing but
    :class:`~aemp_gevent.errors.FramingError`; after that the decoder is useless.

    The limit is exact, however the stream is cut. White space between texts is
    not counted.

    Memory: at most ``max_message_bytes`` and one read in bytes, besides the objects
    decoded from them.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._limit = limits.bytes
        self._data = b""
        # The unfinished text: its bytes from earlier reads, and the scanner's state.
        self._text = bytearray()
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes, which are copied."""
        self._data += data

    def __iter__(self) -> Iterator[list[Any]]:
        # Any: the elements are whatever the peer sent.
        data, self._data = self._data, b""
        position = 0
        while True:
            if not self._depth:
                position = self._find_begin(data, position)
            if position == len(data):
                return
            position = self._keep(data, position, self._find_end(data, position))
            if not self._depth:
                yield self._take()

    def _find_begin(self, data: bytes, position: int) -> int:
        """Skip white space; raise unless an array follows."""
        match = _WHITE_SPACE.match(data, position)
        assert match is not None  # it matches the empty string too
        begin = match.end()
        if data[begin : begin + 1] not in (b"", b"["):
            raise FramingError(
                f"the peer sent something other than a JSON array: it begins with {quoted(data[begin : begin + 16])}"
            )
        return begin

    def _find_end(self, data: bytes, position: int) -> int:
        """Scan to the end of the text, or of the data, and return where that is."""
        end = len(data)
        while position < end:
            if self._in_string:
                position = self._skip_string(data, position)
                continue
            match = _STRUCTURAL.search(data, position)
            if match is None:
                return end
            position = match.end()
            character = data[position - 1]
            if character == _QUOTE:
                self._in_string = True
            elif character in _OPENING:
                self._depth += 1
                if self._depth > MAX_NESTING_RECEIVED:
                    raise FramingError(f"the peer sent a message nested more than {MAX_NESTING_RECEIVED} levels deep")
            else:
                self._depth -= 1
                if not self._depth:
                    return position
        return end

    def _skip_string(self, data: bytes, position: int) -> int:
        """Continue in a string, to its end or to the end of the data."""
        match = _STRING_REST.match(data, position + self._escaped)
        assert match is not None  # it matches the empty string too
        stop = match.end()
        self._escaped = False
        if stop == len(data):
            return stop
        if data[stop] == _QUOTE:
            self._in_string = False
        else:
            # A backslash, the last byte there is: what it escapes is in the next read.
            self._escaped = True
        return stop + 1

    def _keep(self, data: bytes, begin: int, end: int) -> int:
        """Add the scanned bytes to the text, and return their end."""
        # One more, because an unfinished text needs at least one more byte.
        if len(self._text) + end - begin + (self._depth > 0) > self._limit:
            raise FramingError(f"the peer sent a message of more than {self._limit} bytes")
        self._text += data[begin:end]
        return end

    def _take(self) -> list[Any]:
        raw, self._text = self._text, bytearray()
        if len(raw) > self._limits.counted_bytes:
            count_json(raw, self._limits.elements)
        try:
            text = raw.decode("utf-8")
            packet: list[Any] = _DECODER.decode(text)
            # An escape can produce half of a surrogate pair. Such a text can be neither
            # printed nor sent on, and is as wrong as bytes that are not UTF-8.
            if "\\u" in text:
                _ENCODER.encode(packet).encode("utf-8")
        except (ValueError, RecursionError) as error:
            raise FramingError(f"the peer sent a message that is not JSON: {error}") from error
        return packet
