# SPDX-License-Identifier: MIT
"""Reads from a certificate which node IDs it is for.

It names them in SANs of type URI, ``aemp:<node ID>``, or else in its CN. A URI that ends with ``*`` stands for all
node IDs that begin like it.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID

NAME_PREFIX = "aemp:"
"""The beginning of a URI among a certificate's alternative names that names a node ID."""

# What cryptography raises for certificates that OpenSSL accepted.
UNREADABLE = (ValueError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """Return the node IDs that a certificate is for; ``()`` if it names none, or cannot be read."""
    uris = uris_of(certificate)
    if uris is None:
        return ()  # the unreadable part may name another node
    if uris:
        return uris
    # As with host names (RFC 6125): the CN counts only without such names, and without patterns.
    common = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return tuple(name for name in common if not name.endswith("*"))


def uris_of(certificate: x509.Certificate) -> tuple[str, ...] | None:
    """Return the node IDs in a certificate's URIs; None if they cannot be read."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except UNREADABLE:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uri[len(NAME_PREFIX) :] for uri in uris if uri.startswith(NAME_PREFIX))
