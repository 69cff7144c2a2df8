# SPDX-License-Identifier: MIT
"""Objects of which each process has its own, because a forked child must not share its parent's."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """An object that is made when a process first asks for it.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._process = 0
        self._made: T

    def get(self) -> T:
        """Return this process's object."""
        process = os.getpid()
        if self._process != process:
            # Another greenlet must not see the number before the object.
            self._made = self._make()
            self._process = process
        return self._made
