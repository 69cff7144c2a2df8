# SPDX-License-Identifier: MIT
"""Credentials: a node's certificate and key, the CAs that it trusts, and the TLS versions and ciphers that it allows.

They are read from PEM texts once, and serve any number of connections:

- **Shared certificate**, as in AnyEvent::MP: the certificate is self-signed and names no node ID, and
  all nodes have the same one and its key. It is its own CA. Its owner can use any node ID.
- **Identities**: the certificate was issued by a CA of the network, for this node alone,
  and names its node ID (:mod:`~.certified_names`). What a peer's certificate names is for
  :meth:`~aemp_gevent.wire.handshake.Handshake.secured` to compare.

Not here: files (:mod:`aemp_gevent.transport.certificates`), and a connection's TLS (:mod:`~.tls`).
"""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL, crypto

from aemp_gevent.errors import CertificateError
from aemp_gevent.runtime.quoting import quoted

from .certified_names import UNREADABLE, names_of, uris_of
from .tls import Tls, reason_of

# TLS 1.2 only with forward secrecy and authenticated encryption; those of TLS 1.3 all are, and OpenSSL's order is good.
_TLS_1_2_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class Credentials:
    """A private key, its certificate, and the certificates of trusted CAs.

    Args:
        pem: The private key and its certificate, in any order. Other certificates in it are
            trusted if they are self-signed, and otherwise sent with our own.
        ca: Certificates to trust as well.
        where: The source of the texts, for errors.

    Raises:
        CertificateError: They cannot be used; the text never shows any part of the key.
    """

    def __init__(self, pem: bytes, ca: bytes = b"", where: str = "the certificate") -> None:
        self._where = where
        key = self._key(pem)
        certificates = self._certificates(pem)
        own = next((each for each in certificates if each.public_key() == key.public_key()), None)
        if own is None:
            raise CertificateError(where, "no certificate in it matches the private key")
        self._check_usage(own)
        others = [each for each in certificates if each != own]
        trusted = [each for each in others if _is_self_signed(each)] + self._certificates(ca)
        is_self_signed = _is_self_signed(own)
        # A certificate with node IDs in it is meant for these nodes.
        self.is_shared = is_self_signed and not uris_of(own)
        """Whether all nodes share our certificate, so that it need not name node IDs."""
        self.certificate = own
        self.names = names_of(own)
        """The node IDs that our own certificate is for."""
        if is_self_signed:
            trusted.append(own)
        if not trusted:
            issuer = own.issuer.rfc4514_string()
            raise CertificateError(where, f"the certificate of its issuer ({issuer}) is missing; add it, or set 'ca'")
        chain = [each for each in others if not _is_self_signed(each)]
        try:
            self._context = _context(key, own, chain, trusted)
        except (SSL.Error, crypto.Error, TypeError) as error:
            raise CertificateError(where, f"OpenSSL refuses it: {reason_of(error)}") from None

    def __repr__(self) -> str:
        return f"<Credentials of {quoted(self.certificate.subject.rfc4514_string())} from {self._where}>"

    def connect(self, *, is_client: bool) -> Tls:
        """Return one side of a new connection."""
        return Tls(self._context, is_client=is_client, is_shared=self.is_shared)

    def _key(self, pem: bytes) -> PrivateKeyTypes:
        blocks = [match for match in _PEM.finditer(pem) if match[1].endswith(b"PRIVATE KEY")]
        if len(blocks) != 1:
            raise CertificateError(self._where, f"it holds {len(blocks)} private keys in PEM form, and one is needed")
        try:
            return serialization.load_pem_private_key(blocks[0][0], password=None)
        except TypeError:
            text = "its private key is encrypted, which is not supported; remove the passphrase with openssl pkey"
            raise CertificateError(self._where, text) from None
        except (ValueError, UnsupportedAlgorithm):
            raise CertificateError(self._where, "its private key cannot be read") from None

    def _certificates(self, pem: bytes) -> list[x509.Certificate]:
        found: list[x509.Certificate] = []
        for match in _PEM.finditer(pem):
            if match[1] == b"CERTIFICATE":
                try:
                    certificate = x509.load_pem_x509_certificate(match[0])
                    # They are parsed when they are first used, which is here, where errors are caught.
                    _ = certificate.subject, certificate.issuer, certificate.public_key()
                    _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
                except (*UNREADABLE, UnsupportedAlgorithm):
                    raise CertificateError(self._where, "a certificate in it cannot be read") from None
                found.append(certificate)
        return found

    def _check_usage(self, own: x509.Certificate) -> None:
        try:
            usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        except x509.ExtensionNotFound:
            return
        except UNREADABLE:
            raise CertificateError(self._where, "an extension of the certificate cannot be read") from None
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(usage):
            # Chance decides which of two nodes is the client: half of the handshakes would fail.
            text = "its extended key usage must be both serverAuth and clientAuth, or be absent"
            raise CertificateError(self._where, text)


def _context(
    key: PrivateKeyTypes, own: x509.Certificate, chain: list[x509.Certificate], trusted: list[x509.Certificate]
) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # Nothing is ever resumed: every connection proves both sides again.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_cipher_list(_TLS_1_2_CIPHERS)
    context.use_privatekey(key)  # type: ignore[arg-type]  # OpenSSL refuses keys that are not for TLS
    context.use_certificate(own)
    context.check_privatekey()
    for certificate in chain:
        context.add_extra_chain_cert(certificate)
    store = context.get_cert_store()
    assert store is not None  # a context has one
    for certificate in trusted:
        store.add_cert(crypto.X509.from_cryptography(certificate))
    # A CA below a root that is not given may be trusted, too.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _note_fault)
    return context


def _note_fault(connection: SSL.Connection, _certificate: crypto.X509, fault: int, depth: int, is_good: int) -> bool:
    """Keep the fault of the peer's certificate: OpenSSL's error does not name it."""
    if not is_good:
        connection.get_app_data().append((fault, depth))
    return bool(is_good)


def _is_self_signed(certificate: x509.Certificate) -> bool:
    if certificate.issuer != certificate.subject:
        return False
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True
