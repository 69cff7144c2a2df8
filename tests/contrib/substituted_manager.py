# SPDX-License-Identifier: MIT
"""A plugin of pytest for python-socketio's own tests of its pub/sub manager: they get ours instead."""

from __future__ import annotations

from typing import Any

import pytest
from socketio import pubsub_manager

from aemp_gevent import initialise_node, shutdown
from aemp_gevent.contrib.socketio import AempManager

_made: list[AempManager] = []


class Substitute(AempManager):
    """Ours, counted."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _made.append(self)


def pytest_sessionstart(session: pytest.Session) -> None:
    initialise_node("127.0.0.1:0", secret="of these tests")
    pubsub_manager.PubSubManager = Substitute


def pytest_sessionfinish(session: pytest.Session) -> None:
    print(f"\nmade {len(_made)} of ours")
    shutdown()
