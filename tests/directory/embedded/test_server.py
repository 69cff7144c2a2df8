# SPDX-License-Identifier: MIT
"""A global node, packet by packet: raw peers are its clients, and other global nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aemp_gevent.directory.embedded import server as directory_server
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from tests.helpers import wait_until
from tests.networking import OUR_PROVIDER, WAIT, MakeNode, RawPeer, free_address, node_factory

PERL = (("gproto", "1"), ("provider", "AE-2.02"))
OURS = (*OUR_PROVIDER, ("gproto", "1"))


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    """A node that is its own seed, and so is global."""
    address = free_address()
    node = make_node(address, address)
    wait_until(lambda: node.info()["directory"] == "global")
    return node


class Dial:
    def __init__(self, node: Node, stack: ExitStack) -> None:
        self._node = node
        self._stack = stack

    def __call__(self, name: str, extras: tuple[tuple[str, str], ...] = PERL, **options: Any) -> RawPeer:
        peer = self._stack.enter_context(RawPeer.dial(self._node, name, extras=extras, **options).shake())
        assert peer.packet() == ["", "g_global"]  # the first of all
        return peer


@pytest.fixture
def dial(node: Node) -> Iterator[Dial]:
    with ExitStack() as stack:
        yield Dial(node, stack)


def handled(*peers: RawPeer) -> None:
    for peer in peers:
        assert peer.answers()


def test_node_that_speaks_no_gproto_hears_nothing_of_it(node: Node) -> None:
    with RawPeer.dial(node, "127.0.0.1:9").shake() as peer:
        handled(peer)


@pytest.mark.parametrize("framing", ["json", "msgpack"])
def test_client_is_served_as_perl_serves_its_own(node: Node, dial: Dial, framing: str) -> None:
    """The directory's part of ``aemp202_json_find.txt``, and of the other recording."""
    b = dial("b", framing=framing)
    b.send(["", "g_slave"], ["", "g_slave"], ["", "g_slave", {"'l": {"b": ["127.0.0.1:44357"]}}])
    b.send(["", "g_find", node.NODE()], ["", "g_mon1", "fam1"])
    assert b.take(2) == [["", "g_found", node.NODE(), [node.NODE()]], ["", "g_chg1", "fam1", None]]
    b.send(["", "g_upd", "fam1", {"key1": "value1"}], ["", "g_upd", "fam1", {"key1": [1]}])
    assert b.take(2) == [["", "g_chg2", "fam1", {"key1": "value1"}, []], ["", "g_chg2", "fam1", {"key1": [1]}, []]]
    b.send(["", "g_db_keys", "fam1", "b"], ["", "g_db_values", "fam1", "c"], ["", "g_db_family", "fam1", "d"])
    assert b.take(3) == [
        ["", "g_reply", "b", ["key1"]],
        ["", "g_reply", "c", [[1]]],
        ["", "g_reply", "d", {"key1": [1]}],
    ]
    b.send(["", "g_db_keys", "x", 1], ["", "g_db_values", "x", 2], ["", "g_db_family", "x", 3])
    assert b.take(3) == [["", "g_reply", 1, []], ["", "g_reply", 2, []], ["", "g_reply", 3, {}]]
    b.send(["", "g_upd", "fam1", None, ["key1"]], ["", "g_upd", "fam1", None, ["key1"]])
    assert b.packet() == ["", "g_chg2", "fam1", {}, ["key1"]]
    b.send(["", "g_mon0", "fam1"], ["", "g_upd", "fam1", {"key1": "value1"}], ["", "g_find", "nowhere"])
    assert b.packet() == ["", "g_found", "nowhere", None]


def test_client_of_the_recording_gets_the_same_answers_again(node: Node, dial: Dial, record: list[Any]) -> None:
    b = dial("b", framing="json")
    for sender, packet in record:
        if sender == "b":
            b.send(packet)
        elif packet[1] not in {"g_global", "g_found"}:  # its first word, and where real nodes had listened
            assert [item or None for item in skip_found(b)] == [item or None for item in packet]


@pytest.fixture
def record() -> list[Any]:
    """The ``g_`` packets of ``aemp202_json_find.txt``; that file is not part of this project, its facts are."""
    return [
        ("b", ["", "g_slave"]),
        ("b", ["", "g_slave"]),
        ("b", ["", "g_slave", {"'l": {"b": ["127.0.0.1:44357"]}}]),
        ("b", ["", "g_find", "a"]),
        ("a", ["", "g_global"]),
        ("a", ["", "g_found", "a", ["127.0.0.1:33457"]]),
        ("b", ["", "g_mon1", "fam1"]),
        ("a", ["", "g_chg1", "fam1", None]),
        ("b", ["", "g_upd", "fam1", {"key1": "value1"}]),
        ("a", ["", "g_chg2", "fam1", {"key1": "value1"}, []]),
        ("b", ["", "g_upd", "fam1", {"key1": [1]}]),
        ("a", ["", "g_chg2", "fam1", {"key1": [1]}, []]),
        ("b", ["", "g_db_keys", "fam1", "b"]),
        ("a", ["", "g_reply", "b", ["key1"]]),
        ("b", ["", "g_db_values", "fam1", "c"]),
        ("a", ["", "g_reply", "c", [[1]]]),
        ("b", ["", "g_db_family", "fam1", "d"]),
        ("a", ["", "g_reply", "d", {"key1": [1]}]),
        ("b", ["", "g_upd", "fam1", None, ["key1"]]),
        ("a", ["", "g_chg2", "fam1", {}, ["key1"]]),
        ("b", ["", "g_mon0", "fam1"]),
        ("b", ["", "g_upd", "grp", {"b#Jt3y4YxKul": None}]),
        ("b", ["", "g_upd", "grp", None, ["b#Jt3y4YxKul"]]),
        ("b", ["", "g_find", "nowhere"]),
        ("a", ["", "g_found", "nowhere", None]),
    ]


def skip_found(peer: RawPeer) -> list[Any]:
    while True:
        packet = peer.packet()
        if packet[1] != "g_found":
            return packet


def test_what_a_client_had_goes_with_its_link(node: Node, dial: Dial) -> None:
    watcher, client, other = dial("w"), dial("b"), dial("c")
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", None]
    other.send(["", "g_slave", {"f": {"k": "c's"}}])
    assert watcher.packet() == ["", "g_chg2", "f", {"k": "c's"}, []]
    client.send(["", "g_slave", {"f": {"k": "b's", "l": 1}}])
    assert watcher.packet() == ["", "g_chg2", "f", {"k": "b's", "l": 1}, []]
    client.close()
    assert watcher.packet() == ["", "g_chg2", "f", {"k": "c's"}, ["l"]]
    assert node.db_family("f") == {"k": "c's"}


def test_client_that_attaches_again_replaces_all_it_had(node: Node, dial: Dial) -> None:
    watcher, client = dial("w"), dial("b")
    client.send(["", "g_slave", {"f": {"k": 1, "l": 1}, "g": {"k": 1}}])
    handled(client)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", {"k": 1, "l": 1}]
    client.send(["", "g_slave", {"f": {"k": 1, "m": 1}}])
    assert watcher.packet() == ["", "g_chg2", "f", {"m": 1}, ["l"]]
    assert node.db_family("g") == {}


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


def test_entries_of_clients_that_cannot_be_asked_are_counted_where_they_are_kept(node: Node, dial: Dial) -> None:
    node.db_set("own", "a")
    perl, ours = dial("perl"), dial("b", OURS)
    peers = (perl, ours)
    for peer in peers:
        peer.send(
            ["", "g_slave", {"'l": {peer.name: ["127.0.0.1:5"]}, "own": {peer.name: 1}, f"of {peer.name}": {"x": 1}}]
        )
    handled(*peers)
    assert node.own_families == {"own": 2, "of perl": 1}
    perl.close()
    wait_until(lambda: node.own_families == {"own": 1})


def test_client_has_no_more_than_its_share(
    node: Node, dial: Dial, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert node._embedded is not None
    assert node._embedded._server is not None
    node._embedded._server._max_entries = 3
    node._embedded._server._max_bytes = 1000
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


def test_peer_cannot_watch_without_end(
    node: Node, dial: Dial, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_server, "MAX_WATCHES", 2)
    peer = dial("b")
    peer.send(*(["", "g_mon1", name] for name in ("a", "b", "a", "c")))
    assert [packet[2] for packet in peer.take(3)] == ["a", "b", "a"]
    handled(peer)
    wait_until(lambda: "it watches 2 families already" in caplog.text, within=WAIT)
    assert node.refusals == {"directory": 1}


def test_watchers_are_forgotten_with_their_link(node: Node, dial: Dial) -> None:
    peer = dial("b")
    peer.send(["", "g_mon1", "f"])
    assert peer.packet() == ["", "g_chg1", "f", None]
    assert node._embedded is not None
    server = node._embedded._server
    assert server is not None
    assert set(server._watchers) == {"f"}
    peer.close()
    wait_until(lambda: not server._watchers and not server._guests, within=WAIT)


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
    assert "the entry bytes cannot be told to node b" in caplog.text


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


# --- other global nodes ---


def shorten_grace(node: Node, seconds: float) -> None:
    """Let a node wait no longer for the clients of a lost global node; heartbeats are as they were."""
    assert node._network is not None
    node._network.settings = dataclasses.replace(node._network.settings, heartbeat_timeout=seconds)


def test_global_nodes_of_ours_name_the_owners(node: Node, dial: Dial) -> None:
    shorten_grace(node, 0.2)
    client = dial("client")
    client.send(["", "g_slave", {"f": {"k": "client's"}}])
    handled(client)
    node.db_set("f", "mine", 1)
    other = dial("g", OURS)
    other.send(["", "g_global"])
    me = node.NODE()
    assert other.take(2) == [
        ["", "g_set", {"f": {"k": "client's"}}, "client"],
        ["", "g_set", {"f": {"mine": 1}, "'l": {me: [me]}, "'g": {me: None, "g": None}}, me],
    ]
    other.send(["", "g_set", {"f": {"k": "a's", "l": 1}}, "a"], ["", "g_set", {"f": {"k": "z's", "m": 1}}, "z"])
    other.send(["", "g_set", {"'l": {"g": ["127.0.0.1:1"]}, "'g": {"g": None}}, "g"])
    handled(other)
    assert node.db_family("f") == {"k": "a's", "l": 1, "m": 1, "mine": 1}
    other.send(["", "g_upd", "f", None, ["k"], "a"])
    handled(other)
    assert node.db_family("f")["k"] == "client's"
    client.send(["", "g_upd", "f", {"n": 1}, ["k"]])
    assert other.packet() == ["", "g_upd", "f", {"n": 1}, ["k"], "client"]
    assert node.db_family("f")["k"] == "z's"
    client.close()
    assert other.packet() == ["", "g_upd", "f", None, ["n"], "client"]
    other.close()
    wait_until(lambda: node.db_family("f") == {"mine": 1}, within=WAIT)
    assert node._embedded is not None
    assert node._embedded._server is not None
    assert node._embedded._server._merged.families["'g"] == {me: None}


RIGHT, WRONG = ["127.0.0.1:4"], ["127.0.0.1:6"]


def found(peer: RawPeer, node: str) -> Any:
    """Return where a node listens, as this one tells a peer."""
    peer.send(["", "g_find", node])
    while True:
        packet = peer.packet()
        if packet[:3] == ["", "g_found", node]:
            return packet[3]


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
def test_nobody_says_where_another_node_listens_unless_it_can_have_heard_it(
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
    assert "node a-liar said where another node listens, which is ignored: 'backend'" in caplog.text


def test_what_a_node_says_of_itself_comes_before_what_global_nodes_say_of_it(node: Node, dial: Dial) -> None:
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


def test_peer_has_this_node_dial_only_so_many_global_nodes(
    node: Node, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_server, "MAX_GLOBALS", 3)
    monkeypatch.setattr(directory_server, "_MESH_SECONDS", 0.02)
    dialled: set[str] = set()
    assert node._network is not None
    monkeypatch.setattr(node._network, "link_to", dialled.add)
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


def become_global(peer: RawPeer) -> None:
    peer.send(["", "g_global"])
    while peer.packet()[:2] != ["", "g_set"]:
        pass


def test_what_a_lost_global_node_told_of_others_is_kept_until_they_had_the_time_to_go_elsewhere(
    node: Node, dial: Dial
) -> None:
    watcher, other = dial("w"), dial("g", OURS)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", None]
    become_global(other)
    other.send(["", "g_set", {"f": {"k": 1}}, "a"], ["", "g_set", {"f": {"own": 1}, "'g": {"g": None}}, "g"])
    assert watcher.take(2) == [["", "g_chg2", "f", {"k": 1}, []], ["", "g_chg2", "f", {"own": 1}, []]]
    other.close()
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["own"]], "it was lost itself"
    # It returns, and tells the same of another one, and more: only that is news.
    again = dial("g", OURS)
    become_global(again)
    again.send(["", "g_set", {"f": {"k": 1, "l": 1}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    assert watcher.packet() == ["", "g_chg2", "f", {"l": 1}, []]
    again.close()
    # The other one comes here, and has less by now.
    late = dial("a")
    late.send(["", "g_slave", {"f": {"k": 1}}])
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["l"]]
    late.close()
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["k"]]


def test_nobody_takes_away_what_a_lost_global_node_told_by_saying_that_there_is_nothing(node: Node, dial: Dial) -> None:
    watcher, other, liar = dial("w"), dial("g", OURS), dial("liar", OURS)
    for peer in (other, liar):
        become_global(peer)
    other.send(["", "g_set", {"f": {"k": 1}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    handled(other)
    other.close()
    wait_until(lambda: "g" not in node.up_nodes(), within=WAIT)
    liar.send(["", "g_set", {"f": {"l": 1}}, "a"], ["", "g_set", {"'g": {"liar": None}}, "liar"])
    packets_until_now(liar)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", {"k": 1, "l": 1}]
    itself = dial("a", OURS)
    itself.send(["", "g_slave", {"f": {"m": 1}}])
    assert watcher.take(2) == [["", "g_chg2", "f", {"m": 1}, []], ["", "g_chg2", "f", {}, ["k"]]]


def test_who_goes_nowhere_is_forgotten_in_the_end(node: Node, dial: Dial) -> None:
    shorten_grace(node, 0.2)
    watcher, other = dial("w"), dial("g", OURS)
    become_global(other)
    other.send(["", "g_set", {"f": {"k": 1}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    handled(other)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", {"k": 1}]
    other.close()
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["k"]]
    assert node._embedded is not None
    assert node._embedded._server is not None
    assert not node._embedded._server._orphaned


def test_client_that_becomes_global_brings_its_entries_anew_and_nothing_flickers(node: Node, dial: Dial) -> None:
    watcher, client = dial("w"), dial("b", OURS)
    client.send(["", "g_slave", {"f": {"k": 1, "l": 1}}])
    handled(client)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", {"k": 1, "l": 1}]
    client.send(["", "g_global"], ["", "g_set", {"f": {"k": 1, "m": 1}, "'g": {"b": None}}, "b"])
    assert watcher.take(2) == [["", "g_chg2", "f", {"m": 1}, []], ["", "g_chg2", "f", {}, ["l"]]]
    client.send(["", "g_upd", "f", None, ["k"], "b"])
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["k"]]
    assert node._embedded is not None
    assert node._embedded._server is not None
    (guest,) = [guest for guest in node._embedded._server._guests.values() if guest.peer.node == "b"]
    assert guest.entries == 2


def packets_until_now(peer: RawPeer) -> list[list[Any]]:
    """Return everything that the node has told a peer."""
    peer.send(["", "time", f"{peer.name}#pong"])
    packets: list[list[Any]] = []
    while True:
        packet = peer.packet()
        if packet[0] == "pong":
            return packets
        packets.append(packet)


def test_link_that_is_lost_while_a_change_is_told_does_not_upset_the_order(make_node: MakeNode) -> None:
    node = make_node(max_message_bytes=2**20, high_water_bytes=2**10)
    with ExitStack() as stack:
        slow, watcher = (stack.enter_context(RawPeer.dial(node, name, extras=PERL).shake()) for name in ("s", "w"))
        slow.send(["", "g_slave", {"f": {"k": "x" * 900_000}}], ["", "g_mon1", "f"])
        packets_until_now(slow)
        watcher.send(["", "g_mon1", "f"])
        packets_until_now(watcher)
        seen: dict[str, Any] = {}
        # Deleting ours shows the slow one's. It does not read: telling it so ends its link, at the hard
        # limit, and with that its entry, while the watcher is still to be told of the first change.
        for number in range(200):
            node.db_set("f", "k", number)
            node.db_del("f", "k")
            for _, _request, _family, entries, deleted in packets_until_now(watcher):
                seen = {key: value for key, value in {**seen, **entries}.items() if key not in deleted}
            if "s" not in node.up_nodes():
                break
        assert "s" not in node.up_nodes()
        assert seen == {}


def test_link_that_is_lost_when_others_are_forgotten_does_not_upset_the_order(
    node: Node, dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten_grace(node, 0.2)
    slow, watcher, other = dial("s"), dial("w"), dial("g", OURS)
    become_global(other)
    other.send(["", "g_set", {"f": {"k": "a's"}}, "a"], ["", "g_set", {"'g": {"g": None}}, "g"])
    handled(other)
    for peer in (slow, watcher):
        peer.send(["", "g_mon1", "f"])
        assert peer.packet() == ["", "g_chg1", "f", {"k": "a's"}]
    slow.send(["", "g_slave", {"f": {"k": "s's"}}])
    handled(slow)
    assert node._network is not None
    mine = node._network.peer("s")
    monkeypatch.setattr(mine, "check_hard_limit", lambda: mine._give_up("it does not read"))
    other.close()
    assert watcher.take(2) == [["", "g_chg2", "f", {"k": "s's"}, []], ["", "g_chg2", "f", {}, ["k"]]]
    assert node.db_family("f") == {}


def test_global_nodes_that_lost_each_other_meet_again_although_a_third_one_has_links_to_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(directory_server, "_MESH_SECONDS", 0.05)
    with MemoryNetwork() as network:
        names = [f"10.0.0.{number}:4040" for number in (1, 2, 3)]
        nodes = [network.node(name, name, *(names[:1] if name != names[0] else ())) for name in names]
        wait_until(lambda: all(len(node.up_nodes()) == 2 for node in nodes), within=WAIT)
        # Nothing but the loss itself makes them look for each other.
        for node in nodes:
            node.db_set("f", node.NODE())
            assert node._embedded is not None
            server = node._embedded._server
            assert server is not None
            wait_until(lambda server=server: server._mesh_timer is None, within=WAIT)  # type: ignore[misc]
        assert network.cut(nodes[1], nodes[2]) == 1
        wait_until(lambda: names[2] not in nodes[1].up_nodes(), within=WAIT)
        for node in nodes:
            wait_until(lambda node=node: sorted(node.db_keys("f")) == names, within=WAIT)  # type: ignore[misc]


def test_global_perl_node_gets_everything_merged(node: Node, dial: Dial) -> None:
    """As in ``aemp202_json_b_is_global.txt``."""
    me = node.NODE()
    for name in ("y", "x"):
        client = dial(name)
        client.send(["", "g_slave", {"f": {"k": name}}])
        handled(client)
    b = dial("b", framing="json")
    b.send(["", "g_slave"], ["", "g_global"], ["", "g_slave", {"'l": {"b": ["127.0.0.1:9"]}, "'g": {"b": None}}])
    assert b.packet() == ["", "g_set", {"f": {"k": "x"}, "'l": {me: [me]}, "'g": {me: None, "b": None}}]
    b.send(["", "g_mon1", "'g"], ["", "g_upd", "'g", {me: None}])
    b.send(["", "g_set", {"'g": {"b": None}, "'l": {"b": ["127.0.0.1:9"]}, "f": {"k": "b", "l": 1}}])
    assert b.take(3) == [
        ["", "g_upd", "'l", {"b": ["127.0.0.1:9"]}, []],
        ["", "g_chg1", "'g", {me: None, "b": None}],
        ["", "g_upd", "f", {"k": "b", "l": 1}, []],
    ]
    assert node.db_family("f") == {"k": "b", "l": 1}  # what it brought is its own
    b.send(["", "g_find", "b"], ["", "g_upd", "f", None, ["k", "l"]])
    assert b.take(2) == [["", "g_found", "b", ["127.0.0.1:9"]], ["", "g_upd", "f", {"k": "x"}, ["l"]]]
    assert node.db_family("f") == {"k": "x"}
    client.send(["", "g_upd", "f", None, ["k"]])
    assert b.packet() == ["", "g_upd", "f", {"k": "y"}, []]
    handled(b)
    assert node.db_family("f") == {"k": "y"}


def test_global_perl_node_always_hears_first_where_this_one_listens(node: Node, dial: Dial) -> None:
    """It takes that from ``g_set`` only, and keeps nil if it is not in there."""
    node.db_set("f", "k", b"what JSON cannot carry")
    me = node.NODE()
    b = dial("b", framing="json")
    b.send(["", "g_global"])
    assert b.packet() == ["", "g_set", {"'l": {me: [me]}}]
    updates = b.take(2)
    assert sorted(packet[2] for packet in updates) == ["'g", "'l"]
    handled(b)


DATABASE = {"'l": {"b": ["127.0.0.1:9"]}, "'g": {"b": None}, "f": {"k": 1}}

AS_CLIENT = [["", "g_slave"], ["", "g_slave", DATABASE], ["", "g_mon1", "'g"]]
AS_GLOBAL = [["", "g_global"], ["", "g_set", DATABASE]]


@pytest.mark.parametrize(
    "beginning",
    [
        pytest.param([AS_CLIENT[0], AS_GLOBAL[0], *AS_CLIENT[1:], AS_GLOBAL[1]], id="as-recorded"),
        pytest.param([*AS_CLIENT, *AS_GLOBAL], id="attached-first"),  # Perl's callbacks run in no certain order
        pytest.param([*AS_GLOBAL, *AS_CLIENT], id="global-first"),
    ],
)
def test_changes_of_a_global_perl_node_that_is_attached_go_to_all_global_nodes_and_itself(
    make_node: MakeNode, node: Node, dial: Dial, beginning: list[list[Any]]
) -> None:
    """It sends them to its master only, and has them in its own directory only when they come back."""
    other = make_node("127.0.0.1:0", node.NODE())
    with RawPeer.dial(other, "c", extras=PERL).shake() as client:
        client.send(["", "g_slave"])  # now there are two global nodes of ours
        wait_until(lambda: other.info()["directory"] == "global", within=WAIT)
        b, perl = dial("b", framing="json"), dial("perl")
        perl.send(["", "g_global"], ["", "g_set", {}])
        b.send(*beginning)
        wait_until(lambda: other.db_family("f") == {"k": 1}, within=WAIT)
        updates_of(b), updates_of(perl)
        for update, view in [
            ([{"k": 2, "l": 3}], {"k": 2, "l": 3}),
            ([None, ["k"]], {"l": 3}),
            ([{"l": 4}, []], {"l": 4}),
        ]:
            b.send(["", "g_upd", "f", *update])
            told = [["", "g_upd", "f", update[0], [*update, []][1]]]
            assert updates_of(b) == updates_of(perl) == told
            wait_until(lambda view=view: other.db_family("f") == view, within=WAIT)  # type: ignore[misc]
        # Perl, too, only ever adds what such a message brings.
        b.send(["", "g_set", {}])
        handled(b)
        assert node.db_family("f") == {"l": 4}
        b.close()
        wait_until(lambda: other.db_family("f") == {}, within=WAIT)
        assert updates_of(perl) == [["", "g_upd", "f", None, ["l"]]]
    assert node.db_family("f") == {}


def updates_of(peer: RawPeer) -> list[list[Any]]:
    """Return what has come of the family f."""
    peer.send(["", "snd", f"{peer.name}#all"])
    return [packet for packet in iter(peer.packet, ["all"]) if packet[1:3] == ["g_upd", "f"]]
