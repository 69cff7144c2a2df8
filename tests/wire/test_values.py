# SPDX-License-Identifier: MIT
"""Values that cannot travel are refused by each framing, with an error that names their place."""

from __future__ import annotations

import datetime
import gc
import math
import weakref
from typing import Any

import cbor2
import msgpack
import pytest

from aemp_gevent.errors import UnencodableMessageError
from aemp_gevent.wire import values
from aemp_gevent.wire.framing import FRAMINGS, Framing
from aemp_gevent.wire.limits import Limits
from tests.support.helpers import Proxy

MSGPACK, CBOR, JSON = FRAMINGS["msgpack"], FRAMINGS["cbor"], FRAMINGS["json"]

each_framing = pytest.mark.parametrize("framing", FRAMINGS.values(), ids=list(FRAMINGS))


def nested(depth: int, kind: str = "list") -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"k": value} if kind == "dict" else (value,) if kind == "tuple" else [value]
    return value


MYSELF: list[Any] = []
MYSELF += [MYSELF, MYSELF]


@each_framing
@pytest.mark.parametrize(
    ("packet", "place"),
    [
        pytest.param(["", "via", "a", "b", ["p", "tag", object()]], "argument 1 of 'tag'", id="via"),
        pytest.param(["", "via", "a", "b", ["", "call", {}, "p", 7, object()]], "element 1", id="call-via"),
        pytest.param(["", "via", "a", "b", object()], "argument 3 of 'via'", id="odd-via"),
        pytest.param(["", "call", object(), "p", "tag"], "part 2 of the packet", id="header"),
        pytest.param(["p", "call", object()], "argument 1 of 'call'", id="message-like-a-request"),
        pytest.param([object()], "the port name", id="port-name"),
    ],
)
def test_error_names_the_place_of_the_value_in_the_senders_call(
    framing: Framing, packet: list[Any], place: str
) -> None:
    with pytest.raises(UnencodableMessageError, match=f"cannot be encoded: {place} is an object, which"):
        framing.encoder()(packet)


@each_framing
@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(["p", Proxy()], id="tag"),
        pytest.param(["p", "tag", [1, {"k": Proxy()}]], id="inside"),
        pytest.param([Proxy(), "tag"], id="port-name"),
        pytest.param(["", Proxy()], id="request"),
        pytest.param(["", "kil1", "p", Proxy()], id="reason"),
        pytest.param(["", "via", "a", "b", Proxy()], id="via"),
    ],
)
def test_proxies_are_named_and_not_looked_into(framing: Framing, packet: list[Any]) -> None:
    with pytest.raises(UnencodableMessageError, match="is a Proxy, which"):
        framing.encoder()(packet)


@each_framing
@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param([1, {1, 2}], "element 1 is a set, which", id="set"),
        pytest.param([object()], "element 0 is an object", id="object"),
        pytest.param([0, 0, {"x": {1}}], "element 2, key 'x' is a set", id="in-a-map"),
        pytest.param([[1, [2, {3}]]], "element 0, element 1, element 1 is a set", id="in-lists"),
        pytest.param([(1, {2})], "element 0, element 1 is a set", id="in-a-tuple"),
        pytest.param([{(1, 2): 3}], r"element 0 has the key \(1, 2\), a tuple", id="tuple-key"),
        pytest.param([[{"a": {(): 1}}]], r"element 0, element 0, key 'a' has the key \(\), a tuple", id="deep-key"),
        pytest.param([{frozenset(): 1}], "element 0 has the key frozenset", id="frozenset-key"),
        pytest.param([{msgpack.ExtType(5, b"x"): 1}], "has the key ExtType", id="ext-type-key"),
        pytest.param([[msgpack.Timestamp(1)]], "element 0, element 0 is a Timestamp", id="timestamp"),
        pytest.param([datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)], "a datetime", id="datetime"),
        pytest.param(["a\ud800"], "element 0 has a lone surrogate at position 1", id="surrogate"),
        pytest.param([{"\ud800": 1}], "element 0 has the key .* lone surrogate", id="surrogate-key"),
        pytest.param([nested(values.MAX_NESTING)], "element 0 is nested deeper than 256", id="deep-lists"),
        pytest.param([nested(values.MAX_NESTING, "tuple")], "element 0 is nested deeper", id="deep-tuples"),
        pytest.param([nested(values.MAX_NESTING, "dict")], "element 0 is nested deeper", id="deep-maps"),
        pytest.param([nested(20_000)], "element 0 is nested deeper", id="very-deep"),
        pytest.param([1, MYSELF], "element 1 is nested deeper", id="contains-itself"),
    ],
)
def test_a_value_that_cannot_travel_is_named_and_harms_nothing_else(
    framing: Framing, message: list[Any], text: str
) -> None:
    encode = framing.encoder()
    before = encode(["p", 1])
    with pytest.raises(UnencodableMessageError, match=text):
        encode(["p", *message])
    assert encode(["p", 1]) == before


@pytest.mark.parametrize(
    ("framing", "message", "text"),
    [
        pytest.param(MSGPACK, [2**64], "element 0 is an int of more than 64 bits", id="msgpack-long-int"),
        pytest.param(MSGPACK, [[-(2**63) - 1]], "element 0, element 0 is an int of more", id="msgpack-negative"),
        pytest.param(MSGPACK, [{2**64: 1}], "element 0 has the key .* 64 bits", id="msgpack-long-int-key"),
        pytest.param(MSGPACK, [msgpack.ExtType(5, b"x")], "element 0 is an ExtType", id="msgpack-ext-type"),
        pytest.param(MSGPACK, [[msgpack.ExtType(5, b"x")]], "element 0, element 0 is an Ext", id="msgpack-ext-inside"),
        pytest.param(CBOR, [2**64], "element 0 is an int of more than 64 bits", id="cbor-long-int"),
        pytest.param(CBOR, [[-(2**63) - 1]], "element 0, element 0 is an int of more", id="cbor-negative"),
        pytest.param(CBOR, [{2**64: 1}], "element 0 has the key .* 64 bits", id="cbor-long-int-key"),
        pytest.param(CBOR, [cbor2.CBORTag(5, b"x")], "element 0 is a CBORTag", id="cbor-tag"),
        pytest.param(CBOR, [[datetime.date(2026, 1, 1)]], "element 0, element 0 is a date", id="cbor-date"),
        pytest.param(CBOR, [cbor2.undefined], "element 0 is a", id="cbor-undefined"),
        pytest.param(MSGPACK, [memoryview(b"abcd")[::2]], "was refused by msgpack", id="msgpack-odd-memoryview"),
        pytest.param(JSON, [1, b"x"], "element 1 is a bytes, which JSON cannot carry", id="json-bytes"),
        pytest.param(JSON, [{"x": [b"x"]}], "element 0, key 'x', element 0 is a bytes", id="json-bytes-inside"),
        pytest.param(JSON, [{1: 2}], "element 0 has the key 1, an int", id="json-int-key"),
        pytest.param(JSON, [{None: 2}], "element 0 has the key None", id="json-none-key"),
        pytest.param(JSON, [{True: 2}], "element 0 has the key True", id="json-bool-key"),
        pytest.param(JSON, [math.nan], "element 0 is nan", id="json-nan"),
        pytest.param(JSON, [{"x": -math.inf}], "element 0, key 'x' is -inf", id="json-inf"),
        pytest.param(JSON, [10**5000], "was refused by json", id="json-too-many-digits"),
    ],
)
def test_a_value_that_one_framing_cannot_carry_is_named(framing: Framing, message: list[Any], text: str) -> None:
    with pytest.raises(UnencodableMessageError, match=text):
        framing.encoder()(["p", *message])


@each_framing
def test_a_refused_message_is_not_kept(framing: Framing) -> None:
    wrong = {1, 2}
    kept = weakref.ref(wrong)
    gc.disable()
    try:
        with pytest.raises(UnencodableMessageError):
            framing.encoder()(["p", wrong])
        del wrong
        assert kept() is None
    finally:
        gc.enable()


@each_framing
def test_a_bad_port_name_is_named(framing: Framing) -> None:
    with pytest.raises(UnencodableMessageError, match="the port name is a set"):
        framing.encoder()([{1}])


@each_framing
@pytest.mark.parametrize("kind", ["list", "tuple", "dict"])
def test_the_deepest_message_that_is_sent_is_also_received(framing: Framing, kind: str) -> None:
    packet = ["p", nested(values.MAX_NESTING - 1, kind)]
    decoder = framing.decoder(Limits(10_000))
    decoder.feed(framing.encoder()(packet))
    (received,) = decoder
    assert framing.encoder()(received) == framing.encoder()(packet)
