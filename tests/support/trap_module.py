# SPDX-License-Identifier: MIT
"""A module full of what a spawn pattern must not reach, and of the few functions that it covers."""

from __future__ import annotations

import functools
import operator
import os
import os.path as path_module
import subprocess as sp
import sys
from collections.abc import Callable
from os import system
from posixpath import join
from typing import Any

COVERED = ("worker", "decorated", "_underscored")
"""The functions of this module that a pattern for all of it covers."""


def worker(*args: Any) -> tuple[Any, ...]:
    return args


def _underscored() -> None:
    """Is covered: an underscore means something to readers, and nothing to Python."""


def twice(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return function(*args), function(*args)

    return run


@twice
def decorated() -> int:
    return 1


def __getattr__(name: str) -> Any:
    """Answer for whatever is not here, as modules may."""
    if name.startswith("__"):
        raise AttributeError(name)
    return system


class Shell:
    """A class with everything that a class can have."""

    run = system
    os = os
    nested = sp.Popen

    def method(self) -> None: ...

    @classmethod
    def build(cls) -> Shell:
        return cls()

    @staticmethod
    def static() -> None: ...


class Proxy:
    """Claims to be whatever it is asked for."""

    __name__ = "proxy"

    def __getattr__(self, name: str) -> Any:
        return {"__module__": __name__, "__qualname__": "proxy"}.get(name, system)

    def __call__(self, *args: Any) -> Any:
        return system(*args)


class Function(functools.partial):  # type: ignore[type-arg]
    """A partial that is called as if it were defined here."""


proxy = Proxy()
proxy.__module__ = __name__
proxy.__qualname__ = "proxy"  # type: ignore[attr-defined]
partial = Function(system)
partial.__module__ = __name__
partial.__qualname__ = "partial"  # type: ignore[attr-defined]
bound = Shell().method
cached = functools.lru_cache(maxsize=1)(system)
getter = operator.attrgetter("os.system")
alias = worker
anonymous = lambda *args: system(*args)  # noqa: E731, PLW0108
wrapped = functools.wraps(system)(lambda *args: args)
this = sys.modules[__name__]
modules = sys.modules
namespace = globals()
TRAPS = (path_module, join, sp, operator)
