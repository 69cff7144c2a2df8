# SPDX-License-Identifier: MIT
"""Warnings about others are bounded, and what is left out is told by number."""

from __future__ import annotations

import pytest

from aemp_gevent import complaints
from aemp_gevent.complaints import MAX_LINES, Complaints


def test_only_so_many_lines_a_minute_and_then_how_many_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(complaints, "monotonic", lambda: now)
    lines: list[str] = []
    about = Complaints(lambda _level, text, *args: lines.append(text % args), "somebody")
    for number in range(MAX_LINES + 50):
        about.warn("fault %d", number)
    assert lines[:MAX_LINES] == [f"fault {number}" for number in range(MAX_LINES)]
    assert lines[MAX_LINES:] == ["too many warnings about somebody: the next ones are only counted"]
    now += 61
    lines.clear()
    about.warn("fault %s", "again")
    assert lines == ["50 more warnings about somebody were left out", "fault again"]
    now += 61
    lines.clear()
    about.warn("fault %s", "at last")
    assert lines == ["fault at last"]
