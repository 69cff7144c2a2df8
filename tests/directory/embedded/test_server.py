# SPDX-License-Identifier: MIT
"""A global node, packet by packet: raw peers are its clients, and other global nodes."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.directory.embedded import server
from aemp_gevent.node.node import Node
from tests.directory.embedded.networks import OURS, PERL, Dial, handled, shorten_grace
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawPeer
from tests.support.seams import embedded_of, request_host_of


def test_node_that_speaks_no_gproto_is_sent_none_of_it(node: Node) -> None:
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


def test_entries_of_a_client_go_with_its_link(node: Node, dial: Dial) -> None:
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


def test_entries_of_clients_that_cannot_be_asked_are_counted_where_they_are_kept(node: Node, dial: Dial) -> None:
    node.db_set("own", "a")
    perl, ours = dial("perl"), dial("b", OURS)
    peers = (perl, ours)
    for peer in peers:
        peer.send(
            ["", "g_slave", {"'l": {peer.name: ["127.0.0.1:5"]}, "own": {peer.name: 1}, f"of {peer.name}": {"x": 1}}]
        )
    handled(*peers)
    assert request_host_of(node).own_families == {"own": 2, "of perl": 1}
    perl.close()
    wait_until(lambda: request_host_of(node).own_families == {"own": 1})


def test_the_number_of_families_that_a_peer_watches_is_limited(
    node: Node, dial: Dial, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_WATCHES", 2)
    peer = dial("b")
    peer.send(*(["", "g_mon1", name] for name in ("a", "b", "a", "c")))
    assert [packet[2] for packet in peer.take(3)] == ["a", "b", "a"]
    handled(peer)
    wait_until(lambda: "the peer watches 2 families already" in caplog.text, within=WAIT)
    assert node.refusals == {"directory": 1}


def test_watchers_are_forgotten_with_their_link(node: Node, dial: Dial) -> None:
    peer = dial("b")
    peer.send(["", "g_mon1", "f"])
    assert peer.packet() == ["", "g_chg1", "f", None]
    its = embedded_of(node)._server
    assert its is not None
    assert set(its._watchers) == {"f"}
    peer.close()
    wait_until(lambda: not its._watchers and not its._guests, within=WAIT)


@pytest.mark.slow
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
    assert embedded_of(node)._server is not None
    assert embedded_of(node)._server._merged.families["'g"] == {me: None}


def test_client_that_becomes_global_brings_its_entries_again_and_nothing_flickers(node: Node, dial: Dial) -> None:
    watcher, client = dial("w"), dial("b", OURS)
    client.send(["", "g_slave", {"f": {"k": 1, "l": 1}}])
    handled(client)
    watcher.send(["", "g_mon1", "f"])
    assert watcher.packet() == ["", "g_chg1", "f", {"k": 1, "l": 1}]
    client.send(["", "g_global"], ["", "g_set", {"f": {"k": 1, "m": 1}, "'g": {"b": None}}, "b"])
    assert watcher.take(2) == [["", "g_chg2", "f", {"m": 1}, []], ["", "g_chg2", "f", {}, ["l"]]]
    client.send(["", "g_upd", "f", None, ["k"], "b"])
    assert watcher.packet() == ["", "g_chg2", "f", {}, ["k"]]
    assert embedded_of(node)._server is not None
    (guest,) = [guest for guest in embedded_of(node)._server._guests.values() if guest.peer.node == "b"]
    assert guest.account.entries == 2


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


def test_global_perl_node_is_always_sent_first_where_this_one_listens(node: Node, dial: Dial) -> None:
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
