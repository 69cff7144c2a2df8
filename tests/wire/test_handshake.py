# SPDX-License-Identifier: MIT
"""The handshake: both roles, every state, everything a peer can do wrong."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.errors import AuthenticationError, GreetingError, LocalProtocolError, RemoteProtocolError, TlsError
from aemp_gevent.wire import auth
from aemp_gevent.wire.greeting import MAX_LINE_BYTES, Greeting, parse_greeting
from aemp_gevent.wire.handshake import Handshake, is_name_of
from aemp_gevent.wire.handshake_states import Event, PeerGreeted, PeerProved, State, TlsDue
from tests.wire.handshaking import (
    METHOD,
    OUR_LINES,
    OURS,
    OURS_TLS,
    SECRET,
    THEIR_GREETING,
    THEIR_LINES,
    THEIR_TLS_GREETING,
    THEIRS,
    THEIRS_TLS,
    TLS,
    TLS_LINES,
    Cut,
    auth_line,
    feed,
    secured,
    started,
)

# --- what goes well ---------------------------------------------------------------


def test_both_lines_are_sent_at_once() -> None:
    assert Handshake(OURS, "nonce-a", SECRET).start() == b"\n".join(OUR_LINES) + b"\n"


@pytest.mark.parametrize("end", [pytest.param(b"\n", id="LF"), pytest.param(b"\r\n", id="CRLF")])
@pytest.mark.parametrize("we_prove", ["first", "last"])
def test_the_handshake_opens_however_it_is_cut(cut: Cut, end: bytes, we_prove: str) -> None:
    handshake = started()
    assert feed(handshake, cut(THEIR_GREETING.replace(b"\n", end))) == [PeerGreeted(THEIRS, b"nonce-b")]
    assert handshake.peer == THEIRS
    assert handshake.send_framing == "json"
    token = auth.hmac_token(SECRET, OUR_LINES, THEIR_LINES)
    ours = f"{METHOD};{token};json\n".encode()
    if we_prove == "first":
        assert handshake.prove() == ours
        assert not handshake.is_open
    assert feed(handshake, cut(auth_line(framing="msgpack").replace(b"\n", end))) == [PeerProved(METHOD, "msgpack")]
    if we_prove == "last":
        assert handshake.state is State.VERIFIED
        assert not handshake.is_open
        assert handshake.prove() == ours
    assert handshake.is_open
    assert handshake.receive_framing == "msgpack"
    assert handshake.leftover == b""


def test_greeting_and_auth_line_may_come_together() -> None:
    handshake = started()
    events = handshake.receive(THEIR_GREETING + auth_line())
    assert events == [PeerGreeted(THEIRS, b"nonce-b"), PeerProved(METHOD, "json")]
    handshake.prove()
    assert handshake.is_open


@pytest.mark.parametrize("size", [1, 100_000])
def test_data_behind_the_auth_line_is_left_over(size: int) -> None:
    handshake = started()
    handshake.receive(THEIR_GREETING)
    handshake.prove()
    data = b'\n["",1]'.ljust(size, b"x")
    assert handshake.receive(auth_line() + data) == [PeerProved(METHOD, "json")]
    assert handshake.leftover == data


def test_an_empty_read_means_nothing() -> None:
    handshake = started()
    assert handshake.receive(b"") == []
    assert handshake.state is State.GREETING


def test_a_line_of_exactly_the_limit_is_read(cut: Cut) -> None:
    line = THEIR_LINES[0] + b";x="
    line += b"y" * (MAX_LINE_BYTES - 1 - len(line))
    events = feed(started(), cut(line + b"\nnonce-b\n"))
    assert events == [PeerGreeted(parse_greeting(line), b"nonce-b")]


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_recorded_perl_node_is_understood(plain_recording, node: str, cut: Cut) -> None:  # type: ignore[no-untyped-def]
    """We play one recorded node, word for word, and get what the other really sent."""
    sides = plain_recording.a, plain_recording.b
    us, them = sides if node == "a" else reversed(sides)
    greeting = parse_greeting(us.line)
    handshake = Handshake(greeting, us.nonce.decode(), plain_recording.secret)
    assert handshake.start() == b"\n".join(us.lines) + b"\n"
    cut_at = len(them.stream) - len(them.rest)
    assert feed(handshake, cut(them.stream[:cut_at])) == [PeerGreeted(parse_greeting(them.line), them.nonce)]
    assert handshake.prove() == us.auth_line + b"\n"
    framing = them.auth_line.split(b";")[2].decode()
    assert feed(handshake, cut(them.auth_line + b"\n")) == [PeerProved(METHOD, framing)]
    assert handshake.is_open


# --- two of ours ------------------------------------------------------------------


class FakeLink:
    """Two handshakes and the bytes between them, cut by a seeded hand."""

    def __init__(self, seed: int, first: str) -> None:
        self.random = random.Random(seed)
        other = Greeting("b", (METHOD,), ("json", "msgpack"))
        self.sides = {"a": Handshake(OURS, "nonce-a", SECRET), "b": Handshake(other, "nonce-b", SECRET)}
        self.wires = {"a": b"", "b": b""}
        self.events: dict[str, list[Event]] = {"a": [], "b": []}
        for name in (first, *({"a", "b"} - {first})):
            self.wires[name] += self.sides[name].start()

    def step(self) -> None:
        sender = self.random.choice("ab")
        receiver = "b" if sender == "a" else "a"
        if self.wires[sender] and not self.sides[receiver].is_open:
            at = self.random.randint(1, len(self.wires[sender]))
            piece, self.wires[sender] = self.wires[sender][:at], self.wires[sender][at:]
            self.events[receiver] += self.sides[receiver].receive(piece)
        elif self.sides[receiver].state in (State.PROVING, State.VERIFIED):
            self.wires[receiver] += self.sides[receiver].prove()


@pytest.mark.no_cover
@pytest.mark.parametrize("first", ["a", "b"])
@pytest.mark.parametrize("seed", range(50))
def test_two_of_ours_open_over_a_link_that_cuts_at_random(seed: int, first: str) -> None:
    link = FakeLink(seed, first)
    for _ in range(5000):
        link.step()
    a, b = link.sides["a"], link.sides["b"]
    assert a.is_open and b.is_open
    assert [type(event) for event in link.events["a"]] == [PeerGreeted, PeerProved]
    assert [type(event) for event in link.events["b"]] == [PeerGreeted, PeerProved]
    # Each sends what the other likes best.
    assert (a.send_framing, b.receive_framing) == ("json", "json")
    assert (b.send_framing, a.receive_framing) == ("msgpack", "msgpack")


# --- what a peer can do wrong -----------------------------------------------------

LONG = b"x" * MAX_LINE_BYTES


@pytest.mark.parametrize(
    ("sent", "error", "text"),
    [
        pytest.param(b"\n", GreetingError, "does not speak aemp", id="empty-line"),
        pytest.param(b"\xff\xfe\n", GreetingError, "does not speak aemp", id="binary"),
        pytest.param(b"aemp;1;\xff;a;b\n", GreetingError, "not UTF-8", id="undecodable"),
        pytest.param(b"aemp;2;b;a;b\n", GreetingError, "version", id="version"),
        pytest.param(b"aemp-dataconn;1;b\n", GreetingError, "another protocol on this listener", id="dataconn"),
        pytest.param(b"aemp;1;b;" + LONG, GreetingError, "more than 4096 bytes", id="greeting-without-end"),
        pytest.param(b"aemp;1;b;" + LONG + b"\n", GreetingError, "more than 4096 bytes", id="greeting-too-long"),
        pytest.param(THEIR_LINES[0] + b"\n" + LONG + b"\n", GreetingError, "more than 4096", id="nonce-too-long"),
        pytest.param(THEIR_LINES[0] + b"\n\n", GreetingError, "nonce is empty", id="empty-nonce"),
        pytest.param(THEIR_LINES[0] + b"\n\r\n", GreetingError, "nonce is empty", id="empty-nonce-crlf"),
        pytest.param(b"\n".join(OUR_LINES) + b"\n", GreetingError, "echo attack", id="echo"),
        pytest.param(OUR_LINES[0] + b"\nother\n", GreetingError, "cannot link to itself", id="own-node"),
        pytest.param(b"aemp;1;b;cleartext;json\nn\n", GreetingError, "no common auth", id="no-auth"),
        pytest.param(b"aemp;1;b;;json\nn\n", GreetingError, "no common auth", id="empty-auth"),
        pytest.param(f"aemp;1;b;{METHOD};storable\nn\n".encode(), GreetingError, "no common fram", id="no-framing"),
        pytest.param(THEIR_GREETING + b"\n", AuthenticationError, "1 fields", id="empty-auth-line"),
        pytest.param(THEIR_GREETING + LONG, AuthenticationError, "more than 4096", id="auth-line-too-long"),
        pytest.param(THEIR_GREETING + auth_line(token="x;y"), AuthenticationError, "4 fields", id="four-fields"),
        pytest.param(THEIR_GREETING + auth_line(token="00"), AuthenticationError, "token is wrong", id="wrong-token"),
        pytest.param(THEIR_GREETING + auth_line(token=""), AuthenticationError, "token is wrong", id="empty-token"),
        pytest.param(THEIR_GREETING + auth_line(secret=b"x"), AuthenticationError, "token is wrong", id="secret"),
        pytest.param(
            THEIR_GREETING + auth_line(theirs=(THEIR_LINES[0] + b"\r", THEIR_LINES[1])),
            AuthenticationError,
            "token is wrong",
            id="hash-over-cr",
        ),
        pytest.param(
            THEIR_GREETING + auth_line(method="cleartext", token=SECRET.hex()),
            AuthenticationError,
            "auth method b'cleartext'",
            id="cleartext",
        ),
        pytest.param(THEIR_GREETING + auth_line(method="\xff"), AuthenticationError, "auth method", id="bad-method"),
        pytest.param(THEIR_GREETING + auth_line(framing="cbor"), AuthenticationError, "framing", id="not-offered"),
        pytest.param(THEIR_GREETING + auth_line() + b"[", AuthenticationError, "before it could", id="early-data"),
    ],
)
def test_a_peer_that_does_wrong_is_refused_however_it_is_cut(
    cut: Cut, sent: bytes, error: type[Exception], text: str
) -> None:
    handshake = started()
    with pytest.raises(error, match=text) as caught:
        feed(handshake, cut(sent))
    assert SECRET.hex() not in str(caught.value)
    assert handshake.state is State.FAILED
    assert not handshake.is_open
    with pytest.raises(LocalProtocolError):
        handshake.receive(b"x")
    with pytest.raises(LocalProtocolError):
        handshake.prove()


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"G", b"aeMp", b"aemp"[:3] + b"\x00", b"\xff" * 100], ids=repr)
def test_bytes_unlike_a_greeting_are_refused_before_their_line_ends(data: bytes) -> None:
    handshake = started()
    with pytest.raises(GreetingError, match="does not speak aemp"):
        handshake.receive(data)


@pytest.mark.parametrize("size", range(5))
def test_beginning_of_a_greeting_is_waited_for(size: int) -> None:
    handshake = started()
    assert handshake.receive(THEIR_GREETING[:size]) == []
    assert handshake.receive(THEIR_GREETING[size:])


def test_our_own_token_sent_back_is_refused() -> None:
    handshake = started()
    handshake.receive(THEIR_GREETING)
    with pytest.raises(AuthenticationError, match="token is wrong"):
        handshake.receive(handshake.prove())


def test_without_a_secret_nothing_can_be_proved() -> None:
    with pytest.raises(GreetingError, match="no common auth method"):
        started(secret=None).receive(THEIR_GREETING)


def test_a_method_we_accept_but_cannot_verify_is_refused() -> None:
    handshake = started(Greeting("a", (METHOD, "tls_sha3_512"), ("json",)))
    handshake.receive(THEIR_GREETING)
    with pytest.raises(AuthenticationError, match="cannot verify"):
        handshake.receive(auth_line(method="tls_sha3_512"))


@given(st.binary(max_size=200), st.sampled_from([b"", THEIR_LINES[0] + b"\n", THEIR_GREETING]))
def test_random_bytes_never_open_it_and_raise_nothing_else(data: bytes, before: bytes) -> None:
    handshake = started()
    try:
        handshake.receive(before + data)
    except RemoteProtocolError:
        assert handshake.state is State.FAILED
    assert handshake.state not in (State.OPEN, State.VERIFIED)


# --- with TLS ---------------------------------------------------------------------


def tls_line(method: str = TLS, token: str | None = None) -> bytes:
    token = auth.tls_token(b"", *TLS_LINES) if token is None else token
    return f"{method};{token};json\n".encode()


@pytest.mark.parametrize(
    ("ours", "theirs", "is_client"),
    [
        pytest.param("nonce-a", b"nonce-b", True, id="lower"),
        pytest.param("nonce-c", b"nonce-b", False, id="higher"),
        pytest.param("Z", b"a", True, id="as-bytes-and-not-as-words"),
        pytest.param("aa", b"a", False, id="longer"),
    ],
)
def test_the_lower_nonce_is_the_tls_client_and_nothing_else_decides(ours: str, theirs: bytes, is_client: bool) -> None:
    handshake = Handshake(OURS_TLS, ours, None)
    handshake.start()
    rest = b"\x16\x03\x01 whatever\nTLS says"
    assert handshake.receive(THEIRS_TLS.encode() + b"\n" + theirs + b"\n" + rest) == [TlsDue(is_client)]
    assert handshake.take_rest() == rest
    assert handshake.state is State.SECURING


def test_equal_nonces_make_no_tls_client() -> None:
    with pytest.raises(GreetingError, match="neither side would be the TLS client"):
        started(OURS_TLS).receive(THEIRS_TLS.encode() + b"\nnonce-a\n")


@pytest.mark.parametrize("secret", [None, SECRET])
def test_inside_of_tls_both_prove_that_they_saw_the_same_greetings(secret: bytes | None) -> None:
    handshake = secured(secret=secret)
    assert not handshake.is_identified
    lines = TLS_LINES[::-1]
    assert handshake.prove() == f"{TLS};{auth.tls_token(b'', *lines)};json\n".encode()
    assert handshake.receive(tls_line()) == [PeerProved(TLS, "json")]
    assert handshake.is_open


def test_inside_of_tls_the_secret_will_do_as_well() -> None:
    handshake = secured(secret=SECRET)
    token = auth.hmac_token(SECRET, *TLS_LINES)
    assert handshake.receive(tls_line(METHOD, token)) == [PeerProved(METHOD, "json")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        pytest.param(tls_line(token=""), "token is wrong", id="empty"),
        pytest.param(tls_line(token=auth.tls_token(b"", *TLS_LINES[::-1])), "token is wrong", id="ours-sent-back"),
        pytest.param(tls_line("tls_anon", ""), "auth method b'tls_anon'", id="tls_anon"),
        pytest.param(tls_line("cleartext", SECRET.hex()), "auth method b'cleartext'", id="cleartext"),
        pytest.param(tls_line(METHOD, auth.hmac_token(b"", *TLS_LINES)), "cannot verify", id="no-secret-here"),
    ],
)
def test_inside_of_tls_wrong_proofs_are_refused(line: bytes, text: str) -> None:
    handshake = secured(Greeting("a", (TLS, METHOD), ("msgpack", "json"), (("tls", "1.0"),)))
    with pytest.raises(AuthenticationError, match=text):
        handshake.receive(line)
    assert handshake.state is State.FAILED


@pytest.mark.parametrize("tls", [(), (("tls", ""),), (("tls", "2.0"),)], ids=["none", "bare", "other"])
def test_outside_of_tls_its_token_is_worth_nothing(tls: tuple[tuple[str, str], ...]) -> None:
    """Everybody can compute it."""
    theirs = Greeting("b", (TLS, METHOD), ("json",), tls)
    handshake = started(OURS_TLS)  # with a secret
    assert handshake.receive(theirs.encode() + b"\nnonce-b\n") == [PeerGreeted(theirs, b"nonce-b")]
    token = auth.tls_token(b"", (theirs.encode(), b"nonce-b"), (OURS_TLS.encode(), b"nonce-a"))
    with pytest.raises(AuthenticationError, match="cannot verify"):
        handshake.receive(tls_line(token=token))


def test_without_tls_on_both_sides_the_secret_is_fallen_back_to() -> None:
    handshake = started(OURS_TLS)
    handshake.receive(THEIR_GREETING)
    assert handshake.prove().startswith(METHOD.encode())


@pytest.mark.parametrize(
    ("secret", "require", "text"),
    [
        pytest.param(None, False, "offers no TLS", id="no-secret"),
        pytest.param(SECRET, True, "require_tls", id="required"),
    ],
)
def test_a_peer_without_tls_is_refused(secret: bytes | None, require: bool, text: str) -> None:
    handshake = Handshake(OURS_TLS, "nonce-a", secret, require_tls=require)
    handshake.start()
    with pytest.raises(TlsError, match=text):
        handshake.receive(THEIR_GREETING)


@pytest.mark.parametrize(
    ("names", "is_good"),
    [
        pytest.param(("b",), True, id="its-own"),
        pytest.param(("x", "b"), True, id="one-of-several"),
        pytest.param(("*",), True, id="all"),
        pytest.param((), False, id="none"),
        pytest.param(("bb",), False, id="longer"),
        pytest.param(("",), False, id="empty"),
        pytest.param(("B",), False, id="case"),
        pytest.param(("b/*",), False, id="below"),
    ],
)
def test_a_certificate_must_name_the_node(names: tuple[str, ...], is_good: bool) -> None:
    handshake = started(OURS_TLS, None)
    handshake.receive(THEIR_TLS_GREETING)
    if is_good:
        assert handshake.secured(names) == [PeerGreeted(THEIRS_TLS, b"nonce-b")]
        assert handshake.is_identified
    else:
        with pytest.raises(AuthenticationError, match="says that it is 'b', and its certificate is for"):
            handshake.secured(names)
        assert handshake.state is State.FAILED


@pytest.mark.parametrize(
    ("name", "node", "is_one"),
    [
        ("worker/*", "worker/1", True),
        ("worker/*", "worker", False),
        ("*/1", "worker/1", False),
        ("wor*er/1", "worker/1", False),
        ("w?rker/1", "worker/1", False),
        ("[::1]:4040", "[::1]:4040", True),
        ("127.0.0.1:*", "127.0.0.1:4040", True),
    ],
)
def test_a_star_is_a_pattern_only_at_the_end(name: str, node: str, is_one: bool) -> None:
    assert is_name_of(name, node) is is_one


# --- secrets that change ----------------------------------------------------------


@pytest.mark.parametrize("theirs", [SECRET, b"older", b"oldest"])
def test_all_accepted_secrets_are_good_and_the_first_is_sent(theirs: bytes) -> None:
    handshake = Handshake(OURS, "nonce-a", SECRET, also_accepted=(b"older", b"oldest"))
    handshake.start()
    assert handshake.receive(THEIR_GREETING + auth_line(secret=theirs))[1:] == [PeerProved(METHOD, "json")]
    assert handshake.prove().split(b";")[1] == auth.hmac_token(SECRET, OUR_LINES, THEIR_LINES).encode()


def test_a_secret_that_is_not_accepted_any_more_is_refused() -> None:
    handshake = Handshake(OURS, "nonce-a", SECRET, also_accepted=(b"older",))
    handshake.start()
    with pytest.raises(AuthenticationError, match="token is wrong"):
        handshake.receive(THEIR_GREETING + auth_line(secret=b"oldest"))


# --- what our own code can do wrong -----------------------------------------------


@pytest.mark.parametrize(
    ("greeting", "nonce", "secret"),
    [
        pytest.param(OURS, "", SECRET, id="empty-nonce"),
        pytest.param(OURS, "a\nb", SECRET, id="line-end-in-nonce"),
        pytest.param(OURS, "x" * MAX_LINE_BYTES, SECRET, id="long-nonce"),
        pytest.param(Greeting("x" * MAX_LINE_BYTES, (), ()), "n", SECRET, id="long-greeting"),
        pytest.param(OURS, "n", b"", id="empty-secret"),
    ],
)
def test_a_greeting_that_cannot_be_sent_is_refused_at_once(greeting: Greeting, nonce: str, secret: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        Handshake(greeting, nonce, secret)


def test_an_empty_secret_is_never_accepted() -> None:
    with pytest.raises(LocalProtocolError):
        Handshake(OURS, "n", SECRET, also_accepted=(b"",))


def test_the_secret_shows_in_no_repr() -> None:
    handshake = started()
    events = handshake.receive(THEIR_GREETING + auth_line())
    line = handshake.prove().decode()
    shown = repr(handshake) + repr(events) + repr(handshake.peer)
    for hidden in (SECRET.decode(), SECRET.hex(), line.split(";")[1]):
        assert hidden not in shown
    assert repr(handshake) == "<Handshake 'a' with 'b': OPEN>"
