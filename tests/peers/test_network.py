# SPDX-License-Identifier: MIT
"""The links of a node: seeds, strangers, and the contents of a greeting."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

import aemp_gevent.peers.finding
import aemp_gevent.peers.listeners
import aemp_gevent.peers.network
import aemp_gevent.peers.seed
from aemp_gevent._version import PROVIDER
from aemp_gevent.errors import InvalidNoderefError, InvalidSettingError
from tests.support.helpers import wait_until
from tests.support.networking import (
    UNIQUE,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    free_address,
    node_factory,
)
from tests.support.seams import network_of


@pytest.fixture
def make_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeNode]:
    monkeypatch.setattr(aemp_gevent.peers.seed, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(aemp_gevent.peers.seed, "_LAST_PAUSE_SECONDS", 0.05)
    with node_factory() as make:
        yield make


def test_seeds_are_linked_to_from_the_start(make_node: MakeNode) -> None:
    seeds = [make_node() for _ in range(3)]
    host, port = seeds[2].NODE().split(":")
    node = make_node("127.0.0.1:0", seeds[0].NODE(), seeds[1].NODE(), f"localhost:{port}")
    wait_until(lambda: len(node.up_nodes()) == 3)
    for seed in seeds:
        wait_until(lambda: seed.up_nodes() == [node.NODE()])  # noqa: B023


def test_seed_that_is_down_at_first_is_dialled_until_it_is_up(make_node: MakeNode) -> None:
    address = free_address()
    node = make_node("127.0.0.1:0", address, "no-such-host.invalid:1")
    seed = make_node(address)
    wait_until(lambda: node.up_nodes() == [address])
    seed.shutdown()
    wait_until(lambda: node.up_nodes() == [])
    make_node(address)
    wait_until(lambda: node.up_nodes() == [address])


def test_seed_that_closes_its_link_is_dialled_again(make_node: MakeNode) -> None:
    with RawListener() as listener:
        make_node("127.0.0.1:0", listener.id)
        for _ in range(3):
            listener.accept().shake().close()


def test_node_that_is_its_own_seed_gives_it_up_in_silence(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    address, other = free_address(), make_node()
    node = make_node(address, address, f"localhost:{address.partition(':')[2]}", other.NODE())
    wait_until(lambda: node.up_nodes() == [other.NODE()])
    numeric, name, _other = network_of(node).seeds._seeds
    wait_until(lambda: len(network_of(node).seeds.workers) == 2)  # the name may get other addresses
    wait_until(lambda: [c.is_own for (e,), c in name.candidates.items() if e.host == "127.0.0.1"] == [True])
    assert numeric.chosen == name.chosen == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_node_that_is_its_own_seed_by_another_address_gives_it_up(make_node: MakeNode) -> None:
    behind = free_address()
    node = make_node(None)
    node.configure(nodeid=free_address(), binds=[behind], seeds=[behind], secret="s")
    network: Any = network_of(node)
    wait_until(lambda: network.seeds.workers == [])
    assert node.up_nodes() == []


def test_sending_to_ourselves_by_another_name_is_refused(make_node: MakeNode) -> None:
    behind = free_address()
    node = make_node(None)
    node.configure(nodeid="named", binds=[behind], secret="s")
    reasons: list[Any] = []
    node.mon(f"{behind}#x", lambda *reason: reasons.append(reason))
    wait_until(lambda: reasons)
    assert "cannot link to itself" in reasons[0][2]


def test_greeting_says_who_we_are(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node) as one, RawPeer.dial(node) as two:
        first, second = one.greet(), two.greet()
        assert first.node == node.NODE()
        assert first.auth_methods == ("hmac_sha3_512",)
        assert first.framings == ("msgpack", "cbor", "json")
        assert first.provider == PROVIDER
        assert first.extra("mproto") == "1"
        assert first.extra("peeraddr") == "{}:{}".format(*one.sock.getsockname())
        assert first.uniq
        assert first.uniq == second.uniq
        nonces = {peer.handshake._peer_lines[1] for peer in (one, two)}
        assert len(nonces) == 2
        assert all(len(nonce) == 88 for nonce in nonces)


def test_strangers_are_forgotten(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever node IDs they claim: memory is not theirs to fill."""
    monkeypatch.setattr(aemp_gevent.peers.network, "UNNEEDED_PEERS", 5)
    node = make_node()
    network = network_of(node)
    assert network is not None
    network._sweep_at = 5
    for number in range(30):
        with RawPeer.dial(node, f"stranger/{number}", secret="wrong") as stranger:
            stranger.greet()
            stranger.sock.sendall(stranger.handshake.prove())
            assert stranger.closed()
    wait_until(lambda: not network.strangers.links)
    assert len(network.peers) < 12


@pytest.mark.slow
def test_memory_of_nodes_that_are_gone_is_bounded(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Workers that come under a new name each time, are monitored, and crash."""
    monkeypatch.setattr(aemp_gevent.peers.network, "UNNEEDED_PEERS", 5)
    monkeypatch.setattr(aemp_gevent.peers.network, "MAX_LOST_PEERS", 10)
    node = make_node()
    network = network_of(node)
    assert network is not None
    network._sweep_at = 5
    for number in range(60):
        died = Deaths()
        with RawPeer.dial(node, f"worker/{number}", extras=(("uniq", "one"),)).shake() as worker:
            node.mon(f"worker/{number}#{UNIQUE}", died)
            assert worker.packet() == ["", "mon1", UNIQUE]
        died.wait()
    assert len(network.peers) < 40
    assert "worker/59" in network.peers
    assert "worker/0" not in network.peers
    assert len(network.scheduler.ports) < 100
    assert "forgetting which ports" in caplog.text


def test_shutdown_closes_strangers_too(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node) as stranger:
        stranger.greet()
        node.shutdown()
        assert stranger.closed()


def test_two_nodes_have_links_of_their_own(make_node: MakeNode) -> None:
    one, two, three = make_node(), make_node(), make_node()
    inboxes = [Inbox(three) for _ in range(2)]
    one.snd(inboxes[0], 1)
    wait_until(lambda: inboxes[0].messages)
    assert two.up_nodes() == []
    two.snd(inboxes[1], 2)
    wait_until(lambda: inboxes[1].messages)
    assert sorted(three.up_nodes()) == sorted([one.NODE(), two.NODE()])


# --- wrong seeds and addresses ---------------------------------------------------------------


SEEDS = ["a:b:c", "host:http", "host:70000", "[::1", "two words", "slave/x", "anon/x", "unix:relative", "4" * 5000]


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: repr(seed[:20]))
@pytest.mark.parametrize("call", ["initialise_node", "configure"])
def test_malformed_seed_is_refused_at_once(make_node: MakeNode, seed: str, call: str) -> None:
    """It would never be reached, in silence."""
    node = make_node(None)
    with pytest.raises(InvalidSettingError, match="setting 'seeds'") as caught:
        if call == "initialise_node":
            node.initialise_node("127.0.0.1:0", "127.0.0.1:1", seed, secret="s")
        else:
            node.configure(nodeid="named", seeds=["127.0.0.1:1", seed], secret="s")
    assert caught.value.name == "seeds"
    node.initialise_node("127.0.0.1:0", secret="s")


def test_huge_node_name_is_refused(make_node: MakeNode) -> None:
    """No greeting could say it."""
    node = make_node(None)
    for name in ("n" * 5000, "n/" * 2500, "n" * 256):
        with pytest.raises(InvalidSettingError):
            node.configure(nodeid=name, secret="s")
    node.configure(nodeid="n" * 255, secret="s")


@pytest.mark.parametrize("noderef", [4041, b"127.0.0.1:0", ["127.0.0.1:0"], 0, False], ids=repr)
def test_noderef_that_is_not_a_string_is_refused(make_node: MakeNode, noderef: Any) -> None:
    with pytest.raises(InvalidNoderefError, match="a noderef must be a string"):
        make_node(None).initialise_node(noderef, secret="s")


@pytest.mark.parametrize(("name", "value"), [("nodeid", "named"), ("nodeid", None), ("seeds", ["127.0.0.1:1"])])
def test_what_initialise_node_takes_by_position_is_refused_by_name(make_node: MakeNode, name: str, value: Any) -> None:
    with pytest.raises(InvalidSettingError, match=f"setting '{name}'.*by position") as caught:
        make_node(None).initialise_node("127.0.0.1:0", secret="s", **{name: value})
    assert caught.value.name == name


def test_timeouts_may_be_longer_than_the_system_takes(make_node: MakeNode) -> None:
    """Links come up, whichever side dials; Linux has no keep-alives of 100 000 s."""
    patient = {"heartbeat_timeout": 100_000, "monitor_timeout": 100_000.0, "handshake_timeout": 100_000}
    one, two, other = make_node(**patient), make_node(**patient), make_node()
    for sender, receiver in ((one, two), (other, one), (two, other)):
        inbox, died = Inbox(receiver), Deaths()
        sender.mon(inbox, died)
        sender.snd(inbox, "hello")
        wait_until(lambda: inbox.messages)  # noqa: B023
        assert died.count == 0
