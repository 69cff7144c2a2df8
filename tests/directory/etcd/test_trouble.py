# SPDX-License-Identifier: MIT
"""Failures of a task: how often they are logged."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from aemp_gevent.settings.directory_address import parse_directory
from tests.directory.etcd.observers import WAIT, Make
from tests.etcd_server import needs_etcd
from tests.helpers import wait_until
from tests.networking import free_address

pytestmark = [needs_etcd, pytest.mark.slow]


def test_repeated_failures_are_logged_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    address = parse_directory(f"etcd://{free_address()}")
    assert address is not None
    with caplog.at_level(logging.INFO):
        a = make(address, "a", f={"k": 1})
        trouble: list[Any] = []
        monkey = a.engine._cluster.failed
        a.engine._cluster.failed = lambda endpoint: (trouble.append(endpoint), monkey(endpoint))  # type: ignore[method-assign]
        a.engine.watch("f")
        a.engine.query("family", "f", trouble.append)
        wait_until(lambda: len(trouble) > 8, within=WAIT)
    assert len(caplog.records) == 3  # writing, watching, asking
