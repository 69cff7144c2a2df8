# SPDX-License-Identifier: MIT
"""The end of a node: peers are told, what is queued leaves, and nobody waits for ever."""

from __future__ import annotations

import gc
import signal
import weakref
from collections.abc import Iterator
from time import monotonic

import gevent
import pytest
from gevent import socket

from aemp_gevent.errors import AlreadyInitialisedError
from aemp_gevent.node import Node
from tests.helpers import wait_until
from tests.networking import (
    OUR_PROVIDER,
    SECRET,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    line_of,
    node_factory,
    process,
)


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


def test_shutdown_tells_monitors_at_once(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox, died, node_died = Inbox(two), Deaths(), Deaths()
    one.mon(inbox, died)
    one.mon(two.NODE(), node_died)
    two.mon(two.port(print), died.__class__())
    wait_until(lambda: two.up_nodes() and one.up_nodes())
    two.shutdown()
    assert died.wait() == ("shutdown", two.NODE())
    assert node_died.wait() == ("shutdown", two.NODE())
    assert one.up_nodes() == two.up_nodes() == []


def test_shutdown_sends_what_is_queued(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    for number in range(200):
        one.snd(inbox, number, b"x" * 10_000)
    one.shutdown()
    wait_until(lambda: len(inbox.messages) == 200)


def test_node_that_shut_down_keeps_its_ports_and_dials_nobody(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    ours, theirs, died = Inbox(one), Inbox(two), Deaths()
    one.shutdown()
    one.shutdown()
    one.snd(ours, 1)
    one.mon(theirs, died)
    one.snd(theirs, 2)
    assert died.wait() == ("transport_error", two.NODE(), "this node was shut down")
    wait_until(lambda: ours.messages)
    assert theirs.messages == []
    with pytest.raises(AlreadyInitialisedError):
        one.initialise_node("127.0.0.1:0", secret=SECRET)


def test_shutdown_of_a_private_node_does_nothing(make_node: MakeNode) -> None:
    node = make_node(None)
    node.shutdown()
    node.initialise_node("127.0.0.1:0", secret=SECRET)


def test_goodbye_comes_behind_everything_else_and_then_the_end(make_node: MakeNode) -> None:
    node = make_node(high_water_bytes=2**26)
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        for number in range(100):
            node.snd(f"{peer.name}#p", number, bytes(100_000))
        leaving = gevent.spawn(node.shutdown, 10)
        for number in range(100):
            assert peer.packet()[:2] == ["p", number]
        assert peer.packet() == ["", "bye"]
        with pytest.raises(EOFError):
            peer.packet()
        assert not leaving.ready(), "it must wait for us, who may still say something"
        peer.close()
        leaving.get(timeout=5)


def test_other_programs_are_told_by_the_end_alone(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node).shake() as peer:
        leaving = gevent.spawn(node.shutdown, 10)
        with pytest.raises(EOFError):
            peer.packet()
        peer.close()
        leaving.get(timeout=5)


def test_nobody_is_let_in_any_more(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node).shake() as peer:
        leaving = gevent.spawn(node.shutdown, 10)
        with pytest.raises(EOFError):
            peer.packet()
        with pytest.raises(OSError, match="refused"), socket.socket() as late:
            late.connect(("127.0.0.1", int(node.NODE().rpartition(":")[2])))
        peer.close()
        leaving.get(timeout=5)


def test_what_waits_for_a_link_is_sent_when_it_is_up(make_node: MakeNode) -> None:
    node = make_node()
    with RawListener() as listener:
        node.snd(f"{listener.id}#p", "hello")
        leaving = gevent.spawn(node.shutdown, 10)
        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            assert peer.take(2) == [["p", "hello"], ["", "bye"]]
        leaving.get(timeout=5)


def test_peer_that_takes_nothing_is_waited_for_no_longer_than_the_timeout(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    with RawPeer.dial(node).shake() as peer:
        sender = gevent.spawn(node.snd, f"{peer.name}#x", bytes(30_000_000))
        wait_until(lambda: node._network.peers[peer.name].link.transport.buffered)  # type: ignore[union-attr]
        assert not sender.ready()
        started = monotonic()
        node.shutdown(0.2)
        assert 0.15 < monotonic() - started < 5
        sender.get(timeout=5)
    assert f"these had not taken everything: {peer.name}" in caplog.text


def test_what_is_sent_from_the_shutdown_on_is_lost_and_reported(make_node: MakeNode) -> None:
    node, died, anew = make_node(), Deaths(), Deaths()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        node.mon(f"{peer.name}#p", died)
        leaving = gevent.spawn(node.shutdown, 10)
        assert died.wait() == ("shutdown", node.NODE())
        node.mon(f"{peer.name}#p", anew)
        node.snd(f"{peer.name}#p", "too late")
        assert anew.wait()[0] == "transport_error"
        assert peer.take(2) == [["", "mon1", "p"], ["", "bye"]]
        peer.close()
        leaving.get(timeout=5)


def test_last_words_of_a_peer_are_heard_although_writing_to_it_failed(make_node: MakeNode) -> None:
    """It said goodbye and reset the connection; we find out by writing, before we read."""
    node, died = make_node(), Deaths()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        node.mon(f"{peer.name}#p", died)
        assert peer.packet() == ["", "mon1", "p"]
        # All of this before the loop turns once: nothing of it was read when the flush comes.
        peer.sock.sendall(peer.encode(["", "bye"]))
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        node.snd(f"{peer.name}#p", "into the reset")
        assert died.wait() == ("shutdown", peer.name)


def test_node_that_shut_down_and_was_dropped_leaves_the_memory() -> None:
    node = Node()
    node.initialise_node("127.0.0.1:0", secret=SECRET)
    node.snd(Inbox(node), "hello")  # so that there is a runner, which waits for more
    gone = weakref.ref(node)
    node.shutdown()
    del node
    wait_until(lambda: gc.collect() >= 0 and gone() is None)


# --- the end of a program ------------------------------------------------------------------

PROGRAM = """
import sys, time
import gevent
import aemp_gevent as mp

mp.initialise_node("127.0.0.1:0")
mp.reg(mp.port(print), "p")
print(mp.NODE(), flush=True)
try:
    {body}
finally:
    print("finally", flush=True)
"""


def test_end_of_a_program_is_a_shutdown(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node, died = make_node(), Deaths()
    inbox = Inbox(node)
    body = f"mp.syncal(10, {node.NODE()!r}, 'time')\n    for n in range(1000): mp.snd({inbox.port!r}, n, 'x' * 1000)"
    with process(PROGRAM.format(body=body)) as child:
        node.mon(line_of(child) + "#p", died)
        assert died.wait()[0] == "shutdown"
        assert child.wait(10) == 0
    assert [number for number, _text in inbox.messages] == list(range(1000))


@pytest.mark.parametrize("signals", ["", "signal.SIGUSR1"])
def test_signal_ends_a_program_in_order(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, signals: str) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node, died = make_node(), Deaths()
    body = f"import signal; mp.shutdown_on_signal({signals}); print('ready', flush=True); gevent.sleep(60)"
    with process(PROGRAM.format(body=body)) as child:
        child_node = line_of(child)
        node.mon(child_node + "#p", died)
        assert line_of(child) == "ready"
        assert node.syncal(10, child_node, "time")  # so it has a link to us, too
        number = signal.SIGUSR1 if signals else signal.SIGTERM
        child.send_signal(number)
        assert died.wait() == ("shutdown", child_node)
        assert line_of(child) == "finally"
        assert child.wait(10) == 128 + number


def test_signal_shuts_down_whichever_node_was_to_hear_of_it(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only the default node, which the program's end shuts down in any case."""
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node, died = make_node(), Deaths()
    body = (
        f"node = mp.Node(); node.initialise_node('127.0.0.1:0'); node.shutdown_on_signal();"
        f" print(node.syncal(10, {node.NODE()!r}, 'time') and node.NODE(), flush=True); gevent.sleep(60)"
    )
    with process(PROGRAM.format(body=body)) as child:
        line_of(child)  # the default node
        child_node = line_of(child)
        node.mon(child_node, died)
        child.terminate()
        assert died.wait() == ("shutdown", child_node)
        assert child.wait(10) == 128 + signal.SIGTERM


def test_second_signal_ends_a_program_at_once(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it waits for a peer that takes nothing."""
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    with RawListener() as listener:
        body = (
            f"mp.shutdown_on_signal(timeout=60); gevent.spawn(mp.snd, {listener.id!r}, bytes(30_000_000));"
            " print('ready', flush=True); gevent.sleep(60)"
        )
        with process(PROGRAM.format(body=body)) as child:
            child_node = line_of(child)
            assert line_of(child) == "ready"
            with listener.accept().shake() as peer:
                child.terminate()
                wait_until(lambda: not accepts(child_node))
                again = monotonic()
                child.terminate()
                assert line_of(child) == "finally"
                assert child.wait(10) == 128 + signal.SIGTERM
                assert monotonic() - again < 4, "it waited for the peer at its exit"
                peer.close()


def accepts(node: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", int(node.rpartition(":")[2]))) == 0
