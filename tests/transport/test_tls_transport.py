# SPDX-License-Identifier: MIT
"""Links inside of TLS: who gets in, what is on the wire, how they end, and that they are links like any other."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
import os
import random
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import gevent
import pytest
from cryptography.hazmat.primitives import serialization
from gevent import socket

from aemp_gevent.addresses.endpoints import parse_endpoint
from aemp_gevent.errors import CertificateError, InvalidSettingError, TlsError
from aemp_gevent.links.link import Link
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork, Proxy
from aemp_gevent.transport import certificates
from aemp_gevent.transport.certificates import Certificate
from aemp_gevent.transport.tls_transport import TlsTransport
from aemp_gevent.transport.transport import WRITE_BYTES
from aemp_gevent.wire.credentials import Credentials
from aemp_gevent.wire.tls import Tls
from tests.support import helpers
from tests.support.authority import DAY, Identity, authority, shared_certificate
from tests.support.native import aside
from tests.support.networking import (
    OUR_PROVIDER,
    SECRET,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    process,
)
from tests.support.seams import network_of
from tests.support.tls_peers import HIGHEST, LOWEST, Files, TlsPeer

wait_until = functools.partial(helpers.wait_until, within=20.0)  # for machines with other things to do
turns = helpers.turns

SHARED = shared_certificate()
CA = authority()
OTHER_CA = authority("another CA")
ANYWHERE = "aemp:127.0.0.1:*"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def shared(files: Files) -> str:
    return files.write(SHARED)


def name_of(inbox: Inbox) -> str:
    return inbox.port.partition("#")[2]


def links_of(node: Node, peer: str = "127.0.0.1:9") -> list[Link]:
    return network_of(node).peer(peer)._links  # type: ignore[attr-defined]


def link_of(node: Node, peer: Node) -> Link:
    return links_of(node, peer.NODE())[0]


def talk(one: Node, two: Node) -> None:
    """Have two nodes send each other something."""
    ours, theirs = Inbox(one), Inbox(two)
    one.snd(theirs, "there")
    two.snd(ours, "back")
    wait_until(lambda: ours.messages and theirs.messages)


def reach(one: Node, two: Node) -> None:
    """Have a node dial another, which does not dial itself: what is between them stays there."""
    inbox = Inbox(two)
    one.snd(inbox, "there")
    wait_until(lambda: inbox.messages)


# --- two nodes --------------------------------------------------------------------


def test_nodes_with_one_certificate_need_no_secret(make_node: MakeNode, shared: str) -> None:
    one, two = (make_node(secret=None, cert=shared) for _ in range(2))
    talk(one, two)
    link = link_of(one, two)
    assert link.protection.startswith("TLSv1.3 ")
    assert not link.is_identified


def test_nodes_with_identities_prove_them(make_node: MakeNode, files: Files) -> None:
    one, two = (make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA)) for _ in range(2))
    talk(one, two)
    assert link_of(one, two).is_identified
    assert link_of(two, one).is_identified


def test_certificate_and_ca_may_be_texts_and_files(make_node: MakeNode, files: Files) -> None:
    ca = files.folder / "ca.pem"
    ca.write_text(CA.certificate_text)
    one = make_node(secret=None, cert=CA.issue(ANYWHERE).pem(), ca=CA.certificate_text)
    two = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE)), ca=str(ca))
    talk(one, two)


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_one_side_receives_what_the_other_wrote(make_node: MakeNode, shared: str, size: int) -> None:
    """Links that move to another connection compare these numbers."""
    one, two = (make_node(secret=None, cert=shared, idle_timeout=None) for _ in range(2))
    inbox = Inbox(two)
    for number in range(20):
        one.snd(inbox, number, "x" * size)
    wait_until(lambda: len(inbox.messages) == 20)
    assert [message[0] for message in inbox.messages] == list(range(20))
    here, there = link_of(one, two), link_of(two, one)
    wait_until(lambda: (here.written, there.written) == (there.received, here.received))
    assert here.transport.buffered == 0


def test_nodes_that_dial_each_other_at_once_lose_nothing(make_node: MakeNode, shared: str) -> None:
    for _ in range(10):
        one, two = (make_node(secret=None, cert=shared) for _ in range(2))
        ours, theirs, lost = Inbox(one), Inbox(two), Deaths()
        one.mon(theirs, lost)
        two.mon(ours, lost)
        for number in range(50):
            one.snd(theirs, number)
            two.snd(ours, number)
            if number % 10 == 0:
                gevent.sleep(0)
        wait_until(lambda: len(ours.messages) == len(theirs.messages) == 50)  # noqa: B023
        assert [n for (n,) in ours.messages] == [n for (n,) in theirs.messages] == list(range(50))
        assert not lost.count
        one.shutdown()
        two.shutdown()


@pytest.mark.parametrize("says", [pytest.param(b"", id="closes"), pytest.param(b"GET / HTTP/1.0\r\n", id="is-refused")])
def test_spare_connection_that_is_closed_while_tls_comes_up_is_not_logged(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture, says: bytes
) -> None:
    """A node that dialled and was dialled closes one before we know it as its own; but who does wrong is news."""
    caplog.set_level(logging.DEBUG)
    node = make_node(secret=None, cert=shared)
    with TlsPeer.dial(node, cert=shared) as peer, TlsPeer.dial(node, cert=shared) as spare:
        peer.shake()
        assert peer.answers()
        spare.sock.sendall(spare.handshake.start() + says)
        while not spare.handshake.receive(spare._read()):
            pass
        spare.sock.shutdown(1)
        refused(caplog, "closed: ")
        (level,) = {record.levelno for record in caplog.records if "closed: " in record.getMessage()}
        assert level == (logging.WARNING if says else logging.DEBUG)
        assert node.refusals == ({"tls": 1} if says else {})
        assert peer.answers()


def test_dropped_stranger_is_logged_without_its_claimed_name(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(secret=None, cert=shared, max_strangers_per_address=1)
    with TlsPeer.dial(node, cert=shared) as peer:
        peer.shake()
        assert peer.answers()
        with TlsPeer.dial(node, cert=shared) as spare:
            spare.sock.sendall(spare.handshake.start())
            while not spare.handshake.receive(spare._read()):
                pass
            with TlsPeer.dial(node, cert=shared):
                refused(caplog, "closed: too many connections")
    assert node.refusals == {"crowd": 1}


def test_goodbye_is_heard(make_node: MakeNode, shared: str) -> None:
    one, two = (make_node(secret=None, cert=shared) for _ in range(2))
    talk(one, two)
    died = Deaths()
    one.mon(two.NODE(), died)
    two.shutdown()
    assert died.wait() == ("shutdown", two.NODE())


def test_link_that_nobody_needs_comes_to_rest_and_back(make_node: MakeNode, shared: str) -> None:
    one, two = (make_node(secret=None, cert=shared, idle_timeout=0.3) for _ in range(2))
    talk(one, two)
    wait_until(lambda: not links_of(one, two.NODE()) and not links_of(two, one.NODE()))
    talk(one, two)


@pytest.mark.slow
def test_idle_link_is_proved_alive(make_node: MakeNode, shared: str) -> None:
    times = {"heartbeat_interval": 0.1, "heartbeat_timeout": 5.0, "idle_timeout": None}
    one, two = (make_node(secret=None, cert=shared, **times) for _ in range(2))
    reach(one, two)  # a second connection could replace the one that is looked at
    died = Deaths()
    one.mon(two.NODE(), died)
    link = link_of(one, two)
    before = link.keep_alives
    wait_until(lambda: link.keep_alives > before + 10, within=20)
    assert not died.count


@pytest.mark.slow
def test_record_that_comes_slowly_is_a_sign_of_life(make_node: MakeNode, shared: str) -> None:
    """A record says nothing before its last byte came."""
    with Proxy() as proxy:
        two = make_node(proxy.address, binds=["127.0.0.1:0"], secret=None, cert=shared, idle_timeout=None)
        proxy.target = str(network_of(two).listeners.endpoints[0])
        one = make_node(secret=None, cert=shared, heartbeat_timeout=1.0, idle_timeout=None)
        reach(one, two)
        inbox, died = Inbox(one), Deaths()
        two.mon(inbox, died)
        one.mon(two.NODE(), died)
        proxy.throttle(6000, direction="out")
        two.snd(inbox, "x" * 15_000)
        wait_until(lambda: inbox.messages, within=20)
        assert not died.count


def test_sender_is_paused_while_too_much_is_unsent(make_node: MakeNode, shared: str) -> None:
    with Proxy() as proxy:
        two = make_node(proxy.address, binds=["127.0.0.1:0"], secret=None, cert=shared)
        proxy.target = str(network_of(two).listeners.endpoints[0])
        one = make_node(secret=None, cert=shared, high_water_bytes=200_000)
        reach(one, two)
        inbox = Inbox(two)
        proxy.blackhole()
        sent = []

        def flood() -> None:
            for number in range(400):
                one.snd(inbox, number, b"x" * 100_000)
                sent.append(number)

        sender = gevent.spawn(flood)
        link = link_of(one, two)
        wait_until(lambda: link.transport.buffered > 200_000)
        turns(50)
        assert len(sent) < 400
        assert link.transport.buffered < 500_000
        proxy.heal()
        wait_until(lambda: len(inbox.messages) == 400)
        sender.join(5)
        assert [number for number, _ in inbox.messages] == list(range(400))


class Inner:
    """A connection that takes everything when it is told to."""

    peer_address = "nowhere"

    def __init__(self) -> None:
        self.sent = 0
        self.buffered = 0
        self.written: list[bytes] = []
        self.ended = False

    def start(self, sink: Any) -> None:
        self.sink = sink

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.buffered += len(data)

    def finish(self) -> None:
        self.ended = True

    def flush(self) -> bytes:
        data = b"".join(self.written)
        self.written.clear()
        self.sent += self.buffered
        self.buffered = 0
        self.sink.on_room()
        return data


class Heard:
    def __init__(self) -> None:
        self.rooms = 0
        self.data = b""

    def on_room(self) -> None:
        self.rooms += 1

    def on_data(self, data: memoryview) -> None:
        self.data += data


def test_large_message_is_encrypted_in_pieces_as_they_leave_and_small_ones_together() -> None:
    credentials = Credentials(SHARED.pem().encode())
    inner, heard, other = Inner(), Heard(), credentials.connect(is_client=False)
    other.start()
    ups: list[object] = []
    transport = TlsTransport(inner, credentials.connect(is_client=True), gevent.get_hub(), ups.append)  # type: ignore[arg-type]
    transport.start(heard)  # type: ignore[arg-type]
    while not ups:
        other.receive(inner.flush())
        transport.on_data(memoryview(other.take()))
    other.receive(inner.flush())
    large = random.Random(1).randbytes(1_000_000)
    transport.write(large)
    for _ in range(1000):
        transport.write(b"small")
    transport.finish()
    assert transport.buffered == 1_005_000
    wait_until(lambda: inner.written)
    got, pieces, sent = b"", 0, 0
    while inner.written:
        assert inner.buffered < WRITE_BYTES + 1000
        data = inner.flush()
        got += other.receive(data)
        pieces += 1
        assert transport.sent >= sent
        sent = transport.sent
        assert transport.sent + transport.buffered in (1_005_000, 1_005_001)  # the latter: its goodbye is to leave
    assert got == large + b"small" * 1000
    assert pieces <= 1_005_000 // WRITE_BYTES + 3  # records are filled, and goodbye has one of its own
    assert (transport.sent, transport.buffered) == (1_005_000, 0)
    assert other.has_ended and inner.ended


def test_slave_and_master(make_node: MakeNode, shared: str) -> None:
    master, third = (make_node(secret=None, cert=shared) for _ in range(2))
    slave = make_node("slave/s", master.NODE(), secret=None, cert=shared)
    talk(slave, third)


@pytest.mark.parametrize("seed", range(5))
def test_networks_in_memory_can_have_it(seed: int, shared: str) -> None:
    with MemoryNetwork(seed, latency=0.001, jitter=0.001, split=0.5, buffer_bytes=5000) as network:
        one, two = (network.node(secret=None, cert=shared) for _ in range(2))
        inbox = Inbox(two)
        for number in range(50):
            one.snd(inbox, number, "x" * 3000)
        wait_until(lambda: len(inbox.messages) == 50)
        assert [number for number, _ in inbox.messages] == list(range(50))


# --- peers that are not ours ------------------------------------------------------


@pytest.mark.parametrize("framing", ["msgpack", "json"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("nonce", [LOWEST, HIGHEST], ids=["peer-is-client", "peer-is-server"])
@pytest.mark.parametrize("dials", ["peer", "node"])
def test_another_implementation_talks(
    make_node: MakeNode, shared: str, dials: str, nonce: str, version: ssl.TLSVersion, framing: str
) -> None:
    node = make_node(secret=None, cert=shared)
    options: dict[str, Any] = {"cert": shared, "nonce": nonce, "version": version, "framing": framing}
    with contextlib.ExitStack() as stack:
        if dials == "peer":
            peer = stack.enter_context(TlsPeer.dial(node, **options))
        else:
            listener = stack.enter_context(RawListener())
            node.snd(f"{listener.id}#x", "hello")
            peer = stack.enter_context(TlsPeer(listener.sock.accept()[0], listener.id, **options))
        greeting = peer.greet()
        assert greeting.auth_methods == ("tls_sha3_512",)
        assert peer.secure.tls.version() == version.name.replace("_", ".")
        peer.sock.sendall(peer.handshake.prove())
        while not peer.handshake.is_open:
            peer.handshake.receive(peer._read())
        peer._feed(peer.handshake.leftover)
        if dials == "node":
            assert peer.packet() == ["x", "hello"]
        assert peer.answers()
        peer.send(["", "time", f"{peer.name}#big", "x" * 100_000])
        assert len(peer.packet()[1]) == 100_000


@pytest.mark.parametrize("at_once", [True, False])
def test_what_comes_in_one_read_with_the_greeting_is_counted_once(
    make_node: MakeNode, shared: str, at_once: bool
) -> None:
    node = make_node(secret=None, cert=shared)
    with TlsPeer.dial(node, cert=shared) as peer:
        peer.greet(at_once=at_once)
        sent = b"".join(line + b"\n" for line in peer.handshake._lines) + peer.handshake.prove()
        peer.sock.sendall(sent[-len(sent.rsplit(b"\n", 2)[1]) - 1 :])
        while not peer.handshake.is_open:
            peer.handshake.receive(peer._read())
        peer._feed(peer.handshake.leftover)
        assert peer.answers()
        (link,) = links_of(node)
        packet = peer.encode(["", "time", f"{peer.name}#pong", "pong"])
        assert link.received == len(sent) + len(packet)


def test_secret_alone_will_do_with_a_peer_that_has_no_certificate(make_node: MakeNode, shared: str) -> None:
    node = make_node(cert=shared)  # and the secret
    with RawPeer.dial(node) as peer:
        assert peer.greet().auth_methods == ("tls_sha3_512", "hmac_sha3_512")
        peer.sock.sendall(peer.handshake.prove())
        while not peer.handshake.is_open:
            peer.handshake.receive(peer._read())
        assert peer.answers()
    plain = make_node()
    talk(node, plain)
    assert link_of(node, plain).protection == ""


# --- who does not get in ----------------------------------------------------------


def refused(caplog: pytest.LogCaptureFixture, *texts: str) -> None:
    """Wait until the log says why somebody was not let in."""
    wait_until(
        lambda: any(all(text in record.getMessage() for text in texts) for record in caplog.records),
        show=lambda: [record.getMessage() for record in caplog.records],
    )


def downgraded(name: str = "127.0.0.1:9") -> Callable[[Node], RawPeer]:
    return lambda node: RawPeer.dial(node, name)


@pytest.mark.parametrize("nonce", [LOWEST, HIGHEST], ids=["stranger-is-client", "stranger-is-server"])
@pytest.mark.parametrize(
    ("stranger", "text"),
    [
        pytest.param(lambda: CA.issue(ANYWHERE, begins=-2 * DAY, ends=-DAY), "has expired", id="expired"),
        pytest.param(lambda: OTHER_CA.issue(ANYWHERE), "not known here", id="wrong-ca"),
        pytest.param(shared_certificate, "self-signed", id="self-signed"),
        pytest.param(lambda: CA.issue("aemp:backend"), "certificate is for ('backend',)", id="wrong-identity"),
        pytest.param(lambda: CA.issue(cn="backend"), "certificate is for ('backend',)", id="wrong-cn"),
    ],
)
def test_stranger_with_a_certificate_is_refused_with_a_reason(
    make_node: MakeNode,
    files: Files,
    caplog: pytest.LogCaptureFixture,
    stranger: Callable[[], Identity],
    text: str,
    nonce: str,
) -> None:
    node = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    ca = files.write(CA)
    with (
        TlsPeer.dial(node, cert=files.write(stranger()), ca=ca, nonce=nonce) as peer,
        pytest.raises((EOFError, OSError)),
    ):
        peer.shake()
    refused(caplog, "closed: ", text)
    assert node.refusals == {"tls": 1}
    assert node.up_nodes() == []
    assert node.refusals == {"tls": 1}
    assert not node.network.peers if node.network else False


def test_client_without_a_certificate_is_refused_with_a_reason(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(cert=shared)  # the secret does not help: whoever offers TLS must bring it up
    with TlsPeer.dial(node, cert=None) as peer, pytest.raises((EOFError, OSError)):
        peer.shake()
    refused(caplog, "the peer has no certificate")
    assert node.refusals == {"tls": 1}
    assert node.up_nodes() == []
    assert node.refusals == {"tls": 1}


@pytest.mark.parametrize("settings", [{"require_tls": True}, {"secret": None}], ids=["require_tls", "no-secret"])
def test_peer_that_offers_no_tls_is_refused_with_a_reason(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    node = make_node(cert=shared, **settings)
    with RawPeer.dial(node) as peer, pytest.raises((EOFError, OSError, Exception)):
        peer.shake()
    refused(caplog, "offers no TLS")
    assert node.refusals == {"tls": 1}
    assert node.up_nodes() == []
    assert node.refusals == {"tls": 1}


def test_somebody_between_two_nodes_cannot_take_tls_out(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture
) -> None:
    """He changes the greetings, which both tokens cover."""
    one, two = (make_node(cert=shared) for _ in range(2))
    with Stripper(two.NODE()) as stripper:
        network_of(one).dialling.dial_address((stripper.endpoint,), 5)
        refused(caplog, "token is wrong")
        assert all(b";tls=1.0" in stream for stream in stripper.seen)
    assert one.up_nodes() == two.up_nodes() == []


class Relay:
    """Somebody between two nodes, who may look at what passes, and change it."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._socket = socket.socket()
        self._sockets = [self._socket]
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen()
        self.address = "{}:{}".format(*self._socket.getsockname())
        self.endpoint = parse_endpoint(self.address)
        self.seen: list[bytes] = []
        """What passed, by connection and direction."""
        self._greenlets = [gevent.spawn(self._serve)]

    def _serve(self) -> None:
        while True:
            near, _ = self._socket.accept()
            self._sockets.append(near)
            with contextlib.suppress(OSError, EOFError):
                far = self.connect(near)
                self._greenlets += [gevent.spawn(self._pass, near, far), gevent.spawn(self._pass, far, near)]

    def connect(self, _near: Any) -> Any:
        far = socket.socket()
        self._sockets.append(far)
        far.connect(self._target)
        return far

    def change(self, data: bytes) -> bytes:
        return data

    def _pass(self, source: Any, target: Any) -> None:
        number = len(self.seen)
        self.seen.append(b"")
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.seen[number] += data
                target.sendall(self.change(data))
        with contextlib.suppress(OSError):
            target.shutdown(1)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc_info: object) -> None:
        gevent.killall(self._greenlets)
        for sock in self._sockets:
            sock.close()


class Stripper(Relay):
    """Takes the offers of TLS out of the greetings."""

    def change(self, data: bytes) -> bytes:
        return data.replace(b";tls=1.0", b"")


def test_refused_peer_is_told_by_an_alert(make_node: MakeNode, files: Files) -> None:
    node = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    stranger = files.write(CA.issue(ANYWHERE, begins=-2 * DAY, ends=-DAY))
    with (
        TlsPeer.dial(node, cert=stranger, ca=files.write(CA)) as peer,
        pytest.raises(ssl.SSLError, match="(?i)expired"),
    ):
        peer.shake()


def test_our_log_tells_when_the_peer_does_not_believe_us(
    make_node: MakeNode, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    good = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    bad = make_node(secret=None, cert=files.write(OTHER_CA.issue(ANYWHERE)), ca=CA.certificate_text)
    died = Deaths()
    bad.mon(f"{good.NODE()}#x", died)
    reason = died.wait()
    assert reason[:2] == ("transport_error", good.NODE())
    assert re.search(r"the peer ended TLS: .*unknown ca|not known here", reason[2]), reason


def test_log_of_who_has_another_nodes_certificate_says_where_to_look(make_node: MakeNode, files: Files) -> None:
    """TLS believes it, and has come up on his side, or not yet: chance decides who is the client."""
    good = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    bad = make_node(secret=None, cert=files.write(CA.issue("aemp:backend"), CA))
    died = Deaths()
    bad.mon(f"{good.NODE()}#x", died)
    assert re.search("it did not let us in, and its log says why|does it believe our certificate", died.wait()[2])


def test_tls_that_cannot_begin_closes_the_connection(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some settings of OpenSSL leave a client nothing to offer."""
    one, two = (make_node(secret=None, cert=shared) for _ in range(2))

    def cannot(_self: Tls) -> bytes:
        raise TlsError("no protocols available")

    monkeypatch.setattr(Tls, "start", cannot)
    died = Deaths()
    one.mon(f"{two.NODE()}#x", died)
    assert died.wait()[0] == "transport_error"
    refused(caplog, "closed: no protocols available")


def test_node_that_has_the_name_and_not_its_certificate_does_not_hide_the_right_one(
    make_node: MakeNode, files: Files
) -> None:
    def make(nodeid: str, identity: str) -> Node:
        node = make_node(None)
        cert = files.write(CA.issue(identity), CA)
        node.configure(nodeid=nodeid, binds=["127.0.0.1:0"], cert=cert, require_tls=True)
        return node

    front, liar, backend = make("front", "aemp:front"), make("backend", "aemp:liar"), make("backend", "aemp:backend")
    told = [address for node in (liar, backend) for address in network_of(node).addresses()]
    network_of(front).listener.find = lambda _node, answered: answered(told)
    inbox = Inbox(backend)
    front.snd(inbox, "reaches it")
    wait_until(lambda: inbox.messages)
    assert liar.up_nodes() == []


def test_certificate_of_another_node_is_noticed_at_the_start(
    make_node: MakeNode, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    make_node(secret=None, cert=files.write(CA.issue("aemp:backend"), CA))
    refused(caplog, "its certificate is for backend: no peer that has one will talk to it")


# --- openssl s_client as a stranger -----------------------------------------------

OPENSSL = shutil.which("openssl")


class AfterGreeting(Relay):
    """Where s_client may dial: it is connected with a node whose greeting it has answered already."""

    def connect(self, near: Any) -> Any:
        peer = TlsPeer(super().connect(near), cert=None, nonce=LOWEST)
        peer.sock.sendall(peer.handshake.start())
        while not peer.handshake.receive(peer._read()):
            pass
        near.sendall(peer.handshake.take_rest())
        return peer.sock


def s_client(address: str, *options: str) -> str:
    """Return all that openssl's client says about a connection."""
    assert OPENSSL is not None
    command = [OPENSSL, "s_client", "-connect", address, "-brief", "-ign_eof", *options]

    def run() -> str:
        done = subprocess.run(command, input="GET / HTTP/1.0\r\n\r\n", capture_output=True, text=True, timeout=30)
        return done.stdout + done.stderr

    return aside(run)


MODES = {
    "shared": lambda files: {"secret": None, "cert": files.write(SHARED)},
    "shared-and-secret": lambda files: {"cert": files.write(SHARED)},
    "shared-required": lambda files: {"cert": files.write(SHARED), "require_tls": True},
    "identity": lambda files: {"secret": None, "cert": files.write(CA.issue(ANYWHERE), CA)},
    "identity-and-secret": lambda files: {"cert": files.write(CA.issue(ANYWHERE), CA)},
}


@pytest.mark.slow
@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("how", "text"),
    [
        pytest.param("at-once", "does not speak aemp", id="TLS-without-a-greeting"),
        pytest.param("greeted", "the peer has no certificate", id="no-certificate"),
        pytest.param("foreign", "refused", id="foreign-certificate"),
        pytest.param("tls1.1", "no TLS 1.2 or 1.3", id="TLS-1.1"),
    ],
)
def test_openssl_is_a_stranger(
    make_node: MakeNode, files: Files, caplog: pytest.LogCaptureFixture, mode: str, how: str, text: str
) -> None:
    node = make_node(**MODES[mode](files))
    foreign = files.write(OTHER_CA.issue("aemp:127.0.0.1:9"), OTHER_CA)
    options = {"foreign": ("-cert", foreign, "-key", foreign), "tls1.1": ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")}
    with AfterGreeting(node.NODE()) as door:
        said = s_client(node.NODE() if how == "at-once" else door.address, *options.get(how, ()))
    refused(caplog, "closed: ", text)
    assert node.up_nodes() == []
    assert "alert" in said or how == "at-once", said
    # It still lets in who may come in.
    talk(node, make_node(**MODES[mode](files)))


# --- what is on the wire ----------------------------------------------------------


def records_of(data: bytes) -> list[tuple[int, int]]:
    """Take a stream apart into TLS records: their types and versions."""
    found = []
    while data:
        assert len(data) >= 5, "half a record"
        size = int.from_bytes(data[3:5], "big")
        assert len(data) >= 5 + size, "half a record"
        found.append((data[0], int.from_bytes(data[1:3], "big")))
        data = data[5 + size :]
    return found


def test_nothing_is_readable_on_the_wire_behind_the_greeting(make_node: MakeNode, shared: str) -> None:
    word = "readable" * 4
    one, two = (make_node(cert=shared, secret="the secret of the test", idle_timeout=None) for _ in range(2))
    inbox, back = Inbox(two), Inbox(one)
    with Relay(two.NODE()) as recorder:
        network_of(one).dialling.dial_address((recorder.endpoint,), 5)
        wait_until(one.up_nodes)
        for _ in range(20):
            one.snd(inbox, word, word * 1000)
            two.snd(back, word, {"key": word})
        wait_until(lambda: len(inbox.messages) == len(back.messages) == 20)
        one.shutdown()
        wait_until(lambda: not two.up_nodes())
        assert len(recorder.seen) == 2
        for stream in recorder.seen:
            line, nonce, rest = stream.split(b"\n", 2)
            assert line.startswith(b"aemp;1;") and len(nonce) >= 32
            kinds = records_of(rest)  # every byte belongs to a record
            assert {kind for kind, _ in kinds} <= {20, 21, 22, 23}
            # TLS 1.3: of the handshake only the hellos are in the clear.
            assert [kind for kind, _ in kinds].count(22) == 1
            for hidden in (
                word,
                "secret of",
                "sha3_512",
                "msgpack",
                name_of(inbox),
            ):  # none so short that chance makes it
                assert hidden.encode() not in rest
        print(f"{sum(map(len, recorder.seen))} bytes, nothing of them readable")


# --- ends, and cuts ---------------------------------------------------------------

SAME = (*OUR_PROVIDER, ("uniq", "one process"))


@pytest.mark.parametrize("how", ["in order", "cut"])
def test_only_an_end_that_tls_knows_of_is_one_in_order(make_node: MakeNode, shared: str, how: str) -> None:
    node = make_node(secret=None, cert=shared)
    with TlsPeer.dial(node, cert=shared) as peer:
        peer.shake()
        assert peer.answers()
        died = Deaths()
        node.mon("127.0.0.1:9", died)
        if how == "cut":
            peer.secure.sock.shutdown(1)
            assert "without TLS's close_notify" in died.wait()[2]
        else:
            peer.secure.say_end()
            assert died.wait()[2] == "the node closed the connection"


@pytest.mark.parametrize("how", ["in order", "cut"])
def test_what_waits_for_a_connections_end_waits_for_one_in_order(make_node: MakeNode, shared: str, how: str) -> None:
    node = make_node(secret=None, cert=shared)
    inbox = Inbox(node)
    first, second = (TlsPeer.dial(node, cert=shared, extras=SAME) for _ in range(2))
    with first, second:
        for peer in (first, second):
            peer.greet()
        for peer in (first, second):
            while peer.handshake.state.name != "VERIFIED":
                peer.handshake.receive(peer._read())
        for peer in (first, second):
            peer.sock.sendall(peer.handshake.prove())
        died = Deaths()
        node.mon("127.0.0.1:9#x", died)
        second.send(["", "after", first.nonce], [name_of(inbox), 2])
        first.send([name_of(inbox), 1])
        wait_until(lambda: inbox.messages)
        turns(20)
        assert inbox.messages == [(1,)]
        if how == "in order":
            first.secure.say_end()
            wait_until(lambda: len(inbox.messages) == 2)
            assert not died.count
        else:
            first.secure.sock.shutdown(1)
            assert "close_notify" in died.wait()[2]
            assert inbox.messages == [(1,)]


def test_node_says_the_end_and_reads_on(make_node: MakeNode, shared: str) -> None:
    """The end that the other side says in TLS, and on the connection, comes behind everything it sent."""
    node = make_node(secret=None, cert=shared)
    inbox = Inbox(node)
    with TlsPeer.dial(node, cert=shared, extras=SAME) as peer:
        peer.shake()
        assert peer.answers()
        (link,) = links_of(node)
        node.snd("127.0.0.1:9#x", "last")
        link.finish()
        assert peer.packet() == ["x", "last"]
        assert peer.sock.recv(1) == b""  # close_notify: anything else raises
        assert peer.secure.sock.recv(1) == b""
        peer.send([name_of(inbox), "still heard"])
        wait_until(lambda: inbox.messages)


def handshake_sizes(shared: str, make_node: MakeNode) -> tuple[int, int]:
    """How many bytes each side of a connection sends until it is up."""
    node = make_node(secret=None, cert=shared)
    other = make_node(secret=None, cert=shared)
    with Relay(node.NODE()) as recorder:
        network_of(other).dialling.dial_address((recorder.endpoint,), 5)
        wait_until(other.up_nodes)
        wait_until(node.up_nodes)
        turns(20)
        first, second = map(len, recorder.seen)
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["in", "out"])
def test_handshake_that_is_cut_anywhere_leaves_nothing_and_the_next_one_works(
    make_node: MakeNode, shared: str, direction: str
) -> None:
    sizes = handshake_sizes(shared, make_node)
    size = sizes[0] if direction == "in" else sizes[1]
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    places = sorted({0, 1, size - 1, *dice.sample(range(size), 40)})
    settings = {"secret": None, "cert": shared, "idle_timeout": None}
    with Proxy(seed=seed) as proxy:
        node = make_node(proxy.address, binds=["127.0.0.1:0"], **settings)
        proxy.target = str(network_of(node).listeners.endpoints[0])
        for place in places:
            other = make_node(**settings)
            getattr(proxy, dice.choice(["cut", "reset"]))(after=place, direction=direction)
            died = Deaths()
            other.mon(f"{node.NODE()}#nobody", died)
            assert died.wait()[0] in ("transport_error", "no_such_port"), place
            proxy.heal()
            other.shutdown(0.1)
            wait_until(lambda: not network_of(node).strangers.links)
        talk(node, make_node(**settings))


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["in", "out"])
def test_changed_bytes_open_nothing_and_are_delivered_to_nobody(
    make_node: MakeNode, shared: str, direction: str
) -> None:
    sizes = handshake_sizes(shared, make_node)
    dice = random.Random(7)
    with Proxy(seed=7) as proxy:
        node = make_node(proxy.address, binds=["127.0.0.1:0"], secret=None, cert=shared)
        proxy.target = str(network_of(node).listeners.endpoints[0])
        inbox = Inbox(node)
        for place in dice.sample(range(sizes[0] + 2000), 25):
            other = make_node(secret=None, cert=shared, monitor_timeout=3)
            proxy.corrupt(at=place, direction=direction)  # type: ignore[arg-type]
            died = Deaths()
            other.mon(inbox, died)
            other.snd(inbox, "x" * 3000)
            before = len(inbox.messages)
            wait_until(lambda: died.count or len(inbox.messages) > before, within=20)  # noqa: B023
            proxy.heal()
            other.shutdown(0.1)
        assert all(message == ("x" * 3000,) for message in inbox.messages)


# --- forks ------------------------------------------------------------------------

FORKING = """
import os, sys
import gevent
from aemp_gevent import *
from aemp_gevent import default_node

to, cert, end = sys.argv[1:]
initialise_node("127.0.0.1:0", cert=cert)
here = port()
rcv(here, "echo", lambda back, *message: snd(back, *message))
snd(to, "up", here)
while not up_nodes():
    gevent.sleep(0.01)
for number in range(100):
    snd(to, number, "x" * 10000)  # which has not left yet
pid = os.fork()
if pid == 0:
    if end == "another node":
        initialise_node("127.0.0.1:0", cert=cert)
        snd(to, "child", NODE())
        gevent.sleep(0.2)
        shutdown()
    elif end == "shutdown":
        default_node.shutdown()
    elif end == "collected":
        import gc
        gc.collect()
    sys.exit(0)
while os.waitpid(pid, os.WNOHANG)[0] == 0:
    gevent.sleep(0.01)
snd(to, "the child is gone")
gevent.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("end", ["at once", "shutdown", "collected", "another node"])
def test_forked_child_says_nothing_on_the_links_of_its_parent(make_node: MakeNode, shared: str, end: str) -> None:
    """Not even goodbye: every byte of a copy of TLS's state would break the original's."""
    node = make_node(secret=None, cert=shared)
    inbox, died = Inbox(node), Deaths()
    with process(FORKING, inbox.port, shared, end):
        wait_until(lambda: inbox.messages, within=20)
        parent = inbox.messages[0][1]
        node.mon(parent, died)
        wait_until(lambda: ("the child is gone",) in inbox.messages, within=20, show=lambda: inbox.messages[-1:])
        node.snd(parent, "echo", inbox.port, "echoed")
        wait_until(lambda: ("echoed",) in inbox.messages)
        assert not died.count
        numbers = [message[0] for message in inbox.messages if isinstance(message[0], int)]
        assert numbers == list(range(100))
        assert len([message for message in inbox.messages if message[0] == "child"]) == (end == "another node")


# --- files ------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="this system has other permissions")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_key_that_others_may_read_is_refused(make_node: MakeNode, shared: str, mode: int) -> None:
    Path(shared).chmod(mode)
    with pytest.raises(CertificateError, match=f"others may read it .mode {mode:04o}.: chmod 600 {shared}"):
        make_node(secret=None, cert=shared)


def lost_its_first_line() -> str:
    return SHARED.pem().partition("\n")[2].replace("-----BEGIN CERTIFICATE-----", "")


@pytest.mark.parametrize("setting", ["cert", "ca"])
@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lost_its_first_line(), id="no-first-line"),
        pytest.param(base64.b64encode(SHARED.pem().encode()).decode(), id="base64-once-more"),
        pytest.param(SHARED.key_text.partition("\n")[2].encode().hex(), id="hexadecimal"),
    ],
)
def test_key_that_looks_like_no_pem_text_is_not_shown_as_a_path(setting: str, text: str) -> None:
    settings: dict[str, Any] = {"cert": SHARED.pem(), setting: text}
    with pytest.raises(CertificateError, match="neither the path of a file nor text in PEM form") as caught:
        Node().initialise_node("127.0.0.1:0", secret=None, **settings)
    assert text[10:40] not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        pytest.param({"cert": "/no/such/file"}, CertificateError, "cert file /no/such/file: No such file", id="file"),
        pytest.param({"cert": "a\0b"}, CertificateError, "null", id="null-byte"),
        pytest.param({"cert": SHARED.pem(), "ca": "/none"}, CertificateError, "ca file /none: No such file", id="ca"),
        pytest.param({"cert": SHARED.certificate_text}, CertificateError, "setting 'cert': .* 0 private", id="text"),
        pytest.param(
            {"cert": shared_certificate(begins=-2 * DAY, ends=-DAY).pem()}, CertificateError, "expired on", id="expired"
        ),
        pytest.param({"cert": shared_certificate(begins=DAY).pem()}, CertificateError, "valid only from", id="not-yet"),
        pytest.param({"secret": "s", "require_tls": True}, InvalidSettingError, "set 'cert'", id="require-tls"),
        pytest.param({"secret": "s", "ca": CA.certificate_text}, InvalidSettingError, "set 'cert'", id="ca-only"),
    ],
)
def test_what_cannot_be_used_is_refused_and_the_node_stays_private(
    settings: dict[str, Any], error: type[Exception], text: str
) -> None:
    node = Node()
    with pytest.raises(error, match=text) as caught:
        node.initialise_node("127.0.0.1:0", **{"secret": None, **settings})
    assert "PRIVATE" not in str(caught.value)
    assert node.NODE().startswith("anon/")


def test_certificate_that_expires_soon_is_logged(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    make_node(secret=None, cert=shared_certificate(ends=DAY).pem())
    refused(caplog, "the certificate expires on")


def test_expired_certificate_is_logged_once_a_day(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node may run for longer than its certificate is good for."""
    certificate = Certificate(shared_certificate(ends=30 * DAY).pem())
    begin = datetime.now(timezone.utc)
    for hours in range(0, 32 * 24, 6):
        monkeypatch.setattr(certificates, "_now", lambda: begin + timedelta(hours=hours))  # noqa: B023
        certificate.current()
    said = [record.getMessage().split(": ", 1)[1][: len("the certificate expires")] for record in caplog.records]
    assert said == ["the certificate expires"] * 14 + ["the certificate expired"] * 2


def replace(path: str, identity: Identity, *others: Identity) -> None:
    """Put another certificate in place, as whoever renews them does."""
    new = identity.write(Path(path + ".new"), *others)
    Path(new).rename(path)


def test_new_certificate_of_another_node_is_logged(
    make_node: MakeNode, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    path = files.write(CA.issue(ANYWHERE), CA)
    node = make_node(secret=None, cert=path)
    other = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    replace(path, CA.issue("aemp:backend"), CA)
    died = Deaths()
    other.mon(f"{node.NODE()}#x", died)
    refused(caplog, f"this node is {node.NODE()}, and its certificate is for backend")
    died.wait()
    refused(caplog, "certificate is for ('backend',)")


def test_new_certificate_in_the_file_is_used_for_the_next_connection(make_node: MakeNode, files: Files) -> None:
    path = files.write(CA.issue(ANYWHERE), CA)
    node = make_node(secret=None, cert=path)
    old = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    talk(node, old)
    replace(path, OTHER_CA.issue(ANYWHERE), OTHER_CA)
    talk(node, old)  # what is up stays up
    talk(node, make_node(secret=None, cert=files.write(OTHER_CA.issue(ANYWHERE), OTHER_CA)))
    died = Deaths()
    late = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    late.mon(f"{node.NODE()}#x", died)
    assert died.wait()[0] == "transport_error"


def unreadable() -> str:
    """Return a certificate and its key, whose issuer turns out to be none when it is asked for."""
    data = bytearray(SHARED.certificate.public_bytes(serialization.Encoding.DER))
    data[data.index(b"shared by all nodes")] = 0xFF  # which is no UTF-8
    return SHARED.key_text + ssl.DER_cert_to_PEM_cert(bytes(data))


@pytest.mark.parametrize("broken", [pytest.param("broken", id="no-pem"), pytest.param(unreadable(), id="unreadable")])
def test_unusable_new_certificate_is_logged_once_and_the_old_one_stays_in_use(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    node = make_node(secret=None, cert=shared)
    others = [make_node(secret=None, cert=SHARED.pem()) for _ in range(3)]
    talk(node, others[0])
    Path(shared).write_text(broken)
    for other in others[1:]:
        talk(node, other)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 1
    assert f"the new certificate cannot be used, going on with the old one: cert file {shared}: " in told[0]


# --- secrets ----------------------------------------------------------------------


def test_secret_is_changed_one_node_after_the_other(make_node: MakeNode) -> None:
    old, both, new_first, new = (make_node(secret=secret) for secret in ("old", ["old", "new"], ["new", "old"], "new"))
    talk(old, both)
    talk(both, new_first)
    talk(new_first, new)
    died = Deaths()
    old.mon(f"{new.NODE()}#x", died)
    assert died.wait()[0] == "transport_error"


def test_neither_key_nor_secret_shows_in_any_log_or_repr(
    make_node: MakeNode, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hidden in all places"
    one, two = (make_node(cert=SHARED.pem(), secret=[secret, secret + "2"]) for _ in range(2))
    talk(one, two)
    plain = make_node(secret=secret)
    talk(one, plain)
    with RawPeer.dial(one, secret="guessed") as peer, pytest.raises((EOFError, OSError, Exception)):
        peer.shake()
    link = link_of(one, two)
    things = [
        one,
        one.settings,
        network_of(one),
        link,
        link.transport,
        network_of(one).link_maker.certificate,
        link._handshake,
    ]  # type: ignore[union-attr]
    shown = "\n".join([*map(repr, things), *(record.getMessage() for record in caplog.records)])
    for hidden in (secret, secret.encode().hex(), SHARED.key_text.splitlines()[1], SECRET):
        assert hidden not in shown
