# SPDX-License-Identifier: MIT
"""The names in requests: which arguments are names, and how long they may be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from aemp_gevent.wire.limits import is_long
from aemp_gevent.wire.vocabulary import (
    CALL,
    CAN,
    G_CHG1,
    G_CHG2,
    G_DB_FAMILY,
    G_DB_KEYS,
    G_DB_VALUES,
    G_FIND,
    G_FOUND,
    G_MON0,
    G_MON1,
    G_REPLY,
    G_SET,
    G_SLAVE,
    G_UPD,
    LOOKUP,
    NOT_DONE,
    SPAWN,
)

_NAMES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys((LOOKUP, CAN), (0,)),
    NOT_DONE: (0, 2),
    **dict.fromkeys((G_FIND, G_FOUND, G_REPLY, G_MON1, G_MON0), (0,)),
    **dict.fromkeys((SPAWN, G_DB_FAMILY, G_DB_KEYS, G_DB_VALUES, G_SLAVE, G_SET, G_CHG1), (0, 1)),
    CALL: (1,),
    G_CHG2: (0, 1, 2),
    G_UPD: (0, 1, 2, 3),
}
"""Positions of arguments that are names: of ports, nodes, functions or families, or maps whose keys are names. The IDs
of ports that get answers are checked when they are split, and names in requests about links in
:mod:`aemp_gevent.peers.link_requests`."""

_DATABASES = (G_SLAVE, G_SET)
"""Requests with maps of maps."""


def first_long_name(request: object, args: Sequence[Any], limit: int, *, is_known: bool) -> str | None:
    """Return the first name in a request that is longer than ``limit`` bytes; None if there is none.

    Args:
        request: The request's name, as it came.
        args: Its arguments, as they came.
        limit: Bytes of UTF-8.
        is_known: Whether there is a request of this name; others are names of functions.
    """
    names: list[Any] = [] if is_known else [request]
    for position in _NAMES.get(request, ()) if isinstance(request, str) else ():
        if position < len(args):
            argument = args[position]
            if type(argument) is not str:
                names += _names_in(argument, is_database=request in _DATABASES)
            elif 4 * len(argument) > limit:  # shorter texts need no look: every call comes by here
                names.append(argument)
    return next((name for name in names if isinstance(name, str) and is_long(name, limit)), None)


def _names_in(argument: Any, *, is_database: bool) -> Iterable[Any]:
    """Return the names in an argument, and any other objects in their places."""
    if isinstance(argument, str):
        return (argument,)
    if is_database and isinstance(argument, dict):
        return itertools.chain(argument, *(inner for inner in argument.values() if isinstance(inner, dict)))
    return argument if isinstance(argument, (dict, list)) else ()
