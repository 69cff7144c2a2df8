# SPDX-License-Identifier: MIT
"""Links: ports of one node and of two that die together, or get a message."""

from __future__ import annotations

import gc
import weakref

import gevent
import pytest

from aemp_gevent import SELF, Node, receive
from aemp_gevent.errors import InvalidPortError, NoPortContextError, PortKilled
from aemp_gevent.otp import link, trap_exits, unlink
from aemp_gevent.otp.links import links_of
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.toolkit import death_of
from tests.support.helpers import turns
from tests.support.networking import WAIT, MakeNode
from tests.support.seams import ports_of


class Pair:
    """Two ports with greenlets of their own, the first of which has linked itself with the second."""

    def __init__(self, one: Node, other: Node, *, traps: str = "") -> None:
        self.one, self.other = one, other
        self.seen: list[object] = []
        self.second = other.port_async(self.body, traps in {"second", "both"})
        self.first = one.port_async(self.body, traps in {"first", "both"}, self.second)
        wait_until(self.is_made, within=WAIT)
        other.flush()  # its monitor has arrived: otherwise it would hear of a port that does not exist

    def body(self, traps: bool, peer: str | None = None) -> None:
        if traps:
            trap_exits()
        if peer is not None:
            link(peer)
        while True:
            self.seen.append((SELF(), *receive()))

    def is_made(self) -> bool:
        halves = [links_of(self.one).find(self.first), links_of(self.other).find(self.second)]
        return all(half is not None and half.peers for half in halves)

    def death(self, port: str):
        return death_of(port, node=self.one if port == self.first else self.other)


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> tuple[Node, Node]:
    one = make_node()
    return one, one if request.param == "here" else make_node()


@pytest.mark.parametrize("killed", ["first", "second"])
def test_the_death_of_either_port_kills_the_other(nodes, killed):
    pair = Pair(*nodes)
    victim, other = (pair.first, pair.second) if killed == "first" else (pair.second, pair.first)
    death = pair.death(other)
    pair.one.kil(victim, "why", 1)
    assert death.get(timeout=WAIT) == ("why", 1)
    wait_until(lambda: not links_of(nodes[0])._ports and not links_of(nodes[1])._ports, within=WAIT)


@pytest.mark.parametrize("killed", ["first", "second"])
def test_a_normal_death_does_not(nodes, killed):
    pair = Pair(*nodes)
    victim, other = (pair.first, pair.second) if killed == "first" else (pair.second, pair.first)
    death = pair.death(victim)
    pair.one.kil(victim)
    death.get(timeout=WAIT)
    pair.one.snd(other, "still there")
    wait_until(lambda: (other, "still there") in pair.seen, within=WAIT)
    pair.one.kil(other)


@pytest.mark.parametrize("reason", [(), ("why", 1)])
@pytest.mark.parametrize("killed", ["first", "second"])
def test_a_port_that_traps_exits_gets_a_message(nodes, killed, reason):
    pair = Pair(*nodes, traps="both")
    victim, other = (pair.first, pair.second) if killed == "first" else (pair.second, pair.first)
    pair.one.kil(victim, *reason)
    wait_until(lambda: pair.seen, within=WAIT)
    assert pair.seen == [(other, "EXIT", victim, *reason)]
    pair.one.kil(other)


def test_the_loss_of_the_other_node_is_a_death(make_node):
    pair = Pair(make_node(), make_node())
    death = pair.death(pair.first)
    pair.other.shutdown()
    reason = death.get(timeout=WAIT)
    assert reason[:1] in {("shutdown",), ("transport_error",)}


def test_the_node_of_a_linked_port_acts_when_the_node_that_made_the_link_is_lost(make_node):
    pair = Pair(make_node(), make_node())
    death = pair.death(pair.second)
    with gevent.Timeout(WAIT):
        pair.one.shutdown()
    assert death.get(timeout=WAIT)


def test_a_link_with_a_port_that_does_not_exist_is_a_death(nodes):
    def body() -> None:
        link(f"{nodes[1].NODE()}#nobody")
        receive()

    death = death_of(nodes[0].port_async(body), node=nodes[0])
    assert death.get(timeout=WAIT)[0] == "no_such_port"


def test_unlinked_ports_do_not_die_together(nodes):
    pair = Pair(*nodes)
    pair.one.peval(pair.first, unlink, pair.second)
    wait_until(lambda: not links_of(pair.other).find(pair.second).peers, within=WAIT)
    pair.one.kil(pair.second, "why")
    turns(3)
    pair.one.snd(pair.first, "still there")
    wait_until(lambda: pair.seen, within=WAIT)
    pair.one.kil(pair.first)


def test_links_are_made_once_and_not_with_oneself(node):
    other = node.port()
    link(other)
    link(other)
    link(SELF())
    assert list(links_of(node).find(SELF()).peers) == [other]
    trap_exits()
    node.kil(other, "why")
    assert receive(timeout=WAIT) == ("EXIT", other, "why")
    assert receive(timeout=0, default=None) is None


def test_a_circle_of_links_dies_at_once(node):
    def body(*peers: str) -> None:
        link(peers[0])
        receive()

    first = node.port()
    second = node.port_async(body, first)
    third = node.port_async(body, second)
    turns(2)
    node.peval(first, link, third)
    deaths = [death_of(port, node=node) for port in (first, second, third)]
    node.kil(second, "why")
    assert [death.get(timeout=WAIT) for death in deaths] == [("why",)] * 3


def test_a_registered_name_links_the_port_that_has_it(node):
    other = node.port()
    node.reg(other, "other")
    node.peval(other, trap_exits)
    link(f"{node.NODE()}#other")
    assert links_of(node).find(other).peers


def test_a_linked_port_that_is_blocked_is_interrupted(node):
    killed = []

    def body() -> None:
        link(other)
        try:
            gevent.sleep(WAIT)
        except PortKilled as error:
            killed.append(error.reason)
            raise

    other = node.port()
    node.port_async(body)
    turns(2)
    node.kil(other, "why")
    wait_until(lambda: killed, within=WAIT)
    assert killed == [("why",)]


def test_trap_exits_returns_what_was_set_before(node):
    assert [trap_exits(), trap_exits(), trap_exits(on=False), trap_exits(on=False)] == [False, True, True, False]


def test_a_peer_that_may_not_kill_ports_cannot_link_them(make_node, caplog):
    careful = make_node(rules=[{"peer": "*", "kill": False}])
    other = make_node()
    port = careful.port()

    def body() -> None:
        link(port)
        receive()

    death = death_of(other.port_async(body), node=other)
    reason = death.get(timeout=WAIT)
    assert reason[0] == "link_refused"
    assert "the rules do not let" in reason[1]
    assert links_of(careful).find(port) is None


def test_a_refused_link_leaves_no_monitor(make_node):
    careful = make_node(rules=[{"peer": "*", "kill": False}])
    other = make_node()
    port = careful.port()
    refused = []

    def body() -> None:
        trap_exits()
        link(port)
        refused.append(receive())
        receive()

    linked = other.port_async(body)
    wait_until(lambda: refused, within=WAIT)
    remote = ports_of(other).get(port)
    wait_until(lambda: remote is None or not remote.monitors, within=WAIT)
    other.kil(linked)


def test_a_refused_link_is_reported_once(make_node):
    careful = make_node(rules=[{"peer": "*", "kill": False}])
    other = make_node()
    port = careful.port()
    with other.attach():
        trap_exits()
        link(port)
        assert receive("EXIT", timeout=WAIT)[:3] == ("EXIT", port, "link_refused")
        death = death_of(port, node=other)
        careful.kil(port, "why")
        assert death.get(timeout=WAIT) == ("why",)
        turns(3)
        assert receive(timeout=0, default=None) is None


def test_a_dead_port_does_not_watch_its_peers_any_more(node):
    linked, other = node.port(), node.port()
    node.peval(linked, link, other)
    node.kil(linked)
    turns(3)
    assert len(ports_of(node)[other].monitors) == 1, "the monitor of the dead port was left beside the own one"


def test_a_node_cannot_link_a_port_with_that_of_a_third_node(make_node):
    here, there = make_node(), make_node()
    port, third = here.port(), make_node().port()
    agent = there.spawn(here.NODE(), "aemp_gevent.otp.agent")
    with pytest.raises(Exception, match="the rules do not let the node of"):
        there.call(agent, "link", port, third)
    there.kil(agent)


def test_agents_do_not_stay(make_node):
    pair = Pair(make_node(), make_node())
    wait_until(lambda: pair.other.info()["ports"] == 1, within=WAIT, show=pair.other.info)


@pytest.mark.parametrize("function", [link, unlink])
def test_calls_outside_of_ports_are_refused(function):
    with pytest.raises(NoPortContextError, match=rf"{function.__name__}\(\)"):
        function("node#port")
    with pytest.raises(NoPortContextError, match=r"trap_exits\(\)"):
        trap_exits()


@pytest.mark.parametrize("function", [link, unlink])
def test_what_is_not_a_port_is_refused(node, function):
    with pytest.raises(InvalidPortError):
        function("not a port")


def test_a_node_with_links_is_collected():
    node = Node()
    node.peval(node.port(), link, node.port())
    gone = weakref.ref(node)
    node.shutdown()
    turns(3)
    del node
    gc.collect()
    assert gone() is None
