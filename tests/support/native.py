# SPDX-License-Identifier: MIT
"""Native threads, and sleep that blocks, for tests of just these; whether the suite runs monkey-patched or not.

With ``AEMP_TEST_PATCH=1`` it does, as its users' programs do. Importing this is what patches, so it comes before
anything that could notice.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from time import sleep as sleep  # noqa: PLC0414  # for others, before it is patched
from typing import Any, TypeVar

import gevent
from gevent import monkey

T = TypeVar("T")

PATCHED = os.environ.get("AEMP_TEST_PATCH", "0") not in {"", "0"}

if PATCHED:
    # A second threading, made of what there is now: gevent keeps the originals of single functions only.
    _spec = find_spec("threading")
    assert _spec is not None
    assert _spec.loader is not None
    threading = module_from_spec(_spec)
    _spec.loader.exec_module(threading)
    monkey.patch_all()


def aside(function: Callable[..., T], *args: Any) -> T:
    """Call a function that blocks, of files and processes, while all greenlets of this process keep running."""
    if PATCHED:  # then it lets them, and works in no other thread
        return function(*args)
    result: T = gevent.get_hub().threadpool.apply(function, args)
    return result


def read_line(child: subprocess.Popen[str]) -> str:
    """Return the next line that a process prints, while other greenlets keep running; ``""`` at the end."""
    assert child.stdout is not None
    return aside(child.stdout.readline)
