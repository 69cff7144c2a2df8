# SPDX-License-Identifier: MIT
"""Native threads: which one this is, and how another one gets something done on a hub.

A node belongs to the hub of one native thread, and nothing of it has locks: greenlets
of one thread take turns by themselves. What other threads may ask for (``snd``, ``kil``)
is either safe as it stands, because the interpreter switches threads only at certain
points (:mod:`aemp_gevent.ports.scheduler` says which steps rely on that), or is handed to the
hub by ringing its :class:`Doorbell`.

In monkey-patched programs the threads of :mod:`threading` are greenlets of one native
thread, and no strangers here: so everything below is from before the patching.
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
"""Return the native thread that runs this; 24 ns."""

allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
"""Make a lock that blocks the whole native thread."""

ThreadLocal: Any = monkey.get_original("threading", "local")
"""Attributes that each native thread has for itself."""


class Doorbell:
    """Gets calls from any native thread made on a hub, in order. One for each hub; see :func:`doorbell_of`."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...], bool]] = deque()
        # Not loop.run_callback_threadsafe(): that counts the loop's references up without a lock, while the
        # loop may be counting, too, and one that is lost some day ends the loop under everybody.
        self._watcher: Any = hub.loop.async_(ref=False)  # gevent's watchers have no types
        self._watcher.start(hub_call(self._answer, self._watcher.send, partial(report_to, hub, context=self)))

    def ring(self, call: Callable[..., object], *args: Any) -> None:
        """Call ``call(*args)`` on the hub soon. Never blocks. What it raises goes to the hub's error handler."""
        self._calls.append((call, args, True))
        self._watcher.send()

    def close(self, watcher: Any) -> None:
        """Close a watcher of this hub there soon. Never blocks, never raises."""
        # A loop that was destroyed has closed all of them, and this bell's own.
        with suppress(Exception):
            self.ring(watcher.close)

    def _answer(self) -> None:  # on the hub
        # No more than are there now: threads that ring all the time must not keep sockets waiting.
        for _ in range(len(self._calls)):
            entry = self._calls[0]
            del self._calls[0]  # not popleft(): what strikes when a call returns would lose what it took
            try:
                entry[0](*entry[1])
            except BaseException as error:  # noqa: BLE001  # the calls of others are to be made all the same
                stray = error
            else:
                continue
            if entry[2]:
                # Once more: an interrupt may have come before the call's first step, and all bear that.
                self._calls.append((entry[0], entry[1], False))
                if isinstance(stray, Exception):
                    continue  # told when it is raised again
            report_to(self._hub, stray, self)
        if self._calls:
            self._watcher.send()


def close_with(owner: object, watcher: Any, doorbell: Doorbell) -> None:
    """Close a watcher on its hub when its owner is collected, in whichever thread that happens.

    libuv has to be told that a watcher's memory is about to go; libev notices by itself.

    Args:
        owner: Who alone uses it.
        watcher: One of gevent's.
        doorbell: Of its hub.
    """
    weakref.finalize(owner, doorbell.close, watcher).atexit = False


def doorbell_of(hub: Hub) -> Doorbell:
    """Return the doorbell of a hub. To be called in the hub's own thread."""
    # On the hub itself, so that they end together, and all nodes of the thread share it: a watcher that is
    # started lives as long as its loop.
    found: Doorbell | None = getattr(hub, "aemp_doorbell", None)
    if found is None:
        found = Doorbell(hub)
        hub.aemp_doorbell = found  # type: ignore[attr-defined]
    return found
