# SPDX-License-Identifier: MIT
"""Nodes for a test, and a raw peer: a socket that sends exactly what a test gives it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import secrets
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import gevent
from gevent import socket
from gevent.event import AsyncResult

from aemp_gevent.node.access import network_of, ports_host_of
from aemp_gevent.node.node import Node
from aemp_gevent.ports.port import REMOTE
from aemp_gevent.testing.waiting import wait_until
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.handshake_states import PeerGreeted
from aemp_gevent.wire.limits import Limits
from tests.support import preloaded
from tests.support.helpers import turns
from tests.support.native import read_line
from tests.support.seams import end_kept_watches, ports_of
from tests.support.settling import settle

SECRET = "a secret of the tests"
ROOT = Path(__file__).parents[2]
WAIT = 10.0
"""Seconds that anything may take before a test gives up."""

OUR_PROVIDER = (("provider", "aemp_gevent-0"),)

UNIQUE = "aB3dE6gH9k1f"
"""The name of a port as a node of ours makes it, which no other port will ever have."""

MakeNode = Callable[..., Node]


@contextlib.contextmanager
def node_factory() -> Iterator[MakeNode]:
    """Yield a function that makes networked nodes; all are shut down afterwards."""
    nodes: list[Node] = []

    def make(noderef: str | None = "127.0.0.1:0", *seeds: str, **settings: Any) -> Node:
        node = Node()
        nodes.append(node)
        if noderef is not None:
            node.initialise_node(noderef, *seeds, **{"secret": SECRET, **settings})
        return node

    try:
        yield make
    finally:
        for node in nodes:
            node.shutdown(0.2)
        turns(3)
        for node in nodes:
            settle(node)  # what they still log belongs to this test, not to the next one


class Inbox:
    """A port that keeps what it gets."""

    def __init__(self, node: Node) -> None:
        self.messages: list[tuple[Any, ...]] = []
        self.port = node.port(self._take)

    def _take(self, *message: Any) -> None:
        self.messages.append(message)

    def __str__(self) -> str:
        return self.port


def name_of(port: object) -> str:
    """Return the name of a port on its node."""
    return str(port).partition("#")[2]


def tables(*nodes: Node) -> list[Any]:
    """Return how much nodes know: ports, whom they watch, who watches them, what waits in a call, timers."""
    found: list[Any] = []
    for node in nodes:
        end_kept_watches(node)
    for node in nodes:
        network = network_of(node)
        ports = {port for port in ports_of(node).values() if port.state != REMOTE}
        watched = [port for port in ports_of(node).values() if port.monitors]
        found.append(
            (
                len(ports),
                sum(len(port.monitors) if isinstance(port.monitors, dict) else 1 for port in watched),
                sorted(
                    (peer.node, len(peer.peer_monitors._monitors))
                    for peer in (network.peers.values() if network else ())
                ),
                dict(ports_host_of(node).waiting),
                len(node.scheduler.timers),
            )
        )
    return found


def settled_tables(*nodes: Node) -> list[Any]:
    """Return the same when everything that the nodes have sent each other has arrived."""
    for node in nodes:
        end_kept_watches(node)
    for node, other in itertools.permutations(set(nodes), 2):
        assert node.syncal(WAIT, other.NODE(), "time")
    for _ in range(3):
        gevent.sleep(0)
    return tables(*nodes)


class Deaths:
    """A monitor's action that keeps the reason, and can be waited for."""

    def __init__(self) -> None:
        self._result: AsyncResult[tuple[Any, ...]] = AsyncResult()
        self.count = 0

    def __call__(self, *reason: Any) -> None:
        self.count += 1
        self._result.set(reason)

    def wait(self, seconds: float = WAIT) -> tuple[Any, ...]:
        return self._result.get(timeout=seconds) or ()


def dial_each_other(one: Node, two: Node) -> None:
    """Dial two nodes to each other at once: they exchange messages, and all arrive in order."""
    ours, theirs, lost = Inbox(one), Inbox(two), Deaths()
    one.mon(theirs, lost)
    two.mon(ours, lost)
    for number in range(50):
        one.snd(theirs, number)
        two.snd(ours, number)
        if number % 10 == 0:
            gevent.sleep(0)
    wait_until(lambda: len(ours.messages) == len(theirs.messages) == 50, within=20.0)
    assert [n for (n,) in ours.messages] == [n for (n,) in theirs.messages] == list(range(50))
    assert lost.count == 0


class RawPeer:
    """The other side of a connection with a node under test; everything is said by hand."""

    def __init__(
        self,
        sock: socket.socket,
        name: str = "127.0.0.1:9",
        *,
        secret: str = SECRET,
        extras: tuple[tuple[str, str], ...] = (),
        framing: str = "msgpack",
    ) -> None:
        self.sock = sock
        sock.settimeout(WAIT)
        self.nonce = secrets.token_urlsafe(16)
        greeting = Greeting(
            node=name, auth_methods=("hmac_sha3_512",), framings=(framing,), extras=(*extras, ("mproto", "1"))
        )
        self.handshake = Handshake(greeting, self.nonce, secret.encode())
        self.encode = FRAMINGS[framing].encoder()
        self._decoder = FRAMINGS[framing].decoder(Limits(2**26))
        self._packets: list[Any] = []

    @classmethod
    def dial(cls, node: Node | str, name: str = "127.0.0.1:9", **options: Any) -> RawPeer:
        node_id = node if isinstance(node, str) else node.NODE()
        host, _, port = node_id.rpartition(":")
        # Not create_connection(), which asks a thread: what is to be tested is not its speed.
        sock = socket.socket()
        sock.connect((host, int(port)))
        return cls(sock, name, **options)

    def greet(self) -> Greeting:
        """Exchange greetings, and return the node's."""
        self.sock.sendall(self.handshake.start())
        while True:
            # A line at a time: what follows may be the proof, and it is too early for that.
            events = self.handshake.receive(self._read_line())
            if any(isinstance(event, PeerGreeted) for event in events):
                assert self.handshake.peer is not None
                return self.handshake.peer

    def shake(self) -> RawPeer:
        """Go through the whole handshake."""
        self.greet()
        self.sock.sendall(self.handshake.prove())
        while not self.handshake.is_open:
            self.handshake.receive(self._read())
        self._feed(self.handshake.leftover)
        turns(2)  # a node of this process has our proof then
        return self

    def _read_line(self) -> bytes:
        line = self._read(1)
        while not line.endswith(b"\n"):
            line += self._read(1)
        return line

    def _read(self, most: int = 65536) -> bytes:
        data = self.sock.recv(most)
        if not data:
            raise EOFError
        return data

    def _feed(self, data: bytes) -> None:
        self._decoder.feed(data)
        self._packets += self._decoder

    def send(self, *packets: list[Any]) -> None:
        self.sock.sendall(b"".join(map(self.encode, packets)))

    def packet(self) -> list[Any]:
        """Return the next packet that is not a keep-alive."""
        while True:
            while not self._packets:
                self._feed(self._read())
            packet: list[Any] = self._packets.pop(0)
            if packet not in ([], [""]):
                return packet

    def take(self, count: int) -> list[list[Any]]:
        return [self.packet() for _ in range(count)]

    def answers(self) -> bool:
        """Return whether the node still answers; everything sent before has been handled, or refused, then."""
        self.send(["", "time", f"{self.name}#pong", "pong"])
        packet = self.packet()
        while packet[:2] == ["", "not_done"]:
            packet = self.packet()
        assert packet[:2] == ["pong", "pong"], packet
        return True

    @property
    def name(self) -> str:
        return self.handshake._greeting.node

    def closed(self) -> bool:
        """Wait until the node has closed the connection; whatever comes until then is kept."""
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    return True
                if self.handshake.is_open:
                    self._feed(data)
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def reset(peer: RawPeer) -> None:
    """Close a peer's connection by a reset."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


class RawListener:
    """Where a node under test may dial; its node ID is its address."""

    def __init__(self) -> None:
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.sock.listen(16)
        self.sock.settimeout(WAIT)
        self.id = "{}:{}".format(*self.sock.getsockname())

    def accept(self, **options: Any) -> RawPeer:
        sock, _address = self.sock.accept()
        return RawPeer(sock, self.id, **options)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> RawListener:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def two_connections(node: Node, extras: tuple[tuple[str, str], ...] = ()) -> tuple[RawPeer, RawPeer]:
    """Return two connections of one process, both up: their auth lines crossed."""
    extras = (*OUR_PROVIDER, ("uniq", "one process"), *extras)
    first, second = (RawPeer.dial(node, extras=extras) for _ in range(2))
    for peer in (first, second):
        peer.greet()
    for peer in (first, second):
        while peer.handshake.state.name != "VERIFIED":
            peer.handshake.receive(peer._read())
        peer.sock.sendall(peer.handshake.prove())
    return first, second


def free_address() -> str:
    """Return an endpoint where nobody listens, and which no other process of tests gets.

    Its port is below those that systems give to connections that go out, one of which could take it meanwhile.
    """
    for port in itertools.islice(_own_ports(os.getpid()), _PORTS):
        with contextlib.closing(socket.socket()) as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise AssertionError("all ports of this process are taken")


_PORTS = 400
"""In the block of each process."""


@functools.cache
def _own_ports(process: int) -> Iterator[int]:
    """Return port numbers without end, of a block that is locked until this process ends."""
    folder = Path(tempfile.gettempdir()) / f"aemp-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for first in range(12_000, 32_000, _PORTS):
        file = (folder / str(first)).open("w")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _locked.append(file)
            return itertools.cycle(range(first, first + _PORTS))
        file.close()
    raise AssertionError("too many tests run at once")


_locked: list[IO[str]] = []


@contextlib.contextmanager
def process(program: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program text as another process; it, and what it forked, is killed afterwards if it still runs.

    Args:
        program: The text.
        args: What it finds in ``sys.argv``.
    """
    child = preloaded.Popen(
        [sys.executable, "-c", program, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,  # and so a process group
    )
    try:
        yield child
    finally:
        child.kill()
        if hasattr(os, "killpg"):
            # Its children have our pipe, which does not end before they do.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def line_of(child: subprocess.Popen[str]) -> str:
    """Return the next line a process prints; other greenlets run meanwhile."""
    line = read_line(child)
    assert line, "the process ended"
    return line.rstrip("\n")
