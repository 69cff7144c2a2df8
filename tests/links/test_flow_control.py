# SPDX-License-Identifier: MIT
"""Flow control: who waits while too much is unsent, who does not, and that everybody continues."""

from __future__ import annotations

import contextlib

import gevent
import pytest
from gevent.event import Event

from aemp_gevent import LinkBusyError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.errors import AempError, InvalidPortError, UsageError
from aemp_gevent.links.flow_control import REFILL_BYTES, Room
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.networking import UNIQUE, WAIT, Deaths, Inbox, RawListener, RawPeer
from tests.support.seams import network_of

BIG = "x" * 30_000_000
"""More than the system's buffers may grow to."""


class Stalled:
    """A node with a link whose other side does not read."""

    def __init__(self, make_node, **settings) -> None:
        self.node = make_node(**{"high_water_bytes": 20_000, **settings})
        self.peer = RawPeer.dial(self.node).shake()
        wait_until(self.node.up_nodes)
        self.link_to = network_of(self.node).peers[self.peer.name]
        self.port = f"{self.peer.name}#p"
        self.greenlets: list[gevent.Greenlet] = []

    def send(self, *message):
        greenlet = gevent.spawn(self.node.snd, self.port, *message)
        self.greenlets.append(greenlet)
        return greenlet

    def stall(self):
        """Pause a greenlet in ``snd``."""
        paused = self.send("big", BIG)
        wait_until(lambda: self.link_to.unsent > 1_000_000)
        turns(3)
        assert not paused.dead
        return paused

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.peer.close()
        gevent.joinall(self.greenlets, WAIT)
        gevent.killall(self.greenlets)


# --- the room ---------------------------------------------------------------------


def test_opening_wakes_all_that_wait_now_and_none_that_come_later():
    room = Room()
    woken: list[int] = []

    def wait(number):
        room.wait()
        woken.append(number)

    waiting = [gevent.spawn(wait, number) for number in range(5)]
    turns(2)
    room.open()
    late = gevent.spawn(wait, 5)
    gevent.joinall(waiting, WAIT)
    turns(3)
    assert woken == [0, 1, 2, 3, 4]
    room.open()
    late.join(WAIT)
    assert woken[-1] == 5


def test_who_waits_again_is_woken_by_an_opening_in_the_same_turn():
    room = Room()
    done: list[str] = []

    def twice():
        room.wait()
        room.wait()
        done.append("twice")

    def opens():
        room.wait()
        room.open()

    waiting = [gevent.spawn(twice), gevent.spawn(opens), gevent.spawn(twice)]
    turns(2)
    room.open()
    gevent.joinall(waiting[:2], WAIT)
    turns(3)
    assert done == ["twice"], "the last came after the second opening"
    room.open()
    gevent.joinall(waiting, WAIT)
    assert done == ["twice", "twice"]


def test_a_thread_that_finds_room_after_all_leaves_nothing_behind():
    room = Room()
    room.block_while(lambda: False)
    assert not room.locks


# --- snd ---------------------------------------------------------------------------


def test_a_sender_is_paused_although_the_peer_reads_as_fast(make_node):
    """Its link never has much to send, but nothing else in this node would ever have a turn."""
    with Stalled(make_node, high_water_bytes=300_000) as stalled:
        others = [gevent.spawn(turns, 1)]
        for _ in range(1000):
            stalled.node.snd(stalled.port, "x" * 1000)
            with contextlib.suppress(BlockingIOError):
                stalled.peer.sock._sock.recv(1_000_000)  # at once
        assert others[0].dead


@pytest.mark.slow
def test_many_paused_greenlets_all_continue(make_node):
    with Stalled(make_node) as stalled:
        stalled.stall()
        paused = [stalled.send(number, "y" * 30_000) for number in range(20)]
        turns(3)
        assert not any(greenlet.dead for greenlet in paused)
        assert stalled.peer.packet()[1] == "big"
        assert [stalled.peer.packet()[1] for _ in range(20)] == list(range(20))
        gevent.joinall(paused, WAIT)
        assert all(greenlet.dead for greenlet in paused)


@pytest.mark.slow
def test_a_paused_greenlet_continues_although_others_fill_the_room_again(make_node):
    """A sender that waited for room once does not have to wait for it again."""
    with Stalled(make_node) as stalled:
        stalled.stall()
        enough = False

        def greedy():
            while not enough:
                stalled.node.snd(stalled.port, "more", "z" * 100_000)

        stalled.greenlets += [gevent.spawn(greedy) for _ in range(5)]
        turns(3)
        last = stalled.send("last in the row, every time")
        turns(3)
        assert stalled.peer.packet()[1] == "big"
        for _ in range(300):
            stalled.peer.packet()
            if last.dead:
                break
        enough = True
        assert last.dead


def test_sender_that_had_to_wait_does_not_send_much_before_others_have_their_turn(make_node):
    """Small messages to other ports wait for that: the whole way to the high-water mark would take milliseconds."""
    size = 32 * 1024
    node, sent = make_node(), 0
    with RawPeer.dial(node).shake() as peer:
        wait_until(node.up_nodes)

        def send():
            nonlocal sent
            while True:
                node.snd(f"{peer.name}#p", bytes(size))
                sent += 1

        sender = gevent.spawn(send)
        try:
            for _ in range(10):
                before = -1
                while sent != before:  # until the system's buffers are full, too
                    before = sent
                    turns(20)
                while sent == before:
                    peer.sock.recv(size)
                    turns(2)
                assert (sent - before) * size < 2 * REFILL_BYTES
        finally:
            sender.kill()


@pytest.mark.slow
def test_a_timeout_during_the_pause_means_that_the_message_was_sent(make_node):
    with Stalled(make_node) as stalled:
        stalled.stall()
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            stalled.node.snd(stalled.port, "sent all the same")
        assert [stalled.peer.packet()[1] for _ in range(2)] == ["big", "sent all the same"]


@pytest.mark.slow
@pytest.mark.parametrize("end", ["lost", "shutdown"])
def test_paused_greenlets_continue_when_the_link_is_lost_or_the_node_shuts_down(make_node, end):
    with Stalled(make_node) as stalled:
        paused = [stalled.stall(), stalled.send("another")]
        turns(2)
        if end == "lost":
            stalled.peer.close()
        else:
            stalled.node.shutdown(0.05)
        gevent.joinall(paused, WAIT)
        assert all(greenlet.successful() for greenlet in paused)


def test_senders_that_were_just_paused_again_continue_when_the_link_is_lost(make_node):
    """By one of those that were woken with them."""
    node = make_node(high_water_bytes=1000)
    with RawPeer.dial(node).shake() as peer:
        wait_until(node.up_nodes)
        link_to = network_of(node).peers[peer.name]

        def send_twice():
            node.snd(f"{peer.name}#p", "x" * 2000)
            node.snd(f"{peer.name}#p", "x" * 2000)

        def send_and_lose():
            node.snd(f"{peer.name}#p", "x" * 2000)
            assert link_to.unsent > 1000, "nobody waits again"
            link_to._lose("said the test")

        # All in one turn, so that all are paused; what they sent leaves at its end.
        senders = [*(gevent.spawn(send_twice) for _ in range(5)), gevent.spawn(send_and_lose)]
        gevent.joinall(senders, WAIT, raise_error=True)
        assert all(sender.dead for sender in senders)


@pytest.mark.slow
def test_two_nodes_that_are_both_paused_keep_reading(make_node):
    """Each handler sends more than it gets: if a paused node did not read, both would wait forever."""
    a, b = make_node(high_water_bytes=50_000), make_node(high_water_bytes=50_000)
    rounds = 4
    counts = {"a": 0, "b": 0}
    load = "x" * 4_000_000  # five of them are more than the system's buffers may grow to
    done = Event()
    ports = {}

    def handler(node, me, other):
        def take(left, _load):
            counts[me] += 1
            if left:
                node.snd(ports[other], left - 1, load)
            if counts["a"] + counts["b"] == 2 * rounds * 5:
                done.set()

        return take

    ports["a"] = a.port(handler(a, "a", "b"))
    ports["b"] = b.port(handler(b, "b", "a"))
    senders = [
        gevent.spawn(node.snd, ports[other], rounds - 1, load) for node, other in [(a, "b"), (b, "a")] for _ in range(5)
    ]
    assert done.wait(30), counts
    gevent.joinall(senders, WAIT)


@pytest.mark.slow
def test_what_waits_for_a_link_counts_and_pauses(make_node):
    node = make_node(high_water_bytes=10_000)
    with RawListener() as listener:
        port = f"{listener.id}#p"
        paused = gevent.spawn(node.snd, port, "x" * 20_000)
        turns(3)
        assert not paused.dead
        with pytest.raises(LinkBusyError):
            node.snd_nowait(port, "x")
        with listener.accept() as peer:
            peer.shake()
            assert peer.packet()[1] == "x" * 20_000
            paused.join(WAIT)
            assert paused.dead
            node.snd_nowait(port, "y")
            assert peer.packet() == ["p", "y"]


# --- snd_nowait --------------------------------------------------------------------


@pytest.mark.slow
def test_snd_nowait_sends_nothing_over_a_busy_link_and_says_so(make_node):
    with Stalled(make_node) as stalled:
        paused = stalled.stall()
        before = stalled.link_to.unsent
        with pytest.raises(LinkBusyError) as caught:
            stalled.node.snd_nowait(stalled.port, "refused")
        assert stalled.link_to.unsent <= before
        assert caught.value.node == stalled.peer.name
        assert caught.value.high_water == 20_000
        assert str(caught.value.unsent) in str(caught.value)
        assert stalled.peer.packet()[1] == "big"
        paused.join(WAIT)
        stalled.node.snd_nowait(stalled.port, "accepted")
        assert stalled.peer.packet() == ["p", "accepted"]


@pytest.mark.slow
def test_snd_nowait_never_pauses_not_even_when_it_fills_the_link(make_node):
    with Stalled(make_node) as stalled:
        seen: list[bool] = []

        def watch():
            seen.append(True)

        gevent.get_hub().loop.run_callback(watch)
        stalled.node.snd_nowait(stalled.port, BIG)
        assert seen == [], "it switched"
        assert stalled.link_to.unsent > 20_000


def test_snd_nowait_is_snd_for_ports_of_this_node(make_node):
    a, b = make_node(high_water_bytes=1), make_node()
    local, remote = Inbox(a), Inbox(b)
    a.snd_nowait(local.port, 1)
    a.snd_nowait(a.NODE() + "#nobody", 2)
    a.snd_nowait(a.NODE(), "snd", local.port, 3)
    a.snd_nowait(remote.port, 4)
    wait_until(lambda: local.messages == [(1,), (3,)] and remote.messages == [(4,)])


def test_snd_nowait_on_a_private_node_drops_like_snd(make_node, caplog):
    make_node(None).snd_nowait("10.0.0.1:4040#p", "x")
    assert "this node is private" in caplog.text


def test_snd_nowait_raises_what_snd_raises(make_node):
    a, b = make_node(max_message_bytes=1000), make_node()
    remote = Inbox(b)
    for _ in range(2):  # the second time it is known
        with pytest.raises(UnencodableMessageError):
            a.snd_nowait(remote.port, object())
        with pytest.raises(MessageTooLargeError):
            a.snd_nowait(remote.port, "x" * 1001)
        with pytest.raises(InvalidPortError):
            a.snd_nowait("no port at all")
        a.snd_nowait(remote.port, "fine")
    wait_until(lambda: remote.messages == [("fine",), ("fine",)])


def test_snd_nowait_to_a_port_reported_dead_is_dropped(make_node):
    node = make_node()
    with RawListener() as listener:
        peer = RawPeer.dial(node, listener.id, extras=(("uniq", "same"),)).shake()
        wait_until(node.up_nodes)
        deaths = Deaths()
        node.mon(f"{listener.id}#{UNIQUE}", deaths)
        peer.close()
        assert deaths.wait()[0] == "transport_error"
        node.snd_nowait(f"{listener.id}#{UNIQUE}", "lost")
        node.snd_nowait(f"{listener.id}#other", "marker")
        with listener.accept(extras=(("uniq", "same"),)) as again:
            assert again.shake().packet() == ["other", "marker"]
            assert again.answers()


@pytest.mark.slow
def test_the_hub_may_use_both_and_is_never_paused(make_node):
    with Stalled(make_node) as stalled:
        stalled.stall()
        on_hub(lambda: stalled.node.snd(stalled.port, "from the hub"))
        with pytest.raises(LinkBusyError):
            stalled.node.snd_nowait(stalled.port, "x")


def test_a_busy_link_is_what_the_world_did():
    assert issubclass(LinkBusyError, AempError)
    assert not issubclass(LinkBusyError, UsageError)
