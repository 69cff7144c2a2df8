# SPDX-License-Identifier: MIT
"""The types of the settings that a call may give, for type checkers alone: nothing imports this when a program runs.

What each setting means, and which values it may have: see :mod:`aemp_gevent.settings.fields`. A test compares the
names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias, TypedDict

from aemp_gevent.settings.rules import PeerRule

_Seconds: TypeAlias = float | timedelta


class InitialiseSettings(TypedDict, total=False):
    """What ``initialise_node`` may be given by name."""

    binds: Iterable[str] | None
    secret: str | bytes | list[str] | list[bytes] | list[str | bytes] | tuple[str | bytes, ...] | None
    cert: str | None
    ca: str | None
    require_tls: bool
    services: Iterable[str | Iterable[Any]]
    directory: str
    allow_spawn: Iterable[str]
    allow_eval: bool
    allow_relay: bool
    secure: bool
    rules: Iterable[PeerRule | Mapping[str, Any]]
    strict: bool
    max_message_bytes: int
    max_message_elements: int
    max_name_bytes: int
    high_water_bytes: int
    max_watched_ports: int
    max_directory_entries: int
    max_strangers: int
    max_strangers_per_address: int
    accept_rate: float
    handshake_timeout: _Seconds
    heartbeat_interval: _Seconds
    heartbeat_timeout: _Seconds
    blocked_timeout: _Seconds | None
    udp_port: int | None
    monitor_timeout: _Seconds
    idle_timeout: _Seconds | None
    seed_poll_interval: _Seconds


class JoinSettings(InitialiseSettings, total=False):
    """What ``join_host`` may be given by name."""

    nodeid: str | None


class ConfigureSettings(JoinSettings, total=False):
    """What ``configure`` and ``reload`` may be given by name."""

    seeds: Iterable[str]
