# SPDX-License-Identifier: MIT
"""Beats: sealed by one side of a connection, and opened by the other only."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.wire.beats import MAX_SECONDS, SIZE, Beat, BeatKey, derive, id_of
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.handshake import Handshake

A = (b"aemp;1;a;;", b"nonce of a")
B = (b"aemp;1;b;;", b"nonce of b")
SALT = "salt"


def key(secret: bytes = b"s", sender: tuple[bytes, bytes] = A, receiver: tuple[bytes, bytes] = B) -> BeatKey:
    return BeatKey(derive(secret, sender, receiver, SALT))


@given(st.integers(0, 2**64 - 1), st.floats(0, MAX_SECONDS), st.text(st.characters(codec="ascii"), max_size=151))
def test_what_was_sealed_is_opened(number: int, seconds: float, where: str) -> None:
    beat = Beat(number, seconds, where)
    datagram = key().seal(beat)
    assert len(datagram) == SIZE
    assert id_of(datagram) == key().id
    assert key().open(datagram) == beat


def test_long_place_is_cut() -> None:
    opened = key().open(key().seal(Beat(1, 2.0, "é" * 500)))
    assert opened is not None
    assert set(opened.where) <= {"é", "\N{REPLACEMENT CHARACTER}"}
    assert 70 < len(opened.where) < 80


def test_nothing_shows_through() -> None:
    one, two = (key().seal(Beat(number, 3.0, "secret.py:1 in work")) for number in (1, 2))
    assert b"secret" not in one
    assert sum(x != y for x, y in zip(one[24:-32], two[24:-32], strict=True)) > 100, "covered in the same way"


def test_each_changed_byte_is_noticed() -> None:
    datagram = key().seal(Beat(1, 2.0, "x.py:1 in f"))
    for at in range(SIZE):
        changed = bytearray(datagram)
        changed[at] ^= 1 << secrets.randbelow(8)
        assert key().open(bytes(changed)) is None
    for size in (0, 1, 16, SIZE - 1):
        assert key().open(datagram[:size]) is None
    assert key().open(datagram + b"x") is None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(key(b"other"), id="secret"),
        pytest.param(key(sender=B, receiver=A), id="direction"),
        pytest.param(key(sender=(A[0], b"another nonce")), id="connection"),
        pytest.param(key(receiver=(b"aemp;1;b;;;uniq=2", B[1])), id="incarnation"),
        pytest.param(BeatKey(derive(b"s", A, B, "another")), id="salt"),
    ],
)
def test_other_keys_open_nothing(other: BeatKey) -> None:
    datagram = key().seal(Beat(1, 2.0, ""))
    assert other.id != id_of(datagram)
    assert other.open(other.id + datagram[16:]) is None


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e308, MAX_SECONDS + 1])
def test_impossible_seconds_are_refused(seconds: float) -> None:
    assert key().open(key().seal(Beat(1, seconds, ""))) is None


def shaken(*secrets_: tuple[bytes, ...]) -> list[Handshake]:
    sides = []
    for number, (first, *others) in enumerate(secrets_):
        greeting = Greeting(node=f"n{number}", auth_methods=("hmac_sha3_512",), framings=("msgpack",))
        sides.append(Handshake(greeting, secrets.token_urlsafe(9), first, also_accepted=others))
    one, two = sides
    lines = [side.start() for side in sides]
    two.receive(lines[0])
    one.receive(lines[1])
    two.receive(one.prove())
    one.receive(two.prove())
    assert one.is_open
    assert two.is_open
    return sides


@pytest.mark.parametrize(
    "both", [((b"s",), (b"s",)), ((b"new", b"old"), (b"old", b"new")), ((b"x", b"new", b"old"), (b"old", b"x"))]
)
def test_both_sides_derive_the_same_key_from_the_handshake(both: tuple[tuple[bytes, ...], ...]) -> None:
    one, two = shaken(*both)
    for sender, receiver in ((one, two), (two, one)):
        datagram = sender.beat_key(SALT, of_peer=False).seal(Beat(1, 2.0, "here"))
        assert receiver.beat_key(SALT, of_peer=True).open(datagram) == Beat(1, 2.0, "here")
        assert receiver.beat_key(SALT, of_peer=False).id != id_of(datagram)
