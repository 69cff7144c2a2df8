# SPDX-License-Identifier: MIT
"""All framings carry the same messages, with the exceptions in docs/reference/framings.md."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import UnencodableMessageError
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.limits import Limits

INTS = {"msgpack": (-(2**63), 2**64 - 1), "cbor": (-(2**63), 2**64 - 1), "json": (-(10**4000), 10**4000)}


class RefusedError(Exception):
    """The documentation says that this cannot travel."""


def as_documented(framing: str, value: Any, *, from_perl: bool = False) -> Any:
    """Return what a value arrives as."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        least, greatest = INTS[framing]
        if not least <= value <= greatest:
            raise RefusedError
        return value
    if isinstance(value, float):
        if framing == "json" and not math.isfinite(value):
            raise RefusedError
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        if framing == "json":
            raise RefusedError
        return bytes(value).decode("latin-1") if from_perl and framing == "cbor" else bytes(value)
    if isinstance(value, (list, tuple)):
        return [as_documented(framing, element, from_perl=from_perl) for element in value]
    assert isinstance(value, dict)
    return {
        as_documented_key(framing, key, from_perl=from_perl): as_documented(framing, element, from_perl=from_perl)
        for key, element in value.items()
    }


def as_documented_key(framing: str, key: Any, *, from_perl: bool) -> Any:
    if framing == "json" and not isinstance(key, str):
        raise RefusedError
    return as_documented(framing, key, from_perl=from_perl)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# Around every limit.
ints = st.integers() | st.sampled_from(
    [sign * 2**power + off for sign in (1, -1) for power in (63, 64) for off in (-1, 0, 1)]
)
scalars = st.none() | st.booleans() | ints | st.floats(allow_nan=False) | texts | st.binary(max_size=8)
keys = texts | st.none() | st.booleans() | ints | st.floats(allow_nan=False) | st.binary(max_size=4)
values = st.recursive(
    scalars | st.binary(max_size=8).map(bytearray) | st.binary(max_size=8).map(memoryview),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=2)
    ),
    max_leaves=8,
)


def arrival(framing: str, packet: list[Any], *, from_perl: bool) -> list[Any]:
    made = FRAMINGS[framing]
    decoder = (made.foreign_decoder if from_perl else made.decoder)(Limits(10**6))
    decoder.feed(made.encoder()(packet))
    (received,) = decoder
    return received


@pytest.mark.parametrize("from_perl", [False, True], ids=["to-us", "to-one-who-takes-it-for-perl"])
@given(message=st.lists(values, max_size=3))
def test_every_framing_carries_a_message_as_documented_or_refuses_it(from_perl: bool, message: list[Any]) -> None:
    packet = ["p", *message]
    for framing in FRAMINGS:
        try:
            expected = as_documented(framing, packet, from_perl=from_perl)
        except RefusedError:
            with pytest.raises(UnencodableMessageError):
                arrival(framing, packet, from_perl=from_perl)
            continue
        # repr, because 1, 1.0 and True are equal.
        assert repr(arrival(framing, packet, from_perl=from_perl)) == repr(expected)


@pytest.mark.slow
@given(
    packet=st.lists(
        st.recursive(st.none() | st.booleans() | texts | st.integers(-(2**63), 2**63 - 1), st.lists), max_size=4
    )
)
def test_values_of_all_framings_arrive_the_same(packet: list[Any]) -> None:
    packet = ["p", *packet]
    assert {repr(arrival(framing, packet, from_perl=False)) for framing in FRAMINGS} == {repr(packet)}
