# SPDX-License-Identifier: MIT
"""Semaphores for several nodes: whoever dies while holding one has released it.

What a holder has is a *lease*: a port made for one acquisition. The semaphore's side
monitors it, and its death, whatever it is of, is the release: ``release()``, the death
of the port that acquired, the end of its process, the loss of the link. An acquisition
that was given up just when it was granted is released the same way.
"""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any, NamedTuple

from gevent.lock import Semaphore

from aemp_gevent import SELF, default_node
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.runtime.quantities import Seconds
from aemp_gevent.toolkit.lodgers import House, Lodger
from aemp_gevent.toolkit.remotes import RemoteLinkable, is_poll

_MESSAGES = {"acquire": "_acquire_for", "acquire_nowait": "_acquire_now_for", "wait": "_wait_for"}
_CALLS = {"counter": "_count"}


class PortSemaphore(Semaphore):
    """A ``gevent.lock.Semaphore`` with a port: this node uses it as usual, others by a :class:`RemoteSemaphore`.

    Only what was acquired by a :class:`RemoteSemaphore` (here or elsewhere) is released by a death.
    The port dies when nothing refers to the semaphore any more: keep it.

    Args:
        value: How many may hold it at once.
        node: Where its port lives.
    """

    def __init__(self, value: int = 1, *, node: LocalNode = default_node) -> None:
        super().__init__(value)
        self.node = node
        self._house = House(self, node, _MESSAGES, _CALLS)
        self.port: str = self._house.port
        """Its port's ID, to be sent to others. ``str()`` of the semaphore is the same."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.port}: {self.counter} free>"

    def __str__(self) -> str:
        return self.port

    def close(self) -> None:
        """Close the port: others get ``PortDied``. The semaphore itself goes on here."""
        self._house.close()

    def _count(self) -> int:
        return self.counter

    def _lodger(self, lease: str, reply: str) -> Lodger:
        return Lodger(
            self._house,
            reply,
            lambda _true: self.node.snd(reply, 1),
            lambda _true, _reason: self.release(),
            client=lease,
        )

    def _acquire_for(self, lease: str, reply: str) -> None:
        if self.locked() or self._house.waiting:
            self._lodger(lease, reply).wait(self.acquire)
        else:
            self._lodger(lease, reply).got(self.acquire())

    def _acquire_now_for(self, lease: str, reply: str) -> None:
        if self.locked() or self._house.waiting:
            self.node.snd(reply, 0)
        else:
            self._acquire_for(lease, reply)

    def _wait_for(self, reply: str) -> None:
        if self.locked():
            Lodger(self._house, reply, lambda counter: self.node.snd(reply, counter)).wait(self.wait)
        else:
            self.node.snd(reply, self.counter)


class _Lease(NamedTuple):
    """One acquisition."""

    port: str
    holder: str | None
    """The port in whose context it was made."""
    guard: Monitor | None


def _code_with_the_block() -> FrameType | None:
    """Return the frame that has the ``with`` block, from the method that enters or leaves it."""
    here = inspect.currentframe()
    method = None if here is None else here.f_back
    return None if method is None else method.f_back


class RemoteSemaphore(RemoteLinkable):
    """A semaphore of another node, or of this one, to be used as if it were a ``gevent.lock.Semaphore``.

    What a port acquired is released when that port dies, if it was not before; what was
    acquired outside any port, when this process ends. Give greenlets a port with ``attach``.
    ``gevent.wait`` takes it with others: it is ready when it can be acquired, or is gone.

    Args:
        port: Of the :class:`PortSemaphore`.
        node: This node.
    """

    def __init__(self, port: object, *, node: LocalNode = default_node) -> None:
        super().__init__(port, node=node)
        self._leases: list[_Lease] = []
        self._blocks: list[tuple[FrameType | None, str]] = []
        """What ``with`` blocks acquired: the code that has the block, and the lease."""

    def acquire(self, blocking: bool = True, timeout: Seconds | None = None) -> bool:
        """Acquire it; wait while others hold it.

        Args:
            blocking: Whether to wait.
            timeout: Seconds to wait; None: forever, 0: as if it were not ``blocking``.

        Returns:
            Whether it is held now.

        Raises:
            PortDied: The semaphore is gone, or its node.
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
        """Acquire it, and add the lease to ``taken`` if it is held."""
        self.node.scheduler.check_thread("acquire()")
        port = self.node.make()
        lease = port.id
        try:
            self.node.scheduler.table.add(port)
            if waits:
                # If it is granted just when the time is over, the lease's death is its release.
                is_held = self._wait_until(timeout, "acquire", lease) == 1
            else:
                is_held = self._call("acquire_nowait", lease) == 1
            if is_held:
                holder = SELF()
                guard = None if holder is None else self.node.mon(holder, self._drop, lease)
                held = (_Lease(lease, holder, guard),)
                self._leases += held  # no call from here on: it is held and known to be, or neither
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
        """Release what was acquired last, in this port's context if anything was. Does not wait.

        Raises:
            ValueError: It is not held by way of this object.
        """
        self._release(self._newest())

    def _newest(self) -> _Lease:
        """Return what was acquired last, in this port's context if anything was."""
        if not self._leases:
            raise ValueError(f"release(): {self.port} is not held by way of this object, or was released by a death")
        holder = SELF()
        mine = [held for held in self._leases if held.holder == holder]
        return (mine or self._leases)[-1]

    def _release(self, lease: _Lease) -> None:
        """Release it, and forget it. May be begun again."""
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
        """Return whether it can be acquired."""
        return self.counter > 0

    def wait(self, timeout: Seconds | None = None) -> int:
        """Wait until it can be acquired, at most ``timeout`` seconds; return how often it could be then."""
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
        """Release what the block acquired; ``chosen`` knows what that is, if this is begun again."""
        # By its code, and not by who runs it: another greenlet, which may hold the semaphore as well, may close a
        # generator that has the block.
        if not chosen:
            mine = [block for block in self._blocks if block[0] is code]
            # None if something like an ExitStack entered it.
            chosen.append(mine[-1][1] if mine else self._newest().port)
        for lease in self._leases:
            if lease.port == chosen[0]:
                self._release(lease)
                return
        self._blocks = [block for block in self._blocks if block[1] != chosen[0]]  # it was released by a death
