# SPDX-License-Identifier: MIT
"""A port's death as an object that ``gevent.wait`` accepts."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent.event import AsyncResult

from aemp_gevent import default_node
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.toolkit.lifetimes import cancel_with
from aemp_gevent.toolkit.times import checks_times

if TYPE_CHECKING:
    _AsyncResult = AsyncResult[Any]
else:  # only its stubs can be subscripted
    _AsyncResult = AsyncResult


class _DeathListener:
    """Receive a port's death, and refer strongly to its :class:`PortDeath` only while something is linked to it."""

    def __init__(self, death: PortDeath) -> None:
        self.linked: PortDeath | None = None
        self._death = weakref.ref(death)

    def died(self, *reason: Any) -> None:
        death = self._death()
        self.linked = None
        if death is not None:
            death.set(reason)


@checks_times
class PortDeath(_AsyncResult):
    """The death of a port, as a ``gevent.event.AsyncResult`` whose value is the reason.

    ``gevent.wait`` and ``iwait`` accept it together with greenlets, events and the like.
    ``get()`` returns the reason, a tuple: ``()`` is a normal death. Used as a context manager, it stops
    monitoring on exit. It also stops when nothing refers to it and nothing waits for it any more.

    Args:
        port: Any port on any node; or a node, to wait for the loss of its link.
        node: This node.
    """

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        super().__init__()
        self.port = str(port)
        self._listener = listener = _DeathListener(self)
        self._guard = ports_host_of(node).monitor(port, listener.died, None)
        cancel_with(self, node.scheduler, self._guard)

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """Call a function with this object, on the hub, when the port has died."""
        self._listener.linked = self  # the caller may not keep it
        super().rawlink(callback)

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """Remove a function given to :meth:`rawlink`."""
        super().unlink(callback)
        if not self.linkcount():
            self._listener.linked = None

    def cancel(self) -> None:  # type: ignore[override]  # AsyncResult's is for futures, and returns False
        """Stop monitoring the port: this is never set from now on."""
        self._guard.cancel()

    def __enter__(self) -> PortDeath:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._guard.__exit__(*exc_info)


def death_of(port: object, *, node: LocalNode = default_node) -> PortDeath:
    """Return a :class:`PortDeath`, to be used as in ``gevent.wait([death_of(port), greenlet, event])``."""
    return PortDeath(port, node=node)
