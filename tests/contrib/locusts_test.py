# SPDX-License-Identifier: MIT
"""Run one test of Locust's own, as a process: over ZeroMQ, or over links.

Locust's tests allow themselves little time. Where they wait for processes, this program gives them more of it, so that
they mean the same on a busy machine.

Arguments: ``zmq`` or ``links``, and the test's dotted name.
"""

from __future__ import annotations

import importlib
import sys
import types
import unittest
from typing import Any

PATIENCE = 8
"""How many times as long as usual Locust's tests wait for what must happen."""

PAUSE = 3
"""How many times as long as usual they pause, so that something can happen."""


def give_time(module: Any) -> None:
    """Make the tests of a module wait longer for the processes that they start."""
    import gevent
    from gevent import subprocess  # noqa: TID251  # as Locust's tests do

    class Timeout(gevent.Timeout):
        def __init__(self, seconds: float | None = None, *args: Any, **options: Any) -> None:
            super().__init__(seconds and seconds * PATIENCE, *args, **options)

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def communicate(self, input: Any = None, timeout: float | None = None) -> Any:  # noqa: A002
            return super().communicate(input, timeout and timeout * PATIENCE)

    def sleep(seconds: float = 0) -> None:
        gevent.sleep(seconds * PAUSE)

    module.gevent = types.SimpleNamespace(**{**vars(gevent), "Timeout": Timeout, "sleep": sleep})
    module.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": Popen})


def without_what_is_not_installed() -> None:
    """Replace two libraries of Locust's developers: one repeats failed tests, the other one reads web pages."""
    sys.modules["retry"] = types.SimpleNamespace(retry=lambda *_args, **_options: lambda test: test)  # type: ignore[assignment]
    sys.modules["pyquery"] = types.SimpleNamespace(PyQuery=None)  # type: ignore[assignment]


def main() -> None:
    kind, test = sys.argv[1:]
    if kind == "links":
        importlib.import_module("aemp_gevent.contrib.locust")
    without_what_is_not_installed()
    module = importlib.import_module(".".join(test.split(".")[:3]))
    if test.startswith("locust.test.test_main."):
        give_time(module)
    unittest.main(module=None, argv=["locusts_test", "--verbose", test])


if __name__ == "__main__":
    main()
