# SPDX-License-Identifier: MIT
"""Inboxes that are bounded, and the mailbox of killed ports. Others: tests/contrib/test_opentelemetry.py."""

from __future__ import annotations

import pytest

from aemp_gevent.ports.inboxes import NOWHERE, BoundedMailbox
from aemp_gevent.ports.port import Port, activate
from aemp_gevent.ports.scheduler import Scheduler


@pytest.fixture
def port() -> Port:
    scheduler = Scheduler()
    return Port("node#p", scheduler.blank, scheduler.discard)


def test_what_is_sent_nowhere_is_gone():
    NOWHERE.append(("x",))
    assert len(NOWHERE) == 0


def test_a_bounded_mailbox_overflows_instead_of_growing(port):
    overflows: list[bool] = []
    mailbox = activate(port).inbox = port.mailbox = BoundedMailbox(port, 2, lambda: overflows.append(True))
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
    before = activate(port).inbox = port.mailbox = BoundedMailbox(port, 2, lambda: overflows.append(True))
    before.append((1,))
    port.divert_inbox()
    before.append((2,))  # as a thread does that was about to when the inbox was diverted
    port.mailbox.append((3,))
    assert overflows == [True]
    assert list(port.mailbox) == [(1,), (2,)]
