# SPDX-License-Identifier: MIT
"""Jobs: calls that are made once, in the order they were queued, unless they are cancelled."""

from __future__ import annotations

import pytest

from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import LastAction
from aemp_gevent.ports.port import Job
from tests.support.seams import ports_of
from tests.support.settling import settle


def test_a_job_makes_its_call_once() -> None:
    got: list[int] = []
    job = CallJob(None, got.append, (1,))
    assert job.is_due and job.died(("end",))
    for _ in range(2):
        job.run()
    assert got == [1] and not job.is_due and not job.died(("end",))


def test_a_dropped_job_makes_no_call() -> None:
    got: list[int] = []
    job = CallJob(None, got.append, (1,))
    job.drop()
    job.run()
    assert got == [] and not job.is_due and job.args == ()


def test_a_job_that_raises_is_not_run_again() -> None:
    job = CallJob(None, [].remove, (1,))
    with pytest.raises(ValueError, match="not in list"):
        job.run()
    assert not job.is_due


def test_what_comes_before_a_last_action_is_done_until_it_has_completed(node: LocalNode) -> None:
    got: list[object] = []

    def before() -> None:
        got.append("before")
        if len(got) < 3:
            raise MemoryError

    job = LastAction(CallJob(None, got.append, ("action",)), before)
    node.scheduler.enqueue_job(job)
    settle(node)
    assert got == ["before", "before", "before", "action"] and not job.is_due
    job.run()
    assert len(got) == 4


def test_a_job_of_no_kind_of_its_own_is_never_due() -> None:
    assert not Job(None).is_due


def test_jobs_run_in_order_and_those_queued_first_come_before_all(node: LocalNode) -> None:
    got: list[int] = []
    jobs = [CallJob(None, got.append, (number,)) for number in range(5)]
    for job in jobs[2:]:
        node.scheduler.enqueue_job(job)
    node.scheduler.enqueue_first(jobs[:2])
    settle(node)
    assert got == [0, 1, 2, 3, 4]


def test_a_job_runs_in_its_ports_context_and_kills_that_port_if_it_raises(node: LocalNode) -> None:
    port, deaths, seen = node.port(), [], []  # type: ignore[var-annotated]
    node.mon(port, lambda *reason: deaths.append(reason))
    entry = ports_of(node)[port]
    node.scheduler.enqueue_job(CallJob(entry, lambda: seen.append(current_port()), ()))
    node.scheduler.enqueue_job(CallJob(entry, [].remove, (1,)))
    settle(node)
    assert seen == [entry]
    assert [reason[0] for reason in deaths] == ["die"]
