# SPDX-License-Identifier: MIT
"""Whom the watch of a loop calls, and when. What it logs is tested with the heartbeats."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import FrameType

import gevent
import pytest

from aemp_gevent.runtime import loop_watch
from aemp_gevent.runtime.loop_watch import LoopWatch, place_of
from aemp_gevent.runtime.quoting import escaped
from aemp_gevent.runtime.threads import get_ident
from tests.support.helpers import wait_until
from tests.support.native import sleep


class Notes:
    """An onlooker that notes what it hears, and in which thread."""

    def __init__(self) -> None:
        self.blocked_calls: list[tuple[float, str, int]] = []
        self.running_calls: list[int] = []
        self.errors: list[BaseException] = []

    def blocked(self, seconds: float, where: str) -> None:
        self.blocked_calls.append((seconds, where, get_ident()))

    def running(self) -> None:
        self.running_calls.append(get_ident())
        if self.errors:
            raise self.errors.pop()


@pytest.fixture
def watch() -> Iterator[LoopWatch]:
    found = LoopWatch(gevent.get_hub()).use()
    yield found
    found.release()


@pytest.fixture
def notes(watch: LoopWatch) -> Notes:
    found = Notes()
    watch.add(found)
    return found


@pytest.mark.slow
def test_onlookers_hear_of_a_blocked_loop_in_a_native_thread_and_of_its_end_on_the_hub(
    watch: LoopWatch, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_watch, "BLOCKED_SECONDS", 0.1)
    gevent.sleep(0.3)
    for _ in range(600):
        if notes.blocked_calls:
            break
        sleep(0.05)
    seconds, where, thread = notes.blocked_calls[0]
    assert seconds > 0.1
    assert "test_loop_watch.py:" in where or "native.py:" in where
    assert thread != get_ident()
    assert not notes.running_calls
    wait_until(lambda: notes.running_calls)
    assert set(notes.running_calls) == {get_ident()}


def test_first_look_is_not_reported_and_then_every_fourth(watch: LoopWatch, notes: Notes) -> None:
    """If the whole process stood still, the loop runs before the second look."""
    called = []
    for looks in range(10):
        before = len(notes.blocked_calls)
        assert watch._look(2.0, looks)
        called.append(len(notes.blocked_calls) > before)
    assert [looks for looks, is_called in enumerate(called) if is_called] == [1, 5, 9]


def test_interrupted_report_of_the_end_is_repeated(watch: LoopWatch, notes: Notes) -> None:
    watch._look(2.0, 1)
    notes.errors.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        watch._beat()
    watch._beat()
    assert len(notes.running_calls) == 2
    watch._beat()
    assert len(notes.running_calls) == 2, "it was heard"


def test_removed_onlooker_hears_nothing(watch: LoopWatch, notes: Notes) -> None:
    watch._look(2.0, 1)
    watch.remove(notes)
    watch._look(2.0, 1)
    watch._beat()
    assert len(notes.blocked_calls) == 1
    assert notes.running_calls == []


def test_place_is_short() -> None:
    frame = sys._getframe()
    assert place_of(frame) == f"test_loop_watch.py:{frame.f_lineno} in test_place_is_short"


@pytest.mark.parametrize(
    ("file", "function", "place"),
    [
        pytest.param("f" * 200 + ".py", "work", "…" + "f" * 106 + ".py:1 in work", id="file"),
        pytest.param("module.py", "w" * 200, "module.py:1 in " + "w" * 105, id="function"),
        pytest.param("f" * 200, "w" * 200, "…" + "f" * 19 + ":1 in " + "w" * 94, id="both"),
    ],
)
def test_long_place_keeps_its_line_and_function(file: str, function: str, place: str) -> None:
    names: dict[str, FrameType] = {}
    code = compile("import sys\nframe = sys._getframe()", file, "exec").replace(co_name=function, co_firstlineno=1)
    exec(code, names)
    got = place_of(names["frame"])
    assert got.replace(f":{names['frame'].f_lineno} in", ":1 in") == place
    assert len(got) == 120
    assert escaped(got) == got, "and peers do not cut it again"


@pytest.mark.slow
def test_exception_in_the_thread_ends_neither_it_nor_its_reports(
    watch: LoopWatch, notes: Notes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loop_watch, "BLOCKED_SECONDS", 0.1)
    errors = [MemoryError("full")]
    look = watch._look

    def fail_once(late: float, looks: int) -> bool:
        if errors:
            raise errors.pop()
        return look(late, looks)

    monkeypatch.setattr(watch, "_look", fail_once)
    for _ in range(600):
        if notes.blocked_calls:
            break
        sleep(0.05)
    assert notes.blocked_calls
    wait_until(lambda: "the watch of the event loop failed while it was blocked: MemoryError('full')" in caplog.text)


def test_trouble_is_logged_where_handlers_may_block(watch: LoopWatch) -> None:
    lines: list[str] = []

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            gevent.sleep(0)
            lines.append(record.getMessage())

    handler = Slow()
    logging.getLogger("aemp_gevent").addHandler(handler)
    try:
        watch._trouble = "MemoryError()"
        wait_until(lambda: lines == ["the watch of the event loop failed while it was blocked: MemoryError()"])
    finally:
        logging.getLogger("aemp_gevent").removeHandler(handler)
