# SPDX-License-Identifier: MIT
"""Topics: ports subscribe to them by name or pattern, and what any node publishes reaches them all.

:func:`subscribe` and :func:`publish` are all that programs need. ``interests`` says what topics and patterns are,
``broker`` keeps a node's subscriptions, ``destination`` and ``origin`` are the two sides of a session between two
nodes, and ``at_risk`` knows what may have been lost when a session ends.
"""

from aemp_gevent.topics.subscribing import Subscription, publish, subscribe

__all__ = ["Subscription", "publish", "subscribe"]
