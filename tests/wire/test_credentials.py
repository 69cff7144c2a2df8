# SPDX-License-Identifier: MIT
"""Credentials: which PEM texts are accepted, and how others are refused without showing a key."""

from __future__ import annotations

import random
import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from aemp_gevent.errors import CertificateError
from aemp_gevent.wire.credentials import Credentials
from tests.support.authority import Identity, authority, shared_certificate

CA = authority()
SHARED = shared_certificate()
A, B = CA.issue("aemp:a"), CA.issue("aemp:b")


def credentials(identity: Identity, *others: Identity) -> Credentials:
    return Credentials(identity.pem(*others).encode())


def test_key_and_certificates_may_stand_in_any_order_with_anything_between() -> None:
    text = f"Bag Attributes\n{CA.certificate_text}\nnote\n{A.certificate_text}{A.key_text}\n\n"
    assert Credentials(text.encode()).names == ("a",)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        pytest.param("", "0 private keys", id="empty"),
        pytest.param(A.certificate_text, "0 private keys", id="no-key"),
        pytest.param(A.key_text, "no certificate in it matches the private key", id="no-certificate"),
        pytest.param(
            A.key_text + CA.certificate_text, "no certificate in it matches the private key", id="another-key"
        ),
        pytest.param(A.pem(CA) + B.key_text, "2 private keys", id="two-keys"),
        pytest.param(A.pem(), "the certificate of its issuer .* is missing", id="no-ca"),
        pytest.param(
            A.certificate_text + A.key_text.replace("MIG", "AAA"), "private key cannot be read", id="broken-key"
        ),
        pytest.param(
            A.key_text + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "cannot be read", id="broken"
        ),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_and_not_shown(text: str, why: str) -> None:
    with pytest.raises(CertificateError, match=why) as caught:
        Credentials(text.encode(), where="cert file /here")
    assert str(caught.value).startswith("cert file /here: ")
    shown = f"{caught.value!r} {caught.value.__context__!r}"
    assert not any(line in shown for line in text.splitlines() if len(line) > 40)


def altered(text: str, dice: random.Random) -> str:
    """Change a byte of what is in a PEM text."""
    kind = text.split("-----")[1][len("BEGIN ") :]
    data = bytearray(ssl.PEM_cert_to_DER_cert(text.replace(kind, "CERTIFICATE")))
    data[dice.randrange(len(data))] = dice.randrange(256)
    return ssl.DER_cert_to_PEM_cert(bytes(data)).replace("CERTIFICATE", kind)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("which", range(3))
def test_texts_with_changed_bytes_raise_nothing_else(which: int) -> None:
    """Or a node would fall over a new certificate, which it reads in the middle of something."""
    dice, texts = random.Random(which), [A.key_text, A.certificate_text, CA.certificate_text]
    refused = 0
    for _ in range(300):
        changed = [altered(text, dice) if number == which else text for number, text in enumerate(texts)]
        try:
            repr(Credentials("".join(changed).encode()))
        except CertificateError:
            refused += 1
    assert refused > 30


def test_a_key_that_tls_cannot_use_is_refused() -> None:
    key = x25519.X25519PrivateKey.generate()
    certificate = CA.issue("aemp:a", key=key)
    with pytest.raises(CertificateError, match="OpenSSL refuses it"):
        credentials(certificate, CA)


def test_an_encrypted_key_is_refused() -> None:
    for form in (serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL):
        key = A.key.private_bytes(
            serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"open sesame")
        ).decode()
        with pytest.raises(CertificateError, match="encrypted"):
            Credentials((key + A.certificate_text + CA.certificate_text).encode())


def test_no_repr_shows_the_key() -> None:
    shared = credentials(SHARED)
    for thing in (shared, shared.connect(is_client=True)):
        assert "PRIVATE" not in repr(thing)
        assert SHARED.key_text.splitlines()[1] not in repr(thing)
