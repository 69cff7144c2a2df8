# SPDX-License-Identifier: MIT
"""Native threads: the identity of the running one, and calls that other threads make on a hub.

A node belongs to the hub of one native thread, and has no locks: greenlets
of one thread take turns by themselves. What other threads may call (``snd``, ``kil``)
is either safe as it is, because the interpreter switches threads only at certain
points (:mod:`aemp_gevent.ports` lists the steps that rely on that), or is handed to the
hub through its :class:`Doorbell`.

In monkey-patched programs the threads of :mod:`threading` are greenlets of one native
thread, so everything below is taken from before the patching.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from gevent import monkey
from gevent.hub import Hub

from aemp_gevent.runtime.hub_calls import hub_call, report_to

# Any: monkey.get_original() cannot know what it returns.
get_ident: Callable[[], int] = monkey.get_original("_thread", "get_ident")
"""Return the ID of the native thread that runs this; 24 ns."""

allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
"""Make a lock that blocks the whole native thread."""

ThreadLocal: Any = monkey.get_original("threading", "local")
"""A class for attributes of which each native thread has its own."""


class Doorbell:
    """Makes calls on a hub for any native thread, in order. One for each hub; see :func:`doorbell_of`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...], bool]] = deque()
        # Not loop.run_callback_threadsafe(): that counts the loop's references up without a lock while the
        # loop may be counting as well, and a lost count would end the loop while it is in use.
        self._watcher: Any = hub.loop.async_(ref=False)  # gevent's watchers have no types
        self._watcher.start(hub_call(self._answer, self._watcher.send, partial(report_to, hub, context=self)))

    def ring(self, call: Callable[..., object], *args: Any) -> None:
        """Call ``call(*args)`` on the hub soon. Never blocks. Its exceptions go to the hub's error handler."""
        self._calls.append((call, args, True))
        self._watcher.send()

    def close(self, watcher: Any) -> None:
        """Close a watcher of this hub there soon. Never blocks, never raises."""
        # A destroyed loop has closed all of them, and this doorbell's own as well.
        with suppress(Exception):
            self.ring(watcher.close)

    def _answer(self) -> None:  # on the hub
        # Only those that are here now: threads that ring all the time must not keep sockets waiting.
        for _ in range(len(self._calls)):
            entry = self._calls[0]
            del self._calls[0]  # not popleft(): an exception when that returns would lose the call
            try:
                entry[0](*entry[1])
            except BaseException as error:  # noqa: BLE001  # the other calls must be made as well
                stray = error
            else:
                continue
            if entry[2]:
                # Once more: an interrupt may have come before the call's first step, and all calls can be repeated.
                self._calls.append((entry[0], entry[1], False))
                if isinstance(stray, Exception):
                    continue  # reported when it is raised again
            report_to(self._hub, stray, self)
        if self._calls:
            self._watcher.send()


def close_with(owner: object, watcher: Any, doorbell: Doorbell) -> None:
    """Close a watcher on its hub when its owner is collected, in whichever thread that happens.

    libuv needs the call before the watcher's memory is freed; libev notices by itself.

    Args:
        owner: The only object that uses it.
        watcher: A watcher of gevent's.
        doorbell: The doorbell of its hub.
    """
    weakref.finalize(owner, doorbell.close, watcher).atexit = False


def doorbell_of(hub: Hub) -> Doorbell:
    """Return the doorbell of a hub. Call it in the hub's own thread."""
    # On the hub itself, so that they end together and all nodes of the thread share it: a started
    # watcher lives as long as its loop.
    found: Doorbell | None = getattr(hub, "aemp_doorbell", None)
    if found is None:
        found = Doorbell(hub)
        hub.aemp_doorbell = found  # type: ignore[attr-defined]
    return found
