# SPDX-License-Identifier: MIT
"""Failures of a task: how often they are logged, and the pauses between tries. No etcd is needed."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from aemp_gevent.directory.etcd import trouble
from aemp_gevent.directory.etcd.client import EtcdError
from aemp_gevent.directory.etcd.trouble import Trouble
from aemp_gevent.settings.directory_address import parse_directory
from tests.directory.etcd.observers import WAIT, Make
from tests.support.helpers import wait_until
from tests.support.networking import free_address


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(trouble, "monotonic", lambda: self.now)


def test_failures_are_logged_once_a_minute_and_so_is_the_recovery(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    writing = Trouble("writing to etcd", 5.0)
    writing.over()
    with caplog.at_level(logging.INFO, "aemp_gevent.etcd"):
        for _ in range(61):
            writing.failed(EtcdError("no answer"))
            clock.now += 1.0
        writing.over()
        writing.over()
    assert caplog.messages == [
        "writing to etcd is failing; retrying: no answer",
        "writing to etcd is failing; retrying: no answer",
        "writing to etcd works again after 61.0 s",
    ]


def test_a_recovery_is_not_logged_if_the_failure_was_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    writing = Trouble("writing to etcd", 5.0)
    with caplog.at_level(logging.INFO, "aemp_gevent.etcd"):
        for _ in range(3):
            writing.failed(EtcdError("no answer"))
            writing.over()
            clock.now += 1.0
    assert len(caplog.messages) == 2


def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ZeroDivisionError("a bug")
    except ZeroDivisionError as error:
        Trouble("writing to etcd", 5.0).failed(error, is_bug=True)
    assert "Traceback" in caplog.text


def test_pauses_grow_up_to_the_longest_and_begin_again_after_a_success() -> None:
    writing = Trouble("writing to etcd", 2.0)
    first, *_, last = [writing.delay() for _ in range(12)]
    assert first <= 0.1
    assert 1.0 < last <= 2.0
    writing.over()
    assert writing.delay() <= 0.1


@pytest.mark.slow
def test_each_task_of_an_engine_logs_its_failures_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    address = parse_directory(f"etcd://{free_address()}")
    assert address is not None
    with caplog.at_level(logging.INFO):
        a = make(address, "a", 2, f={"k": 1})
        failures: list[Any] = []
        monkey = a.engine._cluster.failed
        a.engine._cluster.failed = lambda endpoint: (failures.append(endpoint), monkey(endpoint))  # type: ignore[method-assign]
        a.engine.watch("f")
        a.engine.query("family", "f", failures.append)
        wait_until(lambda: len(failures) > 8, within=WAIT)
    told = [record for record in caplog.records if record.name == "aemp_gevent.etcd"]
    assert len(told) == 3  # writing, watching, asking
