# SPDX-License-Identifier: MIT
"""Idle links are closed in order: no message is lost or doubled, and nobody has a loss to report.

The first part drives real nodes, peers and links through random interleavings of both sides'
sends, monitors and wishes to rest, as ``test_link_choice.py`` does for links that are
being made. The second uses whole nodes.
"""

from __future__ import annotations

import gc
import logging
import math
import socket
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import gevent
import pytest

import aemp_gevent.links.link
import aemp_gevent.node.node_ports
from aemp_gevent.links.heartbeat import Pulse
from aemp_gevent.node.node import Node
from aemp_gevent.peers.direct_peer import DirectPeer
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.testing.memory_network import MemoryNetwork
from aemp_gevent.testing.processes import NodeProcess
from tests.peers.simulation import IDS, InlineScheduler, Side, World, make_fragments_small
from tests.support.helpers import turns, wait_until
from tests.support.networking import OUR_PROVIDER, WAIT, Deaths, Inbox, MakeNode, RawListener, RawPeer
from tests.support.seams import embedded_of, network_of
from tests.support.thoroughness import repeats, tries

MESSAGES = 8
WISHES = 4
STAY = DirectPeer._stay


class RestingSide(Side):
    """A node whose program sends with and without a monitor, and whose link is idle whenever the schedule says so."""

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.node.reg(self.node.port(lambda *message: self.unmonitored.append(message)), "open")
        self.unmonitored: list[tuple[int]] = []
        self.count = 0
        self.wishes = WISHES
        self.vain_watches = 0
        self.vain_answers = 0
        self.asked = 0
        self.rests = 0
        self.losses = 0
        self.guard: Monitor | None = None
        self.network.listener.link_down = self.went_down  # type: ignore[method-assign]

    def went_down(self, peer: object, reason: tuple[Any, ...], news: list[Any]) -> None:
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

    def watch_nobody(self) -> None:
        self.vain_watches += 1
        self.node.mon(f"{IDS[1 - self.number]}#nobody", self.heard_of_nobody)

    def heard_of_nobody(self, *reason: Any) -> None:
        self.vain_answers += 1

    def __str__(self) -> str:
        return (
            f"{super().__str__()} {self.peer._resting} {self.peer.outbox.packets}\n"
            f"   unmonitored: received {self.unmonitored} sent {self.count}"
        )

    def be_idle(self) -> None:
        self.wishes -= 1
        link = self.peer.link
        assert link is not None
        self.peer._found_idle(link)
        self.asked += self.peer._resting is link


class RestingWorld(World):
    def __init__(self, seed: int, *, breaks: int) -> None:
        super().__init__(seed, seeds=0, breaks=breaks, sessions=3, large=bool(seed % 2))
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
            if side.vain_watches < 3:
                yield ("watch_nobody", side.number), side.watch_nobody
            if side.wishes and side.peer.link is not None and side.peer._can_rest(side.peer.link):
                yield ("be_idle", side.number), side.be_idle

    def weight(self, what: str) -> float:
        if what in ("unwatch", "be_idle"):
            return 10 ** self.dice.uniform(-1, 0)
        return super().weight(what) / (10 if what == "watch" else 1)

    def check(self) -> None:
        for here, there in (self.sides, self.sides[::-1]):
            assert here.vain_answers == here.vain_watches, "a monitor never fired"
            numbers = [number for (number,) in there.unmonitored]
            assert numbers == sorted(set(numbers)), "out of order, or twice"
            for session in range(here.session + 1):
                got = [number for s, number in there.received if s == session]
                assert got == list(range(len(got))), "out of order, twice, or with a hole"
                if session == here.session and here.watching:
                    assert len(got) == here.sent[-1], "lost, and its sender did not notice"
                if not self.broken:
                    assert len(got) == here.sent[session], "lost"
            monitored = {name for name, port in here.peer.ports._ports.items() if port.monitors is not None}
            assert set(there.peer.peer_monitors._monitors) == monitored, "watched for nobody, or not watched"
            if not self.broken:
                assert numbers == list(range(here.count)), "lost"
                assert not here.losses, "a loss was reported, and nothing broke"
        up = [side.peer.link for side in self.sides]
        assert all(side.peer._resting is None for side in self.sides), "a side waits forever"
        if not self.broken:
            assert (up[0] is None) == (up[1] is None), "one side takes for up what the other does not"
            open_ends = [end for end in self.ends if not end.closed]
            assert len(open_ends) == (0 if up[0] is None else 2), "a connection is left"


def run(seed: int, monkeypatch: pytest.MonkeyPatch, breaks: int) -> RestingWorld:
    world = RestingWorld(seed, breaks=breaks)

    def note_stay(peer: DirectPeer, link: Any) -> None:
        world.refused += 1
        STAY(peer, link)

    monkeypatch.setattr(DirectPeer, "_stay", note_stay)
    world.play(f"seed {seed}, {breaks} breaks", monkeypatch)
    return world


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaks", "runs"),
    [pytest.param(0, repeats(100, 150), id="whole"), pytest.param(1, repeats(100, 150), id="a-connection-breaks")],
)
def test_links_come_to_rest_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, breaks: int, runs: int) -> None:
    """A seed that failed is printed, with the steps of its run."""
    monkeypatch.setattr(aemp_gevent.node.node_ports, "Scheduler", InlineScheduler)
    monkeypatch.setattr(aemp_gevent.links.link, "SLICE_SECONDS", math.inf)  # the loop has no turns here
    monkeypatch.setattr(logging.getLogger("aemp_gevent"), "disabled", True)
    monkeypatch.setattr(Pulse, "idle_seconds", lambda pulse, link: 1e9)
    make_fragments_small(monkeypatch)
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
    assert seen["refused"] > runs / 4, "nobody ever objected"
    assert bool(seen["broken"]) == bool(breaks)


# --- with whole nodes ---------------------------------------------------------------------

QUICK = {"idle_timeout": 0.2, "heartbeat_interval": 0.05}


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(seed=4) as network:
        yield network


class Changes:
    """What ``mon_nodes`` tells."""

    def __init__(self, node: Node) -> None:
        self.all: list[tuple[Any, ...]] = []
        node.mon_nodes(lambda *change: self.all.append(change))


@pytest.mark.slow
def test_idle_link_is_closed_in_order_and_made_again_on_demand(make_node: MakeNode) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    ours, theirs = Inbox(one), Inbox(two)
    changes, other_changes = Changes(one), Changes(two)
    for number in range(3):
        one.snd(theirs, number)
        wait_until(lambda: len(theirs.messages) == number + 1)  # noqa: B023
        wait_until(lambda: one.up_nodes() == two.up_nodes() == [])
        two.snd(ours, number)
        wait_until(lambda: len(ours.messages) == number + 1)  # noqa: B023
        wait_until(lambda: one.up_nodes() == two.up_nodes() == [])
    for seen, node in ((changes, two), (other_changes, one)):
        expected = [(node.NODE(), True), (node.NODE(), False, "idle", node.NODE())] * 6
        wait_until(lambda: seen.all == expected, show=lambda: seen.all)  # noqa: B023
    assert [message for (message,) in theirs.messages + ours.messages] == [0, 1, 2] * 2


def test_both_sides_may_find_a_link_idle_at_the_same_moment(network: MemoryNetwork) -> None:
    one, two = network.node(), network.node()
    inbox = Inbox(two)
    one.snd(inbox, "hello")
    wait_until(lambda: inbox.messages and two.up_nodes())
    network.delay(one, two, 0.05)
    for here, there in ((one, two), (two, one)):
        peer = network_of(here).peer(there.NODE())
        peer._found_idle(peer.link)
        assert peer._resting is not None
    wait_until(lambda: one.up_nodes() == two.up_nodes() == [])


def kept_by_monitor(one: Node, two: Node) -> object:
    return one.mon(Inbox(two), Deaths())


def kept_by_monitor_of_the_node(one: Node, two: Node) -> object:
    return one.mon(two.NODE(), Deaths())


def kept_by_spawned_port(one: Node, two: Node) -> object:
    return one.spawn(two.NODE(), "tests.support.node_functions.note")


def kept_by_the_network(one: Node, two: Node) -> object:
    return network_of(one).keep(two.NODE())


@pytest.mark.slow
@pytest.mark.parametrize(
    "need", [kept_by_monitor, kept_by_monitor_of_the_node, kept_by_spawned_port, kept_by_the_network]
)
@pytest.mark.parametrize("swapped", [False, True])
def test_link_that_somebody_needs_stays(
    make_node: MakeNode, need: Callable[[Node, Node], object], swapped: bool
) -> None:
    """Whichever side needs it: the other one alone would let it rest."""
    one, two = (make_node(**QUICK, allow_spawn=["tests.*"]) for _ in range(2))
    inbox = Inbox(two)
    one.snd(inbox, "hello")
    wait_until(lambda: one.up_nodes() and two.up_nodes())
    need(*((two, one) if swapped else (one, two)))
    changes = Changes(one)
    peers = [network_of(here).peer(there.NODE()) for here, there in ((one, two), (two, one))]
    links = [peer.link for peer in peers]
    assert all(links)
    # Long enough for several requests to rest, each of which begins a new idle time.
    beats = [link.keep_alives for link in links]
    wait_until(lambda: all(link.keep_alives >= count + 12 for link, count in zip(links, beats, strict=True)))
    assert changes.all == []
    wait_until(lambda: [peer.link for peer in peers] == links)


@pytest.mark.slow
def test_link_is_closed_once_nobody_needs_it_any_more(make_node: MakeNode) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    guard = one.mon(Inbox(two), Deaths())
    wait_until(lambda: one.up_nodes() and two.up_nodes())
    guard.cancel()
    wait_until(lambda: one.up_nodes() == two.up_nodes() == [])


def test_link_that_was_closed_is_gone_without_a_collection(make_node: MakeNode) -> None:
    one, two = make_node(**QUICK), make_node(**QUICK)
    one.snd(Inbox(two), "hello")
    wait_until(lambda: one.up_nodes() and two.up_nodes())
    link = weakref.ref(network_of(one).peer(two.NODE()).link)
    gc.disable()
    try:
        wait_until(lambda: link() is None)
    finally:
        gc.enable()


@pytest.mark.slow
def test_links_stay_if_one_side_says_never(make_node: MakeNode) -> None:
    one, two = make_node(**QUICK), make_node(idle_timeout=None, heartbeat_interval=0.05)
    one.snd(Inbox(two), "hello")
    wait_until(lambda: one.up_nodes() and two.up_nodes())
    peer = network_of(one).peer(two.NODE())
    link = peer.link
    wait_until(lambda: link.keep_alives > 12)
    wait_until(lambda: peer.link is link and one.up_nodes() and two.up_nodes())


@pytest.mark.slow
def test_links_to_other_programs_and_to_nodes_nobody_can_find_stay(make_node: MakeNode) -> None:
    """They know nothing of rest, or could not be dialled again."""
    node = make_node(**QUICK)
    for name, extras in (("127.0.0.1:9", (("heartbeat", "15"),)), ("some/name", (*OUR_PROVIDER, ("heartbeat", "15")))):
        with RawPeer.dial(node, name, extras=extras).shake() as peer:
            beats = 0
            while beats < 12:
                peer._feed(peer._read())
                assert all(packet == [] for packet in peer._packets)
                beats += len(peer._packets)
                peer._packets.clear()
            peer.send(["", "idle"])
            if extras[0] == OUR_PROVIDER[0]:
                assert peer.packet() == ["", "stay"]
            assert peer.answers()


def test_peer_that_asks_for_rest_is_refused_while_there_are_messages(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        peer.send(["", "idle"])
        assert peer.packet() == ["", "stay"]
        assert peer.answers()
        peer.send(["", "stay"])  # late, or said for nothing
        assert peer.answers()
        peer.send(["", "idle", "and", "more"])
        assert peer.packet() == ["", "stay"]


@pytest.mark.slow
def test_connection_that_comes_before_the_link_is_at_rest_waits_for_that(make_node: MakeNode) -> None:
    """What comes over it must not overtake what was sent before; and it must not be refused as a newcomer."""
    node = make_node(**QUICK)
    inbox = Inbox(node)
    name = inbox.port.partition("#")[2]
    extras = (*OUR_PROVIDER, ("heartbeat", "15"), ("uniq", "one process"))
    with RawPeer.dial(node, extras=extras).shake() as old, RawPeer.dial(node, extras=extras) as new:
        assert old.packet() == ["", "idle"]
        new.greet()
        new.sock.sendall(new.handshake.prove())
        old.send([name, "first"])
        wait_until(lambda: inbox.messages == [("first",)])
        turns(20)
        new.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            new.sock.recv(1)  # the node proves nothing yet
        new.sock.settimeout(WAIT)
        old.sock.shutdown(socket.SHUT_WR)
        while not new.handshake.is_open:
            new.handshake.receive(new._read())
        new.send([name, "second"])
        wait_until(lambda: inbox.messages == [("first",), ("second",)])
        assert old.closed()


@pytest.mark.slow
@pytest.mark.parametrize("is_sender", [False, True])
def test_link_with_messages_in_one_direction_is_not_idle(make_node: MakeNode, is_sender: bool) -> None:
    node = make_node(**{**QUICK, "idle_timeout": 0.6})  # a busy machine delays a message by less
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=(*OUR_PROVIDER, ("heartbeat", "15"))).shake() as peer:
        deadline = monotonic() + 1.5
        count = 0
        while monotonic() < deadline:
            count += 1
            if is_sender:
                node.snd(f"{peer.name}#x", count)
                assert peer.packet() == ["x", count]
            else:
                peer.send([str(inbox).partition("#")[2], count])
                wait_until(lambda: len(inbox.messages) == count)  # noqa: B023
            gevent.sleep(0.02)  # a message so often is what is tested
            assert network_of(node).peer(peer.name)._resting is None
        assert peer.packet() == ["", "idle"]


def test_connection_that_fails_while_the_link_comes_to_rest_is_not_news(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    died = Deaths()
    extras = (*OUR_PROVIDER, ("heartbeat", "15"))
    with RawListener() as listener, RawPeer.dial(node, listener.id, extras=extras).shake() as peer:
        assert peer.packet() == ["", "idle"]
        node.mon(f"{peer.name}#x", died)
        network_of(node).peer(peer.name).attempt_failed("a seed's address was wrong")
        peer.sock.shutdown(socket.SHUT_WR)
        with listener.accept(extras=extras).shake() as again:
            assert again.packet() == ["", "mon1", "x"]
            assert died.count == 0


@pytest.mark.slow
def test_shutdown_while_a_link_comes_to_rest_is_one(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=(*OUR_PROVIDER, ("heartbeat", "15"))).shake() as peer:
        died = Deaths()
        assert peer.packet() == ["", "idle"]
        peer.send(["", "mon1", str(inbox).partition("#")[2]])
        node.mon(f"{peer.name}#x", died)  # waits for the answer
        peer.send(["", "bye"])
        assert died.wait() == ("shutdown", peer.name)


@pytest.mark.slow
def test_node_that_shuts_down_while_it_waits_for_the_answer_says_so(make_node: MakeNode) -> None:
    node = make_node(**QUICK)
    with RawPeer.dial(node, extras=(*OUR_PROVIDER, ("heartbeat", "15"))).shake() as peer:
        assert peer.packet() == ["", "idle"]
        node.shutdown(0.1)
        assert peer.packet() == ["", "bye"]


def test_monitor_that_is_set_while_the_link_comes_to_rest_is_set(network: MemoryNetwork) -> None:
    one, two = network.node(), network.node()
    inbox = Inbox(two)
    one.snd(inbox, 1)
    wait_until(lambda: two.up_nodes() and inbox.messages)
    peer, other = network_of(one).peer(two.NODE()), network_of(two).peer(one.NODE())
    for agrees in (True, False):
        if not agrees:
            two.mon(Inbox(one), Deaths())
        died, down = Deaths(), Deaths()
        other._host.pulse._hearts[other.link].idle_seconds = 1e9
        peer._send_idle(peer.link)
        guard, node_guard = one.mon(inbox, died), one.mon(two.NODE(), down)
        one.snd(inbox, 2)
        wait_until(lambda: inbox.messages[-1] == (2,) and one.up_nodes() and two.up_nodes())
        assert died.count == down.count == 0
        inbox.messages.clear()
        victim, died = Inbox(two), Deaths()
        one.mon(victim, died)
        one.snd(victim, "are you there?")
        wait_until(lambda: victim.messages)  # noqa: B023
        two.kil(victim, "really")
        assert died.wait() == ("really",)
        guard.cancel()
        node_guard.cancel()
        one.snd(inbox, 1)
        wait_until(lambda: inbox.messages)


class Flow:
    """Messages from one node to another: bursts, with pauses in which the link may come to rest."""

    def __init__(self, source: Node, target: Node) -> None:
        self.source = source
        self.inbox = Inbox(target)
        self.sent = 0
        self.guard: Any = None
        self.died = Deaths()

    def burst(self, count: int, *, watched: bool) -> None:
        if watched and self.guard is None and not self.died.count:
            self.guard = self.source.mon(self.inbox, self.died)
        elif not watched and self.guard is not None:
            self.guard.cancel()
            self.guard = None
        for _ in range(count):
            self.source.snd(self.inbox, self.sent)
            self.sent += 1

    @property
    def got(self) -> list[int]:
        return [number for (number,) in self.inbox.messages]


def left_of(node: Node) -> list[Any]:
    """Return what keeps the links of a node."""
    return [
        (
            peer,
            peer._resting,
            peer._links,
            peer.ports.need_a_link,
            peer.peer_monitors.are_any,
            network_of(node).pulse.idle_seconds(link),
        )
        for peer in network_of(node).peers.values()
        if (link := peer.link or peer._resting) is not None
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(tries(1, 3)))
@pytest.mark.parametrize("cuts", [False, True])
def test_nodes_whose_links_come_and_go_lose_nothing_without_a_word(seed: int, cuts: bool) -> None:
    settings = {"idle_timeout": 0.04, "heartbeat_interval": 0.02, "heartbeat_timeout": 5, "monitor_timeout": 10}
    with MemoryNetwork(seed, latency=0.002, jitter=0.01, skew=0.02, split=0.3, time="virtual") as network:
        dice = network.dice
        nodes = [network.node(**settings) for _ in range(4)]
        changes = [Changes(node) for node in nodes]
        flows = [Flow(source, target) for source in nodes for target in nodes if source is not target]
        for _ in range(200):
            flow = dice.choice(flows)
            flow.burst(dice.randrange(1, 5), watched=dice.random() < 0.2)
            linked = [(one, two) for one in nodes for two in nodes if one.node_is_up(two.NODE()) and one is not two]
            if cuts and linked and dice.random() < 0.05:
                network.cut(*dice.choice(linked))
            gevent.sleep(dice.choice([0, 0.002, 0.02, 0.06]))  # the case that is tested depends on when they send
        rests = sum(change[1:3] == (False, "idle") for seen in changes for change in seen.all)
        losses = [change for seen in changes for change in seen.all if not change[1] and change[2] != "idle"]
        print(f"seed {seed}: {sum(flow.sent for flow in flows)} messages, {rests} rests, {len(losses)} losses")
        assert rests > 10
        for flow in flows:
            if cuts:
                if flow.guard is not None:
                    wait_until(lambda: flow.died.count or flow.got[-1:] == [flow.sent - 1])  # noqa: B023
                assert flow.got == sorted(set(flow.got)), "out of order, or twice"
            else:
                wait_until(lambda: flow.got == list(range(flow.sent)), within=10)  # noqa: B023
                assert flow.died.count == 0
        assert bool(losses) == cuts
        for flow in flows:
            if flow.guard is not None:
                flow.guard.cancel()
        wait_until(
            lambda: not any(node.up_nodes() for node in nodes),
            within=20,
            show=lambda: [left_of(node) for node in nodes],
        )


@pytest.mark.slow
def test_processes_let_their_link_rest_and_make_it_again() -> None:
    with NodeProcess(**QUICK) as one, NodeProcess(**QUICK) as two:
        one.run("def keep(*message): got.append(message)\ngot = []\ninbox = mp.port(keep)")
        inbox = one.run("inbox")
        for number in range(3):
            two.run("mp.snd(inbox, number)", inbox=inbox, number=number)
            wait_until(lambda: one.run("len(got)") == number + 1, within=20)  # noqa: B023
            wait_until(lambda: one.run("mp.up_nodes()") == two.run("mp.up_nodes()") == [], within=20)
        assert one.run("got") == [(0,), (1,), (2,)]


# --- what comes to mind while a link comes to rest ---


def send_idle(here: Node, there: Node, *, agrees: bool) -> None:
    """Ask for rest; the other side agrees if it has nothing to say by then."""
    peer, other = network_of(here).peer(there.NODE()), network_of(there).peer(here.NODE())
    other._host.pulse._hearts[other.link].idle_seconds = 1e9 if agrees else 0.0
    assert peer._can_rest(peer.link)
    peer._send_idle(peer.link)


@pytest.mark.slow
@pytest.mark.parametrize("agrees", [False, True])
@pytest.mark.parametrize("asks", ["master", "public"])
@pytest.mark.parametrize("sends", ["slave", "public"])
def test_virtual_link_is_made_over_a_link_that_comes_to_rest(
    network: MemoryNetwork, sends: str, asks: str, agrees: bool
) -> None:
    master, public = network.node(), network.node()
    slave = network.node("slave/one", master.NODE())
    nodes = {"master": master, "public": public, "slave": slave}
    hello, inbox = Inbox(master), Inbox(nodes["public" if sends == "slave" else "slave"])
    public.snd(hello)
    wait_until(lambda: hello.messages and public.up_nodes() and master.NODE() in slave.up_nodes())
    network.delay(master, public, 0.02)
    send_idle(nodes[asks], nodes["public" if asks == "master" else "master"], agrees=agrees)
    died = Deaths()
    nodes[sends].mon(inbox, died)
    nodes[sends].snd(inbox, "in time")
    wait_until(lambda: inbox.messages == [("in time",)] or died.count)
    assert died.count == 0


@pytest.mark.slow
def test_directory_is_updated_over_a_link_that_comes_to_rest(network: MemoryNetwork) -> None:
    seeds = ("10.9.0.1:4040", "10.9.0.2:4040")
    settings = {"heartbeat_interval": 0.5, "heartbeat_timeout": 5.0}
    both = [network.node(seed, *seeds, **settings) for seed in seeds]
    node = network.node(None, *seeds, **settings)
    assert node is not None
    node.db_set("family", "key", "value")
    for seed in both:
        wait_until(lambda seed=seed: seed.db_family("family") == {"key": "value"})
    former = next(seed for seed in both if seed.NODE() == embedded_of(node)._client.master.node)
    other = next(seed for seed in both if seed is not former)
    wait_until(lambda: node.NODE() in other.up_nodes())
    network.delay(other, node, 0.05)
    send_idle(other, node, agrees=False)
    former.shutdown(0.0)
    client = embedded_of(node)._client
    wait_until(lambda: client.master is not None and client.master.node == other.NODE())
    assert network_of(other).peer(node.NODE()).is_resting  # or else this shows nothing
    wait_until(lambda: other.db_family("family") == {"key": "value"})
    seen: list[Any] = []
    node.db_mon("family", lambda entries, *_changes: seen.append(dict(entries)))
    wait_until(lambda: seen == [{"key": "value"}])
