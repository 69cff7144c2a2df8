# SPDX-License-Identifier: MIT
"""Peers that know the secret and turn hostile, and strangers in numbers, beside a link that behaves well.

Each test has three processes: the victim, the attacker, and this one, which goes back and forth with the victim all
the while. The outcome is reported at the end of the run: what was sent, what of it was refused, how much more
memory the victim has, and how much longer a round trip takes than before.
"""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest

from aemp_gevent.peers.virtual_peer import MAX_RIDERS
from aemp_gevent.runtime.bounded_log import MAX_LINES
from tests.hostile import attacker
from tests.hostile.test_strangers import Tally, tally
from tests.hostile.victim import Told, victim
from tests.support.networking import MakeNode, line_of, process

__all__ = ["tally"]

pytestmark = pytest.mark.slow

SECONDS = 0.3
"""Of each attack."""

SETTLED = 2.5
"""Seconds after which the links that are left stay: longer than a handshake may take, and a relay dials nobody."""

SLOWDOWN = 30
"""How many times as long round trips may take, where the machine has other things to do, and too few processors
for all three. Where it has not it is less than 2: the figures tell."""

MEMORY = 300 * 2**20
"""What a peer who knows the secret may have us keep, at most: 100,000 watched ports or entries, 64 MiB of a message."""

RATES = {"via": 20_000}
"""Packets a second, where the victim has so much to do for each that it is busy for long after the attack."""

FLOODS = sorted(attacker.floods("127.0.0.1:1"))
REFUSED = {
    "spawn": "spawn",
    "function": "spawn",
    "eval": "spawn",
    "relay-to-itself": "relay",
    "giants": "message",
    "half-handshakes": "crowd",
    "tls-junk": "handshake",
    "wrong-secrets": "handshake",
    "entries": "directory",
}
"""What is refused for sure, whatever the machine is like; what else is depends on how fast it is."""


@pytest.mark.parametrize("what", [*FLOODS, *attacker.STRANGERS, "giants"])
def test_hostile_peer_hurts_nobody_else(make_node: MakeNode, tmp_path: Path, tally: Tally, what: str) -> None:
    options: dict[str, Any] = {"handshake_timeout": 2.0}  # a fifth of what is usual: it is waited for below
    if what == "entries":
        options["max_directory_entries"] = 500
    if what == "half-handshakes":
        options["max_strangers_per_address"] = 8  # fewer than the attacker has at once
    with victim(make_node(), tmp_path / "log", **options) as target:
        quiet = target.round_trips()
        before = target.collect()
        told_to_it = json.dumps([target.id, what, SECONDS, RATES.get(what)])
        with process(attacker.PROGRAM, told_to_it) as child:
            assert line_of(child) == "ready"
            begin, during, trips = monotonic(), [], 0
            while monotonic() - begin < SECONDS:
                during.append(target.round_trips(20))
                trips += 20
            told = json.loads(line_of(child))
        under_attack = sorted(during)[len(during) // 2]
        assert not target.lost
        assert under_attack < max(SLOWDOWN * quiet, 0.05)
        after = settled(target.collect)
        assert after.rss - before.rss < MEMORY
        assert after.ports - before.ports < 10
        assert after.peers - before.peers < 2 * MAX_RIDERS
        if what in REFUSED:
            assert after.refusals.get(REFUSED[what], 0) > 0, after.refusals
        # Lines of information are the links', which come and go no faster than connections are accepted.
        warnings = [line for line in target.log().splitlines() if line.startswith(("WARNING", "ERROR"))]
        assert len(warnings) < 2 * MAX_LINES + 10 + told.get("links", 0)
        assert target.round_trips() < max(SLOWDOWN * quiet, 0.05), "it did not recover"
        tally(
            **told,
            refused=sum(after.refusals.values()),
            round_trips=trips,
            quiet_microseconds=round(quiet * 1e6),
            slower_by=round(under_attack / quiet, 1),
            memory_kib=(after.rss - before.rss) // 1024,
        )


def settled(collect: object) -> Told:
    """Return how the victim is when the attacker's links are gone, or are not going to."""
    deadline = monotonic() + SETTLED
    while True:
        told: Told = collect()  # type: ignore[operator]
        if told.links <= 1 or monotonic() > deadline:
            return told
        gevent.sleep(0.05)
