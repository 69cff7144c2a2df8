# SPDX-License-Identifier: MIT
"""Idle links are closed in order: no message is lost or doubled, and nobody has a loss to report.

The first part drives real nodes, peers and links through random interleavings of both sides'
sends, monitors and wishes to rest, as ``test_two_links.py`` does for links that are
being made. The second uses whole nodes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import aemp_gevent.local
import aemp_gevent.network
from aemp_gevent.events import NodeDown
from aemp_gevent.heartbeat import Pulse
from aemp_gevent.monitors import Monitor
from aemp_gevent.node import Node
from aemp_gevent.peer import Peer
from aemp_gevent.testing.memory import MemoryNetwork
from tests.helpers import turns, wait_until
from tests.networking import OUR_PROVIDER, Deaths, Inbox, MakeNode, RawPeer, line_of, node_factory, process
from tests.test_two_links import IDS, InlineScheduler, Nonces, Side, World

MESSAGES = 8
WISHES = 6
STAY = Peer._stay


class RestingSide(Side):
    """A node whose program sends with and without a monitor, and whose link is idle whenever the schedule says so."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.node.reg(self.node.port(lambda *message: self.unmonitored.append(message)), "open")
        self.unmonitored: list[tuple[int]] = []
        self.count = 0
        self.wishes = WISHES
        self.asked = 0
        self.rests = 0
        self.losses = 0
        self.guard: Monitor | None = None
        self.network._down = self.went_down

    def went_down(self, peer: object, reason: tuple[Any, ...]) -> None:
        if reason == ("idle", IDS[1 - self.number]):
            self.rests += 1
        elif reason[0] != "shutdown":
            self.losses += 1

    def watch(self) -> None:
        self.session += 1
        self.sent.append(0)
        self.watching = True
        self.guard = self.node.mon(self.target, self.lost)

    def unwatch(self) -> None:
        assert self.guard is not None
        self.guard.cancel()
        self.watching = False

    def send_unmonitored(self) -> None:
        self.node.snd(f"{IDS[1 - self.number]}#open", self.count)
        self.count += 1

    def be_idle(self) -> None:
        self.wishes -= 1
        link = self.peer.link
        assert link is not None
        self.peer._may_rest(link)
        self.asked += self.peer._resting is link


class RestingWorld(World):
    def __init__(self, seed: int, *, breaks: int) -> None:
        super().__init__(seed, seeds=0, breaks=breaks, sessions=3)
        self.sides = (RestingSide(self, 0), RestingSide(self, 1))
        self.refused = 0

    def steps(self) -> Iterator[tuple[tuple[str, object], Callable[[], None]]]:
        for name, step in super().steps():
            if name[0] != "break" or self.sides[0].rests + self.sides[1].rests:
                yield name, step
        for side in self.sides:
            if side.watching:
                yield ("unwatch", side.number), side.unwatch
            if side.count < MESSAGES:
                yield ("send_unmonitored", side.number), side.send_unmonitored
            if side.wishes and side.peer.link is not None:
                yield ("be_idle", side.number), side.be_idle

    def weight(self, what: str) -> float:
        if what in ("unwatch", "be_idle"):
            return 10 ** self.dice.uniform(-1, 0)
        return super().weight(what) / (10 if what == "watch" else 1)

    def check(self) -> None:
        for here, there in (self.sides, self.sides[::-1]):
            numbers = [number for (number,) in there.unmonitored]
            assert numbers == sorted(set(numbers)), "out of order, or twice"
            for session in range(here.session + 1):
                got = [number for s, number in there.received if s == session]
                assert got == list(range(len(got))), "out of order, twice, or with a hole"
                if session == here.session and here.watching:
                    assert len(got) == here.sent[-1], "lost, and its sender did not notice"
                if not self.broken:
                    assert len(got) == here.sent[session], "lost"
            if not self.broken:
                assert numbers == list(range(here.count)), "lost"
                assert not here.losses, "a loss was reported, and nothing broke"
        up = [side.peer.link for side in self.sides]
        assert all(side.peer._resting is None for side in self.sides), "a side waits for ever"
        if not self.broken:
            assert (up[0] is None) == (up[1] is None), "one side takes for up what the other does not"
            open_ends = [end for end in self.ends if not end.closed]
            assert len(open_ends) == (0 if up[0] is None else 2), "a connection is left"


def run(seed: int, monkeypatch: pytest.MonkeyPatch, breaks: int) -> RestingWorld:
    world = RestingWorld(seed, breaks=breaks)
    def note_stay(peer: Peer, link: Any) -> None:
        world.refused += 1
        STAY(peer, link)

    monkeypatch.setattr(Peer, "_stay", note_stay)
    monkeypatch.setattr(aemp_gevent.network, "secrets", Nonces(world.dice))
    try:
        world.run()
        world.check()
    except BaseException:
        print(f"seed {seed}, {breaks} breaks\n" + "\n".join(world.log))
        for side in world.sides:
            print(side.node, "received", side.received, side.unmonitored, "sent", side.sent, side.count, side.watching)
            print("  ", side.peer, side.peer._resting, side.peer._links, side.peer._queue)
        for end in world.ends:
            print(end, "to come:", list(end.incoming))
        raise
    finally:
        world.close()
    return world


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaks", "runs"), [pytest.param(0, 1000, id="whole"), pytest.param(1, 1000, id="a-connection-breaks")]
)
def test_links_come_to_rest_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, breaks: int, runs: int) -> None:
    """A seed that failed is printed, with the steps of its run."""
    monkeypatch.setattr(aemp_gevent.local, "Scheduler", InlineScheduler)
    monkeypatch.setattr(logging.getLogger("aemp_gevent"), "disabled", True)
    monkeypatch.setattr(Pulse, "quiet", lambda pulse, link: 1e9)
    seen: Counter[str] = Counter()
    for seed in range(runs):
        world = run(seed, monkeypatch, breaks)
        rests = world.sides[0].rests + world.sides[1].rests
        seen["rests"] += rests
        seen["asked"] += world.sides[0].asked + world.sides[1].asked
        seen["refused"] += world.refused
        seen["links"] += len(world.ends) // 2
        seen["broken"] += world.broken
    print(f"{breaks} breaks: {runs} runs, {dict(seen)}")
    assert seen["rests"] > runs / 2, "the rules were never put to the test"
    assert bool(seen["broken"]) == bool(breaks)
