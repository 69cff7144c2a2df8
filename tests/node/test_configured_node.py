# SPDX-License-Identifier: MIT
"""What a node's settings and its ID decide."""

from __future__ import annotations

import pytest

from aemp_gevent import Node
from aemp_gevent.errors import MessageTooLargeError
from tests.support.networking import MakeNode


def test_private_node_has_no_settings_and_no_links() -> None:
    node = Node()
    assert node.settings is None
    assert node.up_nodes() == []
    assert node.node_is_up(node.NODE())


def test_former_id_is_still_that_of_the_node(make_node: MakeNode) -> None:
    node = make_node(None)
    former = node.NODE()
    node.initialise_node("127.0.0.1:0", secret="secret")
    assert node.NODE() != former
    assert node.node_is_up(former)
    assert not node.node_is_up("127.0.0.1:1")


def test_settings_bound_the_messages_of_a_strict_node(make_node: MakeNode) -> None:
    node = make_node(strict=True, max_message_bytes=5000)
    port = node.port()
    node.snd(port, b"x" * 1000)
    with pytest.raises(MessageTooLargeError):
        node.snd(port, b"x" * 6000)
