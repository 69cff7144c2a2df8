# SPDX-License-Identifier: MIT
"""How much other processes take of the processors, and waiting until they take little. Needs Linux's /proc/stat."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic, sleep

LIMIT = 0.1
"""Of one processor: others may take so much of it during a run that counts."""
TRIES = 4
"""So often a run is taken, until others leave it alone; the least disturbed one counts."""
PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.3

STAT = Path("/proc/stat")


class Others:
    """The share of one processor that others take from when this is made.

    Others are all processes but this one and those that it started and waited for, and for a virtual machine its host.
    """

    def __init__(self) -> None:
        self._busy, self._own, self._began = _busy_seconds(), _own_seconds(), monotonic()

    def share(self) -> float | None:
        """Return it, or None where the system does not say."""
        busy, own, seconds = _busy_seconds(), _own_seconds(), monotonic() - self._began
        if busy is None or self._busy is None or not seconds:
            return None
        return max(0.0, busy - self._busy - (own - self._own)) / seconds


def wait_until_quiet() -> None:
    """Wait until others take little; not longer than a minute."""
    ends = monotonic() + PATIENCE_SECONDS
    while monotonic() < ends:
        others = Others()
        sleep(_LOOK_SECONDS)
        if (others.share() or 0.0) <= LIMIT:
            return


def _busy_seconds() -> float | None:
    """Return how long all processors were busy since the system started, or had to wait for their host."""
    try:
        cpu = STAT.read_text(encoding="ascii").splitlines()[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _waiting, hard, soft, stolen = map(int, cpu[1:9])
    return (user + nice + system + hard + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
