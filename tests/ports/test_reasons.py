# SPDX-License-Identifier: MIT
"""Exit reasons: how exceptions, and values that cannot travel, become text."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.ports.reasons import MAX_WORDS, describe, in_words, no_such_port


class Mute(Exception):
    """An exception without a text."""

    def __str__(self) -> str:
        raise LookupError("no text")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(ValueError("wrong"), "ValueError: wrong", id="with-text"),
        pytest.param(ValueError(), "ValueError", id="without-text"),
        pytest.param(Mute(), "Mute: <str() failed>", id="str-raises"),
    ],
)
def test_an_exception_is_described_by_its_class_and_text(error: BaseException, text: str) -> None:
    assert describe(error) == text


def test_a_reason_in_words_has_texts_only_and_few_of_them() -> None:
    reason: tuple[Any, ...] = ("die", object, 1, *range(MAX_WORDS))
    words = in_words(reason)
    assert len(words) == MAX_WORDS and words[0] == "die"
    assert all(isinstance(word, str) for word in words)


def test_the_reason_for_a_port_that_does_not_exist_names_it() -> None:
    assert no_such_port("node#port") == ("no_such_port", "cannot monitor nonexistent port", "node#port")
