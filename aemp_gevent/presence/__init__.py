# SPDX-License-Identifier: MIT
"""Presence: who is present, such as in a room, through any node.

``tracking`` has :class:`Presence` and :class:`Session`; ``people`` merges sessions into people. It is all made of
entries of the directory, one for each session.
"""

from aemp_gevent.presence.tracking import Presence, Session

__all__ = ["Presence", "Session"]
