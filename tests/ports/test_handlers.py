# SPDX-License-Identifier: MIT
"""Handlers: which of them a message is given to, and when they are removed."""

from __future__ import annotations

import re

import pytest

from aemp_gevent.ports.handlers import Handlers
from aemp_gevent.ports.patterns import any_
from tests.support.helpers import Proxy


class Log:
    """Handlers that note what they were called with, and return a given result."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def handler(self, name, returns=None):
        def handle(*msg):
            self.calls.append((name, *msg))
            return returns

        return handle


@pytest.fixture
def log() -> Log:
    return Log()


# Without a pattern there is a shorter way through serve: both must do the same.
@pytest.fixture(params=["tags-only", "beside-a-pattern"])
def handlers(request) -> Handlers:
    handlers = Handlers()
    if request.param == "beside-a-pattern":
        handlers.add_pattern(["never"], lambda *_msg: pytest.fail("the pattern does not match"))
    return handlers


def test_a_tag_handler_gets_the_rest_of_the_message(handlers, log):
    handlers.set_tag("a", log.handler("A"))
    assert handlers.serve(("a", 1, 2)) is True
    assert handlers.serve(("a",)) is True
    assert log.calls == [("A", 1, 2), ("A",)]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param((), id="empty"),
        pytest.param(("b",), id="other-tag"),
        pytest.param((1,), id="number"),
        pytest.param((None, "a"), id="None"),
        pytest.param((b"a",), id="bytes"),
        pytest.param(([],), id="unhashable-list"),
        pytest.param(({"a": 1},), id="unhashable-dict"),
        pytest.param((("a",),), id="tuple"),
    ],
)
def test_messages_without_the_tag_find_no_handler(handlers, log, message):
    handlers.set_tag("a", log.handler("A"))
    assert handlers.serve(message) is False
    assert log.calls == []


def test_a_new_handler_replaces_the_old_one(handlers, log):
    handlers.set_tag("a", log.handler("old"))
    handlers.set_tag("a", log.handler("new"))
    handlers.serve(("a",))
    assert log.calls == [("new",)]


def test_none_removes_a_handler_if_there_is_one(handlers, log):
    handlers.set_tag("a", log.handler("A"))
    handlers.set_tag("a", None)
    handlers.set_tag("a", None)
    assert handlers.serve(("a",)) is False


def test_a_handler_that_returns_true_is_removed(handlers, log):
    handlers.set_tag("a", log.handler("A", returns=True))
    assert handlers.serve(("a",)) is True
    assert handlers.serve(("a",)) is False
    assert log.calls == [("A",)]


@pytest.mark.parametrize("value", [1, "yes", [0], object(), 1.0, False, None])
def test_other_return_values_are_ignored(handlers, log, value):
    handlers.set_tag("a", log.handler("A", returns=value))
    handlers.serve(("a", 1))
    handlers.serve(("a", 2))
    assert log.calls == [("A", 1), ("A", 2)]


def test_a_returned_proxy_is_not_looked_into(handlers, log):
    handlers.set_tag("a", log.handler("A", returns=Proxy()))
    assert handlers.serve(("a",)) is True
    assert log.calls == [("A",)]


def test_a_handler_that_replaced_itself_and_returns_true_leaves_its_successor(handlers, log):
    def replace(*_rest):
        handlers.set_tag("a", log.handler("successor"))
        return True

    handlers.set_tag("a", replace)
    handlers.serve(("a", 1))
    handlers.serve(("a", 2))
    assert log.calls == [("successor", 2)]


def test_a_handler_that_removed_itself_may_also_return_true(handlers, log):
    def remove(*_rest):
        handlers.set_tag("a", None)
        return True

    handlers.set_tag("a", remove)
    assert handlers.serve(("a",)) is True
    assert handlers.serve(("a",)) is False


def test_a_pattern_handler_gets_the_whole_message(log):
    handlers = Handlers()
    handlers.add_pattern(["a", int], log.handler("P"))
    assert handlers.serve(("a", 1, 2)) is True
    assert handlers.serve(("a", "x")) is False
    assert handlers.serve(([], 1)) is False
    assert log.calls == [("P", "a", 1, 2)]


def test_a_message_goes_to_its_tag_and_to_every_pattern_that_matches_in_order(log):
    handlers = Handlers()
    handlers.set_tag("a", log.handler("tag"))
    handlers.add_pattern(["a"], log.handler("first"))
    handlers.add_pattern(["b"], log.handler("never"))
    handlers.add_pattern([re.compile("^a")], log.handler("second"))
    handlers.add_pattern([any_, 1], log.handler("third"))
    assert handlers.serve(("a", 1)) is True
    assert [call[0] for call in log.calls] == ["tag", "first", "second", "third"]


def test_the_same_pattern_twice_means_two_calls(log):
    handlers = Handlers()
    handler = log.handler("P")
    handlers.add_pattern(["a"], handler)
    handlers.add_pattern(["a"], handler)
    handlers.serve(("a",))
    assert log.calls == [("P", "a"), ("P", "a")]


def test_a_pattern_whose_handler_returns_true_is_removed_alone(log):
    handlers = Handlers()
    handlers.add_pattern(["a"], log.handler("once", returns=True))
    handlers.add_pattern(["a"], log.handler("always", returns="yes"))
    handlers.serve(("a", 1))
    handlers.serve(("a", 2))
    assert log.calls == [("once", "a", 1), ("always", "a", 1), ("always", "a", 2)]


def test_a_pattern_added_by_a_handler_is_not_served_the_same_message(log):
    handlers = Handlers()

    def add(*_msg):
        handlers.add_pattern(["a"], log.handler("added"))
        return True

    handlers.add_pattern(["a"], add)
    handlers.serve(("a", 1))
    handlers.serve(("a", 2))
    assert log.calls == [("added", "a", 2)]


def test_a_pattern_removed_during_its_message_is_not_served_it(log):
    handlers = Handlers()
    handlers.add_pattern(["a"], lambda *_msg: handlers.serve(("a", "inner")) if _msg[1] == "outer" else None)
    handlers.add_pattern(["a"], log.handler("once", returns=True))
    handlers.serve(("a", "outer"))
    assert log.calls == [("once", "a", "inner")]


def test_finding_handlers_calls_none_of_them(log):
    handlers = Handlers()
    handlers.set_tag("a", log.handler("tag"))
    handlers.add_pattern(["a"], log.handler("pattern"))
    calls = handlers.find(("a", 1))
    assert log.calls == []
    for call in calls:
        call()
    assert log.calls == [("tag", 1), ("pattern", "a", 1)]
