# SPDX-License-Identifier: MIT
"""The same work with what users would choose instead, where that is installed (extra ``bench``, and redis-server)."""

from __future__ import annotations

import importlib.util
import shutil

MODULES = {
    "pykka": ("pykka", "pykka_actors"),
    "pyzmq": ("zmq", "zmq_green"),
    "redis": ("redis", "redis_pubsub"),
    "zerorpc": ("zerorpc", "zerorpc_calls"),
}
"""For each of them: the package that must be installed, and the module here."""

PAIRS = {
    "L1": (("callback", "pykka", "actor"),),
    "L2": (("callbacks", "pykka", "actors"),),
    "N1": (
        ("callback, one cpu", "pyzmq", "one cpu"),
        ("callback, free", "pyzmq", "free"),
        ("callback, free", "zerorpc", "free"),
        ("callback, free", "redis", "free"),
    ),
    "N2": (("snd", "pyzmq", "dealer"), ("snd", "redis", "publish")),
    "N4": (("call", "pyzmq", "dealer"), ("call", "zerorpc", "call")),
}
"""Beside which variants of ours they are measured, and their own. Their modules have a function for each row."""


def installed() -> tuple[str, ...]:
    """Return which of them are."""
    return tuple(
        name
        for name, (package, _module) in MODULES.items()
        if importlib.util.find_spec(package) and (name != "redis" or shutil.which("redis-server"))
    )
