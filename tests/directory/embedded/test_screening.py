# SPDX-License-Identifier: MIT
"""What a global node believes and keeps of the entries that its peers bring."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.directory.embedded import mesh, screening
from aemp_gevent.node.node import Node
from tests.directory.embedded.networks import OURS, Dial, become_global, found, handled
from tests.support.helpers import wait_until
from tests.support.networking import WAIT
from tests.support.seams import embedded_of, network_of


def test_entries_beyond_the_share_of_a_client_are_left_out(
    node: Node, dial: Dial, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert embedded_of(node)._server is not None
    embedded_of(node)._server._screening._max_entries = 3
    embedded_of(node)._server._screening._max_bytes = 1000
    one, other = dial("b"), dial("c")
    one.send(["", "g_slave", {"f": {str(number): number for number in range(5)}}])
    one.send(["", "g_upd", "f", {"0": "changed", "6": 6}])
    other.send(["", "g_upd", "f", {"other": 1}])
    handled(one, other)
    assert node.db_family("f") == {"0": "changed", "1": 1, "2": 2, "other": 1}
    one.send(["", "g_upd", "f", {"1": "x" * 2000, "7": 7}, ["2"]])
    handled(one)
    assert node.db_family("f") == {"0": "changed", "7": 7, "other": 1}
    assert caplog.text.count("node b has more directory entries than are kept") == 1
    one.send(["", "g_upd", "f", None, ["0", "7"]], ["", "g_upd", "g", {"a": 1, "b": 2, "c": 3, "d": 4}])
    handled(one)
    assert len(node.db_family("g")) == 3
    assert node.refusals == {"directory": 5}


RIGHT, WRONG = ["127.0.0.1:4"], ["127.0.0.1:6"]


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param([["", "g_slave", {"'l": {"backend": WRONG, "a-liar": ["127.0.0.1:7"]}}]], id="client"),
        pytest.param([["", "g_upd", "'l", {"backend": WRONG, "a-liar": ["127.0.0.1:7"]}]], id="update"),
        pytest.param(
            [
                ["", "g_global"],
                ["", "g_upd", "'l", {"backend": WRONG}, None, "!"],
                ["", "g_upd", "'l", {"a-liar": ["127.0.0.1:7"]}, None, "a-liar"],
            ],
            id="global-for-another",
        ),
        pytest.param(
            [
                ["", "g_global"],
                ["", "g_set", {"'l": {"backend": WRONG}}, "!"],
                ["", "g_set", {"'l": {"a-liar": ["127.0.0.1:7"]}}, "a-liar"],
            ],
            id="global-whole",
        ),
    ],
)
def test_addresses_of_other_nodes_are_refused_from_nodes_that_cannot_know_them(
    node: Node, dial: Dial, caplog: pytest.LogCaptureFixture, lie: list[list[Any]]
) -> None:
    backend, front, liar = dial("backend", OURS), dial("front", OURS), dial("a-liar", OURS)
    backend.send(["", "g_slave", {"'l": {"backend": RIGHT}}])
    handled(backend)
    liar.send(*lie, ["", "g_upd", "'l", None, ["backend"]])
    assert found(liar, "backend") == found(front, "backend") == RIGHT
    assert found(front, "a-liar") == ["127.0.0.1:7"]
    backend.close()
    wait_until(lambda: found(front, "backend") is None, within=WAIT)
    assert node.refusals == {"directory": 1}
    assert "node a-liar sent the address of another node, which is ignored: 'backend'" in caplog.text


def test_addresses_from_a_node_itself_come_before_those_from_global_nodes(node: Node, dial: Dial) -> None:
    front, liar, other = dial("front", OURS), dial("a-liar", OURS), dial("other", OURS)
    for peer, address in ((liar, WRONG), (other, RIGHT)):
        become_global(peer)
        peer.send(["", "g_set", {"'l": {"backend": [*address, "127.0.0.1:9"]}}, "backend"])
    liar.send(["", "g_upd", "'l", {"backend": ["127.0.0.1:5"]}, None, "a-liar"])  # on its own account
    handled(liar), handled(other)
    assert found(front, "backend") == [*WRONG, *RIGHT, "127.0.0.1:5", "127.0.0.1:9"], "each in its turn"
    backend = dial("backend", OURS)
    backend.send(["", "g_slave", {"'l": {"backend": ["127.0.0.1:1", "127.0.0.1:2"]}}])
    handled(backend)
    assert found(front, "backend")[:3] == ["127.0.0.1:1", "127.0.0.1:2", *WRONG]
    front.send(["", "g_db_family", "'l", 1])
    assert front.packet()[3]["backend"] == ["127.0.0.1:1", "127.0.0.1:2"]
    backend.close()
    liar.close()
    wait_until(lambda: found(front, "backend")[:1] == RIGHT, within=WAIT)


def test_only_a_limited_number_of_global_nodes_that_a_peer_announces_is_dialled(
    node: Node, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screening, "MAX_GLOBALS", 3)
    monkeypatch.setattr(mesh, "_MESH_SECONDS", 0.02)
    dialled: set[str] = set()
    monkeypatch.setattr(network_of(node), "link_to", dialled.add)
    liar = dial("liar", OURS)
    liar.send(["", "g_slave", {"'g": {f"10.0.0.{number}:1": None for number in range(2)}}])
    liar.send(["", "g_upd", "'g", {f"10.0.1.{number}:1": None for number in range(9)}])
    handled(liar)
    wait_until(lambda: len(dialled) == 3, within=WAIT)
    liar.send(["", "g_upd", "'g", {"10.0.2.1:1": None, "10.0.2.2:1": None}, ["10.0.0.0:1"]])
    handled(liar)
    wait_until(lambda: len(dialled) == 4, within=WAIT)
    assert node.refusals == {"directory": 9}


def test_owners_without_entries_are_forgotten(node: Node, dial: Dial) -> None:
    liar = dial("liar", OURS)
    become_global(liar)
    for number in range(50):
        for change in ([{"k": 1}, None], [None, ["k"]]):
            liar.send(["", "g_upd", "f", *change, f"owner {number}"])
    liar.send(["", "g_upd", "f", {"k": 1}, None, "the last"])
    handled(liar)
    server = node._directory._engine._server  # type: ignore[attr-defined]
    (guest,) = server._guests.values()
    assert list(guest.sources) == [("the last", "liar")]
