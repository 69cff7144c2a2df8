# SPDX-License-Identifier: MIT
"""Vary interesting inputs at random, without measuring coverage."""

from __future__ import annotations

import random

_INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b";", b"\n", b"%", b",", b"[", b"]", b"{", b'"', b"\\", b"#")


def mutate(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """Return bytes that are like others.

    Args:
        data: What to begin with.
        others: What else is known: pieces of it may come in.
        dice: Decides.
    """
    made = bytearray(data)
    for _ in range(dice.choice((0, 1, 1, 2, 4, 8))):
        place = dice.randrange(len(made) + 1)
        end = min(len(made), place + dice.choice((1, 1, 2, 4, 16, 64)))
        what = dice.randrange(7)
        if what == 0 and place < len(made):
            made[place] ^= 1 << dice.randrange(8)
        elif what == 1:
            made[place:end] = b""
        elif what == 2:
            made[place:place] = made[place:end] * dice.choice((1, 2, 10, 300))
        elif what == 3:
            made[place:end] = dice.choice(_INTERESTING)
        elif what == 4:
            made[place:end] = dice.randbytes(end - place)
        elif what == 5:
            other = dice.choice(others) or b"\x00"
            begin = dice.randrange(len(other))
            made[place:place] = other[begin : begin + dice.randrange(1, 64)]
        else:
            del made[place:]
    return bytes(made[:20_000])
