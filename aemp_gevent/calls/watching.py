# SPDX-License-Identifier: MIT
"""Calls that are watched: by those who measure or trace them.

A node whose calls nobody watches does not come here, so that its calls cost the same.
"""

from __future__ import annotations

from typing import Any, Protocol

from gevent.event import AsyncResult

from aemp_gevent.calls import call as calls
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.patterns import Message


class WatchedCall(Protocol):
    """One call that is observed. Nothing in here may raise; only the end of a call may switch."""

    def sent(self) -> None:
        """Take note that the code that made the call continues: the call was sent, or is over."""

    def ended(self, error: BaseException | None) -> None:
        """Take note that the call is over, and of what was raised, if anything was."""


class CallWatch(Protocol):
    """What observes the calls that a node's code makes."""

    def began(self, port: str, tag: object) -> WatchedCall | None:
        """Take note that a call begins; return what observes it, if anything does. Neither switches nor raises."""
        ...


def call(host: calls.CallHost, port: object, message: Message, timeout: float | None) -> Any:
    """Make a call like :func:`aemp_gevent.calls.call.call`."""
    watched = _began(host, port, message)
    failure: BaseException | None = None
    try:
        return calls.call(host, port, message, timeout)
    except BaseException as error:
        failure = error
        raise
    finally:
        _continue(watched)
        _end(watched, failure)
        del failure  # its traceback has this frame: a reference cycle, which would keep the call's arguments alive


def call_async(host: calls.CallHost, port: object, message: Message, timeout: float | None) -> AsyncResult[Any]:
    """Make a call like :func:`aemp_gevent.calls.call.call_async`."""
    watched = _began(host, port, message)
    try:
        result = calls.call_async(host, port, message, timeout)
    except BaseException as error:
        _continue(watched)
        _end(watched, error)
        raise
    _continue(watched)
    if watched:
        # In a job: what is called here is called on the hub, where an exporter of spans cannot wait for its server.
        enqueue = host.scheduler.enqueue_job
        result.rawlink(lambda done: enqueue(CallJob(None, _end, (watched, done.exception))))
    return result


def _began(host: calls.CallHost, port: object, message: Message) -> list[WatchedCall]:
    name = str(port)
    return [watched for watch in host.watches if (watched := watch.began(name, message[0])) is not None]


def _continue(watched: list[WatchedCall]) -> None:
    for each in reversed(watched):
        each.sent()


def _end(watched: list[WatchedCall], error: BaseException | None) -> None:
    for each in reversed(watched):
        each.ended(error)
