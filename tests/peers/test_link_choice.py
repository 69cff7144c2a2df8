# SPDX-License-Identifier: MIT
"""Two nodes that dial each other at once: every message arrives once and in order, or its sender hears of the loss.

The first half drives real nodes, peers and links through random interleavings, over
connections that live in memory: what is written is flushed, delivered and broken in
explicit steps, which a seeded schedule picks. It checks what ``two_links_model.py``
of the specification checks, of the code instead of the rules. The second half uses
sockets, and processes.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import gevent
import pytest

import aemp_gevent.links.handshaking
import aemp_gevent.links.link
import aemp_gevent.node.node_ports
from aemp_gevent.node.node import Node
from aemp_gevent.transport.tls_transport import TlsTransport
from tests.peers.simulation import (
    HUB,
    InlineScheduler,
    World,
    make_fragments_small,
)
from tests.support.helpers import wait_until
from tests.support.native import sleep
from tests.support.networking import (
    OUR_PROVIDER,
    SECRET,
    UNIQUE,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    dial_each_other,
    line_of,
    process,
)
from tests.support.seams import network_of
from tests.support.thoroughness import repeats


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run nodes inline, and make links take the ends of connections in memory for sockets."""
    monkeypatch.setattr(aemp_gevent.node.node_ports, "Scheduler", InlineScheduler)
    monkeypatch.setattr(
        aemp_gevent.links.handshaking,
        "TlsTransport",
        lambda inner, tls, _hub, secured: TlsTransport(inner, tls, HUB, secured),  # type: ignore[arg-type]
    )
    monkeypatch.setattr(aemp_gevent.links.link, "SLICE_SECONDS", math.inf)  # the loop has no turns here
    monkeypatch.setattr(logging.getLogger("aemp_gevent"), "disabled", True)


def run(seed: int, monkeypatch: pytest.MonkeyPatch, **options: int) -> World:
    world = World(seed, **options)
    world.play(f"seed {seed} {options}", monkeypatch)
    return world


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "runs"),
    [
        pytest.param({"seeds": 0, "breaks": 0, "sessions": 1}, repeats(100, 375), id="two-connections"),
        pytest.param({"seeds": 1, "breaks": 0, "sessions": 1}, repeats(70, 250), id="three-connections"),
        pytest.param({"seeds": 0, "breaks": 1, "sessions": 1}, repeats(200, 750), id="two-connections-one-breaks"),
        pytest.param({"seeds": 1, "breaks": 1, "sessions": 1}, repeats(130, 375), id="three-connections-one-breaks"),
        pytest.param({"seeds": 1, "breaks": 2, "sessions": 3}, repeats(130, 375), id="monitored-again"),
        pytest.param({"seeds": 1, "breaks": 0, "sessions": 1, "tls": True}, repeats(20, 75), id="TLS"),
        pytest.param({"seeds": 1, "breaks": 2, "sessions": 3, "tls": True}, repeats(40, 150), id="TLS-breaks"),
        pytest.param({"seeds": 1, "breaks": 0, "sessions": 1, "large": True}, repeats(70, 250), id="large-messages"),
        pytest.param({"seeds": 1, "breaks": 2, "sessions": 3, "large": True}, repeats(130, 375), id="large-ones-break"),
        pytest.param(
            {"seeds": 1, "breaks": 0, "sessions": 1, "tls": True, "large": True},
            repeats(30, 150),
            id="TLS-large-messages",
        ),
    ],
)
def test_messages_arrive_in_order_or_their_sender_hears_of_the_loss(
    simulated: None, monkeypatch: pytest.MonkeyPatch, options: dict[str, int], runs: int
) -> None:
    """A seed that failed is printed, with the steps of its run."""
    make_fragments_small(monkeypatch)
    seen: Counter[str] = Counter()
    # More of them if the rules that matter were hardly put to the test.
    while seen["runs"] < runs or (seen["moved to another connection"] <= runs / 100 and seen["runs"] < 4 * runs):
        world = run(seen["runs"], monkeypatch, **options)
        seen["runs"] += 1
        seen["moved to another connection"] += bool(world.moved)
        seen["lost"] += not all(side.watching for side in world.sides)
    print(f"{options}: {dict(seen)}")
    assert seen["moved to another connection"] > runs / 100, seen
    assert bool(seen["lost"]) == bool(options["breaks"]), seen


# --- with sockets ------------------------------------------------------------------------


@pytest.mark.slow
def test_two_nodes_that_dial_each_other_at_once_lose_nothing(make_node: MakeNode) -> None:
    for _ in range(40):
        one, two = make_node(), make_node()
        dial_each_other(one, two)
        assert one.up_nodes() == [two.NODE()]
        wait_until(lambda: len(open_links(one)) == len(open_links(two)) == 1)  # noqa: B023
        one.shutdown()
        two.shutdown()


def open_links(node: Node) -> list[Any]:
    return [link for peer in network_of(node).peers.values() for link in peer._links]


# --- restart or impostor -------------------------------------------------------------------


def incarnation(name: str) -> tuple[tuple[str, str], ...]:
    return (*OUR_PROVIDER, ("uniq", name))


def test_second_node_of_the_same_id_is_refused_while_the_first_answers(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of what it sends is handled, even what comes in one piece with its auth line."""
    node = make_node()
    inbox = Inbox(node)
    name = inbox.port.partition("#")[2]
    down: list[Any] = []
    node.mon_nodes(lambda other, up, *reason: down.append((other, up)))
    with (
        RawPeer.dial(node, extras=incarnation("first")).shake() as first,
        RawPeer.dial(node, extras=incarnation("second")) as second,
    ):
        second.greet()
        # The node has sent its auth line, too: it proves itself as soon as it was greeted.
        while second.handshake._buffer == b"" and second.handshake.state.name != "VERIFIED":
            second.handshake.receive(second._read())
        second.sock.sendall(second.handshake.prove() + second.encode([name, "early"]))
        assert first.packet()[:2] == ["", "time"]
        second.send([name, "late"])
        first.send(["devnull"])
        request, verb, text = second.packet()
        assert (request, verb) == ("", "refused")
        assert "give one of the two another nodeid" in text
        assert second.closed()
        first.send([name, "from the first"])
        wait_until(lambda: inbox.messages)
        assert first.answers()
    assert inbox.messages == [("from the first",)]
    assert [record.levelname for record in caplog.records if "second node" in record.getMessage()] == ["ERROR"]
    assert down[0] == ("127.0.0.1:9", True)


def test_refused_node_says_so(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    node, died = make_node(), Deaths()
    with RawListener() as listener:
        node.mon(f"{listener.id}#p", died)
        with listener.accept(extras=incarnation("x")).shake() as peer:
            peer.send(["", "refused", "somebody else is alive"])
            assert "somebody else is alive" in died.wait()[2]
            assert peer.closed()
    assert "ERROR" in [record.levelname for record in caplog.records]
    assert "somebody else is alive" in caplog.text


def test_restarted_node_is_taken_in_when_the_old_one_is_silent(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its predecessor's downs come first, and what it sent meanwhile is handled after them."""
    monkeypatch.setattr("aemp_gevent.peers.link_choice.IMPOSTOR_SECONDS", 0.2)
    node = make_node()
    events: list[Any] = []
    name = node.port(lambda *message: events.append(message)).partition("#")[2]
    with (
        RawPeer.dial(node, extras=incarnation("first")).shake() as first,
        RawPeer.dial(node, extras=incarnation("second")) as second,
    ):
        node.mon_nodes(lambda other, up, *reason: events.append(("node", up)))
        node.mon("127.0.0.1:9#p", lambda *reason: events.append(("died", *reason[:2])))
        assert first.packet() == ["", "mon1", "p"]
        second.shake()
        second.send([name, "from the second"])
        wait_until(lambda: len(events) == 4)
        assert events == [
            ("died", "transport_error", "127.0.0.1:9"),
            ("node", False),
            ("node", True),
            ("from the second",),
        ]
        assert second.answers()
        assert first.closed()


@pytest.mark.slow
def test_old_node_is_given_its_time_although_our_own_loop_was_blocked(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than it has: nobody can be heard meanwhile."""
    monkeypatch.setattr("aemp_gevent.peers.link_choice.IMPOSTOR_SECONDS", 0.3)
    monkeypatch.setattr("aemp_gevent.peers.link_choice._PROBE_SECONDS", 0.05)
    node, died = make_node(), Deaths()
    with (
        RawPeer.dial(node, extras=incarnation("first")).shake() as first,
        RawPeer.dial(node, extras=incarnation("second")) as second,
    ):
        node.mon("127.0.0.1:9#p", died)
        assert first.packet() == ["", "mon1", "p"]
        second.shake()
        assert first.packet()[:2] == ["", "time"]
        sleep(0.35)  # the whole loop
        gevent.sleep(0.01)  # timers that are due come first
        first.send(["devnull"])
        assert second.packet()[:2] == ["", "refused"]
        assert second.closed()
        assert first.answers()
        assert died.count == 0


def test_new_incarnation_is_believed_to_be_alive(make_node: MakeNode) -> None:
    """What was believed dead of the old process is forgotten."""
    node, died = make_node(), Deaths()
    with RawPeer.dial(node, extras=incarnation("first")).shake() as first:
        node.mon(f"127.0.0.1:9#{UNIQUE}", died)
        assert first.packet() == ["", "mon1", UNIQUE]
    assert died.wait()[0] == "transport_error"
    with RawPeer.dial(node, extras=incarnation("first")).shake() as same:
        node.snd(f"127.0.0.1:9#{UNIQUE}", "shunned")
        node.snd("127.0.0.1:9#q", "not shunned")
        assert same.packet() == ["q", "not shunned"]
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=incarnation("second")).shake() as other:
        node.snd(f"127.0.0.1:9#{UNIQUE}", "alive")
        assert other.packet() == [UNIQUE, "alive"]


PROCESS = """
import sys
import gevent
import aemp_gevent as mp

mp.configure(nodeid="twin", seeds=[sys.argv[1]])
mp.mon_nodes(lambda node, up, *reason: print("up" if up else "down", flush=True))
mp.reg(mp.port(lambda reply: mp.snd(reply, sys.argv[2])), "who")
print("ready", flush=True)
with mp.attach():
    mp.receive()
"""


@pytest.mark.slow
def test_second_process_of_the_same_id_is_refused_and_a_restarted_one_taken_in(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node = make_node()
    with process(PROCESS, node.NODE(), "first") as first:
        assert [line_of(first), line_of(first)] == ["ready", "up"]
        died = Deaths()
        node.mon("twin#who", died)
        with process(PROCESS, node.NODE(), "second") as second:
            assert line_of(second) == "ready"
            # Up as far as it knows, until it learns that it is not welcome.
            assert [line_of(second), line_of(second)] == ["up", "down"]
            assert node.syncal(5, "twin#who") == ("first",)
            assert died.count == 0
        assert "refused a second node" in caplog.text
        first.kill()
        assert died.wait()[:2] == ("transport_error", "twin")
    with process(PROCESS, node.NODE(), "third") as third:
        assert [line_of(third), line_of(third)] == ["ready", "up"]
        wait_until(lambda: node.node_is_up("twin"))
        assert node.syncal(5, "twin#who") == ("third",)


@pytest.mark.usefixtures("open_scheduler")
def test_loss_that_is_struck_while_another_process_waits_is_reported_before_that_is_let_in(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strike comes when the hub was asked to see the loss through, and before it is begun here."""
    node = make_node()
    events: list[Any] = []
    name = node.port(lambda *message: events.append(message)).partition("#")[2]
    with (
        RawPeer.dial(node, extras=incarnation("first")).shake() as first,
        RawPeer.dial(node, extras=incarnation("second")) as second,
    ):
        node.mon("127.0.0.1:9#p", lambda *reason: events.append(("died", *reason[:2])))
        assert first.packet() == ["", "mon1", "p"]
        second.shake()
        second.send([name, "from the second"])
        peer: Any = network_of(node).peers["127.0.0.1:9"]
        wait_until(lambda: peer._newcomer)

        def ask_and_be_struck(call: Callable[..., object], *args: object) -> None:
            monkeypatch.undo()
            node.scheduler.call_on_hub(call, *args)
            raise KeyboardInterrupt

        monkeypatch.setattr(node.scheduler, "call_on_hub", ask_and_be_struck)
        with pytest.raises(KeyboardInterrupt):
            peer._lose("by the test")
        wait_until(lambda: len(events) == 2, show=lambda: events)
        assert events == [("died", "transport_error", "127.0.0.1:9"), ("from the second",)]
        assert second.answers()
        assert first.closed()
