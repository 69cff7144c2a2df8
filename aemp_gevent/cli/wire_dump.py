# SPDX-License-Identifier: MIT
"""A proxy that decodes and shows the messages between two nodes.

It prints a line for each line of the handshake and for each packet: seconds, direction (``>`` is towards the target),
and content. Packets are shown as Python literals after the name of their framing. Tokens, which are derived from the
secret, are hidden. Traffic inside TLS cannot be shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.errors import FramingError, GreetingError
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.decoding import Decoder
from aemp_gevent.wire.fragments import Assembler
from aemp_gevent.wire.framing import FRAMINGS, Framing
from aemp_gevent.wire.greeting import MAX_LINE_BYTES, Greeting, parse_greeting
from aemp_gevent.wire.limits import Limits

_READ_BYTES = 64 * 1024
_MAX_MESSAGE_BYTES = 2**30
_DIAL_SECONDS = 10.0

Say = Callable[[str, str], None]
"""Called with a direction and a text."""


class Side:
    """One direction of the traffic, decoded as it arrives.

    Args:
        direction: ``>`` or ``<``.
        say: Prints a text with its direction.
    """

    def __init__(self, direction: str, say: Say) -> None:
        self.greeting: Greeting | None = None
        self.opposite: Side | None = None
        self._direction = direction
        self._print = say
        self._read: Callable[[bytes], bytes | None] = self._read_greeting
        self._data = b""
        self._assembler: Assembler | None = None

    def feed(self, data: bytes) -> None:
        """Decode and print these bytes."""
        self._data += data
        # Each stage consumes what it understands from the front, or nothing while that is incomplete.
        while self._data:
            left = self._read(self._data)
            if left is None:
                return
            self._data = left

    def ended(self) -> None:
        """Print that this side has closed the connection."""
        self._say("(closed by this side)")

    def broke(self, error: OSError) -> None:
        """Print that the connection failed."""
        self._say(f"(connection lost: {error.strerror or error})")

    def _say(self, text: str) -> None:
        self._print(self._direction, text)

    # --- one method for each stage ---

    def _read_greeting(self, data: bytes) -> bytes | None:
        line, left = _cut_line(data)
        if line is None:
            return self._give_up("its first line is not a greeting") if len(data) > MAX_LINE_BYTES else None
        try:
            self.greeting = parse_greeting(line)
        except GreetingError as error:
            return self._give_up(str(error))
        self._say(f"greeting: {_printable(line)}")
        self._read = self._read_nonce
        return left

    def _read_nonce(self, data: bytes) -> bytes | None:
        line, left = _cut_line(data)
        if line is None:
            return None
        self._say(f"nonce: {_printable(line)}")
        self._read = self._read_proof
        return left

    def _read_proof(self, data: bytes) -> bytes | None:
        other = self.opposite.greeting if self.opposite is not None else None
        if other is None:
            return None  # whether TLS is used depends on both sides
        if _offers_tls(self.greeting) and _offers_tls(other):
            return self._give_up("the rest is encrypted (TLS)")
        line, left = _cut_line(data)
        if line is None:
            return None
        method, _, rest = line.partition(b";")
        token, _, framing = rest.partition(b";")
        mask = f"<{len(token)} characters>" if token else ""
        self._say(f"auth: {_printable(method)};{mask};{_printable(framing)}")
        found = FRAMINGS.get(framing.decode("latin-1"))
        if found is None:
            return self._give_up(f"framing {_printable(framing)} cannot be decoded here")
        is_ours = self.greeting is not None and self.greeting.is_ours
        decoder = (found.decoder if is_ours else found.foreign_decoder)(Limits(_MAX_MESSAGE_BYTES))
        if self.greeting is not None and self.greeting.reads_fragments:
            self._assembler = Assembler(Limits(_MAX_MESSAGE_BYTES))
        self._read = lambda data: self._read_packets(found, decoder, data)
        return left

    def _read_packets(self, framing: Framing, decoder: Decoder, data: bytes) -> bytes | None:
        decoder.feed(data)
        try:
            for packet in decoder:
                self._say(f"{framing.name} {self._describe(packet)}")
        except framing.errors as error:
            # Translated into the error that a node would log.
            text: FramingError = framing.translate(error)
            return self._give_up(str(text))
        return b""

    def _describe(self, packet: Any) -> str:
        if not isinstance(packet, list):
            return f"(not a packet) {quoted(packet)}"
        if packet in ([], [""]):
            return f"{quoted(packet)} (keep-alive)"
        if self._assembler is not None and len(packet) == 2 and packet[0] is None and type(packet[1]) is bytes:
            whole = self._assembler.feed(packet[1:])
            text = f"(fragment of {len(packet[1])} bytes)"
            return text if whole is None else f"{text} which completes {whole!r}"
        return repr(packet)

    def _give_up(self, why: str) -> bytes:
        self._say(f"({why}; forwarding without decoding)")
        self._read = _ignore
        return b""


def _ignore(_data: bytes) -> bytes:
    return b""


def _cut_line(data: bytes) -> tuple[bytes | None, bytes]:
    """Return the first line without its end, and the rest; None if the line is not complete."""
    line, end, left = data.partition(b"\n")
    return (line.removesuffix(b"\r"), left) if end else (None, data)


def _offers_tls(greeting: Greeting | None) -> bool:
    return greeting is not None and (greeting.extra("tls") or "").startswith("1.")


def _printable(line: bytes) -> str:
    """Return untrusted bytes as printable text, which cannot control the terminal."""
    return line.decode("utf-8", "backslashreplace").encode("unicode_escape").decode() if line else ""


class Dump:
    """The proxy.

    Args:
        target: The node behind the proxy.
        listen: The proxy's own address.
        say: Prints a line.
    """

    def __init__(self, target: Endpoint, listen: Endpoint, say: Callable[[str], None]) -> None:
        self._target = target
        self._say = say
        self._count = 0
        self._started = time.monotonic()
        # Not socket.create_server(), whose sockets would block the loop.
        self._listener = socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((listen.host, listen.port))
        self._listener.listen()
        host, port = self._listener.getsockname()[:2]
        self.endpoint = Endpoint(host, port)

    def serve(self, connections: int | None = None) -> None:
        """Carry this many connections (None: any number), and return when all have ended. Call it once."""
        served: list[gevent.Greenlet[..., None]] = []
        try:
            while connections is None or len(served) < connections:
                client, _ = self._listener.accept()
                served.append(gevent.spawn(self._carry, client, self._count))
                self._count += 1
        finally:
            self._listener.close()
        gevent.joinall(served)

    def _carry(self, client: socket.socket, number: int) -> None:
        def say(direction: str, text: str) -> None:
            self._say(f"{time.monotonic() - self._started:8.3f} #{number} {direction} {text}")

        say("-", f"connection from {client.getpeername()}")
        try:
            target = socket.create_connection((self._target.host, self._target.port), _DIAL_SECONDS)
        except OSError as error:
            say("-", f"cannot reach {self._target}: {error}")
            client.close()
            return
        target.settimeout(None)
        there, back = Side(">", say), Side("<", say)
        there.opposite, back.opposite = back, there
        pumps: list[gevent.Greenlet[..., None]] = [
            gevent.spawn(_pump, client, target, there),
            gevent.spawn(_pump, target, client, back),
        ]
        gevent.joinall(pumps)
        client.close()
        target.close()
        say("-", "connection over")


def _pump(source: socket.socket, sink: socket.socket, side: Side) -> None:
    try:
        while data := source.recv(_READ_BYTES):
            side.feed(data)  # before sending it, so that a request is printed before its answer
            sink.sendall(data)
            if side.opposite is not None:
                side.opposite.feed(b"")  # it may have been waiting for this side's greeting
        side.ended()
        sink.shutdown(socket.SHUT_WR)
    except OSError as error:
        side.broke(error)
        sink.close()
