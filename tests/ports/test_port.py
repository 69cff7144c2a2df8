# SPDX-License-Identifier: MIT
"""A port's data: its mailbox, its state and its cell."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import copy_context

import pytest
from gevent import get_hub

from aemp_gevent import Node, receive
from aemp_gevent.ports.inboxes import NOWHERE
from aemp_gevent.ports.port import DEAD, IDLE, QUEUED, RUNNING, Cell, ContextPort, Port, activate
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.ports.tap import MailboxTap
from aemp_gevent.testing import wait_until


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
