# SPDX-License-Identifier: MIT
"""The order in which the master reads."""

from __future__ import annotations

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemp_gevent.contrib.locust_rpc.inbox import PacedInbox


def test_change_comes_after_what_came_before_it_and_while_the_former_one_was_handled() -> None:
    inbox: PacedInbox[str] = PacedInbox()
    inbox.put("report 1")
    inbox.put("change 1", is_change=True)
    inbox.put("change 2", is_change=True)
    inbox.put("report 2")
    assert [inbox.get() for _ in range(2)] == ["report 1", "change 1"]
    inbox.put("report 3")
    assert [inbox.get() for _ in range(3)] == ["report 2", "report 3", "change 2"]
    assert not len(inbox)


@given(st.lists(st.sampled_from(["report", "change", "read"])))
def test_everything_is_read_once_in_the_order_of_its_kind_and_no_report_by_a_later_change(steps: list[str]) -> None:
    inbox: PacedInbox[tuple[str, int]] = PacedInbox()
    put: list[tuple[str, int]] = []
    read: list[tuple[str, int]] = []
    for number, step in enumerate(steps):
        if step == "read":
            if len(inbox):
                read.append(inbox.get())
            continue
        put.append((step, number))
        inbox.put(put[-1], is_change=step == "change")
    read += [inbox.get() for _ in range(len(inbox))]
    for kind in ("report", "change"):
        assert [item for item in read if item[0] == kind] == [item for item in put if item[0] == kind]
    for place, (kind, number) in enumerate(read):
        if kind == "change":
            assert not [later for later, sent in read[place:] if later == "report" and sent < number]


@pytest.mark.parametrize("is_change", [False, True])
def test_reader_waits_for_the_first_item(is_change: bool) -> None:
    inbox: PacedInbox[str] = PacedInbox()
    reader = gevent.spawn(inbox.get)
    gevent.idle()
    inbox.put("it", is_change=is_change)
    assert reader.get(timeout=10) == "it"
