# SPDX-License-Identifier: MIT
"""The mesh of global nodes: each dials all others that it has no link to."""

from __future__ import annotations

import random
from collections.abc import Callable

from aemp_gevent.addresses import ids
from aemp_gevent.directory.embedded.host import EmbeddedHost
from aemp_gevent.errors import InvalidPortError
from aemp_gevent.runtime.backoff import jittered
from aemp_gevent.runtime.hub_calls import see_through

_MESH_SECONDS = 2.0
"""A global node that could not be reached is dialled again after this time, and up to half of it more."""

_AGAIN_SECONDS = 0.2
"""One whose link was lost is dialled again within this time."""


class Mesh:
    """Dials the global nodes that are missing, again and again until none are missing.

    Args:
        host: The node's links.
        missing: Returns the global nodes that this one has no link to.
        warn: Logs a warning about the directory.
    """

    def __init__(self, host: EmbeddedHost, missing: Callable[[], list[str]], warn: Callable[..., None]) -> None:
        self._host = host
        self._missing = missing
        self._warn = warn
        self._timer: int | None = None

    def dial(self) -> None:
        """Dial the missing nodes soon."""
        self._dial_after(0.0)

    def lost(self) -> None:
        """Dial a node whose link was lost soon, but at a random moment, as other nodes do the same."""
        self._dial_after(_AGAIN_SECONDS * random.random())  # noqa: S311  # not a secret

    def _dial_after(self, seconds: float) -> None:
        if self._timer is None and self._missing():
            self._timer = self._host.scheduler.start_timer(seconds, self._dial)

    def _dial(self) -> None:  # on the hub
        see_through(self._dial_all)

    def _dial_all(self) -> None:
        self.stop()
        for node in self._missing():
            try:
                ids.node_of(node)
            except InvalidPortError as error:
                self._warn("a global node cannot be dialled: %s", error)
            else:
                self._host.link_to(node)
        self._dial_after(jittered(_MESH_SECONDS))

    def stop(self) -> None:
        """End the timer. Idempotent."""
        timer, self._timer = self._timer, None
        if timer is not None:
            self._host.scheduler.end_timer(timer)
