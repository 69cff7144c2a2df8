# SPDX-License-Identifier: MIT
"""Finding crashes of unmonitored ports, which would otherwise leave a test green."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

import gevent
import zope.event
from gevent import hub

from aemp_gevent.errors import PortDied

_SECONDS = 0.001
"""How long ports can still handle messages of a test, and crash; waited twice, since due timers come first."""

_OUTSIDE = "exception in a callback outside any port"


class _Callbacks(logging.Handler):
    """Collect exceptions in callbacks outside of any port, which cannot be monitored."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._seen = seen

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(_OUTSIDE):
            error = record.exc_info[1] if record.exc_info else None
            self._seen.append(f"{text}: {type(error).__name__}: {error}")


@contextlib.contextmanager
def crashes() -> Generator[list[str], None, None]:
    """Collect crashes of ports here that nobody monitored, and of callbacks that belong to no port, line by line.

    Gives way for a moment at both ends: what was sent before is not counted, and what is sent meanwhile is handled.
    """
    seen: list[str] = []

    def heard(event: object) -> None:
        if isinstance(event, PortDied) and event.reason[:1] == ("die",):
            seen.append(str(event))

    _give_way()
    callbacks = _Callbacks(seen)
    logger = logging.getLogger("aemp_gevent")
    zope.event.subscribers.append(heard)
    logger.addHandler(callbacks)
    try:
        yield seen
        _give_way()
    finally:
        logger.removeHandler(callbacks)
        zope.event.subscribers.remove(heard)


def _give_way() -> None:
    if hub._get_hub() is not None:  # type: ignore[attr-defined]  # a test without gevent stays one
        gevent.sleep(_SECONDS)
        gevent.sleep(_SECONDS)
