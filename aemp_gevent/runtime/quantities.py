# SPDX-License-Identifier: MIT
"""Checks times and counts that callers give, where they enter.

A NaN stops every timer of the process, a string fails at the other end of the network, a huge integer overflows deep
inside a loop. So each call that takes a time or a count checks it here first, before it sends, creates or
registers anything.
"""

from __future__ import annotations

import operator
import sys
from math import inf, isnan
from numbers import Real
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

from gevent import Timeout

from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from datetime import timedelta
    from decimal import Decimal

Seconds: TypeAlias = "float | timedelta | Real | Decimal | Timeout"
"""What a call takes as a time; None, where it is allowed, is forever."""

FOREVER_SECONDS = 2**31
"""68 years: a wait this long, or longer, needs no timer."""


def to_seconds(value: Seconds | None, call: str, name: str = "timeout") -> float | None:
    """Return a time as seconds; None is forever, and so are infinity and anything over 68 years.

    Args:
        value: A number of any kind (below 0 is in the past, as 0 is now), a ``timedelta``, or a ``gevent.Timeout``,
            of which the seconds count.
        call: What the user called, for error texts.
        name: The parameter.

    Raises:
        TypeError: It is not a time.
        ValueError: It is not a number.
    """
    given: Any = value  # callers without a type checker give anything
    if given is None:
        return None
    kind = type(given)
    if (kind is float or kind is int) and 0 <= given < FOREVER_SECONDS:  # nearly always
        number: float = given
        return number
    if _is_a(given, "datetime", "timedelta"):
        number = given.total_seconds()
    elif isinstance(given, Timeout):
        return to_seconds(given.seconds, call, name)
    elif kind is bool or _has_unit(given) or not (isinstance(given, Real) or _is_a(given, "decimal", "Decimal")):
        wanted = "a number of seconds, a timedelta, or None for no limit"
        raise TypeError(f"{call}: {name} must be {wanted}, not {quoted(given)} ({kind.__name__})")
    else:
        number = _to_number(given)
    if isnan(number):
        raise ValueError(
            f"{call}: {name} is {quoted(given)}, which is not a number; give seconds, or None for no limit"
        )
    return max(number, 0.0) if number < FOREVER_SECONDS else None


def to_limited_seconds(value: Seconds | None, call: str, name: str = "timeout") -> float:
    """Return a time as seconds, with 68 years for "forever".

    Raises:
        TypeError, ValueError: As in :func:`to_seconds`.
    """
    seconds = to_seconds(value, call, name)
    return FOREVER_SECONDS if seconds is None else seconds


def to_count(value: SupportsIndex, call: str, name: str, *, least: int = 1) -> int:
    """Return a number of things as an integer.

    Args:
        value: An integer of any kind.
        call: What the user called, for error texts.
        name: The parameter.
        least: The smallest one allowed.

    Raises:
        TypeError: It is not an integer.
        ValueError: It is smaller.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = None
    if count is None or isinstance(value, bool):
        raise TypeError(f"{call}: {name} must be an integer, not {quoted(value)} ({type(value).__name__})")
    if count < least:
        raise ValueError(f"{call}: {name} must be at least {least}, not {quoted(value)}")
    return count


def _to_number(value: Any) -> float:  # of any kind
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf
    except ValueError:  # a signaling NaN
        return float("nan")


def _is_a(value: object, module: str, name: str) -> bool:
    """Return whether a value is of a class, whose module may not be imported."""
    kind = getattr(sys.modules.get(module), name, None)
    return kind is not None and isinstance(value, kind)


def _has_unit(value: object) -> bool:
    """Return whether a value is a numpy timedelta64, which counts as an integer of unknown unit."""
    return getattr(getattr(value, "dtype", None), "kind", "") == "m"
