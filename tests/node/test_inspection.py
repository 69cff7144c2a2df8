# SPDX-License-Identifier: MIT
"""The reports of ``inspect``: real nodes, and a raw peer for questions that must be refused."""

from __future__ import annotations

import mmap
import os
from typing import Any

import gevent
import pytest

from aemp_gevent import Node, receive
from aemp_gevent.node import inspection
from aemp_gevent.node.inspection import MAX_AT_ONCE, Census, resident_bytes
from aemp_gevent.runtime.loop_watch import watch_loop
from aemp_gevent.testing import MemoryNetwork
from tests.support.authority import shared_certificate
from tests.support.helpers import wait_until
from tests.support.native import sleep
from tests.support.networking import SECRET, Inbox, MakeNode, RawPeer
from tests.support.seams import log_feed_of, network_of

PEER = "127.0.0.1:9"
REPLY = f"{PEER}#r"


def look(node: Node, other: Node, what: object = ("links", "ports")) -> dict[str, Any]:
    found = node.call(other.NODE(), "inspect", what, timeout=10)
    assert isinstance(found, dict)
    return found


def only(found: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = [row for row in found if all(row[key] == value for key, value in wanted.items())]
    return row


# --- the node ----------------------------------------------------------------------------------


def test_node_reports_its_identity_and_state(make_node: MakeNode) -> None:
    one = make_node()
    two = make_node("127.0.0.1:0", one.NODE())
    wait_until(lambda: two.node_is_up(one.NODE()))
    found = look(two, one, [])
    assert "links" not in found
    assert "ports" not in found
    assert found["node"] == one.NODE()
    assert found["provider"].startswith("aemp_gevent-")
    assert found["pid"] == os.getpid()
    assert found["roles"] == ["public", "global"]
    assert found["addresses"] == [one.NODE()]
    assert found["link_count"] == 1
    assert found["port_count"] == 0
    assert found["master"] is None
    assert 0 < found["seconds"] < 100
    assert found["cpu"] > 0
    others = {"kill": True, "directory": "write", "relay": True, "publish": True, "subscribe": True}
    assert found["rights"] == {"eval": False, "spawn": True, **others}
    assert look(two, two, [])["roles"] == ["public"]
    assert look(two, two, [])["seeds"] == [one.NODE()]
    assert look(two, two, [])["rights"]["eval"], "to itself a node may do anything"


def test_private_node_reports_about_itself() -> None:
    node = Node()
    found = look(node, node)
    assert (found["roles"], found["links"], found["seconds"]) == (["private"], [], None)


def test_rights_are_those_of_the_asking_node(make_node: MakeNode) -> None:
    rule = {"peer": "127.*", "kill": False, "directory": "read", "relay": False}
    secure, free = make_node(secure=True, allow_eval=True, rules=[rule]), make_node(allow_eval=True)
    rights = look(free, secure, [])["rights"]
    others = {"publish": True, "subscribe": True}
    assert rights == {"eval": False, "spawn": False, "kill": False, "directory": "read", "relay": False, **others}
    assert look(secure, free, [])["rights"]["eval"]


def test_memory_is_the_systems_figure() -> None:
    before = resident_bytes()
    if before is None:
        pytest.skip("this system does not say")
    held = mmap.mmap(-1, 64 * 2**20)  # fresh from the system, whatever the allocator has left
    held.write(os.urandom(2**20) * 64)
    after = resident_bytes()
    assert after is not None
    assert 60 * 2**20 < after - before < 80 * 2**20
    held.close()


@pytest.mark.slow
def test_lag_shows_that_the_loop_was_blocked(make_node: MakeNode) -> None:
    node = make_node()
    watch = watch_loop(gevent.get_hub())  # the loop's, whose worst may be of an earlier test
    watch._worst = (0.0, 0.0)
    watch.release()
    wait_until(lambda: look(node, node, [])["worst_lag"] > 0)
    sleep(0.7)  # the loop, not this greenlet
    gevent.sleep(0.05)
    assert look(node, node, [])["worst_lag"] > 0.4
    wait_until(lambda: look(node, node, [])["lag"] < 0.2)
    assert look(node, node, [])["worst_lag"] > 0.4


# --- ports -------------------------------------------------------------------------------------


def test_each_port_is_listed_with_its_kind_and_state(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    goes_on = gevent.event.Event()

    def slow(*_message: Any) -> None:
        goes_on.wait()

    def body() -> None:
        receive("the end")

    def calls() -> None:
        two.call(idle, "what", timeout=None)

    idle = one.rcv(one.port(), "tag", slow, "what", slow)
    one.reg(idle, "known")
    busy = one.port(slow)
    actor = one.port_async(body)
    one.mon(actor, lambda *_reason: None)
    caller = two.port_async(calls)
    for number in range(4):
        one.snd(busy, number)
    with one.attach() as attached:
        wait_until(lambda: len(look(two, one)["ports"]) == 4)
        found = look(two, one)["ports"]
    assert found[0]["port"] == busy, "most messages first"
    row = only(found, port=busy)
    assert (row["kind"], row["state"], row["messages"]) == ("callback", "blocked", 3)
    assert row["handler"].endswith("<locals>.slow")
    assert row["at"].startswith("test_inspection.py:")
    assert row["at"].endswith(" in slow")
    # Its handler waits as well, once the call has come.
    row = only(found, port=idle)
    assert (row["names"], row["tags"], row["handler"]) == (["known"], ["tag", "what"], "")
    row = only(found, port=actor)
    assert (row["kind"], row["state"], row["monitors"]) == ("greenlet", "receiving", 1)
    assert row["at"].endswith(" in body")
    assert only(found, port=attached)["kind"] == "attached"
    (row,) = (row for row in look(one, two)["ports"] if row["port"] == caller)
    assert row["calls"] == idle
    goes_on.set()
    for port in (idle, busy, actor):
        one.kil(port)
    two.kil(caller)


def test_ports_are_bounded_and_all_are_counted(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MAX_ENTRIES", 10)
    one, two = make_node(), make_node()
    goes_on = gevent.event.Event()
    ports = [one.port(lambda *_message: goes_on.wait()) for _ in range(50)]
    for depth, port in enumerate(ports[:5]):
        for _ in range(depth + 2):
            one.snd(port, "x")
    wait_until(lambda: look(two, one)["blocked"] == 5)
    found = look(two, one)
    assert [row["messages"] for row in found["ports"]] == [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]
    assert [row["port"] for row in found["ports"]] == [*reversed(ports[:5]), *ports[5:10]]
    assert (found["port_count"], found["messages"], found["deepest"]) == (50, 15, 5)
    assert len(look(two, one, {"ports": 3})["ports"]) == 3
    assert len(look(two, one, {"ports": 500})["ports"]) == 10
    assert look(two, one, {"ports": 0})["ports"] == []
    goes_on.set()


def test_look_at_many_ports_lets_others_run(make_node: MakeNode) -> None:
    node = make_node(None)
    for _ in range(5000):
        node.port()
    turns: list[int] = []
    counting = gevent.spawn(lambda: [turns.append(gevent.sleep(0) or 1) for _ in range(1000)])
    gevent.sleep(0)
    census = Census(10)
    before = len(turns)
    census.take(node.scheduler)
    assert census.ports == 5000
    assert len(turns) - before >= 4
    counting.kill()


def test_families_are_listed_for_peers_that_may_read_the_directory(make_node: MakeNode) -> None:
    rule = {"peer": PEER, "directory": "none"}
    one, two = make_node(rules=[rule]), make_node()
    one.db_set("colours", "red", 1)
    one.db_set("colours", "blue", 1)
    one.grp_reg("workers", one.port())
    assert look(two, one, ["families"])["families"] == {"colours": 2, "workers": 1}
    assert look(two, one, {"families": 1})["families"] == {"colours": 2}
    with RawPeer.dial(one, PEER).shake() as peer:
        peer.send(["", "inspect", ["families"], REPLY])
        assert peer.packet()[1]["families"] == {}


# --- links -------------------------------------------------------------------------------------


def test_both_ends_of_a_link_count_the_same(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    sink = one.port(lambda *_message: None)
    for number in range(20):
        two.snd(sink, number)
    assert two.syncal(10, one.NODE(), "time")
    (before,) = look(two, two)["links"]
    (far,) = look(two, one)["links"]
    (near,) = look(two, two)["links"]
    assert near["packets_out"] - before["packets_out"] == 1, "the question"
    assert (near["node"], far["node"]) == (one.NODE(), two.NODE())
    assert (near["dialled"], far["dialled"]) == (True, False)
    assert far["packets_in"] == near["packets_out"] >= 21
    assert far["bytes_in"] == near["bytes_out"] > 0
    assert near["address"] == one.NODE()
    for end in (near, far):
        assert end["state"] == "up"
        assert (end["auth"], end["tls"], end["identified"]) == ("hmac_sha3_512", "", False)
        assert (end["framing_in"], end["framing_out"]) == ("msgpack", "msgpack")
        assert end["via"] is None
        assert end["unsent"] == 0
        assert 0 <= end["seconds"] < 100
        assert end["round_trip"] is None or 0 < end["round_trip"] < 10


def test_heartbeats_are_not_counted_as_packets(make_node: MakeNode) -> None:
    quick = {"heartbeat_interval": 0.05, "heartbeat_timeout": 0.5}
    one, two = make_node(**quick), make_node(**quick)
    assert two.syncal(10, one.NODE(), "time")
    network = network_of(one)
    assert network is not None
    link: Any = network.peers[two.NODE()].link
    other: Any = network_of(two).peers[one.NODE()].link
    wait_until(lambda: link.second_path.works and other.second_path.works)  # which takes a packet each

    def packets() -> tuple[int, int]:
        wait_until(lambda: not link.transport.buffered)  # a heartbeat that waits is counted against the packets sent
        return link.received_packets, link.sent_packets

    before = packets()
    beats = link.keep_alives
    wait_until(lambda: link.keep_alives >= beats + 3)
    assert packets() == before


@pytest.mark.parametrize("size", [10, 200_000], ids=["small", "large"])
def test_packets_are_counted_inside_of_tls(make_node: MakeNode, size: int) -> None:
    shared = shared_certificate().pem()
    one, two = (make_node(secret=None, cert=shared) for _ in range(2))
    inbox = Inbox(one)
    assert two.syncal(10, one.NODE(), "time")
    before = look(two, one)["links"][0]
    for _ in range(7):
        two.snd(inbox, b"x" * size)
    wait_until(lambda: len(inbox.messages) == 7)  # the question passes large ones
    found = look(two, one)["links"][0]
    assert found["packets_in"] - before["packets_in"] == 8, "those, and the question"
    near = look(two, two)["links"][0]
    assert near["packets_out"] == found["packets_in"]
    assert found["tls"].startswith("TLSv1.")
    assert found["auth"] == "tls_sha3_512"


def test_large_packet_over_a_socket_counts_once(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox = Inbox(one)
    before = look(two, one)["links"][0]["packets_in"]
    for _ in range(3):
        two.snd(inbox, b"x" * 3_000_000)
    wait_until(lambda: len(inbox.messages) == 3)
    assert look(two, one)["links"][0]["packets_in"] - before == 4
    assert look(two, two)["links"][0]["packets_out"] == before + 4


def test_link_of_a_slave_is_listed_with_its_master() -> None:
    with MemoryNetwork() as network:
        master, public = network.node(), network.node()
        slave = network.node("slave/one", master.NODE())
        sink = slave.port(lambda *_message: None)
        public.snd(sink, "x")
        found = look(public, slave, ["links"])
        assert found["roles"] == ["slave"]
        assert found["master"] == master.NODE()
        row = only(found["links"], node=public.NODE())
        assert (row["via"], row["state"]) == (master.NODE(), "up")
        assert row["packets_in"] == 2
        assert "bytes_in" not in row
        near = only(look(public, public, ["links"])["links"], node=slave.NODE())
        assert near["packets_out"] == 2
        assert only(found["links"], node=master.NODE())["kept"]


def test_node_that_cannot_be_reached_is_listed_with_the_error(make_node: MakeNode) -> None:
    node = make_node()
    node.mon("127.0.0.1:1#x", lambda *_reason: None)
    wait_until(lambda: look(node, node)["links"] and look(node, node)["links"][0]["error"])
    (row,) = look(node, node)["links"]
    assert row["state"] == "down"
    assert "refused" in row["error"]


# --- refusals, and invalid requests ----------------------------------------------------------


@pytest.mark.parametrize(
    "request_", [["info"], ["inspect", ["links"]], ["log", "debug"]], ids=["info", "inspect", "log"]
)
def test_peer_that_may_not_look_gets_only_the_refusal(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, request_: list[Any]
) -> None:
    node = make_node(rules=[{"peer": PEER, "inspect": False}])
    with RawPeer.dial(node, PEER).shake() as peer:
        peer.send(["", *request_, REPLY, "tag"])
        name, tag, answer = peer.packet()
        assert (name, tag) == ("r", "tag")
        assert set(answer) == {"node", "provider", "error"}
        assert answer["error"] == f"the rules do not let {PEER} inspect this node"
        assert peer.answers(), "and nothing else came"
        assert log_feed_of(node).listeners == 0
    wait_until(lambda: "inspect this node" in caplog.text)
    assert node.refusals == {"inspect": 1}


@pytest.mark.parametrize(
    ("what", "says"),
    [
        pytest.param(["prots"], "'prots' is not one of", id="unknown"),
        pytest.param("ports", "must be a list", id="text"),
        pytest.param(None, "must be a list", id="nothing"),
        pytest.param({"ports": -1}, "must be a non-negative integer", id="negative"),
        pytest.param({"ports": True}, "must be a non-negative integer", id="bool"),
        pytest.param({"links": "many"}, "must be a non-negative integer", id="no-number"),
        pytest.param([["ports"]], "not", id="list"),
    ],
)
def test_invalid_question_is_answered_with_the_reason(make_node: MakeNode, what: object, says: str) -> None:
    one, two = make_node(), make_node()
    found = look(two, one, what)
    assert set(found) == {"node", "provider", "error"}
    assert says in found["error"]


@pytest.mark.slow
def test_many_questions_at_once_are_refused(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "_SLICE", 1)  # so that an answer takes many turns
    node = make_node()
    for _ in range(2_000):
        node.port()  # so that an answer takes more turns than it takes to ask
    with RawPeer.dial(node, PEER).shake() as peer:
        peer.send(*(["", "inspect", {"ports": 1}, REPLY, number] for number in range(3 * MAX_AT_ONCE)))
        answers = {number: answer for _, number, answer in peer.take(3 * MAX_AT_ONCE)}
        refused = [number for number, answer in answers.items() if "error" in answer]
        assert 0 < len(refused) <= 2 * MAX_AT_ONCE
        assert all("are under way already" in answers[number]["error"] for number in refused)
        peer.send(["", "inspect", [], REPLY, "again"])
        assert "error" not in peer.packet()[2]


def test_answer_that_cannot_be_sent_is_only_logged(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    node = make_node(secret=SECRET, max_message_bytes=300)
    with RawPeer.dial(node, PEER).shake() as peer:
        peer.send(["", "inspect", [], REPLY])
        wait_until(lambda: "request 'inspect'" in caplog.text)
        assert peer.answers()
