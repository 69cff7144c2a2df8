# SPDX-License-Identifier: MIT
"""A TCP proxy in front of a node that simulates network faults on demand.

It runs in greenlets of the test's own process, so it needs neither root nor other
programs. It treats the traffic as a stream of bytes, except the greeting of the dialling
node, which identifies the node, so that faults can be limited to some nodes.

The module is slightly longer than 400 lines because each fault is documented at its method.
"""

from __future__ import annotations

import errno
import math
import random
import secrets
import socket as std_socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import gevent
from gevent import socket

from aemp_gevent.addresses.endpoints import Endpoint, parse_endpoint
from aemp_gevent.errors import ListenError, UsageError
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.testing.connection import Connection, reset
from aemp_gevent.testing.faults import Faults, Places, boundaries, corruption, corruptions
from aemp_gevent.testing.flow import FlowEnd
from aemp_gevent.transport.listener import BACKLOG

Direction = Literal["in", "out", "both"]
"""``"in"`` is towards the target, ``"out"`` comes from it."""

Nodes = str | Iterable[str] | Callable[[str], bool] | None
"""Connections, by the node that dialled them: the node of this ID, one of these, or one whose ID satisfies this;
None: all."""

_RETRY_SECONDS = 0.2
"""Pause before accepting again after an error such as "too many open files", which would repeat at once."""

_DIRECTIONS: dict[str, tuple[str, ...]] = {"in": ("in",), "out": ("out",), "both": ("in", "out")}

_log = Log("aemp_gevent.testing")


class ProxyError(UsageError, ValueError):
    """A proxy's method was called with invalid arguments; fix the call."""


@dataclass(frozen=True, eq=False)
class _Rule:
    """One fault, and the connections it is for.

    Args:
        nodes: Whose connections; None: all.
        lay: Lays it on a connection.
    """

    nodes: frozenset[str] | Callable[[str], bool] | None
    lay: Callable[[Connection], None]

    def applies(self, connection: Connection) -> bool:
        if self.nodes is None:
            return True
        node = connection.node
        return node is not None and (node in self.nodes if isinstance(self.nodes, frozenset) else self.nodes(node))


class Proxy:
    """A proxy in front of a node. ``with`` starts it, and ends it and all its connections.

    Nodes dial it if the node behind it says so in its ID::

        with Proxy() as proxy, NodeProcess(proxy.address, binds=["127.0.0.1:0"]) as process:
            proxy.target = process.listens[0]

    It affects connections that are dialled *to* that node. A node that dials others itself
    goes past it; where both may dial, put both behind proxies.

    Every fault holds for the connections there are and for those to come, until it is set
    again or :meth:`heal` ends them all. Different faults add up. ``direction`` is ``"in"``
    (towards the target), ``"out"``, or ``"both"``; ``nodes`` selects by the node that dialled: a node
    ID, several of them, or a predicate. As long as there is a fault for certain nodes,
    nothing passes before the greeting of the dialling node is complete.

    Args:
        target: Endpoint of the node behind it. It may be set later.
        seed: What everything random is made of: each connection (by number) and direction has
            the same faults at the same bytes whenever the seed is the same. None: a new one, to
            be found in ``seed``, in the ``repr()`` and in the log.
        listen: Endpoint to listen on; port 0: any free one.

    Raises:
        aemp_gevent.errors.InvalidNoderefError: ``target`` or ``listen`` is not an endpoint.
    """

    def __init__(
        self, target: str | None = None, *, seed: int | str | None = None, listen: str = "127.0.0.1:0"
    ) -> None:
        self._seed_is_news = seed is None
        self.seed = secrets.randbits(32) if seed is None else seed
        """Give this as ``seed`` to have the same faults again."""
        self._listen = parse_endpoint(listen)
        self._target: Endpoint | None = None
        self.target = target
        self._socket: socket.socket | None = None
        self._acceptor: gevent.Greenlet[[], None] | None = None
        self._rules: dict[tuple[str, str, object], _Rule] = {}
        self._connections: list[Connection] = []
        self._count = 0
        self._served: dict[gevent.Greenlet[[], None], Connection] = {}

    def __repr__(self) -> str:
        return f"<Proxy {self._listen} to {self.target or 'nowhere yet'}, seed={quoted(self.seed)}>"

    # --- life ---

    def start(self) -> Proxy:
        """Begin to listen and accept.

        Raises:
            aemp_gevent.errors.ListenError: The endpoint cannot be bound.
        """
        if self._socket is None:
            self._socket = _bind(self._listen)
            self._listen = self._listen._replace(port=self._socket.getsockname()[1])
            self._acceptor = gevent.spawn(self._accept)
            _log.info("%s is started", self)
        return self

    def __enter__(self) -> Proxy:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop accepting, and reset all connections. Idempotent. Switches."""
        if self._acceptor is not None:
            self._acceptor.kill()
        if self._socket is not None:
            self._socket.close()
        served, self._served = self._served, {}
        gevent.killall(list(served))
        for connection in served.values():
            connection.abort()  # one whose greenlet never ran

    @property
    def address(self) -> str:
        """The endpoint that it listens on, which nodes must dial instead of the target."""
        if self._socket is None:
            raise ProxyError(f"{quoted(self)} does not listen yet; use it as a context manager, or call start()")
        return str(self._listen)

    @property
    def target(self) -> str | None:
        """The endpoint that connections from now on lead to."""
        return None if self._target is None else str(self._target)

    @target.setter
    def target(self, target: str | None) -> None:
        self._target = None if target is None else parse_endpoint(target)

    @property
    def connections(self) -> list[Connection]:
        """The live connections, oldest first."""
        self._accept_waiting()  # the dialling side sees these as connections already
        self._connections = [connection for connection in self._connections if connection.is_live]
        return list(self._connections)

    # --- faults ---

    def delay(self, seconds: float, jitter: float = 0.0, *, direction: Direction = "both", nodes: Nodes = None) -> None:
        """Delay everything, in order, by ``seconds`` and up to ``jitter`` seconds more. 0 ends that.

        At most 1 MiB is under way, so a delay limits the throughput to 1 MiB a delay.
        """
        _check(_is_number(seconds) and seconds >= 0, f"seconds must be a number from 0, not {quoted(seconds)}")
        _check(_is_number(jitter) and jitter >= 0, f"jitter must be a number of seconds from 0, not {quoted(jitter)}")
        self._tell_seed_if(jitter > 0)
        self._lay("delay", direction, nodes, lambda _passed, _dice: {"delay": seconds, "jitter": jitter})

    def throttle(self, bytes_per_second: float, *, direction: Direction = "both", nodes: Nodes = None) -> None:
        """Limit the bytes per second in each direction of each connection. Infinity: no limit."""
        _check(
            _is_number(bytes_per_second) and bytes_per_second > 0,
            f"bytes_per_second must be a number above 0, not {quoted(bytes_per_second)}; "
            "to stop all bytes, use blackhole()",
        )
        self._lay("throttle", direction, nodes, lambda _passed, _dice: {"bytes_per_second": bytes_per_second})

    def split(self, max_bytes: int, *, direction: Direction = "both", nodes: Nodes = None) -> None:
        """Send everything in pieces of random sizes, from 1 to ``max_bytes``.

        A reader in this process sees each, unless it is slower than they come; for one in
        another process the system may join them again.
        """
        _check(
            _is_count(max_bytes) and max_bytes > 0, f"max_bytes must be a whole number from 1, not {quoted(max_bytes)}"
        )
        self._tell_seed_if(max_bytes > 1)
        self._lay(
            "split", direction, nodes, lambda passed, dice: {"pieces": Places(boundaries(dice, passed, max_bytes))}
        )

    def corrupt(
        self,
        probability: float | None = None,
        *,
        at: int | None = None,
        direction: Direction = "both",
        nodes: Nodes = None,
    ) -> None:
        """Change bytes: each with this ``probability``, or the one behind ``at`` more bytes.

        Changed are single bytes, never to what they were; none is lost or added.
        """
        _check((probability is None) != (at is None), "give either probability or at")
        if probability is not None:
            chance = probability  # for the lambda: as it is now
            _check(
                _is_number(chance) and 0 < chance <= 1,
                f"probability must be above 0 and at most 1, not {quoted(chance)}",
            )
            self._lay_corruption(direction, nodes, lambda passed, dice: corruptions(dice, passed, chance))
        if at is not None:
            after = at
            _check(_is_count(after), f"at must be a whole number of bytes from 0, not {quoted(after)}")
            self._lay_corruption(direction, nodes, lambda passed, dice: corruption(dice, passed + after))
        self._tell_seed_if(True)

    def _lay_corruption(
        self, direction: Direction, nodes: Nodes, drawn: Callable[[int, random.Random], Iterable[tuple[int, int]]]
    ) -> None:
        self._lay("corrupt", direction, nodes, lambda passed, dice: {"corrupted": Places(drawn(passed, dice))})

    def cut(self, *, after: int | None = None, direction: Direction = "both", nodes: Nodes = None) -> None:
        """Close connections in order: both sides see the end of the stream. Switches.

        Without ``after`` those there are, now. With it each one, new ones too, once exactly
        ``after`` more bytes have passed in the ``direction`` (for ``"both"``: in either).
        What waits in the proxy is lost.
        """
        self._end(FlowEnd.CUT, "cut_at", after, direction, nodes)

    def reset(self, *, after: int | None = None, direction: Direction = "both", nodes: Nodes = None) -> None:
        """Reset connections: both sides see an error. Switches.

        As :meth:`cut`; but a reset overtakes what is under way, so of the ``after`` bytes
        fewer may arrive.
        """
        self._end(FlowEnd.RESET, "reset_at", after, direction, nodes)

    def blackhole(self, direction: Direction = "both", *, swallow: bool = False, nodes: Nodes = None) -> None:
        """Stop all bytes, while connections stay open, and new ones are accepted.

        This is what a network partition looks like from inside: neither data nor the end of
        a connection arrives. Nothing gets lost, because TCP repeats it: after :meth:`heal`
        it continues. With ``swallow=True`` bytes vanish instead, and senders never have to
        wait; :meth:`heal` then resets the connections that lost some.
        """
        values = {"is_stalled": not swallow, "is_swallowing": swallow}
        self._lay("blackhole", direction, nodes, lambda _passed, _dice: values)

    def refuse(self, *, nodes: Nodes = None) -> None:
        """Reset new connections at once, those of certain nodes as soon as they have greeted."""
        rule = _Rule(_selected(nodes), lambda connection: connection.ask_to_end(FlowEnd.RESET))
        self._accept_waiting()
        self._add("refuse", "both", rule)

    def heal(self) -> None:
        """End all faults. Connections that lost bytes are reset, the others continue. Switches."""
        self._rules.clear()
        for connection in self.connections:
            if any(flow.has_lost for flow in connection.flows.values()):
                connection.end(FlowEnd.RESET)
                continue
            for flow in connection.flows.values():
                flow.faults = Faults()
            connection.changed()

    # --- rules ---

    def _lay(
        self,
        kind: str,
        direction: Direction,
        nodes: Nodes,
        # Returns the values to set in Faults, given the bytes that passed and a source of randomness.
        values: Callable[[int, random.Random], dict[str, Any]],
    ) -> None:
        _check(direction in _DIRECTIONS, f"direction must be 'in', 'out' or 'both', not {quoted(direction)}")

        def lay(connection: Connection) -> None:
            for name in _DIRECTIONS[direction]:
                flow = connection.flows[name]
                flow.faults = replace(flow.faults, **values(flow.passed, connection.dice(name, kind)))
            connection.changed()

        rule = _Rule(_selected(nodes), lay)
        self._add(kind, direction, rule)
        for connection in self.connections:
            if rule.applies(connection):
                rule.lay(connection)

    def _add(self, kind: str, direction: Direction, rule: _Rule) -> None:
        """Keep a rule for new connections, replacing one that differs only in its numbers."""
        key = (kind, direction, rule.nodes)
        self._rules.pop(key, None)  # later rules override earlier ones
        self._rules[key] = rule

    def _end(self, how: FlowEnd, place: str, after: int | None, direction: Direction, nodes: Nodes) -> None:
        if after is None:
            rule = _Rule(_selected(nodes), lambda connection: connection.end(how))
            for connection in self.connections:
                if rule.applies(connection):
                    rule.lay(connection)
        else:
            more = after
            _check(_is_count(more), f"after must be a whole number of bytes from 0, not {quoted(more)}")
            self._lay(how.name, direction, nodes, lambda passed, _dice: {place: passed + more})

    def _tell_seed_if(self, is_random: bool) -> None:
        """Log once how to repeat the random faults, at a level that pytest shows for failed tests."""
        if is_random and self._seed_is_news:
            self._seed_is_news = False
            _log.warning("faults of %s are random; pass this seed to repeat them", self)

    # --- connections ---

    def _accept(self) -> None:
        assert self._socket is not None
        while True:
            socket.wait_read(self._socket.fileno())
            if not self._accept_waiting():
                gevent.sleep(_RETRY_SECONDS)

    def _accept_waiting(self) -> bool:
        """Accept all waiting connections, and return whether that was possible."""
        while self._socket is not None:
            try:
                client, _address = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EBADF):  # nobody waits; closed
                    break
                _log.warning("%s cannot accept: %s", self, error)
                return False
            if any(key[0] == "refuse" and rule.nodes is None for key, rule in self._rules.items()):
                reset(client)
            else:
                self._serve(client)
        return True

    def _serve(self, client: socket.socket) -> None:
        # With rules for certain nodes, nothing passes before the greeting; then all rules are applied again, in order.
        later = self._has_choosy_rules()
        connection = Connection(
            self._count,
            client,
            self._target,
            self.seed,
            self._has_choosy_rules,
            lambda connection: self._lay_rules(connection, choosy_only=not later),
        )
        self._count += 1
        self._connections.append(connection)
        self._lay_rules(connection)
        greenlet = gevent.spawn(connection.run)
        self._served[greenlet] = connection
        greenlet.link(lambda over: self._served.pop(over, None))

    def _has_choosy_rules(self) -> bool:
        return any(rule.nodes is not None for rule in self._rules.values())

    def _lay_rules(self, connection: Connection, *, choosy_only: bool = False) -> None:
        """Apply the rules that concern a connection, in the order in which they were set."""
        for rule in list(self._rules.values()):
            if rule.applies(connection) and not (choosy_only and rule.nodes is None):
                rule.lay(connection)


def _bind(endpoint: Endpoint) -> socket.socket:
    sock = socket.socket(std_socket.AF_INET6 if ":" in endpoint.host else std_socket.AF_INET, std_socket.SOCK_STREAM)
    try:
        sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_REUSEADDR, 1)
        sock.bind((endpoint.host, endpoint.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ListenError(str(endpoint), error.strerror or error) from error
    sock.setblocking(False)
    return sock


def _selected(nodes: Nodes) -> frozenset[str] | Callable[[str], bool] | None:
    if nodes is None or callable(nodes):
        return nodes
    return frozenset((nodes,) if isinstance(nodes, str) else nodes)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value >= 0


def _check(is_right: bool, why: str) -> None:
    if not is_right:
        raise ProxyError(why)
