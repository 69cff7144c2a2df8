# SPDX-License-Identifier: MIT
"""How a slave finds a master that takes it in, and which slaves are refused."""

from __future__ import annotations

import logging
from typing import Any

import gevent
import pytest

from aemp_gevent import InvalidSettingError, Node
from aemp_gevent.errors import InvalidNoderefError, NoMasterError
from aemp_gevent.peers import master_search
from aemp_gevent.testing import MemoryNetwork
from tests.peers.slave_nodes import QUICK, Place
from tests.support.helpers import wait_until
from tests.support.networking import (
    OUR_PROVIDER,
    SECRET,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    free_address,
)
from tests.support.seams import network_of, ports_of


def test_first_master_that_answers_is_taken(slave_network: MemoryNetwork) -> None:
    master = slave_network.node(**QUICK)
    slave = slave_network.node("slave/one", "10.9.9.9:4040", master.NODE(), **QUICK)
    assert slave.NODE() == f"slave/one@{master.NODE()}"


@pytest.mark.slow
def test_master_may_start_later(slave_network: MemoryNetwork) -> None:
    start = gevent.spawn_later(0.3, slave_network.node, "10.5.0.1:4040", **QUICK)
    slave = slave_network.node("slave/one", "10.5.0.1:4040", **QUICK)
    assert slave.NODE() == "slave/one@10.5.0.1:4040"
    start.get()


@pytest.mark.slow
def test_no_master_says_what_went_wrong_with_each_and_leaves_the_node_as_it_was(make_node: MakeNode) -> None:
    node, nobody, other = Node(), free_address(), make_node(secret="another")
    port = node.port()
    with pytest.raises(NoMasterError) as caught, RawListener() as silent:
        node.initialise_node(
            "slave/x", nobody, other.NODE(), silent.id, secret=SECRET, **{**QUICK, "monitor_timeout": 1}
        )
    assert list(caught.value.failures) == [nobody, other.NODE(), silent.id]
    assert "refused" in caught.value.failures[nobody]
    assert "secret" in caught.value.failures[other.NODE()]
    assert "within" in caught.value.failures[silent.id] or "no handshake" in caught.value.failures[silent.id]
    assert all(master in str(caught.value) for master in caught.value.failures)
    assert node.NODE().startswith("anon/") and node.port().startswith(node.NODE())
    assert port in ports_of(node)
    master = make_node()
    node.initialise_node("slave/x", master.NODE(), secret=SECRET)
    assert node.NODE() == f"slave/x@{master.NODE()}"
    node.shutdown(0.2)


@pytest.mark.slow
def test_timeout_of_the_callers_own_passes(make_node: MakeNode) -> None:
    node = Node()
    with RawListener() as silent, pytest.raises(gevent.Timeout), gevent.Timeout(0.3):
        node.initialise_node("slave/x", silent.id, secret=SECRET)
    assert node.NODE().startswith("anon/")


@pytest.mark.slow
def test_second_slave_of_the_same_name_is_refused(place: Place) -> None:
    with pytest.raises(NoMasterError, match="it refuses this node"):
        place.network.node("slave/one", place.m1.NODE(), **{**QUICK, "monitor_timeout": 1.5})
    inbox = Inbox(place.s1)
    place.public.snd(inbox, "still there")
    wait_until(lambda: inbox.messages == [("still there",)])


@pytest.mark.slow
def test_the_error_says_what_a_master_answered_before_it_had_too_little_time(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = master_search._ask, []

    def ask_once(*args: Any) -> None:
        asked.append(args)
        try:
            ask(*args)
        finally:
            for heard in ("begins", "ended", "failed"):  # from now on, nothing is
                monkeypatch.setattr(master_search.MasterCandidate, heard, lambda *_: False)

    monkeypatch.setattr(master_search, "_ask", ask_once)
    with pytest.raises(NoMasterError, match="it refuses this node"):
        place.network.node("slave/one", place.m1.NODE(), **{**QUICK, "monitor_timeout": 0.7})
    assert len(asked) > 1


@pytest.mark.parametrize("name", ["backend", "127.0.0.1"])
def test_master_of_another_name_than_its_address(make_node: MakeNode, name: str) -> None:
    master = Node()
    master.configure(nodeid=name if name == "backend" else "127.0.0.1:4567", binds=["127.0.0.1:0"], secret=SECRET)
    try:
        bound = network_of(master).listeners.endpoints[0]
        slave = make_node("slave/x", str(bound))
        assert slave.NODE() == f"slave/x@{master.NODE()}"
        inbox = Inbox(slave)
        master.snd(inbox, "hello")
        wait_until(lambda: inbox.messages == [("hello",)])
    finally:
        master.shutdown(0.2)


@pytest.mark.parametrize(
    ("noderef", "options", "error", "text"),
    [
        pytest.param("slave/x", {}, InvalidSettingError, "needs masters", id="no-master"),
        pytest.param("slave/x@1.2.3.4:5", {}, InvalidNoderefError, "give the masters as seeds", id="whole-id"),
        pytest.param("slave/a b", {}, InvalidNoderefError, "consists of", id="blank"),
        pytest.param("slave/" + "x" * 300, {}, InvalidNoderefError, "at most", id="long"),
        pytest.param("slave/x", {"binds": ["*:0"], "seeds": "y"}, InvalidSettingError, "cannot listen", id="binds"),
    ],
)
def test_bad_slave_is_refused_at_once(noderef: str, options: dict[str, Any], error: type, text: str) -> None:
    node = Node()
    seeds = ["127.0.0.1:1"] if options.pop("seeds", None) else []
    with pytest.raises(error, match=text):
        node.initialise_node(noderef, *seeds, secret=SECRET, **options)


def test_configure_makes_a_slave(make_node: MakeNode) -> None:
    master, node = make_node(), Node()
    node.configure(nodeid="slave/%u", seeds=[master.NODE()], secret=SECRET)
    assert node.NODE().endswith("@" + master.NODE())
    node.shutdown(0.2)


def test_slave_that_joins_a_named_master_is_not_news(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    """It greets as the slave of the address that it dials, hears the master's name, and comes again as that one's."""
    place = free_address()
    master = make_node(None)
    master.configure(nodeid="backend", binds=[place], secret=SECRET)
    slave = make_node("slave/one", place)
    assert slave.NODE() == "slave/one@backend"
    wait_until(lambda: master.node_is_up(slave.NODE()))
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert master.refusals == {}


@pytest.mark.parametrize("name", ["slave/one@other", "slave/one@"])
def test_what_cannot_be_our_slave_is_still_refused_by_a_named_master(
    make_node: MakeNode, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    place = free_address()
    master = make_node(None)
    master.configure(nodeid="backend", binds=[place], secret=SECRET)
    with RawPeer.dial(place, name, extras=OUR_PROVIDER) as peer:
        peer.greet()
        assert peer.closed()
    wait_until(lambda: master.refusals == {"handshake": 1})
    assert "a slave of another node" in caplog.text
