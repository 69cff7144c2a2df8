# SPDX-License-Identifier: MIT
"""The settings of a node, with their defaults and the reasons for these.

A frozen dataclass: a setting is a field. From the field alone come its environment
variable, its key in the profile file and its check, all by the field's type
(:mod:`aemp_gevent.settings.value_types`), and its line in the reference
(``docs/settings_table.py``). A setting that does not show in the ``repr`` is a secret,
and shows nowhere else either.

Where the values come from is in :mod:`aemp_gevent.settings.sources`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import parse_bind
from aemp_gevent.errors import InvalidNoderefError, InvalidSettingError
from aemp_gevent.runtime.quantities import FOREVER_SECONDS
from aemp_gevent.settings.directory_address import EMBEDDED, DirectoryAddress, parse_directory
from aemp_gevent.settings.rules import PeerRule
from aemp_gevent.settings.value_types import ANY_UDP_PORT, VALUE_TYPES, UdpPort, ValueType
from aemp_gevent.wire.limits import MAX_ELEMENTS, MAX_NAME_BYTES, Limits


def _check_nodeid(nodeid: str) -> None:
    expanded = ids.expand_node_id(nodeid, "host", "uniq")
    if expanded.startswith(ids.SLAVE_PREFIX):
        ids.slave_name(expanded)
        return
    try:
        ids.check_node_name(expanded)
    except InvalidNoderefError:
        if "," not in expanded and len(expanded) > ids.MAX_NAME:
            raise
        ids.check_noderef(expanded)


def _check_secret(secret: str | bytes | tuple[str | bytes, ...]) -> None:
    if isinstance(secret, tuple) and not all(secret):
        raise ValueError("one of the secrets is empty, so that everybody would know it")
    if any(map(_has_stray_blanks, secret if isinstance(secret, tuple) else (secret,))):
        raise ValueError(
            "it begins or ends with a blank or a line end, as the content of a file does: "
            "strip() it, or nodes that do so have a different secret"
        )


def _has_stray_blanks(secret: str | bytes) -> bool:
    # Of bytes that are not text, such as random ones, every byte counts.
    text = secret if isinstance(secret, str) else secret.decode("ascii", "surrogateescape")
    stripped = text.strip()
    return stripped != text and (isinstance(secret, str) or (stripped.isascii() and stripped.isprintable()))


def _wire_secret(secret: str | bytes) -> bytes:
    return secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret


def _check_services(services: Iterable[tuple[Any, ...]]) -> None:
    if not all(service and isinstance(service[0], str) and service[0] for service in services):
        raise ValueError


def _each(check: Callable[[str], object]) -> Callable[[Iterable[str]], None]:
    def check_all(items: Iterable[str]) -> None:
        for item in items:
            check(item)

    return check_all


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one node. Times are seconds, sizes are bytes.

    Attributes:
        nodeid: The node's ID: a name, or a noderef, which is then resolved. ``%n`` in it stands
            for the host's name, ``%u`` for a word that no other process has, ``%%`` for a ``%``.
            ``slave/name``, or ``slave/`` for a name of its own, makes the node a slave: the first
            of the seeds that answers becomes its master.
            None guesses a noderef from the host's name and interfaces; with a profile that is given by
            name, the node is named after it: ``profile/%u``.
        binds: Where to listen, as endpoints; ``*`` (or no host at all) stands for all
            interfaces, port 0 for any free port. Needed when other hosts see another address
            than this host does (NAT, proxies). None: the noderef's own endpoints; for a named
            node ``*:0``.
        seeds: Nodes to keep links to from the start: addresses, one node each; or host names,
            each of which stands for all its addresses. Links are kept to two of the nodes behind one name.
            For a slave, the nodes that may be its master, in this order.
        secret: The secret that all nodes of a network share. A node needs one, or a `cert`. While it is being
            changed, a list: this node proves itself with the first one, and peers may use any of them. It must
            not begin or end with a blank or a line end.
            In the environment a list is written in JSON: ``["new", "old"]``.
        cert: The certificate with which the node proves itself, and its private key: the path of a PEM
            file of mode 0600, or PEM text. All nodes may share one that is self-signed, as in
            AnyEvent::MP; or each has its own, which a CA of the network issued, and which names its node ID.
            Links between nodes that have one are encrypted. The file is read again when it has changed.
        ca: Certificates of CAs to trust besides those in `cert`: the path of a PEM file, or PEM text.
        require_tls: Refuse peers that do not offer TLS, even if they know the secret.
        services: Services to start with the node: dotted names of modules, which are imported, and of
            functions, each of which runs in a port of its own. A list instead of a name
            holds the function's name and its arguments.
        directory: Where the network's directory is kept: ``embedded`` is among the nodes themselves,
            ``etcd://host:2379,host2:2379/prefix`` is etcd v3, ``etcds://`` the same over TLS. All
            nodes of a network must use the same. The how-to about etcd describes the full form.
        allow_spawn: Shell patterns for the dotted names of functions that peers may spawn and
            call besides ``@spawnable`` ones; modules that match are imported on demand. A pattern covers the
            functions that a module defines, but not those that it imports.
        allow_eval: Whether peers may run any code here with the ``eval`` request.
        allow_relay: Whether ``snd`` requests of peers may make this node dial others.
        secure: Refuse spawns, function requests and ``eval`` of all peers, even if other settings
            allow them.
        rules: The rights of peers, by node ID; the first rule that matches counts, and rights that it does not
            mention are granted: ``{"peer": "web-*", "spawn": False, "kill": False, "directory": "read",
            "relay": False, "inspect": False, "publish": False, "subscribe": False}``. Rules protect only where nodes
            prove their IDs.
        strict: Check and copy messages between ports of this node as if they went to another one: what
            cannot travel raises, a tuple arrives as a list, and later changes by the sender are not seen.
            Slower, and meant for tests; ``AEMP_STRICT=1`` also works before the node is initialised.
        max_message_bytes: The largest message, encoded, to send or accept. A peer that sends
            more loses its link.
        max_message_elements: The most elements that a message may have: each value in it, lists, maps and their
            keys included. An element may take 80 bytes of memory, but one byte of the message.
            Messages of up to 256 KiB are not counted.
        max_name_bytes: The longest name: of a port, a node, a function, a family or group, or a key of the directory.
            Requests with longer names are refused. All nodes of a network must use the same.
        high_water_bytes: Unsent bytes on a link above which a sending greenlet is paused. The
            default is 30 ms of a 1 Gbit/s line. Senders of small messages that pass large
            ones are paused at half of it.
        max_watched_ports: Ports of this node that one peer may monitor. Each takes about 250 bytes.
        max_directory_entries: Directory entries that are kept from one node; from a global one, twenty times
            as many. A small entry takes about 350 bytes; entries beyond this are left out.
        max_strangers: Incoming connections that may be in their handshakes at once. With one more, the
            oldest is dropped. 64 of them take at most 8 MiB: with TLS each takes up to 128 KiB.
        max_strangers_per_address: The same for one address (for IPv6: one network of 64 bits; all Unix sockets count
            as one). Raise it where more nodes start at once behind one address. Half of `max_strangers`
            leaves room for all others.
        accept_rate: Connections accepted per second, after the first few. The default leaves time for
            everything else: 200 handshakes take a tenth of a second.
        handshake_timeout: The longest time from a connection's start until both sides are authenticated.
        heartbeat_interval: How often a heartbeat is sent on an idle link; or three times
            within the peer's own ``heartbeat_timeout`` if that is more often.
        heartbeat_timeout: A link counts as lost if nothing arrives on it for this long. Time in which
            this program's own loop was blocked does not count.
        blocked_timeout: The longest that a node whose event loop is blocked is believed to be alive, if it shows signs
            of life over the second path, and nothing comes over its link. Then that counts as lost. None: forever.
        udp_port: The UDP port at which signs of life of blocked nodes arrive, at each address of this host that links
            end at. 0: any free port. None: nowhere; then blocked nodes count as lost after `heartbeat_timeout`. Of
            several nodes at one address only the first gets a fixed port; the others log that they have none.
        monitor_timeout: The longest that a node may be unreachable before monitors of its ports
            fire. The default is AnyEvent::MP's.
        idle_timeout: A link that carried no message for this long, over which no port is monitored,
            and which either node can make again, is closed in order. Both nodes must
            agree. None: never.
        seed_poll_interval: How often the name service is asked for the addresses of seeds that
            are host names.
    """

    nodeid: str | None = field(default=None, metadata={"check": _check_nodeid})
    binds: tuple[str, ...] | None = field(default=None, metadata={"check": _each(parse_bind)})
    seeds: tuple[str, ...] = field(default=(), metadata={"check": _each(ids.check_noderef)})
    secret: str | bytes | tuple[str | bytes, ...] | None = field(
        default=None, repr=False, metadata={"check": _check_secret}
    )
    cert: str | None = field(default=None, repr=False)
    ca: str | None = None
    require_tls: bool = False
    # Any: arguments are whatever the function takes.
    services: tuple[tuple[Any, ...], ...] = field(default=(), metadata={"check": _check_services})
    directory: DirectoryAddress = field(default=DirectoryAddress(EMBEDDED), metadata={"check": parse_directory})
    allow_spawn: tuple[str, ...] = ()
    allow_eval: bool = False
    allow_relay: bool = False
    secure: bool = False
    rules: tuple[PeerRule, ...] = ()
    strict: bool = False
    max_message_bytes: int = 64 * 2**20
    max_message_elements: int = MAX_ELEMENTS
    max_name_bytes: int = MAX_NAME_BYTES
    high_water_bytes: int = 4 * 2**20
    max_watched_ports: int = 100_000
    max_directory_entries: int = 100_000
    max_strangers: int = 64
    max_strangers_per_address: int = 32
    accept_rate: float = 200.0
    handshake_timeout: float = 10.0
    heartbeat_interval: float = 5.0
    heartbeat_timeout: float = 15.0
    blocked_timeout: float | None = 60.0
    udp_port: UdpPort | None = ANY_UDP_PORT
    monitor_timeout: float = 30.0
    idle_timeout: float | None = 300.0
    seed_poll_interval: float = 30.0

    @property
    def secrets_bytes(self) -> tuple[bytes, ...]:
        """The secrets as the wire needs them: the one to send, and then those that are accepted, too."""
        secrets = self.secret if isinstance(self.secret, tuple) else (self.secret,)
        return tuple(_wire_secret(secret) for secret in secrets if secret)

    @property
    def limits(self) -> Limits:
        """How large messages may be."""
        return Limits(self.max_message_bytes, self.max_message_elements)

    @property
    def hard_limit_bytes(self) -> int:
        """Unsent bytes above which a link is dropped: reached only if the senders cannot be paused."""
        return self.high_water_bytes + self.max_message_bytes + 16 * 2**20


@dataclass(frozen=True)
class Setting:
    """A setting as its field describes it.

    Attributes:
        name: The name of the field.
        default: The default of the field.
        is_secret: Whether its value must not be shown.
        may_be_none: Whether None is a value.
        kind: The type of the other values.
        check: Checks a value further; raises ValueError.
    """

    name: str
    default: Any
    is_secret: bool
    may_be_none: bool
    kind: ValueType
    check: Callable[[Any], object] | None

    def checked(self, value: Any, where: str) -> Any:
        """Return a value as the field stores it.

        Raises:
            InvalidSettingError: The setting cannot have this value.
        """
        if value is None and self.may_be_none:
            return None
        try:
            converted = self.kind.convert(value)
            if converted is None and not self.may_be_none:
                raise ValueError(f"it must be below {FOREVER_SECONDS}")
            if self.check is not None:
                self.check(converted)
        except (TypeError, ValueError) as error:
            raise self._invalid(value, str(error) or self.kind.wanted, where) from None
        return converted

    def read(self, text: str, where: str) -> Any:
        """Return the value that an environment variable gives, not checked yet.

        Raises:
            InvalidSettingError: The text cannot be read.
        """
        if self.may_be_none and self.default is not None and text.strip().lower() == "none":
            return None
        try:
            return self.kind.read(text)
        except ValueError:
            raise self._invalid(text, self.kind.wanted, where) from None

    def _invalid(self, value: Any, why: str, where: str) -> InvalidSettingError:
        # Any text may include a password.
        shown = DirectoryAddress(value) if isinstance(value, str) else value
        return InvalidSettingError(self.name, "…" if self.is_secret else shown, why, where)


def settings_of(kind: type[Settings]) -> dict[str, Setting]:
    """Return the settings that the fields of a class describe, by name."""
    hints = get_type_hints(kind)
    known: dict[str, Setting] = {}
    for described in fields(kind):
        hint = hints[described.name]
        is_optional = NoneType in get_args(hint)
        types = [wanted for wanted in get_args(hint) if wanted is not NoneType] if is_optional else [hint]
        known[described.name] = Setting(
            name=described.name,
            default=described.default,
            is_secret=not described.repr,
            may_be_none=is_optional,
            kind=VALUE_TYPES[functools.reduce(operator.or_, types)],
            check=described.metadata.get("check"),
        )
    return known
