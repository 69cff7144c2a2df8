# SPDX-License-Identifier: MIT
"""Hints about probable mistakes in a program, such as a misspelt name, each logged once per place.

A message that nothing takes is dropped, as it must be: ports die at any time. But a misspelt name
looks the same. So the first time at each place it is logged as a warning, with what to do
about it, and at debug level from then on.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable
from itertools import islice

from aemp_gevent.runtime.quoting import quoted

MAX_PLACES = 500
"""Places that are remembered. Peers choose tags, and so places; beyond this, nothing is logged as a warning."""

_MAX_TEXT = 100
_MAX_KNOWN = 1000

ONCE = "(logged once per place; DEBUG shows each)"
"""The end of every hint."""


class Hints:
    """The hints that one node has logged."""

    def __init__(self) -> None:
        self._given: set[Hashable] = set()

    def is_due(self, *place: Hashable) -> bool:
        """Return whether this is the first hint at a place, so that it must be logged as a warning."""
        if len(self._given) >= MAX_PLACES or place in self._given:
            return False
        self._given.add(place)
        return True


def kind_of(tag: object) -> str:
    """Return the part of a tag that identifies a place: the beginning of a text, else the name of the type."""
    return tag[:_MAX_TEXT] if isinstance(tag, str) else type(tag).__name__


def nearest(name: object, known: Iterable[str]) -> str:
    """Return "; did you mean …?" with the most similar of the known names; ``""`` if none is similar."""
    if not isinstance(name, str) or len(name) > _MAX_TEXT:
        return ""
    candidates = [other for other in islice(known, _MAX_KNOWN) if len(other) <= _MAX_TEXT]
    import difflib  # noqa: PLC0415  # for mistakes only

    found = difflib.get_close_matches(name, candidates, n=1)
    return f"; did you mean {quoted(found[0])}?" if found else ""


def calling_line(*modules: str) -> str | None:
    """Return "file:line" of the code that called the library; None if that is the library itself.

    Args:
        modules: The names of the modules that were called. If one is compiled, it has no frames.
    """
    # Not _getframe(1): with compiled modules, there may be no frame but this one.
    caller = sys._getframe().f_back  # pyright: ignore[reportPrivateUsage]
    while caller is not None and caller.f_globals.get("__name__") in modules:
        caller = caller.f_back
    if caller is None or str(caller.f_globals.get("__name__", "")).partition(".")[0] == "aemp_gevent":
        return None
    return f"{caller.f_code.co_filename}:{caller.f_lineno}"
