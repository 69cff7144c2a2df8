# SPDX-License-Identifier: MIT
"""What all links of a node have carried, including those that ended.

Links count for themselves. What an ended link had counted is added to a total here, so that sums never fall.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import add
from typing import NamedTuple, Protocol

from aemp_gevent.addresses.ids import without_random_words
from aemp_gevent.runtime.totals import Labels, short_label
from aemp_gevent.wire.greeting import Greeting

MAX_LABELS = 100
"""Different names of peers that are counted apart."""


class Counting(Protocol):
    """What counts: the transport of a link."""

    @property
    def sent(self) -> int:
        """Bytes handed to the system."""
        ...


class CountingLink(Protocol):
    """A link, as this module sees it."""

    received: int
    received_packets: int
    is_up: bool
    closed: bool

    @property
    def transport(self) -> Counting: ...
    @property
    def sent_packets(self) -> int: ...
    @property
    def greeting(self) -> Greeting | None: ...


class Carried(NamedTuple):
    """What links carried: packets, without heartbeats, and bytes, before TLS."""

    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def plus(self, more: Carried) -> Carried:
        """Return the sum of both."""
        return Carried(*map(add, self, more))


class Traffic:
    """The sums of one node's links, by the other node's name.

    Args:
        links: All open links.
    """

    def __init__(self, links: Iterable[CountingLink]) -> None:
        self._links = links
        self._labels = Labels(MAX_LABELS)
        self._sums: dict[str, Carried] = {}

    def ended(self, link: CountingLink) -> None:
        """Take note that a link that was up is about to be closed.

        What came in the same read as the end is not counted.
        """
        _add(self._sums, *_carried_by(link))
        self._labels.see(self._sums)
        if len(self._sums) > MAX_LABELS:  # with OTHER it may have one more
            sums, self._sums = self._sums, {}
            for label, carried in sums.items():
                _add(self._sums, self._labels.of(label), carried)

    def sums(self) -> dict[str, Carried]:
        """Return what was carried, by the other node's name."""
        found = dict(self._sums)
        for link in list(self._links):
            if link.is_up and not link.closed:
                _add(found, *_carried_by(link))
        return found


def label_of(node: str) -> str:
    """Return the name under which a node is counted: its ID, with ``*`` for words that processes make up."""
    return short_label(without_random_words(node))


def _carried_by(link: CountingLink) -> tuple[str, Carried]:
    label = label_of(link.greeting.node if link.greeting is not None else "")
    return label, Carried(link.received_packets, link.sent_packets, link.received, link.transport.sent)


def _add(sums: dict[str, Carried], label: str, carried: Carried) -> None:
    sums[label] = sums.get(label, Carried()).plus(carried)
