# SPDX-License-Identifier: MIT
"""The start of a server: in a port that is made here, or that another node spawns.

In both cases the port runs ``Cart(*args)``, which becomes the server there. Then it is asked whether it is ready: that
question waits behind ``init`` like every other message.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aemp_gevent.errors import AlreadyStartedError, CallTimeout, PortDied, PortKilled, RemoteError, StartError
from aemp_gevent.node.access import describe, held_name, name_of
from aemp_gevent.otp.names import claim
from aemp_gevent.otp.requests import READY, SYSTEM
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.toolkit import death_of

if TYPE_CHECKING:
    from aemp_gevent import Node


START_SECONDS = 30.0
"""How long ``init`` may take, unless the caller says something else."""

LAST_SECONDS = 1.0
"""How long a server that was killed because it did not start is waited for."""


def start_server(
    node: Node,
    where: str | None,
    server: type[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str | None,
    network_name: str | None,
    timeout: Seconds | None,
    watch: Callable[[str], object] = lambda _port: None,
) -> str:
    """Start a server, wait until it is ready, and return its port. See ``Server.start``. Switches.

    Args:
        node: The node that starts it.
        where: The ID of another node that is to run it; None: this one.
        server: Its class.
        args: The arguments of its ``init``.
        kwargs: More of them.
        name: The name to register, or None.
        network_name: The name to claim in the network, or None.
        timeout: Seconds that it may take.
        watch: Called with its port before anything can happen in that.
    """
    what = server.__name__
    seconds = to_seconds(timeout, f"{what}.start()", "start_timeout")
    failures: list[Exception] = []
    if where is None:
        port = _start_here(node, server, args, kwargs, name, network_name, failures, watch)
    else:
        port = node.spawn(where, name_of(server), *_by_position(server, args, kwargs))
        watch(port)
    try:
        node.call(port, SYSTEM, READY, *([name, network_name] if where else []), timeout=seconds)
    except CallTimeout:
        _end(node, port, "start_timeout")
        why = f"init() did not end within {seconds:g} s; give it more time with start_timeout, or let it do less"
        raise StartError(what, why, ("start_timeout",)) from None
    except PortDied as error:
        if failures:
            raise failures[0] from failures[0].__cause__
        raise StartError(what, " ".join(map(str, error.reason)) or "init() stopped it", error.reason) from None
    except RemoteError as error:
        _end(node, port, "start_refused")
        raise StartError(what, error.error, ("start_refused", error.error)) from None
    except BaseException:  # such as the death of the port that starts it
        node.kil(port, "start_interrupted")
        raise
    return port


def _end(node: Node, port: str, reason: str) -> None:
    """Kill a server that has not started, and wait until its name is free again. Switches."""
    with death_of(port, node=node) as death:
        node.kil(port, reason)
        death.wait(timeout=LAST_SECONDS)


def _start_here(
    node: Node,
    server: type[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str | None,
    network_name: str | None,
    failures: list[Exception],
    watch: Callable[[str], object],
) -> str:
    """Make a port that becomes a server with its first message, and send that. Never switches.

    So nobody can send a message before that. Others wait while the port claims its name, and while ``init`` runs.
    """

    def begin(*_message: Any) -> None:
        try:
            if network_name is not None:
                claim(node, port, network_name)
        except Exception as error:  # noqa: BLE001  # these are raised where the server is started
            failures.append(error)
        try:
            if not failures:
                server(*args, **kwargs)
        except Exception as error:  # noqa: BLE001
            failures.append(StartError(server.__name__, describe(error), ("die", describe(error))))
            failures[0].__cause__ = error
        if failures:
            node.kil(port, "die", describe(failures[0].__cause__ or failures[0]))
            raise PortKilled

    if name is not None:
        held = held_name(node, name)
        if held is not None:
            raise AlreadyStartedError(server.__name__, name, held)
    port = node.port(begin)
    try:
        watch(port)
        if name is not None:
            node.reg(port, name)
        node.snd(port)
    except BaseException:
        node.kil(port, "start_interrupted")
        raise
    return port


def _by_position(server: type[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of ``init`` as they travel to another node.

    Raises:
        TypeError: They do not fit, or cannot be given by position.
    """
    if not kwargs:
        return args
    bound = inspect.signature(server.init).bind(None, *args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        names = quoted(list(bound.kwargs))
        raise TypeError(f"{server.__name__}.start(): to another node, arguments travel by position; {names} cannot")
    return bound.args[1:]
