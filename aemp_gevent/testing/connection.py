# SPDX-License-Identifier: MIT
"""One connection through a proxy, with its two sockets, its two flows and its end."""

from __future__ import annotations

import contextlib
import random
import socket as std_socket
import struct
from collections.abc import Callable

import gevent
from gevent import socket
from gevent.event import AsyncResult, Event
from gevent.pool import Group

from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.errors import GreetingError
from aemp_gevent.runtime.logs import Log
from aemp_gevent.testing.flow import READ_BYTES, Flow, FlowEnd
from aemp_gevent.wire.greeting import MAX_LINE_BYTES, parse_greeting

DIAL_SECONDS = 5.0
"""How long a proxy tries to reach its target."""

_log = Log("aemp_gevent.testing")


class Connection:
    """A connection through a :class:`~aemp_gevent.testing.Proxy`, for a test to look at.

    Args:
        number: Which one of its proxy, from 0.
        client: The socket of the node that dialled.
        target: Where the proxy's target listens; None: nowhere.
        seed: What chance is made of; each direction of each connection has its own.
        must_greet: Whether it must be known who dialled before anything may pass.
        greeted: Called when that is known.
    """

    def __init__(
        self,
        number: int,
        client: socket.socket,
        target: Endpoint | None,
        seed: int | str,
        must_greet: Callable[[], bool],
        greeted: Callable[[Connection], None],
    ) -> None:
        self.number = number
        self.node: str | None = None
        """The ID of the node that dialled, from its greeting; None before that, and if it is not a node."""
        self.has_greeted = False
        """Whether ``node`` is as known as it will ever be."""
        self.is_live = True
        """Whether it has not ended, as far as the proxy is concerned."""
        self._endpoint = target
        family = std_socket.AF_UNIX if target and target.path else std_socket.AF_INET
        if target and ":" in target.host:
            family = std_socket.AF_INET6
        self._target = socket.socket(family, std_socket.SOCK_STREAM)
        self._sockets = (client, self._target)
        self._seed = seed
        self._greeted = greeted
        self._head = b""
        self._pumps = Group()
        self._end: AsyncResult[FlowEnd] = AsyncResult()
        self._over = Event()

        def may_pass() -> bool:
            return self.has_greeted or not must_greet()

        inward = Flow(client, self._target, self.dice("in", "jitter"), self._look, may_pass, self._flow_over)
        outward = Flow(self._target, client, self.dice("out", "jitter"), _look_away, may_pass, self._flow_over)
        inward.opposite, outward.opposite = outward, inward
        self.flows = {"in": inward, "out": outward}
        """The two directions: towards the target, and from it."""

    def __repr__(self) -> str:
        return f"<Connection {self.number} of {self.node or 'no node'}, {self.bytes_in} in, {self.bytes_out} out>"

    @property
    def bytes_in(self) -> int:
        """How many bytes were handed on to the target."""
        return self.flows["in"].passed

    @property
    def bytes_out(self) -> int:
        """How many bytes of the target were handed on."""
        return self.flows["out"].passed

    @property
    def held(self) -> int:
        """How many bytes wait in the proxy, both directions together: 2 MiB and a little at most."""
        return sum(flow.held for flow in self.flows.values())

    def dice(self, direction: str, purpose: str) -> random.Random:
        """Return a source of chance: always the same for one seed, connection, direction and purpose."""
        return random.Random(f"{self._seed} {self.number} {direction} {purpose}")  # noqa: S311  # repeatable on purpose

    # --- who dials ---

    def _look(self, data: bytes) -> None:
        """Find the greeting's first line in what the client sends."""
        if self.has_greeted:
            return
        self._head += data
        line, line_end, _ = self._head.partition(b"\n")
        if line_end or not data or len(self._head) > MAX_LINE_BYTES:
            if line_end:
                with contextlib.suppress(GreetingError):
                    self.node = parse_greeting(line.rstrip(b"\r")).node
            self._head = b""
            self.has_greeted = True
            self._greeted(self)
            self.changed()

    def changed(self) -> None:
        """Look at the faults again."""
        for flow in self.flows.values():
            flow.changed()

    # --- the end ---

    def run(self) -> None:
        """Connect to the target, carry bytes until the connection ends, close the sockets. Killed, it resets them."""
        self._pumps.spawn(self._carry)
        how = FlowEnd.RESET
        try:
            how = self._end.get() or how
        finally:
            self.is_live = False
            self._pumps.kill()
            try:
                if how is FlowEnd.RESET:
                    self.abort()
                elif how is FlowEnd.CUT:
                    self._see_off()
            finally:
                for sock in self._sockets:
                    sock.close()
                self._over.set()

    def abort(self) -> None:
        """Reset the sockets, unless they are closed."""
        for sock in self._sockets:
            reset(sock)

    def _carry(self) -> None:
        try:
            self._dial()
        except OSError as error:
            _log.warning("%s cannot reach its target %s: %s", self, self._endpoint or "(it has none)", error)
            self.ask_to_end(FlowEnd.RESET)
            return
        for sock in self._sockets:
            sock.setblocking(False)
            if sock.family != getattr(std_socket, "AF_UNIX", None):
                sock.setsockopt(std_socket.IPPROTO_TCP, std_socket.TCP_NODELAY, 1)
        for flow in self.flows.values():
            self._pumps.spawn(flow.read)
            self._pumps.spawn(flow.write)

    def _dial(self) -> None:
        if self._endpoint is None:
            raise OSError("set the proxy's target")
        self._target.settimeout(DIAL_SECONDS)
        self._target.connect(self._endpoint.path or (self._endpoint.host, self._endpoint.port))

    def ask_to_end(self, how: FlowEnd) -> None:
        """Ask the connection to end in this way, unless it ends already."""
        if not self._end.ready():
            self._end.set(how)

    def end(self, how: FlowEnd) -> None:
        """End the connection in this way, and return when it is done. Switches."""
        self.ask_to_end(how)
        self._over.wait()

    def _flow_over(self, how: FlowEnd) -> None:
        if how is not FlowEnd.DONE or all(flow.is_over for flow in self.flows.values()):
            self.ask_to_end(how)

    def _see_off(self) -> None:
        """Shut our sending sides, and wait until the others did, too: closing at once would be a reset if they send."""
        for sock in self._sockets:
            with contextlib.suppress(OSError):  # it was quicker
                sock.shutdown(socket.SHUT_WR)
        self._over.set()
        drains = [gevent.spawn(_drain, sock) for sock in self._sockets]
        try:
            gevent.joinall(drains)
        finally:
            gevent.killall(drains)


def reset(sock: socket.socket) -> None:
    """Close a socket with a reset."""
    with contextlib.suppress(OSError):  # closed already
        # A linger time of zero makes close() send one.
        sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _look_away(data: bytes) -> None:
    """Ignore the target's greeting."""


def _drain(sock: socket.socket) -> None:
    """Read to the end of the stream, and forget it."""
    with contextlib.suppress(OSError):
        while True:
            try:
                if not sock.recv(READ_BYTES):
                    return
            except (BlockingIOError, InterruptedError):
                socket.wait_read(sock.fileno())
