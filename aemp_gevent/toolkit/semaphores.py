# SPDX-License-Identifier: MIT
"""Semaphores for several nodes, which are released when their holder dies.

Each acquisition makes a port, its *lease*. The node that has the semaphore monitors the lease, and treats its death
as the release, whatever the cause: ``release()``, the death of the port that acquired it, the end of its process, or
the loss of the link. An acquisition that is given up at the moment when it is granted is released the same way.
"""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any, NamedTuple

from gevent.lock import Semaphore

from aemp_gevent import SELF, default_node
from aemp_gevent.node.access import ports_host_of
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.toolkit.proxy_waiters import ObjectPort, ProxyWaiter
from aemp_gevent.toolkit.remotes import RemoteLinkable, is_poll
from aemp_gevent.toolkit.times import checks_times

_MESSAGES = {"acquire": "_acquire_for", "acquire_nowait": "_acquire_now_for", "wait": "_wait_for"}
_CALLS = {"counter": "_count"}


@checks_times
class PortSemaphore(Semaphore):
    """A ``gevent.lock.Semaphore`` that other nodes use through a :class:`RemoteSemaphore`.

    Only acquisitions through a :class:`RemoteSemaphore` (on any node) are released when their holder dies.
    The port dies when nothing refers to the semaphore any more, so keep a reference to it.

    Args:
        value: How many can hold it at once.
        node: The node that its port belongs to.
    """

    def __init__(self, value: int = 1, *, node: LocalNode = default_node) -> None:
        super().__init__(value)
        self.node = node
        self._object_port = ObjectPort(self, node, _MESSAGES, _CALLS)
        self.port: str = self._object_port.port
        """The port's ID, which you can send to other nodes. ``str(semaphore)`` returns it, too."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port}: {self.counter} free>"

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Close the port: other nodes get ``PortDied``. The semaphore itself keeps working on this node."""
        self._object_port.close()

    def _count(self) -> int:
        return self.counter

    def _proxy_waiter(self, lease: str, reply: str) -> ProxyWaiter:
        return ProxyWaiter(
            self._object_port,
            reply,
            lambda _true: self.node.snd(reply, 1),
            lambda _true, _reason: self.release(),
            client=lease,
        )

    def _acquire_for(self, lease: str, reply: str) -> None:
        if self.locked() or self._object_port.waiting:
            self._proxy_waiter(lease, reply).wait(self.acquire)
        else:
            self._proxy_waiter(lease, reply).got(self.acquire())

    def _acquire_now_for(self, lease: str, reply: str) -> None:
        if self.locked() or self._object_port.waiting:
            self.node.snd(reply, 0)
        else:
            self._acquire_for(lease, reply)

    def _wait_for(self, reply: str) -> None:
        if self.locked():
            ProxyWaiter(self._object_port, reply, lambda counter: self.node.snd(reply, counter)).wait(self.wait)
        else:
            self.node.snd(reply, self.counter)


class _Lease(NamedTuple):
    """One acquisition."""

    port: str
    holder: str | None
    """The port in whose context it was acquired."""
    guard: Monitor | None


def _code_with_the_block() -> FrameType | None:
    """Return the frame that contains the ``with`` block, when called from ``__enter__`` or ``__exit__``."""
    here = inspect.currentframe()
    method = None if here is None else here.f_back
    return None if method is None else method.f_back


class RemoteSemaphore(RemoteLinkable):
    """A semaphore on another node, or on this one, with the methods of a ``gevent.lock.Semaphore``.

    What a port acquired is released when that port dies, if not before. What was
    acquired outside of any port is released when this process ends. Give greenlets a port with ``attach``.
    ``gevent.wait`` accepts it together with other objects: it is ready when it can be acquired, or is gone.

    Args:
        port: The port of the :class:`PortSemaphore`.
        node: This node.
    """

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        super().__init__(port, node=node)
        self._leases: list[_Lease] = []
        self._blocks: list[tuple[FrameType | None, str]] = []
        """What ``with`` blocks acquired: the frame that contains the block, and the lease."""

    def acquire(self, blocking: bool = True, timeout: Seconds | None = None) -> bool:
        """Acquire the semaphore; wait while others hold it.

        Args:
            blocking: Whether to wait.
            timeout: Seconds to wait; None: forever, 0: do not wait.

        Returns:
            Whether it was acquired.

        Raises:
            PortDied: The semaphore or its node is gone.
        """
        waits = blocking and not is_poll(timeout, "acquire()")
        taken: list[_Lease] = []
        try:
            self._acquire(waits, timeout, taken)
        except BaseException:
            self._give_back(taken)
            raise
        return bool(taken)

    def _acquire(self, waits: bool, timeout: Seconds | None, taken: list[_Lease]) -> None:
        """Acquire the semaphore, and add the lease to ``taken`` if that succeeds."""
        self.node.scheduler.check_thread("acquire()")
        port = ports_host_of(self.node).make()
        lease = port.id
        try:
            self.node.scheduler.table.add(port)
            if waits:
                # If it is granted at the moment of the timeout, the lease's death releases it.
                is_held = self._wait_until(timeout, "acquire", lease) == 1
            else:
                is_held = self._call("acquire_nowait", lease) == 1
            if is_held:
                holder = SELF()
                guard = None if holder is None else self.node.mon(holder, self._drop, lease)
                held = (_Lease(lease, holder, guard),)
                self._leases += held  # no calls from here on, so that no exception can separate these two
                taken += held
        finally:
            if not taken:
                self.node.kil(lease)

    def _give_back(self, taken: list[_Lease]) -> None:
        for lease in taken:
            self._release(lease)

    def _drop(self, lease: str, *_reason: Any) -> None:
        self._leases = [held for held in self._leases if held.port != lease]
        self.node.kil(lease)

    def release(self) -> None:
        """Release the last acquisition, preferring those of the current port. Does not wait.

        Raises:
            ValueError: Nothing is held through this object.
        """
        self._release(self._newest())

    def _newest(self) -> _Lease:
        """Return the last acquisition, preferring those of the current port."""
        if not self._leases:
            raise ValueError(f"release(): {self.port} is not held through this object, or its holder has died")
        holder = SELF()
        mine = [held for held in self._leases if held.holder == holder]
        return (mine or self._leases)[-1]

    def _release(self, lease: _Lease) -> None:
        """Release a lease, and remove it. Can be repeated after an interruption."""
        if lease.guard is not None:
            lease.guard.cancel()
        self.node.kil(lease.port)
        self._blocks = [block for block in self._blocks if block[1] != lease.port]
        self._leases = [held for held in self._leases if held is not lease]

    @property
    def counter(self) -> int:
        """How many more can hold it now; asked over the network."""
        counter: int = self._call("counter")
        return counter

    def ready(self) -> bool:
        """Return whether the semaphore can be acquired without waiting."""
        return self.counter > 0

    def wait(self, timeout: Seconds | None = None) -> int:
        """Wait up to ``timeout`` seconds until it can be acquired; return how often it could be, 0 after a timeout."""
        if is_poll(timeout, "wait()"):
            return self.counter
        return self._wait_until(timeout, "wait") or 0

    def locked(self) -> bool:
        """Return whether ``acquire`` would wait."""
        return self.counter <= 0

    def __enter__(self) -> None:
        taken: list[_Lease] = []
        try:
            self._acquire(True, None, taken)
            self._blocks.append((_code_with_the_block(), taken[0].port))
        except BaseException:
            self._give_back(taken)
            raise

    def __exit__(self, *exc_info: object) -> None:
        self.node.scheduler.leave(self._leave, _code_with_the_block(), [])

    def _leave(self, code: FrameType | None, chosen: list[str]) -> None:
        """Release what the block acquired; ``chosen`` remembers the lease if this is interrupted and repeated."""
        # Found by its frame, not by the running greenlet: a generator that contains the block may be closed by
        # another greenlet, which may hold the semaphore as well.
        if not chosen:
            mine = [block for block in self._blocks if block[0] is code]
            # Empty if something like an ExitStack entered it.
            chosen.append(mine[-1][1] if mine else self._newest().port)
        for lease in self._leases:
            if lease.port == chosen[0]:
                self._release(lease)
                return
        self._blocks = [block for block in self._blocks if block[1] != chosen[0]]  # its holder's death released it
