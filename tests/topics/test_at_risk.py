# SPDX-License-Identifier: MIT
"""Topics at risk: exactly those with messages that nobody has confirmed."""

from __future__ import annotations

import pytest

import aemp_gevent.topics.at_risk
from aemp_gevent.topics.at_risk import AtRisk


def test_topics_are_at_risk_until_an_answer_that_was_asked_for_after_them() -> None:
    at_risk = AtRisk()
    at_risk.add("before")
    at_risk.ask()
    at_risk.add("after")
    assert set(at_risk.topics or ()) == {"before", "after"}
    at_risk.confirmed()
    assert set(at_risk.topics or ()) == {"after"}
    at_risk.ask()
    at_risk.add("later")
    at_risk.lost()
    at_risk.confirmed()  # nothing was asked since
    assert set(at_risk.topics or ()) == {"after", "later"}


def test_each_question_names_only_what_was_not_asked_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.topics.at_risk, "MAX_TOPICS", 3)
    at_risk, other = AtRisk(), AtRisk()
    at_risk.add("one")
    other.add("two")
    at_risk.adopt(other)
    assert list(at_risk.ask() or ()) == ["one", "two"]
    at_risk.add("two")
    at_risk.add("three")
    assert list(at_risk.ask() or ()) == ["three"]
    for number in range(3):
        at_risk.add(str(number))
    assert at_risk.ask() is None, "too many: all topics"
    at_risk.add("one more")
    assert at_risk.ask() == ()
    other.adopt(at_risk)
    assert other.topics is None
    at_risk.confirmed()
    assert not at_risk


@pytest.mark.parametrize("loses", [False, True])
def test_too_many_topics_become_all_of_them(monkeypatch: pytest.MonkeyPatch, loses: bool) -> None:
    monkeypatch.setattr(aemp_gevent.topics.at_risk, "MAX_TOPICS", 3)
    at_risk = AtRisk()
    for number in range(4):
        assert at_risk.topics is not None
        at_risk.add(str(number))
    at_risk.add("another")
    assert at_risk
    assert at_risk.topics is None
    at_risk.ask()
    assert at_risk
    assert at_risk.topics is None
    if loses:
        at_risk.lost()
        at_risk.ask()
    at_risk.confirmed()
    assert not at_risk
    assert list(at_risk.topics or ()) == []
