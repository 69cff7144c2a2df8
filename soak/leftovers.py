# SPDX-License-Identifier: MIT
"""Find greenlets and other objects that should be gone."""

from __future__ import annotations

import gc

from gevent.hub import Hub
from greenlet import getcurrent, greenlet

from aemp_gevent.ports.runner import Runner


def live_greenlets() -> list[greenlet]:
    """Return every greenlet that stands somewhere, but for this one, the hubs and the idle runners."""
    return [
        thing
        for thing in gc.get_objects()
        # Not isinstance(), which asks what a proxy stands for: that may be gone.
        if issubclass(type(thing), greenlet)
        and thing.gr_frame is not None
        and thing is not getcurrent()
        and thing.parent is not None  # the main greenlet of a native thread: gevent's pool has some
        and not isinstance(thing, Hub)
        and not (isinstance(thing, Runner) and thing.idle)
    ]
