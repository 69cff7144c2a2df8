# SPDX-License-Identifier: MIT
"""Encodes and decodes packets as CBOR, the framing that Perl prefers. Needs cbor2 (the extra ``cbor``).

cbor2 decodes one item from a file, and cannot stop in the middle of one. Trying
again from the start after each read would be quadratic. So complete items,
which are nearly all, go to cbor2 at once; only an item that
is cut by the end of a read goes to a scanner (:mod:`~.cbor_scanner`), which walks headers,
keeps its place from read to read, and finds where the item ends. Each byte is
read at most three times, however the stream is cut.

**Strings of other programs.** A Perl string is a sequence of code points, without a mark for
text or binary, and CBOR::XS sends most of them, port names and map keys among them, as byte
strings of their Latin-1 characters. From such a peer byte strings arrive as text,
decoded as Latin-1; ``.encode("latin-1")`` gives binary data back.

Tags are dropped: the marked values arrive as they are. cbor2 would turn some into dates,
fractions, sets, or one list in two places, which could not be sent on.

Not here: what is in a packet. Read :mod:`~.framing` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from typing import Any

import cbor2

from aemp_gevent.errors import FramingError, UnencodableMessageError
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.limits import Limits

from .cbor_scanner import MAX_NESTING_RECEIVED, CborScanner, find_large_map
from .decoding import Decoder
from .values import Rules, lone_surrogate

# What cbor2 raises for wrong bytes, or for an item that continues in the next read.
_REFUSALS = (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError, RecursionError, MemoryError)

# The bytes that cbor2 reads at a time; those behind the item are read again. Measured for
# packets of 80 bytes: 385 ns a packet with 256, 450 with 64, 850 with the default of 4096.
_READ_SIZE = 256

# CBOR itself goes down to -2**64. But Perl does not have such numbers, and CBOR::XS silently changes them:
# -2**63 - 1 arrives as 2**63 - 1. So CBOR has the same limits as msgpack.
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1


def _objection(value: object) -> str | None:
    if isinstance(value, int) and not _MIN_INT <= value <= _MAX_INT:
        return "is an int of more than 64 bits, which CBOR cannot carry to every program"
    return lone_surrogate(value)


_KEYS = frozenset({type(None), bool, int, float, str, bytes})
# As in msgpack, so that messages can use either of them.
_RULES = Rules(framing="CBOR", scalars=_KEYS | {bytearray, memoryview}, keys=_KEYS, objection=_objection)


def _encode_int(encoder: cbor2.CBOREncoder, value: int) -> None:
    if not _MIN_INT <= value <= _MAX_INT:
        raise ValueError("a large int")  # Rules.refuse() makes the error text
    encoder.encode_int(value)


def _encode_memoryview(encoder: cbor2.CBOREncoder, value: memoryview) -> None:
    # cbor2 would encode it as a sequence of numbers.
    encoder.encode_bytes(bytes(value))


_ENCODERS: dict[type, Any] = {int: _encode_int, memoryview: _encode_memoryview}


def make_encoder() -> Callable[[list[Any] | tuple[Any, ...]], bytes]:
    """Return a function that turns one packet into bytes.

    It raises :class:`~aemp_gevent.errors.UnencodableMessageError`, and is as good
    as new afterwards. bytearray and memoryview arrive as bytes, tuples as lists,
    instances of subclasses (an IntEnum, a namedtuple) as what they are derived from.
    """
    encode_to_bytes = cbor2.CBOREncoder(BytesIO(), encoders=_ENCODERS).encode_to_bytes
    scalars, has_only_plain = _RULES.scalars, _RULES.has_only_plain

    def encode(packet: list[Any] | tuple[Any, ...]) -> bytes:
        for element in packet:
            if type(element) not in scalars:
                if not has_only_plain(packet):
                    _RULES.refuse(packet)
                break
        try:
            return encode_to_bytes(packet)
        except (cbor2.CBOREncodeError, ValueError, TypeError, OverflowError, RecursionError) as error:
            _RULES.refuse(packet, error)
            raise UnencodableMessageError("as a whole it", f"was refused by cbor2: {error}") from error

    return encode


# --- reading ------------------------------------------------------------------------


class _NoTags(Mapping[int, Callable[[Any, bool], Any]]):
    """The functions that cbor2 calls for each tag, including its own ones."""

    def __getitem__(self, tag: int) -> Callable[[Any, bool], Any]:
        return lambda value, _immutable: value

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


_NO_TAGS = _NoTags()


class CborDecoder(Decoder):
    """Decodes a stream of bytes into packets.

    After each :meth:`feed` iterate to the end; packets that a loop does not reach
    are lost. Iterating raises nothing but
    :class:`~aemp_gevent.errors.FramingError`; after that the decoder is useless.

    The limit is exact, however the stream is cut.

    Memory: at most twice ``max_message_bytes`` and one read in bytes, besides the objects
    decoded from them.

    Args:
        limits: The largest message that is accepted.
        bytes_are_text: Whether byte strings are Latin-1 text, as from Perl.
    """

    def __init__(self, limits: Limits, *, bytes_are_text: bool = False) -> None:
        self._limits = limits
        self._limit = limits.bytes
        self._bytes_are_text = bytes_are_text
        self._plain = _KEYS - {bytes} if bytes_are_text else _KEYS
        self._data = b""
        self._cut: CborScanner | None = None  # the item that continues in the next read

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes, which are copied."""
        self._data += data

    def __iter__(self) -> Iterator[Any]:
        # Any: a packet is whatever the peer sent; see check_packet.
        data, self._data = self._data, b""
        if self._cut is not None:
            self._cut.keep(data)
            end = self._cut.find_end()
            if not end:
                return
            text, self._cut = bytes(self._cut.text), None
            yield self._decode_one(text[:end])
            data = text[end:]
        file, begin = BytesIO(data), 0
        view = memoryview(data)
        decode = self._new_decode(file)
        large = find_large_map(data, begin)
        while begin < len(data):
            if large < begin:
                large = find_large_map(data, begin)
            if large < len(data):  # check it before it is decoded
                scanner = CborScanner(view[begin:], self._limits)
                if not scanner.find_end():
                    self._cut = scanner
                    scanner.keep()
                    return
            try:
                packet = decode()
            except _REFUSALS as error:
                # cbor2 may see a fault before the item is complete. Whether it is one must not
                # depend on where the stream is cut, so the scanner decides.
                self._cut = CborScanner(view[begin:], self._limits)
                if self._cut.find_end():
                    raise _no_cbor(error) from error
                self._cut.keep()
                return
            begin, before = file.tell(), begin
            if begin - before > self._limit:
                raise FramingError(f"the peer sent a message of more than {self._limit} bytes")
            if begin - before > self._limits.counted_bytes:
                CborScanner(view[before:begin], self._limits).find_end()
            yield self._in_our_types(packet)

    def _new_decode(self, file: BytesIO) -> Callable[[], Any]:
        return cbor2.CBORDecoder(
            file, semantic_decoders=_NO_TAGS, max_depth=MAX_NESTING_RECEIVED, read_size=_READ_SIZE
        ).decode

    def _decode_one(self, item: bytes) -> Any:
        try:
            packet = self._new_decode(BytesIO(item))()
        except _REFUSALS as error:
            raise _no_cbor(error) from error
        return self._in_our_types(packet)

    def _in_our_types(self, packet: Any) -> Any:
        """Replace, in place, values of types that packets do not have."""
        if type(packet) is not list:
            return packet  # which check_packet() refuses
        plain = self._plain
        todo: list[Any] = [packet]
        while todo:
            container = todo.pop()
            if type(container) is dict:
                if not plain.issuperset(map(type, container)):
                    pairs = [(self._key(key), value) for key, value in container.items()]
                    container.clear()
                    container.update(pairs)
                places: Iterable[Any] = container.items()
            else:
                places = enumerate(container)
            for place, value in places:
                kind = type(value)
                if kind in plain:
                    continue
                if kind is list or kind is dict:
                    todo.append(value)
                else:
                    container[place] = self._scalar(value)
        return packet

    def _scalar(self, value: object) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        if value is cbor2.undefined:
            return None
        raise FramingError(f"the peer sent a value that has no meaning here: {quoted(value)}")

    def _key(self, key: object) -> Any:
        if type(key) in self._plain:
            return key
        if isinstance(key, bytes):
            return key.decode("latin-1")
        raise FramingError(f"the peer sent a map with a key that is a {type(key).__name__}")


def _no_cbor(error: Exception) -> FramingError:
    return FramingError(f"the peer sent a message that is not CBOR: {error}")
