# SPDX-License-Identifier: MIT
"""Tokens, against those that real Perl nodes sent."""

from __future__ import annotations

import hashlib

import pytest

from aemp_gevent.wire import auth

OURS = (b"aemp;1;a;x;y", b"nonce-a")
THEIRS = (b"aemp;1;b;x;y", b"nonce-b")


@pytest.mark.parametrize("sender", ["a", "b"])
def test_a_recorded_token_is_recomputed(plain_recording, sender: str) -> None:  # type: ignore[no-untyped-def]
    sides = plain_recording.a, plain_recording.b
    ours, theirs = sides if sender == "a" else reversed(sides)
    method, token, _ = ours.auth_line.split(b";")
    assert method == b"hmac_sha3_512"
    assert auth.hmac_token(plain_recording.secret, ours.lines, theirs.lines) == token.decode()
    assert auth.verify("hmac_sha3_512", token, plain_recording.secret, ours.lines, theirs.lines)


def test_a_token_cannot_be_sent_back_to_where_it_came_from() -> None:
    assert auth.hmac_token(b"s", OURS, THEIRS) != auth.hmac_token(b"s", THEIRS, OURS)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(b"", id="empty"),
        pytest.param(auth.hmac_token(b"other", OURS, THEIRS).encode(), id="other-secret"),
        pytest.param(auth.hmac_token(b"s", THEIRS, OURS).encode(), id="roles-swapped"),
        pytest.param(auth.hmac_token(b"s", OURS, (THEIRS[0], b"x")).encode(), id="other-nonce"),
        pytest.param(auth.hmac_token(b"s", OURS, THEIRS).encode()[:-1], id="cut"),
        pytest.param(auth.hmac_token(b"s", OURS, THEIRS).upper().encode(), id="upper-case"),
        pytest.param("ä".encode(), id="beyond-ascii"),
    ],
)
def test_a_wrong_token_is_not_verified(token: bytes) -> None:
    assert not auth.verify("hmac_sha3_512", token, b"s", OURS, THEIRS)


def test_every_accepted_secret_is_tried_whichever_was_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the time would reveal which one it was."""
    tried = []
    real = auth.hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: bool(tried.append(a)) or real(a, b))
    for secret in (b"s", b"t", b"u"):
        tried.clear()
        token = auth.hmac_token(secret, OURS, THEIRS).encode()
        assert auth.verify_any("hmac_sha3_512", token, (b"s", b"t", b"u"), OURS, THEIRS)
        assert len(tried) == 3
    assert not auth.verify_any("hmac_sha3_512", b"", (b"s", b"t"), OURS, THEIRS)
    assert not auth.verify_any("hmac_sha3_512", b"", (), OURS, THEIRS)


def test_the_token_of_tls_covers_all_lines_in_the_senders_order() -> None:
    text = b"aemp;1;a;x;y\nnonce-a\naemp;1;b;x;y\nnonce-b\n"
    assert auth.tls_token(b"", OURS, THEIRS) == hashlib.sha3_512(text).hexdigest()


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: bool(seen.append((a, b))) or a == b)
    token = auth.hmac_token(b"s", OURS, THEIRS).encode()
    assert auth.verify("hmac_sha3_512", token, b"s", OURS, THEIRS)
    assert seen == [(token, token)]


def test_a_method_is_a_row_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(auth.METHODS, "plain", lambda secret, sender, receiver: "t")
    assert auth.make_token("plain", b"s", OURS, THEIRS) == "t"
    assert auth.verify("plain", b"t", b"s", OURS, THEIRS)
