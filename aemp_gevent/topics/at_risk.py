# SPDX-License-Identifier: MIT
"""Topics whose last messages may not have arrived, until the other node has confirmed them."""

from __future__ import annotations

from collections.abc import Collection

MAX_TOPICS = 100_000
"""Topics that are remembered; more of them become all topics."""


class AtRisk:
    """The topics with messages that may be missed by a node, if the link to it is lost now."""

    def __init__(self) -> None:
        self._recent: dict[str, None] = {}
        self._asked: dict[str, None] = {}
        self._are_all = False
        self._were_all = False

    def __bool__(self) -> bool:
        return bool(self._recent or self._asked or self._are_all or self._were_all)

    @property
    def topics(self) -> Collection[str] | None:
        """The topics; None: all that there are."""
        return None if self._are_all or self._were_all else {**self._asked, **self._recent}.keys()

    def add(self, topic: str) -> None:
        """Add a topic that a message is about to be sent to, or would have been."""
        if not self._are_all:
            self._recent[topic] = None
            if len(self._recent) > MAX_TOPICS:
                self._are_all = True
                self._recent.clear()

    def adopt(self, other: AtRisk) -> None:
        """Add the topics of another one."""
        topics = other.topics
        if topics is None:
            self._are_all = True
            self._recent.clear()
        else:
            for topic in topics:
                self.add(topic)

    def ask(self) -> Collection[str] | None:
        """Note that the other node is asked whether everything so far has arrived.

        Returns:
            The topics about which it was not asked since the last answer; None: all that there are.
        """
        asked, was_all = self._asked, self._were_all
        recent, self._recent = self._recent, {}
        self._were_all, self._are_all = was_all or self._are_all, False
        self._asked = {**asked, **recent}
        if len(self._asked) > MAX_TOPICS:
            self._were_all = True
        if self._were_all:
            self._asked = {}
            return () if was_all else None
        return [topic for topic in recent if topic not in asked]

    def confirmed(self) -> None:
        """Note that it has."""
        self._asked = {}
        self._were_all = False

    def lost(self) -> None:
        """Note that no answer comes any more."""
        self._recent = {**self._asked, **self._recent}
        self._are_all = self._are_all or self._were_all
        self.confirmed()
