# SPDX-License-Identifier: MIT
"""Patterns, compiled to predicates of a whole message."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Protocol

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.ports.patterns import any_, match_any_of, match_elements
from tests.support.helpers import Proxy

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.binary()
MESSAGES = st.lists(SCALARS, max_size=6).map(tuple)


@pytest.mark.parametrize(
    ("pattern", "message", "wanted"),
    [
        pytest.param([], (), True, id="empty-matches-empty"),
        pytest.param([], ("a",), True, id="empty-matches-all"),
        pytest.param(["a"], (), False, id="message-too-short"),
        pytest.param(["a", any_], ("a",), False, id="any-wants-an-element"),
        pytest.param(["a", any_], ("a", None), True, id="any-takes-None"),
        pytest.param([any_, "b"], ("x", "b", "more"), True, id="only-the-first-elements-count"),
        pytest.param(["a"], ("b", "a"), False, id="position-counts"),
        pytest.param([int], (1,), True, id="type"),
        pytest.param([int], (True,), True, id="type-is-isinstance"),
        pytest.param([int], ("1",), False, id="type-other"),
        pytest.param([re.compile("b")], ("abc",), True, id="regex-searches"),
        pytest.param([re.compile("^b")], ("abc",), False, id="regex-anchored"),
        pytest.param([re.compile("1")], (1,), False, id="regex-only-strings"),
        pytest.param([re.compile("b")], (b"abc",), False, id="regex-no-bytes"),
        pytest.param([lambda element: element > 3], (4,), True, id="predicate"),
        pytest.param([lambda element: element > 3], (3,), False, id="predicate-false"),
        pytest.param([lambda element: [element]], (0,), True, id="predicate-truthy"),
        pytest.param([1], (1.0,), True, id="equality"),
        pytest.param([["x", 1]], (["x", 1],), True, id="nested-list-by-equality"),
        pytest.param([["x"]], (["x", 1],), False, id="nested-list-is-not-a-pattern"),
        pytest.param([None], (None,), True, id="None"),
        pytest.param([{}], ([],), False, id="unhashable-element"),
    ],
)
def test_list_patterns_match_the_first_elements(pattern, message, wanted):
    assert bool(match_elements(pattern)(message)) is wanted
    only = match_any_of([pattern])
    assert only is not None
    assert bool(only(message)) is wanted


class Array:
    """Behaves as numpy's arrays do: comparing gives an array, which is neither true nor false."""

    __hash__ = None

    def __eq__(self, other):
        return Array()

    def __bool__(self):
        raise ValueError("The truth value of an array with more than one element is ambiguous")


class Grudge(str):
    """A string that neither hashes nor compares."""

    __slots__ = ()

    def __eq__(self, other):
        raise RuntimeError("no comparison")

    def __hash__(self):
        raise RuntimeError("no hash")


class Colour(str, enum.Enum):
    RED = "red"


ODD = [Array, Grudge, Proxy]  # instances would not survive what pytest asks of parameters


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(["a", 5], id="value"),
        pytest.param(["a", "text"], id="text"),
        pytest.param(["a", [1]], id="list"),
        pytest.param(["a", dict], id="type"),
        pytest.param(["a", Mapping, Mapping], id="abstract-type"),
        pytest.param(["a", re.compile("^x$")], id="regex"),
    ],
)
def test_odd_equality_in_a_message_does_not_match_and_does_not_raise(pattern, odd):
    assert not match_elements(pattern)(("a", odd(), odd()))
    assert not match_elements(pattern[1:])((odd(),))


@pytest.mark.parametrize("patterns", [("a",), ("a", "b"), (int,), ([5],), ("a", [5])], ids=repr)
@pytest.mark.parametrize("odd", ODD)
def test_odd_equality_as_a_tag_does_not_match_and_does_not_raise(patterns, odd):
    assert not match_any_of(patterns)((odd(), 1))


@pytest.mark.parametrize("tag", [lambda: Colour.RED, lambda: Grudge("red")], ids=["enum", "grudge"])
@pytest.mark.parametrize("patterns", [("red",), ("red", "b"), (Colour.RED,)], ids=repr)
def test_of_a_subclass_of_str_the_text_is_the_tag(patterns, tag):
    assert match_any_of(patterns)((tag(),))


def test_a_type_that_cannot_be_asked_is_refused_when_it_is_given():
    with pytest.raises(TypeError):
        match_any_of([Unaskable])


class Unaskable(Protocol):
    """Not checkable at run time."""


@pytest.mark.parametrize(
    ("pattern", "message", "wanted"),
    [
        pytest.param("a", ("a", 1), True, id="tag"),
        pytest.param("a", ("b", "a"), False, id="other-tag"),
        pytest.param("a", (), False, id="tag-of-empty-message"),
        pytest.param("a", ([],), False, id="tag-of-unhashable"),
        pytest.param(str, ("a",), True, id="type"),
        pytest.param(str, (), False, id="type-of-empty-message"),
        pytest.param(("a", int), ("a", 1), True, id="tuple-as-list"),
        pytest.param(lambda *msg: len(msg) == 2, (1, 2), True, id="predicate-gets-the-message"),
        pytest.param(lambda *msg: len(msg) == 2, (1,), False, id="predicate-false"),
        pytest.param(lambda *msg: not msg, (), True, id="predicate-of-empty-message"),
    ],
)
@pytest.mark.parametrize("others", [(), ("never",), ("never", "nowhere"), (["never"], bytearray)])
def test_receive_patterns_match_alone_and_among_others(pattern, message, wanted, others):
    for patterns in ((pattern, *others), (*others, pattern)):
        matcher = match_any_of(patterns)
        assert matcher is not None
        assert bool(matcher(message)) is wanted


@pytest.mark.parametrize("pattern", [1, None, b"tag", any_, {"a": 1}, {"a"}, re.compile("x")])
@pytest.mark.parametrize("others", [(), ("tag",)])
def test_an_invalid_pattern_is_refused_with_the_remedy(pattern, others):
    with pytest.raises(
        TypeError, match=r"is not a pattern: give a tag \(str\), a list of elements, a type, or a predicate"
    ):
        match_any_of((*others, pattern))


def test_no_pattern_means_every_message():
    assert match_any_of(()) is None


def test_what_a_predicate_raises_passes_through():
    def refuse(*_msg):
        raise LookupError("mine")

    for patterns in ([refuse], [refuse, "tag"], [[refuse]]):
        matcher = match_any_of(patterns)  # type: ignore[arg-type]
        assert matcher is not None
        with pytest.raises(LookupError, match="mine"):
            matcher(("x",))


def test_elements_behind_a_mismatch_are_not_looked_at():
    looked: list[object] = []
    assert not match_elements(["a", looked.append])(("b", "c"))
    assert looked == []


def test_any_prints_as_its_name():
    assert repr(any_) == "any_"


@given(MESSAGES, st.data())
def test_every_beginning_of_a_message_matches_it(message, data):
    length = data.draw(st.integers(0, len(message)))
    pattern = [data.draw(st.sampled_from([element, any_, type(element)])) for element in message[:length]]
    assert match_elements(pattern)(message)


@given(MESSAGES, st.integers(0, 8))
def test_placeholders_count_elements(message, count):
    assert match_elements([any_] * count)(message) is (len(message) >= count)


@given(MESSAGES, st.lists(st.text() | st.lists(SCALARS, max_size=3), min_size=1, max_size=5))
def test_several_patterns_match_when_one_does(message, patterns):
    def one(pattern: object) -> bool:
        if isinstance(pattern, str):
            return message[:1] == (pattern,)  # type: ignore[no-any-return]
        assert isinstance(pattern, list)
        return list(message[: len(pattern)]) == pattern

    matcher = match_any_of(patterns)
    assert matcher is not None
    assert bool(matcher(message)) is any(one(pattern) for pattern in patterns)
