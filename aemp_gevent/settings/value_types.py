# SPDX-License-Identifier: MIT
"""Checks the values of settings by the type of their field, and reads them from text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aemp_gevent.runtime.quantities import to_count, to_seconds
from aemp_gevent.settings.directory_address import DirectoryAddress
from aemp_gevent.settings.rules import PeerRule, read_rule


@dataclass(frozen=True)
class ValueType:
    """The values that settings of one type may have. ``Any`` below: anything may be given.

    Attributes:
        wanted: The error text for other values: "it must be …".
        convert: Returns a value as the field stores it; raises TypeError or ValueError.
        read: Turns the text of an environment variable into a value for ``convert``; raises ValueError.
    """

    wanted: str
    convert: Callable[[Any], Any]
    read: Callable[[str], Any]


_MOST = 2**40
"""The largest number: larger sizes overflow in the decoders, so that links fail."""


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _int(value: Any) -> int:
    try:
        count = to_count(value, "settings", "it")
    except (TypeError, ValueError):
        raise ValueError from None  # 'wanted' says more
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
    # A secret that begins like this was not generated, and a list must not become one because a bracket is missing.
    return _read_json(text) if text.startswith('["') else text


def _read_lists(text: str) -> Any:
    return _read_json(text) if text.lstrip().startswith("[") else _read_list(text)


def _read_json(text: str) -> Any:
    import json  # noqa: PLC0415  # few variables are JSON

    return json.loads(text)


class UdpPort(int):
    """The number of a UDP port; 0: any free one."""


ANY_UDP_PORT = UdpPort(0)


def _udp_port(value: Any) -> UdpPort:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**16:
        raise ValueError
    return UdpPort(value)


VALUE_TYPES: dict[Any, ValueType] = {
    bool: ValueType(
        "it must be True or False (in the environment also 1 or 0, yes or no, on or off)", _bool, _read_bool
    ),
    int: ValueType(f"it must be a whole number above 0, and at most {_MOST} (2**40)", _int, int),
    UdpPort: ValueType("it must be a UDP port: a whole number from 0 to 65535", _udp_port, int),
    float: ValueType("it must be a number above 0, or a timedelta", _float, float),
    str: ValueType("it must be a string", _text, str),
    DirectoryAddress: ValueType("it must be a string", lambda value: DirectoryAddress(_text(value)), str),
    str | bytes | tuple[str | bytes, ...]: ValueType(
        "it must be a str or bytes, or a list of them (in the environment a JSON list)", _secret, _read_secret
    ),
    tuple[str, ...]: ValueType("it must be a list of strings", _texts, _read_list),
    tuple[tuple[Any, ...], ...]: ValueType(
        "it must be a list of names and [name, argument, …] lists (in the environment: names, or JSON)",
        _lists,
        _read_lists,
    ),
    tuple[PeerRule, ...]: ValueType(
        "it must be a list of rules like {'peer': 'web-*', 'spawn': False} (in the environment as JSON)",
        _rules,
        _read_json,
    ),
}
