# SPDX-License-Identifier: MIT
"""Every recording of two Perl nodes is played against a node of ours, in the role of either."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from gevent import socket

from aemp_gevent.node import Node
from tests.helpers import wait_until
from tests.networking import WAIT, MakeNode, node_factory
from tests.recordings import RECORDINGS, Recording
from tests.replay import LATER, ReplayPeer, Stage, StageOfA, StageOfB, is_same

SEEDS = range(3)

readable = pytest.mark.parametrize(
    "recording", [pytest.param(each, id=each.name) for each in RECORDINGS.values() if each.is_readable]
)
behind_tls = pytest.mark.parametrize(
    "recording", [pytest.param(each, id=each.name) for each in RECORDINGS.values() if not each.is_readable]
)
each_role = pytest.mark.parametrize("role", ["a", "b"])


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    with node_factory() as make:
        yield make


def endpoint_of(node: Node) -> tuple[str, int]:
    assert node._network is not None
    endpoint = node._network._listeners[0].endpoint
    return endpoint.host, endpoint.port


@contextlib.contextmanager
def replay(make_node: MakeNode, recording: Recording, role: str, seed: int) -> Iterator[tuple[ReplayPeer, Stage]]:
    """Give a replay peer that has connected with our node, which has the role of the recorded one."""
    node, dice = make_node(None), random.Random(seed)
    secret = recording.secret.decode()
    with contextlib.closing(socket.socket()) as sock:
        if role == "a":
            node.configure(nodeid="a", binds=["127.0.0.1:0"], secret=secret)
            stage: Stage = StageOfA(node, recording)
            sock.connect(endpoint_of(node))
            yield ReplayPeer(recording, "b", sock, dice), stage
        else:
            sock.bind(("127.0.0.1", 0))
            sock.listen()
            sock.settimeout(WAIT)
            node.configure(nodeid="b", binds=[], secret=secret, seeds=["{}:{}".format(*sock.getsockname())])
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
        peer.play(stage)
        if isinstance(stage, StageOfB):
            stage.has_heard()
            assert len(stage.expected) > 6
            assert len(stage.expected_deaths) == 5
            assert [death.count for death in stage.deaths.values()] == [1] * len(stage.deaths)
    wait_until(lambda: not stage.node.node_is_up(peer.side.node))
    refused = [message for message in caplog.messages if message.startswith("request ")]
    assert [message for message in refused if message.split("'")[1] not in LATER] == []


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
