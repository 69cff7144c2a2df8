# SPDX-License-Identifier: MIT
"""Authentication tokens, which prove that a node knows the secret without sending it.

A token covers all four greeting lines, the sender's two first. It covers both
nonces, so it is valid for one connection only; their order, so it cannot be sent
back to its sender; and both lists of methods and framings, so an attacker
between the two sides cannot reduce them to weaker ones.

Not here: which method is chosen and when a token is due
(:mod:`aemp_gevent.wire.handshake`, the file to read next).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection

# Greeting line and nonce line of one side: the bytes as they were received,
# without their line ends. Never a line that was built again: see Greeting.encode.
Lines = tuple[bytes, bytes]

# (secret, the sender's lines, the receiver's lines) -> token
TokenFunction = Callable[[bytes, Lines, Lines], str]

TLS_METHOD = "tls_sha3_512"
HMAC_METHOD = "hmac_sha3_512"


def signed_text(sender_lines: Lines, receiver_lines: Lines) -> bytes:
    """Return what a token signs: the four lines, each with a single LF.

    The LF is there whatever the line ended with on the wire.

    Source:
        PROTOCOL.md, section 3; the order is the one that Perl really uses
        (``vectors/NODE_PROTOCOL.md``), not the one in its manual.
    """
    return b"".join(line + b"\n" for line in (*sender_lines, *receiver_lines))


def hmac_token(secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> str:
    """Return the token of ``hmac_sha3_512``, in lower-case hexadecimal."""
    return hmac.new(secret, signed_text(sender_lines, receiver_lines), hashlib.sha3_512).hexdigest()


def tls_token(_secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> str:
    """Return the token of ``tls_sha3_512``, in lower-case hexadecimal.

    Anybody can compute it. Inside of TLS, where both sides have proved themselves with certificates,
    it proves that both saw the same greetings.
    """
    return hashlib.sha3_512(signed_text(sender_lines, receiver_lines)).hexdigest()


# Best first. Other methods are neither sent nor accepted. Perl accepts two more, an empty
# token inside of TLS (tls_anon) and the secret itself (cleartext); it sends neither, and they prove nothing.
METHODS: dict[str, TokenFunction] = {
    TLS_METHOD: tls_token,
    HMAC_METHOD: hmac_token,
}


def make_token(method: str, secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> str:
    """Return the token with which the sender of ``sender_lines`` proves itself to the receiver.

    Raises:
        KeyError: There is no such method; the caller chose it from METHODS.
    """
    return METHODS[method](secret, sender_lines, receiver_lines)


def verify(method: str, token: bytes, secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> bool:
    """Return whether a token is the one that its sender should have sent.

    Takes the same time wherever the first difference is. The token is bytes, as
    received, because ``compare_digest`` refuses text beyond ASCII.
    """
    expected = make_token(method, secret, sender_lines, receiver_lines).encode()
    return hmac.compare_digest(expected, token)


def verify_any(
    method: str, token: bytes, secrets: Collection[bytes], sender_lines: Lines, receiver_lines: Lines
) -> bool:
    """Return whether a token is right for any of the accepted secrets; takes the same time for each."""
    # A list, so that all are checked: the time must not reveal which one it was.
    return any([verify(method, token, secret, sender_lines, receiver_lines) for secret in secrets])  # noqa: C419
