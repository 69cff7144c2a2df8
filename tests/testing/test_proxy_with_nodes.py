# SPDX-License-Identifier: MIT
"""Nodes that reach each other through a proxy, with faults between them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from aemp_gevent.testing import SECRET, NodeProcess, Proxy, wait_until
from tests.support.networking import Deaths, Inbox, MakeNode, node_factory
from tests.support.seams import network_of

StartProxy = Callable[..., Proxy]


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:

        def make_ours(*args: str, **settings: object) -> object:
            node = make(None)
            if "binds" in settings:
                (nodeid,) = args
                node.configure(nodeid=nodeid, secret=SECRET, **settings)
            else:
                node.initialise_node(*(args or ("127.0.0.1:0",)), secret=SECRET, **settings)
            return node

        yield make_ours  # type: ignore[misc]


def echo_behind(proxy: Proxy, make_node: MakeNode) -> str:
    """Start a node behind a proxy, with a port that sends back what it gets."""
    node = make_node(proxy.address, binds=["127.0.0.1:0"])
    proxy.target = str(network_of(node).listeners.endpoints[0])
    echo = node.port()
    return node.rcv(echo, node.snd)


def test_messages_pass_and_the_dialling_node_is_known(tcp_proxy: StartProxy, make_node: MakeNode) -> None:
    proxy = tcp_proxy()
    echo = echo_behind(proxy, make_node)
    node = make_node()
    inbox = Inbox(node)
    node.snd(echo, inbox.port, "x" * 500_000)
    wait_until(lambda: inbox.messages == [("x" * 500_000,)])
    (connection,) = proxy.connections
    assert connection.node == node.NODE()
    assert connection.bytes_in > 500_000
    assert connection.bytes_out > 500_000


def test_bytes_in_small_late_pieces_are_the_same_messages(tcp_proxy: StartProxy, make_node: MakeNode) -> None:
    proxy = tcp_proxy()
    proxy.split(20)
    proxy.delay(0.01, jitter=0.02)
    echo = echo_behind(proxy, make_node)
    node = make_node()
    inbox = Inbox(node)
    messages = [("number", number, "y" * random.Random(number).randrange(100)) for number in range(100)]
    for message in messages:
        node.snd(echo, inbox.port, *message)
    wait_until(lambda: len(inbox.messages) == 100, show=lambda: len(inbox.messages))
    assert inbox.messages == messages


@pytest.mark.parametrize("fault", ["reset", "cut", "corrupt"])
def test_broken_link_fires_the_monitor_and_a_new_one_is_made(
    tcp_proxy: StartProxy, make_node: MakeNode, fault: str
) -> None:
    # This seed makes a number of an array's first byte. Another one may make the head of something long, and the
    # node would wait for the rest of it.
    proxy = tcp_proxy(seed=1)
    echo = echo_behind(proxy, make_node)
    node = make_node()
    inbox = Inbox(node)
    died = Deaths()
    node.mon(echo, died)
    node.snd(echo, inbox.port, 1)
    wait_until(lambda: inbox.messages)
    if fault == "corrupt":
        proxy.corrupt(1, direction="in")
        node.snd(echo, inbox.port, "what is this?")
    else:
        getattr(proxy, fault)()
    assert died.wait()[:2] == ("transport_error", proxy.address)
    proxy.heal()
    node.mon(echo, Deaths())
    wait_until(lambda: node.snd(echo, inbox.port, 2) or inbox.messages[1:])


def test_fault_for_one_node_spares_the_other(tcp_proxy: StartProxy, make_node: MakeNode) -> None:
    proxy = tcp_proxy()
    echo = echo_behind(proxy, make_node)
    one, other = make_node(), make_node()
    inboxes = [Inbox(one), Inbox(other)]
    died, lived = Deaths(), Deaths()
    one.mon(echo, died)
    other.mon(echo, lived)
    for node, inbox in zip((one, other), inboxes, strict=True):
        node.snd(echo, inbox.port, "hello")
    wait_until(lambda: all(inbox.messages for inbox in inboxes))
    proxy.refuse(nodes=one.NODE())
    proxy.reset(nodes=one.NODE())
    assert died.wait()[0] == "transport_error"
    other.snd(echo, inboxes[1].port, "still here")
    wait_until(lambda: inboxes[1].messages[1:])
    assert lived.count == 0
    again = Deaths()
    one.mon(echo, again)
    assert again.wait()[0] == "transport_error"


@pytest.mark.slow
def test_stalled_link_continues_and_a_restart_behind_the_proxy_is_found(
    tcp_proxy: StartProxy, node_process: Callable[..., NodeProcess], make_node: MakeNode
) -> None:
    proxy = tcp_proxy()
    process = node_process(proxy.address, binds=["127.0.0.1:0"])
    (proxy.target,) = process.listens
    setup = "echo = mp.port(); mp.rcv(echo, lambda reply, *message: mp.snd(reply, *message))"
    echo = process.run(setup)
    node = make_node()
    inbox = Inbox(node)
    node.snd(echo, inbox.port, 1)
    wait_until(lambda: inbox.messages == [(1,)])
    proxy.blackhole("out")
    node.snd(echo, inbox.port, 2)
    process.run("import itertools")  # the control channel knows no faults
    wait_until(lambda: proxy.connections[0].held)  # the answer
    assert inbox.messages == [(1,)]
    proxy.heal()
    wait_until(lambda: inbox.messages == [(1,), (2,)])
    died = Deaths()
    node.mon(echo, died)
    process.restart()
    assert died.wait()[:2] == ("transport_error", proxy.address)
    echo = process.run(setup)
    node.snd(echo, inbox.port, 3)
    wait_until(lambda: inbox.messages[2:] == [(3,)], show=lambda: inbox.messages)
