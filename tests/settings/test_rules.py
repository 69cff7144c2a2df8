# SPDX-License-Identifier: MIT
"""Rights of peers: rules by node ID, and what happens to refused requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult

from aemp_gevent import Node, PeerRule, RemoteError
from aemp_gevent.calls.answers import wait_for_answer
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.settings.rules import EVERYTHING, read_rule, rights_of
from tests.support import node_functions
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, WAIT, Deaths, Inbox, MakeNode, RawPeer, name_of, node_factory
from tests.support.seams import network_of

SPAWN = "AnyEvent::MP::_spawn"
ECHO = "tests.support.node_functions.echo"
NOTE = "tests.support.node_functions.note"
OURS = (*OUR_PROVIDER, ("uniq", "once"), ("gproto", "1"))
WEB = "web-1"
"""The node that the rules are about."""
OTHER = "db-1"
"""One that they are not about."""


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    node_functions.called.clear()
    with node_factory() as make:
        yield make


def raw(node: Node, name: str = WEB) -> RawPeer:
    return RawPeer.dial(node, name, extras=OURS).shake()


def packet_of(peer: RawPeer) -> list[Any]:
    """Return the next packet that is not about the directory."""
    while True:
        packet = peer.packet()
        if not (len(packet) > 1 and str(packet[1]).startswith(("g_global", "g_set"))):
            return packet


def synced(peer: RawPeer) -> None:
    """Wait until the node has handled everything; it says of refused functions that they were not run."""
    peer.send(["", "time", f"{peer.name}#pong", "pong"])
    while (packet := packet_of(peer))[:2] == ["", "not_done"]:
        pass
    assert packet[:2] == ["pong", "pong"], packet


# --- which rule counts -----------------------------------------------------------------------

RULES = (
    PeerRule(peer="web-admin"),
    PeerRule(peer="web-*", spawn=False, directory="read"),
    PeerRule(peer="10.0.0.?:*", kill=False),
    PeerRule(peer="[[]::1]:*", relay=False, publish=False),
)


@pytest.mark.parametrize(
    ("nodes", "rights"),
    [
        (["web-admin"], PeerRule(peer="web-admin")),
        (["web-1"], RULES[1]),
        (["Web-1"], EVERYTHING),
        (["10.0.0.7:4040"], RULES[2]),
        (["10.0.0.77:4040"], EVERYTHING),
        (["[::1]:4040"], RULES[3]),
        (["db"], EVERYTHING),
        (["db", "web-1"], RULES[1]),
        (
            ["10.0.0.7:1", "web-1", "[::1]:1"],
            PeerRule(peer="*", spawn=False, kill=False, directory="read", relay=False, publish=False),
        ),
    ],
)
def test_first_matching_rule_counts_and_masters_rules_apply_too(nodes: list[str], rights: PeerRule) -> None:
    found = rights_of(RULES, *nodes)
    for right in ("spawn", "kill", "directory", "relay", "publish", "subscribe", "may_read", "may_write"):
        assert getattr(found, right) == getattr(rights, right), right


def test_without_rules_a_peer_may_do_what_the_other_settings_allow() -> None:
    assert rights_of((), "web-1") is EVERYTHING
    assert PeerRule(peer="*", spawn=True, kill=True, directory="write", relay=True) == EVERYTHING


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("web-*", "mapping"),
        ({"spawn": False}, "'peer'"),
        ({"peer": ""}, "pattern"),
        ({"peer": 5}, "pattern"),
        ({"peer": "x", "spwan": False}, "did you mean 'spawn'"),
        ({"peer": "x", 5: False}, "no key 5"),
        ({"peer": "x", "kill": "no"}, "True or False"),
        ({"peer": "x", "relay": 0}, "True or False"),
        ({"peer": "x", "publish": ["room.*"]}, "True or False"),
        ({"peer": "x", "directory": "rw"}, "'none', 'read', 'write'"),
        ({"peer": "x", "directory": None}, "'none', 'read', 'write'"),
    ],
)
def test_a_value_that_is_not_a_rule_is_refused_with_the_reason(rule: object, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        read_rule(rule)


# --- running code ------------------------------------------------------------------------------


def test_peer_that_may_not_spawn_learns_it_from_its_monitor(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Real nodes on both sides, and the same names allowed to others."""
    a = make_node(rules=[{"peer": "web-*", "spawn": False}], allow_spawn=["tests.support.node_functions.*"])
    web, db = Node(), Node()
    try:
        for node, name in ((web, WEB), (db, OTHER)):
            node.configure(nodeid=name, binds=["127.0.0.1:0"], secret="a secret of the tests")
            deaths = Deaths()
            port = node.spawn(a.NODE(), NOTE, name)
            node.mon(port, deaths)
            if node is web:
                reason = deaths.wait()
                assert reason[:2] == ("spawn_refused", NOTE)
                assert "rules do not let web-1 run code" in reason[2]
        wait_until(lambda: node_functions.called)
    finally:
        web.shutdown(0.2)
        db.shutdown(0.2)
    assert [args[1:] for args in node_functions.called] == [(OTHER,)]
    assert a.refusals == {"spawn": 1}
    assert "rules do not let web-1" in caplog.text


def test_peer_that_may_not_spawn_cannot_call_functions_or_evaluate_code(make_node: MakeNode) -> None:
    node = make_node(
        rules=[{"peer": "web-*", "spawn": False}], allow_spawn=["tests.support.node_functions.*"], allow_eval=True
    )
    with raw(node) as web, raw(node, OTHER) as db:
        for peer in (web, db):
            peer.send(
                ["", NOTE, peer.name],
                ["", "eval", "__import__('tests.support.node_functions').support.node_functions.called.append(1)"],
            )
            peer.send(["", "eval", "6 * 7", f"{peer.name}#r"])
            synced(peer) if peer is web else wait_until(lambda: packet_of(db) == ["r", "", 42])
        wait_until(lambda: node.refusals == {"spawn": 3}, show=lambda: node.refusals)
        wait_until(lambda: len(node_functions.called) == 2)
    assert [args if args == 1 else args[1:] for args in node_functions.called] == [(OTHER,), 1]


def test_rules_cannot_allow_what_the_settings_refuse_to_all(make_node: MakeNode) -> None:
    node = make_node(rules=[{"peer": "*", "spawn": True}], allow_spawn=["tests.support.node_functions.*"], secure=True)
    with raw(node) as peer:
        peer.send(["", SPAWN, "p", NOTE], ["", "mon1", "p"])
        assert packet_of(peer)[:4] == ["", "kil0", "p", "spawn_refused"]
    assert node.refusals == {"spawn": 1}


# --- killing -----------------------------------------------------------------------------------


def test_peer_that_may_not_kill_can_kill_only_what_it_spawned(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Its orphans among them: a node kills those when a lost link returns."""
    node = make_node(rules=[{"peer": "web-*", "kill": False}], allow_spawn=["tests.support.node_functions.*"])
    node_functions.node = node
    inbox = Inbox(node)
    with raw(node) as web, raw(node, "web-2") as other, raw(node, OTHER) as db:
        web.send(["", SPAWN, "child", ECHO, f"{WEB}#r"], ["", "mon1", "child"])
        synced(web)
        node.mon(f"{node.NODE()}#child", lambda *reason: None)  # it has several monitors now
        other.send(["", "kil1", "child", "by another"], ["", "kil1", name_of(inbox.port), "x"])
        synced(other)
        web.send(["", "kil1", name_of(inbox.port), "x"], ["", "kil1", "child", "mine"])
        assert packet_of(web) == ["", "kil0", "child", "mine"]
        assert node.refusals == {"kill": 3}
        node.snd(inbox, "alive")
        wait_until(lambda: inbox.messages)
        deaths = Deaths()
        node.mon(inbox.port, deaths)
        db.send(["", "kil1", name_of(inbox.port), "may"])
        assert deaths.wait() == ("may",)
    assert "do not let web-2 kill ports" in caplog.text


def test_a_child_that_has_only_its_parent_for_a_monitor_can_be_killed_by_it(make_node: MakeNode) -> None:
    node = make_node(rules=[{"peer": "web-*", "kill": False}], allow_spawn=["tests.support.node_functions.*"])
    node_functions.node = node
    with raw(node) as web:
        web.send(["", SPAWN, "child", ECHO, f"{WEB}#r"], ["", "kil1", "child"])
        synced(web)
        wait_until(lambda: f"{node.NODE()}#child" not in node.scheduler.ports)
    assert node.refusals == {}


@pytest.mark.parametrize("how", ["call", "call_async", "cal", "syncal"])
def test_peer_that_may_not_kill_may_report_that_a_request_failed(make_node: MakeNode, how: str) -> None:
    """By the death of the reply port, which is there for nothing else."""
    node = make_node(rules=[{"peer": "*", "kill": False}])
    server = make_node()
    port = server.port()
    server.serve(port, fail=lambda: "nine".index("x"))
    answers: list[Any] = []
    if how == "cal":
        node.cal(port, "fail", cb=lambda *answer: answers.append(answer), timeout=WAIT)
        wait_until(lambda: answers)
        assert answers == [()]
    elif how == "syncal":
        assert node.syncal(None, port, "fail") == ()
    else:
        with pytest.raises(RemoteError, match="ValueError: substring not found"):
            node.call(port, "fail") if how == "call" else node.call_async(port, "fail").get()
    assert node.refusals == {}


@pytest.mark.parametrize(
    ("how", "where"),
    [
        *((how, where) for how in ("call", "call_async", "cal", "syncal") for where in ("remote", "local")),
        ("db_family", "private"),
    ],
)
def test_only_the_node_that_was_asked_may_end_the_wait_for_its_answer(
    make_node: MakeNode, how: str, where: str
) -> None:
    """A third one may know, or guess, the name of the reply port, be the question for another node or for this one."""
    node = make_node(rules=[{"peer": "*", "kill": False}])
    server = make_node() if where == "remote" else node
    replies: list[str] = []
    port = server.port(lambda _tag, reply: replies.append(reply))
    with raw(node) as asked_before, raw(node, OTHER) as hostile:
        if where == "private":  # a port for this node's own requests, such as those of the directory's calls
            host = ports_host_of(node)
            asked = gevent.spawn(wait_for_answer, host, how, WAIT, lambda reply: replies.append(reply.id))
        else:
            asked = gevent.spawn(ASKED[how], node, port)
        wait_until(lambda: replies)
        (reply,) = replies
        for peer in (asked_before, hostile):
            peer.send(["", "kil1", name_of(reply), "forged"], ["", "not_done", "x", "forged", reply])
            peer.send(["", "not_done", "x", "forged", f"{server.NODE()}#{name_of(reply)}"])
            synced(peer)
        assert not asked.ready()
        (node if where == "private" else server).snd(reply, "the answer")
        assert asked.get(timeout=WAIT) in ("the answer", ("the answer",))
    assert node.refusals == {"kill": 2}


def asked_with_cal(node: Node, port: str) -> Any:
    answer: AsyncResult[Any] = AsyncResult()
    node.cal(port, "tag", cb=lambda *words: answer.set(words))
    return answer.get(timeout=WAIT)


ASKED: dict[str, Callable[[Node, str], Any]] = {
    "call": lambda node, port: node.call(port, "tag"),
    "call_async": lambda node, port: node.call_async(port, "tag").get(timeout=WAIT),
    "cal": asked_with_cal,
    "syncal": lambda node, port: node.syncal(WAIT, port, "tag"),
}


# --- the directory -------------------------------------------------------------------------------


def seed(make_node: MakeNode, **settings: Any) -> Node:
    """Return a global node with an entry of its own."""
    node = make_node(**settings)
    node.db_set("colours", "red", 1)
    with raw(node, "client") as client:
        client.send(["", "g_slave", {"colours": {"blue": 2}}])
        synced(client)
    wait_until(lambda: node.db_family("colours") == {"red": 1})
    return node


ASK = (
    ["", "g_db_family", "colours", "1"],
    ["", "g_db_keys", "colours", "2"],
    ["", "g_db_values", "colours", "3"],
    ["", "g_find", "client-2"],
    ["", "g_mon1", "colours"],
)


@pytest.mark.parametrize("level", ["none", "read", "write"])
def test_directory_is_as_open_to_a_peer_as_the_rules_say(make_node: MakeNode, level: str) -> None:
    node = seed(make_node, rules=[{"peer": "web-*", "directory": level}])
    with raw(node, "client-2") as client, raw(node) as web:
        client.send(["", "g_slave", {"'l": {"client-2": ["127.0.0.1:5"]}}])
        synced(client)
        web.send(["", "g_slave", {"colours": {"green": 3}, "'l": {WEB: ["127.0.0.1:6"]}}])
        web.send(["", "g_upd", "colours", {"yellow": 4}, ["green"]])
        synced(web)
        assert node.db_family("colours") == ({"red": 1, "yellow": 4} if level == "write" else {"red": 1})
        web.send(*ASK)
        mine = {"yellow": 4} if level == "write" else {}
        assert [packet_of(web) for _ in ASK] == (
            [
                ["", "g_reply", "1", {}],
                ["", "g_reply", "2", []],
                ["", "g_reply", "3", []],
                ["", "g_found", "client-2", None],
                ["", "g_chg1", "colours", None],
            ]
            if level == "none"
            else [
                ["", "g_reply", "1", {"red": 1, **mine}],
                ["", "g_reply", "2", ["red", *mine]],
                ["", "g_reply", "3", [1, *mine.values()]],
                ["", "g_found", "client-2", ["127.0.0.1:5"]],
                ["", "g_chg1", "colours", {"red": 1, **mine}],
            ]
        )
        node.db_set("colours", "black", 0)
        if level != "none":
            assert packet_of(web) == ["", "g_chg2", "colours", {"black": 0}, []]
        synced(web)
        client.send(["", "g_find", WEB])
        assert packet_of(client) == ["", "g_found", WEB, ["127.0.0.1:6"] if level == "write" else None]
        assert node.refusals.get("directory", 0) == {"none": 7, "read": 2, "write": 0}[level]


@pytest.mark.parametrize("level", ["none", "read"])
def test_peer_that_may_not_write_cannot_do_so_as_a_global_node(make_node: MakeNode, level: str) -> None:
    node = seed(make_node, rules=[{"peer": "web-*", "directory": level}])
    with raw(node) as web:
        web.send(["", "g_global"], ["", "g_set", {"colours": {"green": 3}}], ["", "g_upd", "colours", {"x": 1}])
        synced(web)
        assert node.db_family("colours") == {"red": 1}
        assert node.refusals == {"directory": 3}


def test_peer_that_may_not_read_makes_no_node_global(make_node: MakeNode) -> None:
    node = make_node(rules=[{"peer": "web-*", "directory": "none"}])
    with raw(node) as web:
        web.send(["", "g_slave"], ["", "g_slave", {}])
        synced(web)
        assert node.info()["directory"] == "alone"


def test_reader_finds_what_others_have_and_is_in_no_directory(make_node: MakeNode) -> None:
    """Real nodes on both sides: the client of rules like this one works, and waits for nothing."""
    node = seed(make_node, rules=[{"peer": "reader", "directory": "read"}, {"peer": "blind", "directory": "none"}])
    reader, blind = Node(), Node()
    try:
        for other in (reader, blind):
            name = "reader" if other is reader else "blind"
            other.configure(nodeid=name, binds=["127.0.0.1:0"], seeds=[node.NODE()], secret="a secret of the tests")
            other.db_set("colours", name, 5)
            assert other.db_family("colours") == ({"red": 1} if other is reader else {})
        assert node.db_family("colours") == {"red": 1}
    finally:
        reader.shutdown(0.2)
        blind.shutdown(0.2)


# --- relaying ------------------------------------------------------------------------------------


def test_peer_that_may_not_relay_reaches_only_this_node_and_itself(make_node: MakeNode) -> None:
    node = make_node(rules=[{"peer": "web-*", "relay": False}])
    inbox = Inbox(node)
    with raw(node) as web, raw(node, OTHER) as db:
        synced(db)
        web.send(
            ["", "snd", f"{OTHER}#p", 1],
            ["", "relay", f"{OTHER}#p", 2],
            ["", "time", f"{OTHER}#p", 3],
            ["", "snd", node.NODE(), "snd", f"{OTHER}#p", 4],
            ["", "snd", inbox.port, "here"],
            ["", "snd", f"{WEB}#p", "back"],
        )
        assert packet_of(web) == ["p", "back"]
        wait_until(lambda: inbox.messages == [("here",)])
        db.send(["", "snd", f"{WEB}#p", "allowed"])
        assert packet_of(web) == ["p", "allowed"]
        synced(db)
        assert node.refusals == {"relay": 4}


@pytest.mark.parametrize("allow_relay", [False, True])
@pytest.mark.parametrize("by_way_of", [[], ["snd", "{node}"]], ids=["directly", "nested"])
@pytest.mark.parametrize(
    "words",
    [
        ["kil1", "p"],
        [SPAWN, "p", "f"],
        ["eval", "1"],
        ["snd", OTHER, "kil1", "p"],
        ["time", OTHER, "kil1", "p"],
        ["lookup", "kil1", OTHER],
        ["os.getcwd"],
        [["kil1"], "p"],
    ],
    ids=str,
)
def test_nothing_is_asked_of_a_third_node_in_our_name(
    make_node: MakeNode, words: list[Any], by_way_of: list[str], allow_relay: bool
) -> None:
    """Otherwise rules would be useless: a node that may not kill there would ask one that may."""
    node = make_node(allow_relay=allow_relay)
    by_way_of = [word.format(node=node.NODE()) for word in by_way_of]
    with raw(node) as web, raw(node, OTHER) as db:
        synced(db)
        web.send(["", *by_way_of, "snd", OTHER, *words], ["", *by_way_of, "snd", f"{OTHER}#p", *words])
        synced(web)
        assert packet_of(db) == ["p", *words], "ports get anything"
        web.send(["", "snd", OTHER], ["", "snd", OTHER, "devnull", 1])
        assert packet_of(db) == ["", "devnull", 1]
        assert node.refusals == {"relay": 1}


# --- slaves ----------------------------------------------------------------------------------------


def slave_of(master: str) -> str:
    return f"slave/x@{master}"


def open_to(peer: RawPeer, origin: str, destination: str) -> list[Any]:
    """Open a virtual link, and return the first answer."""
    peer.send(["", "via", origin, destination, ["", "via_up", origin, "its", "word", ""]])
    answer = packet_of(peer)
    assert answer[:4] == ["", "via", destination, origin], answer
    packet: list[Any] = answer[4]
    if packet[1] == "via_up":
        peer.send(["", "via", origin, destination, ["", "via_up", origin, "its", "word", packet[4]]])
    return packet


def test_slave_may_do_no_more_than_its_master(make_node: MakeNode) -> None:
    """Its master reports what comes from it, and could invent that without any slave."""
    master = "127.0.0.1:9"
    node = make_node(
        rules=[{"peer": master, "spawn": False, "kill": False}], allow_spawn=["tests.support.node_functions.*"]
    )
    inbox = Inbox(node)
    with raw(node, master) as peer:
        me = slave_of(master)
        assert open_to(peer, me, node.NODE())[1] == "via_up"
        wait_until(lambda: node.node_is_up(me))
        for packet in (["", NOTE], ["", "kil1", name_of(inbox.port)]):
            peer.send(["", "via", me, node.NODE(), packet])
        synced(peer)
        wait_until(lambda: node.refusals == {"spawn": 1, "kill": 1}, show=lambda: node.refusals)
    assert node_functions.called == []


def test_rules_about_a_master_do_not_bind_what_its_slaves_do_there(make_node: MakeNode) -> None:
    """A master is not a peer of its own."""
    node = make_node(rules=[{"peer": "127.0.0.1:*", "spawn": False}], allow_spawn=["tests.support.node_functions.*"])
    with raw(node, slave_of(node.NODE())) as slave:
        slave.send(["", NOTE, "slave"])
        wait_until(lambda: node_functions.called)
    assert node.refusals == {}


def test_slave_node_applies_its_masters_rule_to_what_comes_through_it(make_node: MakeNode) -> None:
    master, public = make_node(), make_node()
    slave = make_node(
        "slave/s",
        master.NODE(),
        rules=[{"peer": master.NODE(), "spawn": False}],
        allow_spawn=["tests.support.node_functions.*"],
    )
    deaths = Deaths()
    public.mon(public.spawn(slave.NODE(), NOTE), deaths)
    assert deaths.wait()[:2] == ("spawn_refused", NOTE)


@pytest.mark.parametrize("rule", ["slave/*", "10.0.0.9:1", "{master}"])
def test_between_slaves_the_rules_for_both_masters_count(make_node: MakeNode, rule: str) -> None:
    """What comes from another master's slave has gone through the hands of both."""
    master = make_node()
    name = rule.format(master=master.NODE())
    slave = make_node("slave/s", master.NODE(), rules=[{"peer": name, "spawn": False}])
    assert not network_of(slave).peer("slave/x@10.0.0.9:1").rights.spawn


@pytest.mark.parametrize("rule", ["slave/*", "127.0.0.1:9"])
def test_virtual_link_of_a_peer_that_may_not_relay_is_refused_and_both_ends_learn_it(
    make_node: MakeNode, rule: str
) -> None:
    """Whether it is the slave or the other end."""
    node = make_node(rules=[{"peer": rule, "relay": False}])
    me, far = slave_of(node.NODE()), "127.0.0.1:9"
    with raw(node, me) as slave, raw(node, far) as public:
        synced(public)
        for peer, origin, destination in ((slave, me, far), (public, far, me)):
            packet = open_to(peer, origin, destination)
            assert packet[:4] == ["", "via_down", destination, "transport_error"], packet
            assert "relay messages" in packet[-1]
        assert node.refusals == {"relay": 2}
        synced(slave)  # its link with its master is its own
        synced(public)


# --- ports watched -----------------------------------------------------------------------------------


def test_peer_that_monitors_more_ports_than_it_may_hears_so(make_node: MakeNode) -> None:
    node = make_node(max_watched_ports=3)
    names = [name_of(Inbox(node).port) for _ in range(5)]
    with raw(node) as peer:
        peer.send(*(["", "mon1", name] for name in [*names, names[0]]))
        refused = [packet_of(peer) for _ in range(2)]
        assert [packet[:4] for packet in refused] == [["", "kil0", name, "monitor_refused"] for name in names[3:]]
        assert node.refusals == {"monitor": 2}
        peer.send(["", "mon0", names[0]], ["", "mon1", names[3]])
        synced(peer)
        node.kil(f"{node.NODE()}#{names[3]}", "gone")
        assert packet_of(peer) == ["", "kil0", names[3], "gone"]
