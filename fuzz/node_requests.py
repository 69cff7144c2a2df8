# SPDX-License-Identifier: MIT
"""A node that two hostile peers ask for anything, and a third looks on.

All in one process and without a socket: a peer's bytes are handed to the link, as its
transport would. One of the hostile peers may do what everybody may, the other is *fenced* in by a
rule that allows nothing. Neither may run code. A stranger may come instead, who knows no secret. The third
has a link that stays, and is answered whatever the others do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import gevent
from gevent.hub import Hub

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.node.node import Node
from aemp_gevent.node.requests import Requests
from aemp_gevent.transport.datagrams import Ends
from aemp_gevent.transport.transport import Sink, Transport
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.greeting import Greeting
from aemp_gevent.wire.handshake import Handshake
from aemp_gevent.wire.limits import Limits
from tests.support.authority import shared_certificate

SECRET = "what all of them know"
VICTIM, FREE, FENCED, WITNESS = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"
FORBIDDEN = f"{__name__}.forbidden"
KEPT = "kept"
"""The name of a port that nobody who is fenced may kill."""

FRESH_EVERY = 2000
"""Connections after which the node is a new one: what peers may leave behind is bounded, and not nothing."""

_PATIENCE_SECONDS = 20.0
_LOG_LINE = 3000
"""Characters of a line in the log that a peer may be the reason of."""

_ASKED_OF_US = {"", "devnull", "info", "mon1", "mon0", "kil0", "time", "via", "idle", "stay", "refused", "bye", "after"}
"""Requests that the node may make of the witness: its own, or harmless."""

_CERTIFICATE = shared_certificate().pem()

_calls: list[tuple[Any, ...]] = []


def forbidden(*args: Any) -> None:
    """Note that it was called, which no peer may."""
    _calls.append(args)


class Broken(Exception):  # a verdict
    """The node did what it must not."""


class Wire:
    """A transport whose other side is the code that holds it."""

    def __init__(self, name: str) -> None:
        self.buffered = 0
        self.sent = 0
        self.sent_writes = 0
        self.round_trip: float | None = None
        self.ends: Ends | None = None
        self.out = bytearray()
        """What the node sent."""
        self.sink: Sink | None = None
        self.is_open = True
        self._name = name
        self._is_paused = False
        self._waiting: list[bytes] = []

    @property
    def peer_address(self) -> str:
        return self._name

    def start(self, sink: Sink) -> None:
        self.sink = sink

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        self.sent_writes += 1
        self.out += data

    def take(self) -> bytes:
        """Return what came since the last time."""
        data, self.out = bytes(self.out), bytearray()
        return data

    def say(self, data: bytes) -> None:
        """Queue bytes for the node, which gets them as soon as it reads."""
        self._waiting.append(data)
        self.resume()

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        gevent.get_hub().loop.run_callback(self._deliver)

    def _deliver(self) -> None:  # on the hub, as a transport does
        while self._waiting and not self._is_paused and self.is_open and self.sink is not None:
            self.sink.on_data(memoryview(self._waiting.pop(0)))

    def hang_up(self) -> None:
        """End the connection, as a network does that was cut."""
        gevent.get_hub().loop.run_callback(self._break)

    def _break(self) -> None:
        if self.is_open and self.sink is not None:
            self.sink.on_broken("it hung up")

    @property
    def is_idle(self) -> bool:
        """Whether everything that was said was heard, or never will be."""
        return not (self._waiting and self.is_open)

    def finish(self) -> None: ...

    def close(self, last_words: bytes = b"") -> None:
        self.is_open = False

    def abort(self) -> None:
        self.close()

    def abandon(self, *, watching: bool) -> None:
        self.close()


class Door:
    """A carrier whose listener takes in who comes; nobody can be dialled."""

    def __init__(self) -> None:
        self.endpoint = Endpoint("127.0.0.1", 1)
        self.accepted: Callable[[Transport], None] | None = None

    def listen(self, endpoint: Endpoint, accepted: Callable[[Transport], None]) -> Door:
        self.accepted = accepted
        return self

    def come_in(self, name: str) -> Wire:
        """Return a new connection with the node."""
        assert self.accepted is not None
        wire = Wire(name)
        self.accepted(wire)
        return wire

    def dial(self, endpoints: Sequence[Endpoint], timeout: float) -> Transport:
        raise OSError("nobody is there")

    def start(self) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Caller:
    """The other side of one connection with the node, authenticated.

    Args:
        door: The node's.
        name: Its node ID.
        framing: Of what it sends.
    """

    def __init__(self, door: Door, name: str, framing: str) -> None:
        self.wire = door.come_in(name)
        extras = (("provider", "aemp_gevent-0"), ("uniq", "once"), ("mproto", "1"), ("gproto", "1"))
        mine = Greeting(name, ("hmac_sha3_512",), (framing,), extras)
        shake = Handshake(mine, f"nonce of {name}", SECRET.encode())
        self.wire.say(shake.start())
        shake.receive(self._hear())
        self.wire.say(shake.prove())
        if not shake.is_open:
            shake.receive(self._hear())
        self._encode = FRAMINGS[framing].encoder()
        self._decoder = FRAMINGS[framing].decoder(Limits(2**26))
        self._decoder.feed(shake.leftover)

    def _hear(self) -> bytes:
        deadline = monotonic() + _PATIENCE_SECONDS
        while not self.wire.out:
            gevent.sleep(0)
            if monotonic() > deadline or not self.wire.is_open:
                raise Broken("the node lets nobody in")
        return self.wire.take()

    def send(self, packet: list[Any]) -> None:
        """Send a packet."""
        self.wire.say(self._encode(packet))

    def packets(self) -> list[Any]:
        """Return what came since the last time."""
        self._decoder.feed(self.wire.take())
        return list(self._decoder)


class _Ears(logging.Handler):
    """Keeps what is logged that must not be."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)  # the check itself must not fail
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info or (record.levelno > logging.DEBUG and len(text) > _LOG_LINE):
            self.heard.append(self.format(record)[:_LOG_LINE])


class Victim:
    """A node, and who looks on."""

    def __init__(self) -> None:
        self._ears = _Ears()
        self._log = logging.getLogger("aemp_gevent")
        self._begin()

    def _begin(self) -> None:
        self._door = Door()
        self._node = Node(carrier=self._door)
        nothing = dict.fromkeys(("spawn", "kill", "relay", "inspect"), False)
        fence = {"peer": FENCED, **nothing, "directory": "none"}
        self._node.configure(
            nodeid=VICTIM,
            secret=SECRET,
            cert=_CERTIFICATE,
            rules=[fence],
            allow_spawn=["os.nothing"],
            max_message_bytes=10_000,
            seeds=[],
        )
        self._witness = Caller(self._door, WITNESS, "msgpack")
        self._left = FRESH_EVERY
        self._pongs = 0

    def shut_down(self) -> None:
        """End the node."""
        self._witness.wire.hang_up()
        self._node.shutdown(0)

    def hear(self, data: bytes) -> None:
        """Feed a peer's bytes to the node, and check what it does.

        Args:
            data: The first byte: 1: the fenced peer says it, 2: in msgpack and not in JSON, 4: a stranger does,
                from the first byte of the connection on. The rest is the stream.

        Raises:
            Broken: It did something that it must not do.
        """
        self._left -= 1
        if not self._left:
            self.shut_down()
            self._begin()
        bits = data[0] if data else 0
        is_fenced = bool(bits & 1)
        if self._node.scheduler.table.find(f"{self._node.NODE()}#{KEPT}") is None:
            self._node.reg(self._node.port(_ignore), KEPT)
        _calls.clear()
        hub: Hub = gevent.get_hub()
        faults: list[BaseException] = []

        def note(_context: object, _type: object, value: BaseException, _trace: object) -> None:
            faults.append(value)

        old = hub.handle_error
        hub.handle_error = note  # type: ignore[assignment]
        self._log.addHandler(self._ears)
        level, propagates = self._log.level, self._log.propagate
        self._log.propagate = False
        self._log.setLevel(logging.DEBUG)
        try:
            if bits & 4:
                wire = self._door.come_in("a stranger")
            else:
                name = FENCED if is_fenced else FREE
                wire = Caller(self._door, name, "msgpack" if bits & 2 else "json").wire
            wire.say(data[1:])
            self._settle(wire)
            wire.hang_up()
            self._settle(wire)
        finally:
            hub.handle_error = old  # type: ignore[method-assign]
            self._log.removeHandler(self._ears)
            self._log.propagate = propagates
            self._log.setLevel(level)
        heard, self._ears.heard = self._ears.heard, []
        if faults:
            raise Broken(f"an error ended on the hub: {faults[0]!r}") from faults[0]
        if heard:
            raise Broken(f"it logged {heard[0]}")
        if _calls:
            raise Broken(f"a peer had a function called that it may not: {_calls}")
        if is_fenced and self._node.scheduler.table.find(f"{self._node.NODE()}#{KEPT}") is None:
            raise Broken("a peer killed a port that may kill nothing")

    def _settle(self, wire: Wire) -> None:
        """Wait until the node has done everything, and still answers the witness."""
        self._pongs += 1
        self._witness.send(["", "time", f"{WITNESS}#pong", self._pongs])
        deadline = monotonic() + _PATIENCE_SECONDS
        is_answered = False
        while not is_answered or self._is_busy() or not wire.is_idle:
            gevent.sleep(0)
            for packet in self._witness.packets():
                is_answered = is_answered or packet[:2] == ["pong", self._pongs]
                if packet[:1] == [""] and len(packet) > 1 and not self._may_ask(packet[1]):
                    raise Broken(f"the node asks another for a peer: {packet!r:.500}")
            if not self._witness.wire.is_open:
                raise Broken("the witness lost its link")
            if monotonic() > deadline:
                raise Broken("the witness gets no answer")

    def _is_busy(self) -> bool:
        return bool(self._node.scheduler.runq or self._node.scheduler.pumped)

    @staticmethod
    def _may_ask(request: Any) -> bool:
        return isinstance(request, str) and (request in _ASKED_OF_US or request.startswith("g_"))


def words() -> list[str]:
    """Return what it takes luck to guess."""
    nodes = [VICTIM, FREE, FENCED, WITNESS]
    ports = [f"{node}#{name}" for node in nodes for name in (KEPT, "pong", "")]
    return [
        *Requests._TABLE,
        *("after", "refused", "idle", "stay", "via_up", "via_down"),
        *nodes,
        *ports,
        KEPT,
        FORBIDDEN,
        f"__import__('sys').modules['{__name__}'].forbidden()",
        f"slave/s@{FREE}",
        f"slave/s@{VICTIM}",
        "'l",
        "'g",
        "os.getcwd",
    ]


def _ignore(*message: Any) -> None: ...
