# SPDX-License-Identifier: MIT
"""Supervisors of children that come and go, of which there may be thousands."""

from __future__ import annotations

from typing import Any

from aemp_gevent.otp.children import Child
from aemp_gevent.otp.marks import call
from aemp_gevent.otp.supervisor import Supervisor
from aemp_gevent.runtime.quoting import quoted


class DynamicSupervisor(Supervisor):
    """A supervisor that starts without children, and forgets those that end and are not restarted.

    ::

        carts = DynamicSupervisor.start(max_children=10_000)
        port = carts.start_child(Child(Cart, "ada", restart="transient"))

    Each child is on its own. When the supervisor stops, all children stop at the same time, and not one after another.
    """

    max_children: int | None = None
    """The most children that it may have; None: no limit."""

    _aemp_forgets = True

    def init(self, *args: Any, **options: Any) -> None:
        """Begin without children."""
        self.max_children = options.pop("max_children", self.max_children)
        super().init(*args, **options)
        if self.strategy != "one_for_one":
            why = "each child is on its own, so strategy cannot be"
            raise ValueError(f"DynamicSupervisor: {why} {quoted(self.strategy)}")

    @call
    def start_child(self, child: Child) -> str:
        """Start a child, and return its port. For code of the same node.

        Raises:
            StartError: It did not start; it is not kept.
            ValueError: Its ID is taken, or there are ``max_children``.
        """
        if self.max_children is not None and len(self._entries) >= self.max_children:
            raise ValueError(f"there are {len(self._entries)} children, and max_children is {self.max_children}")
        return super().start_child(child)
