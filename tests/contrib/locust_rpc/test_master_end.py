# SPDX-License-Identifier: MIT
"""The master's end: what it hears of workers, and that none of them can hurt it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import msgpack
import pytest

from aemp_gevent.contrib.locust_rpc import MasterEnd, WorkerEnd, exchange
from aemp_gevent.contrib.locust_rpc import master_end as module
from aemp_gevent.errors import NoSecretError
from aemp_gevent.node.node import Node
from aemp_gevent.testing import Proxy
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.transport.tls_transport import TlsTransport
from tests.support.authority import authority, shared_certificate
from tests.support.networking import SECRET, WAIT, Inbox
from tests.support.seams import network_of

pytestmark = pytest.mark.slow

MakeEnd = Callable[..., Any]


def message(kind: str, data: Any = None, identity: str = "w1") -> Any:
    return exchange.make_message(kind, data, identity)


def received(server: MasterEnd) -> tuple[str, str, Any]:
    with gevent.Timeout(WAIT):
        identity, found = server.recv_from_client()
    return identity, found.type, found.data


def test_messages_pass_both_ways(server: MasterEnd, client: WorkerEnd) -> None:
    client.send(message("stats", {"stats": [], "stats_total": {}, "errors": {}, "user_classes_count": {"A": 2}}))
    assert received(server)[:2] == ("w1", "stats")
    server.send_to_client(message("spawn", {"user_classes_count": {"A": 2}}))
    with gevent.Timeout(WAIT):
        found = client.recv()
    assert (found.type, found.data, found.node_id) == ("spawn", {"user_classes_count": {"A": 2}}, "w1")


@pytest.mark.parametrize("host", ["*", "127.0.0.1", "localhost"])
def test_worker_finds_the_master_at_each_way_of_writing_its_host(make_end: MakeEnd, host: str) -> None:
    server = make_end(MasterEnd, host, 0)
    client = make_end(WorkerEnd, "localhost" if host == "*" else host, server.port, "w1")
    client.send(message("client_ready", "2.0"))
    assert received(server)[:2] == ("w1", "client_ready")


def test_link_that_is_lost_is_the_workers_quit(server: MasterEnd, client: WorkerEnd, proxy: Proxy) -> None:
    client.send(message("client_ready", "2.0"))
    assert received(server)[1] == "client_ready"
    proxy.refuse()
    proxy.reset()
    assert received(server) == ("w1", "quit", None)


def test_heartbeats_are_read_between_the_quits_of_workers_that_are_lost_together(
    make_end: MakeEnd, server: MasterEnd, client: WorkerEnd, proxy: Proxy
) -> None:
    """The master is busy for a second with each, and would take all others for missing."""
    other = make_end(WorkerEnd, "127.0.0.1", server.port, "lives")
    lost = [make_end(WorkerEnd, "127.0.0.1", int(proxy.address.rpartition(":")[2]), name) for name in "ab"]
    for end in (other, client, *lost):
        end.send(message("client_ready", "2.0", end._identity))
        assert received(server)[1] == "client_ready"
    proxy.refuse()
    proxy.reset()
    wait_until(lambda: len(server._inbox) == 3, within=WAIT)
    found = []
    for number in range(3):  # what comes while the master is busy
        found.append(received(server)[1])
        other.send(message("heartbeat", {"state": "ready", "current_cpu_usage": number}, "lives"))
        wait_until(lambda number=number: len(server._inbox) == 3 - number, within=WAIT)
        found.append(received(server)[1])
    assert found == ["quit", "heartbeat"] * 3


def test_blocked_workers_last_heartbeat_is_repeated(
    server: MasterEnd, client: WorkerEnd, make_end: MakeEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master counts heartbeats, and would take the worker for missing."""
    monkeypatch.setattr(module, "_REPEAT_SECONDS", 0.02)
    make_end(WorkerEnd, "127.0.0.1", server.port, "w2").send(message("client_ready", "2.0", "w2"))
    assert received(server)[:2] == ("w2", "client_ready")
    paths = network_of(client._node).second_paths
    client.send(message("client_ready", "2.0"))
    heartbeat = {"state": "running", "current_cpu_usage": 42.0}
    client.send(message("heartbeat", heartbeat))
    assert {received(server)[1] for _ in range(2)} == {"client_ready", "heartbeat"}
    link: Any = network_of(server._node).peers[client._node.NODE()].link
    wait_until(lambda: link.second_path.works, within=WAIT)
    paths.blocked(2.0, "load.py:7 in read")
    assert [received(server) for _ in range(5)] == [("w1", "heartbeat", heartbeat)] * 5
    paths.running()
    wait_until(lambda: not server._blocked, within=WAIT)
    while len(server._inbox):
        assert received(server) == ("w1", "heartbeat", heartbeat)
    wait_until(lambda: paths.blocked(2.0, "load.py:7 in read") or server._blocked, within=WAIT)
    assert received(server)[:2] == ("w1", "heartbeat")


def test_worker_on_whom_nobody_counts_does_not_quit(make_end: MakeEnd, server: MasterEnd, proxy: Proxy) -> None:
    """It only fetches the locustfile, or has quit itself; Locust's master takes any quit as a reason to look around."""
    address = int(proxy.address.rpartition(":")[2])
    fetching = make_end(WorkerEnd, "127.0.0.1", address, "fetches")
    fetching.send(message("locustfile", {"version": "2.0"}, "fetches"))
    leaving = make_end(WorkerEnd, "127.0.0.1", address, "leaves")
    for kind in ("client_ready", "quit"):
        leaving.send(message(kind, "2.0", "leaves"))
    assert [received(server)[1] for _ in range(3)] == ["locustfile", "client_ready", "quit"]
    proxy.refuse()
    proxy.reset()
    wait_until(lambda: not server._sessions, within=WAIT)
    assert not len(server._inbox)


def test_worker_that_ends_in_order_quits_itself(server: MasterEnd, client: WorkerEnd) -> None:
    client.send(message("client_ready", "2.0"))
    assert received(server)[1] == "client_ready"
    client.close()
    wait_until(lambda: not server._sessions, within=WAIT)
    assert not len(server._inbox)


def test_lost_workers_are_remembered_only_so_many(
    server: MasterEnd, client: WorkerEnd, make_end: MakeEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that are replaced again and again have a new identity each time."""
    monkeypatch.setattr(module, "MAX_LOST", 2)
    for name in ("lives", "first", "second", "third"):
        end = make_end(WorkerEnd, "127.0.0.1", server.port, name)
        end.send(message("client_ready", "2.0", name))
        assert received(server)[:2] == (name, "client_ready")
        if name != "lives":
            end.close()
            wait_until(lambda name=name: name in server._lost, within=WAIT)
    wait_until(lambda: set(server._workers) == {"w1", "lives", "second", "third"}, within=WAIT)
    make_end(WorkerEnd, "127.0.0.1", server.port, "third").send(message("client_ready", "2.0", "third"))
    assert received(server)[:2] == ("third", "client_ready")
    assert list(server._lost) == ["second"]


def test_worker_with_a_new_end_remains_counted(server: MasterEnd, client: WorkerEnd, make_end: MakeEnd) -> None:
    """Locust replaces a worker's end when the master asks for that."""
    client.send(message("client_ready", "2.0"))
    for _ in range(3):
        client.send(message("logs", {"worker_id": "w1", "logs": []}))
    assert [received(server)[1] for _ in range(4)] == ["client_ready", "logs", "logs", "logs"]
    client.close()
    again = make_end(WorkerEnd, "127.0.0.1", server.port, "w1")
    wait_until(lambda: again._is_joined, within=WAIT)
    assert server._workers["w1"].received == 0  # of this end's
    server.send_to_client(message("stop"))
    with gevent.Timeout(WAIT):
        assert again.recv().type == "stop"


def test_link_that_the_worker_lost_first_is_its_quit_as_well(server: MasterEnd, client: WorkerEnd) -> None:
    client.send(message("client_ready", "2.0"))
    assert received(server)[1] == "client_ready"
    client._join()
    assert received(server) == ("w1", "quit", None)


BROKEN = [
    pytest.param(b"", "it is not a message of Locust's: ", id="empty"),
    pytest.param(b"\xc1", "it is not a message of Locust's: ", id="no-msgpack"),
    pytest.param(b"\x93\xa5stats", "it is not a message of Locust's: ", id="cut-off"),
    pytest.param(msgpack.packb(["stop", None, "w1"]) + b"\x00", "it is not a message of Locust's: ", id="too-much"),
    pytest.param(msgpack.packb(5), "it is not a message of Locust's: ", id="no-sequence"),
    pytest.param(msgpack.packb(["stop", None]), "it is not a message of Locust's: ", id="too-short"),
    pytest.param(msgpack.packb(["stop", None, b"\xff"]), "is in the name of b'\\xff'", id="odd-sender"),
    pytest.param(b"\x93\xa1\xff\xc0\xa2w1", "it is not a message of Locust's: ", id="no-text"),
    pytest.param(msgpack.packb([7, None, "w1"]), "its type must be a string, not int", id="odd-type"),
    pytest.param(
        msgpack.packb(["stop", {"__datetime__": True, "as_str": "never"}, "w1"]), "not a message", id="odd-date"
    ),
    pytest.param(
        msgpack.packb(["stop", {"__ObjectId__": True, "as_str": "never"}, "w1"]), "not a message", id="odd-object-id"
    ),
    pytest.param(msgpack.packb(["quit", None, "w2"]), "its message 'quit' is in the name of 'w2'", id="of-another"),
    pytest.param(msgpack.packb(["heartbeat", None, "w1"]), "lacks state, current_cpu_usage", id="no-state"),
    pytest.param(msgpack.packb(["exception", {"msg": "x"}, "w1"]), "'exception' lacks traceback", id="no-traceback"),
    pytest.param(
        msgpack.packb(["heartbeat", {"state": "ready", "current_cpu_usage": "low"}, "w1"]),
        "current_cpu_usage in its message 'heartbeat' is of the wrong type: str",
        id="odd-usage",
    ),
    pytest.param(
        msgpack.packb(["exception", {"msg": "x", "traceback": []}, "w1"]), "wrong type: list", id="odd-traceback"
    ),
    pytest.param(
        msgpack.packb(["spawning_complete", {"user_classes_count": {"A": "1"}}, "w1"]),
        "user_classes_count in its message 'spawning_complete' has values that are not integers",
        id="odd-count",
    ),
    pytest.param(msgpack.packb(["client_ready", {"a": 1}, "w1"]), "must name a version of Locust", id="odd-version"),
]


@pytest.mark.parametrize(("frame", "why"), BROKEN)
def test_broken_message_hurts_only_its_sender(
    server: MasterEnd, client: WorkerEnd, make_end: MakeEnd, frame: bytes, why: str
) -> None:
    other = make_end(WorkerEnd, "127.0.0.1", server.port, "w2")
    client._send_frame(0, frame)
    with pytest.raises(exchange.errors().RPCReceiveError) as raised, gevent.Timeout(WAIT):
        server.recv_from_client()
    assert raised.value.addr == "w1"
    assert "worker w1" in str(raised.value)
    assert why in str(raised.value)
    for end, identity in ((other, "w2"), (client, "w1")):
        end.send(message("client_ready", "2.0", identity))
        assert received(server)[:2] == (identity, "client_ready")


def test_worker_of_an_older_locust_gets_its_answer(server: MasterEnd, client: WorkerEnd) -> None:
    """Newer masters look into what older workers did not send, and would stop listening."""
    client.send(message("locustfile"))
    assert received(server) == ("w1", "locustfile", {"version": ""})


def test_what_is_not_of_the_protocol_is_ignored(server: MasterEnd, client: WorkerEnd) -> None:
    node = client._node
    for odd in ([], [1], ["join"], ["join", 1, 2, 3], ["frame", "x", 0, b""], ["join", "w", "not a port", "w"]):
        node.snd(exchange.MASTER_PORT, *odd)
    node.snd(exchange.MASTER_PORT, "join", "w", f"{exchange.MASTER}#gone", "w")  # dead, and not the sender's
    client.send(message("client_ready", "2.0"))
    assert received(server)[:2] == ("w1", "client_ready")


def test_messages_to_workers_without_a_link_are_dropped(server: MasterEnd) -> None:
    server.send_to_client(message("spawn", {}, "nobody"))


def test_message_that_is_too_large_is_an_error_of_locusts(server: MasterEnd, client: WorkerEnd) -> None:
    large = message("spawn", "x" * 2**26)
    wait_until(lambda: server._sessions, within=WAIT)
    for send in (server.send_to_client, client.send):
        with pytest.raises(exchange.errors().RPCSendError, match="max_message_bytes"):
            send(large)


def test_worker_that_reads_nothing_does_not_make_the_master_wait(
    make_end: MakeEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AEMP_HIGH_WATER_BYTES", "100000")
    server = make_end(MasterEnd, "127.0.0.1", 0)
    with Proxy(f"127.0.0.1:{server.port}") as proxy:
        make_end(WorkerEnd, "127.0.0.1", int(proxy.address.rpartition(":")[2]), "w1")
        wait_until(lambda: server._sessions, within=WAIT)
        proxy.blackhole()
        for _ in range(200):
            server.send_to_client(message("spawn", "x" * 100_000))
        proxy.heal()
    (line,) = [line for line in caplog.messages if "are being dropped" in line]
    assert line.startswith("messages to Locust worker w1 are being dropped: ")


def test_port_that_is_taken_is_what_locust_explains(server: MasterEnd) -> None:
    with pytest.raises(exchange.errors().RPCError) as raised:
        MasterEnd("127.0.0.1", server.port)
    assert raised.value.args == ("Socket bind failure: Address already in use",)


def test_closed_ends_say_so(server: MasterEnd, client: WorkerEnd) -> None:
    waiting = [gevent.spawn(server.recv_from_client), gevent.spawn(client.recv)]
    gevent.idle()
    client.close()
    server.close()
    for greenlet in waiting:
        with pytest.raises(exchange.errors().RPCError, match="end is closed"):
            greenlet.get(timeout=WAIT)
    for send in (server.send_to_client, client.send):
        with pytest.raises(exchange.errors().RPCSendError, match="end is closed"):
            send(message("stop"))


def test_secret_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AEMP_SECRET")
    for make in (lambda: MasterEnd("127.0.0.1", 0), lambda: WorkerEnd("127.0.0.1", 9, "w1")):
        with pytest.raises(NoSecretError, match="AEMP_SECRET"):
            make()


CA = authority()
SHARED = shared_certificate()


@pytest.mark.parametrize(
    ("masters", "workers", "is_let_in"),
    [
        pytest.param(SHARED.pem(), SHARED.pem(), True, id="shared"),
        pytest.param(
            CA.issue("aemp:locust/master").pem(CA), CA.issue("aemp:locust/worker/*").pem(CA), True, id="named"
        ),
        pytest.param(
            CA.issue("aemp:locust/master").pem(CA), CA.issue("aemp:locust/worker/w2").pem(CA), False, id="of-another"
        ),
    ],
)
def test_certificates_say_which_workers_join(
    make_end: MakeEnd, monkeypatch: pytest.MonkeyPatch, masters: str, workers: str, is_let_in: bool
) -> None:
    monkeypatch.delenv("AEMP_SECRET")
    monkeypatch.setenv("AEMP_CERT", masters)
    server = make_end(MasterEnd, "127.0.0.1", 0)
    monkeypatch.setenv("AEMP_CERT", workers)
    client = make_end(WorkerEnd, "127.0.0.1", server.port, "w1")
    client.send(message("client_ready", "2.0"))
    if is_let_in:
        assert received(server)[:2] == ("w1", "client_ready")
        (link,) = network_of(server._node).link_maker.links
        assert isinstance(link.transport, TlsTransport)
    else:
        wait_until(lambda: server._node.refusals or client._why_down, within=WAIT)
        assert not server._sessions


def test_other_nodes_can_look_into_the_network(server: MasterEnd, client: WorkerEnd) -> None:
    """Locust's nodes are like all others for the command ``aemp``."""
    node = Node()
    node.configure(nodeid="looks", seeds=[f"127.0.0.1:{server.port}"], binds=(), secret=SECRET)
    try:
        node.wait_for_seeds(WAIT)
        assert node.up_nodes() == [exchange.MASTER]
        inbox = Inbox(node)
        node.snd(exchange.MASTER, "time", inbox.port)
        wait_until(lambda: inbox.messages, within=WAIT)
    finally:
        node.shutdown(0.2)
