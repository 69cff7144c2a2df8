# SPDX-License-Identifier: MIT
"""What a networked node can be told, with defaults and reasons.

A frozen dataclass: a setting is a field.
Where values come from is not decided here, but for the secret, which operators
expect to pass in the environment.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from aemp_gevent import ids
from aemp_gevent.errors import InvalidNoderefError, InvalidSettingError, NoSecretError, UnknownSettingError

SECRET_VARIABLE = "AEMP_SECRET"  # noqa: S105  # the name, not the secret


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one node. Times are seconds, sizes are bytes.

    Attributes:
        nodeid: The node's ID: a name, or a noderef, which is then resolved. None guesses a
            noderef from the host's name and interfaces.
        binds: Where to listen, as endpoints; ``*`` (or no host at all) stands for all
            interfaces, port 0 for any free port. Needed when the world sees another address
            than the host does (NAT, proxies). None: the noderef's own endpoints; for a named
            node ``*:0``.
        seeds: Nodes to link to from the start, as noderefs, resolved or not.
        secret: What all nodes of a network share. None: the environment variable ``AEMP_SECRET``.
        allow_spawn: Shell patterns for the dotted names of functions that peers may spawn and
            call besides ``@spawnable`` ones; modules that match are imported on demand.
        allow_eval: Whether peers may run any code here with the ``eval`` request.
        allow_relay: Whether ``snd`` requests of peers may make this node dial others.
        secure: Refuse spawns, function requests and ``eval`` of all peers, whatever else
            allows them.
        max_message_bytes: The largest message, encoded, to send or accept. A peer that sends
            more loses its link.
        high_water_bytes: Unsent bytes on a link above which a sending greenlet is paused. The
            default is 30 ms of a 1 Gbit/s line.
        handshake_timeout: From a connection's start to both sides being authenticated.
        heartbeat_interval: An idle link is proved alive to the peer this often, or three times
            within the peer's own ``heartbeat_timeout`` if that is more often.
        heartbeat_timeout: A link on which nothing at all came for so long is lost. Time in which
            this program's own loop was blocked does not count.
        monitor_timeout: The longest that a node may be unreachable before monitors of its ports
            fire. The default is AnyEvent::MP's.
    """

    nodeid: str | None = None
    binds: tuple[str, ...] | None = None
    seeds: tuple[str, ...] = ()
    secret: str | bytes | None = field(default=None, repr=False)
    allow_spawn: tuple[str, ...] = ()
    allow_eval: bool = False
    allow_relay: bool = False
    secure: bool = False
    max_message_bytes: int = 64 * 2**20
    high_water_bytes: int = 4 * 2**20
    handshake_timeout: float = 10.0
    heartbeat_interval: float = 5.0
    heartbeat_timeout: float = 15.0
    monitor_timeout: float = 30.0

    @property
    def secret_bytes(self) -> bytes:
        """The secret as the wire needs it."""
        return self.secret.encode("utf-8", "surrogateescape") if isinstance(self.secret, str) else (self.secret or b"")

    @property
    def hard_limit_bytes(self) -> int:
        """Unsent bytes above which a link is dropped: reached only where nobody can be paused."""
        return self.high_water_bytes + self.max_message_bytes + 16 * 2**20


_NAMES = tuple(setting.name for setting in fields(Settings))
_LISTS = ("binds", "seeds", "allow_spawn")
_POSITIVE = tuple(name for name in _NAMES if name.endswith(("_bytes", "_timeout", "_interval")))


def make_settings(given: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Check what a caller gave and return it as settings, defaults filled in.

    Args:
        given: Values by name. Lists may be any iterable of strings.
        environ: Where the secret comes from if the caller gave none.

    Raises:
        UnknownSettingError: There is no such setting; the text names the nearest one.
        InvalidSettingError: A value has the wrong type or is out of range.
        NoSecretError: There is no secret.
    """
    values = dict(given)
    for name in values:
        if name not in _NAMES:
            raise UnknownSettingError(name, _NAMES)
    for name in _LISTS:
        if values.get(name) is not None:
            values[name] = _strings(name, values[name])
    if values.get("secret") is None:
        values["secret"] = environ.get(SECRET_VARIABLE)
    settings = Settings(**values)
    _check(settings)
    if not settings.secret_bytes:
        raise NoSecretError
    return settings


def _strings(name: str, value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise InvalidSettingError(name, value, "it is a list of strings: write ['…']")
    items: tuple[Any, ...] = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(item, str) for item in items):
        raise InvalidSettingError(name, value, "it is a list of strings")
    return items


def _check(settings: Settings) -> None:
    if settings.nodeid is not None and not isinstance(settings.nodeid, str):
        raise InvalidSettingError("nodeid", settings.nodeid, "a node ID is a string")
    if not isinstance(settings.secret, (str, bytes, type(None))):
        raise InvalidSettingError("secret", "…", "it is a str or bytes")
    for seed in settings.seeds:
        try:
            ids.check_noderef(seed)
        except InvalidNoderefError as error:
            raise InvalidSettingError("seeds", seed, str(error)) from error
    for name in ("allow_eval", "allow_relay", "secure"):
        if not isinstance(getattr(settings, name), bool):
            raise InvalidSettingError(name, getattr(settings, name), "it is True or False")
    for name in _POSITIVE:
        value = getattr(settings, name)
        kinds = int if name.endswith("bytes") else (int, float)
        if not isinstance(value, kinds) or isinstance(value, bool) or not 0 < value < math.inf:
            raise InvalidSettingError(name, value, "it is a finite number above 0")
