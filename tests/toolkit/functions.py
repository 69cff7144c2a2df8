# SPDX-License-Identifier: MIT
"""Functions that a pool runs on other nodes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import gevent

from aemp_gevent import SELF, spawnable


@spawnable
def square(number: int) -> int:
    return number * number


@spawnable("Some::Name")
def add(left: int, right: int = 1) -> int:
    return left + right


@spawnable
def fail(text: str) -> None:
    raise ValueError(text)


@spawnable
def where(seconds: float = 0.0) -> list[object]:
    """Return the process and the port that it runs in."""
    gevent.sleep(seconds)
    return [os.getpid(), SELF()]


@spawnable
def note(path: str, seconds: float) -> None:
    """Write when it began and, if nobody interrupts it, when it ended."""
    with Path(path).open("a") as file:
        file.write(f"began {os.getpid()}\n")
        file.flush()
        gevent.sleep(seconds)
        file.write(f"ended {time.time()}\n")


def forbidden() -> None:
    """Serve as a function that others may not run."""
