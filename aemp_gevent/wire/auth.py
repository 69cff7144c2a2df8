# SPDX-License-Identifier: MIT
"""Authentication tokens: proving that one knows the secret without saying it.

A token covers all four greeting lines, the sender's two first. Both nonces are
in there, so a token is good for one connection only; the order is, so it cannot
be sent back to where it came from; and both lists of methods and framings are,
so nobody between the two sides can trim them to something weaker.

Not here: which method is chosen and when a token is due
(:mod:`aemp_gevent.wire.handshake`, the file to read next).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Collection

# Greeting line and nonce line of one side: the bytes as they were received,
# without their line ends. Never a line built again: see Greeting.encode.
Lines = tuple[bytes, bytes]

# (secret, the sender's lines, the receiver's lines) -> token
TokenFunction = Callable[[bytes, Lines, Lines], str]

TLS_METHOD = "tls_sha3_512"
HMAC_METHOD = "hmac_sha3_512"


def signed_text(sender_lines: Lines, receiver_lines: Lines) -> bytes:
    """Return what a token signs: the four lines, each with a single LF.

    The LF is there whatever the line ended with on the wire.

    Source:
        PROTOCOL.md, section 3; the order is the one Perl really uses
        (``vectors/NODE_PROTOCOL.md``), not the one in its manual.
    """
    return b"".join(line + b"\n" for line in (*sender_lines, *receiver_lines))


def hmac_token(secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> str:
    """Return the token of ``hmac_sha3_512``, in lower-case hexadecimal."""
    return hmac.new(secret, signed_text(sender_lines, receiver_lines), hashlib.sha3_512).hexdigest()


def tls_token(_secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> str:
    """Return the token of ``tls_sha3_512``, in lower-case hexadecimal.

    Everybody can compute it: it proves something only inside of TLS, which both sides'
    certificates have proved, and then that both saw the same greetings before it.
    """
    return hashlib.sha3_512(signed_text(sender_lines, receiver_lines)).hexdigest()


# Best first. What is not in here can neither be sent nor accepted. Perl accepts two more, an empty
# token inside of TLS (tls_anon) and the secret itself (cleartext); it sends neither, and they are worth nothing.
METHODS: dict[str, TokenFunction] = {
    TLS_METHOD: tls_token,
    HMAC_METHOD: hmac_token,
}


def make_token(method: str, secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> str:
    """Return the token that the sender of ``sender_lines`` owes the receiver.

    Raises:
        KeyError: There is no such method; the caller chose it from METHODS.
    """
    return METHODS[method](secret, sender_lines, receiver_lines)


def verify(method: str, token: bytes, secret: bytes, sender_lines: Lines, receiver_lines: Lines) -> bool:
    """Tell whether a token is the one its sender should have sent.

    Takes the same time wherever the first difference is. The token is bytes, as
    received, because ``compare_digest`` refuses text beyond ASCII.
    """
    expected = make_token(method, secret, sender_lines, receiver_lines).encode()
    return hmac.compare_digest(expected, token)


def verify_any(
    method: str, token: bytes, secrets: Collection[bytes], sender_lines: Lines, receiver_lines: Lines
) -> bool:
    """Tell whether a token is right for any of the secrets that are accepted; takes the same time for each."""
    # A list, so that all are looked at: the time must not tell which one it was.
    return any([verify(method, token, secret, sender_lines, receiver_lines) for secret in secrets])  # noqa: C419
