# SPDX-License-Identifier: MIT
"""Large messages leave in fragments, and what is small or urgent passes between them; no port notices."""

from __future__ import annotations

import random
import struct
import tracemalloc
from typing import Any

import gevent
import pytest
from gevent import socket

from aemp_gevent.errors import LinkBusyError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.links import backlog_transport, heartbeat
from aemp_gevent.links.backlog_transport import BacklogTransport
from aemp_gevent.node.node import Node
from aemp_gevent.testing import MemoryNetwork
from aemp_gevent.wire import fragments
from aemp_gevent.wire.fragments import FRAGMENT_BYTES, Assembler
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.limits import Limits
from tests.peers.slave_nodes import Place
from tests.support.helpers import turns, wait_until
from tests.support.networking import (
    OUR_PROVIDER,
    UNIQUE,
    Deaths,
    Inbox,
    MakeNode,
    RawPeer,
    name_of,
    reset,
    two_connections,
)
from tests.support.seams import network_of
from tests.support.striking import from_afar
from tests.support.thoroughness import tries

PEER = "127.0.0.1:9"
READS: Any = (*OUR_PROVIDER, ("fragments", "1"))
"""What a peer says that takes fragments."""

LARGE = b"x" * 1_000_000

BULK, PING = UNIQUE + "1", UNIQUE + "2"
"""Two of its ports."""

encode = FRAMINGS["msgpack"].encoder()


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nearly every message a large one."""
    monkeypatch.setattr(fragments, "FRAGMENT_BYTES", 50)
    monkeypatch.setattr(fragments, "WHOLE_BYTES", 150)
    monkeypatch.setattr(backlog_transport, "AHEAD_BYTES", 60)


def link_with(node: Node, peer: str = PEER) -> Any:
    return network_of(node).peers[peer].link


def names_until(peer: RawPeer, last: object) -> list[Any]:
    """Return the names of packets, with None for each fragment, until a message or request with this argument came."""
    assembler, names = Assembler(Limits(2**26)), []
    while True:
        packet: Any = peer.packet()
        if packet[0] is None:
            names.append(None)
            packet = assembler.feed(packet[1:])
            if packet is None:
                continue
        names.append(packet[0] or packet[1])
        if last in packet:
            return names


# --- what passes, and what waits -----------------------------------------------------------------


def test_small_message_to_another_port_passes_a_large_one(node: Node) -> None:
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.snd(f"{PEER}#{BULK}", LARGE)
        node.snd(f"{PEER}#{BULK}", "behind")
        node.snd(f"{PEER}#{PING}", "now")
        assert node.up_nodes() == [PEER]
        names = names_until(peer, "behind")
        assert names.count(None) == -(-len(LARGE) // FRAGMENT_BYTES)
        assert [name for name in names if name] == [PING, BULK, BULK]
        assert not isinstance(link_with(node).transport, BacklogTransport), "nothing is left of it"


def test_long_byte_string_is_not_copied_while_it_waits(node: Node) -> None:
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.snd(f"{PEER}#{BULK}", "tag", LARGE, 1)
        [waiting] = link_with(node).transport.backlog.packets
        assert waiting.data.parts[1] is LARGE
        names_until(peer, LARGE)


def test_small_message_passes_a_gigantic_one_that_the_system_does_not_take_at_once(node: Node) -> None:
    size = 30_000_000
    with RawPeer.dial(node, extras=READS).shake() as peer:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        sender = gevent.spawn(node.snd, f"{PEER}#{BULK}", bytes(size))
        wait_until(lambda: isinstance(link_with(node).transport, BacklogTransport))
        turns(50)
        assert link_with(node).transport.inner.buffered < 3 * FRAGMENT_BYTES
        node.snd(f"{PEER}#{PING}", "now")  # which is not paused, although 4 MiB are exceeded
        assert not sender.ready()
        names = names_until(peer, "now")
        left = link_with(node).transport.backlog.size
        assert left > size // 3, "it came before most of the large one"
        assert names.count(None) < size // FRAGMENT_BYTES


def test_kills_and_the_news_of_deaths_wait_for_what_was_sent_before_and_watches_pass(node: Node) -> None:
    own, asked = node.port(lambda *_: None), node.port(lambda *_: None)
    with RawPeer.dial(node, extras=READS).shake() as peer:
        peer.send(["", "mon1", name_of(own)])
        assert peer.answers()
        node.snd(f"{PEER}#{BULK}", LARGE)
        node.mon(f"{PEER}#{BULK}", print)
        node.kil(f"{PEER}#{BULK}", "reason")
        node.mon(f"{PEER}#{PING}", print)
        node.kil(own, "it died")
        node.snd(f"{PEER}#{PING}", "passes")
        peer.send(["", "mon1", name_of(asked)], ["", "time", f"{PEER}#time", "the time"])
        names = [name for name in names_until(peer, name_of(own)) if name]
        assert names[:3] == ["mon1", "mon1", PING]
        assert [name for name in names if name not in (PING, "time")] == ["mon1", "mon1", BULK, "kil1", "kil0"]


def test_what_is_for_a_name_that_a_program_chose_waits_for_all_and_all_ports_wait_for_it(node: Node) -> None:
    """Any port may have it as a second name, except one that was spawned just now."""
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.snd(f"{PEER}#{BULK}", LARGE)
        node.snd(f"{PEER}#a-name", "waits")
        node.snd(f"{PEER}#{PING}", "waits as well")
        node.kil(f"{PEER}#a-name", "over")
        node.spawn(PEER, "some.function")
        assert [name for name in names_until(peer, "over") if name] == [
            "AnyEvent::MP::_spawn", "mon1", BULK, "a-name", PING, "kil1"
        ]  # fmt: skip
        node.snd(f"{PEER}#a-name", LARGE)
        node.snd(f"{PEER}#another-name", "waits")
        node.snd(f"{PEER}#{PING}", "waits as well")
        node.snd(PEER, "devnull")
        assert [name for name in names_until(peer, "waits as well") if name] == [
            "devnull", "a-name", "another-name", PING
        ]  # fmt: skip


def test_port_gets_all_in_order_by_its_registered_name_and_by_its_id(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox, died = Inbox(two), Deaths()
    two.reg(inbox.port, "service")
    two.mon(inbox.port, lambda *reason: died(*reason, len(inbox.messages)))
    service = f"{two.NODE()}#service"
    one.snd(inbox, 0)
    wait_until(lambda: inbox.messages)
    for number, port in enumerate([service, inbox.port, inbox.port, service, service], start=1):
        one.snd(port, number, LARGE if number % 2 else b"")
    one.kil(inbox.port, "over")
    assert died.wait() == ("over", 6)
    assert [message[0] for message in inbox.messages] == list(range(6))


def test_spawn_is_whole_so_that_others_may_know_of_the_port_at_once(node: Node) -> None:
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.snd(f"{PEER}#{BULK}", LARGE)
        port = node.spawn(PEER, "some.function", LARGE)
        node.snd(f"{PEER}#{PING}", port)
        assert names_until(peer, LARGE) == ["AnyEvent::MP::_spawn"]
        assert names_until(peer, port) == ["mon1", PING]


def test_call_in_fragments_holds_up_calls_of_the_same_port_only(node: Node) -> None:
    with RawPeer.dial(node, extras=READS).shake() as peer:
        waiting = [
            gevent.spawn(node.call, f"{PEER}#{port}", tag, load, timeout=1)
            for port, tag, load in ((BULK, "a", LARGE), (BULK, "b", 0), (PING, "c", 0))
        ]
        calls = []
        assembler = Assembler(Limits(2**26))
        while len(calls) < 3:
            packet: Any = peer.packet()
            if packet[0] is None:
                packet = assembler.feed(packet[1:]) or []
            if packet[:2] == ["", "call"]:
                calls.append(packet[4])
        assert calls == ["c", "a", "b"]
        gevent.killall(waiting)


def test_older_peer_gets_everything_whole_and_in_order(node: Node) -> None:
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        node.snd(f"{PEER}#large", LARGE)
        node.snd(f"{PEER}#small", "now")
        assert peer.packet() == ["large", LARGE]
        assert peer.packet() == ["small", "now"]


@pytest.mark.parametrize("framing", ["json", "cbor"])
def test_in_other_framings_everything_is_whole(node: Node, framing: str) -> None:
    if framing not in FRAMINGS:
        pytest.skip("cbor2 is not installed")
    with RawPeer.dial(node, framing=framing, extras=READS).shake() as peer:
        node.snd(f"{PEER}#large", "x" * 1_000_000)
        node.snd(f"{PEER}#small", "now")
        assert peer.packet()[0] == "large"
        assert peer.packet() == ["small", "now"]


def test_packets_are_counted_and_not_their_fragments(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    one.snd(inbox, "first")
    wait_until(lambda: inbox.messages)
    ours, theirs = link_with(one, two.NODE()), link_with(two, one.NODE())
    sent, received = ours.sent_packets, theirs.received_packets
    for _ in range(3):
        one.snd(inbox, LARGE)
    written = ours.written
    wait_until(lambda: len(inbox.messages) == 4)
    assert ours.sent_packets - sent == theirs.received_packets - received == 3
    assert ours.written == written, "how much will be sent was known at once"
    assert theirs.received == written


def test_number_of_packets_does_not_become_smaller_while_fragments_leave(node: Node) -> None:
    with RawPeer.dial(node, extras=READS).shake() as peer:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        node.snd(f"{PEER}#p", "one")
        assert peer.packet() == ["p", "one"]
        assert link_with(node).sent_packets == 1
        sender = gevent.spawn(node.snd, f"{PEER}#p", bytes(30_000_000))
        wait_until(lambda: isinstance(link_with(node).transport, BacklogTransport))
        turns(50)
        assert link_with(node).sent_packets == 1
        names_until(peer, bytes(30_000_000))
        sender.get(timeout=10)
        assert link_with(node).sent_packets == 2


# --- the order of each port, in random mixes ------------------------------------------------------


class Mix:
    """A node that sends to some ports of another, and what arrives there."""

    def __init__(self, node: Node, other: Node, *, threads: bool = True) -> None:
        self.node = node
        self.threads = threads
        arrived: list[list[int]] = [[] for _ in range(4)]
        self.ports = [other.port(lambda number, _load, numbers=numbers: numbers.append(number)) for numbers in arrived]
        self.arrived = dict(zip(self.ports, arrived, strict=True))
        self.addresses = {port: (port, f"{port}-by-name") for port in self.ports}
        for port, (_, alias) in self.addresses.items():
            other.reg(port, alias.partition("#")[2])
        self.sent: dict[str, list[int]] = {port: [] for port in self.ports}

    def send(self, dice: random.Random, number: int) -> None:
        port = dice.choice(self.ports)
        self.sent[port].append(number)
        message = (dice.choice(self.addresses[port]), number, "x" * dice.choice((0, 0, 40, 200, 1000)))
        if self.threads and dice.random() < 0.1:
            from_afar(self.node.snd, *message)
        else:
            self.node.snd(*message)

    def check(self) -> None:
        wait_until(lambda: self.arrived == self.sent, show=lambda: (self.arrived, self.sent))


@pytest.mark.usefixtures("tiny")
def test_each_port_gets_its_messages_in_order(make_node: MakeNode) -> None:
    one, two = make_node(high_water_bytes=2000), make_node()
    there, back = Mix(one, two, threads=False), Mix(two, one)  # a thread that is paused would block us
    for _ in range(tries(10, 200)):
        seed = random.randrange(2**32)
        dice = random.Random(seed)
        print("seed", seed)
        for number in range(100):
            dice.choice((there, back)).send(dice, number)
            if dice.random() < 0.1:
                turns(1)
        there.check()
        back.check()


@pytest.mark.usefixtures("open_scheduler")
def test_nothing_is_lost_when_a_finalizer_sends_a_large_message_meanwhile(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    one.snd(inbox, b"", "first")
    wait_until(lambda: inbox.messages)
    start_timer = one.scheduler.start_timer

    def start(*args: Any) -> Any:
        monkeypatch.undo()
        one.snd(inbox, LARGE, "of the finalizer")
        return start_timer(*args)

    monkeypatch.setattr(one.scheduler, "start_timer", start)
    one.snd(inbox, LARGE, "second")
    one.snd(inbox, b"", "third")
    wait_until(lambda: len(inbox.messages) == 4)
    assert [number for _load, number in inbox.messages] == ["first", "of the finalizer", "second", "third"]


@pytest.mark.usefixtures("tiny")
def test_what_waited_for_the_link_is_in_order_as_well(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    mix = Mix(one, two)
    dice = random.Random(7)
    for number in range(100):
        mix.send(dice, number)
    assert not one.up_nodes()
    mix.check()


@pytest.mark.usefixtures("tiny")
def test_slaves_get_their_messages_in_order() -> None:
    with MemoryNetwork() as network:
        place = Place(network)
        mixes = [Mix(place.s1, place.s2), Mix(place.s1, place.m1), Mix(place.public, place.s1), Mix(place.s3, place.s1)]
        dice = random.Random(7)
        for number in range(200):
            dice.choice(mixes).send(dice, number)
            if dice.random() < 0.1:
                turns(1)
        for mix in mixes:
            mix.check()


@pytest.mark.usefixtures("tiny")
def test_calls_deaths_and_spawns_work_as_ever(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    server = two.serve(two.port(), echo=lambda value: value)
    for size in (1, 300, 1, 3000):
        assert one.call(server, "echo", "x" * size) == "x" * size
    inbox, died = Inbox(one), Deaths()
    last = two.port(lambda: [two.snd(inbox, number, "x" * 5000) for number in range(3)] and None)
    one.mon(last, lambda *reason: (inbox.messages.append(reason), died(*reason)))
    one.snd(last)
    one.snd(last)
    one.kil(last, "over")
    assert died.wait() == ("over",)
    assert [message[0] for message in inbox.messages] == [0, 1, 2, 0, 1, 2, "over"]


# --- limits, and the end of links --------------------------------------------------------------------


def test_message_that_is_too_large_is_refused_where_it_is_sent(make_node: MakeNode) -> None:
    node = make_node(max_message_bytes=500_000)
    with RawPeer.dial(node, extras=READS).shake() as peer:
        with pytest.raises(MessageTooLargeError):
            node.snd(f"{PEER}#p", LARGE)
        node.snd(f"{PEER}#p", LARGE[:400_000])
        assert names_until(peer, LARGE[:400_000]) == [None] * 7 + ["p"]


def test_senders_of_large_messages_are_paused(make_node: MakeNode) -> None:
    node = make_node(high_water_bytes=500_000)
    begun = 0

    def send() -> None:
        nonlocal begun
        for _ in range(100):
            begun += 1
            node.snd(f"{PEER}#p", LARGE)

    with RawPeer.dial(node, extras=READS).shake() as peer:
        sender = gevent.spawn(send)

        def stands_still() -> bool:
            before = begun
            turns(20)
            return 0 < begun == before < 100

        wait_until(stands_still)
        assert network_of(node).peers[PEER].unsent < 2_000_000
        for _ in range(100):
            names_until(peer, LARGE)
        sender.get(timeout=10)


def test_snd_nowait_sends_what_passes_and_refuses_what_would_wait(node: Node) -> None:
    with RawPeer.dial(node, extras=READS).shake() as peer:
        sender = gevent.spawn(node.snd, f"{PEER}#{BULK}", bytes(30_000_000))
        wait_until(lambda: isinstance(link_with(node).transport, BacklogTransport))
        for port, load in ((BULK, "small"), (PING, LARGE), ("a-name", "small")):
            with pytest.raises(LinkBusyError):
                node.snd_nowait(f"{PEER}#{port}", load)
        node.snd_nowait(f"{PEER}#{PING}", "now")
        assert PING in names_until(peer, "now")
        assert not sender.ready()
        reset(peer)
        sender.get(timeout=10)


def test_small_messages_that_pass_are_paused_as_well_once_they_are_many(make_node: MakeNode) -> None:
    node = make_node(high_water_bytes=500_000)
    with RawPeer.dial(node, extras=READS).shake() as peer:
        bulk = gevent.spawn(lambda: [node.snd(f"{PEER}#{BULK}", LARGE) for _ in range(20)])
        wait_until(lambda: isinstance(link_with(node).transport, BacklogTransport))
        small = gevent.spawn(lambda: [node.snd(f"{PEER}#{PING}", bytes(10_000)) for _ in range(2000)])
        wait_until(lambda: network_of(node).peers[PEER].unsent > 1_000_000)
        turns(50)
        assert not (bulk.ready() or small.ready())
        assert network_of(node).peers[PEER].unsent < 500_000 + 1_000_000 + 250_000 + 200_000
        reset(peer)
        gevent.joinall([bulk, small], timeout=10, raise_error=True)


def test_link_that_is_lost_within_a_message_delivers_none_of_it(node: Node) -> None:
    inbox, died = Inbox(node), Deaths()
    data = encode([name_of(inbox), LARGE])
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.mon(f"{PEER}#p", died)
        peer.send([None, data[:500_000]], [name_of(inbox), "between"])
        wait_until(lambda: inbox.messages)
        reset(peer)
        died.wait()
    with RawPeer.dial(node, extras=READS).shake() as peer:
        peer.send([None, data[500_000:]])
        assert peer.closed()
    assert inbox.messages == [("between",)]


def test_loss_of_the_link_is_reported_to_the_sender_of_half_a_message(node: Node) -> None:
    died = Deaths()
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.mon(f"{PEER}#p", died)
        sender = gevent.spawn(node.snd, f"{PEER}#p", bytes(30_000_000))
        while peer.packet()[0] is not None:
            pass
        reset(peer)
        assert died.wait()[0] == "transport_error"
        sender.get(timeout=10)


def test_shutdown_sends_large_messages_to_their_end(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox, died = Inbox(two), Deaths()
    two.mon(one.NODE(), died)
    one.snd(inbox, bytes(20_000_000))
    one.snd(inbox, "last")
    one.shutdown()
    assert died.wait() == ("shutdown", one.NODE())
    assert [len(message[0]) for message in inbox.messages] == [20_000_000, 4]


def test_link_that_moves_sends_large_messages_to_their_end_first(node: Node) -> None:
    """What is sent on the other connection waits for all bytes of this one, and must know how many there will be."""
    first, second = two_connections(node, extras=(("fragments", "1"),))
    with first, second:
        wait_until(node.up_nodes)
        link = link_with(node)
        by_nonce = {peer.nonce: peer for peer in (first, second)}
        sending = by_nonce.pop(link.peer_nonce)
        (other,) = by_nonce.values()
        link.send(["p", LARGE])
        written = link.written
        link.finish()
        names = names_until(sending, LARGE)
        assert names.count(None) == -(-len(LARGE) // FRAGMENT_BYTES)
        assert link.transport.sent == written
        assert sending.closed()
        other.close()


# --- hostile peers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        pytest.param([None], "a fragment with 0 elements", id="nothing"),
        pytest.param([None, "text"], "instead of bytes", id="text"),
        pytest.param([None, b""], "an empty fragment", id="empty"),
        pytest.param([None, encode(["p"]) * 2], "does not end where its packet ends", id="two"),
        pytest.param([None, encode([None, b"x"])], "whose port name is", id="fragment-in-a-fragment"),
        pytest.param([None, b"\xc1"], "not msgpack", id="nonsense"),
        pytest.param([None, b"\xdd\x7f\xff\xff\xff"], "max_array_len", id="announced"),
    ],
)
def test_wrong_fragment_costs_its_sender_the_link(node: Node, sent: Any, why: str) -> None:
    died = Deaths()
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.mon(f"{PEER}#p", died)
        peer.send(sent)
        assert why in died.wait()[2]
        assert peer.closed()


def test_fragments_of_a_peer_that_did_not_offer_them_are_refused(node: Node) -> None:
    inbox, died = Inbox(node), Deaths()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        node.mon(f"{PEER}#p", died)
        peer.send([None, encode([name_of(inbox), 1])])
        assert "whose port name is" in died.wait()[2]
    assert inbox.messages == []


def test_endless_message_is_refused_at_the_limit(make_node: MakeNode) -> None:
    node, died = make_node(max_message_bytes=300_000), Deaths()
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.mon(f"{PEER}#p", died)
        peer.send([None, b"\x92\xa1p\xc6" + struct.pack(">I", 2**31)], *([None, bytes(50_000)] for _ in range(7)))
        assert "more than 300000 bytes" in died.wait()[2]


def test_message_that_is_not_continued_costs_its_sender_the_link(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the peer is alive, and sends something now and then."""
    monkeypatch.setattr(heartbeat, "STALLED_TIMEOUTS", 1)
    node = make_node(heartbeat_interval=0.06, heartbeat_timeout=0.4, monitor_timeout=0.4)
    died = Deaths()
    with RawPeer.dial(node, extras=READS).shake() as peer:
        node.mon(f"{PEER}#p", died)
        peer.send([None, b"\x92\xa1p"])

        def beat() -> None:
            while not died.count:
                peer.send([""])
                gevent.sleep(0.05)

        beating = gevent.spawn(beat)
        assert "has not continued a message in fragments" in died.wait()[2]
        beating.kill()


def test_fragment_that_takes_long_over_a_slow_line_arrives(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At some 500 bytes a second, and longer than a peer may leave a message as it is."""
    monkeypatch.setattr(heartbeat, "STALLED_TIMEOUTS", 0.1)
    node = make_node(heartbeat_interval=0.06, heartbeat_timeout=4, monitor_timeout=4)
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=READS).shake() as peer:
        data = peer.encode([name_of(inbox), bytes(500)])
        peer.send([None, data[:10]])
        last = peer.encode([None, data[10:]])
        for begin in range(0, len(last), 10):
            peer.sock.sendall(last[begin : begin + 10])
            gevent.sleep(0.02)
        wait_until(lambda: inbox.messages)


def test_message_that_is_continued_slowly_arrives(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STALLED_RATE", 0)
    monkeypatch.setattr(heartbeat, "STALLED_TIMEOUTS", 1)
    node = make_node(heartbeat_interval=0.03, heartbeat_timeout=10)
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=READS).shake() as peer:
        for byte in encode([name_of(inbox), "slow"]):
            peer.send([None, bytes([byte])])
            turns(2)
        wait_until(lambda: inbox.messages)
    assert inbox.messages == [("slow",)]


def test_memory_for_large_messages_is_given_back_while_the_link_is_up(make_node: MakeNode) -> None:
    """That of the encoder, and those of both decoders. For texts, as long byte strings need none."""
    sender, node = make_node(heartbeat_interval=0.06), make_node(heartbeat_interval=0.06)
    inbox = Inbox(node)
    sender.snd(inbox.port, "the link is up")
    wait_until(lambda: inbox.messages)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        sender.snd(inbox.port, 3 * LARGE.decode())
        wait_until(lambda: len(inbox.messages) == 2)
        inbox.messages.clear()
        wait_until(lambda: tracemalloc.get_traced_memory()[0] - before < len(LARGE))
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", [1, 2**64], ids=["too-large", "unencodable"])
def test_memory_for_refused_messages_is_given_back_while_the_link_is_up(make_node: MakeNode, end: int) -> None:
    node = make_node(heartbeat_interval=0.06, max_message_bytes=len(LARGE))
    with RawPeer.dial(node, extras=READS).shake():
        text = LARGE.decode()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            with pytest.raises((MessageTooLargeError, UnencodableMessageError)):
                node.snd(f"{PEER}#p", text, end)
            wait_until(lambda: tracemalloc.get_traced_memory()[0] - before < len(LARGE))
        finally:
            tracemalloc.stop()


def test_tiny_fragments_delay_nobody_else(node: Node) -> None:
    """Each counts as a request: after some of them others have their turn."""
    inbox = Inbox(node)
    data = encode([name_of(inbox), bytes(20_000)])
    with RawPeer.dial(node, extras=READS).shake() as peer:
        peer.send(*([None, bytes([byte])] for byte in data))
        was_held = False

        def arrived() -> bool:
            nonlocal was_held
            was_held = was_held or link_with(node).is_held
            return bool(inbox.messages)

        wait_until(arrived)
        assert was_held
    assert inbox.messages == [(bytes(20_000),)]
