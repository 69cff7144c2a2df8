# SPDX-License-Identifier: MIT
"""Peers that are refused inside of TLS: the log says why, and nothing else happens."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from aemp_gevent.errors import TlsError
from aemp_gevent.node.node import Node
from aemp_gevent.wire.tls import Tls
from tests.support.authority import DAY, Identity, shared_certificate
from tests.support.native import aside
from tests.support.networking import Deaths, Inbox, MakeNode, RawPeer
from tests.support.relay import Relay
from tests.support.seams import network_of
from tests.support.tls_nodes import ANYWHERE, CA, OTHER_CA, SHARED, refused, talk, wait_until
from tests.support.tls_peers import HIGHEST, LOWEST, Files, TlsPeer


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
    assert not network_of(node).peers


def test_client_without_a_certificate_is_refused_with_a_reason(
    make_node: MakeNode, shared: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(cert=shared)  # the secret does not help: a peer that offers TLS must bring it up
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


class Stripper(Relay):
    """Takes the offers of TLS out of the greetings."""

    def change(self, data: bytes) -> bytes:
        return data.replace(b";tls=1.0", b"")


def test_refused_peer_is_notified_by_an_alert(make_node: MakeNode, files: Files) -> None:
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


def test_log_of_a_node_with_another_nodes_certificate_says_where_to_look(make_node: MakeNode, files: Files) -> None:
    """TLS accepts it, and is up at the other node, or not yet: chance decides which node is the client."""
    good = make_node(secret=None, cert=files.write(CA.issue(ANYWHERE), CA))
    bad = make_node(secret=None, cert=files.write(CA.issue("aemp:backend"), CA))
    died = Deaths()
    bad.mon(f"{good.NODE()}#x", died)
    assert re.search("it refused this node, and its log says why|does it trust our certificate", died.wait()[2])


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
    refused(caplog, "its certificate is for backend: peers that have a certificate will refuse it")


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
        pytest.param("tls1.1", "neither TLS 1.2 nor TLS 1.3", id="TLS-1.1"),
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
    # It still accepts peers that are allowed.
    talk(node, make_node(**MODES[mode](files)))


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
                refused(caplog, "closed: too many handshakes")
    assert node.refusals == {"crowd": 1}
