# SPDX-License-Identifier: MIT
"""Requests of the directory on the wire: wrong ones, numbers for texts, and changes in parts."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.node.node import Node
from tests.directory.embedded.networks import PERL, Dial, handled
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawPeer, free_address


@pytest.mark.parametrize(
    "packet",
    [
        ["", "g_slave", 5],
        ["", "g_slave", {"f": 5}],
        ["", "g_upd"],
        ["", "g_upd", None, {}],
        ["", "g_upd", "f", []],
        ["", "g_upd", "f", 5],
        ["", "g_upd", "f", {}, 5],
        ["", "g_upd", "f", {}, [{}]],
        ["", "g_upd", ["f"], {}],
        ["", "g_upd", "f", {}, [], "o", 1, 2],
        ["", "g_set"],
        ["", "g_find"],
        ["", "g_find", []],
        ["", "g_db_keys"],
        ["", "g_db_keys", {}, 1],
        ["", "g_mon1"],
        ["", "g_mon1", {}],
        ["", "g_mon0"],
        ["", "g_reply"],
        ["", "g_reply", []],
        ["", "g_chg1"],
        ["", "g_chg2", {}],
    ],
    ids=repr,
)
def test_wrong_request_ends_in_a_log_line_and_nothing_else(
    node: Node, dial: Dial, caplog: pytest.LogCaptureFixture, packet: list[Any]
) -> None:
    node.db_set("f", "mine", 1)
    peer = dial("b")
    peer.send(packet)
    handled(peer)
    wait_until(lambda: f"request '{packet[1]}' of b failed" in caplog.text, within=WAIT)
    assert node.db_family("f") == {"mine": 1}


def test_numbers_are_taken_for_texts_as_perl_sends_them(node: Node, dial: Dial) -> None:
    peer = dial("b")
    peer.send(["", "g_upd", 5, {"7": 1, "8": 1}], ["", "g_upd", "5", None, [8]])
    handled(peer)
    assert node.db_family("5") == {"7": 1}
    peer.send(["", "g_upd", 5.0, {"9": 1}, [7.0]], ["", "g_db_keys", 5.0, 1])  # as Perl prints them
    assert peer.packet() == ["", "g_reply", 1, ["9"]]


def test_entry_that_a_framing_cannot_carry_is_left_out(
    node: Node, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    node.db_set("f", "text", "x")
    node.db_set("f", "bytes", b"x")
    peer = dial("b", framing="json")
    peer.send(["", "g_mon1", "f"])
    packets = peer.take(2)
    assert packets[0] == ["", "g_chg1", "f", None]
    assert packets[1] == ["", "g_chg2", "f", {"text": "x"}, []]
    node.db_set("f", "more", b"x")
    node.db_set("f", "more", "x")
    assert peer.packet() == ["", "g_chg2", "f", {"more": "x"}, []]
    assert "the entry bytes cannot be sent to node b" in caplog.text


def test_family_too_large_for_one_message_comes_in_parts(make_node: MakeNode) -> None:
    address = free_address()
    node = make_node(address, address, max_message_bytes=2000)
    wait_until(lambda: node.info()["directory"] == "global")
    expected = {f"key {number}": "x" * 300 for number in range(20)}
    for key, value in expected.items():
        node.db_set("f", key, value)
    with RawPeer.dial(node, "b", extras=PERL).shake() as peer:
        assert peer.packet() == ["", "g_global"]
        peer.send(["", "g_mon1", "f"])
        assert peer.packet() == ["", "g_chg1", "f", None]
        seen: dict[str, str] = {}
        while len(seen) < 20:
            packet = peer.packet()
            assert packet[:3] == ["", "g_chg2", "f"]
            seen |= packet[3]
        assert seen == expected
