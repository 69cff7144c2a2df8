# SPDX-License-Identifier: MIT
"""Peers that send garbage, too much or nothing: they lose their link, with one log line, and nobody else notices."""

from __future__ import annotations

import logging
import socket as std_socket
from collections.abc import Callable
from typing import Any

import pytest

from aemp_gevent.node.node import Node
from aemp_gevent.node.requests import MAX_DETOURS, Requests
from aemp_gevent.peers.peer import Peer
from aemp_gevent.runtime.bounded_log import MAX_LINES
from tests.support.handshake_timers import HandshakeTimers
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, Deaths, Inbox, MakeNode, RawPeer, free_address, reset
from tests.support.seams import network_of

LIMIT = 20_000
HANDSHAKE_TIMEOUT = 1.0

PEER = "127.0.0.1:9"


class PingPong:
    """A game between two nodes beside whatever happens: each hit is counted."""

    def __init__(self, near: Node, far: Node) -> None:
        self.hits = 0
        self.near = near
        self.ours = near.port(self._hit)
        self.theirs = far.port(far.snd)
        self.lost: list[Any] = []
        near.mon(self.theirs, lambda *reason: self.lost.append(reason))
        near.snd(self.theirs, self.ours)

    def _hit(self) -> None:
        self.hits += 1
        self.near.after(0.001, self.theirs, self.ours)  # at full speed it would be what takes the time here

    def check_that_it_continues(self) -> None:
        before = self.hits
        wait_until(lambda: self.hits > before + 5, show=lambda: (self.hits, before))
        assert not self.lost


@pytest.fixture
def victim(make_node: MakeNode) -> Node:
    return make_node(max_message_bytes=LIMIT, handshake_timeout=HANDSHAKE_TIMEOUT)


@pytest.fixture
def game(make_node: MakeNode, victim: Node) -> PingPong:
    game = PingPong(victim, make_node())
    game.check_that_it_continues()
    return game


def log_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


# --- before it is authenticated --------------------------------------------------


def say(*lines: bytes) -> Callable[[RawPeer], None]:
    return lambda peer: peer.sock.sendall(b"".join(lines))


def greet_and_say(data: bytes) -> Callable[[RawPeer], None]:
    def act(peer: RawPeer) -> None:
        peer.greet()
        peer.sock.sendall(data)

    return act


def greet_then(what: Callable[[RawPeer], None]) -> Callable[[RawPeer], None]:
    def act(peer: RawPeer) -> None:
        peer.greet()
        what(peer)

    return act


def half_close(peer: RawPeer) -> None:
    peer.sock.shutdown(std_socket.SHUT_WR)


def stall(peer: RawPeer) -> None:
    pass


def echo(peer: RawPeer) -> None:
    peer.sock.sendall(peer.sock.recv(65536))


GREETING = b"aemp;1;127.0.0.1:9;hmac_sha3_512;msgpack\nnonce\n"

STRANGERS = {
    "http": (say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "does not speak aemp"),
    "binary": (say(b"\xff\x00\x01" * 50 + b"\n\n"), ""),
    "version": (say(b"aemp;2;127.0.0.1:9;hmac_sha3_512;msgpack\nnonce\n"), "version"),
    "few-fields": (say(b"aemp;1;127.0.0.1:9\nnonce\n"), "fields"),
    "no-method": (say(b"aemp;1;127.0.0.1:9;rot13;msgpack\nnonce\n"), "no common auth method"),
    "no-framing": (say(b"aemp;1;127.0.0.1:9;hmac_sha3_512;morse\nnonce\n"), "no common framing"),
    "long-line": (say(b"aemp;1;" + b"x" * 4096), "more than 4096"),
    "long-nonce": (say(GREETING[:-6], b"n" * 4100), "more than 4096"),
    "echo": (echo, ""),
    "stall-at-once": (stall, "no handshake within"),
    "stall-after-greeting": (greet_then(stall), "no handshake within"),
    "half-closed-at-once": (half_close, "closed the connection during the handshake"),
    "half-closed-after-greeting": (greet_then(half_close), "closed the connection during the handshake"),
    "reset-mid-handshake": (greet_then(reset), "reset"),
    "long-auth-line": (greet_and_say(b"hmac_sha3_512;" + b"a" * 4096), "more than 4096"),
    "auth-of-two-fields": (greet_and_say(b"hmac_sha3_512;00\n"), "fields"),
    "wrong-token": (greet_and_say(b"hmac_sha3_512;" + b"0" * 128 + b";msgpack\n"), "token is wrong"),
    "cleartext": (greet_and_say(b"cleartext;00;msgpack\n"), "auth method"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("act", "says"), STRANGERS.values(), ids=STRANGERS.keys())
def test_stranger_loses_its_connection_with_one_log_line(
    victim: Node,
    game: PingPong,
    caplog: pytest.LogCaptureFixture,
    act: Callable[[RawPeer], None],
    says: str,
) -> None:
    caplog.set_level(logging.INFO)
    changes: list[Any] = []
    victim.mon_nodes(lambda *change: changes.append(change))
    with RawPeer.dial(victim) as peer:
        act(peer)
        if not peer.sock.closed:
            assert peer.closed()
    (line,) = wait_until(lambda: log_lines(caplog))
    assert says in line
    assert "127.0.0.1" in line, "it must say who it was"
    assert victim.refusals == ({} if "closed the connection" in line or "reset" in line else {"handshake": 1})
    game.check_that_it_continues()
    assert len(log_lines(caplog)) == 1, log_lines(caplog)
    assert changes == []
    assert "127.0.0.1:9" not in victim.up_nodes()


def test_wrong_secret_is_refused_with_one_log_line(
    victim: Node, game: PingPong, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox(victim)
    with RawPeer.dial(victim, secret="another secret") as peer:
        peer.greet()
        # All in one piece: the packets must not be handled although they are there.
        peer.sock.sendall(peer.handshake.prove() + peer.encode([inbox.port.partition("#")[2], "gotcha"]))
        assert peer.closed()
    game.check_that_it_continues()
    (line,) = log_lines(caplog)
    assert "uses a different secret, or" in line
    assert "different secret" not in line.replace("it uses a different secret, or", "")
    assert inbox.messages == []


def test_stranger_that_claims_the_id_of_a_node_that_is_up_is_logged_and_counted_as_any_other(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Or who guesses secrets would have to know no more than one name to do it unseen."""
    node, other = make_node(), make_node()
    inbox = Inbox(other)
    node.snd(inbox, "hello")
    wait_until(lambda: inbox.messages)
    for number in range(1, 4):
        with RawPeer.dial(node, other.NODE(), secret="wrong") as peer:
            peer.greet()
            peer.sock.sendall(peer.handshake.prove())
            assert peer.closed()
        wait_until(lambda: node.refusals == {"handshake": number}, show=lambda: node.refusals)  # noqa: B023
    assert sum("token is wrong" in line for line in log_lines(caplog)) == 3


def test_stranger_who_claims_a_nodes_id_and_stalls_delays_nobody(make_node: MakeNode) -> None:
    """Neither who sends to that node, nor its link."""
    node, other = make_node(handshake_timeout=30.0), make_node()
    inbox = Inbox(other)
    strangers = [RawPeer.dial(node, other.NODE(), extras=OUR_PROVIDER) for _ in range(3)]
    for stranger in strangers:
        stranger.greet()
    node.snd(inbox, "hello")
    wait_until(lambda: inbox.messages, within=3.0)
    assert node.up_nodes() == [other.NODE()]
    for stranger in strangers:
        stranger.close()


@pytest.mark.usefixtures("open_scheduler")
def test_stranger_who_claims_an_unreachable_nodes_id_does_not_keep_its_monitors_hoping(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, deaths, name = make_node(handshake_timeout=30.0), Deaths(), free_address()
    timers = HandshakeTimers(node, monkeypatch)
    with RawPeer.dial(node, name, extras=OUR_PROVIDER) as stranger:
        peer = network_of(node).peer(name)
        stranger.greet()
        wait_until(lambda: peer._links)
        node.mon(name, deaths)
        wait_until(lambda: peer._hopes)
        assert deaths.count == 0
        timers.run_out()
        assert deaths.wait()[:2] == ("transport_error", name)


def test_strangers_who_take_turns_do_not_keep_monitors_hoping(make_node: MakeNode) -> None:
    """Connections that greeted before the dial failed may still come up; nothing waits for later ones."""
    node, deaths, name = make_node(handshake_timeout=30.0), Deaths(), free_address()
    with (
        RawPeer.dial(node, name, extras=OUR_PROVIDER) as early,
        RawPeer.dial(node, name, extras=OUR_PROVIDER) as late,
    ):
        peer = network_of(node).peer(name)
        early.greet()
        wait_until(lambda: peer._links)
        node.mon(name, deaths)
        wait_until(lambda: peer._hopes)
        late.greet()
        wait_until(lambda: len(peer._links) == 2)
        assert deaths.count == 0
        early.close()
        assert deaths.wait(3.0)[:2] == ("transport_error", name)


def test_auth_line_with_data_before_we_proved_ourselves_is_refused(
    victim: Node, game: PingPong, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that greets as one that is up is not answered with our auth line; whatever it says has no effect."""
    inbox = Inbox(victim)
    with (
        RawPeer.dial(victim, extras=(*OUR_PROVIDER, ("uniq", "same"))).shake() as first,
        RawPeer.dial(victim, extras=(*OUR_PROVIDER, ("uniq", "same"))) as second,
    ):
        second.sock.sendall(second.handshake.start())
        assert second.closed()
        assert first.answers()
    assert inbox.messages == []
    game.check_that_it_continues()


# --- once it is authenticated ----------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


BAD_STREAMS = {
    "never-used-byte": (b"\xc1", "not msgpack"),
    "extension": (b"\x92\xa1x\xd4\x01\x00", "max_ext_len"),
    "bad-utf8": (b"\x92\xa1x\xa2\xff\xfe", "not msgpack"),
    "map": (b"\x81\xa1a\x01", "is a dict instead of an array"),
    "number": (b"\x05", "is an int instead of an array"),
    "nil": (b"\xc0", "is a NoneType instead of an array"),
    "text": (b"\xa5hello", "is a str instead of an array"),
    "name-is-bool": (b"\x92\xc3\x06", "port name is a bool instead of a text"),
    "name-is-nil": (b"\x91\xc0", "port name is a NoneType instead of a text"),
    "name-is-list": (b"\x92\x90\x01", "port name is a list instead of a text"),
    "name-is-bytes": (b"\x91\xc4\x01x", "port name is a bytes instead of a text"),
    "unhashable-key": (b"\x92\xa1x\x81\x90\x01", "not msgpack"),
    "too-deep": (nested(5000), "not msgpack"),
    "too-long-list": (b"\xdd\x7f\xff\xff\xff", "not msgpack"),
    "too-large": (b"\x92\xa1x\xc6" + (LIMIT).to_bytes(4, "big") + b"x" * LIMIT, f"more than {LIMIT} bytes"),
    "too-large-by-parts": (b"\xdc\x4e\x20" + b"\xa1x" * 10_001, f"more than {LIMIT} bytes"),
}


@pytest.mark.parametrize(("data", "says"), BAD_STREAMS.values(), ids=BAD_STREAMS.keys())
def test_bad_packet_loses_the_link_with_one_log_line(
    victim: Node, game: PingPong, caplog: pytest.LogCaptureFixture, data: bytes, says: str
) -> None:
    caplog.set_level(logging.WARNING)
    inbox = Inbox(victim)
    name = inbox.port.partition("#")[2]
    with RawPeer.dial(victim).shake() as peer:
        # What came before is good, what comes behind is never looked at.
        peer.sock.sendall(peer.encode([name, "before"]) + data + peer.encode([name, "behind"]) * 3)
        assert peer.closed()
    wait_until(lambda: "127.0.0.1:9" not in victim.up_nodes())
    game.check_that_it_continues()
    (line,) = log_lines(caplog)
    assert says in line
    assert "127.0.0.1:9" in line
    assert victim.refusals == {"message": 1}
    assert inbox.messages in ([("before",)], []), "or the decoder refused the whole read"


@pytest.mark.slow
def test_peer_that_loses_its_link_again_and_again_does_not_fill_the_log(
    victim: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(MAX_LINES + 20):
        with RawPeer.dial(victim).shake() as peer:
            peer.sock.sendall(b"\xc1")
            assert peer.closed()
    wait_until(lambda: victim.refusals == {"message": MAX_LINES + 20}, show=lambda: victim.refusals)
    assert len(log_lines(caplog)) == MAX_LINES + 1


BAD_JSON = {
    "not-json": (b'["x", nope]', "JSON"),
    "object": (b'{"x": 1}', "other than a JSON array"),
    "text": (b'"x"', "other than a JSON array"),
    "not-utf8": (b'["x", "\xff"]', "JSON"),
    "not-a-number": (b'["x", NaN]', "JSON"),
    "unbalanced": (b'["x"}]', "JSON"),
    "name-is-bool": (b"[true]", "port name is a bool instead of a text"),
    "too-large": (b'["x", "' + b"x" * LIMIT, f"more than {LIMIT} bytes"),
    "too-deep": (b"[" * 600, "nested more than"),
}


@pytest.mark.parametrize(("data", "says"), BAD_JSON.values(), ids=BAD_JSON.keys())
def test_bad_json_loses_the_link_with_one_log_line(
    victim: Node, game: PingPong, caplog: pytest.LogCaptureFixture, data: bytes, says: str
) -> None:
    caplog.set_level(logging.WARNING)
    with RawPeer.dial(victim, framing="json").shake() as peer:
        peer.sock.sendall(data)
        assert peer.closed()
    game.check_that_it_continues()
    (line,) = log_lines(caplog)
    assert says in line


@pytest.mark.parametrize(
    "packet",
    [
        ["", "mon1"],
        ["", "mon1", None],
        ["", "mon1", ["x"]],
        ["", "mon1", "a", "b"],
        ["", "mon0", {"x": 1}],
        ["", "kil0"],
        ["", "kil0", None],
        ["", "kil1", 7, "reason"],
        ["", "lookup"],
        ["", "lookup", "x", "no port ID#\x00"],
        ["", "time", 5],
        ["", "time", None],
        ["", "can", {}, "127.0.0.1:9#x"],
        ["", "snd"],
        ["", "snd", ""],
        ["", "eval", "1+1", "127.0.0.1:9#x"],
        ["", "eval", 5],
        ["", "AnyEvent::MP::_spawn"],
        ["", "AnyEvent::MP::_spawn", "", "os.getcwd"],
        ["", "AnyEvent::MP::_spawn", 5, "os.getcwd"],
        ["", "AnyEvent::MP::_spawn", "a b", "os.getcwd"],
        ["", "AnyEvent::MP::_spawn", "x\n", "os.getcwd"],
        ["", "os.getcwd"],
        ["", 5],
        ["", ["mon1"]],
        ["", None],
        ["", b"mon1"],
        ["", "bye", "for", "ever"],
        ["no such port", "x"],
        ["\x00#\x00", "x"],
    ],
    ids=repr,
)
def test_bad_request_costs_a_log_line_at_most_and_not_the_link(
    victim: Node, game: PingPong, caplog: pytest.LogCaptureFixture, packet: list[Any]
) -> None:
    """The packet is one, it just asks for nonsense: nothing of it is done, and the link stays up."""
    with RawPeer.dial(victim).shake() as peer:
        ports = dict(victim.scheduler.ports)
        peer.send(packet)
        assert peer.answers()
        assert {k for k in victim.scheduler.ports if k not in ports} <= {"127.0.0.1:9", "127.0.0.1:9#x"}
        assert len(log_lines(caplog)) <= 1, log_lines(caplog)
        game.check_that_it_continues()


def test_refused_packet_does_not_keep_others_of_the_same_read_from_being_delivered(victim: Node) -> None:
    inbox = Inbox(victim)
    name = inbox.port.partition("#")[2]
    with RawPeer.dial(victim).shake() as peer:
        peer.send([name, 1], ["", "mon1"], [name, 2], ["gone", 0], [name, 3])
        wait_until(lambda: len(inbox.messages) == 3)
    assert inbox.messages == [(1,), (2,), (3,)]


def test_peer_that_asks_and_does_not_read_loses_its_link(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    """Its answers would fill our memory: nobody who could be paused sends them."""
    victim = make_node(max_message_bytes=2**20, high_water_bytes=2**16)
    hard = victim.settings.hard_limit_bytes  # type: ignore[union-attr]
    text = "x" * 500_000
    with RawPeer.dial(victim).shake() as peer:
        try:
            for _ in range(2 * hard // len(text) + 20):
                peer.send(["", "time", "127.0.0.1:9#x", text])
        except (ConnectionError, TimeoutError):
            pass
        wait_until(lambda: not victim.up_nodes())
    assert "hard limit" in caplog.text


@pytest.mark.slow
def test_peer_whose_answers_are_not_read_cannot_reach_our_node_port_as_us(victim: Node) -> None:
    """A relay to ourselves is still the peer's request, with the peer's rights."""
    me = victim.NODE()
    done: list[str] = []
    from tests.support import networking

    networking.gotcha = lambda *args: done.append("called")  # type: ignore[attr-defined]
    with RawPeer.dial(victim).shake() as peer:
        for packet in (
            ["", "snd", me, "tests.support.networking.gotcha"],
            ["", "relay", me + "#", "tests.support.networking.gotcha"],
            ["", "snd", me, "snd", me, "tests.support.networking.gotcha"],
            ["", "time", me, "tests.support.networking.gotcha"],
            ["", "lookup", "x", me, "tests.support.networking.gotcha"],
            ["", "can", "x", me, "tests.support.networking.gotcha"],
            ["", "snd", me, "eval", "__import__('tests.support.networking').support.networking.gotcha()"],
            ["", "snd", me, "AnyEvent::MP::_spawn", "newport", "tests.support.networking.gotcha"],
        ):
            peer.send(packet)
            assert peer.answers()
    del networking.gotcha  # type: ignore[attr-defined]
    assert done == []


@pytest.mark.parametrize("relay", ["snd", "relay"])
def test_a_request_is_sent_to_our_own_node_port_only_a_few_times(victim: Node, relay: str) -> None:
    name, reply = victim.NODE(), "127.0.0.1:9#r"
    with RawPeer.dial(victim).shake() as peer:
        peer.send(["", *[relay, name] * MAX_DETOURS, "can", "devnull", reply, MAX_DETOURS])
        assert peer.packet() == ["r", MAX_DETOURS, 1]
        peer.send(["", *[relay, f"{name}#"] * (MAX_DETOURS + 1), "can", "devnull", reply])
        assert peer.answers()
    assert victim.refusals == {"relay": 1}


@pytest.mark.parametrize(
    "request_of",
    [
        pytest.param(lambda me: ["snd", me], id="snd"),
        pytest.param(lambda me: ["relay", f"{me}#"], id="relay"),
        pytest.param(lambda me: ["time", me], id="time"),
        pytest.param(lambda me: ["lookup", "x", me], id="lookup"),
        pytest.param(lambda me: ["can", "x", me], id="can"),
        pytest.param(lambda me: ["info", me], id="info"),
        pytest.param(lambda me: ["inspect", [], me], id="inspect"),
        pytest.param(lambda me: ["log", "error", me], id="log"),
        pytest.param(lambda me: ["eval", "1", me], id="eval"),
        pytest.param(lambda me: ["call", {"reply": f"{me}#r"}, "", "snd", me], id="call"),
    ],
)
@pytest.mark.parametrize("by_way_of", [[""], ["echo"]], ids=["directly", "by-way-of-a-handler"])
def test_no_request_makes_us_handle_many(
    make_node: MakeNode,
    monkeypatch: pytest.MonkeyPatch,
    request_of: Callable[[str], list[Any]],
    by_way_of: list[str],
) -> None:
    """Each of them would look at all that follow, which takes quadratic time, and memory.

    So would those of this node itself, which a handler makes that answers to any port that a message names.
    """
    handled: list[object] = []
    handle = Requests.handle

    def counting(requests: Requests, peer: Peer | None, message: Any) -> None:
        handled.append(message)
        handle(requests, peer, message)

    monkeypatch.setattr(Requests, "handle", counting)
    victim = make_node(allow_eval=True)
    with RawPeer.dial(victim, extras=OUR_PROVIDER).shake() as peer:
        victim.reg(victim.port(lambda *message: victim.snd(victim.NODE(), *message)), "echo")
        peer.send([*by_way_of, *request_of(victim.NODE()) * 1000, "devnull"])
        assert peer.answers()
        peer.send(["", "eval", "1", "127.0.0.1:9#r"])  # behind the jobs that others of them are
        assert peer.packet()[0] == "r"
    assert len(handled) == 3


def test_a_wrapped_packet_is_unwrapped_once(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is wrapped many times is dropped: who has no connection of its own passes nothing on."""
    passed: list[str] = []
    pass_on = Peer.pass_on

    def counting(peer: Peer, *args: object) -> None:
        passed.append(peer.node)
        pass_on(peer, *args)

    monkeypatch.setattr(Peer, "pass_on", counting)
    victim = make_node()
    with RawPeer.dial(victim, extras=OUR_PROVIDER).shake() as peer:
        slave, me = f"slave/s@{PEER}", victim.NODE()
        peer.send(["", "via", slave, me, ["", "via_up", slave, "u", "word", ""]])
        opening = peer.packet()[4]
        peer.send(["", "via", slave, me, ["", "via_up", slave, "u", "word", opening[4]]])
        wait_until(lambda: slave in victim.up_nodes(), show=victim.up_nodes)
        passed.clear()
        packet: list[Any] = ["", "can", "devnull", f"{PEER}#r"]
        peer.send(["", "via", slave, me, packet])
        assert peer.packet() == ["r", 1]
        for _ in range(50):
            packet = ["", "via", slave, me, packet]
        peer.send(packet)
        assert peer.answers()
    assert passed == [PEER, PEER, slave]
