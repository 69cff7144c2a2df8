# SPDX-License-Identifier: MIT
"""A repair of the part of Locust's master that gives users to workers.

Locust (all releases up to 2.47) does not take note that a dispatch is over if it only moved users from one worker to
others. The master then ignores all workers that come and go later, and the users of the second lost worker stay lost.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from importlib import import_module
from typing import Any


@functools.cache
def mend_dispatcher() -> None:
    """Make Locust's dispatcher take note of the end of each dispatch."""
    dispatcher: Any = import_module("locust.dispatch").UsersDispatcher
    dispatch = getattr(dispatcher, "_dispatcher", None)
    if dispatch is None:
        return  # a later release, which may not need it

    @functools.wraps(dispatch)
    def to_the_end(self: Any) -> Iterator[Any]:
        yield from dispatch(self)
        self._dispatch_in_progress = False

    dispatcher._dispatcher = to_the_end
