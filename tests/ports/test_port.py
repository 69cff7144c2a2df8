# SPDX-License-Identifier: MIT
"""A port's data: its mailbox, its state and its cell."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import copy_context

import pytest
from gevent import get_hub

from aemp_gevent import Node, receive
from aemp_gevent.ports import scheduler as scheduler_module
from aemp_gevent.ports.inboxes import NOWHERE
from aemp_gevent.ports.port import DEAD, IDLE, QUEUED, RUNNING, Cell, ContextPort, Port, activate
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.ports.tap import MailboxTap
from aemp_gevent.testing import wait_until
from tests.support.injecting import CORE, Injector, between_bytecodes
from tests.support.settling import settle


@pytest.fixture
def port() -> Port:
    scheduler = Scheduler()
    return Port("node#p", scheduler.blank, scheduler.discard)


def test_a_new_port_has_no_inbox_is_its_own_mailbox_and_idles(port):
    assert port.inbox is None
    assert port.mailbox is port
    assert port.state == IDLE
    assert port.context is None


def test_the_inbox_is_made_once_by_the_first_message_and_is_what_the_reader_reads(port):
    port.mailbox.append((1,))
    mailbox = port.mailbox
    assert mailbox is port.inbox is not port
    port.append((2,))
    assert port.mailbox is port.inbox is mailbox
    assert list(mailbox) == [(1,), (2,)]


def test_a_first_message_that_comes_after_the_kill_does_not_revive_the_port(port):
    port.mailbox = NOWHERE
    port.append((1,))
    assert port.mailbox is NOWHERE
    assert port.inbox is None


def test_diverting_the_inbox_keeps_messages_in_order_and_takes_them_from_the_reader(port):
    port.mailbox.append((1,))
    port.mailbox.append((2,))
    before = port.inbox
    port.divert_inbox()
    port.mailbox.append((3,))
    assert port.inbox is not None
    assert list(port.inbox) == [(1,), (2,), (3,)]
    assert port.inbox is port.mailbox
    assert not before


def test_diverting_the_inbox_of_a_killed_port_lets_no_more_messages_in(port):
    port.mailbox.append((1,))
    port.mailbox = NOWHERE
    port.divert_inbox()
    assert port.mailbox is NOWHERE
    assert list(port.inbox or ()) == [(1,)]


def test_diverting_where_there_is_no_inbox_does_nothing(port):
    port.divert_inbox()
    assert port.inbox is None
    assert port.mailbox is port


@pytest.mark.parametrize(("state", "word"), [(IDLE, "idle"), (QUEUED, "queued"), (RUNNING, "running"), (DEAD, "dead")])
def test_a_port_prints_its_id_and_state(port, state, word):
    port.state = state
    assert repr(port) == f"<Port node#p {word}>"


def test_only_ports_with_a_context_of_their_own_pay_for_it():
    scheduler = Scheduler()
    context = copy_context()
    port = ContextPort("node#p", scheduler.blank, scheduler.discard, context)
    assert port.context is context
    assert not hasattr(Port("node#q", scheduler.blank, scheduler.discard), "__dict__")


def test_the_mailbox_is_a_plain_deque_unless_it_is_bounded(port):
    port.mailbox.append((1,))
    assert type(port.mailbox) is deque


# --- cells ---


def stored_in(cell: Cell) -> list[object]:
    """Return what a cell has besides the scheduler."""
    return [cell.inbox, cell.handlers, cell.waiter, cell.runner, cell.dying, cell.main]


def used(node: Node) -> dict[str, Callable[[str], object]]:
    """Return ways to use a port for the first time."""
    return {
        "snd": lambda port: node.snd(port, 1),
        "kil": lambda port: node.kil(port, "reason"),
        "kil in another thread": lambda port: get_hub().threadpool.apply(node.kil, (port, "reason")),
        "rcv": lambda port: node.rcv(port, "tag", print),
        "rcv_async": lambda port: node.rcv_async(port, receive),
        "tap": lambda port: MailboxTap(node.scheduler.ports[port], print),
    }


def test_ports_that_were_never_used_share_one_cell_in_which_nothing_is_stored(node: Node) -> None:
    scheduler = node.scheduler
    ports = [scheduler.ports[node.port(print)] for _ in range(2)]
    assert [port.cell for port in ports] == [scheduler.blank] * 2
    assert ports[0].scheduler is scheduler
    assert stored_in(scheduler.blank) == [None] * 6


@pytest.mark.parametrize("how", ["snd", "kil", "kil in another thread", "rcv", "rcv_async", "tap"])
def test_a_port_gets_a_cell_of_its_own_when_it_is_first_used(node: Node, how: str) -> None:
    scheduler = node.scheduler
    used_port, other = (scheduler.ports[node.port()] for _ in range(2))
    used(node)[how](used_port.id)
    wait_until(lambda: used_port.state != QUEUED)
    own = used_port.cell
    assert own is not scheduler.blank and own is activate(used_port) and own.scheduler is scheduler
    assert other.cell is scheduler.blank and stored_in(scheduler.blank) == [None] * 6


def test_a_port_that_is_served_before_its_message_comes_is_served_again(node: Node) -> None:
    got: list[int] = []
    port = node.scheduler.ports[node.port(got.append)]
    node.scheduler.enqueue(port)  # as a thread does that is stopped before it comes to the mailbox
    wait_until(lambda: port.state == IDLE)
    assert port.cell.runner is None and stored_in(node.scheduler.blank) == [None] * 6
    node.snd(port.id, 1)
    wait_until(lambda: got == [1])


def at_each_object_that_is_made(port: Port, call: Callable[[], object], first: Callable[[], object]) -> Iterator[None]:
    """Make ``first`` in a finalizer that runs in the middle of ``call``, at one place after the other."""
    kept = [Port("node#kept", port.cell, port.default) for _ in range(100)]
    for other in kept:
        activate(other)  # so that the next cell is a new object, and not one that was kept for it

    class Finalized:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            first()

    before = gc.get_threshold()
    for place in range(12):
        gc.collect()
        gc.disable()
        try:
            Finalized()
            gc.set_threshold(gc.get_count()[0] + place)
            gc.enable()
            call()
        finally:
            gc.set_threshold(*before)
            gc.enable()
        gc.collect()
        yield


def test_a_finalizer_and_the_code_that_it_interrupts_get_the_same_cell(port: Port) -> None:
    blank, cells = port.cell, []

    def use() -> None:
        cells.append(activate(port))

    for _ in at_each_object_that_is_made(port, use, use):
        assert cells == [port.cell] * 2
        assert port.cell is not blank
        port.cell = blank
        cells.clear()


def test_a_finalizers_message_and_the_first_one_are_both_kept(port: Port) -> None:
    blank = port.cell
    for _ in at_each_object_that_is_made(port, lambda: port.append((1,)), lambda: port.mailbox.append((2,))):
        assert sorted(port.inbox or ()) == [(1,), (2,)]
        port.cell, port.mailbox, port.state = blank, port, IDLE
        port.scheduler.runq.clear()  # type: ignore[attr-defined]  # it is a scheduler


@between_bytecodes
def test_nothing_is_ever_in_the_blank_cell_not_even_for_a_moment(node: Node) -> None:
    scheduler = node.scheduler
    found: list[object] = []

    def look() -> None:
        found.extend(thing for thing in stored_in(scheduler.blank) if thing is not None)

    with Injector(look, lambda _: True, traced=CORE) as injector:
        for use in used(node).values():
            port = node.port(print)
            use(port)
            node.kil(port)
        unused = scheduler.ports[node.port(print)]
        scheduler.enqueue(unused)  # as a thread does that is stopped before it comes to the mailbox
        scheduler.overflow(scheduler.ports[node.port()], 1)
        scheduler.die(scheduler.ports[node.port()], ())
        with node.attach():
            receive(timeout=0, default=None)
        settle(node)
    assert injector.fired > 500
    assert found == []


@between_bytecodes
def test_a_port_whose_cell_could_not_be_made_is_served_later(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[int] = []
    port = node.scheduler.ports[node.port(got.append)]

    def fail(_port: Port) -> Cell:
        monkeypatch.undo()
        raise MemoryError

    monkeypatch.setattr(scheduler_module, "activate", fail)
    node.scheduler.enqueue(port)
    with pytest.raises(MemoryError):
        settle(node)
    node.snd(port.id, 1)
    wait_until(lambda: got == [1])


@between_bytecodes
def test_a_kill_that_comes_while_another_is_made_is_the_first(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[object] = []
    port = node.port()
    node.mon(port, lambda *reason: died.append(reason))
    enqueue = node.scheduler.enqueue

    def interrupted(queued: Port) -> None:
        monkeypatch.undo()
        node.kil(port, "first")
        enqueue(queued)

    monkeypatch.setattr(node.scheduler, "enqueue", interrupted)
    node.kil(port, "second")
    wait_until(lambda: died)
    assert died == [("first",)]
