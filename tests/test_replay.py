# SPDX-License-Identifier: MIT
"""Every recording of two Perl nodes is played against a node of ours, in the role of either."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from gevent import socket

from aemp_gevent.node.node import Node
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, RawPeer, free_address
from tests.support.recordings import RECORDINGS, Recording
from tests.support.replay import ReplayPeer, Stage, StageOfA, StageOfB, is_same, known, own
from tests.support.seams import network_of

SEEDS = range(3)

readable = pytest.mark.parametrize(
    "recording", [pytest.param(each, id=each.name) for each in RECORDINGS.values() if each.is_readable]
)
behind_tls = pytest.mark.parametrize(
    "recording", [pytest.param(each, id=each.name) for each in RECORDINGS.values() if not each.is_readable]
)
each_role = pytest.mark.parametrize("role", ["a", "b"])


def endpoint_of(node: Node) -> tuple[str, int]:
    endpoint = network_of(node).listeners.endpoints[0]
    return endpoint.host, endpoint.port


def found_elsewhere(recording: Recording) -> dict[str, list[str]]:
    """Return the addresses of nodes that a knows of, besides those of the recorded two."""
    answers = [sent.packet[2:] for sent in recording.exchange() if sent.packet[1:2] == ["g_found"]]
    return {node: addresses for node, addresses in answers if addresses and node != "a"}


@contextlib.contextmanager
def replay(make_node: MakeNode, recording: Recording, role: str, seed: int) -> Iterator[tuple[ReplayPeer, Stage]]:
    """Yield a replay peer that has connected with our node, which has the role of the recorded one."""
    node, dice = make_node(None), random.Random(seed)
    secret = recording.secret.decode()
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(contextlib.closing(socket.socket()))
        if role == "a":
            node.configure(nodeid="a", binds=["127.0.0.1:0"], secret=secret)
            answering = StageOfA(node, recording)
            stack.enter_context(answering.marked())
            stage: Stage = answering
            for name, addresses in found_elsewhere(recording).items():
                extras = (("provider", "AE-2.02"), ("gproto", "1"))
                other = RawPeer.dial("{}:{}".format(*endpoint_of(node)), name, secret=secret, extras=extras)
                stack.callback(other.close)
                other.shake().send(["", "g_slave", {"'l": {name: addresses}}], ["", "time", f"{name}#now"])
                while other.packet()[0] != "now":
                    pass
            sock.connect(endpoint_of(node))
            yield ReplayPeer(recording, "b", sock, dice), stage
        else:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            sock.settimeout(WAIT)
            mine = free_address()
            # A node is global if it is one of its own seeds.
            seeds = ["{}:{}".format(*sock.getsockname()), *([mine] if recording.is_global else [])]
            node.configure(nodeid="b", binds=[mine], secret=secret, seeds=seeds)
            stage = StageOfB(node, recording)
            connection, _ = sock.accept()
            with contextlib.closing(connection):
                yield ReplayPeer(recording, "a", connection, dice), stage


@readable
@each_role
@pytest.mark.parametrize("seed", SEEDS)
def test_our_node_does_what_the_recorded_one_did(
    make_node: MakeNode, recording: Recording, role: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    with replay(make_node, recording, role, seed) as (peer, stage):
        peer.greet()
        assert peer.prove(peer.side.framing) == peer.other.framing
        wait_until(lambda: stage.node.node_is_up(peer.side.node))
        if role == "b" and recording.is_global:
            wait_until(lambda: stage.node.info()["directory"] == "global", within=WAIT)
        peer.play(stage)
        assert is_same(own(known(peer.told), peer.other.node), own(known(peer.recorded_told), peer.other.node)), (
            f"our node told of {known(peer.told)}, and the recorded one of {known(peer.recorded_told)}"
        )
        assert (["", "g_global"] in peer.told) == (["", "g_global"] in peer.recorded_told)
        if isinstance(stage, StageOfB):
            stage.has_heard()
            assert len(stage.expected) > 6
            assert len(stage.expected_deaths) == 5
            assert [death.count for death in stage.deaths.values()] == [1] * len(stage.deaths)
    wait_until(lambda: not stage.node.node_is_up(peer.side.node))
    refused = [message for message in caplog.messages if message.startswith("request ")]
    assert refused == []


@behind_tls
@each_role
def test_greetings_of_a_node_with_tls_are_answered(make_node: MakeNode, recording: Recording, role: str) -> None:
    """What follows is encrypted. To a node that offers no TLS the recorded one would have proved itself like this."""
    with replay(make_node, recording, role, 0) as (peer, stage):
        peer.greet()
        assert peer.prove("json") == "json"
        wait_until(lambda: stage.node.node_is_up(peer.side.node))


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        pytest.param(["p", 1], ["p", 2], id="value"),
        pytest.param(["p", 1], ["p", 1, 1], id="length"),
        pytest.param(["p", 1.0], ["p", 1], id="float-for-int"),
        pytest.param(["p", b"x"], ["p", "x"], id="bytes"),
        pytest.param(["p", 2], ["p", "1"], id="another-truth"),
        pytest.param(["p", {"a": 1}], ["p", {"b": 1}], id="key"),
        pytest.param(["p", "t"], ["p", 1795332375.2], id="no-time"),
        pytest.param(["", "kil0", "p", "die", "E: bang"], ["", "kil0", "p", "die", "boom"], id="another-death"),
        pytest.param(["", "kil0", "q", "die", "E: boom"], ["", "kil0", "p", "die", "boom"], id="of-another-port"),
    ],
)
def test_a_replay_peer_tells_what_is_not_the_same(actual: list[Any], expected: list[Any]) -> None:
    assert is_same(expected, expected)
    assert not is_same(actual, expected)
