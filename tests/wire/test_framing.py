# SPDX-License-Identifier: MIT
"""Framings: packets to bytes and back, however the bytes are cut or broken."""

from __future__ import annotations

import enum
import itertools
import json
import math
import subprocess
import sys
import tracemalloc
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import FramingError, UnencodableMessageError
from aemp_gevent.wire import cbor_scanner, framing_json
from aemp_gevent.wire.decoding import Decoder
from aemp_gevent.wire.framing import FRAMINGS, Framing, check_packet, name_of_port
from aemp_gevent.wire.framing_cbor import CborDecoder
from aemp_gevent.wire.framing_msgpack import make_resting_encoder
from aemp_gevent.wire.limits import Limits

ROOT = Path(__file__).parents[2]

Cut = Callable[[bytes], Iterator[bytes]]

MSGPACK, CBOR, JSON = FRAMINGS["msgpack"], FRAMINGS["cbor"], FRAMINGS["json"]
LIMIT = 10_000

each_framing = pytest.mark.parametrize("framing", FRAMINGS.values(), ids=list(FRAMINGS))


def read(
    framing: Framing, pieces: Iterable[bytes | memoryview], limit: int = LIMIT, *, from_perl: bool = False
) -> tuple[list[Any], FramingError | None]:
    """Decode as a link does; what came before an error, and the error."""
    decoder, packets = (framing.foreign_decoder if from_perl else framing.decoder)(Limits(limit)), []
    try:
        for piece in pieces:
            decoder.feed(piece)
            for packet in decoder:
                packets.append(packet)
    except framing.errors as error:
        return packets, framing.translate(error)
    return packets, None


def packer(packet: Any) -> bytes:
    packed: bytes = msgpack.packb(packet)
    return packed


# --- what goes well ---------------------------------------------------------------


@each_framing
@pytest.mark.parametrize(
    "packet",
    [
        pytest.param([], id="keep-alive"),
        pytest.param([""], id="keep-alive-with-name"),
        pytest.param(["p", None, True, False, 0, -1, 2**63, -(2**63), 1.5, "", "käse €\U0001f600"], id="scalars"),
        pytest.param(["p", [], {}, [[]], {"a": {"b": [1, {"c": None}]}}], id="containers"),
        pytest.param(["p", '"\\"[]{}\\\\', "]", "\\", "\n\t\x00\x7f"], id="text-that-looks-like-syntax"),
        pytest.param(["p", "x" * 5000], id="long-text"),
    ],
)
def test_a_packet_is_decoded_however_it_is_cut(framing: Framing, packet: list[Any], cut: Cut) -> None:
    data = framing.encoder()(packet)
    assert read(framing, cut(data)) == ([packet], None)
    assert read(framing, cut(data * 3 + data[: len(data) // 2])) == ([packet] * 3, None)


@each_framing
def test_empty_reads_yield_nothing(framing: Framing) -> None:
    assert read(framing, [b"", b""]) == ([], None)


@each_framing
def test_bytes_fed_twice_before_a_loop_are_not_lost(framing: Framing) -> None:
    decoder = framing.decoder(Limits(LIMIT))
    data = framing.encoder()(["p", "abc"]) * 2
    decoder.feed(memoryview(data)[:5])
    decoder.feed(memoryview(data)[5:])
    assert list(decoder) == [["p", "abc"]] * 2


@each_framing
def test_a_reused_buffer_may_be_overwritten_after_the_loop(framing: Framing) -> None:
    # As large as may be, and behind several small ones: what counts the bytes must
    # look back into a read that is overwritten by then.
    small, large = ["p"], ["p", "a long text that is cut in the middle", 1]
    encode = framing.encoder()
    data = (encode(small) * 5 + encode(large)) * 3
    buffer = bytearray(40)

    def pieces() -> Iterator[memoryview]:
        for start in range(0, len(data), len(buffer)):
            piece = data[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]

    limit = len(encode(large))
    assert read(framing, pieces(), limit) == ([*[small] * 5, large] * 3, None)
    packets, error = read(framing, pieces(), limit - 1)
    assert packets == [small] * 5
    assert isinstance(error, FramingError)


Point = namedtuple("Point", "x y")
Colour = enum.IntEnum("Colour", "RED")
Word = type("Word", (str,), {})


@pytest.mark.parametrize(
    ("framing", "packet", "arrives_as"),
    [
        pytest.param(MSGPACK, ("p", (1, (2,))), ["p", [1, [2]]], id="msgpack-tuples"),
        pytest.param(JSON, ("p", (1, (2,))), ["p", [1, [2]]], id="json-tuples"),
        pytest.param(CBOR, ("p", (1, (2,))), ["p", [1, [2]]], id="cbor-tuples"),
        pytest.param(CBOR, ["p", b"\xff", {b"k": b""}], ["p", b"\xff", {b"k": b""}], id="cbor-bytes"),
        pytest.param(CBOR, ["p", bytearray(b"a"), memoryview(b"b")], ["p", b"a", b"b"], id="cbor-buffers"),
        pytest.param(CBOR, ["p", [memoryview(b"abcd")[::2]]], ["p", [b"ac"]], id="cbor-odd-memoryview"),
        pytest.param(
            CBOR, ["p", {1: 2, None: 3, 1.5: 4, "x": 5}], ["p", {1: 2, None: 3, 1.5: 4, "x": 5}], id="cbor-keys"
        ),
        pytest.param(CBOR, ["p", 2**64 - 1, -(2**63), math.inf], ["p", 2**64 - 1, -(2**63), math.inf], id="cbor-edges"),
        pytest.param(CBOR, ["p", Point(1, 2), Colour.RED, Word("w")], ["p", [1, 2], 1, "w"], id="cbor-subclasses"),
        pytest.param(CBOR, ["p", OrderedDict(a=Point(1, 2))], ["p", {"a": [1, 2]}], id="cbor-ordered-dict"),
        pytest.param(MSGPACK, ["p", b"\xff", {b"k": b""}], ["p", b"\xff", {b"k": b""}], id="msgpack-bytes"),
        pytest.param(MSGPACK, ["p", bytearray(b"a"), memoryview(b"b")], ["p", b"a", b"b"], id="msgpack-buffers"),
        pytest.param(
            MSGPACK, ["p", {1: 2, None: 3, 1.5: 4, "x": 5}], ["p", {1: 2, None: 3, 1.5: 4, "x": 5}], id="keys"
        ),
        pytest.param(MSGPACK, ["p", 2**64 - 1, math.inf], ["p", 2**64 - 1, math.inf], id="msgpack-edges"),
        pytest.param(JSON, ["p", 2**70], ["p", 2**70], id="json-long-int"),
        pytest.param(
            MSGPACK, ["p", Point(1, 2), Colour.RED, Word("w")], ["p", [1, 2], 1, "w"], id="msgpack-subclasses"
        ),
        pytest.param(JSON, ["p", Point(1, 2), Colour.RED, Word("w")], ["p", [1, 2], 1, "w"], id="json-subclasses"),
        pytest.param(MSGPACK, ["p", OrderedDict(a=Point(1, 2))], ["p", {"a": [1, 2]}], id="msgpack-ordered-dict"),
        pytest.param(JSON, ["p", OrderedDict(a=Point(1, 2))], ["p", {"a": [1, 2]}], id="json-ordered-dict"),
    ],
)
def test_values_arrive_as_what_they_are_derived_from(framing: Framing, packet: Any, arrives_as: list[Any]) -> None:
    assert read(framing, [framing.encoder()(packet)]) == ([arrives_as], None)


@pytest.mark.parametrize("direction", ["a>b", "b>a"])
def test_recorded_json_packets_are_decoded(json_recording, direction: str, cut: Cut) -> None:  # type: ignore[no-untyped-def]
    side = json_recording.a if direction == "a>b" else json_recording.b
    packets, error = read(JSON, cut(side.packets))
    assert error is None
    assert packets == json_recording.listed(direction)
    assert len(packets) > 15
    assert read(JSON, cut(side.packets + b' \n["tail')) == (packets, None)
    for packet in packets:
        check_packet(packet)
    assert read(JSON, cut(b"".join(map(JSON.encoder(), packets)))) == (packets, None)
    assert read(MSGPACK, cut(b"".join(map(MSGPACK.encoder(), packets)))) == (packets, None)


@pytest.mark.parametrize("direction", ["a>b", "b>a"])
def test_recorded_cbor_packets_are_decoded_as_text(cbor_recording, direction: str, cut: Cut) -> None:  # type: ignore[no-untyped-def]
    side = cbor_recording.a if direction == "a>b" else cbor_recording.b
    packets, error = read(CBOR, cut(side.packets), from_perl=True)
    assert error is None
    assert packets == cbor_recording.listed(direction)
    assert len(packets) > 15
    for packet in packets:
        check_packet(packet)
    assert read(CBOR, cut(side.packets + b"\x82\x44tail"), from_perl=True) == (packets, None)
    # What they mean is the same in JSON, where there are no bytes.
    assert read(JSON, cut(b"".join(map(JSON.encoder(), packets)))) == (packets, None)


def test_byte_strings_of_a_peer_of_ours_stay_bytes_and_those_of_perl_are_text(cut: Cut) -> None:
    packet = ["p", b"k\xe4se", "k\xe4se", [{b"\xff": {b"": [b"x"]}, "t": 1, 2: b""}]]
    data = CBOR.encoder()(packet)
    assert read(CBOR, cut(data)) == ([packet], None)
    as_text = ["p", "k\xe4se", "k\xe4se", [{"\xff": {"": ["x"]}, "t": 1, 2: ""}]]
    assert read(CBOR, cut(data), from_perl=True) == ([as_text], None)
    # Only CBOR has byte strings that may be text.
    assert read(MSGPACK, cut(MSGPACK.encoder()(packet)), from_perl=True) == ([packet], None)


@pytest.mark.parametrize(
    ("data", "packet"),
    [
        pytest.param("9f617001ff", ["p", 1], id="indefinite-array"),
        pytest.param("826170bf6161016162f6ff", ["p", {"a": 1, "b": None}], id="indefinite-map"),
        pytest.param("8261709fff", ["p", []], id="indefinite-empty-array"),
        pytest.param("826170bfff", ["p", {}], id="indefinite-empty-map"),
        pytest.param("8261705f416142626301ff".replace("01ff", "40ff"), ["p", b"abc"], id="chunked-bytes"),
        pytest.param("8261707f616162c3a460ff", ["p", "a\xe4"], id="chunked-text"),
        pytest.param("8261705fff", ["p", b""], id="no-chunks"),
        pytest.param("836170f93c00f97c00", ["p", 1.0, math.inf], id="half-floats"),
        pytest.param("826170fa40200000", ["p", 2.5], id="float32"),
        pytest.param("826170f7", ["p", None], id="undefined"),
        pytest.param("826170a1f601", ["p", {None: 1}], id="nil-as-key"),
        pytest.param("826170c11a514b67b0", ["p", 1363896240], id="tagged-date"),
        pytest.param("826170c249010000000000000000", ["p", b"\x01" + bytes(8)], id="tagged-bignum"),
        pytest.param("836170d81c8101d81d00", ["p", [1], 0], id="tagged-shared"),
        pytest.param("826170d90102820101", ["p", [1, 1]], id="tagged-set"),
        pytest.param("826170dbffffffffffffffff01", ["p", 1], id="tag-of-64-bits"),
        pytest.param("d9d9f7826170d9d9f701", ["p", 1], id="tagged-as-cbor"),
        pytest.param("9b00000000000000027801701b0000000000000001", ["p", 1], id="long-headers"),
    ],
)
def test_every_way_to_write_cbor_is_read(data: str, packet: list[Any], cut: Cut) -> None:
    raw = bytes.fromhex(data)
    assert read(CBOR, cut(raw * 3)) == ([packet] * 3, None)


def test_white_space_between_json_texts_is_skipped(cut: Cut) -> None:
    data = b' \r\n\t["p", 1 ]\n\n[ ] ["p"]  '
    assert read(JSON, cut(data)) == ([["p", 1], [], ["p"]], None)


# --- what a peer can do wrong -----------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"\xc1", id="never-used"),
        pytest.param(b"\x91\xa1\xff", id="not-utf-8"),
        pytest.param(packer(["p", {"k": "x"}]).replace(b"\xa1k", b"\x91\x01"), id="list-as-key"),
        pytest.param(packer(["p", {"k": "x"}]).replace(b"\xa1k", b"\x80"), id="map-as-key"),
        pytest.param(packer(["p", msgpack.ExtType(5, b"")]), id="ext-empty"),
        pytest.param(packer(["p", msgpack.ExtType(5, b"x")]), id="ext-1"),
        pytest.param(packer(["p", msgpack.ExtType(5, b"x" * 300)]), id="ext-16"),
        pytest.param(packer(["p", msgpack.Timestamp(1)]), id="timestamp-32"),
        pytest.param(packer(["p", msgpack.Timestamp(1, 5)]), id="timestamp-64"),
        pytest.param(packer(["p", msgpack.Timestamp(-1, 5)]), id="timestamp-96"),
        pytest.param(b"\x91\xc7\x00\xff", id="timestamp-empty"),
        pytest.param(b"\x91" * 5000, id="nested-forever"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array-of-4-G"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map-of-4-G"),
        pytest.param(b"\xdb\xff\xff\xff\xff" + b"x" * LIMIT, id="text-of-4-GiB"),
        pytest.param(b"\xc6\xff\xff\xff\xff" + b"x" * LIMIT, id="bytes-of-4-GiB"),
        pytest.param(b"\xc9\xff\xff\xff\xff\x05" + b"x" * LIMIT, id="ext-of-4-GiB"),
    ],
)
def test_wrong_msgpack_is_refused_and_earlier_packets_are_not_lost(bad: bytes, cut: Cut) -> None:
    packets, error = read(MSGPACK, cut(packer(["p", 1]) + packer(["p", 2]) + bad + b"\x00" * 400))
    assert packets == [["p", 1], ["p", 2]]
    assert isinstance(error, FramingError)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(b"nonsense", id="word"),
        pytest.param(b"[nonsense]", id="word-in-array"),
        pytest.param(b"{}", id="object"),
        pytest.param(b"1", id="number"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b"]", id="closing-first"),
        pytest.param(b",[]", id="comma-between"),
        pytest.param(b"\x00[]", id="NUL"),
        pytest.param(b"\xef\xbb\xbf[]", id="BOM"),
        pytest.param("[1]".encode("utf-16-le"), id="utf-16"),
        pytest.param(b"[}", id="mismatched"),
        pytest.param(b"[{]}", id="crossed"),
        pytest.param(b"[1,]", id="trailing-comma"),
        pytest.param(b'["\xff"]', id="not-utf-8"),
        pytest.param(b'["\xed\xa0\x80"]', id="encoded-surrogate"),
        pytest.param(b'["\\ud800"]', id="escaped-surrogate"),
        pytest.param(b'[{"\\uDC00": 1}]', id="escaped-surrogate-key"),
        pytest.param(b'["\n"]', id="control-character"),
        pytest.param(b'["\\x"]', id="bad-escape"),
        pytest.param(b"[NaN]", id="NaN"),
        pytest.param(b"[-Infinity]", id="infinity"),
        pytest.param(b"[1e999]", id="float-out-of-range"),
        pytest.param(b"[" + b"1" * 5000 + b"]", id="too-many-digits"),
        pytest.param(b"[" * 513 + b"]" * 513, id="nested-513"),
        pytest.param(b'[{"a":' * 600, id="nested-forever"),
    ],
)
def test_wrong_json_is_refused_and_earlier_packets_are_not_lost(bad: bytes, cut: Cut) -> None:
    packets, error = read(JSON, cut(b'["p",1]["p",2]' + bad + b"[]"))
    assert packets == [["p", 1], ["p", 2]]
    assert isinstance(error, FramingError)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("ff", id="break-first"),
        pytest.param("8261", id="cut"),
        pytest.param("81ff", id="break-in-definite-array"),
        pytest.param("bf01ff", id="break-for-a-value"),
        pytest.param("811c", id="reserved-length"),
        pytest.param("81df", id="indefinite-tag"),
        pytest.param("811f", id="indefinite-int"),
        pytest.param("81f818", id="simple-value-in-two-bytes"),
        pytest.param("81f8ff", id="unknown-simple-value"),
        pytest.param("81e0", id="unassigned-simple-value"),
        pytest.param("815f6161ff", id="text-among-bytes"),
        pytest.param("817f4161ff", id="bytes-among-text"),
        pytest.param("817f7f6161ffff", id="chunks-in-chunks"),
        pytest.param("817fc16161ff", id="tagged-chunk"),
        pytest.param("8161ff", id="not-utf-8"),
        pytest.param("8163eda080", id="surrogate"),
        pytest.param("81a1810101", id="list-as-key"),
        pytest.param("81a1a001", id="map-as-key"),
        pytest.param("81a1e001", id="simple-value-as-key"),
        pytest.param("81a1f701", id="undefined-as-key"),
        pytest.param("81" * 513 + "01", id="nested-513"),
        pytest.param("c1" * 513 + "01", id="tagged-513"),
        pytest.param("81" * 5000, id="nested-forever"),
        pytest.param("9f" * 5000, id="nested-forever-indefinite"),
        pytest.param("c1" * 5000, id="tagged-forever"),
        pytest.param("9bffffffffffffffff", id="array-of-2-to-64"),
        pytest.param("bbffffffffffffffff", id="map-of-2-to-64"),
        pytest.param("7b00000000ffffffff", id="text-of-4-GiB"),
        pytest.param("815bffffffffffffffff", id="bytes-of-2-to-64"),
    ],
)
def test_wrong_cbor_is_refused_and_earlier_packets_are_not_lost(bad: str, cut: Cut) -> None:
    encode = CBOR.encoder()
    # What follows is long enough to run an unfinished text past its end, and is not UTF-8.
    stream = encode(["p", 1]) + encode(["p", 2]) + bytes.fromhex(bad) + b"\xff" * 600
    packets, error = read(CBOR, cut(stream))
    assert packets == [["p", 1], ["p", 2]]
    assert isinstance(error, FramingError)


def test_cbor_nested_as_deep_as_perl_sends_it_is_read(cut: Cut) -> None:
    packets, error = read(CBOR, cut(b"\x81" * 511 + b"\x01"))
    assert error is None
    assert len(packets) == 1


def test_an_escaped_pair_of_surrogates_is_one_character() -> None:
    assert read(JSON, [b'["\\ud83d\\ude00\\u00e4"]']) == ([["\U0001f600ä"]], None)


def test_json_nested_as_deep_as_perl_sends_it_is_read() -> None:
    packets, error = read(JSON, [b"[" * 512 + b"]" * 512])
    assert error is None
    assert len(packets) == 1


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param({0: "p"}, id="map"),
        pytest.param("p", id="text"),
        pytest.param(b"p", id="bytes"),
        pytest.param(5, id="int"),
        pytest.param(None, id="nil"),
        pytest.param([None, 1], id="name-nil"),
        pytest.param([True, 1], id="name-bool"),
        pytest.param([math.nan, 1], id="name-nan"),
        pytest.param([["p"], 1], id="name-list"),
    ],
)
def test_a_packet_that_is_not_an_array_with_a_name_is_refused(packet: object) -> None:
    with pytest.raises(FramingError):
        check_packet(packet)


@pytest.mark.parametrize("packet", [[], [""], ["p"], ["p", None], [5, 1]])
def test_a_packet_that_is_one_passes(packet: list[Any]) -> None:
    check_packet(packet)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("5", "5", id="text"),
        pytest.param(5, "5", id="int"),
        pytest.param(-(2**63), "-9223372036854775808", id="negative"),
        pytest.param(1e3, "1000", id="whole-float"),
        pytest.param(0.1, "0.1", id="float"),
        pytest.param(1e20, "1e+20", id="large-float"),
    ],
)
def test_a_number_that_perl_sends_as_a_name_is_what_perl_prints(name: object, text: str) -> None:
    assert name_of_port(name) == text


# --- the limit --------------------------------------------------------------------


def sized(framing: Framing, size: int, *, of_ints: bool) -> bytes:
    """A packet of so many bytes: one long text, or many small elements."""
    if framing is CBOR:
        if of_ints:
            return b"\x9a" + (size - 5).to_bytes(4, "big") + b"\x07" * (size - 5)
        return b"\x81\x79" + (size - 4).to_bytes(2, "big") + b"x" * (size - 4)
    if framing is MSGPACK:
        if of_ints:
            return b"\xdd" + (size - 5).to_bytes(4, "big") + b"\x07" * (size - 5)
        return b"\x91\xda" + (size - 4).to_bytes(2, "big") + b"x" * (size - 4)
    return b"[" + (b" " * (size - 3) + b"7" if of_ints else b'"' + b"x" * (size - 4) + b'"') + b"]"


@each_framing
@pytest.mark.parametrize("of_ints", [True, False], ids=["many-elements", "one-text"])
@pytest.mark.parametrize(
    "ahead", [0, *(pytest.param(size, marks=pytest.mark.no_cover) for size in (1, 990, 1000, 5000))]
)
def test_the_limit_is_exact_however_the_stream_is_cut(framing: Framing, of_ints: bool, ahead: int, cut: Cut) -> None:
    small = framing.encoder()(["p"])
    before = small * (ahead // len(small))
    for size in (900, 999, 1000):
        data = sized(framing, size, of_ints=of_ints)
        packets, error = read(framing, cut(before + data + small + data), limit=1000)
        assert error is None
        assert len(packets) == len(before) // len(small) + 3
    for size in (1001, 1002, 1500, 3000):
        packets, error = read(framing, cut(before + sized(framing, size, of_ints=of_ints) + small), limit=1000)
        assert isinstance(error, FramingError)
        assert packets == [["p"]] * (len(before) // len(small))


@each_framing
def test_many_small_messages_in_one_read_do_not_trip_the_limit(framing: Framing) -> None:
    data = framing.encoder()(["p", 1]) * 10_000
    packets, error = read(framing, [data], limit=20)
    assert error is None
    assert len(packets) == 10_000


@each_framing
@pytest.mark.parametrize("of_ints", [True, False], ids=["many-elements", "one-text"])
def test_an_endless_message_is_refused_as_soon_as_the_limit_is_reached(framing: Framing, of_ints: bool) -> None:
    data = sized(framing, 60_000, of_ints=of_ints)
    decoder = framing.decoder(Limits(5000))
    fed = 0
    with pytest.raises(framing.errors):
        for start in range(0, len(data), 100):
            fed += 100
            decoder.feed(data[start : start + 100])
            assert list(decoder) == []
    assert fed <= 5000


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("9a00002711", id="array"),
        pytest.param("9bffffffffffffffff", id="array-of-2-to-64"),
        pytest.param("b91389", id="map"),
        pytest.param("8261707a00002711", id="text"),
        pytest.param("815a00002711", id="bytes"),
    ],
)
def test_cbor_that_announces_more_than_a_message_may_have_is_refused_at_its_header(header: str, cut: Cut) -> None:
    packets, error = read(CBOR, cut(bytes.fromhex(header)))
    assert packets == []
    assert "more than 10000 bytes" in str(error)


@pytest.mark.parametrize("header", ["815c", "9f9fffdc", "8281ff", "a1ff"])
def test_cbor_with_a_header_that_cannot_be_there_is_refused_at_once(header: str, cut: Cut) -> None:
    assert "not CBOR" in str(read(CBOR, cut(bytes.fromhex(header)))[1])


def peak_memory(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_decoder_that_never_got_much_takes_little_memory() -> None:
    """Three quarters of it are msgpack's room for levels of nesting."""
    decoders: list[object] = []

    def make() -> None:
        for _ in range(100):
            decoder = MSGPACK.decoder(Limits(2**26))
            decoder.feed(MSGPACK.encoder()(["", "time"]))
            assert list(decoder) == [["", "time"]]
            decoders.append(decoder)

    assert peak_memory(make) < 100 * 64 * 1024


@pytest.mark.parametrize("end", [1, 2**64], ids=["encoded", "refused"])
def test_encoder_that_nobody_replaces_keeps_no_memory_of_a_large_message(end: int) -> None:
    encode, text = make_resting_encoder(), "x" * 900_000
    tracemalloc.start()
    try:
        for _ in range(2):
            with suppress(UnencodableMessageError):
                encode(["p", text, end])
            assert tracemalloc.get_traced_memory()[0] < 100_000
        assert encode(["p", 1]) == MSGPACK.encoder()(["p", 1])
    finally:
        tracemalloc.stop()


@each_framing
def test_memory_of_a_large_message_is_given_back(framing: Framing) -> None:
    decoder, data = framing.decoder(Limits(2**20)), framing.encoder()(["p", "x" * 900_000])

    def decoded() -> int:
        count = 0
        for piece in (data[:500_000], data[500_000:]):
            decoder.feed(piece)
            for _packet in decoder:
                count += 1
            decoder.rest()  # which changes nothing within a message
        return count

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert decoded() == 1
        assert tracemalloc.get_traced_memory()[0] - before < 100_000
    finally:
        tracemalloc.stop()
    assert decoded() == 1


@pytest.mark.no_cover
@pytest.mark.slow
@each_framing
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param({"msgpack": b"\xdd\x00\x01\x00\x00", "cbor": b"\x9a\x00\x00\xff\x00", "json": b"["}, id="headers"),
        pytest.param(
            {
                "msgpack": b"\xdd\x00\x01\x00\x00" + b"\x07" * 60_000,
                "cbor": b"\x9a\x00\x00\xff\x00" + b"\x07" * 60_000,
                "json": b'["' + b"\\n" * 60_000,
            },
            id="body",
        ),
        pytest.param({"msgpack": b"", "cbor": b"\x9f", "json": b"  \n "}, id="nothing"),
    ],
)
def test_memory_stays_bounded_whatever_a_peer_sends(framing: Framing, attack: dict[str, bytes]) -> None:
    # Fed in tiny pieces, because keeping each piece apart is where the overhead would be.
    data = attack[framing.name] * 2000

    def work() -> None:
        read(framing, (data[start : start + 3] for start in range(0, min(len(data), 300_000), 3)), limit=65_536)

    # The C Unpacker sets aside up to 80 KB for each of 1024 levels of lists that were only announced.
    announced = 1024 * 81_000 if framing is MSGPACK else 0
    assert peak_memory(work) < 65_536 * 40 + announced


class Counting:
    """A compiled pattern that counts the bytes it looked at."""

    def __init__(self, pattern: Any) -> None:
        self.pattern, self.seen = pattern, 0

    def __getattr__(self, name: str) -> Any:
        def counted(data: bytes, position: int = 0) -> Any:
            match = getattr(self.pattern, name)(data, position)
            self.seen += (match.end() if match else len(data)) - position
            return match

        return counted


@pytest.mark.no_cover
def test_json_is_scanned_once_however_it_is_cut(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is counted, not timed: each byte is looked at once, plus one per string for its quote."""
    patterns = [Counting(getattr(framing_json, name)) for name in ("_STRUCTURAL", "_STRING_REST", "_WHITE_SPACE")]
    for name, pattern in zip(("_STRUCTURAL", "_STRING_REST", "_WHITE_SPACE"), patterns, strict=True):
        monkeypatch.setattr(framing_json, name, pattern)
    data = json.dumps(["p", ["x" * 50, {'k\\"': "\\" * 9}] * 100]).encode() * 5
    assert len(read(JSON, cut(data), limit=len(data))[0]) == 5
    assert sum(pattern.seen for pattern in patterns) <= len(data)


@pytest.mark.no_cover
def test_cbor_is_scanned_once_however_it_is_cut(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work is counted, not timed: each header is looked at once, and once more for each end of a read in it."""
    calls = []
    plain = cbor_scanner.CborScanner._skip_header
    monkeypatch.setattr(
        cbor_scanner.CborScanner, "_skip_header", lambda self, size: calls.append(self._position) or plain(self, size)
    )
    decoded = []
    decode_one = CborDecoder._decode_one
    monkeypatch.setattr(
        CborDecoder, "_decode_one", lambda self, item: decoded.append(len(item)) or decode_one(self, item)
    )
    data = CBOR.encoder()(["p", ["x" * 50, {"k" * 300: 2**40}] * 100])
    pieces = list(cut(data * 5))
    packets, error = read(CBOR, pieces, limit=len(data))
    assert (len(packets), error) == (5, None)
    headers = 5 * (3 + 100 * 4)
    longest = 9  # bytes of a header, each of which may come alone
    assert len(calls) <= headers * (longest if len(pieces[0]) == 1 else 2)
    assert len(set(calls)) * 5 <= headers + 5
    assert sum(decoded) <= len(data) * 5


def test_cbor_calls_its_decoder_once_for_each_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless item is not decoded before it is complete."""
    made = []
    new_decode = CborDecoder._new_decode
    monkeypatch.setattr(
        CborDecoder, "_new_decode", lambda self, file: made.append(len(file.getvalue())) or new_decode(self, file)
    )
    data = CBOR.encoder()(["p", "x" * 100_000])
    packets, error = read(CBOR, [data[start : start + 100] for start in range(0, len(data), 100)], limit=len(data))
    assert (len(packets), error) == (1, None)
    assert sum(made) <= len(data) + 200


# --- properties -------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts
json_scalars |= st.floats(allow_nan=False, allow_infinity=False)
msgpack_scalars = json_scalars | st.binary(max_size=20) | st.just(math.inf)


def packets_of(scalars: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    value = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
    )
    return st.builds(lambda name, rest: [name, *rest], texts, st.lists(value, max_size=4))


STRATEGIES = {
    "msgpack": packets_of(msgpack_scalars, msgpack_scalars),
    "cbor": packets_of(msgpack_scalars, msgpack_scalars),
    "json": packets_of(json_scalars, texts),
}
CBOR_BITS = [
    *(bytes([major << 5 | length]) for major in range(8) for length in (0, 1, 2, 24, 25, 31)),
    *(b"\x5f", b"\x7f", b"\x9f", b"\xbf", b"\xff", b"\xff", b"\x41\xff", b"\x61a", b"\xf6", b"\xf7", b"\xd9\x01\x02"),
]
GARBAGE = {
    "msgpack": st.binary(max_size=60),
    "cbor": st.binary(max_size=60) | st.lists(st.sampled_from(CBOR_BITS), max_size=30).map(b"".join),
    "json": st.binary(max_size=30) | st.text('[]{}",:\\ 0un1eE.\n', max_size=60).map(str.encode),
}
cuts = st.lists(st.integers(0, 400), max_size=6).map(sorted)


def split(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *places, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@each_framing
@given(data=st.data())
def test_encoded_packets_are_decoded_in_any_split(framing: Framing, data: st.DataObject) -> None:
    packets = data.draw(st.lists(STRATEGIES[framing.name], max_size=4))
    encoded = b"".join(map(framing.encoder(), packets))
    assert read(framing, split(encoded, data.draw(cuts))) == (packets, None)


@pytest.mark.slow
@each_framing
@given(data=st.data())
def test_random_bytes_give_packets_or_a_framing_error_the_same_in_any_split(
    framing: Framing, data: st.DataObject
) -> None:
    packets = data.draw(st.lists(STRATEGIES[framing.name], max_size=2))
    stream = b"".join(map(framing.encoder(), packets)) + data.draw(GARBAGE[framing.name])
    limit = data.draw(st.sampled_from([10, 40, LIMIT]))
    got, error = read(framing, [stream], limit)
    again, error_again = read(framing, split(stream, data.draw(cuts)), limit)
    assert repr(got) == repr(again)  # repr, because NaN is not equal to itself
    assert (error is None) == (error_again is None)


@each_framing
@given(data=st.data())
def test_received_packets_can_be_sent_on(framing: Framing, data: st.DataObject) -> None:
    got, _ = read(framing, [data.draw(GARBAGE[framing.name])])
    encode = framing.encoder()
    for packet in got:
        if isinstance(packet, list):
            assert repr(read(framing, [encode(packet)])) == repr(([packet], None))


def test_every_row_of_the_table_has_its_own_name() -> None:
    assert [framing.name for framing in FRAMINGS.values()] == list(FRAMINGS) == ["msgpack", "cbor", "json"]
    decoder: Decoder = FRAMINGS["json"].decoder(Limits(10))
    assert list(decoder) == []


@pytest.mark.parametrize(("without", "left"), [("cbor2", "msgpack json"), ("nothing", "msgpack cbor json")])
def test_cbor_is_offered_if_cbor2_is_installed(without: str, left: str) -> None:
    program = (
        f"import sys; sys.modules['{without}'] = None; from aemp_gevent.wire.framing import FRAMINGS; print(*FRAMINGS)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=20)
    assert (done.stdout, done.stderr) == (left + "\n", "")
