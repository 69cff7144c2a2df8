# SPDX-License-Identifier: MIT
"""A port's data: its mailboxes and its state."""

from __future__ import annotations

from collections import deque
from contextvars import copy_context

import pytest

from aemp_gevent.ports.port import DEAD, IDLE, NOWHERE, QUEUED, RUNNING, BoundedMailbox, ContextPort, Port
from aemp_gevent.ports.scheduler import Scheduler


@pytest.fixture
def port() -> Port:
    scheduler = Scheduler()
    return Port("node#p", scheduler, scheduler.discard)


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


def test_what_is_sent_nowhere_is_gone():
    NOWHERE.append(("x",))
    assert len(NOWHERE) == 0


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


def test_a_bounded_mailbox_overflows_instead_of_growing(port):
    overflows: list[bool] = []
    mailbox = port.inbox = port.mailbox = BoundedMailbox(port, 2, lambda: overflows.append(True))
    mailbox.append((1,))
    mailbox.append((2,))
    assert overflows == []
    mailbox.append((3,))
    assert overflows == [True]
    assert list(mailbox) == [(1,), (2,)]
    mailbox.popleft()
    mailbox.append((4,))
    assert overflows == [True]
    assert list(mailbox) == [(2,), (4,)]


def test_a_diverted_bounded_mailbox_stays_bounded(port):
    overflows: list[bool] = []
    before = port.inbox = port.mailbox = BoundedMailbox(port, 2, lambda: overflows.append(True))
    before.append((1,))
    port.divert_inbox()
    before.append((2,))  # as a thread does that was about to when the inbox was diverted
    port.mailbox.append((3,))
    assert overflows == [True]
    assert list(port.mailbox) == [(1,), (2,)]


@pytest.mark.parametrize(("state", "word"), [(IDLE, "idle"), (QUEUED, "queued"), (RUNNING, "running"), (DEAD, "dead")])
def test_a_port_prints_its_id_and_state(port, state, word):
    port.state = state
    assert repr(port) == f"<Port node#p {word}>"


def test_only_ports_with_a_context_of_their_own_pay_for_it():
    scheduler = Scheduler()
    context = copy_context()
    port = ContextPort("node#p", scheduler, scheduler.discard, context)
    assert port.context is context
    assert not hasattr(Port("node#q", scheduler, scheduler.discard), "__dict__")


def test_the_mailbox_is_a_plain_deque_unless_it_is_bounded(port):
    port.mailbox.append((1,))
    assert type(port.mailbox) is deque
