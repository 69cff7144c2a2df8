# SPDX-License-Identifier: MIT
"""Lists that are only announced, and maps whose keys were chosen with ill will: what they may cost."""

from __future__ import annotations

import tracemalloc
from time import thread_time
from typing import Any

import pytest

from aemp_gevent.errors import FramingError, UnencodableMessageError
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.framing_msgpack import _SMALL_LIST, _SMALL_MAP
from aemp_gevent.wire.limits import MAX_NUMBER_KEYS, Announced, Limits
from tests.support.helpers import wait_until
from tests.support.networking import Inbox, MakeNode, RawPeer
from tests.support.seams import network_of

LIMITS = Limits(64 * 2**20)
WITH_NUMBERS = ["msgpack", *(["cbor"] if "cbor" in FRAMINGS else [])]
LARGE = {
    "list": list(range(_SMALL_LIST + 1)),
    "map": dict.fromkeys(map(str, range(_SMALL_MAP + 1))),
    "both": [list(range(_SMALL_LIST + 1)), dict.fromkeys(map(str, range(_SMALL_MAP + 1)))],
    "nested": [[dict.fromkeys(map(str, range(_SMALL_MAP + 1)))] * 2, [list(range(3000))] * 3],
}


def header(code: int, count: int) -> bytes:
    return bytes((code,)) + count.to_bytes(4, "big")


def map_of(keys: list[int], framing: str) -> bytes:
    """Return a packet with a map with these keys, which no encoder of ours makes."""
    empty = FRAMINGS[framing].encoder()(["p", {}])[:-1]
    start = header(0xDF, len(keys)) if framing == "msgpack" else header(0xBA, len(keys))
    encode = FRAMINGS[framing].encoder()
    return empty + start + b"".join(encode([key])[1:] + b"\x01" for key in keys)


# --- what is large, and may be -----------------------------------------------------------


@pytest.mark.parametrize("size", [100, 10**6])
@pytest.mark.parametrize("what", LARGE)
@pytest.mark.parametrize("quickly", [True, False])
def test_large_lists_and_maps_come_as_they_were_sent_between_others(what: str, size: int, quickly: bool) -> None:
    encode = FRAMINGS["msgpack"].encoder()
    sent: list[Any] = []
    for number in range(3):
        sent += [["p", number], ["p", LARGE[what]], ["p", "x" * 200, number], ["p", LARGE["list"], LARGE[what]]]
    stream = b"".join(map(encode, sent))
    decoder = FRAMINGS["msgpack"].decoder(LIMITS)
    got: list[Any] = []
    for begin in range(0, len(stream), size):
        decoder.feed(stream[begin : begin + size])
        if not quickly:
            got += decoder
            continue
        try:
            for packet in decoder.quickly():
                got.append(packet)  # what came before an error counts
        except ValueError as error:
            got += decoder.retry(error)
    assert got == sent


@pytest.mark.parametrize("what", LARGE)
def test_links_take_large_lists_and_maps(make_node: MakeNode, what: str) -> None:
    """Among others in one read, more than are handled before others have their turn."""
    node = make_node()
    inbox = Inbox(node)
    name = str(inbox).partition("#")[2]
    with RawPeer.dial(node).shake() as peer:
        packets = [packet for number in range(300) for packet in ([name, number], ["", "devnull"])]
        peer.send(*packets[:400], [name, LARGE[what]], *packets[400:], [name, LARGE[what]], [name, "end"])
        wait_until(lambda: ("end",) in inbox.messages)
    numbers = [message[0] for message in inbox.messages if isinstance(message[0], int)]
    assert numbers == list(range(300))
    assert [message[0] for message in inbox.messages if not isinstance(message[0], int)] == [*2 * [LARGE[what]], "end"]


# --- announcements -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [_SMALL_LIST, 10_000, 900_000])
@pytest.mark.parametrize("code", [0xDD, 0xDF], ids=["lists", "maps"])
@pytest.mark.parametrize("behind", [b"", b"\x90"], ids=["first", "behind-another-packet"])
@pytest.mark.slow
def test_twenty_peers_that_announce_and_send_nothing_take_little_memory(code: int, count: int, behind: bytes) -> None:
    shared = Announced(16 * 2**20)
    limits = LIMITS._replace(announced=shared)
    levels = (b"" if code == 0xDD else b"\x01") + header(code, count // (1 if code == 0xDD else 2))
    decoders, refused = [], 0
    tracemalloc.start()
    try:
        for _ in range(20):
            decoder = FRAMINGS["msgpack"].decoder(limits)
            decoder.feed(behind + header(0xDD, 1)[:1] + (1).to_bytes(4, "big") + levels[-5:] + levels * 500)
            try:
                list(decoder)
                decoders.append(decoder)
            except (ValueError, FramingError) as error:
                refused += "elements" in str(error)
            del decoder
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert shared.total <= shared.limit
    assert allocated < 64 * 2**20
    if count > _SMALL_LIST:
        assert refused > 10


def test_announcing_is_over_when_the_rest_comes_or_the_link_goes() -> None:
    shared = Announced(100_000)
    decoder = FRAMINGS["msgpack"].decoder(LIMITS._replace(announced=shared))
    decoder.feed(header(0xDD, 10_000))
    assert list(decoder) == []
    assert shared.total == 8 * 10_000
    other = FRAMINGS["msgpack"].decoder(LIMITS._replace(announced=shared))
    other.feed(header(0xDD, 20_000))
    with pytest.raises(FramingError, match="the peer announced 20000 more elements"):
        list(other)
    assert shared.total == 8 * 10_000, "who could never have so much takes nothing from others"
    decoder.feed(b"\x01" * 9_000)
    assert list(decoder) == []
    assert shared.total == 8 * 1_000
    decoder.feed(b"\x01" * 1_000 + header(0xDD, 5000))
    assert [len(packet) for packet in decoder] == [10_000]
    assert shared.total == 8 * 5000
    del decoder
    assert shared.total == 0


@pytest.mark.parametrize("slow", [0, 1, 2], ids=["the-first", "another", "the-newest"])
def test_message_that_comes_most_slowly_makes_room_for_the_others(slow: int) -> None:
    now = 0.0
    shared = Announced(100_000, clock=lambda: now)
    decoders = [FRAMINGS["msgpack"].decoder(LIMITS._replace(announced=shared)) for _ in range(3)]
    for decoder in decoders[:2]:
        decoder.feed(header(0xDD, 6_000))
        assert list(decoder) == []
    for now in range(1, 10):  # noqa: B007  # it is the clock
        for decoder in decoders[:2]:
            decoder.feed(b"\x01" * (1 if decoder is decoders[slow] else 100))
            assert list(decoder) == []
    lost = decoders[slow]
    decoders[2].feed(header(0xDD, 6_000) + b"\x01" * (1 if slow == 2 else 150))
    if slow < 2:
        assert list(decoders[2]) == []
        lost.feed(b"\x01")
    with pytest.raises(FramingError, match=r"the peer announced 59\d\d more elements, which"):
        list(lost)
    for decoder in decoders:
        if decoder is not lost:
            decoder.feed(b"\x01" * 6_000)
            assert [len(packet) for packet in decoder if isinstance(packet, list)] == [6_000]
    assert shared.total == 0


def test_of_messages_that_come_equally_slowly_the_one_that_has_waited_longest_goes() -> None:
    shared = Announced(100_000)
    decoders = [FRAMINGS["msgpack"].decoder(LIMITS._replace(announced=shared)) for _ in range(12)]
    for decoder in decoders:
        decoder.feed(header(0xDD, 1_200))
        assert list(decoder) == []
    lost = []
    for number, decoder in enumerate(decoders):
        decoder.feed(b"\x01" * 1_200)
        try:
            assert [len(packet) for packet in decoder] == [1_200]
        except FramingError:
            lost.append(number)
    assert lost == [0, 1]


def test_nobody_uses_up_by_one_message_what_all_may_announce() -> None:
    announced = Announced()
    decoder = FRAMINGS["msgpack"].decoder(LIMITS._replace(announced=announced))
    half = LIMITS.elements // 2
    decoder.feed(b"\x92\xa1p" + header(0xDD, half) + header(0xDD, half - 100))
    assert list(decoder) == []
    assert announced.total == 8 * (LIMITS.elements - 100 - 1)
    decoder.feed(header(0xDD, 1000))
    with pytest.raises(FramingError, match="more than 1000000 elements"):
        list(decoder)


def test_small_lists_hide_no_announcement() -> None:
    shared = Announced(10_000)
    decoder = FRAMINGS["msgpack"].decoder(LIMITS._replace(announced=shared))
    decoder.feed(header(0xDD, 10**5) + b"\x9f" + b"\x01" * 15 + b"\x8f" + b"\x01" * 30)
    with pytest.raises(FramingError, match="the peer announced 99998 more"):
        list(decoder)


def test_announcements_to_one_node_have_one_bound(make_node: MakeNode) -> None:
    node = make_node()
    network_of(node).link_maker.announced.limit = 100_000
    with RawPeer.dial(node, "127.0.0.1:8").shake() as one, RawPeer.dial(node, "127.0.0.1:9").shake() as other:
        one.sock.sendall(header(0xDD, 10_000))
        wait_until(lambda: network_of(node).link_maker.announced.total > 0)
        other.sock.sendall(header(0xDD, 10_000) + b"\x01" * 5_000)
        wait_until(lambda: network_of(node).link_maker.announced.total == 8 * 5_000)
        one.sock.sendall(b"\x01")
        assert one.closed()
        assert node.up_nodes() == ["127.0.0.1:9"]
        other.close()
        wait_until(lambda: network_of(node).link_maker.announced.total == 0)


# --- keys --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 10**7])
@pytest.mark.parametrize("framing", WITH_NUMBERS)
def test_a_map_with_many_numbers_for_keys_is_refused(framing: str, size: int) -> None:
    """It is not a secret which numbers share a place in the table."""
    encoder, decoder = FRAMINGS[framing].encoder(), FRAMINGS[framing].decoder(LIMITS)
    keys = list(range(MAX_NUMBER_KEYS))
    most = map_of(keys, framing)
    decoder.feed(most)
    assert list(decoder) == [["p", dict.fromkeys(keys, 1)]]
    assert encoder(["p", dict.fromkeys(keys, 1)])
    data = map_of([*keys, 10**9], framing)
    with pytest.raises(FramingError, match="more than 4096 keys that are numbers"):
        for begin in range(0, len(data), size):
            decoder.feed(data[begin : begin + size])
            list(decoder)
    with pytest.raises(UnencodableMessageError, match="more than 4096 keys that are numbers; make them texts"):
        encoder(["p", dict.fromkeys([*keys, 10**9], 1)])


@pytest.mark.no_cover
@pytest.mark.skipif("cbor" not in FRAMINGS, reason="cbor2 is not installed")
@pytest.mark.slow
def test_a_read_of_many_small_packets_before_a_large_map_takes_no_time() -> None:
    """What is behind each packet must not be copied for it."""
    decoder = FRAMINGS["cbor"].decoder(LIMITS)
    small = FRAMINGS["cbor"].encoder()([]) * 200_000
    keys = list(range(MAX_NUMBER_KEYS))
    before = thread_time()
    decoder.feed(small + map_of(keys, "cbor") + small[:100] + map_of([*keys, 10**9], "cbor"))
    got: list[Any] = []
    with pytest.raises(FramingError, match="more than 4096 keys that are numbers"):
        got.extend(packet for packet in decoder if packet)
    assert thread_time() - before < 1
    assert got == [["p", dict.fromkeys(keys, 1)]]


@pytest.mark.parametrize("framing", FRAMINGS)
def test_texts_may_be_keys_in_any_number(framing: str) -> None:
    packet = ["p", {str(number): number for number in range(3 * MAX_NUMBER_KEYS)}, {"n": [1] * 10_000}]
    decoder = FRAMINGS[framing].decoder(LIMITS)
    decoder.feed(FRAMINGS[framing].encoder()(packet))
    assert list(decoder) == [packet]


@pytest.mark.skipif("cbor" not in FRAMINGS, reason="cbor2 is not installed")
def test_numbers_for_values_are_not_counted_in_cbor() -> None:
    decoder = FRAMINGS["cbor"].decoder(LIMITS)
    packet = ["p", {f"key {number}": number for number in range(2 * MAX_NUMBER_KEYS)}]
    data = FRAMINGS["cbor"].encoder()(packet)
    got: list[Any] = []
    for begin in range(0, len(data), 5000):
        decoder.feed(data[begin : begin + 5000])
        got += decoder
    assert got == [packet]
