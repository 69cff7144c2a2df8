# SPDX-License-Identifier: MIT
"""Users of workers that are lost one after the other."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from aemp_gevent.contrib.locust_rpc.dispatching import mend_dispatcher

pytestmark = pytest.mark.slow


@pytest.mark.usefixtures("locust")
def test_dispatch_that_only_moves_users_ends() -> None:
    mend_dispatcher()
    runners: Any = import_module("locust.runners")
    workers = [runners.WorkerNode(name) for name in "abc"]
    dispatcher = import_module("locust.dispatch").UsersDispatcher(
        workers, [type("Visitor", (), {"weight": 1, "fixed_count": 0})]
    )
    dispatcher.new_dispatch(6, 100)
    assert list(dispatcher)[-1] == {name: {"Visitor": 2} for name in "abc"}
    for lost, users in (("a", 3), ("b", 6)):
        dispatcher.remove_worker(next(worker for worker in workers if worker.id == lost))
        dispatcher.new_dispatch(6, 100)
        assert {worker["Visitor"] for worker in list(dispatcher)[-1].values()} == {users}
        assert not dispatcher.dispatch_in_progress
