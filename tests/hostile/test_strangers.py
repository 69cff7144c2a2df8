# SPDX-License-Identifier: MIT
"""Strangers: they have no secret, and do what they can. What that comes to is counted, and told in the end."""

from __future__ import annotations

import re
import ssl
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import gevent
import pytest
from gevent import socket

from aemp_gevent.runtime.bounded_log import MAX_LINES
from aemp_gevent.settings.fields import Settings
from aemp_gevent.wire import auth
from tests.hostile.victim import Told, Victim, rss, victim
from tests.support.authority import shared_certificate
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, SECRET, MakeNode, RawListener, RawPeer, reset
from tests.support.tls_peers import HIGHEST, LOWEST
from tests.wire.test_tls import hello

KIB = 1024
ALLOWED = 128 * KIB
"""What one stranger may have us allocate."""
LIFE = 2.0
"""Seconds that he may stay where a test says so; ten are usual."""

MANY = 300
"""Connections where each could leave something: a line in the log, above all."""

Tally = Callable[..., None]


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    """Print figures at the end of the run."""

    def add(**figures: object) -> None:
        record_property("hostile", ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in figures.items()))

    return add


def dial(victim: Victim) -> socket.socket:
    host, _, port = victim.id.rpartition(":")
    sock = socket.socket()
    sock.settimeout(LIFE + 10)
    sock.connect((host, int(port)))
    return sock


def send(sock: socket.socket, data: bytes) -> int:
    """Send as much as the victim takes, and return how much that was."""
    view, sent = memoryview(data), 0
    try:
        while sent < len(data):
            sent += sock.send(view[sent : sent + 65536])
    except OSError:
        pass
    return sent


def read_to_end(sock: socket.socket) -> int:
    """Read until the victim has closed the connection, and return how much came."""
    count = 0
    try:
        while data := sock.recv(65536):
            count += len(data)
    except ConnectionError:
        pass
    return count


def heard(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return the victim's two lines."""
    data = b""
    while data.count(b"\n") < 2:
        data += sock.recv(65536)
    line, nonce, *_ = data.split(b"\n")
    return line, nonce


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


GREETING = b"aemp;1;127.0.0.1:9;hmac_sha3_512;msgpack"
FULL = 4095  # bytes of a line, and one more for its end


def padded(head: bytes, unit: bytes, size: int = FULL) -> bytes:
    return head + (unit * size)[: size - len(head)]


# What a stranger sends at once. Each is one connection.
SAYINGS = {
    "nothing": b"",
    "a-byte": b"a",
    "a-full-line-without-end": padded(GREETING, b"x"),
    "a-megabyte-without-end": b"x" * 2**20,
    "a-megabyte-of-line-ends": b"\n" * 2**20,
    "a-megabyte-of-lines": b"x\n" * 2**19,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": client_hello(),
    "tls-and-a-megabyte": client_hello() + b"\x17\x03\x03\x40\x00" * 2**18,
    "msgpack-bomb": b"\xdd\x7f\xff\xff\xff" + b"\x91" * 2**20,
    "many-fields": padded(GREETING, b";a=b") + b"\nnonce\n",
    "many-short-fields": padded(GREETING, b";a") + b"\nnonce\n",
    "many-empty-fields": padded(GREETING, b";") + b"\nnonce\n",
    "many-methods": padded(b"aemp;1;127.0.0.1:9;", b"a,", 4000) + b";msgpack\nnonce\n",
    "many-framings": padded(b"aemp;1;127.0.0.1:9;hmac_sha3_512;", b"ab,") + b"\nnonce\n",
    "many-escapes": padded(GREETING + b";a=", b"%41") + b"\nnonce\n",
    "wide-characters": padded(GREETING + b";a=", "\U0001f600".encode(), 4090).decode(errors="ignore").encode()
    + b"\nn\n",
    "long-id": padded(b"aemp;1;", b"i", 4000) + b";hmac_sha3_512;msgpack\nnonce\n",
    "full-lines": padded(GREETING + b";a=", b"b") + b"\n" + b"n" * FULL + b"\n" + b"hmac_sha3_512;".ljust(FULL, b"0"),
    "full-lines-and-a-megabyte": padded(GREETING + b";a=", b"b") + b"\n" + b"n" * FULL + b"\n" + b"0" * 2**20,
    "wrong-proof-and-a-megabyte": GREETING + b"\nnonce\nhmac_sha3_512;" + b"0" * 128 + b";msgpack\n" + b"\x90" * 2**20,
    "as-the-well-behaved-node": b"",  # see said()
}


def said(name: str, victim: Victim) -> bytes:
    if name == "as-the-well-behaved-node":
        return b"aemp;1;" + victim.node.NODE().encode() + b";hmac_sha3_512;msgpack;provider=aemp_gevent-0;uniq=u\nn\n"
    return SAYINGS[name]


@pytest.mark.slow
def test_no_stranger_has_us_allocate_much_or_remember_him(make_node: MakeNode, tmp_path: Path, tally: Tally) -> None:
    """Measured in the victim, for each saying, with the connection held open by the stranger."""
    with victim(make_node(), tmp_path / "log", measure=True, handshake_timeout=0.15) as target:

        def attack(name: str) -> tuple[Told, Told, int]:
            before = target.mark()
            with dial(target) as sock:
                sent = send(sock, said(name, target))
                read_to_end(sock)  # it closes the connection, at the latest for saying too little
                after = target.tell()
            return before, after, sent

        taken: dict[str, int] = {}
        total = 0
        for name in SAYINGS:
            attack(name)  # the first time has caches filled
            before, after, sent = attack(name)
            total += sent
            taken[name] = after.peak - before.allocated
        assert max(taken.values()) < ALLOWED, taken
        begin = target.collect()
        for name in SAYINGS:
            # Without asking in between: the victim remembers who asks.
            with dial(target) as sock:
                send(sock, said(name, target))
                read_to_end(sock)
        end = target.collect()
        assert end.allocated - begin.allocated < 16 * KIB
        assert (end.links, end.peers, end.descriptors) == (begin.links, begin.peers, begin.descriptors)
        worst = max(taken, key=lambda name: taken[name])
        tally(cases=len(SAYINGS), bytes_sent=total, worst_case=worst, allocated_for_it=taken[worst])


@pytest.mark.slow
def test_no_stranger_stays_longer_than_the_handshake_may_take(
    make_node: MakeNode, tmp_path: Path, tally: Tally
) -> None:
    """Slow strangers: many at once, and a slowloris that sends a byte now and then."""
    options = {"measure": True, "max_strangers_per_address": 64, "handshake_timeout": LIFE}
    with victim(make_node(), tmp_path / "log", **options) as target:
        lives: dict[str, float] = {}
        before = target.mark()

        def live(name: str, data: bytes, pause: float) -> None:
            with dial(target) as sock:
                begin = monotonic()
                if pause:
                    drip = gevent.spawn(drop_by_drop, sock, data, pause)
                else:
                    send(sock, data)
                read_to_end(sock)
                lives[name] = monotonic() - begin
                if pause:
                    drip.kill()

        def drop_by_drop(sock: socket.socket, data: bytes, pause: float) -> None:
            for byte in data:
                if not send(sock, bytes([byte])):
                    return
                gevent.sleep(pause)

        slow = {"slowloris": (GREETING + b";" + b"x" * 1000, 0.05), "slower": (GREETING, LIFE / 3)}
        patient = {name: (said(name, target), 0.0) for name in ("nothing", "a-byte", "full-lines")}
        sayings = {**patient, **slow, "as-known": (said("as-the-well-behaved-node", target), 0.0)}
        strangers = [gevent.spawn(live, name, *saying) for name, saying in sayings.items()]
        wait_until(lambda: target.tell().waiting >= len(patient) + len(slow))
        during = target.tell()
        gevent.joinall(strangers, raise_error=True)
        # The heartbeat of the loop, and a machine that has other things to do, on top.
        assert max(lives.values()) < LIFE + 5, lives
        assert min(lives[name] for name in (*patient, *slow)) > LIFE - 0.2, "these were not slow"
        assert target.collect().waiting == 0
        tally(
            connections=len(lives),
            longest_seconds=round(max(lives.values()), 1),
            allocated_for_all=during.peak - before.allocated,
        )


@pytest.mark.slow
def test_hundreds_of_half_handshakes_leave_a_few(make_node: MakeNode, tmp_path: Path, tally: Tally) -> None:
    """Of one address never more than are allowed, and the oldest goes."""
    allowed = Settings.max_strangers_per_address
    with victim(make_node(), tmp_path / "log", measure=True, accept_rate=2000, handshake_timeout=60) as target:
        before = target.mark()
        open_ones: deque[RawPeer] = deque()
        most = 0
        for number in range(MANY):
            peer = RawPeer.dial(target.id, f"10.0.0.{number % 250}:{number + 1}", extras=OUR_PROVIDER)
            peer.greet()
            open_ones.append(peer)
            if len(open_ones) > allowed:
                with open_ones.popleft() as oldest:
                    assert oldest.closed()
            if number % 50 == 0:
                most = max(most, target.tell().waiting)
        after = target.tell()
        assert after.waiting == len(open_ones) == allowed
        assert most <= allowed
        assert after.refusals["crowd"] == MANY - allowed
        for peer in open_ones:
            peer.close()
        wait_until(lambda: target.tell().waiting == 0)
        end = target.collect()
        # The nodes that they claimed to be are forgotten, and wait for the garbage collector.
        assert after.peak - before.allocated < 40 * ALLOWED
        assert end.allocated - before.allocated < ALLOWED
        assert (end.peers, end.descriptors) == (before.peers, before.descriptors)
        assert len(target.log().splitlines()) < MAX_LINES + 10
        tally(
            connections=MANY,
            at_once_at_most=most,
            dropped=after.refusals["crowd"],
            peak=after.peak - before.allocated,
            kept=end.allocated - before.allocated,
        )


@pytest.mark.slow
def test_strangers_of_many_addresses_are_bounded_in_total(make_node: MakeNode, tmp_path: Path, tally: Tally) -> None:
    with victim(make_node(), tmp_path / "log", measure=True, accept_rate=2000, handshake_timeout=60) as target:
        before = target.mark()
        host, _, port = target.id.rpartition(":")
        socks = []
        for number in range(200):
            sock = socket.socket()
            try:
                sock.bind((f"127.0.1.{number + 1}", 0))
            except OSError:
                pytest.skip("this system has one loopback address")
            sock.connect((host, int(port)))
            sock.sendall(SAYINGS["full-lines"])
            socks.append(sock)
        wait_until(lambda: target.tell().refusals.get("crowd") == 200 - 64, within=20, show=target.tell)
        after = target.tell()
        assert after.waiting == 64
        assert after.peak - before.allocated < 64 * ALLOWED
        for sock in socks:
            sock.close()
        tally(connections=200, at_once=after.waiting, peak=after.peak - before.allocated)


@pytest.mark.slow
@pytest.mark.skipif(rss() == 0, reason="the system does not say how much memory a process has")
@pytest.mark.parametrize("role", [LOWEST, HIGHEST], ids=["stranger-is-client", "stranger-is-server"])
@pytest.mark.parametrize("size", [0, 100, 24_000], ids=str)
def test_no_stranger_has_us_allocate_much_for_tls(
    make_node: MakeNode, tmp_path: Path, tally: Tally, role: str, size: int
) -> None:
    """Only the system knows OpenSSL's memory: the average of many strangers in the middle of their handshakes."""
    many = 60
    options = {"max_strangers_per_address": many, "accept_rate": 2000, "handshake_timeout": 60}
    node = make_node()
    with victim(node, tmp_path / "log", cert=shared_certificate().pem(), **options) as target:

        def begin() -> socket.socket:
            sock = dial(target)
            send(sock, b"aemp;1;127.0.0.1:9;tls_sha3_512;msgpack;tls=1.0\n" + role.encode() + b"nonce\n")
            heard(sock)
            if size:
                send(sock, hello(60_000, size, b"\x01" if role == LOWEST else b"\x02"))
            return sock

        with begin(), begin():
            wait_until(lambda: target.tell().waiting == 2)
        before = target.collect()
        socks = [begin() for _ in range(many)]
        wait_until(lambda: target.tell().waiting == many or target.tell().refusals, show=target.tell)
        during = target.tell()
        each = (during.rss - before.rss) // many
        assert each < ALLOWED
        for sock in socks:
            sock.close()
        wait_until(lambda: target.tell().waiting == 0)
        tally(connections=many, bytes_of_each=size, kib_for_each=each // KIB)


@pytest.mark.slow
def test_connections_are_accepted_no_faster_than_they_may(make_node: MakeNode, tmp_path: Path) -> None:
    """What is beyond waits in the system's backlog, and comes in later."""
    with victim(make_node(), tmp_path / "log", accept_rate=40) as target:
        begin = monotonic()
        for _ in range(28):
            with dial(target) as sock:
                sock.recv(1)  # the greeting: it was accepted
        assert monotonic() - begin > (28 - 8 - 1) / 40


@pytest.mark.slow
def test_port_scans_cost_a_few_lines_in_the_log(make_node: MakeNode, tmp_path: Path, tally: Tally) -> None:
    with victim(make_node(), tmp_path / "log", accept_rate=2000) as target:
        before = target.tell()
        for number in range(MANY):
            with dial(target) as sock:
                if number % 2:
                    reset(RawPeer(sock))
        with dial(target) as sock:
            heard(sock)  # it stood in the backlog behind all of them
        wait_until(lambda: target.tell().descriptors == before.descriptors, within=20, show=target.tell)
        end = target.collect()
        lines = len(target.log().splitlines())
        assert lines < MAX_LINES + 10
        assert (end.waiting, end.links, end.peers) == (0, before.links, before.peers)
        tally(connections=MANY, log_lines=lines)


@pytest.mark.slow
def test_wrong_secrets_are_tried_in_vain(make_node: MakeNode, tmp_path: Path, tally: Tally) -> None:
    with victim(make_node(), tmp_path / "log", accept_rate=2000) as target:
        for number in range(MANY):
            # Some of them nearly right.
            guess = f"{SECRET}{number}" if number % 3 else SECRET[: number % len(SECRET)] or "x"
            with dial(target) as sock:
                mine = (f"aemp;1;10.0.0.1:{number + 1};hmac_sha3_512;msgpack".encode(), b"nonce")
                send(sock, b"\n".join(mine) + b"\n")
                token = auth.hmac_token(guess.encode(), mine, heard(sock))
                send(sock, f"hmac_sha3_512;{token};msgpack\n".encode())
                read_to_end(sock)
        told = target.tell()
        assert told.refusals["handshake"] == MANY
        lines = target.log().splitlines()
        assert MAX_LINES < len(lines) < MAX_LINES + 10
        assert SECRET not in target.log()
        tally(secrets_tried=MANY, refused=told.refusals["handshake"], log_lines=len(lines))


@pytest.mark.slow
def test_what_was_overheard_is_of_no_use(make_node: MakeNode, tmp_path: Path) -> None:
    """A handshake that went well, said once more; and the victim's own words, sent back to it."""
    with victim(make_node(), tmp_path / "log", accept_rate=2000) as target:
        with RawPeer.dial(target.id, "127.0.0.1:9") as peer:
            lines = peer.handshake.start()
            peer.sock.sendall(lines)
            while peer.handshake.peer is None or peer.handshake.state.name == "NONCE":
                peer.handshake.receive(peer._read())
            proof = peer.handshake.prove()
            peer.sock.sendall(proof)
            while not peer.handshake.is_open:
                peer.handshake.receive(peer._read())
        wait_until(lambda: target.tell().links == 1)
        for replay in (lines + proof, lines):
            with dial(target) as sock:
                sock.sendall(replay)
                heard(sock)
                send(sock, proof if replay == lines else b"")
                read_to_end(sock)
        with dial(target) as sock:  # the same words as it says itself
            send(sock, sock.recv(65536))
            read_to_end(sock)
        with dial(target) as one, dial(target) as other:  # and those that it says to another
            first, second = one.recv(65536), other.recv(65536)
            send(one, second)
            send(other, first)
            read_to_end(one)
            read_to_end(other)
        assert target.tell().refusals == {"handshake": 5}
        log = target.log()
        assert log.count("token is wrong") == 2
        assert log.count("cannot link to itself") + log.count("echo attack") == 3


@pytest.mark.slow
def test_node_that_dials_a_relay_back_to_itself_talks_to_itself(make_node: MakeNode, tmp_path: Path) -> None:
    """A mirror that is not an echo: it repeats on one connection of the node what came on another."""
    node = make_node()
    with RawListener() as mirror:
        node.snd(f"{mirror.id}#x", "hello")
        sock, _ = mirror.sock.accept()
        host, _, port = node.NODE().rpartition(":")
        back = socket.create_connection((host, int(port)))
        with sock, back:
            pipes = [gevent.spawn(pipe, sock, back), gevent.spawn(pipe, back, sock)]
            wait_until(lambda: node.refusals.get("handshake"), within=10, show=lambda: node.refusals)
            gevent.killall(pipes)
    assert node.up_nodes() == []


def pipe(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        return


@pytest.mark.slow
def test_log_of_the_victim_names_strangers_and_shows_no_secret(make_node: MakeNode, tmp_path: Path) -> None:
    with victim(make_node(), tmp_path / "log", handshake_timeout=0.2) as target:
        for name in SAYINGS:
            with dial(target) as sock:
                send(sock, said(name, target))
                read_to_end(sock)
        log = target.log()
        assert SECRET not in log
        warnings = [line for line in log.splitlines() if "closed:" in line]
        assert len(warnings) >= len(SAYINGS) - 1
        assert all(re.search(r"127\.0\.0\.1:\d+", line) and len(line) < 5000 for line in warnings)
