# SPDX-License-Identifier: MIT
"""Warnings about others are bounded, and the number of omitted ones is logged."""

from __future__ import annotations

import logging

import pytest

from aemp_gevent.runtime import bounded_log as complaints
from aemp_gevent.runtime.bounded_log import ALL_PEERS, MAX_LINES, MAX_PLACES, BoundedLog, ErrorLog


def test_only_so_many_lines_a_minute_and_then_how_many_more(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(complaints, "monotonic", lambda: now)
    lines: list[str] = []
    about = BoundedLog(lambda _level, text, *args, exc_info=None: lines.append(text % args), "somebody")
    for number in range(MAX_LINES + 50):
        about.warn("fault %d", number)
    assert lines[:MAX_LINES] == [f"fault {number}" for number in range(MAX_LINES)]
    assert lines[MAX_LINES:] == ["too many log lines about somebody: the next ones are only counted"]
    now += 61
    lines.clear()
    about.warn("fault %s", "again")
    assert lines == ["50 more log lines about somebody were left out", "fault again"]
    now += 61
    lines.clear()
    about.warn("fault %s", "at last")
    assert lines == ["fault at last"]


def test_peers_share_what_may_be_logged_about_all_of_them() -> None:
    lines: list[str] = []
    everybody = BoundedLog(lambda _level, text, *args, exc_info=None: lines.append(text % args), "all", ALL_PEERS)
    for peer in range(2 * ALL_PEERS):
        about = BoundedLog(everybody.log, f"peer {peer}")
        for number in range(MAX_LINES + 5):
            about.warn("fault %d of %d", number, peer)
    assert len(lines) == ALL_PEERS * MAX_LINES + 1
    assert lines[MAX_LINES] == "too many log lines about peer 0: the next ones are only counted"
    assert lines[-1] == "too many log lines about all: the next ones are only counted"


def test_each_level_has_its_own_lines() -> None:
    lines: list[tuple[int, str]] = []
    about = BoundedLog(lambda level, text, *args, exc_info=None: lines.append((level, text % args)), "somebody")
    for _ in range(MAX_LINES + 5):
        about.log(logging.WARNING, "fault")
    about.log(logging.ERROR, "disaster")
    assert lines[-1] == (logging.ERROR, "disaster")


def test_lines_below_the_log_level_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []
    about = BoundedLog(lambda _level, text, *args, exc_info=None: lines.append(text % args), "somebody")
    caplog.set_level(logging.INFO, "aemp_gevent")
    for _ in range(MAX_LINES + 5):
        about.log(logging.DEBUG, "detail")
    assert lines == []


def raised_by(function: object) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()  # type: ignore[operator]
    return caught.value


def test_exceptions_are_counted_by_the_place_that_raised() -> None:
    lines: list[str] = []
    failures = ErrorLog(lambda _level, text, *args, exc_info=None: lines.append(text % args))
    for number in range(MAX_LINES + 5):
        failures.log(raised_by(lambda: 1 / 0), "first %d", number)
    failures.log(raised_by(lambda: 1 / 0), "second")
    failures.log(ValueError("raised by nobody"), "third")
    assert lines[MAX_LINES - 1] == f"first {MAX_LINES - 1}"
    assert lines[MAX_LINES].startswith("too many log lines about ZeroDivisionError in ")
    assert lines[MAX_LINES + 1 :] == ["second", "third"]


def test_places_that_raised_are_not_remembered_without_end() -> None:
    failures = ErrorLog(lambda _level, text, *args, exc_info=None: None)
    for number in range(MAX_PLACES + 5):
        failures.log(type(f"Error{number}", (Exception,), {})(), "fault")
    assert len(failures._places) <= MAX_PLACES
