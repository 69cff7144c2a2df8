# SPDX-License-Identifier: MIT
"""Usual calls from other nodes are delivered like messages; all others are requests, and looked at."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from aemp_gevent import Node, time_left
from aemp_gevent.calls import arriving
from aemp_gevent.links import link
from tests.support.clocks import use_clock
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, UNIQUE, Inbox, MakeNode, RawPeer
from tests.support.seams import network_of, ports_of

SHORT = (*OUR_PROVIDER, ("calls", "short"))


def test_a_usual_call_does_not_come_to_the_node_port(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node()
    calls: list[Any] = []
    server = node.port()
    node.rcv(server, "ask", lambda *rest: calls.append((*rest, rest[-1].chain, time_left(rest[-1]))))
    requests: list[Any] = []
    monkeypatch.setattr(network_of(node).listener, "node_requested", lambda _peer, message: requests.append(message))
    with RawPeer.dial(node, extras=SHORT).shake() as peer:
        peer.send(["", "call", ["#reply", 7, "#me", "other#port"], server.partition("#")[2], "ask", [1]])
        wait_until(lambda: calls)
        ((argument, reply, chain, left),) = calls
        assert (argument, reply, chain) == ([1], f"{peer.name}#reply", (f"{peer.name}#me", "other#port"))
        assert left is not None
        assert 0 < left <= 7
        assert requests == []


def _turns_of_calls(node: Node) -> list[int]:
    """Return in which turn of the loop each of 20 calls was served that came in one read."""
    server, turns = node.port(), [0]
    seen: list[int] = []
    node.rcv(server, "ask", lambda _reply: seen.append(turns[0]))
    watcher: Any = gevent.get_hub().loop.check()
    watcher.start(lambda: turns.append(turns.pop() + 1))
    try:
        with RawPeer.dial(node, extras=SHORT).shake() as peer:
            packet = ["", "call", ["#reply", None, "#me"], server.partition("#")[2], "ask"]
            peer.send(*[packet] * 20)
            wait_until(lambda: len(seen) == 20)
    finally:
        watcher.stop()
        watcher.close()
    return seen


def test_calls_of_one_read_need_one_turn(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests would wait for the next turn of the loop after a tenth of a millisecond."""
    use_clock(monkeypatch, lambda: 1.0)  # their port's turn does not end, however busy the machine is
    monkeypatch.setattr(link, "SLICE_SECONDS", -1.0)  # each request is the last of its turn
    monkeypatch.setattr(link, "CALLS_SECONDS", 3600.0)
    assert len(set(_turns_of_calls(make_node()))) == 1


def test_many_calls_of_one_read_let_others_have_their_turn(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "SLICE_SECONDS", -1.0)
    monkeypatch.setattr(link, "CALLS_SECONDS", -1.0)  # each call is the last of its turn
    assert len(set(_turns_of_calls(make_node()))) == 20


@pytest.mark.parametrize("extras", [SHORT, OUR_PROVIDER], ids=["reads short headers", "does not"])
@pytest.mark.parametrize(
    "header",
    [
        [],
        ["#reply"],
        ["reply", None],
        ["#", None],
        ["other#reply", None],
        ["#reply", -1],
        ["#reply", float("nan")],
        ["#reply", "7"],
        ["#reply", None, 1],
        ["#" + "r" * 3000, None],
        ["#reply", None, "#" + "p" * 3000],
        ["#" + 511 * "\N{DOMINO TILE HORIZONTAL BACK}", None],  # too long with the ID of the node in front of it
        [1, None],
        7,
    ],
    ids=lambda header: repr(header)[:20],
)
def test_what_is_wrong_with_a_call_is_logged(
    make_node: MakeNode, header: Any, extras: Any, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=extras).shake() as peer:
        peer.send(["", "call", header, inbox.port.partition("#")[2], "ask"])
        assert peer.answers()
        wait_until(lambda: "call" in caplog.text)
    assert inbox.messages == []


def test_a_long_chain_is_usual_enough_for_the_node_port(make_node: MakeNode) -> None:
    node = make_node()
    inbox = Inbox(node)
    chain = [f"#{number}" for number in range(2 * arriving.MAX_USUAL_CHAIN)]
    with RawPeer.dial(node, extras=SHORT).shake() as peer:
        peer.send(["", "call", ["#reply", None, *chain], inbox.port.partition("#")[2], "ask"])
        wait_until(lambda: inbox.messages)
        ((_tag, reply),) = inbox.messages
        assert reply.chain == tuple(peer.name + port for port in chain)


def _others(node: Node, prefix: str) -> list[str]:
    return [port for port in ports_of(node) if port.startswith(prefix + "#")]


def test_a_port_that_got_one_answer_is_not_remembered(make_node: MakeNode) -> None:
    client, server = make_node(), make_node()
    port = server.port()
    server.serve(port, "add", lambda number: number + 1)
    server.rcv(port, "plain", lambda number, reply: server.snd(reply, number + 1))
    for number in range(5):
        assert client.call(port, "add", number) == number + 1
        assert client.syncal(30, port, "plain", number) == (number + 1,)
    assert _others(server, client.NODE()) == []


def test_a_port_that_gets_more_is_remembered(make_node: MakeNode) -> None:
    client, server = make_node(), make_node()
    inbox = Inbox(client)
    for number in range(3):
        server.snd(inbox.port, number)
    wait_until(lambda: inbox.messages == [(0,), (1,), (2,)])
    assert _others(server, client.NODE()) == [inbox.port]


def test_an_answer_is_dropped_if_all_ports_of_the_caller_are_shunned(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead stays dead, also for ports that were too many to remember one by one."""
    node = make_node()
    answers: list[Any] = []
    server = node.port()
    with RawPeer.dial(node, extras=SHORT).shake() as peer:
        monkeypatch.setattr(network_of(node).peers[peer.name].ports, "_are_shunned", True)

        def work() -> str:
            answers.append("answer")
            return "answer"

        node.serve(server, "ask", work)
        peer.send(["", "call", [f"#{UNIQUE}", None], server.partition("#")[2], "ask"])
        wait_until(lambda: answers)
        assert peer.answers(), "and nothing came before"
