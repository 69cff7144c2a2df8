# SPDX-License-Identifier: MIT
"""Deaths that ``gevent.wait`` understands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gevent.event import AsyncResult

from aemp_gevent import default_node
from aemp_gevent.local import LocalNode

if TYPE_CHECKING:
    _AsyncResult = AsyncResult[Any]
else:  # only its stubs can be subscripted
    _AsyncResult = AsyncResult


class PortDeath(_AsyncResult):
    """The death of a port, as a ``gevent.event.AsyncResult`` whose value is the reason.

    ``gevent.wait`` and ``iwait`` take it together with greenlets, events and the like.
    ``get()`` returns the reason, a tuple: ``()`` is a normal death. As a context manager it
    stops watching on exit.

    Args:
        port: Any port, of whichever node; or a node, whose link is meant then.
        node: This node.
    """

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        super().__init__()
        self.port = str(port)
        self._guard = node.monitor(port, self._died, None)

    def _died(self, *reason: Any) -> None:
        self.set(reason)

    def cancel(self) -> None:  # type: ignore[override]  # AsyncResult has one for futures, which says False
        """Stop watching: it is never set from now on."""
        self._guard.cancel()

    def __enter__(self) -> PortDeath:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._guard.__exit__(*exc_info)


def death_of(port: object, *, node: LocalNode = default_node) -> PortDeath:
    """Return a port's death, for ``gevent.wait([death_of(port), greenlet, event])``. See :class:`PortDeath`."""
    return PortDeath(port, node=node)
