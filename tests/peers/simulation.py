# SPDX-License-Identifier: MIT
"""Two nodes whose connections live in memory, and a schedule that a seed picks: for tests of interleavings."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import aemp_gevent.peers.link_maker
from aemp_gevent.links import backlog_transport
from aemp_gevent.links.backlog_transport import BacklogTransport
from aemp_gevent.node.node import Node
from aemp_gevent.node.node_listener import NodeListener
from aemp_gevent.peers.attempts import Attempt
from aemp_gevent.peers.network import Network
from aemp_gevent.peers.peer import Peer
from aemp_gevent.peers.strangers import Stranger
from aemp_gevent.ports.port import JOB, Job, PortsOwner
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.settings.sources import make_settings
from aemp_gevent.transport.tls_transport import TlsTransport
from aemp_gevent.transport.transport import Sink
from aemp_gevent.wire import fragments
from tests.support.authority import shared_certificate

IDS = ("127.0.0.1:1001", "127.0.0.1:1002")


MESSAGES = 3


LARGE_BYTES = 500
"""What makes a message a large one, with ``make_fragments_small``."""


def make_fragments_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send in fragments what is longer than requests are."""
    monkeypatch.setattr(fragments, "FRAGMENT_BYTES", 100)
    monkeypatch.setattr(fragments, "WHOLE_BYTES", 200)
    monkeypatch.setattr(backlog_transport, "AHEAD_BYTES", 100)


CERTIFICATE = shared_certificate().pem()


EOF, RESET = object(), object()


class Soon:
    """A timer that is due."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Callable[[], object] | None = call

    def fire(self) -> None:
        if self._call is not None:
            self._call()

    def stop(self) -> None:
        self._call = None

    def close(self) -> None:
        """Nothing is left to close."""


class InlineScheduler(Scheduler):
    """Runs everything at once, in the greenlet that asks: the schedule of a simulation must be the only one."""

    def __init__(self, *owner: PortsOwner) -> None:
        super().__init__(*owner)
        self.pump = self._pump_at_once

    def start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> Any:
        """Make calls that are due at once after the step."""
        if seconds:
            return super().start_timer(seconds, call, *args)
        timer = Soon(partial(call, *args))
        HUB.run_callback(timer.fire)
        return timer

    def ask(self) -> None:
        """Nobody needs to: the simulation pumps after each step."""
        self.pumped = True

    def _pump_at_once(self) -> None:
        self.pumped = False
        while self.runq:
            entry = self.runq.popleft()
            if entry.state == JOB:
                job: Job = self.jobs.popleft()
                job.run()
                continue
            entry.state = 0
            while entry.inbox:
                entry.default(*entry.inbox.popleft())


class End:
    """One end of a connection in memory; a :class:`~aemp_gevent.transport.transport.Transport`.

    What a kernel does is done here, too: bytes for a closed end are answered with a
    reset; a reset behind an orderly end is seen only by the side that writes.
    """

    other: End

    def __init__(self, name: str, dice: random.Random) -> None:
        self.name = name
        self.buffered = 0
        self.sent = 0
        self.sent_writes = 0
        self.incoming: deque[Any] = deque()
        self.closed = False
        self.is_cut = False
        self._dice = dice
        self._sink: Sink | None = None
        self._unsent: list[bytes] = []
        self._reading = False
        self._ended = False
        self._finishing = False
        self._finished = False

    def __repr__(self) -> str:
        return f"<End {self.name}{' closed' if self.closed else ''}>"

    @property
    def peer_address(self) -> str:
        return self.other.name

    # --- what a link does ---

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._reading = True

    def write(self, data: bytes) -> None:
        assert not self.closed, "written to a closed connection: that is lost without a trace"
        assert not self._finishing, "written behind the end"
        self._unsent.append(data)
        self.buffered += len(data)

    def finish(self) -> None:
        self._finishing = True
        if not self.buffered:
            self._send_end()

    def close(self, last_words: bytes = b"") -> None:
        if not self.closed:
            if last_words and not self.buffered:
                self._send(last_words)
            unread = any(item is not EOF for item in self.incoming)
            self._close()
            if unread and self._dice.random() < 0.5:  # what is unread had arrived, or is still under way
                self._send(RESET)
            else:
                self._send_end()

    def abort(self) -> None:
        if not self.closed:
            self._close()
            self._send(RESET)

    def pause(self) -> None:
        self._reading = False

    def resume(self) -> None:
        self._reading = not self._ended and not self.closed

    def _close(self) -> None:
        self.closed = True
        self._sink = None
        self._unsent.clear()
        self.buffered = 0

    def _send(self, item: Any) -> None:
        if self.is_cut:  # nobody takes it any more
            if item is not EOF:
                self.incoming.append(RESET)
        elif not self.other.closed:
            self.other.incoming.append(item)
        elif isinstance(item, bytes):
            self.incoming.append(RESET)

    def _send_end(self) -> None:
        if not self._finished:
            self._finished = True
            self._send(EOF)

    def _break(self) -> None:
        sink = self._sink
        self._close()
        if sink is not None:
            sink.on_broken("broken by the simulation")

    # --- what the schedule does ---

    @property
    def can_flush(self) -> bool:
        return bool(self._unsent)

    def flush(self) -> None:
        """Move the written bytes to the network."""
        if RESET in self.incoming:
            self._break()
            return
        data = b"".join(self._unsent)
        self.sent_writes += len(self._unsent)
        self._unsent.clear()
        self.buffered = 0
        self.sent += len(data)
        self._send(data)
        if self._finishing:
            self._send_end()
        assert self._sink is not None
        self._sink.on_room()

    @property
    def can_read(self) -> bool:
        if self.closed:
            return bool(self.incoming)
        return bool(self.incoming) and self._reading

    def read(self) -> None:
        """Take what came first: some or all of the bytes, the end, or the news of a reset."""
        item = self.incoming.popleft()
        if self.closed:
            if isinstance(item, bytes):
                self.other.incoming.append(RESET)
            return
        assert self._sink is not None
        if item is EOF:
            self._reading = False
            self._ended = True
            self._sink.on_end()
        elif item is RESET:
            self._break()
        else:
            cut = self._dice.randint(1, len(item)) if self._dice.random() < 0.2 else len(item)
            if item[cut:]:
                self.incoming.appendleft(item[cut:])
            self._sink.on_data(memoryview(item[:cut]))

    def fail(self) -> None:
        """Lose everything that is under way to here."""
        self.incoming.clear()
        if not self.closed:
            self.incoming.append(RESET)

    def cut(self) -> None:
        """Note that the data under way to here includes an orderly end: a proxy has ended both halves."""
        self.is_cut = True
        under_way = [item for item in self.incoming if isinstance(item, bytes)]
        was_over = any(not isinstance(item, bytes) for item in self.incoming) or self._ended
        data = b"".join(under_way)
        if not was_over:
            self.incoming.clear()
            data = data[: self._dice.randint(0, len(data))]
            if data:
                self.incoming.append(data)
            if not self.closed:
                self.incoming.append(EOF)


def carrying(transport: Any) -> End:
    """Return the connection that a transport, which may encrypt, goes over."""
    if isinstance(transport, BacklogTransport):
        transport = transport.inner
    return transport._inner if isinstance(transport, TlsTransport) else transport


class Hub:
    """A hub whose loop makes its calls after each step: the schedule decides when something leaves."""

    def __init__(self) -> None:
        self.loop = self
        self._due: list[Callable[[], object]] = []

    def run_callback(self, callback: Callable[[], object]) -> None:
        self._due.append(callback)

    def run(self) -> None:
        while self._due:
            self._due.pop(0)()


HUB = Hub()


class Side:
    """One node, and what its program does: monitor a port of the other, send to it, and note what arrives."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.node = Node()
        settings = make_settings({"cert": CERTIFICATE} if world.tls else {"secret": "s"})
        self.network = Network(IDS[number], self.node.scheduler, settings, NodeListener(self.node))
        self.network.dialling.dial = self._dial  # type: ignore[method-assign]
        self.node._network = self.network
        self.node._rename(IDS[number])
        self.node.reg(self.node.port(lambda *message: self.received.append(message[:2])), "sink")
        self.received: list[tuple[int, int]] = []
        self.session = -1
        self.sent: list[int] = []
        """How many messages were sent, by session: from a monitor's start to its firing."""
        self.watching = False

    def _dial(self, peer: Peer, endpoints: object) -> None:
        self.world.dials.append((self, peer))

    @property
    def target(self) -> str:
        return f"{IDS[1 - self.number]}#sink"

    @property
    def peer(self) -> Peer:
        return self.network.peer(IDS[1 - self.number])

    def watch(self) -> None:
        self.session += 1
        self.sent.append(0)
        self.watching = True
        self.node.mon(self.target, self.lost)

    def lost(self, *reason: Any) -> None:
        assert reason[0] == "transport_error", reason
        self.watching = False

    def send(self) -> None:
        load = "x" * self.world.dice.choice((0, LARGE_BYTES)) if self.world.large else ""
        self.node.snd(self.target, self.session, self.sent[-1], load)
        self.sent[-1] += 1

    @property
    def links(self) -> list[Any]:
        return [link for link in self.peer._links if not link.closed]

    def __str__(self) -> str:
        transports = [link.transport for link in self.peer._links]
        return (
            f"{self.node} received {self.received} sent {self.sent} watching {self.watching}\n"
            f"   {self.peer} {self.peer._links} {transports}"
        )


class World:
    """Two sides, their connections, and a schedule."""

    def __init__(
        self, seed: int, *, seeds: int, breaks: int, sessions: int, tls: bool = False, large: bool = False
    ) -> None:
        self.tls = tls
        self.large = large
        self.dice = random.Random(seed)
        self.dials: list[tuple[Side, Peer | None]] = []
        self.accepts: list[tuple[Side, End]] = []
        self.ends: list[End] = []
        self.sides = (Side(self, 0), Side(self, 1))
        self.breaks = breaks
        self.broken = 0
        self.sessions = sessions
        self.weights: dict[Any, float] = {}
        self.log: list[str] = []
        self.moved = 0
        for _ in range(seeds):
            self.dials.append((self.dice.choice(self.sides), None))

    def steps(self) -> Iterator[tuple[tuple[str, object], Callable[[], None]]]:
        """All that may happen next, each with a name that lives longer than one step."""
        for end in self.ends:
            if end.can_flush:
                yield ("flush", end.name), end.flush
            if end.can_read:
                yield ("read", end.name), end.read
        for side in self.sides:
            if not side.watching and side.session < self.sessions - 1:
                yield ("watch", side.number), side.watch
            if side.watching and side.sent[-1] < MESSAGES:
                yield ("send", side.number), side.send
        for number, (side, peer) in enumerate(self.dials):
            yield ("dial", side.number), lambda n=number: self.connect(n)  # type: ignore[misc]
            if peer is not None and self.breaks:
                yield ("refuse", side.number), lambda n=number: self.refuse(n)  # type: ignore[misc]
        for number, (side, _end) in enumerate(self.accepts):
            yield ("accept", side.number), lambda n=number: self.accept(n)  # type: ignore[misc]
        if self.breaks:
            for end in self.ends[::2]:
                if not (end.closed and end.other.closed):
                    yield ("break", end.name), lambda e=end: self.break_connection(e)  # type: ignore[misc]
                    if not end.is_cut:
                        yield ("cut", end.name), lambda e=end: self.cut_connection(e)  # type: ignore[misc]

    def connect(self, number: int) -> None:
        side, peer = self.dials.pop(number)
        name = f"{len(self.ends) // 2}{'AB'[side.number]}"
        near, far = End(f"{name}-dialler", self.dice), End(f"{name}-acceptor", self.dice)
        near.other, far.other = far, near
        self.ends += near, far
        self.accepts.append((self.sides[1 - side.number], far))
        attempt = None if peer is None else Attempt(peer, (), 0.0)  # a seed's address, or a node
        side.network.strangers.meet(near, Stranger(side.network, attempt), dialled=True)

    def refuse(self, number: int) -> None:
        side, peer = self.dials.pop(number)
        self.breaks -= 1
        self.broken += 1
        assert peer is not None
        peer.attempt_failed("refused by the simulation")

    def accept(self, number: int) -> None:
        side, end = self.accepts.pop(number)
        side.network.strangers.accepted(end)

    def break_connection(self, end: End) -> None:
        self.breaks -= 1
        self.broken += 1
        end.fail()
        end.other.fail()

    def cut_connection(self, end: End) -> None:
        self.breaks -= 1
        self.broken += 1
        end.cut()
        end.other.cut()

    def weight(self, what: str) -> float:
        if what in ("watch", "dial"):
            return 1.0  # soon, or only one of them dials
        return 10 ** self.dice.uniform(-2.5, 0) / (50 if what in ("break", "cut", "refuse") else 1)

    def run(self) -> None:
        for _ in range(2000):
            steps = list(self.steps())
            if not steps:
                break
            # Some channels are slow for a whole run: otherwise all of them are about equally far.
            weights = [self.weights.setdefault(name, self.weight(name[0])) for name, _step in steps]
            ((name, step),) = self.dice.choices(steps, weights)
            self.log.append(" ".join(map(str, name)))
            links = [side.peer.link for side in self.sides]
            step()
            for side in self.sides:
                side.node.scheduler.pump()
            HUB.run()
            self.moved += sum(
                before is not None and after is not None and before is not after
                for before, after in zip(links, [side.peer.link for side in self.sides], strict=True)
            )
        else:
            raise AssertionError("it never comes to rest")

    def check(self) -> None:
        for here, there in (self.sides, self.sides[::-1]):
            got = there.received
            assert [session for session, _number in got] == sorted(session for session, _number in got), (
                "older ones than those that arrived after a loss was reported"
            )
            for session in range(here.session + 1):
                numbers = [number for s, number in got if s == session]
                assert numbers == list(range(len(numbers))), "out of order, twice, or with a hole"
            if here.watching:
                assert [m for m in got if m[0] == here.session] == [
                    (here.session, number) for number in range(here.sent[-1])
                ], "lost, and its sender did not notice"
        if not self.broken:
            assert all(side.session == 0 and side.watching for side in self.sides), (
                "a loss was reported, and nothing broke"
            )
            ends = [carrying(side.peer.link.transport) if side.peer.link else None for side in self.sides]
            assert ends[0] is not None, "no link"
            assert ends[1] is ends[0].other, "they send on different connections"
            assert all(side.links == [side.peer.link] for side in self.sides), "another connection is left"
            assert all(end.closed for end in self.ends if end not in ends), "another connection is open"

    def play(self, title: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run until nothing is left to do, and check; print the title and all steps if that fails."""
        monkeypatch.setattr(aemp_gevent.peers.link_maker, "secrets", Nonces(self.dice))
        try:
            self.run()
            self.check()
        except BaseException:
            print(title, *self.log, *self.sides, sep="\n")
            for end in self.ends:
                print(end, "to come:", list(end.incoming))
            raise
        finally:
            self.close()

    def close(self) -> None:
        for side in self.sides:
            side.network.close()
        for end in self.ends:
            end.close()
        HUB.run()


class Nonces:
    """Random, but decided by the seed: which of one dialler's connections wins depends on it."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def token_urlsafe(self, count: int) -> str:
        return f"{self._dice.getrandbits(64):016x}"
