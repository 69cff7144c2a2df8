# SPDX-License-Identifier: MIT
"""Certificates and secrets: what is refused at the start, how they are renewed, and that they show nowhere."""

from __future__ import annotations

import base64
import logging
import os
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from aemp_gevent.errors import CertificateError, InvalidSettingError
from aemp_gevent.node.node import Node
from aemp_gevent.transport import certificates
from aemp_gevent.transport.certificates import Certificate
from tests.support.authority import DAY, Identity, shared_certificate
from tests.support.networking import SECRET, Deaths, MakeNode, RawPeer
from tests.support.seams import network_of
from tests.support.tls_nodes import ANYWHERE, CA, OTHER_CA, SHARED, link_of, refused, talk
from tests.support.tls_peers import Files


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
    """Put another certificate in place, as a renewal does."""
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
    """Return a certificate whose issuer cannot be read, and its key."""
    data = bytearray(SHARED.certificate.public_bytes(serialization.Encoding.DER))
    data[data.index(b"shared by all nodes")] = 0xFF  # which is not UTF-8
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
    assert f"the new certificate cannot be used, keeping the old one: cert file {shared}: " in told[0]


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
