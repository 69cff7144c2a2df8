# SPDX-License-Identifier: MIT
"""Encodes and decodes packets as msgpack, the framing between nodes of this library and a hot path.

The costs, measured (CPython 3.11, msgpack 1.2, 64 KiB reads of packets
``(name, "tag", i, 64 characters)``; the bare Unpacker: 115 ns a packet):

=================================================== ==========
a generator that yields each packet                  + 11 %
each read's packets collected into a list first      + 13 %
lists of 64 packets, chained                         +  9 %
a subclass of Unpacker                               +  7 %
:func:`itertools.chain` over the Unpacker (this)     +  3..5 %
=================================================== ==========

So the decoder returns the Unpacker itself, whose errors arrive in the
caller's loop as msgpack raises them; :func:`translate` turns them into ours. Checking
the type of each packet costs 10 ns in the caller's loop and 13 ns here, so
the caller does it: see :func:`~.framing.check_packet`.

Encoding such a packet takes 220 to 280 ns; 86 of them are the strict Packer (108 a
lenient one), the rest is a call and the check of each element's type. The check is
needed: msgpack writes tuples as map keys, and extension types, which our decoders
refuse.

Not here: what is in a packet. Read :mod:`~.framing` first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import chain
from typing import Any, NoReturn

import msgpack

from aemp_gevent.errors import FramingError, UnencodableMessageError
from aemp_gevent.wire.limits import MAX_NUMBER_KEYS, UNCOUNTED_BYTES, Announced, Limits

from .counting import ANNOUNCING, MsgpackCounter, too_many_numbers
from .decoding import Decoder
from .long_binaries import PartedPacket
from .values import Rules, lone_surrogate

# What an Unpacker raises for wrong bytes. ValueError is for most faults
# (format, size, nesting, UTF-8); TypeError for a map key that cannot be hashed;
# the others come from the pure-Python Unpacker, or from wrong sizes.
ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    MemoryError,
    msgpack.UnpackException,
    FramingError,
)

# What each encoder and each decoder allocates at first; it grows with the messages, and with what is read at a time.
# msgpack's defaults are 256 KiB and 1 MiB for each link, most of which never carry much at once.
_BUFFER_SIZE = 4 * 1024

_LONGEST_BYTES = 2**32 - 1
"""The longest byte string that msgpack can carry."""

# A value that no peer can send.
_NOTHING = object()


def _objection(value: object) -> str | None:
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return "is an int of more than 64 bits, which msgpack cannot carry"
    return lone_surrogate(value)


_KEYS = frozenset({type(None), bool, int, float, str, bytes})
_RULES = Rules(
    framing="msgpack",
    scalars=_KEYS | {bytearray, memoryview},
    keys=_KEYS,
    objection=_objection,
    # Packer writes both as extension types; ExtType is a tuple besides.
    forbidden=(msgpack.ExtType, msgpack.Timestamp),
)


def _is_flat(elements: list[Any]) -> bool:
    for element in elements:
        kind = type(element)
        if kind is not str and kind is not float and kind not in _RULES.scalars:
            return False
    return True


def make_encoder() -> Callable[[list[Any] | tuple[Any, ...]], bytes]:
    """Return a function that turns one packet into bytes.

    It raises :class:`~aemp_gevent.errors.UnencodableMessageError`, and is as good
    as new afterwards. bytearray and memoryview arrive as bytes, tuples as lists,
    instances of subclasses (an IntEnum, a namedtuple) as what they are derived from.
    """
    encode: Callable[[list[Any] | tuple[Any, ...]], bytes] = make_parting_encoder(sys.maxsize)
    return encode


def make_resting_encoder() -> Callable[[list[Any] | tuple[Any, ...]], bytes]:
    """Return a function like that of :func:`make_encoder`, which keeps no memory that only large packets need.

    For encoders that live long and that no heartbeat replaces.
    """
    encode = make_encoder()

    def encode_and_rest(packet: list[Any] | tuple[Any, ...]) -> bytes:
        nonlocal encode
        is_small = False  # unless it is encoded: a part of what is refused may be large
        try:
            data = encode(packet)
            is_small = len(data) <= UNCOUNTED_BYTES
            return data
        finally:
            if not is_small:
                encode = make_encoder()

    return encode_and_rest


def make_parting_encoder(longest_copied: int) -> Callable[[list[Any] | tuple[Any, ...]], Any]:
    """Return a function like that of :func:`make_encoder`, which does not copy long byte strings.

    Args:
        longest_copied: The length of the longest that is copied. A packet with a longer one becomes a
            :class:`~aemp_gevent.wire.long_binaries.PartedPacket`. At least 65,535: shorter ones have another header.
    """
    # The strict Packer takes only exact built-in types, like all values of a plain
    # message. The lenient one takes tuples and subclasses, which the
    # walk has checked before.
    # Not a function in here that ``encode`` calls: compiled, both would be a cycle, with the memory of the packers.
    packer: Any = msgpack.Packer(strict_types=True, buf_size=_BUFFER_SIZE)
    pack_plain: Callable[[object], bytes] = packer.pack
    pack_any: Callable[[object], bytes] = msgpack.Packer(buf_size=_BUFFER_SIZE).pack
    has_only_plain, short = _RULES.has_only_plain, _RULES.scalars - {bytes}

    def encode(packet: list[Any] | tuple[Any, ...]) -> bytes | PartedPacket:
        # A for loop, and not issuperset(map(type, packet)): 94 against 124 ns for four elements.
        pack = pack_plain if type(packet) is list else pack_any
        long: Any = None
        is_checked = False
        for element in packet:
            kind = type(element)
            # Most are of these two, and a comparison takes a tenth of a look into a set.
            if kind is not str and kind is not int and kind not in short:
                if kind is bytes:
                    if longest_copied < len(element) <= _LONGEST_BYTES:
                        long = element
                    continue
                # The header of a call is such a list.
                if is_checked or (kind is list and _is_flat(element)):
                    continue
                if not has_only_plain(packet):
                    _RULES.refuse(packet)
                pack, is_checked = pack_any, True
        try:
            if long is not None:
                return PartedPacket.encode(packet, long, pack, packer.pack_array_header)
            return pack(packet)
        except (ValueError, TypeError, OverflowError, BufferError, RecursionError) as error:
            _RULES.refuse(packet, error)
            raise UnencodableMessageError("as a whole it", f"was refused by msgpack: {error}") from error

    return encode


def _refuse_extension(code: int, _data: bytes) -> NoReturn:
    raise ValueError(f"extension type {code} (no framing of ours has any)")


# The largest lists and maps that we do not check: a header makes the Unpacker allocate 8 bytes for each element of a
# list, on each of 1024 levels; and a map with chosen numbers as keys takes quadratic time.
_SMALL_LIST, _SMALL_MAP = 256, 1000

_LARGE_LIST, _LARGE_MAP = "max_array_len", "max_map_len"
"""In the Unpacker's errors about larger ones."""


def _make_map(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if len(pairs) > MAX_NUMBER_KEYS:
        texts = sum(1 for key, _value in pairs if type(key) is str or type(key) is bytes)
        if len(pairs) - texts > MAX_NUMBER_KEYS:
            raise too_many_numbers()
    return dict(pairs)


def _new_unpacker(limits: Limits, large: frozenset[str] = frozenset((_LARGE_LIST, _LARGE_MAP))) -> Any:
    # Any: msgpack does not have types.
    max_message_bytes = limits.bytes
    most = min(max_message_bytes, limits.counted_bytes)
    return msgpack.Unpacker(
        object_pairs_hook=_make_map if _LARGE_MAP in large else None,
        raw=False,
        # Keys may be any scalar; the default lets only str and bytes through.
        strict_map_key=False,
        ext_hook=_refuse_extension,
        # The hook never sees timestamps, but the limit does: theirs have 4 bytes at least.
        max_ext_len=0,
        # A list or map that announces more than a message may have is refused at its
        # header. An element takes at least one byte, a pair two. Texts are checked
        # only when they are complete; the decoder's own count stops longer ones.
        max_str_len=max_message_bytes,
        max_bin_len=max_message_bytes,
        max_array_len=most if _LARGE_LIST in large else min(most, _SMALL_LIST),
        max_map_len=most // 2 if _LARGE_MAP in large else min(most // 2, _SMALL_MAP),
        # A message's beginning and the piece that completes it; never reached,
        # because the decoder below feeds no more than this.
        max_buffer_size=2 * max_message_bytes,
        read_size=min(_BUFFER_SIZE, max_message_bytes),
    )


class MsgpackDecoder(Decoder):
    """Decodes a stream of bytes into packets.

    After each :meth:`feed` iterate to the end; packets that a loop does not reach
    are lost. The loop may raise any of :data:`ERRORS`: pass it to
    :func:`translate`, and catch exceptions of your own code inside of the loop, or
    they look like the peer's fault. After an error the decoder is useless.

    The limit is exact, however the stream is cut: a message of ``max_message_bytes``
    is accepted, one of a byte more is refused as soon as that byte is needed.
    The Unpacker alone does not do this: its ``max_buffer_size`` counts only what
    it could not parse yet, and a list can grow forever without counting.

    **Large lists and maps** need checks that would slow everything else down: the elements that a list's header
    announces are counted, and the keys of a map are checked before it is made. So the Unpacker refuses both at
    first, at their header, which costs nothing. Then :meth:`retry` starts again where the message began, with
    these checks, and keeps them: a peer that has sent one will send others.

    Memory: at most three times ``max_message_bytes`` and two reads in bytes, kept from one message to the next until
    :meth:`rest`, besides the objects decoded from them (:mod:`aemp_gevent.wire.limits`), and what the Unpacker
    allocates for lists that were only announced: 2 KiB for each of 1024 levels, and what ``limits.announced`` allows.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._announced = limits.announced or Announced()
        self.large: frozenset[str] = frozenset()
        """Which of large lists and maps are decoded with checks, because the peer has sent some."""
        self._pieces: Iterator[bytes | memoryview] = iter(())  # of the read
        self._current: bytes | memoryview = b""  # the piece that was fed last, unless it was kept
        self._limit = limits.bytes
        self._piece = min(limits.bytes, UNCOUNTED_BYTES)
        self._counted = limits.counted_bytes
        self._counter: MsgpackCounter | None = None  # of the unfinished message, once it is long
        self._unpacker: Any = _new_unpacker(limits, self.large)  # msgpack ships no types
        self._data: bytes | memoryview = b""
        self._fed = 0
        # Where in the stream the unfinished message began, or a packet boundary before that; and the bytes from there
        # on, up to the position of the next one. Behind that are old ones: new memory would cost more than to copy.
        self._begin = 0
        self._is_exact = True
        self._since = BytesIO()

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes. Their buffer may be reused after the next iteration."""
        self._data = b"".join((self._data, data)) if self._data else data

    def leave_out(self, size: int) -> None:
        """Take each message from the next one on as this many bytes larger than what is fed of it."""
        self._limit = self._limits.bytes - size
        # What is fed has at most as many elements as bytes.
        self._counted = max(self._limits.counted_bytes - size, self._limits.elements)

    def __iter__(self) -> Iterator[Any]:
        # Any: a packet is whatever the peer sent; see check_packet.
        try:
            yield from self.quickly()
        except ERRORS as error:
            yield from self.retry(error)

    @property
    def is_at_end(self) -> bool:
        """Whether the last read, of which one packet was complete, ended with that packet."""
        return self._is_exact and self._begin == self._fed

    def quickly(self) -> Iterable[Any]:
        """Return what yields the packets without calls of ours; after an error of it, call :meth:`retry`."""
        data, self._data = self._data, b""
        if len(data) <= self._piece and not self.large:
            return self._take(data)
        return chain.from_iterable(self._parts(data))

    def retry(self, error: Exception) -> Iterator[Any]:
        """Return the packets from the first large list or map on, at which iterating failed; else raise the error."""
        found = {word for word in (_LARGE_LIST, _LARGE_MAP) if word in str(error)} - self.large
        if not found or isinstance(error, FramingError):
            try:
                raise error
            finally:
                del error  # or it would refer to itself, and what was decoded would live on for a while
        text = b"".join((self._kept(), self._current))
        # Packets before that one were handled; the Unpacker stops there again.
        done, unpacker = 0, _new_unpacker(self._limits, self.large)
        unpacker.feed(text)
        with suppress(ValueError):
            for _packet in unpacker:
                done = unpacker.tell()
        self._data = b"".join((text[done:], *self._pieces))
        self.large |= found
        self._unpacker = _new_unpacker(self._limits, self.large)
        self._fed = self._begin = 0
        self._is_exact, self._counter = True, None
        self._since.seek(0)
        return iter(self)  # as large maps may follow large lists

    def _parts(self, data: bytes | memoryview) -> Iterator[Iterable[Any]]:
        # In pieces that are at most as large as the limits, so that a larger message is never
        # within one piece, and counting is only needed between pieces.
        self._pieces = _cut(data, self._piece)
        for piece in self._pieces:
            packets = self._take(piece)
            yield packets
            if packets and self.large:
                self._count(b"", self._fed)

    def _take(self, piece: bytes | memoryview) -> Iterable[Any]:
        # No generator and few calls, because a read may hold just one packet: then all this is latency.
        unpacker, limit = self._unpacker, self._limit
        self._current = piece
        unpacker.feed(piece)
        before = self._fed
        self._fed = fed = before + len(piece)
        # Only the first packet may have begun in an earlier piece. Right after it the
        # Unpacker is at the packet's end; later it reads ahead into the next one.
        first = next(unpacker, _NOTHING)
        if first is _NOTHING:
            if self._counter is not None or fed - self._begin > self._counted or self.large:
                self._count(piece, fed)
            else:
                self._since.write(piece)
            self._current = b""
            if fed - self._begin >= limit:
                # One more, because the message is not complete yet.
                self._check_size(fed + 1)
            return ()
        end = unpacker.tell()
        if end - self._begin > limit:
            self._check_size(end)
        if end - self._begin > self._counted:
            self._count(piece[: end - before], end)
        if self._begin < before:  # some of it was kept
            self._counter = None
            self._since.seek(0)
            self._announced.allows(self, 0)
        self._begin, self._is_exact = end, True
        self._current = b""
        if end == fed:
            return (first,)
        # What is left is shorter than a piece, so it is within the limit.
        self._since.write(piece[end - before :])
        self._is_exact = False
        return chain((first,), unpacker)

    def _check_size(self, needed: int) -> None:
        """Refuse the message that ends at ``needed`` in the stream, or later."""
        if needed - self._begin > self._limit and not self._is_exact:
            self._find_begin()
        if needed - self._begin > self._limit:
            raise FramingError(f"the peer sent a message of more than {self._limits.bytes} bytes")

    def _count(self, piece: bytes | memoryview, end: int) -> None:
        """Count the elements of a message that may be a long one, or has large lists, up to ``end`` in the stream.

        Raises:
            FramingError: There are too many, or too many were announced.
        """
        self._since.write(piece)
        is_long = end - self._begin > self._counted
        counter, text = self._counter, memoryview(piece)
        if counter is None:
            if not is_long:
                kept = bytes(self._kept()) if self.large else b""
                if not any(header in kept for header in ANNOUNCING):
                    return
            if not self._is_exact:
                self._find_begin()
                is_long = end - self._begin > self._counted
            counter, text = MsgpackCounter(self._limits.counted_bytes), self._kept()
            self._counter = counter if text else None
        # A message that is not long yet has at most as many elements as bytes.
        counter.limit = self._limits.elements if is_long else self._limits.counted_bytes
        for part in _cut(text, self._piece):  # no copy of those in the middle of a text
            counter.feed(part)
        missing = 8 * counter.missing if counter.missing > _SMALL_LIST else 0
        if not self._announced.allows(self, missing, end - self._begin):
            raise FramingError(
                f"the peer announced {counter.missing} more elements, which with those that others announced take "
                f"more than {self._announced.limit} bytes"
            )

    def rest(self) -> None:
        """Give the memory back in which large packets are put together, unless one has begun."""
        if self.is_at_end and len(self._since.getbuffer()) > UNCOUNTED_BYTES:
            self._unpacker = _new_unpacker(self._limits, self.large)
            self._fed = self._begin = 0
            self._since = BytesIO()

    def _kept(self) -> memoryview:
        """Return what was kept of the unfinished message; nothing can be added as long as this is referred to."""
        return self._since.getbuffer()[: self._since.tell()]

    def give_up(self, why: str) -> None:
        # Never in the middle of a loop: by then nothing is announced.
        self._unpacker = _GivenUp(why)
        self._since, self._counter = BytesIO(), None

    def _find_begin(self) -> None:
        """Find out exactly where the unfinished message began.

        Rare: only when it could be too large. Parses its bytes a second time,
        which is cheaper than asking where each packet ended.
        """
        unpacker, kept = _new_unpacker(self._limits), bytes(self._kept())
        unpacker.feed(kept)
        done = 0
        try:
            while True:
                unpacker.skip()
                done = unpacker.tell()
        except msgpack.OutOfData:
            self._begin += done
            self._since.seek(0)
            self._since.write(kept[done:])
            self._is_exact = True


class _GivenUp:
    """The Unpacker of a decoder that was told to give up."""

    def __init__(self, why: str) -> None:
        self._why = why

    def feed(self, _data: object) -> None:
        raise FramingError(self._why)


def _cut(data: bytes | memoryview, size: int) -> Iterator[bytes | memoryview]:
    return (data[start : start + size] for start in range(0, len(data), size))


def translate(error: Exception) -> FramingError:
    """Return a :class:`FramingError` for an error of iterating a decoder."""
    if isinstance(error, FramingError):
        return error
    return FramingError(f"the peer sent bytes that are not msgpack: {type(error).__name__}: {error}")
