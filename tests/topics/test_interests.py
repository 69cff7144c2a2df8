# SPDX-License-Identifier: MIT
"""Topics and patterns: which are valid, and which match."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import InvalidTopicError
from aemp_gevent.topics.interests import Interests, check_pattern, check_topic

WORDS = st.sampled_from(["a", "b", "room", "42"])
TOPICS = st.lists(WORDS, min_size=1, max_size=5).map(".".join)
PATTERNS = st.tuples(st.lists(WORDS | st.just("*"), max_size=4), st.sampled_from([[], ["**"]])).map(
    lambda parts: ".".join(parts[0] + parts[1]) or "*"
)


@pytest.mark.parametrize(
    "topic", ["a", "room.42", "r\u00e4ume.\u4e03", "user:1@host.x-y_z", ".".join("abcdefgh"), "x" * 200]
)
def test_words_with_dots_between_them_are_a_topic(topic: str) -> None:
    check_topic(topic)
    check_pattern(topic)


@pytest.mark.parametrize("pattern", ["*", "**", "a.*", "*.a", "a.**", "*.*.*", "*.**"])
def test_stars_are_for_patterns_only(pattern: str) -> None:
    check_pattern(pattern)
    with pytest.raises(InvalidTopicError, match="published to one topic"):
        check_topic(pattern)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        pytest.param(None, "must be a str", id="none"),
        pytest.param(b"room", "must be a str", id="bytes"),
        pytest.param("", "empty", id="empty"),
        pytest.param(".a", "empty", id="dot-first"),
        pytest.param("a.", "empty", id="dot-last"),
        pytest.param("a..b", "empty", id="two-dots"),
        pytest.param("a b", "space", id="space"),
        pytest.param("a\n", "unprintable", id="newline"),
        pytest.param("a\ud800", "unprintable", id="surrogate"),
        pytest.param("a*", "whole word", id="half-a-star"),
        pytest.param("***", "whole word", id="three-stars"),
        pytest.param("**.a", "must be the last", id="rest-first"),
        pytest.param(".".join("abcdefghi"), "9 words, and 8", id="nine-words"),
        pytest.param("x" * 201, "201 characters", id="long"),
        pytest.param("missed", "report missed ones", id="missed"),
    ],
)
def test_other_texts_are_refused_with_the_reason(pattern: Any, says: str) -> None:
    for check in (check_topic, check_pattern):
        with pytest.raises(InvalidTopicError, match=says):
            check(pattern)


def matches(pattern: str, topic: str) -> bool:
    """Match in the plain way, word by word."""
    wanted, words = pattern.split("."), topic.split(".")
    if wanted[-1] == "**":
        wanted, words = wanted[:-1], words[: len(wanted) - 1]
    return len(wanted) == len(words) and all(map(fnmatchcase, words, wanted))


@given(patterns=st.lists(PATTERNS, max_size=8), gone=st.lists(PATTERNS, max_size=4), topic=TOPICS)
def test_what_matches_is_found_and_nothing_else(patterns: list[str], gone: list[str], topic: str) -> None:
    interests: Interests[int] = Interests()
    held: list[tuple[str, int]] = [(pattern, number % 3) for number, pattern in enumerate(patterns)]
    for pattern, thing in held:
        assert interests.add(pattern, thing) is (
            not list(interests.of(pattern))[1:] and _count(interests, pattern) == 1
        )
    for pattern in gone:
        for thing in range(3):
            if (pattern, thing) in held:
                held.remove((pattern, thing))
                assert interests.discard(pattern, thing) is all(other != pattern for other, _ in held)
            else:
                assert interests.discard(pattern, thing) is False
    assert set(interests.match(topic)) == {thing for pattern, thing in held if matches(pattern, topic)}
    assert set(interests) == {pattern for pattern, _ in held}
    for pattern, thing in held:
        interests.discard(pattern, thing)
    assert (len(interests), interests._patterns) == (0, {}), "something is left of patterns that nobody has"


def _count(interests: Interests[int], pattern: str) -> int:
    return sum(interests._interested[pattern].values())
