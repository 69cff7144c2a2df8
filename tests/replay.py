# SPDX-License-Identifier: MIT
"""A replay peer: it plays one side of a recording, byte for byte, against a real node of ours.

What the recorded node sent goes out as it was recorded, in pieces cut anywhere. Only its auth
line is made anew, because it signs the greeting of the other side. What our node sends is
compared, packet by packet, with what the Perl node sent in its place; the differences that
are allowed stand in :func:`is_same`, :meth:`Stage.is_extra` and :data:`LATER`.

A *stage* is our node in the role of the recorded one: it has the ports of the recorded
names. In the role of a it only reacts. In the role of b it is told what to do: each recorded packet is
turned into the call that made it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket

from aemp_gevent import SELF
from aemp_gevent.node import Node
from aemp_gevent.requests import PERL_SPAWN
from aemp_gevent.spawning import spawnable
from aemp_gevent.wire import auth
from aemp_gevent.wire.framing import FRAMINGS
from tests.helpers import wait_until
from tests.networking import WAIT, Deaths
from tests.recordings import Recording, Side

LATER = {
    "g_slave": "b sends it to its seed: empty, and with its whole database, which holds its listeners",
    "g_find": "b asks for the addresses of a (and of c, and of a node that there is not)",
    "g_mon1": "db_mon, and a global b for the family 'g",
    "g_mon0": "the end of db_mon",
    "g_upd": "db_set, db_del, db_reg; between global nodes also what the clients changed, and may come repeatedly",
    "g_db_keys": "db_keys",
    "g_db_values": "db_values",
    "g_db_family": "db_family",
    "g_global": "a, made global by the g_slave, and a global b, say what they are",
    "g_set": "global nodes exchange what their clients have",
    "g_found": "the answer to g_find; nil where nothing is known",
    "g_reply": "the answer to g_db_*",
    "g_chg1": "the answer to g_mon1; nil when the family is empty",
    "g_chg2": "each change of a monitored family, also to the node that made it",
}
"""Requests of the directory in the recordings, and when they are sent: not answered, nor compared, yet."""


def is_same(actual: Any, expected: Any) -> bool:
    """Return whether our node's packet means what the recorded one does."""
    if isinstance(expected, list):
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
    if isinstance(expected, str) and isinstance(actual, int):
        return str(actual) == expected  # a truth that Perl spells "1"
    return type(actual) is type(expected) and bool(actual == expected)


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
        self._decoder = FRAMINGS[chosen.decode()].foreign_decoder(2**20)
        self._feed(self._buffer)
        return chosen.decode()

    def _feed(self, data: bytes) -> None:
        self._decoder.feed(data)
        self._packets += [packet for packet in self._decoder if packet not in ([], [""])]

    def packet(self) -> list[Any]:
        """Return the next packet of our node that is no keep-alive."""
        while not self._packets:
            self._feed(self._read())
        return self._packets.pop(0)

    def play(self, stage: Stage) -> None:
        """Play the whole recording; fails where our node does something else than the recorded one did."""
        outgoing = b""
        for sent in self._recording.exchange():
            if sent.sender == self.side.node:
                outgoing += sent.raw
                stage.gets(sent.packet)
                continue
            self.send(outgoing)
            outgoing = b""
            if _is_later(sent.packet) or not stage.sends(sent.packet):
                continue
            actual = self._packet_of(stage)
            assert is_same(actual, sent.packet), f"our node sent {actual}, and the recorded one {sent.packet}"
        self.send(outgoing)
        self._finish(stage)

    def _packet_of(self, stage: Stage) -> list[Any]:
        packet = self.packet()
        while _is_later(packet) or stage.is_extra(packet):
            packet = self.packet()
        return packet

    def _finish(self, stage: Stage) -> None:
        """See that our node has handled everything, and has nothing more to say."""
        encode = FRAMINGS[self.side.framing].encoder()
        self.send(encode(["", "snd", f"{self.side.node}#the end", "of it"]))
        assert self._packet_of(stage) == ["the end", "of it"]


def _is_later(packet: list[Any]) -> bool:
    return packet[:1] == [""] and packet[1] in LATER


class Stage:
    """Our node in the role of the recorded one."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def gets(self, packet: list[Any]) -> None:
        """Note a packet that our node is about to get."""

    def sends(self, packet: list[Any]) -> bool:
        """Have our node do what it sends this packet for; return whether it must."""
        return True

    def is_extra(self, packet: list[Any]) -> bool:
        """Return whether our node may send this although the recorded one did not."""
        return False


class StageOfA(Stage):
    """The node that answers: it has a port that echoes, and a function that may be spawned."""

    def __init__(self, node: Node, recording: Recording) -> None:
        super().__init__(node)
        global _stage
        _stage = self
        echo = node._create(recording.echo.partition("#")[2]).id
        node.rcv(echo, "echo", lambda *message: node.snd(message[-1], *message[:-1]))
        node.rcv(echo, "ping", lambda number, reply: node.snd(reply, "pong", number))


_stage: StageOfA


@spawnable("main::echo_init")
def _echo_init(client: str | None = None, watcher: str | None = None, *args: Any) -> None:
    node, me = _stage.node, SELF()

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
        self._spawned: set[str] = set()
        self._requests: dict[str, Callable[..., bool]] = {
            "mon1": self._monitor,
            "mon0": self._unmonitor,
            "kil0": self._kill_own,
            "kil1": self._kill,
            PERL_SPAWN: self._spawn,
        }
        for sent in recording.exchange():
            if sent.sender == "a" and sent.packet[0]:
                self._port(sent.packet[0])
            if sent.sender == "b" and sent.packet[1:2] == ["kil0"]:
                self._port(sent.packet[2])

    def _port(self, name: str) -> None:
        if self.node.find(f"{self.node.NODE()}#{name}") is None:
            port = self.node._create(name).id
            self.node.rcv(port, lambda *message: self.messages.append((name, list(message))))

    def gets(self, packet: list[Any]) -> None:
        if packet[0]:
            self.expected.append((packet[0], packet[1:]))
        elif packet[1] == "kil0":
            self.expected_deaths[packet[2]] = tuple(packet[3:])

    def has_heard(self) -> None:
        """Wait until everything that came so far was handled, and fail if it is not what was sent."""
        wait_until(
            lambda: len(self.messages) >= len(self.expected) and self.expected_deaths.keys() <= self._dead(),
            show=lambda: (self.expected[len(self.messages) :], self.expected_deaths.keys() - self._dead()),
        )
        assert self.messages == self.expected
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

    def is_extra(self, packet: list[Any]) -> bool:
        # Our nodes watch what they spawned from its first moment to its last.
        return packet[:2] == ["", "mon1"] and packet[2] in self._spawned
