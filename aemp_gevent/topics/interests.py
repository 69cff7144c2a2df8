# SPDX-License-Identifier: MIT
"""Topics and patterns: how they are written, and who is interested in a topic."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Generic, TypeVar

from aemp_gevent.errors import InvalidTopicError

T = TypeVar("T")

MAX_WORDS = 8
"""Words of a topic or pattern; each ``*`` may double the work of finding the patterns that match."""

MAX_CHARACTERS = 200
"""Characters of a topic or pattern."""

MISSED = "missed"
"""What a subscriber gets before a topic, if messages to it may have been lost; so it is not a topic itself."""

ONE = "*"
REST = "**"

_END = ""
"""In the tree of patterns: the key of a pattern that ends here. No word is empty."""


def check_topic(topic: object) -> None:
    """Check that messages can be published to a topic.

    Raises:
        InvalidTopicError: They cannot.
    """
    check_pattern(topic)
    if isinstance(topic, str) and ONE in topic:
        raise InvalidTopicError(topic, "a pattern can be subscribed to, and messages are published to one topic")


def check_pattern(pattern: object) -> None:
    """Check that a port can be subscribed to a topic or pattern.

    Raises:
        InvalidTopicError: It cannot.
    """
    if not isinstance(pattern, str):
        raise InvalidTopicError(pattern, "it must be a str")
    if len(pattern) > MAX_CHARACTERS:
        raise InvalidTopicError(pattern, f"it has {len(pattern)} characters, and {MAX_CHARACTERS} are allowed")
    if not pattern.isprintable() or " " in pattern:
        raise InvalidTopicError(pattern, "it has a space or an unprintable character")
    words = pattern.split(".")
    if len(words) > MAX_WORDS:
        raise InvalidTopicError(pattern, f"it has {len(words)} words, and {MAX_WORDS} are allowed")
    if not all(words):
        raise InvalidTopicError(pattern, "one of its words is empty")
    if REST in words[:-1]:
        raise InvalidTopicError(pattern, "'**' stands for all words that follow, so it must be the last one")
    if any(ONE in word and word not in (ONE, REST) for word in words):
        raise InvalidTopicError(pattern, "'*' stands for a whole word")
    if pattern == MISSED:
        raise InvalidTopicError(pattern, "this word begins the messages that report missed ones")


class Interests(Generic[T]):
    """The interests of ports, or of nodes, in topics and patterns.

    ``*`` in a pattern matches one word, and ``**`` at its end any number of words, also none.
    """

    def __init__(self) -> None:
        self._interested: dict[str, dict[T, int]] = {}
        self._patterns: dict[str, Any] = {}  # a tree of words, of those patterns that are not topics

    def __contains__(self, pattern: str) -> bool:
        return pattern in self._interested

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._interested))

    def __len__(self) -> int:
        return len(self._interested)

    def add(self, pattern: str, thing: T) -> bool:
        """Add one interest of something; return whether it is the first one in this pattern."""
        things = self._interested.get(pattern)
        if things is not None:
            things[thing] = things.get(thing, 0) + 1
            return False
        if ONE in pattern:
            tree = self._patterns
            for word in pattern.split("."):
                tree = tree.setdefault(word, {})
            tree[_END] = pattern
        self._interested[pattern] = {thing: 1}
        return True

    def discard(self, pattern: str, thing: T) -> bool:
        """Remove one interest of something, if it has any; return whether that was the last one in this pattern."""
        things = self._interested.get(pattern)
        if things is None or thing not in things:
            return False
        things[thing] -= 1
        if not things[thing]:
            del things[thing]
        if things:
            return False
        del self._interested[pattern]
        if ONE in pattern:
            self._prune(pattern.split("."))
        return True

    def _prune(self, words: list[str]) -> None:
        trees = [self._patterns]
        for word in words:
            trees.append(trees[-1][word])
        del trees[-1][_END]
        for tree, word in zip(reversed(trees[:-1]), reversed(words), strict=True):
            if tree[word]:
                return
            del tree[word]

    def of(self, pattern: str) -> Collection[T]:
        """Return what is interested in exactly this topic or pattern."""
        return self._interested.get(pattern, {}).keys()

    def match(self, topic: str) -> Collection[T]:
        """Return what is interested in a topic, each once; a copy."""
        found = dict(self._interested.get(topic, ()))
        if self._patterns:
            for pattern in self._matching(topic.split(".")):
                found.update(self._interested[pattern])
        return found.keys()

    def _matching(self, words: list[str]) -> Iterator[str]:
        trees = [self._patterns]
        for word in words:
            yield from (tree[REST][_END] for tree in trees if REST in tree)
            trees = [tree[key] for tree in trees for key in (word, ONE) if key in tree]
        for tree in trees:
            yield from (end[_END] for end in (tree, tree.get(REST, {})) if _END in end)
