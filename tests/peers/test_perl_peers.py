# SPDX-License-Identifier: MIT
"""Peers of another program: what Perl spells differently, and what it must never get."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from aemp_gevent.errors import InvalidPortError, UnencodableMessageError
from aemp_gevent.node import spawnable_functions
from aemp_gevent.node.node import Node
from aemp_gevent.node.spawnable_functions import spawnable
from aemp_gevent.wire.framing import FRAMINGS
from tests.support.helpers import wait_until
from tests.support.networking import (
    OUR_PROVIDER,
    WAIT,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    name_of,
)

# Without gproto: what the directory sends to it is tested elsewhere.
PERL = (("provider", "AE-2.02"),)


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


# --- text and bytes ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("extras", "arrives"),
    [
        pytest.param(PERL, "k\xe4se", id="from-perl"),
        pytest.param((), "k\xe4se", id="from-another-program"),
        pytest.param(OUR_PROVIDER, b"k\xe4se", id="from-a-node-of-ours"),
    ],
)
def test_byte_strings_are_text_unless_they_come_from_a_node_of_ours(
    node: Node, extras: tuple[tuple[str, str], ...], arrives: object
) -> None:
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=extras, framing="cbor").shake() as peer:
        peer.send([name_of(inbox.port), b"k\xe4se", {"key": b"k\xe4se"}])
        wait_until(lambda: inbox.messages)
    assert inbox.messages == [(arrives, {"key": arrives})]


def test_perl_sends_everything_as_byte_strings_and_is_understood(node: Node) -> None:
    inbox = Inbox(node)
    with RawPeer.dial(node, "perl", extras=PERL, framing="cbor").shake() as peer:
        peer.send([name_of(inbox.port).encode(), b"tag", {b"\xe4": [b""]}])
        peer.send([b"", b"mon1", name_of(inbox.port).encode()])
        peer.send([b"", b"time", b"perl#reply", b"tag"])
        assert peer.packet()[:2] == ["reply", "tag"]
        node.kil(inbox.port, "because")
        assert peer.packet() == ["", "kil0", name_of(inbox.port), "because"]
    assert inbox.messages == [("tag", {"\xe4": [""]})]


def test_text_and_bytes_reach_perl_as_what_they_are(node: Node) -> None:
    with RawPeer.dial(node, "perl", extras=PERL, framing="cbor").shake() as peer:
        node.snd("perl#p", "k\xe4se", b"k\xe4se", {"k\xe4se": b"\xff", b"k": "€"})
        # As the test reads it nothing is converted: text strings and byte strings, which Perl reads as characters each.
        assert peer.packet() == ["p", "k\xe4se", b"k\xe4se", {"k\xe4se": b"\xff", b"k": "€"}]


def test_json_has_no_bytes_and_the_error_says_where_they_are(node: Node) -> None:
    with RawPeer.dial(node, "perl", extras=PERL, framing="json").shake() as peer:
        with pytest.raises(
            UnencodableMessageError, match="argument 1 of 'tag', key 'x', element 0 is a bytes, which JSON"
        ):
            node.snd("perl#p", "tag", {"x": [b"y"]})
        node.snd("perl#p", "tag", {"x": ["y"]})
        assert peer.packet() == ["p", "tag", {"x": ["y"]}]


@pytest.mark.parametrize("value", [-(2**63) - 1, -(2**64), {-(2**63) - 1: 0}], ids=repr)
def test_ints_that_perl_would_take_for_others_are_refused(node: Node, value: object) -> None:
    with RawPeer.dial(node, "perl", extras=PERL, framing="cbor").shake() as peer:
        with pytest.raises(
            UnencodableMessageError, match=r"argument 1 of 'tag', key 'x', element 0 (is|has the key) .* 64 bits"
        ):
            node.snd("perl#p", "tag", {"x": [value]})
        node.snd("perl#p", -(2**63), 2**64 - 1)
        assert peer.packet() == ["p", -(2**63), 2**64 - 1]


def test_each_direction_has_its_own_framing(node: Node) -> None:
    """Each side sends in the first framing of the other's list that it has."""
    inbox = Inbox(node)
    with RawPeer.dial(node, "perl", extras=PERL, framing="json") as peer:
        assert peer.greet().framings == tuple(FRAMINGS) == ("msgpack", "cbor", "json")
    peer = RawPeer.dial(node, "perl", extras=PERL, framing="json")
    # It offers only JSON, and yet sends CBOR.
    peer.handshake._choose_framing = lambda greeting: "cbor"  # type: ignore[method-assign]
    with peer.shake():
        peer.encode = FRAMINGS["cbor"].encoder()
        peer.send([name_of(inbox.port).encode(), b"in CBOR"], ["", "snd", "perl#p", "in JSON"])
        assert peer.packet() == ["p", "in JSON"]
        wait_until(lambda: inbox.messages)
    assert inbox.messages == [("in CBOR",)]


# --- names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "name"),
    [pytest.param(7, "7", id="int"), pytest.param(7.0, "7", id="float"), pytest.param(7.5, "7.5", id="fraction")],
)
@pytest.mark.parametrize("framing", ["json", "cbor"])
def test_a_name_may_come_as_a_number(node: Node, framing: str, sent: object, name: str) -> None:
    """To Perl 7 and "7" are the same, and how it was last used decides which of them it sends."""
    inbox = Inbox(node)
    node.reg(inbox.port, name)
    with RawPeer.dial(node, "perl", extras=PERL, framing=framing).shake() as peer:
        peer.send([sent, "hello"], ["", "mon1", sent], ["", "kil1", sent, "bye"])
        assert peer.packet() == ["", "kil0", name, "bye"]
        assert inbox.messages == [("hello",)]
        deaths = Deaths()
        node.mon(f"perl#{name}", deaths)
        assert peer.packet() == ["", "mon1", name]
        peer.send(["", "kil0", sent, "gone"])
        assert deaths.wait() == ("gone",)


@pytest.mark.parametrize("name", [None, True, ["p"], {"p": 1}, math.nan], ids=repr)
def test_an_invalid_name_costs_the_link(node: Node, name: object, caplog: pytest.LogCaptureFixture) -> None:
    with RawPeer.dial(node, "perl", extras=PERL, framing="cbor").shake() as peer:
        peer.send([name, "hello"])
        assert peer.closed()
    assert "port name is" in caplog.text


@pytest.mark.parametrize(
    "node_id", ["perl", "k\xe4se/1+2", "a:node_of{Perl}", "host/x%y;z", "k\xc3\xa4se", "a b", "a,b", "perl:4040", " "]
)
@pytest.mark.parametrize("name", ["p", "a port €", "#%;,"])
def test_any_printable_node_and_port_is_a_full_member(node: Node, node_id: str, name: str) -> None:
    port, deaths = f"{node_id}#{name}", Deaths()
    with RawPeer.dial(node, node_id, extras=PERL, framing="json").shake() as peer:
        wait_until(lambda: node.node_is_up(node_id))
        node.snd(port, "hello")
        assert peer.packet() == [name, "hello"]
        node.mon(port, deaths)
        assert peer.packet() == ["", "mon1", name]
        peer.send(["", "snd", port, "to me"])
        assert peer.packet() == [name, "to me"]
        node.kil(port, "bye")
        assert peer.packet() == ["", "kil1", name, "bye"]
        peer.send(["", "kil0", name, "bye"])
        assert deaths.wait() == ("bye",)
        assert node.up_nodes() == [node_id]
        assert node.node_of(port) == node_id
        spawned = node.spawn(node_id, "Some::init")
        assert peer.take(2)[0][:2] == ["", "AnyEvent::MP::_spawn"]
        assert spawned.startswith(f"{node_id}#")
        answers: list[Any] = []
        node.cal(port, "ask", cb=lambda *answer: answers.append(answer))
        assert peer.packet() == ["", "mon1", name]
        reply = peer.packet()[-1]
        peer.send([name_of(reply), "answer"])
        wait_until(lambda: answers == [("answer",)])
        answer = node.call_async(port, "ask")
        assert peer.packet() == ["", "mon0", name]  # of the answer before
        assert peer.packet() == ["", "mon1", name]
        peer.send([name_of(peer.packet()[-1]), "another"])
        assert answer.get(timeout=WAIT) == "another"
        server = node.serve(node.port(), ask=lambda: "ours")
        peer.send([name_of(server), "ask", f"{node_id}#reply"])
        assert peer.take(2) == [["", "mon0", name], ["reply", "ours"]]


def test_odd_node_ids_of_nodes_that_were_never_met_are_mistakes(node: Node) -> None:
    with RawPeer.dial(node, "a b", extras=PERL, framing="json") as peer:
        peer.greet()  # proves nothing
        with pytest.raises(InvalidPortError):
            node.snd("a b#p", "hello")
        peer.sock.sendall(peer.handshake.prove())
        wait_until(lambda: node.up_nodes() == ["a b"])
        node.snd("a b#p", "hello")
        with pytest.raises(InvalidPortError):
            node.snd("a b#p\n", "hello")


def test_names_reach_perl_functions_and_come_from_there(node: Node) -> None:
    got: list[Any] = []

    @spawnable("Some::Package::init")
    def init(*args: Any) -> None:
        got.append(args)

    with RawPeer.dial(node, "perl", extras=PERL, framing="json").shake() as peer:
        # The monitor and the message for it may come in the same packet, before the function ran.
        peer.send(
            ["", "AnyEvent::MP::_spawn", "their port", "Some::Package::init", 1, "x"],
            ["", "mon1", "their port"],
            ["their port", "hello"],
            ["", "kil1", "their port"],
        )
        assert peer.packet() == ["", "kil0", "their port"]
        assert got == [(1, "x")]
        deaths = Deaths()
        ours = node.spawn("perl", "Their::Package::init", "y")
        node.mon(ours, deaths)
        name = name_of(ours)
        assert peer.take(2) == [["", "AnyEvent::MP::_spawn", name, "Their::Package::init", "y"], ["", "mon1", name]]
        # Perl makes no port if there is no such function.
        peer.send(["", "kil0", name, "no_such_port", "cannot monitor nonexistent port", ours])
        assert deaths.wait()[0] == "no_such_port"


@pytest.mark.parametrize(
    "request_of_ours",
    [
        ["after", "x"],
        ["after", "x", 5],
        ["refused", "go"],
        ["bye"],
        ["idle"],
        ["stay"],
        ["via", "a", "perl", ["", "x"]],
        ["call", {"reply": "perl#r"}, "p", "tag"],
        ["call"],
    ],
    ids=repr,
)
def test_what_only_nodes_of_ours_say_means_nothing(node: Node, request_of_ours: list[Any]) -> None:
    with RawPeer.dial(node, "perl", extras=PERL, framing="json").shake() as peer:
        peer.send(["", *request_of_ours])
        assert peer.answers()
        peer.send(["", *request_of_ours])
        assert peer.answers()
        assert node.up_nodes() == ["perl"]


@pytest.mark.parametrize("name", ["after", "bye", "call"])
def test_what_only_nodes_of_ours_say_may_be_the_name_of_a_function(node: Node, name: str) -> None:
    got: list[Any] = []
    spawnable(name)(lambda *args: got.append(args))
    try:
        with RawPeer.dial(node, "perl", extras=PERL, framing="json").shake() as peer:
            peer.send(["", name, 1, 2])
            wait_until(lambda: got == [(1, 2)])
    finally:
        del spawnable_functions._spawnable[name]


def test_aemp_trace_of_perl_is_answered_without_running_anything(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """It has each node evaluate one fixed text (AnyEvent::MP 2.02, ``bin/aemp``)."""
    node = make_node(secure=True, rules=[{"peer": "blind", "inspect": False}])
    request = ["", "eval", "AnyEvent::MP::Kernel::up_nodes", "aemp/host/x#reply", node.NODE()]
    with RawPeer.dial(node, "aemp/host/x", extras=PERL, framing="json").shake() as peer:
        peer.send(request)
        assert peer.packet() == ["reply", node.NODE(), "", "aemp/host/x"]
        peer.send(request[:3])  # which nobody is to hear of
        assert peer.answers()
        assert "eval is off here" in caplog.text
        with RawPeer.dial(node, "blind", extras=PERL, framing="json").shake() as blind:
            blind.send([*request[:3], "blind#reply"])
            assert blind.packet() == ["reply", "the rules do not let blind inspect this node"]
            peer.send(request)
            assert peer.packet() == ["reply", node.NODE(), "", "aemp/host/x", "blind"]


# --- connections ------------------------------------------------------------------


def test_dataconn_is_refused_politely_and_the_listener_continues(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    peer = RawPeer.dial(node)
    with peer:
        peer.sock.sendall(b"aemp-dataconn;1;perl;hmac_sha3_512;json;provider=AE-2.02\n")
        assert peer.closed()
    (line,) = [message for message in caplog.messages if "dataconn" in message]
    assert "asks for another protocol" in line
    with RawPeer.dial(node, "perl", extras=PERL, framing="json").shake() as peer:
        assert peer.answers()


def test_second_connection_of_a_perl_node_that_is_up_is_closed_and_the_first_continues(node: Node) -> None:
    with RawPeer.dial(node, "perl", extras=PERL, framing="json").shake() as first:
        assert first.answers()
        with RawPeer.dial(node, "perl", extras=PERL, framing="json") as second:
            second.greet()
            assert second.closed()
        assert first.answers()


def test_perl_hears_no_farewell_of_our_own(node: Node) -> None:
    with RawPeer.dial(node, "perl", extras=PERL, framing="json").shake() as perl:
        assert perl.answers()
        node.shutdown(WAIT / 100)
        assert perl.closed()
        assert perl._packets == []


def test_perl_that_is_dialled_gets_what_waited(make_node: MakeNode) -> None:
    node = make_node()
    with RawListener() as listener:
        node.snd(f"{listener.id}#p", "k\xe4se", b"\xff")
        with listener.accept(extras=PERL, framing="cbor").shake() as peer:
            assert peer.packet() == ["p", "k\xe4se", b"\xff"]


def test_name_of_a_node_that_is_nowhere_is_still_no_address(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aemp_gevent.peers.finding.SETTLE_SECONDS", 0.2)
    node = make_node()
    deaths = Deaths()
    node.mon("a+Perl+node#p", deaths)
    kind, name, text = deaths.wait()
    assert (kind, name) == ("transport_error", "a+Perl+node")
    assert text.startswith("no known address")


@pytest.mark.parametrize("framing", ["cbor", "json"])
def test_node_id_in_utf_8_is_to_us_what_it_is_to_perl(node: Node, framing: str) -> None:
    """Without ``use utf8`` Perl has a character for each byte, in its greeting, its port IDs and the directory."""
    with RawPeer.dial(node, framing=framing) as peer:
        lines = f"aemp;1;käse;hmac_sha3_512;{framing};provider=AE-2.02".encode(), b"nonce"
        peer.handshake._lines = lines
        peer.shake()
        name = lines[0].split(b";")[2].decode("latin-1")
        wait_until(lambda: node.up_nodes() == [name])
        peer.send(["", "time", f"{name}#reply"])
        assert peer.packet()[0] == "reply"
