# SPDX-License-Identifier: MIT
"""Semaphores with a port: a holder that dies has released it, and none is ever lost."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack

import gevent
import pytest
from gevent.lock import Semaphore

from aemp_gevent.errors import PortDied
from aemp_gevent.node.node import Node
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from aemp_gevent.toolkit import PortSemaphore, RemoteSemaphore
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, settled_tables, tables


@pytest.fixture(params=["here", "there"])
def nodes(request: pytest.FixtureRequest, make_node: MakeNode) -> tuple[Node, Node]:
    owner = make_node()
    return owner, owner if request.param == "here" else make_node()


@pytest.fixture
def semaphore(nodes: tuple[Node, Node]) -> PortSemaphore:
    return PortSemaphore(2, node=nodes[0])


@pytest.fixture
def remote(nodes: tuple[Node, Node], semaphore: PortSemaphore) -> RemoteSemaphore:
    return RemoteSemaphore(semaphore, node=nodes[1])


def test_it_is_a_semaphore_of_gevents_for_all_together(semaphore, remote):
    assert isinstance(semaphore, Semaphore)
    assert str(semaphore) == str(remote) == semaphore.port
    with remote:
        assert (remote.counter, remote.locked()) == (1, False)
        semaphore.acquire()
        assert remote.locked()
        assert remote.acquire(blocking=False) is False
        assert remote.acquire(timeout=0.02) is False
        semaphore.release()
        assert remote.acquire(timeout=WAIT) is True
        remote.release()
    wait_until(lambda: semaphore.counter == 2)
    with pytest.raises(ValueError, match="is not held"):
        remote.release()


def test_acquire_waits_for_a_release_wherever_it_is_made(semaphore, remote):
    for release in (semaphore.release, remote.release):
        held = [semaphore.acquire() if release == semaphore.release else remote.acquire() for _ in range(2)]
        waiter = gevent.spawn(remote.acquire, timeout=WAIT)
        wait_until(semaphore.linkcount)
        release()
        assert waiter.get(timeout=WAIT) is True
        for _ in held[1:]:
            release()
        remote.release()
        wait_until(lambda: semaphore.counter == 2)


@pytest.mark.parametrize("end", ["return", "kill", "error"])
def test_the_death_of_the_port_that_holds_it_releases_it(nodes, semaphore, remote, end, caplog):
    held = []

    def holder() -> None:
        remote.acquire()
        remote.acquire()
        held.append(SELF())
        receive("go")
        if end == "error":
            raise ValueError

    port = nodes[1].port_async(holder)
    wait_until(lambda: held)
    assert semaphore.counter == 0
    if end == "kill":
        nodes[1].kil(port)
    else:
        nodes[1].snd(port, "go")
    wait_until(lambda: semaphore.counter == 2)
    with pytest.raises(ValueError, match="its holder has died"):
        remote.release()


def test_who_releases_it_releases_what_it_acquired_itself(nodes, semaphore, remote):
    """Several ports share the object: what each holds is released by its own death still."""
    node = nodes[1]

    def holder(wait: str) -> None:
        remote.acquire()
        told.append(SELF())
        receive(wait)
        remote.release()
        told.append(SELF())
        receive("end")

    told: list[str | None] = []
    first = node.port_async(holder, "release")
    wait_until(lambda: told == [first])
    second = node.port_async(holder, "never")
    wait_until(lambda: told == [first, second])
    node.snd(first, "release")
    wait_until(lambda: told == [first, second, first])
    wait_until(lambda: semaphore.counter == 1)
    node.kil(second)
    wait_until(lambda: semaphore.counter == 2)
    with pytest.raises(ValueError, match="is not held"):
        remote.release()
    node.kil(first)


@pytest.mark.slow
def test_the_end_of_the_process_that_holds_it_releases_it(make_node, node_process):
    from aemp_gevent.testing import SECRET

    node = make_node(secret=SECRET)
    semaphore = PortSemaphore(1, node=node)
    holder = node_process()
    holder.run(
        f"""
        from aemp_gevent.toolkit import RemoteSemaphore
        assert RemoteSemaphore({semaphore.port!r}).acquire(timeout=10)
        """
    )
    assert semaphore.counter == 0
    holder.kill()
    assert semaphore.acquire(timeout=WAIT)


def test_who_waits_hears_of_its_end(nodes, semaphore, remote):
    remote.acquire()
    remote.acquire()
    waiter = gevent.spawn(remote.acquire)
    wait_until(semaphore.linkcount)
    semaphore.close()
    with pytest.raises(PortDied):
        waiter.get(timeout=WAIT)
    for _ in range(2):
        remote.release()


@pytest.mark.slow
def test_none_is_lost_however_those_who_acquire_give_up(nodes, semaphore, remote):
    rng = random.Random(7)
    assert remote.counter == 2
    before = settled_tables(*nodes)
    inside = most = 0

    def work(seconds: float) -> None:
        nonlocal inside, most
        mine = RemoteSemaphore(semaphore, node=nodes[1])
        if mine.acquire(timeout=seconds):
            try:
                inside += 1
                most = max(most, inside)
                gevent.sleep(rng.choice((0, 0.001)))
            finally:
                inside -= 1
                mine.release()

    workers = []
    for _ in range(300):
        workers.append(gevent.spawn(work, rng.choice((0.0005, 0.001, 0.002, 0.1))))
        gevent.sleep(rng.choice((0, 0, 0.0005)))
        gevent.kill(rng.choice(workers[-20:]))
    gevent.joinall(workers, timeout=WAIT)
    wait_until(lambda: semaphore.counter == 2, show=lambda: semaphore.counter)
    wait_until(lambda: tables(*nodes) == before, show=lambda: (tables(*nodes), before))
    assert most <= 2


def test_no_time_is_a_look_and_what_is_free_is_taken(semaphore, remote):
    assert remote.acquire(timeout=0) is True
    assert remote.wait(timeout=0) == 1
    assert semaphore.acquire(timeout=0) is True
    assert remote.acquire(timeout=0) is False
    assert (remote.wait(timeout=0), remote.ready()) == (0, False)
    remote.release()
    assert remote.wait(timeout=WAIT) == 1


def test_a_timeout_of_gevents_ends_a_wait_and_one_of_somebody_else_passes(nodes, semaphore, remote):
    remote.locked()
    semaphore.acquire()
    semaphore.acquire()
    before = settled_tables(*nodes)
    assert remote.acquire(timeout=gevent.Timeout(0.02)) is False
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
        remote.acquire(timeout=gevent.Timeout(WAIT))
    with pytest.raises(LookupError):
        remote.acquire(timeout=gevent.Timeout(0.02, LookupError))
    for timeout in (float("nan"), "3"):
        with pytest.raises((TypeError, ValueError), match="acquire"):
            remote.acquire(timeout=timeout)
    wait_until(lambda: tables(*nodes) == before)


def test_gevent_waits_until_it_can_be_acquired(nodes, semaphore, remote):
    assert gevent.wait([remote], timeout=WAIT) == [remote]
    before = settled_tables(*nodes)
    semaphore.acquire()
    semaphore.acquire()
    waiter = gevent.spawn(gevent.wait, [remote], timeout=WAIT)
    wait_until(lambda: semaphore._object_port.waiters)
    semaphore.release()
    assert waiter.get(timeout=WAIT) == [remote]
    assert semaphore.counter == 1, "it took nothing"
    wait_until(lambda: tables(*nodes) == before)


def test_a_newcomer_does_not_overtake_who_waits(nodes):
    """One that releases and acquires in a loop would keep the others from it forever."""
    owner, user = nodes
    semaphore = PortSemaphore(1, node=owner)
    semaphore.acquire()
    waiter = gevent.spawn(RemoteSemaphore(semaphore, node=user).acquire, timeout=WAIT)
    wait_until(lambda: semaphore._object_port.waiting == 1)
    answers: list[tuple[int]] = []
    lease = owner.port()
    semaphore.release()  # waiters are woken in a later turn of the loop
    semaphore._acquire_now_for(lease, owner.port(lambda *answer: answers.append(answer)))
    semaphore._acquire_for(lease, owner.port(lambda *answer: answers.append(answer)))
    assert waiter.get(timeout=WAIT) is True
    wait_until(lambda: semaphore._object_port.waiting == 1)
    assert answers == [(0,)]
    semaphore.release()
    wait_until(lambda: answers == [(0,), (1,)])
    owner.kil(lease)


def test_a_block_in_a_generator_releases_its_own_lease_when_another_greenlet_closes_it(nodes, semaphore, remote):
    def held() -> Iterator[None]:
        with nodes[1].attach(), remote:
            yield

    def close(generator: Iterator[None]) -> int:
        with nodes[1].attach(), remote:
            generator.close()  # type: ignore[attr-defined]
            wait_until(lambda: semaphore.counter == 1)
            (lease,) = remote._leases
            assert lease.holder == SELF(), "it released what the closing greenlet holds"
            return remote.counter

    generator = held()
    next(generator)
    assert gevent.spawn(close, generator).get(timeout=WAIT) == 1
    wait_until(lambda: semaphore.counter == 2)
    assert not remote._blocks


def test_a_block_whose_lease_was_released_by_a_death_releases_no_other(nodes, semaphore, remote):
    remote.acquire()
    with pytest.raises(KeyError), nodes[1].attach() as port, remote:  # what happens meanwhile
        nodes[1].kil(port, "enough")
        wait_until(lambda: semaphore.counter == 1)
        raise KeyError
    assert len(remote._leases) == 1
    remote.release()
    with ExitStack() as stack:
        stack.enter_context(remote)
        wait_until(lambda: semaphore.counter == 1)
    wait_until(lambda: semaphore.counter == 2)
    assert not remote._blocks
