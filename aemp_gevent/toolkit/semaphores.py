# SPDX-License-Identifier: MIT
"""Semaphores for several nodes: whoever dies while holding one has released it.

What a holder has is a *lease*: a port made for one acquisition. The semaphore's side
monitors it, and its death, whatever it is of, is the release: ``release()``, the death
of the port that acquired, the end of its process, the loss of the link. An acquisition
that was given up just when it was granted is released the same way.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from gevent.lock import Semaphore

from aemp_gevent import SELF, CallTimeout, default_node
from aemp_gevent.local import LocalNode
from aemp_gevent.monitors import Monitor
from aemp_gevent.toolkit.lodgers import House, Lodger
from aemp_gevent.toolkit.remotes import QUICK_SECONDS, Remote


class PortSemaphore(Semaphore):
    """A ``gevent.lock.Semaphore`` with a port: code on this node uses it as ever, others by a :class:`RemoteSemaphore`.

    Only what was acquired by a :class:`RemoteSemaphore` (here or elsewhere) is released by a death.

    Args:
        value: How many may hold it at once.
        node: Where its port lives.
    """

    def __init__(self, value: int = 1, *, node: LocalNode = default_node) -> None:
        super().__init__(value)
        self.node = node
        self.port: str = node.port()
        """Its port's ID, to be sent to others. ``str()`` of the semaphore is the same."""
        self._house = House(node, self.port)
        node.rcv(self.port, "acquire", self._acquire_for, "acquire_nowait", self._acquire_now_for)
        node.serve(self.port, counter=lambda: self.counter)

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Let the port die: others get ``PortDied``. The semaphore itself goes on here."""
        self.node.kil(self.port)

    def _lodger(self, lease: str, reply: str) -> Lodger:
        return Lodger(self._house, lease, lambda _true: self.node.snd(reply, 1), lambda _true, _reason: self.release())

    def _acquire_for(self, lease: str, reply: str) -> None:
        if self.locked():
            self._lodger(lease, reply).wait(self.acquire)
        else:
            self._lodger(lease, reply).got(self.acquire())

    def _acquire_now_for(self, lease: str, reply: str) -> None:
        if self.locked():
            self.node.snd(reply, 0)
        else:
            self._acquire_for(lease, reply)


class _Lease(NamedTuple):
    """One acquisition."""

    port: str
    holder: str | None
    """The port in whose context it was made."""
    guard: Monitor | None


class RemoteSemaphore(Remote):
    """A semaphore of another node, or of this one, to be used as if it were a ``gevent.lock.Semaphore``.

    What a port acquired is released when that port dies, if it was not before; what was
    acquired outside any port, when this process ends. Give greenlets a port with ``attach``.

    Args:
        port: Of the :class:`PortSemaphore`.
        node: This node.
    """

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        super().__init__(port, node=node)
        self._leases: list[_Lease] = []

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Acquire it; wait while others hold it.

        Args:
            blocking: Whether to wait.
            timeout: Seconds to wait; None: for ever.

        Returns:
            Whether it is held now.

        Raises:
            PortDied: The semaphore is gone, or its node.
        """
        lease = self.node.port()
        is_held = False
        try:
            if blocking:
                is_held = self.node.call(self.port, "acquire", lease, timeout=timeout) == 1
            else:
                is_held = self.node.call(self.port, "acquire_nowait", lease, timeout=QUICK_SECONDS) == 1
        except CallTimeout:
            pass  # if it was granted just now, the lease's death is its release
        finally:
            if not is_held:
                self.node.kil(lease)
        if not is_held:
            return False
        holder = SELF()
        guard = None if holder is None else self.node.mon(holder, self._drop, lease)
        self._leases.append(_Lease(lease, holder, guard))
        return True

    def _drop(self, lease: str, *_reason: Any) -> None:
        self._leases = [held for held in self._leases if held.port != lease]
        self.node.kil(lease)

    def release(self) -> None:
        """Release what was acquired last, in this port's context if anything was. Does not wait.

        Raises:
            ValueError: It is not held by way of this object.
        """
        if not self._leases:
            raise ValueError(f"release(): {self.port} is not held by way of this object, or was released by a death")
        holder = SELF()
        mine = [held for held in self._leases if held.holder == holder]
        lease = (mine or self._leases)[-1]
        self._leases.remove(lease)
        if lease.guard is not None:
            lease.guard.cancel()
        self.node.kil(lease.port)

    @property
    def counter(self) -> int:
        """How many more can hold it now; asked over the network."""
        counter: int = self.node.call(self.port, "counter", timeout=QUICK_SECONDS)
        return counter

    def locked(self) -> bool:
        """Return whether ``acquire`` would wait."""
        return self.counter <= 0

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()
