# SPDX-License-Identifier: MIT
"""What the library knows of gunicorn without its hooks: whether workers become nodes, and where log lines go.

The hooks themselves are in :mod:`aemp_gevent.contrib.gunicorn`. An application whose configuration lacks them seems to
work, but its workers do not see each other. So the first port of a private node, and each
registration of a function that only the hooks call, look here.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from aemp_gevent.runtime.logs import LOGGERS, writers

_WITHOUT_HOOKS = (
    "gunicorn's workers are not nodes here: they do not see each other, and functions given to on_join() and "
    "on_drain() are not called; add the line 'from aemp_gevent.contrib.gunicorn import *' to gunicorn.conf.py, "
    "or call join_host() in each worker"
)

_GUNICORNS_LOG = "gunicorn.error"


class _Joining:
    is_settled = False
    """Whether it has joined other nodes, or was found not to."""

    looked_in = 0
    """The ID of the process that was found not to be gunicorn's. One that it forks may be a worker."""


def joined() -> None:
    """Take note that this process has a node that can have links."""
    _Joining.is_settled = True


def missing_hooks() -> str | None:
    """Return a warning, once, if gunicorn runs this process and its configuration makes no node of it."""
    if _Joining.is_settled or "gunicorn" not in sys.modules or _Joining.looked_in == os.getpid():
        return None
    is_starting = False
    for thing in _things_of_gunicorn():
        if any(kind.__module__.startswith("gunicorn.app.") for kind in type(thing).__mro__):
            is_starting = True  # it may be reading its configuration, whose hooks are not known before the end
            continue
        hook = getattr(getattr(thing, "cfg", None), "post_worker_init", None)
        if hook is None:
            continue
        # A hook of the user's own may call ours, but not after the worker has started.
        if getattr(hook, "__module__", None) == "gunicorn.config" or getattr(thing, "booted", False):
            _Joining.is_settled = True
            log_as_gunicorn()
            return _WITHOUT_HOOKS
        return None
    if is_starting:
        return None
    _Joining.looked_in = os.getpid()  # once, because private nodes ask often, and stacks may be deep
    return None


def log_as_gunicorn() -> None:
    """Write the library's log lines where and as gunicorn writes its own, until the program configures logging."""
    if logging.getLogger(_GUNICORNS_LOG).handlers:
        logging.getLogger(LOGGERS[0]).addHandler(_as_gunicorn())


class _AsGunicorn(logging.Handler):
    """A handler that passes records to gunicorn's handlers while no other handler gets them."""

    def handle(self, record: logging.LogRecord) -> bool:
        if all(handler is self for handler in writers(record.name)):
            for handler in logging.getLogger(_GUNICORNS_LOG).handlers:
                if record.levelno >= handler.level:
                    handler.handle(record)
        return True


# Only one, because a logger takes each handler once; and not when this module is imported: if gevent patches the
# process after that, logging fails to release the handler when the process ends, and prints a traceback.
_as_gunicorn = functools.cache(_AsGunicorn)


def _things_of_gunicorn() -> Iterator[Any]:
    """Return gunicorn's worker, if this process is one, then the objects of gunicorn whose methods are running."""
    # Its signal handlers are methods of it, also while greenlets run that the application has started.
    candidates = [getattr(signal.getsignal(signal.SIGABRT), "__self__", None)]
    frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]  # inspect takes long to import
    while frame is not None:
        # Only gunicorn's own frames: f_locals makes a copy, which keeps a frame's values alive as long as the frame.
        if _is_of_gunicorn(frame.f_globals.get("__name__")):
            candidates.append(frame.f_locals.get("self"))
        frame = frame.f_back
    for thing in candidates:
        if any(_is_of_gunicorn(kind.__module__) for kind in type(thing).__mro__):
            yield thing


def _is_of_gunicorn(module: object) -> bool:
    # The __module__ of a proxy's class may be a property.
    return isinstance(module, str) and module.partition(".")[0] == "gunicorn"
