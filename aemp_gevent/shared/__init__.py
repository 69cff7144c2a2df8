# SPDX-License-Identifier: MIT
"""State that all nodes share, and one of them owns: counters, limits, a cache, and flags.

``handles`` is the base of what programs use, and ``owned`` of what its owner has; ``ownership`` finds and chooses the
owner. ``counters``, ``limits`` and ``once`` have both sides of one kind of state each; those of caches are ``caches``
and ``owned_cache``.
"""

from aemp_gevent.shared.caches import Cache, CachedFunction, cached, invalidate
from aemp_gevent.shared.counters import Counter
from aemp_gevent.shared.handles import SharedState, host
from aemp_gevent.shared.limits import Limiter, Verdict
from aemp_gevent.shared.once import Once

__all__ = [
    "Cache",
    "CachedFunction",
    "Counter",
    "Limiter",
    "Once",
    "SharedState",
    "Verdict",
    "cached",
    "host",
    "invalidate",
]
