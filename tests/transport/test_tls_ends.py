# SPDX-License-Identifier: MIT
"""How links inside of TLS end: in order, cut anywhere, changed on the way, or copied by a fork."""

from __future__ import annotations

import os
import random

import pytest

from aemp_gevent.testing import Proxy
from tests.support.helpers import turns
from tests.support.networking import OUR_PROVIDER, Deaths, Inbox, MakeNode, name_of, process
from tests.support.relay import Relay
from tests.support.seams import network_of
from tests.support.tls_nodes import links_of, talk, wait_until
from tests.support.tls_peers import TlsPeer

SAME = (*OUR_PROVIDER, ("uniq", "one process"))


@pytest.mark.parametrize("how", ["in order", "cut"])
def test_only_an_end_that_tls_knows_of_is_one_in_order(make_node: MakeNode, shared: str, how: str) -> None:
    node = make_node(secret=None, cert=shared)
    with TlsPeer.dial(node, cert=shared) as peer:
        peer.shake()
        assert peer.answers()
        died = Deaths()
        node.mon("127.0.0.1:9", died)
        if how == "cut":
            peer.secure.sock.shutdown(1)
            assert "without TLS's close_notify" in died.wait()[2]
        else:
            peer.secure.say_end()
            assert died.wait()[2] == "the node closed the connection"


@pytest.mark.parametrize("how", ["in order", "cut"])
def test_what_waits_for_a_connections_end_waits_for_one_in_order(make_node: MakeNode, shared: str, how: str) -> None:
    node = make_node(secret=None, cert=shared)
    inbox = Inbox(node)
    first, second = (TlsPeer.dial(node, cert=shared, extras=SAME) for _ in range(2))
    with first, second:
        for peer in (first, second):
            peer.greet()
        for peer in (first, second):
            while peer.handshake.state.name != "VERIFIED":
                peer.handshake.receive(peer._read())
        for peer in (first, second):
            peer.sock.sendall(peer.handshake.prove())
        died = Deaths()
        node.mon("127.0.0.1:9#x", died)
        second.send(["", "after", first.nonce], [name_of(inbox), 2])
        first.send([name_of(inbox), 1])
        wait_until(lambda: inbox.messages)
        turns(20)
        assert inbox.messages == [(1,)]
        if how == "in order":
            first.secure.say_end()
            wait_until(lambda: len(inbox.messages) == 2)
            assert not died.count
        else:
            first.secure.sock.shutdown(1)
            assert "close_notify" in died.wait()[2]
            assert inbox.messages == [(1,)]


def test_node_says_the_end_and_reads_on(make_node: MakeNode, shared: str) -> None:
    """The end that the other side says in TLS, and on the connection, comes behind everything it sent."""
    node = make_node(secret=None, cert=shared)
    inbox = Inbox(node)
    with TlsPeer.dial(node, cert=shared, extras=SAME) as peer:
        peer.shake()
        assert peer.answers()
        (link,) = links_of(node)
        node.snd("127.0.0.1:9#x", "last")
        link.finish()
        assert peer.packet() == ["x", "last"]
        assert peer.sock.recv(1) == b""  # close_notify: anything else raises
        assert peer.secure.sock.recv(1) == b""
        peer.send([name_of(inbox), "still heard"])
        wait_until(lambda: inbox.messages)


def handshake_sizes(shared: str, make_node: MakeNode) -> tuple[int, int]:
    """How many bytes each side of a connection sends until it is up."""
    node = make_node(secret=None, cert=shared)
    other = make_node(secret=None, cert=shared)
    with Relay(node.NODE()) as recorder:
        network_of(other).dialling.dial_address((recorder.endpoint,), 5)
        wait_until(other.up_nodes)
        wait_until(node.up_nodes)
        turns(20)
        first, second = map(len, recorder.seen)
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["in", "out"])
def test_handshake_that_is_cut_anywhere_leaves_nothing_and_the_next_one_works(
    make_node: MakeNode, shared: str, direction: str
) -> None:
    sizes = handshake_sizes(shared, make_node)
    size = sizes[0] if direction == "in" else sizes[1]
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    places = sorted({0, 1, size - 1, *dice.sample(range(size), 40)})
    settings = {"secret": None, "cert": shared, "idle_timeout": None}
    with Proxy(seed=seed) as proxy:
        node = make_node(proxy.address, binds=["127.0.0.1:0"], **settings)
        proxy.target = str(network_of(node).listeners.endpoints[0])
        for place in places:
            other = make_node(**settings)
            getattr(proxy, dice.choice(["cut", "reset"]))(after=place, direction=direction)
            died = Deaths()
            other.mon(f"{node.NODE()}#nobody", died)
            assert died.wait()[0] in ("transport_error", "no_such_port"), place
            proxy.heal()
            other.shutdown(0.1)
            wait_until(lambda: not network_of(node).strangers.links)
        talk(node, make_node(**settings))


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["in", "out"])
def test_changed_bytes_open_nothing_and_are_delivered_to_nobody(
    make_node: MakeNode, shared: str, direction: str
) -> None:
    sizes = handshake_sizes(shared, make_node)
    dice = random.Random(7)
    with Proxy(seed=7) as proxy:
        node = make_node(proxy.address, binds=["127.0.0.1:0"], secret=None, cert=shared)
        proxy.target = str(network_of(node).listeners.endpoints[0])
        inbox = Inbox(node)
        for place in dice.sample(range(sizes[0] + 2000), 25):
            other = make_node(secret=None, cert=shared, monitor_timeout=3)
            proxy.corrupt(at=place, direction=direction)  # type: ignore[arg-type]
            died = Deaths()
            other.mon(inbox, died)
            other.snd(inbox, "x" * 3000)
            before = len(inbox.messages)
            wait_until(lambda: died.count or len(inbox.messages) > before, within=20)  # noqa: B023
            proxy.heal()
            other.shutdown(0.1)
        assert all(message == ("x" * 3000,) for message in inbox.messages)


FORKING = """
import os, sys
import gevent
from aemp_gevent import *
from aemp_gevent import default_node

to, cert, end = sys.argv[1:]
initialise_node("127.0.0.1:0", cert=cert)
here = port()
rcv(here, "echo", lambda back, *message: snd(back, *message))
snd(to, "up", here)
while not up_nodes():
    gevent.sleep(0.01)
for number in range(100):
    snd(to, number, "x" * 10000)  # which has not left yet
pid = os.fork()
if pid == 0:
    if end == "another node":
        initialise_node("127.0.0.1:0", cert=cert)
        snd(to, "child", NODE())
        gevent.sleep(0.2)
        shutdown()
    elif end == "shutdown":
        default_node.shutdown()
    elif end == "collected":
        import gc
        gc.collect()
    sys.exit(0)
while os.waitpid(pid, os.WNOHANG)[0] == 0:
    gevent.sleep(0.01)
snd(to, "the child is gone")
gevent.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("end", ["at once", "shutdown", "collected", "another node"])
def test_forked_child_says_nothing_on_the_links_of_its_parent(make_node: MakeNode, shared: str, end: str) -> None:
    """Not even goodbye: every byte of a copy of TLS's state would break the original's."""
    node = make_node(secret=None, cert=shared)
    inbox, died = Inbox(node), Deaths()
    with process(FORKING, inbox.port, shared, end):
        wait_until(lambda: inbox.messages, within=20)
        parent = inbox.messages[0][1]
        node.mon(parent, died)
        wait_until(lambda: ("the child is gone",) in inbox.messages, within=20, show=lambda: inbox.messages[-1:])
        node.snd(parent, "echo", inbox.port, "echoed")
        wait_until(lambda: ("echoed",) in inbox.messages)
        assert not died.count
        numbers = [message[0] for message in inbox.messages if isinstance(message[0], int)]
        assert numbers == list(range(100))
        assert len([message for message in inbox.messages if message[0] == "child"]) == (end == "another node")
