# SPDX-License-Identifier: MIT
"""Links inside of TLS: what is on the wire, and that they are links like any other."""

from __future__ import annotations

import contextlib
import logging
import random
import ssl
from typing import Any

import gevent
import pytest

from aemp_gevent.testing import MemoryNetwork, Proxy
from aemp_gevent.transport.tls_transport import TlsTransport
from aemp_gevent.transport.transport import WRITE_BYTES, Sink
from aemp_gevent.wire.credentials import Credentials
from tests.support.helpers import turns
from tests.support.networking import Deaths, Inbox, MakeNode, RawListener, RawPeer, dial_each_other, name_of
from tests.support.relay import Relay
from tests.support.seams import network_of
from tests.support.tls_nodes import ANYWHERE, CA, SHARED, link_of, links_of, reach, refused, talk, wait_until
from tests.support.tls_peers import HIGHEST, LOWEST, Files, TlsPeer


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_nodes_that_dial_each_other_at_once_lose_nothing(make_node: MakeNode, shared: str) -> None:
    for _ in range(10):
        one, two = (make_node(secret=None, cert=shared) for _ in range(2))
        dial_each_other(one, two)
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


def test_goodbye_is_heard(make_node: MakeNode, shared: str) -> None:
    one, two = (make_node(secret=None, cert=shared) for _ in range(2))
    talk(one, two)
    died = Deaths()
    one.mon(two.NODE(), died)
    two.shutdown()
    assert died.wait() == ("shutdown", two.NODE())


@pytest.mark.slow
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
    """A connection that takes everything on request."""

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


class Heard(Sink):
    def __init__(self) -> None:
        self.rooms = 0
        self.data = b""

    def on_room(self) -> None:
        self.rooms += 1

    def on_data(self, data: bytes | memoryview) -> None:
        self.data += data


def test_large_message_is_encrypted_in_pieces_as_they_leave_and_small_ones_together() -> None:
    credentials = Credentials(SHARED.pem().encode())
    inner, heard, other = Inner(), Heard(), credentials.connect(is_client=False)
    other.start()
    ups: list[object] = []
    transport = TlsTransport(inner, credentials.connect(is_client=True), gevent.get_hub(), ups.append)  # type: ignore[arg-type]
    transport.start(heard)
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
            # Each is too long to occur by chance.
            for hidden in (word, "secret of", "sha3_512", "msgpack", name_of(inbox)):
                assert hidden.encode() not in rest
        print(f"{sum(map(len, recorder.seen))} bytes, nothing of them readable")


def test_what_is_written_when_there_is_room_is_encrypted_then(make_node: MakeNode, shared: str) -> None:
    """In a callback of its own it would leave in the same turn of the loop, before any socket is read."""
    one, two = (make_node(secret=None, cert=shared, idle_timeout=None) for _ in range(2))
    reach(one, two)
    transport = link_of(one, two).transport
    wait_until(lambda: not transport.buffered)

    class Beating(Sink):
        def on_room(self) -> None:
            transport.write(b"\x90")  # a heartbeat

    link, transport._sink = transport._sink, Beating()
    try:
        transport.on_room()
        assert transport._inner.buffered
    finally:
        transport._sink = link
    talk(one, two)
