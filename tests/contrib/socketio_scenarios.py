# SPDX-License-Identifier: MIT
"""Real Socket.IO clients at several workers: ``python -m tests.contrib.socketio_scenarios URL`` runs all scenarios.

With several URLs, and commas between them, the clients use one after the other. Each scenario is a function. What came
of each is printed as a line of JSON: its name, and "" or what went wrong.
"""

from __future__ import annotations

# ruff: noqa: E402  # first: the clients have threads
from gevent import monkey

monkey.patch_all()

import itertools
import json
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import socketio

from aemp_gevent.contrib.socketio import AempManager
from aemp_gevent.testing import wait_until

WAIT = 30.0
WORKERS = 3


class Client(socketio.Client):  # type: ignore[misc]  # python-socketio has no types
    """A client that keeps what it gets."""

    opened: ClassVar[list[Client]] = []
    numbers: ClassVar[Iterator[int]] = itertools.count()

    def __init__(self, url: str, *rooms: str, namespaces: Any = None) -> None:
        super().__init__(reconnection=False)
        self.opened.append(self)
        self.got: list[Any] = []
        for namespace in namespaces or ["/"]:
            self.on("*", lambda event, *data: self.got.append([event, *data]), namespace=namespace)
        self.on("asked", lambda data: (data, "answered", b"\xff"))
        urls = url.split(",")
        mine = urls[next(self.numbers) % len(urls)]
        self.connect(mine, auth={"rooms": rooms}, transports=["websocket"], namespaces=namespaces, wait_timeout=WAIT)
        self.worker = 0 if namespaces else self.call("worker", timeout=WAIT)

    @property
    def name(self) -> str:
        return str(self.get_sid())


def clients_at_all(url: str, *rooms: str, each: int = 1) -> list[Client]:
    """Return clients at different workers; ``each`` for each."""
    found: list[Client] = []

    def enough() -> bool:
        client = Client(url, *rooms)
        if Counter(known.worker for known in found)[client.worker] < each:
            found.append(client)
        else:
            client.disconnect()
        return len(found) == each * WORKERS

    wait_until(enough, within=WAIT, show=lambda: Counter(known.worker for known in found))
    return sorted(found, key=lambda client: client.worker)


def got(client: Client, *events: list[Any]) -> None:
    """Wait until a client has got some events, and check that there was nothing else."""
    wait_until(lambda: len(client.got) >= len(events), within=WAIT, show=lambda: client.got)
    assert client.got == list(events), client.got


def mark(*clients: Client) -> None:
    """Wait until all clients have what was emitted before, in any worker that one of them is at."""
    for client in clients:
        client.call("emit", (["mark", client.worker], {}), timeout=WAIT)
    wanted = {client.worker for client in clients}
    for client in clients:
        wait_until(
            lambda: wanted <= {event[1] for event in client.got if event[0] == "mark"},  # noqa: B023
            within=WAIT,
            show=lambda: client.got,  # noqa: B023
        )
        client.got = [event for event in client.got if event[0] != "mark"]


def first_emission_reaches_clients_of_all_workers(url: str) -> None:
    one, two, three = clients_at_all(url)
    one.call("emit", (["said", "hello"], {}), timeout=WAIT)
    for client in (one, two, three):
        got(client, ["said", "hello"])


def room_reaches_its_members_and_nobody_else(url: str) -> None:
    members, others = clients_at_all(url, "room"), clients_at_all(url)
    others[0].call("emit", (["said", [1, 2]], {"to": "room"}))
    for client in members:
        got(client, ["said", [1, 2]])
    mark(*others)
    assert not any(client.got for client in others)


def several_rooms_at_once_reach_each_member_once(url: str) -> None:
    one, two, three = clients_at_all(url)
    one.call("enter", (two.name, "a"))
    one.call("enter", (two.name, "b"))
    one.call("enter", (three.name, "b"))
    one.call("emit", (["said", "x"], {"to": ["a", "b"]}))
    got(two, ["said", "x"])
    got(three, ["said", "x"])
    mark(one)
    assert not one.got


def skipped_client_of_another_worker_gets_nothing(url: str) -> None:
    one, two, three = clients_at_all(url)
    one.call("emit", (["said", "x"], {"skip_sid": two.name}))
    got(three, ["said", "x"])
    mark(two, one)
    assert not two.got


def single_client_of_another_worker_is_reached(url: str) -> None:
    one, two, three = clients_at_all(url)
    one.call("emit", (["said", "x"], {"to": two.name}))
    got(two, ["said", "x"])
    mark(one, three)
    assert not one.got
    assert not three.got


def bytes_arrive_as_they_were(url: str) -> None:
    one, two, _ = clients_at_all(url)
    data = bytes(range(256)) * 100
    one.emit("emit_bytes", (two.name, data))
    got(two, ["bytes", {"data": [data, {"more": data * 2}]}])


def acknowledgement_of_a_client_of_another_worker_comes_back(url: str) -> None:
    one, two, _ = clients_at_all(url)
    answer = one.call("call", (two.name, {"a": [1, None, "ü"]}), timeout=WAIT)
    assert answer == ({"a": [1, None, "ü"]}, "answered", b"\xff"), answer


def acknowledgement_with_bytes_comes_back(url: str) -> None:
    one, two, _ = clients_at_all(url)
    answer = one.call("call", (two.name, b"\x00\xfe"), timeout=WAIT)
    assert answer == (b"\x00\xfe", "answered", b"\xff"), answer


def client_of_another_worker_is_disconnected(url: str) -> None:
    one, two, _ = clients_at_all(url)
    one.call("end", two.name)
    wait_until(lambda: not two.connected, within=WAIT)
    one.call("emit", (["said", "x"], {}))
    got(one, ["said", "x"])


def client_of_another_worker_enters_and_leaves_a_room(url: str) -> None:
    one, two, _ = clients_at_all(url)
    one.call("enter", (two.name, "attic"))
    one.call("emit", (["said", 1], {"to": "attic"}))
    one.call("leave", (two.name, "attic"))
    one.call("emit", (["said", 2], {"to": "attic"}))
    mark(one, two)
    assert two.got == [["said", 1]]


def room_is_closed_at_all_workers(url: str) -> None:
    clients = clients_at_all(url, "closing")
    clients[0].call("close", "closing")
    mark(*clients)
    for client in clients:
        client.call("emit", (["said", "x"], {"to": "closing"}))
    mark(*clients)
    assert not any(client.got for client in clients)


def namespaces_are_separate(url: str) -> None:
    one, two, _ = clients_at_all(url)
    others = [Client(url, namespaces=["/other"]) for _ in range(6)]
    others[0].emit("greet", "hi", namespace="/other")
    for client in others:
        got(client, ["heard", "greet", "hi"])
    mark(one, two)
    assert not one.got


def messages_of_one_client_arrive_in_order(url: str) -> None:
    clients = clients_at_all(url, "order")
    for number in range(100):
        for client in clients:
            client.emit("say", ("order", client.name, number))
    for client in clients:
        wait_until(lambda: len(client.got) == 300, within=WAIT, show=lambda: len(client.got))  # noqa: B023
        for sender in clients:
            heard = [number for _, _, name, number in client.got if name == sender.name]
            assert heard == list(range(100)), heard


def large_message_arrives(url: str) -> None:
    one, two, _ = clients_at_all(url)
    one.call("emit", (["said", "x" * 900_000], {"to": two.name}), timeout=WAIT)
    got(two, ["said", "x" * 900_000])


def script_emits_to_all_with_its_first_call(url: str) -> None:
    clients = clients_at_all(url)
    began = time.monotonic()
    AempManager(os.environ["TEST_URL"], write_only=True).emit("said", {"by": b"a script"})
    print(f"# a script has emitted {1000 * (time.monotonic() - began):.1f} ms after it began", file=sys.stderr)
    for client in clients:
        got(client, ["said", {"by": b"a script"}])


def script_closes_a_room_and_disconnects(url: str) -> None:
    one, two, three = clients_at_all(url, "old")
    script = AempManager(os.environ["TEST_URL"], write_only=True)
    # It has no server whose clients these could be.
    script._publish({"method": "disconnect", "sid": two.name, "namespace": "/", "host_id": script.host_id})
    wait_until(lambda: not two.connected, within=WAIT)
    script._publish({"method": "close_room", "room": "old", "namespace": "/", "host_id": script.host_id})
    script.emit("said", "nobody", to="old")
    script.emit("said", "all")
    got(one, ["said", "all"])
    got(three, ["said", "all"])


def flask_socketios_own_emitter_emits(url: str) -> None:
    from aemp_gevent.contrib.flask_socketio import SocketIO

    clients = clients_at_all(url)
    SocketIO(message_queue=os.environ["TEST_URL"]).emit("said", "by Flask-SocketIO")
    for client in clients:
        got(client, ["said", "by Flask-SocketIO"])


SCENARIOS: dict[str, Callable[[str], None]] = {
    name: thing
    for name, thing in list(globals().items())
    if callable(thing) and getattr(thing, "__annotations__", None) == {"url": "str", "return": "None"}
}


def main() -> None:
    """Run all scenarios."""
    for name, scenario in SCENARIOS.items():
        try:
            scenario(sys.argv[1])
            outcome = ""
        except Exception:  # noqa: BLE001  # the others are tried as well
            outcome = traceback.format_exc(limit=-3)
        for client in Client.opened:
            client.disconnect()
        Client.opened.clear()
        print(json.dumps([name, outcome]), flush=True)


if __name__ == "__main__":
    main()
