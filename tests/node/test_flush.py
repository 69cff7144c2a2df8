# SPDX-License-Identifier: MIT
"""``flush``: waiting until all messages have arrived, or knowing that they may not have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from aemp_gevent.errors import NoPortContextError
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from tests.support.helpers import on_hub
from tests.support.networking import Inbox
from tests.support.seams import ports_of


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(latency=0.001) as network:
        yield network


def test_flush_returns_when_everything_has_arrived(network: MemoryNetwork) -> None:
    sender, *receivers = (network.node() for _ in range(3))
    inboxes = [Inbox(node) for node in receivers]
    for number in range(100):
        for inbox in inboxes:
            sender.snd(inbox, number)  # also while the links are being made
    assert sender.flush(10) is True
    for node, inbox in zip(receivers, inboxes, strict=True):
        # They are in the mailbox: nothing but the node's own work is left to do.
        waiting = ports_of(node)[str(inbox)].inbox
        assert len(inbox.messages) + len(waiting or ()) == 100


def test_flush_returns_false_when_a_node_does_not_answer(network: MemoryNetwork) -> None:
    sender, receiver = network.node(), network.node()
    inbox = Inbox(receiver)
    sender.snd(inbox, 1)
    assert sender.flush(10)
    network.block(sender, receiver)
    sender.snd(inbox, 2)
    assert sender.flush(0.01) is False
    network.heal()
    assert sender.flush(10)


def test_flush_returns_false_when_a_link_cannot_be_made(network: MemoryNetwork) -> None:
    sender, receiver = network.node(), network.node()
    network.refuse(sender, receiver)
    sender.snd(f"{receiver.NODE()}#port", 1)
    assert sender.flush(0.05) is False


def test_flush_of_a_private_node_returns_at_once() -> None:
    assert Node().flush() is True


def test_flush_is_refused_on_the_hub(network: MemoryNetwork) -> None:
    node, raised = network.node(), []

    def flush() -> None:
        with pytest.raises(NoPortContextError):
            node.flush()
        raised.append(True)

    on_hub(flush)
    assert raised
