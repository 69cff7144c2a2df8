# SPDX-License-Identifier: MIT
"""The children of supervisors: what is started, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gevent.event import AsyncResult

from aemp_gevent.errors import AlreadyStartedError, PortKilled, StartError
from aemp_gevent.node.access import describe, held_name, name_of
from aemp_gevent.otp.names import claim
from aemp_gevent.otp.placement import OnLost, Placement
from aemp_gevent.otp.server import Server
from aemp_gevent.otp.starting import START_SECONDS, start_server
from aemp_gevent.runtime.quantities import Seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted

if TYPE_CHECKING:
    from aemp_gevent import Node

Restart: TypeAlias = Literal["permanent", "transient", "temporary"]

_USUAL: Any = object()


class Child:
    """One child of a supervisor: what to start, and when to start it again.

    ``start`` is one of these:

    - a :class:`Server` class, or a :class:`Supervisor` class: ``args`` are those of its ``init``. The child has
      started when that has returned.
    - a function marked ``@actor``
    - any other function: it runs in a greenlet and a port of its own, in which it may ``receive``. Its return is the
      child's normal end. With ``lives_on=True`` the port lives on after that, to serve the handlers that the
      function has given it, and the child has started when it has returned.
    - the full name of a function, ``"package.module.function"``, which is spawned; see ``spawn``

    Args:
        start: What to start.
        args: Its arguments.
        id: The child's name in its supervisor; None: that of ``start``, and a number if several have it.
        restart: When it is started again: ``"permanent"`` always; ``"transient"`` after an abnormal death;
            ``"temporary"`` never.
        shutdown: Seconds that it may take to stop; then it is killed. 0: it is killed at once. None: no limit, as
            is usual for supervisors.
        significant: Whether its end may end its supervisor, see ``auto_shutdown``.
        name: The name of its port, see ``reg``.
        network_name: The name of its port in the whole network, see :func:`register`.
        lives_on: Whether its port lives on when the function has returned.
        node: The node to run it on: its ID, or one of its ports. There it is spawned: classes and functions must be
            marked ``@spawnable``, or be covered by ``allow_spawn``, and arguments must be able to travel.
        on: The name of a group: it runs on a node that has a port in this group, chosen at random for each start.
        on_lost: What happens while its node cannot be reached, which is not a death: ``"restart"``: another one is
            started, elsewhere if ``on`` is given, and this one ends when its node notices the loss; or ``"wait"``: it
            lives on, and is supervised again later. Must be given with ``node`` and ``on``.
        start_timeout: Seconds that its start may take.

    Raises:
        TypeError, ValueError: These arguments are wrong, or contradict each other.
        SpawnRefusedError: Other nodes cannot find the function, because it is inside another one.
    """

    def __init__(
        self,
        start: Any,
        *args: Any,
        id: str | None = None,  # noqa: A002  # as in Erlang
        restart: Restart = "permanent",
        shutdown: Seconds | None = _USUAL,
        significant: bool = False,
        name: str | None = None,
        network_name: str | None = None,
        lives_on: bool = False,
        start_timeout: Seconds | None = _USUAL,
        node: object = None,
        on: str | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        if isinstance(getattr(start, "__self__", None), type) and getattr(start, "__name__", "") == "start":
            start = start.__self__  # Cart.start means Cart
        self.start = start
        self.args = args
        self.is_server = isinstance(start, type) and issubclass(start, Server)
        self.is_supervisor = self.is_server and getattr(start, "_aemp_is_supervisor", False)
        self.is_body = not (self.is_server or isinstance(start, str) or lives_on)
        """Whether it is a function whose return is the child's end."""
        what = f"Child({quoted(start)})"
        if not (self.is_server or isinstance(start, str) or (callable(start) and not isinstance(start, type))):
            raise TypeError(f"{what}: give a Server class, a function, or the full name of one")
        if restart not in ("permanent", "transient", "temporary"):
            raise ValueError(f"{what}: restart must be 'permanent', 'transient' or 'temporary', not {quoted(restart)}")
        if significant and restart == "permanent":
            raise ValueError(f"{what}: a significant child must be transient or temporary, because others always run")
        body = getattr(start, "aemp_body", None)
        if lives_on and (self.is_server or isinstance(start, str) or body is not None):
            raise ValueError(f"{what}: lives_on=True is for plain functions, whose port would end with them")
        if id is not None and not isinstance(id, str):
            raise TypeError(f"{what}: id must be a str, not {quoted(id)}")
        if body is not None:
            self.start = body
        self.placement: Placement | None = None
        if node is not None or on is not None:
            self.placement = Placement(what, node, on, on_lost)
            if lives_on:
                raise ValueError(f"{what}: on another node, the port of a function lives on without lives_on")
            if not self.is_server and (name is not None or network_name is not None):
                raise ValueError(f"{what}: on another node a function registers its names itself: reg(), register()")
            self.remote_name = start if isinstance(start, str) else name_of(start)
            """The name by which other nodes find it."""
        elif on_lost is not None:
            raise ValueError(f"{what}: on_lost is for children on other nodes; give node= or on=, too")
        self.id = id
        self.restart = restart
        self.significant = significant
        self.name = name
        self.network_name = network_name
        self.lives_on = lives_on
        usual = None if self.is_supervisor else 5.0
        self.shutdown = to_seconds(usual if shutdown is _USUAL else shutdown, what, "shutdown")
        usual = None if self.is_supervisor else START_SECONDS
        self.start_timeout = to_seconds(usual if start_timeout is _USUAL else start_timeout, what, "start_timeout")

    def __repr__(self) -> str:
        return f"<Child {self.title}, {self.restart}>"

    @property
    def title(self) -> str:
        """The child's ID, or what it would be."""
        if self.id is not None:
            return self.id
        return self.start if isinstance(self.start, str) else getattr(self.start, "__name__", type(self.start).__name__)

    def run(
        self,
        node: Node,
        watch: Callable[[str], object] = lambda _port: None,
        *,
        avoid: str = "",
        is_first: bool = True,
    ) -> str:
        """Start the child, and return its port. Switches.

        Args:
            node: The node of its supervisor, whose port runs this.
            watch: Called with its port before anything can happen in that.
            avoid: The ID of a node on which it should not run if there is another.
            is_first: Whether its group may still be unknown, and is waited for.

        Raises:
            StartError: It did not start, whatever the cause.
        """
        try:
            return self._run(node, watch, avoid, is_first=is_first)
        except StartError:
            raise
        except Exception as error:  # such as arguments that cannot travel, or a directory that does not answer
            raise StartError(self.title, describe(error)) from error

    def _run(self, node: Node, watch: Callable[[str], object], avoid: str, *, is_first: bool) -> str:
        where = None
        if self.placement is not None:
            where = self.placement.choose(node, avoid, self.start_timeout if is_first else 0.0)
            where = None if where == node.NODE() else where
        asked: list[AsyncResult[bool]] = []

        def spawned(port: str) -> None:
            watch(port)
            if self.placement is not None and where is not None:  # now, as the connection may be lost while it starts
                asked.append(self.placement.ask(node, port, self.start_timeout))

        if self.is_server:
            names = self.name, self.network_name
            port = start_server(node, where, self.start, self.args, {}, *names, self.start_timeout, spawned)
        elif where is not None:
            port = node.spawn(where, self.remote_name, *self.args)
            spawned(port)
        else:
            port = self._run_here(node, watch)
        if self.placement is not None and asked:
            try:
                self.placement.keep(node, port, asked[0], self.start_timeout)
            except BaseException:
                node.kil(port, "start_interrupted")
                raise
        return port

    def _run_here(self, node: Node, watch: Callable[[str], object]) -> str:
        """Start a child that is not a server on this node."""
        port: str | None = None
        try:
            if self.lives_on:
                port = _run_init(node, self.start, self.args, self.start_timeout, watch)
            else:
                if isinstance(self.start, str):
                    port = node.spawn(node.NODE(), self.start, *self.args)
                else:
                    port = node.port_async(self.start, *self.args)
                watch(port)
            if self.name is not None:
                held = held_name(node, self.name)
                if held is not None and held != port:
                    raise AlreadyStartedError(self.title, self.name, held)
                node.reg(port, self.name)
            if self.network_name is not None:
                claim(node, port, self.network_name)
        except BaseException:
            if port is not None:
                node.kil(port, "start_interrupted")
            raise
        return port


def _run_init(
    node: Node,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    timeout: float | None,
    watch: Callable[[str], object],
) -> str:
    """Make a port, run a function in it, which may give it handlers, and return the port when it has returned."""
    started: AsyncResult[Any] = AsyncResult()

    def begin(*_message: Any) -> None:
        if started.ready():  # a message for which the function has set no handler
            return
        try:
            function(*args)
        except Exception as error:  # noqa: BLE001  # raised where the child is started
            started.set_exception(error)
            node.kil(port, "die", describe(error))
        else:
            started.set(None)
        if started.exception is not None:
            raise PortKilled

    port = node.port(begin)
    guard = node.mon(port, lambda *reason: started.ready() or started.set_exception(StartError(port, "", reason)))
    try:
        watch(port)
        node.snd(port)
        started.wait(timeout=timeout)  # get() would mistake a Timeout of somebody else for its own
        if not started.ready():
            node.kil(port, "start_timeout")
            why = f"it did not return within {timeout:g} s; give it more time with start_timeout"
            raise StartError(getattr(function, "__name__", "it"), why, ("start_timeout",))
        started.get()
    except BaseException:
        node.kil(port, "start_interrupted")
        raise
    finally:
        guard.cancel()
    return port
