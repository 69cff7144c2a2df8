# SPDX-License-Identifier: MIT
"""Nodes of one network inside of TLS: their certificates, their links, and what they log."""

from __future__ import annotations

import functools

import pytest

from aemp_gevent.links.link import Link
from aemp_gevent.node.node import Node
from tests.support import helpers
from tests.support.authority import authority, shared_certificate
from tests.support.networking import Inbox
from tests.support.seams import network_of

wait_until = functools.partial(helpers.wait_until, within=20.0)  # for machines with other things to do

SHARED = shared_certificate()
CA = authority()
OTHER_CA = authority("another CA")
ANYWHERE = "aemp:127.0.0.1:*"


def links_of(node: Node, peer: str = "127.0.0.1:9") -> list[Link]:
    return network_of(node).peer(peer)._links  # type: ignore[attr-defined]


def link_of(node: Node, peer: Node) -> Link:
    return links_of(node, peer.NODE())[0]


def talk(one: Node, two: Node) -> None:
    """Send something from each of two nodes to the other."""
    ours, theirs = Inbox(one), Inbox(two)
    one.snd(theirs, "there")
    two.snd(ours, "back")
    wait_until(lambda: ours.messages and theirs.messages)


def reach(one: Node, two: Node) -> None:
    """Make a node dial another, which does not dial back: what stands between them stays there."""
    inbox = Inbox(two)
    one.snd(inbox, "there")
    wait_until(lambda: inbox.messages)


def refused(caplog: pytest.LogCaptureFixture, *texts: str) -> None:
    """Wait until the log says why somebody was not let in."""
    wait_until(
        lambda: any(all(text in record.getMessage() for text in texts) for record in caplog.records),
        show=lambda: [record.getMessage() for record in caplog.records],
    )
