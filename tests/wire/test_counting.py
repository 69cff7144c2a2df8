# SPDX-License-Identifier: MIT
"""Elements are counted: the same by sender and receiver, in every framing, wherever the stream is cut."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import FramingError, MessageTooLargeError
from aemp_gevent.wire import limits
from aemp_gevent.wire.counting import MsgpackCounter, count_json
from aemp_gevent.wire.framing import FRAMINGS, Framing
from aemp_gevent.wire.limits import Limits, count_elements

each_framing = pytest.mark.parametrize("framing", FRAMINGS.values(), ids=list(FRAMINGS))
READ = 256 * 1024
BYTES = 2**26

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=300), st.sampled_from(["[{,:", '"\\"', " \\", "[]{}"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=5),
    max_leaves=50,
)
PACKETS = st.lists(VALUES, max_size=20)


def cut(data: bytes, size: int = READ) -> Iterator[bytes]:
    return (data[begin : begin + size] for begin in range(0, len(data), size))


def refusal(framing: Framing, data: bytes, elements: int, size: int = READ) -> str:
    """Return why a decoder refuses, or ``""``."""
    decoder = framing.decoder(Limits(BYTES, elements))
    try:
        for piece in cut(data, size):
            decoder.feed(piece)
            for _ in decoder:
                pass
    except framing.errors as error:
        return str(framing.translate(error))
    return ""


def by_hand(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(by_hand, value.values()))
    return 1 + sum(map(by_hand, value)) if isinstance(value, list) else 1


@pytest.mark.slow
@given(PACKETS)
def test_sender_counts_every_value(packet: list[Any]) -> None:
    assert count_elements(packet) == by_hand(packet)


@pytest.mark.slow
@given(PACKETS, st.integers(1, 40))
def test_receiver_counts_the_same_in_msgpack(packet: list[Any], size: int) -> None:
    count = count_elements(packet)
    data = FRAMINGS["msgpack"].encoder()(packet)
    for limit in (count, count - 1):
        counter = MsgpackCounter(limit)
        try:
            for piece in cut(data, size):
                counter.feed(piece)
            assert limit == count
        except FramingError:
            assert limit == count - 1


@pytest.mark.slow
@given(PACKETS)
def test_receiver_counts_the_same_in_json(packet: list[Any]) -> None:
    count = count_elements(packet)
    data = FRAMINGS["json"].encoder()(packet)
    count_json(data, count)
    if b'"' not in data:
        count_json(data.replace(b"[]", b"[ ]").replace(b"{}", b"{\n}").replace(b",", b" ,\t"), count)
    with pytest.raises(FramingError, match="elements"):
        count_json(data, count - 1)


UNCOUNTED = limits.UNCOUNTED_BYTES // 16
"""What is never counted in most of these tests: they are about more elements than that."""

MANY = UNCOUNTED + 2_000

DECODERS = ("aemp_gevent.wire.framing_msgpack", "aemp_gevent.wire.cbor_scanner")

SHAPES: dict[str, list[Any]] = {
    "numbers": ["", [1] * MANY],
    "flat": list(range(MANY)),
    "floats": ["", [1.5] * MANY],
    "texts": ["", ["ab,c"] * MANY],
    "empty-lists": ["", [[]] * MANY],
    "lists-of-lists": ["", [[[], []]] * (MANY // 3)],
    "maps": ["", [{"a": 1}] * (MANY // 3)],
    "one-map": ["", {f"key {number}": number for number in range(MANY // 2)}],
}


@pytest.fixture
def little_is_uncounted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (limits, *filter(None, map(sys.modules.get, DECODERS))):
        monkeypatch.setattr(module, "UNCOUNTED_BYTES", UNCOUNTED)


@each_framing
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("before", "size"), [(0, READ), pytest.param(1, 6_007, marks=pytest.mark.no_cover), (70, UNCOUNTED)]
)
def test_message_with_more_elements_than_it_may_have_is_refused(
    little_is_uncounted: None, framing: Framing, shape: str, before: int, size: int
) -> None:
    """By both sides, and exactly; whatever came before it in the same reads."""
    count = count_elements(SHAPES[shape])
    assert MANY <= count < MANY + 10
    is_refused_with_one_less(framing, SHAPES[shape], before, size)


@pytest.mark.no_cover
@each_framing
@pytest.mark.slow
def test_message_of_more_bytes_than_are_never_counted_is_counted(framing: Framing) -> None:
    is_refused_with_one_less(framing, ["", [1] * (limits.UNCOUNTED_BYTES + 1)], 1000, READ)


def is_refused_with_one_less(framing: Framing, packet: list[Any], before: int, size: int) -> None:
    encode = framing.encoder()
    data, count = encode(packet), count_elements(packet)
    stream = encode(["p", "before", "x" * 50]) * before + data
    assert refusal(framing, stream, count, size) == ""
    assert refusal(framing, stream, count - 1, size) != ""
    Limits(BYTES, count).check(packet, len(data))
    with pytest.raises(MessageTooLargeError, match=f"{count} elements, and max_message_elements is {count - 1}"):
        Limits(BYTES, count - 1).check(packet, len(data))


@each_framing
@pytest.mark.parametrize("size", [READ, 65536, 1000])
def test_long_message_of_few_elements_is_accepted(framing: Framing, size: int) -> None:
    packet = ["p", "[{,:" * 500_000, ["x" * 1_000_000] * 2]
    data = framing.encoder()(packet)
    assert refusal(framing, data * 2, 1000, size) == ""
    Limits(BYTES, 1000).check(packet, len(data))


@pytest.mark.no_cover
@pytest.mark.slow
@each_framing
def test_messages_of_less_than_a_read_are_not_counted(framing: Framing) -> None:
    data = framing.encoder()(["p", [1] * 50_000])
    assert len(data) < limits.UNCOUNTED_BYTES
    for size in (READ, 1000):
        assert refusal(framing, data * 6, 10, size) == ""


ELEMENTS = 60_000
"""A part of what is usual: looking at each takes long while memory is traced."""

BOMBS = {
    "msgpack": {
        "empty-lists": b"\xdd\x7f\xff\xff\xff" + b"\x90" * 1_000_000,
        "nested": b"\x92\xa1p\xdc\x7f\xff" + (b"\xdc\x7f\xff" + b"\x90" * 32767) * 20,
        "pairs-of-pairs": b"\x92\xa1p\xdd\x00\x0f\x00\x00" + b"\x81\xc0\x81\xc0\x90" * 400_000,
        "levels": b"\x91" * 1000 + b"\xdd\x00\x0f\x00\x00" + b"\x91\x90" * 320_000,
    },
    "json": {
        "empty-lists": b'["p",[' + b"[]," * 80_000 + b"0]]",
        "empty-maps": b'["p",[' + b"{}," * 80_000 + b"0]]",
        "numbers": b'["p",[' + b"0," * 200_000 + b"0]]",
    },
    "cbor": {
        "empty-lists": b"\x9f\x61p\x9a\x01\x00\x00\x00" + b"\x80" * 600_000,
        "maps": b"\x82\x61p\x9f" + b"\xa1\x00\x80" * 300_000 + b"\xff",
    },
}


@pytest.mark.no_cover
@pytest.mark.slow
@pytest.mark.parametrize(
    ("framing", "bomb"), [(framing, bomb) for framing in BOMBS if framing in FRAMINGS for bomb in BOMBS[framing]]
)
def test_bomb_is_refused_before_it_is_large(
    little_is_uncounted: None, framing: str, bomb: str, record_property: Any
) -> None:
    """Cut as a link cuts it; the memory is what the decoder has when it refuses, and the text of JSON besides."""
    data = BOMBS[framing][bomb]
    tracemalloc.start()
    try:
        said = refusal(FRAMINGS[framing], data, ELEMENTS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert said
    text = 2.5 * len(data) if framing == "json" else 0
    assert peak < 30 * 2**20 + text, (peak, said)
    record_property("hostile", f"{framing} {bomb}, bytes {len(data)}, peak {peak}: {said}")
