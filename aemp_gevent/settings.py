# SPDX-License-Identifier: MIT
"""What a networked node can be told, with defaults and reasons.

A frozen dataclass: a setting is a field. From the field alone come its environment
variable, its key in the profile file and its check, all by the field's type (see
``_KINDS``), and its line in the reference (``docs/settings_table.py``). A setting that
does not show in the ``repr`` is a secret, and shows nowhere else either.

Each value is taken from the first place that has one: the call, the environment, the
profile file (:mod:`aemp_gevent.profiles`), the default.
"""

from __future__ import annotations

import difflib
import functools
import operator
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from aemp_gevent import ids
from aemp_gevent.errors import InvalidNoderefError, InvalidSettingError, NoSecretError, UnknownSettingError
from aemp_gevent.etcd_address import EMBEDDED, DirectoryAddress, parse_directory
from aemp_gevent.limits import MAX_ELEMENTS, MAX_NAME_BYTES, Limits
from aemp_gevent.logs import Log
from aemp_gevent.profiles import CONFIG_VARIABLE, PROFILE_VARIABLE, Layer, read_profile
from aemp_gevent.quantities import FOREVER_SECONDS, to_count, to_seconds
from aemp_gevent.rules import PeerRule, read_rule

PREFIX = "AEMP_"
SECRET_VARIABLE = "AEMP_SECRET"  # noqa: S105  # the name, not the secret

_log = Log()


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
        raise ValueError("one of the list is empty, and so everybody would know it")
    if any(map(_has_stray_blanks, secret if isinstance(secret, tuple) else (secret,))):
        raise ValueError(
            "it begins or ends with a blank or a line end, as the content of a file does: "
            "strip() it, or the nodes that do so have another secret"
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
            None guesses a noderef from the host's name and interfaces; a profile asked for by
            name is called after it then: ``profile/%u``.
        binds: Where to listen, as endpoints; ``*`` (or no host at all) stands for all
            interfaces, port 0 for any free port. Needed when the world sees another address
            than the host does (NAT, proxies). None: the noderef's own endpoints; for a named
            node ``*:0``.
        seeds: Nodes to link to from the start, and always: addresses, one node each; or host names,
            each of which stands for all addresses that it has. Of those behind one name, links are kept to
            two. For a slave, the nodes that may be its master, in this order.
        secret: What all nodes of a network share. There must be one, or a `cert`. While it is being
            changed, a list: the first is the one to prove ourselves with, and peers may use any of them. It does
            not begin or end with a blank or a line end.
            In the environment a list is written in JSON: ``["new", "old"]``.
        cert: The certificate that the node proves itself with, and its private key: the path of a PEM
            file of mode 0600, or PEM text. All nodes may share one that is self-signed, as in
            AnyEvent::MP; or each has its own, which a CA of the network issued, and which names its node ID.
            Links between nodes that have one are encrypted. The file is read again when it has changed.
        ca: Certificates of CAs to believe besides those in `cert`: the path of a PEM file, or PEM text.
        require_tls: Refuse peers that offer no TLS, although they know the secret.
        services: What to start with the node: dotted names of modules, which are imported, and of
            functions, each of which is run in a port of its own. A list instead of a name
            holds the function's name and its arguments.
        directory: Where the network's directory is kept: ``embedded`` is among the nodes themselves,
            ``etcd://host:2379,host2:2379/prefix`` is etcd v3, ``etcds://`` the same over TLS. All
            nodes of a network say the same. The form in full is in the how-to about etcd.
        allow_spawn: Shell patterns for the dotted names of functions that peers may spawn and
            call besides ``@spawnable`` ones; modules that match are imported on demand. A pattern covers the
            functions that a module defines, and nothing that it imports.
        allow_eval: Whether peers may run any code here with the ``eval`` request.
        allow_relay: Whether ``snd`` requests of peers may make this node dial others.
        secure: Refuse spawns, function requests and ``eval`` of all peers, whatever else
            allows them.
        rules: What peers may do here, by node ID; the first rule that matches counts, and what it does not
            mention is allowed: ``{"peer": "web-*", "spawn": False, "kill": False, "directory": "read",
            "relay": False, "inspect": False}``. They mean something only where nodes prove their IDs.
        strict: Check and copy messages between ports of this node as if they went to another one: what
            cannot travel raises, a tuple arrives as a list, and later changes by the sender are not seen.
            Slower, and meant for tests; ``AEMP_STRICT=1`` works before the node is initialised, too.
        max_message_bytes: The largest message, encoded, to send or accept. A peer that sends
            more loses its link.
        max_message_elements: The most elements that a message may have: each value in it, lists, maps and their
            keys included. An element may take 80 bytes of memory, and one byte of the message.
            Messages of up to 256 KiB are not counted.
        max_name_bytes: The longest name: of a port, a node, a function, a family or group, or a key of the directory.
            What a peer asks with a longer one is refused. The same for all nodes of a network.
        high_water_bytes: Unsent bytes on a link above which a sending greenlet is paused. The
            default is 30 ms of a 1 Gbit/s line.
        max_watched_ports: Ports of this node that one peer may monitor. Each takes some 250 bytes.
        max_directory_entries: Entries of the directory that are kept of one node; of one that is global, twenty times
            as many. A small one takes some 350 bytes; what is more is left out.
        max_strangers: Connections made by others that may be in their handshakes at once. One more, and the
            oldest is dropped. 64 of them have at most 8 MiB, as with TLS each takes up to 128 KiB.
        max_strangers_per_address: The same for one address (for IPv6: one network of 64 bits). Raise it
            where many nodes start at once behind one address.
        accept_rate: Connections accepted in a second, beyond the first few. The default leaves room for
            everything else: 200 handshakes take a tenth of a second.
        handshake_timeout: From a connection's start to both sides being authenticated.
        heartbeat_interval: An idle link is proved alive to the peer this often, or three times
            within the peer's own ``heartbeat_timeout`` if that is more often.
        heartbeat_timeout: A link on which nothing at all came for so long is lost. Time in which
            this program's own loop was blocked does not count.
        monitor_timeout: The longest that a node may be unreachable before monitors of its ports
            fire. The default is AnyEvent::MP's.
        idle_timeout: A link that carried no message for so long, over which nobody monitors
            anything, and which either node can make again, is closed in order. Both nodes must
            agree. None: never.
        seed_poll_interval: How often the name service is asked for the addresses of seeds that
            are host names.
    """

    nodeid: str | None = field(default=None, metadata={"check": _check_nodeid})
    binds: tuple[str, ...] | None = field(default=None, metadata={"check": _each(ids.parse_bind)})
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
    max_strangers_per_address: int = 8
    accept_rate: float = 200.0
    handshake_timeout: float = 10.0
    heartbeat_interval: float = 5.0
    heartbeat_timeout: float = 15.0
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
        """Unsent bytes above which a link is dropped: reached only where nobody can be paused."""
        return self.high_water_bytes + self.max_message_bytes + 16 * 2**20


def make_settings(
    given: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    *,
    profile: str | None = None,
    only_given: Collection[str] = (),
    kind: type[Settings] = Settings,
) -> Settings:
    """Collect a node's settings from the call, the environment and the profile file, and check them all.

    None for a setting whose default it is counts as not given, and so does an empty
    environment variable.

    Args:
        given: The call's, by name. Lists may be any iterable of strings.
        environ: The environment variables.
        profile: The profile to take; None: see :func:`~aemp_gevent.profiles.read_profile`.
        only_given: Settings that are taken from the call or not at all.
        kind: What settings there are.

    Raises:
        UnknownSettingError: There is no such setting; the text names the nearest one.
        InvalidSettingError: A value has the wrong type or is out of range.
        ProfileError: The profile file or the profile cannot be used.
        NoSecretError: There is neither a secret nor a certificate.
    """
    known = _known(kind)
    layers = [Layer("the call", given), *_environment(environ, known)]
    layers += read_profile(profile, environ, [name for name, setting in known.items() if setting.is_secret])
    settings = kind(**{name: value for name, (value, _where) in _collect(layers, known, only_given).items()})
    if not settings.secrets_bytes and not settings.cert:
        raise NoSecretError
    return settings


def _collect(
    layers: Iterable[Layer], known: Mapping[str, _Setting], only_given: Collection[str] = ()
) -> dict[str, tuple[Any, str]]:
    """Return each setting that somebody said anything of: the checked value, and where it stands."""
    found: dict[str, tuple[Any, str]] = {}  # Any: of as many types as there are settings
    for index, layer in enumerate(layers):
        for name, value in layer.values.items():
            if name not in known:
                raise UnknownSettingError(name, known, layer.where)
            if value is None and known[name].default is None:
                continue
            checked = known[name].checked(value, layer.where)  # even if a layer before hides it
            if index == 0 or name not in only_given:  # the first layer is the call
                found.setdefault(name, (checked, layer.where))
    return found


def effective(layers: Iterable[Layer], environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return what a node would be told that takes the environment before these layers.

    Returns:
        For each setting its value and where it stands; ``""`` is the default.

    Raises:
        UnknownSettingError, InvalidSettingError: One is wrong, hidden by another or not.
    """
    known = _known(Settings)
    found = _collect([*_environment(environ, known), *layers], known)
    return {name: found.get(name, (setting.default, "")) for name, setting in known.items()}


def setting_names() -> list[str]:
    """Return the names of all settings."""
    return list(_known(Settings))


def secret_names() -> list[str]:
    """Return the settings that must not be shown."""
    return [name for name, setting in _known(Settings).items() if setting.is_secret]


def check_name(name: str, where: str) -> None:
    """Raise if there is no such setting.

    Raises:
        UnknownSettingError: There is none; the text names the nearest one.
    """
    _named(name, where)


def check_setting(name: str, value: object, where: str) -> None:
    """Raise if a setting cannot have this value.

    Raises:
        UnknownSettingError: There is no such setting.
        InvalidSettingError: It cannot.
    """
    _named(name, where).checked(value, where)


def read_setting(name: str, text: str, where: str) -> Any:  # of as many types as there are settings
    """Return what a text means for a setting, as if it stood in the environment; not checked yet.

    Raises:
        UnknownSettingError: There is no such setting.
        InvalidSettingError: It means nothing.
    """
    return _named(name, where).read(text, where)


def _named(name: str, where: str) -> _Setting:
    known = _known(Settings)
    if name not in known:
        raise UnknownSettingError(name, known, where)
    return known[name]


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def _environment(environ: Mapping[str, str], known: Mapping[str, _Setting]) -> Iterator[Layer]:
    """Yield a layer for each variable, so that errors name it."""
    settings = {variable_of(name): setting for name, setting in known.items()}
    names = [*settings, CONFIG_VARIABLE, PROFILE_VARIABLE]
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or not text:
            continue
        if variable in settings:
            where = f"environment variable {variable}"
            yield Layer(where, {settings[variable].name: settings[variable].read(text, where)})
        elif variable not in names:
            # Not every other one: Kubernetes sets AEMP_PORT and the like for a service named aemp.
            if difflib.get_close_matches(variable, names, n=1, cutoff=_MISSPELT):
                raise UnknownSettingError(variable, names, "the environment")
            _log.debug("the environment variable %s names no setting, and is ignored", variable)


_MISSPELT = 0.88
"""How like a setting's variable another must be to count as misspelt; Kubernetes' AEMP_SERVICE_HOST is 0.87 like."""


# --- what values may be, by type ---------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """What the values of settings of one type look like. ``Any`` below: that is what is checked.

    Attributes:
        wanted: What other values are told: "it is …".
        convert: Returns a value as the field wants it; raises TypeError or ValueError.
        read: Makes of an environment variable's text what ``convert`` takes; raises ValueError.
    """

    wanted: str
    convert: Callable[[Any], Any]
    read: Callable[[str], Any]


@dataclass(frozen=True)
class _Setting:
    """A setting, as its field describes it.

    Attributes:
        name: The field's.
        default: The field's.
        is_secret: Whether its value must not be shown.
        may_be_none: Whether None is a value.
        kind: What else is.
        check: Looks closer at a value; raises ValueError.
    """

    name: str
    default: Any
    is_secret: bool
    may_be_none: bool
    kind: _Kind
    check: Callable[[Any], object] | None

    def checked(self, value: Any, where: str) -> Any:
        """Return a value as the field wants it.

        Raises:
            InvalidSettingError: It cannot be one.
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
        """Return what an environment variable says, yet to be checked.

        Raises:
            InvalidSettingError: It cannot be understood.
        """
        if self.may_be_none and self.default is not None and text.strip().lower() == "none":
            return None
        try:
            return self.kind.read(text)
        except ValueError:
            raise self._invalid(text, self.kind.wanted, where) from None

    def _invalid(self, value: Any, why: str, where: str) -> InvalidSettingError:
        # Any text may be one with a password.
        shown = DirectoryAddress(value) if isinstance(value, str) else value
        return InvalidSettingError(self.name, "…" if self.is_secret else shown, why, where)


def _known(kind: type[Settings]) -> dict[str, _Setting]:
    hints = get_type_hints(kind)
    known: dict[str, _Setting] = {}
    for described in fields(kind):
        hint = hints[described.name]
        is_optional = NoneType in get_args(hint)
        types = [wanted for wanted in get_args(hint) if wanted is not NoneType] if is_optional else [hint]
        known[described.name] = _Setting(
            name=described.name,
            default=described.default,
            is_secret=not described.repr,
            may_be_none=is_optional,
            kind=_KINDS[functools.reduce(operator.or_, types)],
            check=described.metadata.get("check"),
        )
    return known


_MOST = 2**40
"""Of anything: sizes beyond this overflow in the decoders, and no link comes up."""


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _int(value: Any) -> int:
    try:
        count = to_count(value, "settings", "it")
    except (TypeError, ValueError):
        raise ValueError from None  # what is wanted says more
    if count > _MOST:
        raise ValueError
    return count


def _float(value: Any) -> float | None:
    try:
        number = to_seconds(value, "settings", "it")  # a rate is a number as well
    except (TypeError, ValueError):
        raise ValueError from None
    if number is not None and number <= 0:
        raise ValueError
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _secret(value: Any) -> str | bytes | tuple[str | bytes, ...]:
    if isinstance(value, (str, bytes)):
        return value
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, (str, bytes)) for item in value):
        raise TypeError
    return tuple(value)


def _items(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        raise TypeError("it must be a list: write ['…']")
    if not isinstance(value, Iterable):
        raise TypeError
    return tuple(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _items(value)))


def _lists(value: Any) -> tuple[tuple[Any, ...], ...]:
    return tuple((item,) if isinstance(item, str) else _items(item) for item in _items(value))


def _rules(value: Any) -> tuple[PeerRule, ...]:
    if isinstance(value, Mapping):
        raise TypeError("it must be a list of rules: write [{…}]")
    return tuple(map(read_rule, _items(value)))


def _read_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError


def _read_list(text: str) -> Any:
    return [item.strip() for item in text.split(",") if item.strip()]


def _read_secret(text: str) -> Any:
    # What begins like this is no secret that anybody generated, and must not become one by a missing bracket.
    return _read_json(text) if text.startswith('["') else text


def _read_lists(text: str) -> Any:
    return _read_json(text) if text.lstrip().startswith("[") else _read_list(text)


def _read_json(text: str) -> Any:
    import json  # noqa: PLC0415  # hardly any variable is JSON

    return json.loads(text)


_KINDS: dict[Any, _Kind] = {
    bool: _Kind("it is True or False (in the environment also 1 or 0, yes or no, on or off)", _bool, _read_bool),
    int: _Kind(f"it must be a whole number above 0, and at most {_MOST} (2**40)", _int, int),
    float: _Kind("it must be a number above 0, or a timedelta", _float, float),
    str: _Kind("it must be a string", _text, str),
    DirectoryAddress: _Kind("it must be a string", lambda value: DirectoryAddress(_text(value)), str),
    str | bytes | tuple[str | bytes, ...]: _Kind(
        "it must be a str or bytes, or a list of them (in the environment a JSON list)", _secret, _read_secret
    ),
    tuple[str, ...]: _Kind("it must be a list of strings", _texts, _read_list),
    tuple[tuple[Any, ...], ...]: _Kind(
        "it must be a list of names and [name, argument, …] lists (in the environment: names, or JSON)",
        _lists,
        _read_lists,
    ),
    tuple[PeerRule, ...]: _Kind(
        "it must be a list of rules like {'peer': 'web-*', 'spawn': False} (in the environment as JSON)",
        _rules,
        _read_json,
    ),
}
