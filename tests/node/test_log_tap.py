# SPDX-License-Identifier: MIT
"""The tap of the process's loggers: which records it takes, and that it leaves the program's logging as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from aemp_gevent.node.log_tap import LogTap
from tests.support.networking import line_of, process

LIBRARY = logging.getLogger("aemp_gevent")
PROGRAM = logging.getLogger("a.program.of.the.tests")


class Catcher:
    """Keeps the texts of the records that it gets."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def take(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def tap() -> Iterator[LogTap]:
    """A tap of its own, which must leave the loggers as they were."""
    before = [(logger.level, list(logger.filters), list(logger.handlers)) for logger in (LIBRARY, logging.getLogger())]
    yield LogTap()
    after = [(logger.level, list(logger.filters), list(logger.handlers)) for logger in (LIBRARY, logging.getLogger())]
    assert after == before


def test_catcher_gets_records_of_its_level_and_above(tap: LogTap) -> None:
    low, high = Catcher(), Catcher()
    tap.set(low, logging.WARNING)
    tap.set(high, logging.ERROR)
    LIBRARY.warning("a warning")
    PROGRAM.error("an error")
    tap.set(low, None)
    PROGRAM.error("another error")
    tap.set(high, None)
    PROGRAM.error("a last error")
    assert low.texts == ["a warning", "an error"]
    assert high.texts == ["an error", "another error"]


def test_debug_records_of_the_library_are_taken_and_not_shown_to_the_program(
    tap: LogTap, caplog: pytest.LogCaptureFixture
) -> None:
    catcher = Catcher()
    tap.set(catcher, logging.DEBUG)
    LIBRARY.debug("a detail")
    LIBRARY.warning("for all")
    tap.set(catcher, None)
    assert catcher.texts == ["a detail", "for all"]
    assert caplog.messages == ["for all"]
    assert not LIBRARY.isEnabledFor(logging.DEBUG)


def test_levels_of_the_programs_loggers_are_not_changed(tap: LogTap) -> None:
    catcher = Catcher()
    tap.set(catcher, logging.DEBUG)
    PROGRAM.info("a detail of the program")
    tap.set(catcher, None)
    assert catcher.texts == []


def test_level_that_the_program_sets_meanwhile_stays(tap: LogTap) -> None:
    catcher, before = Catcher(), LIBRARY.level
    tap.set(catcher, logging.DEBUG)
    LIBRARY.setLevel(logging.ERROR)
    tap.set(catcher, None)
    assert LIBRARY.level == logging.ERROR
    LIBRARY.setLevel(before)


@pytest.mark.slow
def test_program_without_log_handlers_still_prints_its_warnings() -> None:
    """Python prints them only if there are no handlers, and the tap must not count as one."""
    program = """
import logging, sys, gevent, aemp_gevent as mp
sys.stderr = sys.stdout
mp.initialise_node("127.0.0.1:0", secret="x")
got = []
port = mp.port(lambda *message: got.append(message))
mp.snd(mp.NODE(), "log", "warning", port)
while not got:
    gevent.sleep(0.01)
logging.getLogger("x").warning("of the program")
logging.getLogger("aemp_gevent").warning("of the library")
logging.getLogger("aemp_gevent").info("too low")
while len(got) < 3:
    gevent.sleep(0.01)
print("sent")
"""
    with process(program) as child:
        assert [line_of(child) for _ in range(3)] == ["of the program", "of the library", "sent"]
