# SPDX-License-Identifier: MIT
"""A replay peer: it plays one side of a recording, byte for byte, against a real node of ours.

What the recorded node sent goes out as it was recorded, in pieces cut anywhere. Only its auth
line is made again, because it signs the greeting of the other side. What our node sends is
compared, packet by packet, with what the Perl node sent in its place; the differences that
are allowed stand in :func:`is_same`, :meth:`Stage.is_extra` and :data:`TOLD`.

A *stage* is our node in the role of the recorded one: it has the ports of the recorded
names. In the role of a it only reacts. In the role of b it follows the recording: each recorded packet is
turned into the call that made it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import gevent
from gevent import socket

from aemp_gevent import SELF
from aemp_gevent.directory.engine import Query
from aemp_gevent.node import spawnable_functions
from aemp_gevent.node.node import Node
from aemp_gevent.wire import auth
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.limits import Limits
from aemp_gevent.wire.vocabulary import SPAWN
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, Deaths
from tests.support.recordings import Recording, Side
from tests.support.seams import embedded_of

TOLD = {
    "g_slave": "b tells its seed: once only that it should be global, then its whole database",
    "g_global": "a, made global by the g_slave, and a global b, say what they are",
    "g_set": "global nodes exchange what their clients have",
}
"""Requests with which nodes tell what they know: what is known in the end is compared, as ours need fewer of them."""

ASKED = {
    "g_find": "b asks for the addresses of c, and of a node that there is not; also of a, to which it has a link",
    "g_found": "the answer; nil where nothing is known",
    "g_mon1": "db_mon; and a global b for the family 'g",
    "g_mon0": "the end of db_mon",
    "g_chg1": "the answer to g_mon1; nil when the family is empty",
    "g_chg2": "each change of a monitored family, also to the node that made it",
    "g_upd": "db_set, db_del, db_reg; between global nodes also what the clients changed, and may come repeatedly",
    "g_db_keys": "db_keys",
    "g_db_values": "db_values",
    "g_db_family": "db_family",
    "g_reply": "the answer to g_db_*",
}
"""Requests that are compared one by one, where they are about a user's family (:meth:`Stage.is_compared`)."""

_QUERIES: dict[str, Query] = {"g_db_keys": "keys", "g_db_values": "values", "g_db_family": "family"}

_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")


def is_same(actual: Any, expected: Any) -> bool:
    """Return whether our node's packet means what the recorded one does."""
    if isinstance(expected, list):
        actual, expected = _spelled_out(actual), _spelled_out(expected)
        return (
            isinstance(actual, list) and len(actual) == len(expected) and all(map(is_same, actual, expected))
        ) or _is_same_death(actual, expected)
    if isinstance(expected, dict):
        return (
            isinstance(actual, dict)
            and actual.keys() == expected.keys()
            and all(is_same(actual[key], expected[key]) for key in expected)
        )
    if isinstance(expected, float) and expected > 1e9:  # a time
        return isinstance(actual, float) and math.isfinite(actual)
    if isinstance(expected, str) and isinstance(actual, str) and _ADDRESS.fullmatch(expected):
        return _ADDRESS.fullmatch(actual) is not None
    if isinstance(expected, str) and isinstance(actual, int):
        return str(actual) == expected  # a truth that Perl spells "1"
    return type(actual) is type(expected) and bool(actual == expected)


def _spelled_out(packet: Any) -> Any:
    """Return a change of the directory spelled alike: what is empty may be nil, or be left out."""
    if isinstance(packet, list) and packet[:1] == [""] and packet[1:2] in (["g_upd"], ["g_chg2"]):
        request, family, *change = packet[1:]
        entries, deleted = (*change, None, None)[:2]
        return [None, request, family, entries or None, deleted or None]  # no request any more
    return packet


def known(packets: list[list[Any]]) -> dict[str, dict[str, Any]]:
    """Return the database that a node has told of with these packets."""
    database: dict[str, dict[str, Any]] = {}
    for _, request, *args in packets:
        if request in ("g_slave", "g_set") and args:
            for family, entries in args[0].items():
                database.setdefault(family, {}).update(entries)
        elif request == "g_upd":
            family, entries, deleted = (*args, None)[:3]
            database.setdefault(family, {}).update(entries or {})
            for key in deleted or ():
                database[family].pop(key, None)
    return {family: entries for family, entries in database.items() if entries}


def own(database: dict[str, dict[str, Any]], node: str) -> dict[str, dict[str, Any]]:
    """Return a database without what another node published about nodes."""
    return {
        family: {key: value for key, value in entries.items() if key == node or not family.startswith("'")}
        for family, entries in database.items()
    }


def is_of_directory(packet: list[Any]) -> bool:
    return packet[:1] == [""] and (packet[1] in TOLD or packet[1] in ASKED)


def _is_same_death(actual: Any, expected: list[Any]) -> bool:
    """We put the class of an exception before its text."""
    return (
        expected[:2] == ["", "kil0"]
        and expected[3:4] == ["die"]
        and actual[:4] == expected[:4]
        and str(actual[4]).endswith(f": {expected[4]}")
    )


class ReplayPeer:
    """One side of a recording, on a connection with our node.

    Args:
        recording: What is played.
        plays: The side it plays, ``"a"`` or ``"b"``.
        sock: The connection.
        dice: Where streams are cut.
    """

    def __init__(self, recording: Recording, plays: str, sock: socket.socket, dice: random.Random) -> None:
        self._recording = recording
        self.side: Side = getattr(recording, plays)
        self.other: Side = getattr(recording, "b" if plays == "a" else "a")
        self._sock = sock
        sock.settimeout(WAIT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._dice = dice
        self._buffer = b""
        self._decoder: Any = None
        self._packets: list[list[Any]] = []
        self.told: list[list[Any]] = []
        """Our node's reports about the directory."""
        self.recorded_told: list[list[Any]] = []
        """The recorded node's reports about it."""
        self.greeting = (b"", b"")

    def send(self, data: bytes) -> None:
        """Send bytes in pieces cut anywhere."""
        while data:
            size = self._dice.choice([1, 2, self._dice.randint(1, len(data)), len(data)])
            self._sock.sendall(data[:size])
            data = data[size:]
            for _ in range(self._dice.randrange(3)):
                gevent.sleep(0)

    def _read(self) -> bytes:
        data: bytes = self._sock.recv(65536)
        assert data, "the node closed the connection"
        return data

    def _line(self) -> bytes:
        while b"\n" not in self._buffer:
            self._buffer += self._read()
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def greet(self) -> None:
        """Exchange greetings: ours are the recorded bytes."""
        self.send(b"".join(line + b"\n" for line in self.side.lines))
        self.greeting = (self._line(), self._line())
        assert self.greeting[0].startswith(b"aemp;1;" + self.other.node.encode() + b";")

    def prove(self, framing: str) -> str:
        """Exchange auth lines, and return the framing that our node chose."""
        secret = self._recording.secret
        token = auth.hmac_token(secret, self.side.lines, self.greeting)
        self.send(f"hmac_sha3_512;{token};{framing}\n".encode())
        method, their_token, chosen = self._line().split(b";")
        assert method == b"hmac_sha3_512"
        assert auth.verify("hmac_sha3_512", their_token, secret, self.greeting, self.side.lines)
        self._decoder = FRAMINGS[chosen.decode()].foreign_decoder(Limits(2**20))
        self._feed(self._buffer)
        return chosen.decode()

    def _feed(self, data: bytes) -> None:
        self._decoder.feed(data)
        self._packets += [packet for packet in self._decoder if packet not in ([], [""])]

    def packet(self) -> list[Any]:
        """Return the next packet of our node that is not a keep-alive."""
        while not self._packets:
            self._feed(self._read())
        return self._packets.pop(0)

    def play(self, stage: Stage) -> None:
        """Play the whole recording; fail where our node differs from the recorded one."""
        outgoing = b""
        for sent in self._recording.exchange():
            if sent.sender == self.side.node:
                outgoing += sent.raw
                stage.gets(sent.packet)
                continue
            self.send(outgoing)
            outgoing = b""
            must_send = stage.sends(sent.packet)
            if not stage.is_compared(sent.packet):
                self.recorded_told.append(sent.packet)
                continue
            if not must_send:
                continue
            actual = self._packet_of(stage)
            assert is_same(actual, sent.packet), f"our node sent {actual}, and the recorded one {sent.packet}"
        self.send(outgoing)
        self._finish(stage)

    def _packet_of(self, stage: Stage) -> list[Any]:
        while True:
            packet = self.packet()
            if not stage.is_compared(packet):
                self.told.append(packet)
            elif not stage.is_extra(packet):
                return packet

    def _finish(self, stage: Stage) -> None:
        """Check that our node has handled everything, and has nothing more to send."""
        encode = FRAMINGS[self.side.framing].encoder()
        self.send(encode(["", "snd", f"{self.side.node}#the end", "of it"]))
        assert self._packet_of(stage) == ["the end", "of it"]


class Stage:
    """Our node in the role of the recorded one."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def gets(self, packet: list[Any]) -> None:
        """Note a packet that our node is about to get."""

    def sends(self, packet: list[Any]) -> bool:
        """Make our node do what it sends this packet for; return whether it must."""
        return True

    def is_extra(self, packet: list[Any]) -> bool:
        """Return whether our node may send this although the recorded one did not."""
        return False

    def is_compared(self, packet: list[Any]) -> bool:
        """Return whether our node sends just this where the recorded one did."""
        if not is_of_directory(packet):
            return True
        request, *args = packet[1:]
        # A node chooses when it reports what the directory keeps about nodes.
        return request in ASKED and not args[0].startswith("'")


class StageOfA(Stage):
    """The node that answers: it has a port that echoes, and a function that may be spawned."""

    def __init__(self, node: Node, recording: Recording) -> None:
        super().__init__(node)
        echo = node._create(recording.echo.partition("#")[2]).id
        node.db_reg("echo", echo)
        node.rcv(echo, "echo", lambda *message: node.snd(message[-1], *message[:-1]))
        node.rcv(echo, "ping", lambda number, reply: node.snd(reply, "pong", number))

    def is_compared(self, packet: list[Any]) -> bool:
        # The echo port's own entry goes when it dies; whether the directory or its watchers hear of it first is open.
        return super().is_compared(packet) and packet[1:3] != ["g_upd", "echo"]

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        """Allow peers to spawn it. Not by @spawnable: marks are never removed, and other tests would see them."""
        with mock.patch.dict(spawnable_functions._spawnable, {"main::echo_init": self.echo_init}):
            yield

    def echo_init(self, client: str | None = None, watcher: str | None = None, *args: Any) -> None:
        """Serve as what peers call main::echo_init."""
        node, me = self.node, SELF()

        def die(text: str) -> None:
            raise RuntimeError(text)

        node.rcv(me, "die", die)
        if client is not None:
            node.mon(client, lambda *reason: node.snd(watcher, "client_died", client, *reason))
            node.snd(client, "spawned", me, *args)


class StageOfB(Stage):
    """The node that asks. It keeps what its ports get and what its monitors hear, to be compared in the end."""

    def __init__(self, node: Node, recording: Recording) -> None:
        super().__init__(node)
        self.expected: list[tuple[str, list[Any]]] = []
        self.messages: list[tuple[str, list[Any]]] = []
        self.expected_deaths: dict[str, tuple[Any, ...]] = {}
        self.deaths: dict[str, Deaths] = {}
        self._guards: dict[str, Any] = {}
        self._watched: dict[str, Any] = {}
        self._is_global = recording.is_global
        self.answers: list[Any] = []
        self.expected_answers: list[Any] = []
        self.views: list[dict[str, Any]] = []
        self.expected_views: list[dict[str, Any]] = []
        numbers = [sent.packet[3] for sent in recording.exchange() if sent.packet[1:2] and sent.packet[1] in _QUERIES]
        embedded_of(node)._client._numbers = iter(numbers)  # type: ignore[assignment]  # what the recorded answers answer
        self._spawned: set[str] = set()
        self._requests: dict[str, Callable[..., bool]] = {
            "mon1": self._monitor,
            "mon0": self._unmonitor,
            "kil0": self._kill_own,
            "kil1": self._kill,
            SPAWN: self._spawn,
            "g_mon1": self._watch,
            "g_mon0": self._unwatch,
            "g_upd": self._update,
            "g_find": self._find,
            **{request: functools.partial(self._query, request) for request in _QUERIES},
        }
        for sent in recording.exchange():
            if sent.sender == "a" and sent.packet[0]:
                self._port(sent.packet[0])
            if sent.sender == "b" and sent.packet[1:2] == ["kil0"]:
                self._port(sent.packet[2])

    def _port(self, name: str) -> None:
        if self.node.scheduler.table.find(f"{self.node.NODE()}#{name}") is None:
            port = self.node._create(name).id
            self.node.rcv(port, lambda *message: self.messages.append((name, list(message))))

    def gets(self, packet: list[Any]) -> None:
        if packet[0]:
            self.expected.append((packet[0], packet[1:]))
        elif packet[1] == "kil0":
            self.expected_deaths[packet[2]] = tuple(packet[3:])
        elif not self.is_compared(packet):
            return
        elif packet[1] == "g_chg1":
            self.expected_views.append(packet[3] or {})
        elif packet[1] == "g_chg2":
            entries, deleted = packet[3:]
            former = self.expected_views[-1]
            self.expected_views.append(
                {key: value for key, value in {**former, **entries}.items() if key not in deleted}
            )
        elif packet[1] in ("g_reply", "g_found"):
            self.expected_answers.append(packet[3])

    def has_heard(self) -> None:
        """Wait until everything that came so far was handled, and fail if it is not what was sent."""
        wait_until(
            lambda: (
                len(self.messages) >= len(self.expected)
                and len(self.views) >= len(self.expected_views)
                and len(self.answers) >= len(self.expected_answers)
                and self.expected_deaths.keys() <= self._dead()
            ),
            within=WAIT,
            show=lambda: (self.messages, self.views, self.answers, self.expected_deaths.keys() - self._dead()),
        )
        assert self.messages == self.expected
        assert self.views == self.expected_views
        assert self.answers == self.expected_answers
        assert {name: self.deaths[name].wait() for name in self._dead()} == self.expected_deaths

    def _dead(self) -> set[str]:
        return {name for name, deaths in self.deaths.items() if deaths.count}

    def sends(self, packet: list[Any]) -> bool:
        # What the recorded node did next it did in answer to what it had heard, or a tenth of a second later.
        self.has_heard()
        return self.perform(packet)

    def perform(self, packet: list[Any]) -> bool:
        """Make the call that sends this packet; return whether it does."""
        name, *message = packet
        if name:
            self.node.snd(f"a#{name}", *message)
            return True
        request, *args = message
        if request in TOLD or not (self.is_compared(packet) or request == "g_upd"):
            return False
        if request in self._requests:
            return self._requests[request](*args)
        self.node.snd("a", *message)
        return True

    def _monitor(self, name: str) -> bool:
        self.deaths[name] = Deaths()
        self._guards[name] = self.node.mon(f"a#{name}", self.deaths[name])
        return name not in self._spawned

    def _unmonitor(self, name: str) -> bool:
        self._guards.pop(name).cancel()
        return name not in self._spawned

    def _kill_own(self, name: str, *reason: Any) -> bool:
        self.node.kil(f"b#{name}", *reason)
        return True

    def _kill(self, name: str, *reason: Any) -> bool:
        self.node.kil(f"a#{name}", *reason)
        return True

    def _spawn(self, name: str, function: str, *args: Any) -> bool:
        self._spawned.add(name)
        names, self.node._new_name = self.node._new_name, lambda: name
        try:
            assert self.node.spawn("a", function, *args) == f"a#{name}"
        finally:
            self.node._new_name = names
        return True

    def _watch(self, family: str) -> bool:
        self._watched[family] = self.node.db_mon(
            family, lambda entries, _added, _changed, _deleted: self.views.append(dict(entries))
        )
        return True

    def _unwatch(self, family: str) -> bool:
        self._watched.pop(family).cancel()
        return True

    def _update(self, family: str, entries: dict[str, Any] | None, deleted: Sequence[str] = ()) -> bool:
        for key, value in ({} if family.startswith("'") else entries or {}).items():
            self.node.db_set(family, key, value)
        if deleted:
            self.node.db_del(family, *deleted)
        return True

    def _query(self, request: str, family: str, _number: str) -> bool:
        self.node._directory.query(_QUERIES[request], family, self.answers.append)
        return True

    def _find(self, node: str) -> bool:
        self.node._directory.find(node, self.answers.append)
        return True

    def is_compared(self, packet: list[Any]) -> bool:
        if self._is_global and is_of_directory(packet):
            return False  # a node of ours that is global has all of it, and needs to ask nobody
        # Nor where it has a link to.
        return super().is_compared(packet) and packet[1:3] not in (["g_find", "a"], ["g_found", "a"])

    def is_extra(self, packet: list[Any]) -> bool:
        # Our nodes watch what they spawned from its first moment to its last.
        return packet[:2] == ["", "mon1"] and packet[2] in self._spawned
