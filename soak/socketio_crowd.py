# SPDX-License-Identifier: MIT
"""Many Socket.IO clients at the workers of one gunicorn, which is meanwhile mistreated.

``python -m soak.socketio_crowd ADDRESS MASTER`` connects the clients, each in two rooms, and lets some of them send
messages to rooms. If MASTER, the process ID of gunicorn's master, is not 0, a worker is killed after a quarter of the
messages, all are replaced after half of them, and all end while the last tenth is sent. What the clients got is
compared with what was sent, and printed as a line of JSON. It ends with 1 if somebody lacks something, or got it out of
order.

A message that was acknowledged must reach every client of its room that is connected, after all earlier ones of its
sender to this room. A client that loses its connection comes back with another one, which must get all from there on.
"""

from __future__ import annotations

# ruff: noqa: E402  # first: the clients have threads
from gevent import monkey

monkey.patch_all()

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import gevent
import gevent.event
import socketio
from socketio.exceptions import BadNamespaceError
from socketio.exceptions import ConnectionError as ConnectionRefused

from aemp_gevent.testing import wait_until

PATIENCE = 60.0
"""Seconds that anything may take."""

STALL = 10.0
"""Seconds after which a client that waits for an acknowledgement emits something again."""

Key = tuple[str, str]
"""A sender and a room."""


class Sent:
    """What was sent: the numbers, in order, by sender and room."""

    def __init__(self) -> None:
        self.numbers: defaultdict[Key, list[int]] = defaultdict(list)
        self.unsure: set[tuple[Key, int]] = set()
        """Messages that nobody acknowledged, because the sender's connection was lost."""
        self.count = 0


class Connection:
    """One connection of a client.

    Args:
        url: The server's.
        rooms: The rooms that it enters.
        sent: What was sent.
    """

    def __init__(self, url: str, rooms: list[str], sent: Sent) -> None:
        self.lost = gevent.event.Event()
        self._client: Any = socketio.Client(reconnection=False)  # python-socketio has no types
        self._client.on("said", self._said)
        self._client.on("disconnect", lambda *_reason: self.lost.set())
        self.got: defaultdict[Key, list[int]] = defaultdict(list)
        self.seconds: list[float] = []
        """How long each message took to get here."""
        self.heard = 0.0
        """When the last one came."""
        self._client.connect(url, auth={"rooms": rooms}, transports=["websocket"], wait_timeout=PATIENCE)
        # From now on it must get everything.
        self.before = {key: len(numbers) for key, numbers in sent.numbers.items()}
        self.worker = 0  # not known yet
        self.worker = self.ask("worker")

    def _said(self, room: str, sender: str, number: int, began: float) -> None:
        self.got[sender, room].append(number)
        self.heard = time.monotonic()
        self.seconds.append(self.heard - began)

    def ask(self, event: str, *args: Any) -> Any:
        """Return the server's acknowledgement; None if the connection was lost before it came.

        python-engineio's client may miss the end of a connection. A WebSocket's closing frame ends the client's reader,
        and so does the text of an HTTP error, which gunicorn writes into the WebSockets of a gevent worker that it cuts
        off. The reader puts a mark into the writer's queue, and waits for the writer's end. But a writer that finds a
        packet and the mark together sends the packet, forgets the mark, and waits for more: for
        ``max(ping_interval, ping_timeout) + 5`` seconds. Until then nobody answers, and nobody reads. What is emitted
        next cannot be written, and that ends the writer. So a client that waits for long emits something now and then,
        whose acknowledgement it ignores.
        """
        answer: list[Any] = []
        came = gevent.event.Event()

        def acknowledged(*values: Any) -> None:
            answer.extend(values)
            came.set()

        try:
            self._client.emit(event, args, callback=acknowledged)
        except BadNamespaceError:
            return None
        began = time.monotonic()
        while not gevent.wait([came, self.lost], timeout=STALL, count=1):
            text = f"no acknowledgement of {event} by worker {self.worker} within {PATIENCE} s"
            assert time.monotonic() < began + PATIENCE, text
            with contextlib.suppress(BadNamespaceError):
                self._client.emit("worker")
        return answer[0] if came.is_set() else None

    def close(self) -> None:
        """Close it."""
        self._client.disconnect()

    def faults(self, rooms: list[str], sent: Sent) -> list[str]:
        """Return what it lacks, or has in another order."""
        found = [f"message of {key}, which nobody sent" for key in self.got if key not in sent.numbers]
        for key, numbers in sent.numbers.items():
            if key[1] not in rooms:
                continue
            got = self.got[key]
            first = numbers.index(got[0]) if got and got[0] in numbers else len(numbers)
            if got != numbers[first : first + len(got)]:
                found.append(f"{key}: {got} of {numbers}")
            elif not self.lost.is_set():
                due = numbers[self.before.get(key, 0) :]
                if due and (key, due[-1]) in sent.unsure and (not got or got[-1] != due[-1]):
                    due.pop()
                if due and got[-len(due) :] != due:
                    found.append(f"{key}: got {got}, but {due} were due")
            elif got and first > self.before.get(key, 0):
                found.append(f"{key}: began with {got[0]}, but {numbers[self.before.get(key, 0)]} was due")
        return found


class Place:
    """A client, which comes back when its connection is lost."""

    def __init__(self, url: str, rooms: list[str], sent: Sent) -> None:
        self.rooms = rooms
        self.connections: list[Connection] = []
        self._url = url
        self._sent = sent
        self._connect()
        self.returning = gevent.spawn(self._return)

    @property
    def last(self) -> Connection:
        """The connection that it has, or had last."""
        return self.connections[-1]

    def _connect(self) -> None:
        self.connections.append(Connection(self._url, self.rooms, self._sent))

    def _return(self) -> None:
        while True:
            self.last.lost.wait()
            try:
                self._connect()
            except ConnectionRefused:
                gevent.sleep(0.1)

    def say(self, name: str, rooms: list[str], numbers: range, progress: Callable[[], None]) -> None:
        """Send numbers to rooms in turn, under another name after each loss of the connection."""
        connection = self.last
        for number in numbers:
            if connection.lost.is_set():
                gevent.wait([gevent.spawn(self._is_back, connection)], timeout=PATIENCE)
                if self.last is connection:
                    return  # the server has ended
                connection = self.last
            key = f"{name}.{len(self.connections)}", rooms[number % len(rooms)]
            self._sent.numbers[key].append(number)
            if connection.ask("say", key[1], key[0], number, time.monotonic()) is None:
                self._sent.unsure.add((key, number))
            else:
                self._sent.count += 1
                progress()

    def _is_back(self, former: Connection) -> None:
        while self.last is former and not self.returning.dead:
            gevent.sleep(0.01)


def crowd(
    url: str, master: int, clients: int, rooms: int, messages: int, senders: int, settle: float, patience: float
) -> dict[str, Any]:
    """Run it all, and return what was seen."""
    sent = Sent()
    names = [f"room {number}" for number in range(rooms)]
    began = time.monotonic()
    places: list[Place] = []

    def enter(number: int) -> None:
        places.append(Place(url, [names[number % rooms], names[(7 * number + 3) % rooms]], sent))

    for first in range(0, clients, 20):  # not all at once: the listening sockets' queues are short
        entering = [gevent.spawn(enter, number) for number in range(first, min(first + 20, clients))]
        gevent.joinall(entering, raise_error=True)
    connected = time.monotonic() - began
    workers = {place.last.worker for place in places}
    done: list[str] = []

    gevent.sleep(settle)

    def progress() -> None:
        if master and sent.count >= messages // 4 and not done:
            done.append("kill")
            os.kill(places[0].last.worker, signal.SIGKILL)
        elif master and sent.count >= messages // 2 and len(done) == 1:
            done.append("hangup")
            os.kill(master, signal.SIGHUP)

    def end() -> None:
        if master and "term" not in done:
            done.append("term")
            os.kill(master, signal.SIGTERM)
            for place in places:
                place.returning.kill(block=False)

    def say(numbers: range, progress: Callable[[], None]) -> None:
        saying = [
            gevent.spawn(place.say, f"sender {number}", names, numbers, progress)
            for number, place in enumerate(places[:senders])
        ]
        gevent.joinall(saying, raise_error=True)

    def faults() -> list[str]:
        return [
            f"client {number}, connection {nth}: {fault}"
            for number, place in enumerate(places)
            for nth, connection in enumerate(place.connections)
            for fault in connection.faults(place.rooms, sent)
        ]

    began = time.monotonic()
    each = messages // senders
    say(range(each * 9 // 10 if master else each), progress)
    said = time.monotonic() - began
    with contextlib.suppress(AssertionError):  # they are in the report
        wait_until(lambda: not faults(), within=patience)
    found = faults()
    heard = max(connection.heard for place in places for connection in place.connections) - began
    if master:
        say(range(each * 9 // 10, each), end)
        wait_until(lambda: all(place.last.lost.is_set() for place in places), within=patience)
        found += faults()
    every = [connection for place in places for connection in place.connections]
    seconds = sorted(second for connection in every for second in connection.seconds)
    for place in places:
        place.returning.kill()
        place.last.close()
    return {
        "faults": found[:5],
        "faulty": len(found),
        "workers": len(workers),
        "did": done,
        "connections": len(every),
        "stayed": sum(len(place.connections) == 1 for place in places),
        "acknowledged": sent.count,
        "unsure": len(sent.unsure),
        "delivered": len(seconds),
        "connect_seconds": connected,
        "say_seconds": said,
        "hear_seconds": heard,
        "p50_ms": 1000 * seconds[len(seconds) // 2] if seconds else None,
        "p99_ms": 1000 * seconds[99 * len(seconds) // 100] if seconds else None,
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m soak.socketio_crowd")
    parser.add_argument("address")
    parser.add_argument("master", type=int)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--settle", type=float, default=0.0, help="seconds to wait before the first message")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds to wait for the last messages")
    args = parser.parse_args()
    seen = crowd(f"http://{args.address}", **{name: value for name, value in vars(args).items() if name != "address"})
    print(json.dumps(seen), flush=True)
    sys.exit(bool(seen["faults"]))


if __name__ == "__main__":
    main()
