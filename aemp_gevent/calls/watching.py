# SPDX-License-Identifier: MIT
"""Calls that are watched: by those who measure them.

A node whose calls nobody watches does not come here, so that its calls cost the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from gevent.event import AsyncResult

from aemp_gevent.calls import call as calls
from aemp_gevent.ports.patterns import Message

Ended = Callable[["BaseException | None"], object]
"""Called when a call is over, with what was raised, if anything was."""


class CallWatch(Protocol):
    """What observes the calls that a node's code makes."""

    def began(self, port: str, tag: object) -> Ended | None:
        """Take note that a call begins; return what to call when it is over. Neither switches nor raises."""
        ...


class WatchedHost(calls.CallHost, Protocol):
    """The node whose code calls."""

    @property
    def watches(self) -> tuple[CallWatch, ...]:
        """What observes its calls."""
        ...


def call(host: WatchedHost, port: object, message: Message, timeout: float | None) -> Any:
    """Make a call like :func:`aemp_gevent.calls.call.call`."""
    ended = _began(host, port, message)
    failure: BaseException | None = None
    try:
        return calls.call(host, port, message, timeout)
    except BaseException as error:
        failure = error
        raise
    finally:
        _end(ended, failure)
        del failure  # its traceback has this frame: a reference cycle, which would keep the call's arguments alive


def call_async(host: WatchedHost, port: object, message: Message, timeout: float | None) -> AsyncResult[Any]:
    """Make a call like :func:`aemp_gevent.calls.call.call_async`."""
    ended = _began(host, port, message)
    try:
        result = calls.call_async(host, port, message, timeout)
    except BaseException as error:
        _end(ended, error)
        raise
    if ended:
        result.rawlink(lambda done: _end(ended, done.exception))
    return result


def _began(host: WatchedHost, port: object, message: Message) -> list[Ended]:
    name = str(port)
    return [ended for watch in host.watches if (ended := watch.began(name, message[0])) is not None]


def _end(ended: list[Ended], error: BaseException | None) -> None:
    for each in reversed(ended):
        each(error)
