# SPDX-License-Identifier: MIT
"""Certificates for a test: a CA that issues them as the test wants them, and self-signed ones to share."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)
BOTH_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Identity:
    """A key and its certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate

    @property
    def key_text(self) -> str:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def certificate_text(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def pem(self, *others: Identity) -> str:
        """Return key, certificate and the certificates of others: what ``cert`` takes."""
        return self.key_text + self.certificate_text + "".join(other.certificate_text for other in others)

    def write(self, path: Path, *others: Identity) -> str:
        """Write all of it to a file that is ours alone, and return its path."""
        path.touch(mode=0o600)
        path.write_text(self.pem(*others))
        return str(path)

    def issue(self, *uris: str, cn: str | None = None, **options: object) -> Identity:
        """Return a certificate of this CA's."""
        return _make(cn or "a node", self, uris, **options)  # type: ignore[arg-type]


def authority(name: str = "a CA of the tests", issuer: Identity | None = None, uris: Iterable[str] = ()) -> Identity:
    """Return a CA."""
    return _make(name, issuer, uris, is_ca=True)


def shared_certificate(name: str = "shared by all nodes", **options: object) -> Identity:
    """Return a self-signed certificate, as it is made for Perl nodes."""
    return _make(name, None, (), is_ca=True, **options)  # type: ignore[arg-type]


def _make(
    cn: str,
    issuer: Identity | None,
    uris: Iterable[str],
    *,
    is_ca: bool = False,
    begins: timedelta = -DAY,
    ends: timedelta = 365 * DAY,
    usages: tuple[x509.ObjectIdentifier, ...] | None = None,
    extension: x509.ExtensionType | None = None,
    key: Any = None,  # one of many classes
) -> Identity:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    now = datetime.now(timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if extension is not None:
        builder = builder.add_extension(extension, critical=False)
    return Identity(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))
