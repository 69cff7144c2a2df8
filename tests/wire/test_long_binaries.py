# SPDX-License-Identifier: MIT
"""Long byte strings are not copied as a whole, and packets with them are what they always are."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import FramingError, UnencodableMessageError
from aemp_gevent.wire.fragments import Assembler
from aemp_gevent.wire.framing_msgpack import make_encoder, make_parting_encoder
from aemp_gevent.wire.limits import UNCOUNTED_BYTES, Limits
from aemp_gevent.wire.long_binaries import LongBinary, PartedPacket, cut

LONG = 2**16
LIMITS = Limits(2**20)

encode = make_encoder()
encode_around = make_parting_encoder(LONG)

BLOCK = bytes(range(256)) * 300
"""Longer than ``LONG``."""

ELEMENTS = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**64 - 1),
    st.text(max_size=20),
    st.floats(allow_nan=False),
    st.binary(max_size=20),
    st.lists(st.integers(0, 9), max_size=20),
    st.dictionaries(st.text(max_size=3), st.none()),
    st.sampled_from([BLOCK, BLOCK[:LONG], BLOCK[1:]]),
)


def with_long_headers(packet: list[Any]) -> bytes:
    """Encode a packet, with a long header for each byte string in it, however short."""
    data = bytes((0x90 + len(packet),))
    for element in packet:
        is_binary = type(element) is bytes
        data += b"\xc6" + len(element).to_bytes(4, "big") + element if is_binary else encode([element])[1:]
    return data


@given(st.lists(ELEMENTS, max_size=20), st.booleans())
def test_encoded_in_parts_a_packet_is_the_same(elements: list[Any], is_tuple: bool) -> None:
    packet: Any = tuple(elements) if is_tuple else elements
    data = encode_around(packet)
    assert bytes(data) == encode(packet)
    assert len(data) == len(bytes(data))
    has_long = any(type(element) is bytes and len(element) > LONG for element in packet)
    assert isinstance(data, PartedPacket) == has_long


def test_byte_string_of_the_program_itself_is_sent() -> None:
    data = encode_around(["p", {"a": 1}, BLOCK, 7])
    assert data.parts[1] is BLOCK
    assert [piece.obj for piece in cut(data, 0, len(data))][1] is BLOCK
    assert type(encode_around(["p", bytearray(BLOCK)])) is bytes, "it may change while it waits"
    assert type(encode_around(["p", [BLOCK]])) is bytes


def test_what_cannot_be_encoded_is_refused_as_ever() -> None:
    # The last one takes no memory, as nobody reads it.
    for wrong in (2**64, object(), {"a": object()}, "\ud800", bytes(2**32)):
        for packet in (["p", BLOCK, wrong], ["p", wrong, BLOCK]):
            with pytest.raises(UnencodableMessageError) as refused:
                encode_around(packet)
            with pytest.raises(UnencodableMessageError) as usual:
                encode(packet)
            assert str(refused.value) == str(usual.value)
    assert bytes(encode_around(["p", BLOCK])) == encode(["p", BLOCK])


@given(st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9), st.data())
def test_pieces_are_cut_anywhere(head: bytes, binary: bytes, tail: bytes, data: st.DataObject) -> None:
    for packet in (PartedPacket(head, binary, tail), head + binary + tail):
        whole = bytes(packet)
        begin = data.draw(st.integers(0, len(whole)))
        end = data.draw(st.integers(begin, len(whole)))
        assert b"".join(cut(packet, begin, end)) == whole[begin:end]


@given(st.lists(ELEMENTS, max_size=8), st.lists(st.integers(1, 2**17), max_size=8), st.lists(st.integers(1, 60)))
def test_packet_is_put_together_however_it_is_cut(elements: list[Any], far: list[int], near: list[int]) -> None:
    packet = ["p", *elements]
    data = with_long_headers(packet)
    cuts = sorted({place for place in (*near, *far) if place < len(data)} | {0, len(data)})
    assembler = Assembler(LIMITS)
    for _ in range(2):
        pieces = [data[begin:end] for begin, end in pairwise(cuts)]
        done = [assembler.feed([piece]) for piece in pieces]
        assert done == [None] * (len(pieces) - 1) + [packet]
        assert not assembler.unfinished


def test_byte_string_behind_much_else_arrives() -> None:
    packet = ["p", "x" * 1000, BLOCK]
    assert LongBinary.find(encode(packet)) is None
    assert Assembler(LIMITS).feed([encode(packet)]) == packet


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x92",
        b"\x92\xa5",
        b"\x92\xa1p\xc6",
        b"\x92\xa1p\xc6\0\1\0",
        b"\x92\xc1\xc6\0\1\0\0",
        b"\xc6\0\1\0\0",
        b"\x81\xc6",
    ],
    ids=bytes.hex,
)
def test_what_does_not_show_a_whole_header_is_left_to_the_decoder(beginning: bytes) -> None:
    assert LongBinary.find(beginning) is None


def put_together(data: bytes, limits: Limits, piece: int) -> list[Any] | None:
    """Return the packet that arrives in fragments of this many bytes."""
    assembler = Assembler(limits)
    return [assembler.feed([data[begin : begin + piece]]) for begin in range(0, len(data), piece)][-1]


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize("tail", [[], ["x" * 9]], ids=["at the end", "not at the end"])
@pytest.mark.parametrize("encoder", [encode, with_long_headers], ids=["decoded", "put together"])
def test_limit_is_exact(piece: int, tail: list[str], encoder: Callable[[list[Any]], bytes]) -> None:
    limits, around = Limits(1000), len(encoder(["p", bytes(900), *tail])) - 900
    packet = ["p", bytes(1000 - around), *tail]
    assert put_together(encoder(packet), limits, piece) == packet
    packet[1] += b"1"
    with pytest.raises(FramingError, match="more than 1000 bytes"):
        put_together(encoder(packet), limits, piece)


@pytest.mark.parametrize("piece", [50_000, 2**20])
@pytest.mark.parametrize(
    ("size", "count", "is_refused"),
    [
        (UNCOUNTED_BYTES, 1000, False),
        (UNCOUNTED_BYTES, 1001, True),
        (UNCOUNTED_BYTES - 50_000, 50_000, True),
        (UNCOUNTED_BYTES - 50_000, 40_000, False),  # in all it is not large
    ],
)
def test_elements_around_it_are_counted_as_in_any_large_packet(
    piece: int, size: int, count: int, is_refused: bool
) -> None:
    packet, limits = ["p", bytes(size), [None] * (count - 4)], Limits(2**20, 1000)
    if not is_refused:
        assert put_together(encode(packet), limits, piece) == packet
        return
    with pytest.raises(FramingError, match="more than 1000 elements"):
        put_together(encode(packet), limits, piece)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (with_long_headers(["p", b"12"]) + b"\x90", "does not end where its packet ends"),
        (with_long_headers(["p", b"12", 1])[:-1] + b"\xc1", "not msgpack"),
        (with_long_headers([b"12", "p"]), "whose port name is"),
    ],
    ids=["more-behind", "no-msgpack", "name"],
)
def test_what_is_wrong_around_it_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(FramingError, match=why):
        Assembler(LIMITS).feed([data])


def traced(work: Any) -> tuple[Any, int]:
    """Return what work returns, and how much more memory was used meanwhile, at most."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = work()
        return result, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_announced_bytes_take_no_memory() -> None:
    long = LongBinary.find(b"\x92\xa1p\xc6\x7f\xff\xff\xff")
    assert long is not None
    _rest, memory = traced(lambda: long.take(bytes(1000)))
    assert long.missing == 2**31 - 1001
    assert memory < 10_000


def test_memory_for_a_very_long_one_is_taken_in_steps() -> None:
    mebibyte = bytes(range(256)) * 2**12
    long = LongBinary(1, 3, 12 * len(mebibyte))
    for taken in range(12):
        _rest, memory = traced(lambda: long.take(mebibyte))
        assert memory < (taken + 9.1) * len(mebibyte)
    assert long.value() == 12 * mebibyte


@pytest.mark.parametrize("size", [2**18, 2**20, 2**20 + 1])
def test_nothing_is_copied_at_the_end(size: int) -> None:
    block = bytes(size - 1)

    def put_together() -> bytes:
        long = LongBinary(1, 3, size)
        assert not long.take(block)
        assert long.take(b"1234") == b"234"
        assert not long.missing
        return long.value()

    value, memory = traced(put_together)
    assert value == block + b"1"
    assert memory < size + 10_000


@pytest.mark.parametrize("mebibytes", [5, 9, 12, 17, 23, 32])
def test_no_more_than_needed_is_taken_at_the_end(mebibytes: int) -> None:
    size, piece = mebibytes * 2**20, bytes(60_000)

    def put_together() -> bytes:
        long = LongBinary(1, 3, size)
        while long.missing:
            long.take(piece)
        return long.value()

    value, memory = traced(put_together)
    assert len(value) == size
    assert memory < size + 10_000


def test_to_encode_takes_no_memory_for_it() -> None:
    data, memory = traced(lambda: encode_around(["p", BLOCK, 1]))
    assert len(data) > len(BLOCK)
    assert memory < 10_000
