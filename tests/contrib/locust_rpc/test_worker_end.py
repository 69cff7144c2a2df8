# SPDX-License-Identifier: MIT
"""A worker's end: what it does when the link is lost, when the master is restarted, and when there is no master yet."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from aemp_gevent.contrib.locust_rpc import MasterEnd, WorkerEnd, exchange
from aemp_gevent.contrib.locust_rpc import worker_end as module
from aemp_gevent.testing import Proxy
from aemp_gevent.testing.waiting import wait_until
from tests.support.networking import WAIT, free_address, node_factory

pytestmark = pytest.mark.slow

MakeEnd = Callable[..., Any]

REPORT = {"stats": [], "stats_total": {}, "errors": {}, "user_classes_count": {}}


def message(kind: str, data: Any = None) -> Any:
    return exchange.make_message(kind, data, "w1")


def report(number: int) -> Any:
    return message("stats", {**REPORT, "number": number})


def heartbeat(state: str) -> Any:
    return message("heartbeat", {"state": state, "current_cpu_usage": 1.0})


def next_to(end: WorkerEnd) -> str:
    """Return the type of the next message that a worker gets."""
    with gevent.Timeout(WAIT):
        kind: str = end.recv().type
    return kind


def next_from(server: MasterEnd) -> str:
    """Return the type of the next message that the master gets."""
    with gevent.Timeout(WAIT):
        kind: str = server.recv_from_client()[1].type
    return kind


@pytest.fixture
def worker(client: WorkerEnd, server: MasterEnd) -> WorkerEnd:
    """A worker that runs users."""
    client.send(message("client_ready", "2.0"))
    assert next_from(server) == "client_ready"
    server.send_to_client(message("spawn", {}))
    assert next_to(client) == "spawn"
    return client


def lose(worker: WorkerEnd, proxy: Proxy) -> None:
    """Break the link, and wait until the worker knows."""
    proxy.refuse()
    proxy.reset()
    wait_until(lambda: not worker._is_joined, within=WAIT)


def linked(worker: WorkerEnd, proxy: Proxy) -> None:
    """Repair the link, and wait until the worker knows."""
    proxy.heal()
    wait_until(lambda: worker._hurry() or worker._is_joined, within=WAIT)


def test_worker_without_the_master_stops_its_users_and_is_taken_back(
    worker: WorkerEnd, server: MasterEnd, proxy: Proxy
) -> None:
    lose(worker, proxy)
    assert next_to(worker) == "stop"
    assert next_from(server) == "quit"
    linked(worker, proxy)
    worker.send(report(1))  # while users stop
    worker.send(message("client_stopped"))
    worker.send(message("client_ready", "2.0"))
    worker.send(heartbeat("ready"))
    assert next_to(worker) == "heartbeat"  # the worker would end without any, and the master does not answer it yet
    worker.send(report(2))  # what they did last
    assert [next_from(server) for _ in range(3)] == ["stats", "stats", "client_ready"]
    worker.send(heartbeat("ready"))
    assert next_from(server) == "heartbeat"


def test_worker_without_users_is_taken_back_at_once(client: WorkerEnd, server: MasterEnd, proxy: Proxy) -> None:
    client.send(message("client_ready", "2.0"))
    client.send(heartbeat("ready"))
    assert [next_from(server) for _ in range(2)] == ["client_ready", "heartbeat"]
    lose(client, proxy)
    assert next_from(server) == "quit"
    linked(client, proxy)
    assert next_from(server) == "client_ready"
    assert client._inbox.empty()


def test_end_that_only_fetches_the_locustfile_is_not_ready_for_users(
    client: WorkerEnd, server: MasterEnd, proxy: Proxy
) -> None:
    client.send(message("locustfile", {"version": "2.0"}))
    assert next_from(server) == "locustfile"
    lose(client, proxy)
    linked(client, proxy)
    client.send(message("locustfile", {"version": "2.0"}))
    assert next_from(server) == "locustfile"


def test_users_are_known_from_the_heartbeat_of_a_worker_with_a_new_end(
    client: WorkerEnd, server: MasterEnd, proxy: Proxy
) -> None:
    client.send(heartbeat("running"))
    assert next_from(server) == "heartbeat"
    lose(client, proxy)
    assert next_to(client) == "stop"


def test_old_master_says_nothing_to_a_worker_whose_users_stop(
    worker: WorkerEnd, server: MasterEnd, proxy: Proxy
) -> None:
    """Its listener may be busy, and not know yet that the link was lost: users that it starts nobody would count."""
    lose(worker, proxy)
    assert next_to(worker) == "stop"
    linked(worker, proxy)
    wait_until(lambda: server._sessions, within=WAIT)
    server.send_to_client(message("spawn", {}))
    server.send_to_client(message("quit"))
    assert next_to(worker) == "quit"


def test_no_report_is_lost_or_counted_twice_when_links_break(
    worker: WorkerEnd, server: MasterEnd, proxy: Proxy
) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    numbers: list[int] = []

    def listen() -> None:
        while True:
            found = server.recv_from_client()[1]
            if found.type == "stats":
                numbers.append(found.data["number"])
            server.send_to_client(message("heartbeat"))  # which reports what has been received

    listener = gevent.spawn(listen)
    try:
        sent = 0
        for _ in range(5):
            proxy.refuse()
            proxy.reset(after=dice.randrange(3000))
            while worker._is_joined:
                sent += 1
                worker.send(report(sent))
                gevent.sleep(0)
            for _ in range(dice.randrange(3)):
                sent += 1
                worker.send(report(sent))
            linked(worker, proxy)
            worker._stage = module._Stage.SETTLED  # as if its users had stopped, and were spawned again
        wait_until(lambda: len(numbers) == sent, within=WAIT, show=lambda: (sent, numbers))
        assert numbers == list(range(1, sent + 1))
        wait_until(lambda: worker.send(heartbeat("running")) or not worker._kept, within=WAIT)
    finally:
        listener.kill()


def test_reports_are_in_order_when_sending_those_that_were_kept_pauses(
    make_end: MakeEnd, server: MasterEnd, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEMP_HIGH_WATER_BYTES", "200000")
    worker = make_end(WorkerEnd, "127.0.0.1", int(proxy.address.rpartition(":")[2]), "w1")
    lose(worker, proxy)
    kept = 100  # more than the system takes at once
    for number in range(kept):
        worker.send(message("stats", {**REPORT, "number": number, "fill": "x" * 100_000}))
    proxy.heal()
    proxy.throttle(5e7)
    worker._hurry()
    found: list[int] = []
    with gevent.Timeout(WAIT):
        while len(found) < kept + 20:
            found.append(server.recv_from_client()[1].data["number"])
            if len(found) <= 20:
                worker.send(report(kept + len(found) - 1))
    assert found == list(range(kept + 20))
    wait_until(lambda: worker._is_joined, within=WAIT)


def test_report_that_is_too_large_hurts_nothing_else(
    worker: WorkerEnd,
    server: MasterEnd,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    large = message("stats", {**REPORT, "fill": "x" * 2**26})
    with pytest.raises(exchange.errors().RPCSendError, match="max_message_bytes"):
        worker.send(large)
    lose(worker, proxy)
    assert next_from(server) == "quit"
    worker.send(report(1))
    worker.send(large)  # nobody knows yet
    worker.send(report(2))
    linked(worker, proxy)
    with gevent.Timeout(WAIT):
        assert [server.recv_from_client()[1].data["number"] for _ in range(2)] == [1, 2]
    assert sum("a message to the Locust master is dropped: " in line for line in caplog.messages) == 1


def test_restarted_master_takes_the_worker_back_and_gets_nothing_of_the_old_test(
    worker: WorkerEnd, server: MasterEnd, proxy: Proxy, make_end: MakeEnd
) -> None:
    worker.send(report(1))
    assert next_from(server) == "stats"
    proxy.refuse()
    server.close()
    assert next_to(worker) == "stop"
    worker.send(report(2))
    again = make_end(MasterEnd, "127.0.0.1", 0)
    proxy.target = f"127.0.0.1:{again.port}"
    linked(worker, proxy)
    worker.send(report(3))
    worker.send(message("client_ready", "2.0"))
    assert next_from(again) == "client_ready"
    worker.send(report(4))
    with gevent.Timeout(WAIT):
        assert again.recv_from_client()[1].data["number"] == 4


def test_restarted_master_does_not_wait_for_the_last_report_to_another_one(
    worker: WorkerEnd, server: MasterEnd, proxy: Proxy, make_end: MakeEnd
) -> None:
    lose(worker, proxy)
    worker.send(message("client_ready", "2.0"))
    server.close()
    again = make_end(MasterEnd, "127.0.0.1", 0)
    proxy.target = f"127.0.0.1:{again.port}"
    linked(worker, proxy)
    assert next_from(again) == "client_ready"


def test_worker_that_ends_does_not_lose_its_link(worker: WorkerEnd, caplog: pytest.LogCaptureFixture) -> None:
    """Nodes shut down by themselves when a program ends; nobody closes the worker's end before."""
    worker._node.shutdown()
    assert worker._inbox.empty()
    assert "lost" not in caplog.text


def test_what_waits_for_a_master_is_bounded(
    make_end: MakeEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address = free_address()
    client = make_end(WorkerEnd, *address.split(":"), "w1")
    for number in range(1100):
        client.send(report(number))
    assert len(client._kept) == 1000
    assert sum("the oldest are being dropped" in line for line in caplog.messages) == 1
    server = make_end(MasterEnd, "127.0.0.1", int(address.split(":")[1]))
    wait_until(lambda: client._hurry() or client._is_joined, within=WAIT)
    with gevent.Timeout(WAIT):
        assert server.recv_from_client()[1].data["number"] == 100


def test_worker_may_start_long_before_the_master(
    make_end: MakeEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pauses between attempts grow, but not while the worker has something to say."""
    address = free_address()
    client = make_end(WorkerEnd, *address.split(":"), "w1")
    (candidate,) = client._node._network.seeds._seeds[0].candidates.values()
    wait_until(lambda: candidate.is_empty and not candidate.is_tried, within=WAIT)
    candidate.due += 1000.0
    server = make_end(MasterEnd, "127.0.0.1", int(address.split(":")[1]))
    client.send(message("client_ready", "2.0"))
    assert next_from(server) == "client_ready"
    (line,) = [line for line in caplog.messages if line.startswith("no link to the Locust master at " + address)]
    assert "refused" in line


def test_wrong_secret_is_logged_with_the_address_of_the_master(
    server: MasterEnd, make_end: MakeEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AEMP_SECRET", "another one")
    client = make_end(WorkerEnd, "127.0.0.1", server.port, "w1")
    client.send(message("client_ready", "2.0"))
    client.send(message("client_ready", "2.0"))
    (line,) = [line for line in caplog.messages if line.startswith("no link to the Locust master at ")]
    assert "secret" in line


def test_other_programs_at_the_masters_address_are_named(make_end: MakeEnd, caplog: pytest.LogCaptureFixture) -> None:
    with node_factory() as make_node:
        node = make_node()
        make_end(WorkerEnd, *node.NODE().split(":"), "w1")
        wait_until(lambda: [line for line in caplog.messages if "no Locust master" in line], within=WAIT)
    assert f"but node {node.NODE()}: check --master-host and --master-port" in caplog.text


def test_broken_message_of_the_master_is_an_error_that_locust_logs(client: WorkerEnd, server: MasterEnd) -> None:
    wait_until(lambda: server._sessions, within=WAIT)
    (session,) = server._sessions
    server._node.snd(session, "frame", 0, b"\xc1")
    with pytest.raises(exchange.errors().RPCError, match="broken message of the master"), gevent.Timeout(WAIT):
        client.recv()
    server.send_to_client(message("ack"))
    assert next_to(client) == "ack"
