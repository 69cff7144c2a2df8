# SPDX-License-Identifier: MIT
"""TLS without a socket: which peers are trusted, the texts of refusals, and streams cut anywhere."""

from __future__ import annotations

import contextlib
import ctypes
import random
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aemp_gevent.errors import CertificateError, TlsError
from aemp_gevent.wire import tls as wire_tls
from aemp_gevent.wire.credentials import Credentials
from aemp_gevent.wire.greeting import parse_greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import TlsDue
from aemp_gevent.wire.tls import MAX_ANSWER_BYTES, MAX_HANDSHAKE_BYTES, Tls
from tests.support.authority import BOTH_USAGES, DAY, Identity, authority, shared_certificate
from tests.support.recordings import RECORDINGS
from tests.support.tls_records import DATA, HandWritten

CA = authority()
OTHER_CA = authority("another CA")
SHARED = shared_certificate()
A, B = CA.issue("aemp:a"), CA.issue("aemp:b", "aemp:worker/*", "https://elsewhere", cn="not b")

Pair = tuple[Tls, Tls]


def credentials(identity: Identity, *others: Identity) -> Credentials:
    return Credentials(identity.pem(*others).encode())


def pair(client: Credentials, server: Credentials) -> Pair:
    return client.connect(is_client=True), server.connect(is_client=False)


def shake(client: Tls, server: Tls) -> None:
    """Carry everything back and forth until nothing is left to send."""
    to_server = client.start()
    server.start()
    while to_server:
        assert server.receive(to_server) == b""
        to_client = server.take()
        assert client.receive(to_client) == b""
        to_server = client.take()
    assert client.is_up and server.is_up


@pytest.fixture(scope="module")
def shared() -> Credentials:
    return credentials(SHARED)


@pytest.fixture(scope="module")
def up(shared: Credentials) -> Callable[[], Pair]:
    def make() -> Pair:
        both = pair(shared, shared)
        shake(*both)
        return both

    return make


# --- what goes well ---------------------------------------------------------------


@pytest.mark.slow
def test_nodes_with_one_certificate_trust_each_other_and_name_no_node(shared: Credentials) -> None:
    both = pair(shared, shared)
    shake(*both)
    assert shared.is_shared
    assert [side.names for side in both] == [None, None]
    assert {side.protocol.split()[0] for side in both} == {"TLSv1.3"}


def test_nodes_with_certificates_of_their_own_learn_whose_the_others_is() -> None:
    both = pair(credentials(A, CA), credentials(B, CA))
    shake(*both)
    assert both[0].names == ("b", "worker/*")
    assert both[1].names == ("a",)


def test_the_cn_counts_where_no_uri_does_and_without_a_star() -> None:
    assert credentials(CA.issue(cn="127.0.0.1:4040"), CA).names == ("127.0.0.1:4040",)
    assert credentials(CA.issue("https://elsewhere", cn="c"), CA).names == ("c",)
    assert credentials(CA.issue(cn="*"), CA).names == ()
    assert credentials(CA.issue("aemp:x", cn="c"), CA).names == ("x",)


def test_a_self_signed_certificate_that_names_a_node_is_not_shared() -> None:
    """Nodes may do without a CA: each has a certificate that it signed itself, and a list of the others'."""
    one, two = (authority(name, uris=(f"aemp:{name}",)) for name in "ab")
    both = pair(
        *(Credentials(mine.pem().encode(), other.certificate_text.encode()) for mine, other in ((one, two), (two, one)))
    )
    shake(*both)
    assert [side.names for side in both] == [("b",), ("a",)]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"\x30\x04\xa3\x02\x30\x00", id="an-address-that-cryptography-does-not-know"),
        pytest.param(b"\x30\x03\x86\x01\xff", id="not-ascii"),
    ],
)
def test_a_certificate_with_unreadable_names_names_no_node(raw: bytes, tmp_path: Path) -> None:
    """Not even by its CN: the unreadable part might name another node."""
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), raw)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(CA.issue(cn="b", extension=extension).write(tmp_path / "b.pem"))
    incoming, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs, ours = context.wrap_bio(incoming, out), credentials(A, CA).connect(is_client=False)
    with contextlib.suppress(TlsError):  # some OpenSSL refuses it itself
        while not ours.is_up:
            with contextlib.suppress(ssl.SSLWantReadError):
                theirs.do_handshake()
            ours.receive(out.read())
            incoming.write(ours.take())
    assert ours.names == ()


def test_a_ca_below_another_is_followed_or_believed_by_itself() -> None:
    below = authority("below", CA)
    leaf = below.issue("aemp:c")
    shake(*pair(credentials(leaf, below, CA), credentials(A, CA)))
    ca_only = Credentials(leaf.pem().encode(), below.certificate_text.encode())
    shake(*pair(ca_only, Credentials(below.issue("aemp:d").pem().encode(), below.certificate_text.encode())))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("is_client", [True, False])
def test_another_tls_implementation_is_understood(
    shared: Credentials, version: ssl.TLSVersion, is_client: bool, tmp_path: object
) -> None:
    """Python's own ssl module, which uses another build of OpenSSL."""
    ours = shared.connect(is_client=is_client)
    theirs = StandardSide(SHARED, tmp_path, is_client=not is_client, version=version)
    theirs.feed(ours.start())
    for _ in range(6):
        ours.receive(theirs.shake())
        theirs.feed(ours.take())
    assert ours.is_up and theirs.is_up
    assert ours.protocol.startswith(version.name.replace("_", ".").replace("v1.", "v1."))
    theirs.feed(ours.encrypt(b"to them"))
    assert theirs.sides.read(100) == b"to them"
    theirs.sides.write(b"to us")
    assert ours.receive(theirs.out.read()) == b"to us"


class StandardSide:
    def __init__(self, identity: Identity, tmp_path: object, *, is_client: bool, version: ssl.TLSVersion) -> None:
        path = identity.write(tmp_path / "cert.pem")  # type: ignore[operator]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if is_client else ssl.PROTOCOL_TLS_SERVER)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(path)
        context.load_verify_locations(path)
        context.minimum_version = context.maximum_version = version
        self.incoming, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.sides = context.wrap_bio(self.incoming, self.out, server_side=not is_client)
        self.is_up = False

    def feed(self, data: bytes) -> None:
        self.incoming.write(data)

    def shake(self) -> bytes:
        if not self.is_up:
            try:
                self.sides.do_handshake()
                self.is_up = True
            except ssl.SSLWantReadError:
                pass
        return self.out.read()


@pytest.mark.parametrize("node", ["a", "b"])
def test_two_perl_nodes_took_the_roles_that_we_take(node: str) -> None:
    """And Perl's first message is a TLS that this node can answer."""
    recording = RECORDINGS["aemp202_tls"]
    us, them = (recording.a, recording.b) if node == "a" else (recording.b, recording.a)
    handshake = Handshake(parse_greeting(us.line), us.nonce.decode(), None)
    handshake.start()
    (due,) = handshake.receive(them.stream)
    assert due == TlsDue(is_client=node == "a")
    rest = handshake.take_rest()
    kind = rest[5]  # of the first handshake message: 1 is a client's hello, 2 a server's
    assert rest[0] == 22
    assert kind == (2 if node == "a" else 1)
    if node == "b":
        ours = FUZZED.connect(is_client=False)
        ours.start()
        assert ours.receive(rest[:517]) == b""
        assert ours.take()[5] == 2


# --- streams ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 16384, 16385, 300_000])
@pytest.mark.parametrize("sender", [0, 1])
def test_plaintext_arrives_whole(up: Callable[[], Pair], size: int, sender: int) -> None:
    both = up()
    data = random.Random(size).randbytes(size)
    sent = both[sender].encrypt(memoryview(data))
    assert data[:16] not in sent or size == 1
    assert both[1 - sender].receive(sent) == data
    records = -(-size // 16384)
    assert len(sent) <= size + 64 * (records + 1)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=20_000), max_size=6), st.integers())
def test_any_cut_gives_the_same_plaintext(up: Callable[[], Pair], messages: list[bytes], seed: int) -> None:
    client, server = up()
    stream = b"".join(client.encrypt(message) for message in messages if message)
    dice = random.Random(seed)
    got = b""
    while stream:
        at = dice.randint(1, min(len(stream), 5000))
        got += server.receive(stream[:at])
        stream = stream[at:]
    assert got == b"".join(messages)


def test_each_side_ends_for_itself(up: Callable[[], Pair]) -> None:
    client, server = up()
    assert server.receive(client.encrypt(b"last") + client.finish()) == b"last"
    assert server.has_ended
    assert client.receive(server.encrypt(b"still talking")) == b"still talking"
    assert not client.has_ended
    client.receive(server.finish())
    assert client.has_ended
    assert server.receive(b"anything at all") == b""


def test_a_changed_byte_is_noticed(up: Callable[[], Pair]) -> None:
    client, server = up()
    sent = bytearray(client.encrypt(b"take 100 from my account"))
    sent[-5] ^= 1
    with pytest.raises(TlsError, match="changed on its way"):
        server.receive(bytes(sent))


def test_a_record_that_comes_twice_is_noticed(up: Callable[[], Pair]) -> None:
    client, server = up()
    sent = client.encrypt(b"once")
    assert server.receive(sent) == b"once"
    with pytest.raises(TlsError):
        server.receive(sent)


@pytest.mark.slow
def test_a_key_may_be_changed_now_and_then(shared: Credentials, tmp_path: Path) -> None:
    ours = shared.connect(is_client=False)
    theirs = HandWritten(ours, SHARED, tmp_path)
    for number in range(3 * MAX_ANSWER_BYTES // 27):  # the size of an answer
        word = b"%d" % number
        assert ours.receive(theirs.change_key() + theirs.record(DATA, word)) == word
        theirs.incoming.write(ours.encrypt(word))  # behind the answer
        assert theirs.client.read(100) == word


def test_a_peer_that_has_us_answer_without_end_is_refused(shared: Credentials, tmp_path: Path) -> None:
    """As long as we say nothing, because it reads nothing, the answers would be kept."""
    ours = shared.connect(is_client=False)
    theirs = HandWritten(ours, SHARED, tmp_path)
    with pytest.raises(TlsError, match="changes keys too often"):
        for _ in range(3 * MAX_ANSWER_BYTES // 27):
            assert ours.receive(theirs.change_key() + theirs.record(DATA, b"x" * 1000))


# --- untrusted peers --------------------------------------------------------------


def fail(client: Tls, server: Tls) -> tuple[str, str]:
    """Run the handshake until one side refuses; return the texts of the side that refuses and of the other."""
    sides = [client, server]
    data = client.start()
    for turn in range(10):
        taker = sides[(turn + 1) % 2]
        try:
            taker.receive(data)
            data = taker.take()
        except TlsError as error:
            other = sides[turn % 2]
            assert not taker.is_up
            with pytest.raises(TlsError) as caught:
                other.receive(taker.last_words)
            return str(error), str(caught.value)
    raise AssertionError("nobody refused")


@pytest.mark.parametrize("strange_is_client", [True, False])
@pytest.mark.parametrize(
    ("strange", "text"),
    [
        pytest.param(shared_certificate().pem(), "self-signed, and different from ours", id="self-signed"),
        pytest.param(OTHER_CA.issue("aemp:b").pem(), "not known here", id="other-ca"),
        pytest.param(OTHER_CA.issue("aemp:b").pem(OTHER_CA), "not trusted here", id="other-ca-presented"),
        pytest.param(CA.issue("aemp:b", begins=-2 * DAY, ends=-DAY).pem(), "expired", id="expired"),
        pytest.param(CA.issue("aemp:b", begins=DAY).pem(), "not valid yet", id="not-yet"),
        pytest.param(A.issue("aemp:b", cn="an impostor").pem(A), "is not one", id="issued-by-a-node"),
    ],
)
def test_a_certificate_that_is_not_believed(strange: str, text: str, strange_is_client: bool) -> None:
    ours = credentials(A, CA)
    # It trusts us, or it would be the side that refuses.
    theirs = Credentials(strange.encode(), CA.certificate_text.encode())
    refuses, refused = fail(*(pair(theirs, ours) if strange_is_client else pair(ours, theirs)))
    assert text in refuses
    assert "the peer ended TLS: " in refused


def test_a_certificate_for_one_role_only_is_refused_at_once() -> None:
    """Chance decides the roles: it would work every other time."""
    for usages in (BOTH_USAGES[:1], BOTH_USAGES[1:]):
        with pytest.raises(CertificateError, match="both serverAuth and clientAuth"):
            credentials(CA.issue("aemp:a", usages=usages), CA)
    shake(*pair(credentials(CA.issue("aemp:a", usages=BOTH_USAGES), CA), credentials(B, CA)))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_without_a_certificate_is_refused(shared: Credentials, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    incoming, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = context.wrap_bio(incoming, out)
    ours = shared.connect(is_client=False)
    with pytest.raises(TlsError, match="the peer has no certificate"):
        for _ in range(5):
            with contextlib.suppress(ssl.SSLWantReadError):
                theirs.do_handshake()
            ours.receive(out.read())
            incoming.write(ours.take())
    assert not ours.is_up
    incoming.write(ours.last_words)
    with pytest.raises(ssl.SSLError, match="(?i)alert"):
        theirs.do_handshake()
        theirs.read()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
@pytest.mark.parametrize(
    ("ciphers", "version", "text"),
    [
        pytest.param("ALL:@SECLEVEL=0", ssl.TLSVersion.TLSv1_1, "neither TLS 1.2 nor TLS 1.3", id="TLS-1.1"),
        pytest.param("AES128-SHA:@SECLEVEL=0", ssl.TLSVersion.TLSv1_2, "no cipher in common", id="old-cipher"),
        pytest.param("ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0", ssl.TLSVersion.TLSv1_2, "no cipher in common", id="cbc"),
    ],
)
def test_outdated_versions_and_ciphers_are_refused(
    shared: Credentials, ciphers: str, version: ssl.TLSVersion, text: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(ciphers)
    context.minimum_version = context.maximum_version = version
    incoming, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = context.wrap_bio(incoming, out)
    with pytest.raises(ssl.SSLWantReadError):
        theirs.do_handshake()
    with pytest.raises(TlsError, match=text):
        shared.connect(is_client=False).receive(out.read())


# --- what strangers send ----------------------------------------------------------


@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.parametrize(
    ("junk", "text"),
    [
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", "instead of TLS", id="http"),
        pytest.param(b"hmac_sha3_512;00;json\n", "other than TLS", id="auth-line"),
        pytest.param(b"\x00" * 100, "other than TLS", id="zeros"),
        pytest.param(b"\x16\x03\x01\xff\xff" + b"x" * 100, "other than TLS", id="too-long-record"),
    ],
)
def test_junk_is_called_by_its_name(shared: Credentials, junk: bytes, text: str, is_client: bool) -> None:
    side = shared.connect(is_client=is_client)
    side.start()
    with pytest.raises(TlsError, match=text):
        side.receive(junk)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.booleans(), st.booleans())
def test_random_bytes_never_bring_it_up_and_raise_nothing_else(data: bytes, is_client: bool, framed: bool) -> None:
    side = FUZZED.connect(is_client=is_client)
    side.start()
    if framed:
        data = b"\x16\x03\x03" + len(data).to_bytes(2, "big") + data
    with contextlib.suppress(TlsError):
        assert side.receive(data) == b""
    assert not side.is_up


FUZZED = Credentials(SHARED.pem().encode())


@pytest.mark.parametrize("is_client", [True, False])
def test_a_changed_byte_of_the_handshake_brings_nothing_up(is_client: bool) -> None:
    dice = random.Random(1)
    for _ in range(60):
        client, server = pair(FUZZED, FUZZED)
        sides = (server, client) if is_client else (client, server)  # the sender, and the receiver of the changed data
        data = client.start()
        if is_client:
            server.receive(data)
            data = server.take()
        changed = bytearray(data)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        try:
            sides[1].receive(bytes(changed))
            sides[0].receive(sides[1].take())
        except TlsError:
            continue
        assert not (client.is_up and server.is_up)


def test_a_peer_cannot_continue_the_tls_handshake_forever(shared: Credentials) -> None:
    side = shared.connect(is_client=False)
    # The beginning of a client's greeting that is to be enormous, in records of one byte.
    head = b"\x01\x00\xff\xff"
    with pytest.raises(
        TlsError, match=f"not up after {MAX_HANDSHAKE_BYTES} bytes|than TLS|instead of TLS|no TLS|TLS failed"
    ):
        for byte in head + bytes(MAX_HANDSHAKE_BYTES):
            side.receive(b"\x16\x03\x01\x00\x01" + bytes([byte]))


def hello(announced: int, size: int, kind: bytes = b"\x01") -> bytes:
    """Return the beginning of a first message, the client's or (2) the server's, in records as large as they may be."""
    body = kind + announced.to_bytes(3, "big") + bytes(size - 4)
    pieces = [body[begin : begin + 16384] for begin in range(0, size, 16384)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


class Allocated(ctypes.Structure):
    """The figures of glibc, of which two are wanted."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("1", "2", "3", "4", "mapped", "6", "7", "used", "9", "10")]


def allocated() -> int:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Allocated
    told = libc.mallinfo2()
    return int(told.used + told.mapped)


def handshake_record(data: bytes) -> bytes:
    return b"\x16\x03\x01" + len(data).to_bytes(2, "big") + data


LARGE_HELLO = b"\x01" + (131_000).to_bytes(3, "big") + bytes(16_000)


@pytest.mark.parametrize("cut", [1000, 10**6])
def test_a_message_that_does_not_end_is_refused(shared: Credentials, cut: int) -> None:
    side = shared.connect(is_client=False)
    data = hello(130_000, MAX_HANDSHAKE_BYTES + 1)
    with pytest.raises(TlsError, match="is not up after"):
        for begin in range(0, len(data), cut):
            side.receive(data[begin : begin + cut])


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this system does not tell")
@pytest.mark.parametrize("is_client", [True, False])
@pytest.mark.parametrize(
    "saying",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(handshake_record(LARGE_HELLO) + handshake_record(bytes(16_000)) * 7, id="a-long-hello"),
        pytest.param(handshake_record(LARGE_HELLO) + b"\x16\x03\x01\x40\x00" + bytes(8_000), id="half-a-record"),
    ],
)
def test_a_stranger_cannot_make_us_allocate_much(shared: Credentials, saying: bytes, is_client: bool) -> None:
    """OpenSSL's memory, which Python does not count."""
    before, count, sides = allocated(), 20, []
    for _ in range(count):
        side = shared.connect(is_client=is_client)
        side.start()
        with contextlib.suppress(TlsError):
            side.receive(saying)
        sides.append(side)
    assert 16 * 1024 < (allocated() - before) / count < 120 * 1024  # what is left of 128 KiB is the link's


# --- texts of faults ---------------------------------------------------------------


def test_fault_numbers_are_those_of_openssl() -> None:
    """Numbers do not explain themselves."""
    from OpenSSL import SSL

    text = SSL._ffi.string(SSL._lib.X509_verify_cert_error_string(10)).decode()
    assert "expired" in text
    for number in wire_tls._FAULTS:
        assert (
            SSL._ffi.string(SSL._lib.X509_verify_cert_error_string(number)) != b"unknown certificate verification error"
        )
