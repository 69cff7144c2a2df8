# SPDX-License-Identifier: MIT
"""Gives a forked child fresh nodes, and stops everything there that belongs to the parent.

A fork copies everything: ports, blocked handlers, timers, links. In the child all of
it must stop, at once and forever, without any effect: no exception may be thrown into a
handler (its ``finally`` block would do in the child what only the parent may do), and
nothing may be sent on a link of the parent's. So it is *abandoned*: timers are stopped,
greenlets no longer react when they are switched to, and all of it is kept, because
greenlets are thrown a ``GreenletExit`` when they are collected.

gevent's own part: its loops notice a fork by themselves (libev), or because
``gevent.os.fork`` and this module call ``gevent.reinit``; sockets of the child's that are in
the parent's ``epoll`` set stay there, as closing the copy of a descriptor does not touch the
original. For greenlets that a program makes with gevent directly, gevent's rules hold: they
keep running in the child.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import gevent
from gevent import Greenlet
from greenlet import getcurrent, greenlet

from aemp_gevent.runtime.logs import frames_of

if TYPE_CHECKING:
    from gevent.pool import Group
    from gevent.socket import socket


NodeT = TypeVar("NodeT")


class _Forkable(NamedTuple):
    """What a node does about forks."""

    is_of_this_thread: Callable[[Any], bool]
    forked: Callable[[Any], None]


# Of the process, not of a node, like the fork itself. The end of the process is the other event for all nodes.
_nodes: weakref.WeakKeyDictionary[Any, _Forkable] = weakref.WeakKeyDictionary()
_kept: list[object] = []  # what the parent left in this process, forever


def register(node: NodeT, is_of_this_thread: Callable[[NodeT], bool], forked: Callable[[NodeT], None]) -> None:
    """Notify a node of forks for as long as it lives.

    Args:
        node: The node. The functions get it as an argument, because they must not refer to it.
        is_of_this_thread: Whether this native thread has the node's hub.
        forked: Start as a fresh node. Called in the child, in the greenlet that forked; must not switch.
    """
    _nodes[node] = _Forkable(is_of_this_thread, forked)


def nodes() -> list[Any]:
    """Return the nodes of this process that are still referred to."""
    return list(_nodes)


def keep(*things: object) -> None:
    """Keep objects from ever being collected."""
    _kept.extend(things)


def _reinit() -> None:
    """Run ``gevent.reinit()`` without waiting for threads.

    By itself it would end the hubs of its pool's threads, and wait for these threads, which only the parent has:
    forever, and in the children of ``subprocess`` before they run their program.
    """
    pool = getattr(gevent.get_hub(), "_threadpool", None)  # the property would make one
    for worker in list(getattr(pool, "_worker_greenlets", ())):
        keep(getattr(worker, "_hub_of_worker", None))
        worker._hub_of_worker = None
    gevent.reinit()


def _in_child() -> None:
    nodes = list(_nodes.items())
    if any(each.is_of_this_thread(node) for node, each in nodes):
        # gevent's os.fork does the same again, without harm; the plain one does not, and a child that
        # first resolves a host name would wait forever for threads that only the parent has.
        _reinit()
    for node, each in nodes:
        try:
            each.forked(node)
        except Exception as error:  # noqa: BLE001  # the other nodes must be called as well
            sys.excepthook(type(error), error, frames_of(error))
    current = getcurrent()
    if getattr(current, "aemp_port", None) is not None:
        current.aemp_port = None  # type: ignore[attr-defined]  # it has one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class Helper(Greenlet):  # type: ignore[type-arg]  # only its stubs can be subscripted
    """A greenlet of the library beside the runners, which can be stopped forever."""

    stopped = False
    """Whether switching to it, or throwing into it, has no effect."""

    def __repr__(self) -> str:
        # Without the arguments, which gevent's own shows: it appears in reports of failed greenlets.
        name = "ended" if self.dead else getattr(getattr(self, "_run", None), "__qualname__", "running")
        return f"<{type(self).__name__} at {id(self):#x}: {name}>"

    def switch(self, *args: Any, **kwargs: Any) -> Any:
        """Switch to it, unless it is stopped."""
        return None if self.stopped else super().switch(*args, **kwargs)

    def throw(self, *args: Any) -> Any:
        """Throw into it, unless it is stopped."""
        return None if self.stopped else super().throw(*args)


def helpers() -> Group:
    """Return a group for greenlets of the library, which stop in a forked child."""
    from gevent.pool import Group  # noqa: PLC0415  # of nodes with links only, like sockets

    group = Group()
    group.greenlet_class = Helper
    return group


def stop_watchers_of(greenlets: Iterable[greenlet]) -> None:
    """Stop the watchers that would resume these greenlets: sockets' readiness, and timers.

    Resuming them no longer has an effect, but a socket that stays readable would keep
    the loop trying forever, and a long timer would keep the loop from ending.
    Looks through all objects of the process (about 10 ms for a million), without touching those it does not stop.
    """
    found: list[Any] = list(greenlets)
    if not found:
        return
    watchers: tuple[type, ...] = (gevent.get_hub().loop.WatcherType,)  # type: ignore[attr-defined]
    # A watcher has a tuple of arguments, with the greenlet in it, or a gevent Waiter that has the greenlet.
    for _ in range(3):
        found = [
            thing
            for thing in gc.get_referrers(*found)
            if isinstance(thing, (tuple, *watchers)) or type(thing).__name__.endswith("Waiter")
        ]
        for watcher in found:
            if isinstance(watcher, watchers):
                watcher.stop()  # type: ignore[attr-defined]  # gevent's watchers have no types
        found = [thing for thing in found if not isinstance(thing, watchers)]
        if not found:
            return


def close_quietly(sock: socket) -> None:
    """Close this process's copy of a socket, without shutting it down or waking greenlets that wait for it."""
    descriptor = sock.detach()
    if descriptor >= 0:
        from socket import close  # noqa: PLC0415  # there is a socket, so it is imported

        close(descriptor)
