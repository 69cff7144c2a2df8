# SPDX-License-Identifier: MIT
"""The client manager for python-socketio, between nodes of one process; ``test_socketio_workers.py`` has real ones."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import gevent
import pytest

pytest.importorskip("socketio")

import engineio.packet
import socketio

import aemp_gevent.contrib.socketio
from aemp_gevent import Node
from aemp_gevent.contrib import gunicorn
from aemp_gevent.contrib.joining import MeshURL, parse_url
from aemp_gevent.contrib.socketio import AempManager
from aemp_gevent.errors import InvalidSettingError, MessageTooLargeError, PrivateNodeError
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, WAIT, MakeNode


class Server(socketio.Server):  # type: ignore[misc]  # python-socketio has no types
    """A Socket.IO server whose clients are lists of the packets that they got."""

    def __init__(self, manager: AempManager, **options: Any) -> None:
        super().__init__(client_manager=manager, **{"async_mode": "gevent", "monitor_clients": False, **options})
        self.got: dict[str, list[Any]] = {}

    def client(self, name: str) -> str:
        """Connect a client, and return its session ID."""
        self._handle_eio_connect(name, {})
        self.got[name] = []
        sid: str = self.manager.connect(name, "/")
        return sid

    def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        self.got[eio_sid].append((pkt.data, pkt.id))

    def _send_eio_packet(self, eio_sid: str, eio_pkt: Any) -> None:
        data = eio_pkt.data
        self.got[eio_sid].append(data if isinstance(data, bytes) else json.loads(data[data.index("[") :]))


MakeServer = Callable[..., Server]


@pytest.fixture
def make_server(make_node: MakeNode) -> Iterator[MakeServer]:
    servers: list[Server] = []

    def make(node: Node, channel: str = "socketio", **options: Any) -> Server:
        servers.append(Server(AempManager(channel=channel, node=node), **options))
        return servers[-1]

    yield make
    for server in servers:
        thread = getattr(server.manager, "thread", None)
        if thread is not None:
            thread.kill()


@pytest.fixture
def two_nodes(make_node: MakeNode) -> tuple[Node, Node]:
    one = make_node()
    return one, make_node("127.0.0.1:0", one.NODE())


def test_a_client_gets_what_another_server_emits_as_soon_as_it_is_connected(
    make_server: MakeServer, two_nodes: tuple[Node, Node]
) -> None:
    one, two = map(make_server, two_nodes)
    one.client("anna")
    two.client("ben")
    one.emit("said", "hello")  # nobody has waited for anything
    two.emit("said", ("hi", 2))
    for server, name in ((one, "anna"), (two, "ben")):
        wait_until(lambda: len(server.got[name]) == 2, within=WAIT, show=lambda: server.got[name])  # noqa: B023
    assert sorted(one.got["anna"]) == sorted(two.got["ben"]) == [["said", "hello"], ["said", "hi", 2]]


def test_servers_of_another_channel_do_not_hear_of_it(make_server: MakeServer, two_nodes: tuple[Node, Node]) -> None:
    one, two = two_nodes
    emitting, other, same = make_server(one), make_server(two, "other"), make_server(two)
    other.client("anna")
    same.client("ben")
    emitting.emit("said", "hello")
    wait_until(lambda: same.got["ben"], within=WAIT)
    assert other.got["anna"] == []


def test_two_managers_of_one_node_hear_each_other(make_server: MakeServer, make_node: MakeNode) -> None:
    node = make_node()
    server = make_server(node)
    server.client("anna")
    AempManager(write_only=True, node=node).emit("said", b"bytes")
    wait_until(lambda: len(server.got["anna"]) == 2, within=WAIT)
    assert server.got["anna"][1] == b"bytes"


def test_acknowledgement_with_bytes_comes_back_to_the_server_that_asked(
    make_server: MakeServer, two_nodes: tuple[Node, Node]
) -> None:
    one, two = map(make_server, two_nodes)
    one.client("anna")
    ben = two.client("ben")
    answers: list[Any] = []
    one.emit("ask", "?", to=ben, callback=lambda *args: answers.append(args))
    wait_until(lambda: two.got["ben"], within=WAIT)
    ((_, number),) = two.got["ben"]
    two._handle_ack("ben", "/", number, [b"\xff\x00", {"more": b"bytes"}, 2])
    wait_until(lambda: answers, within=WAIT)
    assert answers == [(b"\xff\x00", {"more": b"bytes"}, 2)]


class Dates:
    """A module for JSON that knows dates."""

    @staticmethod
    def dumps(value: Any, **options: Any) -> str:
        return json.dumps(value, default=datetime.date.isoformat, **options)

    loads = staticmethod(json.loads)


@pytest.mark.parametrize(
    ("value", "received"),
    [
        pytest.param(2**70, 2**70, id="large-number"),
        pytest.param(datetime.date(2026, 1, 2), "2026-01-02", id="date"),
        pytest.param({1: None}, {"1": None}, id="number-as-key"),
        pytest.param({"a": (1, [b"x"])}, {"a": [1, [{"_placeholder": True, "num": 0}]]}, id="tuple-with-bytes"),
        pytest.param("\ud800", "\ud800", id="lone-surrogate"),
    ],
)
def test_everything_travels_that_json_can_carry(
    make_server: MakeServer, two_nodes: tuple[Node, Node], value: object, received: object
) -> None:
    before = socketio.packet.Packet.json
    try:
        one, two = (make_server(node, json=Dates) for node in two_nodes)
        two.client("ben")
        one.emit("said", value)
        wait_until(lambda: two.got["ben"], within=WAIT)
    finally:
        # It is a setting of all of python-socketio.
        socketio.packet.Packet.json = engineio.packet.Packet.json = before
    assert two.got["ben"][0] == ["said", received]


def test_what_json_cannot_carry_is_an_error_of_the_emitter(
    make_server: MakeServer, two_nodes: tuple[Node, Node]
) -> None:
    one, two = map(make_server, two_nodes)
    two.client("ben")
    with pytest.raises(TypeError, match="not JSON serializable"):
        one.emit("said", object())
    with pytest.raises(MessageTooLargeError):
        one.emit("said", "x" * 10**8)
    one.emit("said", "fine")
    wait_until(lambda: two.got["ben"] == [["said", "fine"]], within=WAIT)


def test_messages_keep_their_order_while_a_link_is_full(
    make_server: MakeServer, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One greenlet is paused after it has sent to one server; the next must not reach the other server before it."""
    nodes = [make_node(high_water_bytes=1000)]
    nodes += [make_node("127.0.0.1:0", nodes[0].NODE()) for _ in range(2)]
    servers = [make_server(node) for node in nodes]
    for server in servers[1:]:
        server.client("it")
    emitter = servers[0].manager
    emitter._others.open()
    sent = nodes[0].snd
    paused = gevent.event.Event()

    def pausing(port: str, message: Any) -> None:
        sent(port, message)
        if message["data"] == [0]:
            gevent.sleep(0)
            paused.wait()

    monkeypatch.setattr(nodes[0], "snd", pausing)
    emitting = [gevent.spawn(emitter.emit, "said", what) for what in (0, 1, "killed", 2)]
    gevent.sleep(0)
    emitting[2].kill()
    gevent.sleep(0)
    paused.set()
    gevent.joinall(emitting, timeout=WAIT)
    for server in servers[1:]:
        wait_until(lambda: len(server.got["it"]) == 3, within=WAIT, show=lambda: server.got)  # noqa: B023
        assert [said for _, said in server.got["it"]] == [0, 1, 2]


def test_rubbish_in_the_group_and_from_peers_hurts_nobody(
    make_server: MakeServer, two_nodes: tuple[Node, Node]
) -> None:
    one, two = map(make_server, two_nodes)
    two.client("ben")
    two_nodes[0].db_set("socketio/socketio", "not a port")
    (port,) = two_nodes[1].grp_get("socketio/socketio") or ()
    for rubbish in ((), (1,), ("no json",), ("5",), ({},), ({"method": "emit"},), ({"method": "x"}, 2), (b"{}",)):
        two_nodes[0].snd(port, *rubbish)
    one.emit("said", "hello")
    wait_until(lambda: two.got["ben"] == [["said", "hello"]], within=WAIT, show=lambda: two.got)


def test_server_that_cannot_keep_up_drops_messages_and_logs_it(
    make_server: MakeServer, two_nodes: tuple[Node, Node], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(aemp_gevent.contrib.socketio, "MAX_WAITING", 2)
    manager = AempManager(node=two_nodes[0])
    for number in range(3):
        manager._take({"number": number})
    assert [next(manager._listen())["number"] for _ in range(2)] == [0, 1]
    assert "a message of another server was dropped: 2 wait for this one" in caplog.text


def test_a_failed_link_is_logged_and_local_clients_are_served(
    make_server: MakeServer, make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    server = make_server(node, logger=False)
    server.client("anna")
    node.shutdown()
    server.emit("said", "hello")
    assert server.got["anna"] == [["said", "hello"]]
    assert "Cannot publish to other nodes: " in caplog.text


def test_manager_of_a_private_node_says_what_to_do_and_works_once_it_has_joined(make_node: MakeNode) -> None:
    node = make_node(None)
    manager = AempManager(node=node)
    server = Server(manager)
    with pytest.raises(PrivateNodeError, match=r"gunicorn\.conf\.py.*join_host.*aemp://NAME"):
        server.emit("said", "hello")
    with pytest.raises(PrivateNodeError):
        server.client("anna")
    node.initialise_node("127.0.0.1:0", secret="x")
    server.client("anna")
    AempManager(write_only=True, node=node).emit("said", "hello")
    wait_until(lambda: server.got["anna"] == [["said", "hello"]], within=WAIT)
    manager.thread.kill()


def test_url_with_a_name_joins_the_others_once(make_node: MakeNode) -> None:
    with TemporaryDirectory() as folder:
        url = f"aemp://chat?folder={folder}/own"
        nodes = [make_node(None) for _ in range(2)]
        servers = [Server(AempManager(url, node=node)) for node in nodes]
        connecting = [gevent.spawn(server.client, name) for server in servers for name in ("anna", "ben")]
        gevent.joinall(connecting, timeout=WAIT, raise_error=True)
        AempManager(url, write_only=True, node=make_node(None)).emit("said", "hello")
        for server in servers:
            wait_until(lambda: list(server.got.values()) == [[["said", "hello"]]] * 2, within=WAIT)  # noqa: B023
            server.manager.thread.kill()


def test_url_with_seeds_reaches_servers_of_other_hosts(
    make_server: MakeServer, make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    seed, elsewhere = make_node(), make_node(None)
    server = make_server(seed)
    server.client("anna")
    with TemporaryDirectory() as folder:
        url = f"aemp://chat?folder={folder}/own&seeds={seed.NODE()}"
        other = Server(AempManager(url, node=elsewhere))
        other.client("ben")
        server.emit("said", "hello")
        AempManager(url, write_only=True, node=make_node(None)).emit("said", "hello")
        for got in (server.got["anna"], other.got["ben"]):
            wait_until(lambda: got == [["said", "hello"]] * 2, within=WAIT, show=lambda: got)  # noqa: B023
        other.manager.thread.kill()


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        pytest.param("aemp://", MeshURL(), id="nothing"),
        pytest.param("aemp://chat", MeshURL("chat"), id="name"),
        pytest.param("aemp://chat/", MeshURL("chat"), id="slash"),
        pytest.param("aemp://a.B-c_1?seeds=h:1,[::1]:2", MeshURL("a.B-c_1", ("h:1", "[::1]:2")), id="seeds"),
        pytest.param("aemp://chat?folder=/run/x&seeds=h", MeshURL("chat", ("h",), "/run/x"), id="folder"),
    ],
)
def test_url_is_parsed(url: str, parsed: MeshURL) -> None:
    assert parse_url(url) == parsed


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("", id="empty"),
        pytest.param(None, id="none"),
        pytest.param("redis://localhost", id="redis"),
        pytest.param("aemp:chat", id="no-slashes"),
        pytest.param("aemp://:secret@chat", id="secret"),
        pytest.param("aemp://chat/path", id="path"),
        pytest.param("aemp://chat?secret=x", id="unknown-option"),
        pytest.param("aemp://?seeds=h:1", id="seeds-without-name"),
    ],
)
def test_invalid_url_is_refused_at_once(url: Any) -> None:
    with pytest.raises(InvalidSettingError, match="aemp://NAME"):
        AempManager(url)


@pytest.mark.parametrize("channel", ["", None, 5])
def test_channel_must_be_a_name(channel: Any) -> None:
    with pytest.raises(InvalidSettingError, match="channel"):
        AempManager(channel=channel)


def test_server_without_gevents_loop_is_refused(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    from gevent import monkey

    manager = AempManager(node=make_node())
    manager.set_server(SimpleNamespace(async_mode="threading", packet_class=socketio.packet.Packet))
    monkeypatch.setattr(monkey, "is_module_patched", lambda _name: False)
    with pytest.raises(InvalidSettingError, match=r"monkey\.patch_all\(\)"):
        manager.initialize()


FORKING = """
import os
from aemp_gevent import default_node
from aemp_gevent.contrib.socketio import AempManager
manager = AempManager(write_only=True)
default_node.initialise_node("127.0.0.1:0", secret="x")
ours = manager.host_id
manager.emit("said", "hello")
reading, writing = os.pipe()
if not os.fork():
    try:
        manager.emit("said", "hello")
    except Exception as error:
        os.write(writing, f"{manager.host_id} {type(error).__name__}".encode())
    os._exit(0)
theirs, error = os.read(reading, 100).decode().split()
assert len(ours) == len(theirs) == 32
assert theirs != ours == manager.host_id
assert error == "PrivateNodeError", error
"""


@pytest.mark.slow
def test_forked_child_is_another_server() -> None:
    """Otherwise the workers of a preloaded application would take each other's messages for their own."""
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=30)


def test_gunicorns_hooks_open_it_before_clients_come(monkeypatch: pytest.MonkeyPatch) -> None:
    joins: list[Callable[[], object]] = []
    monkeypatch.setattr(gunicorn, "_joins", joins)
    manager = AempManager()
    AempManager(write_only=True)
    AempManager("aemp://chat")
    assert joins == [manager._others.open]
