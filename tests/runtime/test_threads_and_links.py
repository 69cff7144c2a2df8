# SPDX-License-Identifier: MIT
"""Other native threads that send to other nodes: the order of what they send, and how long they wait for room."""

from __future__ import annotations

from time import perf_counter

import gevent
import pytest

from aemp_gevent import LinkBusyError, MessageTooLargeError, UnencodableMessageError
from aemp_gevent.errors import InvalidPortError
from aemp_gevent.links.link import Link
from aemp_gevent.peers.remote_ports import RemotePorts
from aemp_gevent.runtime.threads import get_ident
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.native import threading
from tests.support.networking import UNIQUE, WAIT, Deaths, Inbox, RawListener, RawPeer
from tests.support.seams import network_of
from tests.support.threads import Thread, in_thread


def test_messages_and_kills_for_other_nodes_keep_the_threads_order(make_node):
    a, b = make_node(), make_node()
    got: list[object] = []
    first, second = b.port(got.append), b.port(lambda n: got.append(-n))
    deaths = Deaths()
    b.mon(first, deaths)

    def work():
        for number in range(1, 200):
            a.snd(first, number)
            a.snd(second, number)
        a.kil(first, "enough")
        a.snd(first, "too late")
        a.snd(second, 1000)

    in_thread(work)
    wait_until(lambda: len(got) >= 199 + 200, show=lambda: got[-3:])  # the two ports take turns as they like
    assert deaths.wait() == ("enough",)
    assert [number for number in got if number > 0] == list(range(1, 200))
    assert [-number for number in got if number < 0] == [*range(1, 200), 1000]


def test_a_message_of_another_thread_is_copied_when_it_is_sent(make_node):
    a, b = make_node(), make_node()
    inbox = Inbox(b)
    data = [1, 2]

    def work():
        a.snd(inbox.port, data)
        data.append(3)

    in_thread(work)
    wait_until(lambda: inbox.messages)
    assert inbox.messages == [([1, 2],)]


@pytest.mark.parametrize("known", [False, True], ids=["never-sent-to", "known"])
def test_bad_data_raises_in_the_thread_that_sends_it_and_hurts_nobody_else(make_node, known):
    a, b = make_node(max_message_bytes=1000), make_node()
    inbox = Inbox(b)
    if known:
        a.snd(inbox.port, "first")
        wait_until(lambda: inbox.messages)
    with pytest.raises(UnencodableMessageError):
        in_thread(a.snd, inbox.port, object())
    with pytest.raises(MessageTooLargeError):
        in_thread(a.snd, inbox.port, "x" * 1001)
    with pytest.raises(UnencodableMessageError):
        in_thread(a.kil, inbox.port, object())
    with pytest.raises(InvalidPortError):
        in_thread(a.snd, "no port at all", 1)
    in_thread(a.snd, inbox.port, "fine")
    wait_until(lambda: inbox.messages[-1:] == [("fine",)])


def test_what_the_link_cannot_carry_is_lost_and_reported(make_node):
    node = make_node()
    with RawPeer.dial(node, framing="json") as peer:
        peer.shake()
        wait_until(node.up_nodes)
        deaths = Deaths()
        port = f"{peer.name}#p"
        node.mon(port, deaths)
        in_thread(node.snd, port, b"bytes do not travel as JSON")
        in_thread(node.snd, f"{peer.name}#q", "text does")
        assert deaths.wait()[0] == "transport_error"
        assert [peer.packet()[:2] for _ in range(3)] == [["", "mon1"], ["", "mon0"], ["q", "text does"]]


def test_a_port_reported_dead_gets_nothing_that_was_handed_over_before_that(make_node):
    """Handed over while the hub was busy losing the link: it must not go out over the next one."""
    a = make_node()
    same = (("uniq", "same"),)
    with RawListener() as listener:
        peer = RawPeer.dial(a, listener.id, extras=same).shake()
        wait_until(a.up_nodes)
        deaths = Deaths()
        port = f"{peer.name}#{UNIQUE}"
        a.mon(port, deaths)
        assert peer.packet() == ["", "mon1", UNIQUE]

        def lose():
            thread = threading.Thread(target=a.snd, args=(port, "lost"))
            thread.start()
            thread.join(WAIT)
            network_of(a).peers[peer.name]._lose("a test")

        on_hub(lose)
        assert deaths.wait()[0] == "transport_error"
        peer.close()
        turns(3)
        a.snd(f"{peer.name}#other", "marker")
        with listener.accept(extras=same) as again:
            assert again.shake().packet() == ["other", "marker"]
            assert again.answers(), "and nothing behind it"


def test_the_first_messages_of_a_thread_may_go_to_an_unreachable_node(make_node):
    node = make_node()
    deaths = Deaths()
    in_thread(node.snd, "127.0.0.1:1#p", "x")
    node.mon("127.0.0.1:1#p", deaths)
    assert deaths.wait()[0] == "transport_error"


class Stalled:
    """A node with a peer that does not read, and a thread that sends until it blocks."""

    def __init__(self, make_node, high_water=20_000) -> None:
        self.node = make_node(high_water_bytes=high_water)
        self.peer = RawPeer.dial(self.node).shake()
        wait_until(self.node.up_nodes)
        self.link_to = network_of(self.node).peers[self.peer.name]
        self.port = f"{self.peer.name}#p"
        self.sent = 0
        self.wanted = 100_000

    def flood(self):
        while self.sent < self.wanted:
            self.node.snd(self.port, self.sent, "x" * 1000)
            self.sent += 1

    def fill(self):
        """Send from a thread, until that blocks; return it."""
        thread = Thread(self.flood)
        # The hub takes everything that was handed over, and the thread does not continue.
        seen = -1

        def blocked():
            nonlocal seen
            before, seen = seen, self.sent
            gevent.sleep(0.1)
            return before == self.sent and self.link_to.unsent > 10_000

        wait_until(blocked, within=WAIT, show=lambda: self.sent)
        assert not thread.is_done
        return thread

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.wanted = 0
        self.peer.close()


@pytest.mark.slow
def test_a_thread_blocks_above_the_high_water_mark_and_continues_when_there_is_room(make_node):
    with Stalled(make_node) as stalled:
        thread = stalled.fill()
        # What is unsent is bounded: the mark, one message, and what may be handed over at once.
        assert stalled.link_to.unsent <= 20_000 + 2 * 1100
        before = stalled.sent
        stalled.wanted = before + 300
        for number in range(before + 300):
            packet = stalled.peer.packet()
            assert packet[:2] == ["p", number]
        thread.result()
        assert stalled.sent == before + 300


@pytest.mark.slow
@pytest.mark.parametrize("end", ["lost", "shutdown"])
def test_a_blocked_thread_continues_when_the_link_is_lost_or_the_node_shuts_down(make_node, end):
    with Stalled(make_node) as stalled:
        thread = stalled.fill()
        stalled.wanted = stalled.sent + 1
        if end == "lost":
            stalled.peer.close()
        else:
            stalled.node.shutdown(0.1)
        thread.result()


@pytest.mark.slow
def test_a_thread_that_must_not_block_gets_an_error_if_the_link_is_busy(make_node):
    with Stalled(make_node) as stalled:
        # More than the system's buffers may grow to.
        thread = Thread(lambda: stalled.node.snd(stalled.port, "x" * 30_000_000))
        wait_until(lambda: stalled.link_to.unsent > 1_000_000)
        with pytest.raises(LinkBusyError, match="high-water mark is 20000") as caught:
            in_thread(stalled.node.snd_nowait, stalled.port, "x")
        assert caught.value.unsent > 1_000_000
        assert caught.value.node == stalled.peer.name
        assert not thread.is_done
        stalled.peer.close()
        thread.result()


@pytest.mark.parametrize("call", ["snd", "snd_nowait"])
def test_only_the_nodes_own_thread_touches_links_and_what_is_known_of_ports(make_node, monkeypatch, call):
    threads: set[int] = set()

    def noting(function):
        def noted(*args):
            threads.add(get_ident())
            return function(*args)

        return noted

    class NotingLink(Link):  # methods of compiled classes cannot be replaced
        send = noting(Link.send)
        send_encoded = noting(Link.send_encoded)

    monkeypatch.setattr("aemp_gevent.peers.link_maker.Link", NotingLink)
    monkeypatch.setattr(RemotePorts, "get", noting(RemotePorts.get))
    a, b = make_node(), make_node()
    send = getattr(a, call)
    known, unknown = Inbox(b), Inbox(b)
    a.snd(known.port, "makes a link")
    wait_until(lambda: known.messages)
    for inbox in (known, unknown):
        in_thread(send, inbox.port, call)
        wait_until(lambda: (call,) in inbox.messages)  # noqa: B023
    assert threads == {get_ident()}


@pytest.mark.slow
def test_a_thread_is_held_back_while_the_hub_takes_nothing(make_node):
    """A handler that computes keeps the hub from running, and memory must not fill meanwhile."""
    a, b = make_node(high_water_bytes=20_000), make_node()
    inbox = Inbox(b)
    sent = 0

    def flood():
        nonlocal sent
        for sent in range(60):
            a.snd(inbox.port, sent, "x" * 1000)

    thread = Thread(flood)
    deadline = perf_counter() + 0.3
    while perf_counter() < deadline:
        pass
    assert sent < 40
    assert thread.is_done is False
    thread.result()
    wait_until(lambda: len(inbox.messages) == 60)
    assert [number for number, _ in inbox.messages] == list(range(60))


def test_what_a_thread_sent_before_comes_before_what_the_nodes_own_thread_sends(make_node):
    """Code that joined the thread, or heard of it otherwise, can rely on the order."""
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    one.mon(inbox.port, print)
    wait_until(one.up_nodes)
    for number in range(20):
        thread = threading.Thread(target=one.snd, args=(inbox.port, "thread", number))
        thread.start()
        thread.join()  # blocks the loop: nothing is taken on the hub meanwhile
        one.snd(inbox.port, "own", number)
    wait_until(lambda: len(inbox.messages) == 40)
    assert inbox.messages == [(who, number) for number in range(20) for who in ("thread", "own")]


def test_what_a_thread_sent_before_a_shutdown_is_sent(make_node):
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    one.mon(inbox.port, print)
    wait_until(one.up_nodes)
    thread = threading.Thread(target=lambda: [one.snd(inbox.port, number) for number in range(10)])
    thread.start()
    thread.join()
    one.shutdown()
    wait_until(lambda: len(inbox.messages) == 10, show=lambda: inbox.messages)
