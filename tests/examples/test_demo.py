# SPDX-License-Identifier: MIT
"""``make demo``: its transcript, its totals, its exit codes, and that it leaves no process behind."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from time import monotonic, sleep

import pytest

from tests.support import preloaded

from .conftest import EXAMPLES

pytestmark = pytest.mark.slow

README = EXAMPLES.parent / "README.md"
LINE = re.compile(r"^ *([0-9]+\.[0-9]{3}) s  (demo|server|anna|ben|cleo) +(.+)$", re.MULTILINE)


def count_words(text: str) -> Counter[str]:
    """Count without regular expressions: independent of the demo."""
    return Counter("".join(char if char.isalnum() or char == "_" else " " for char in text).lower().split())


def assert_totals(output: str, words: Counter[str]) -> None:
    table = output.partition("The words of")[2]
    totals = {word: int(count) for count, word in re.findall(r"^ +([0-9]+)  (\w+)$", table, re.MULTILINE)}
    assert len(totals) == min(10, len(words))
    assert totals == {word: words[word] for word in totals}
    assert sorted(totals.values(), reverse=True) == [count for _, count in words.most_common(10)]
    assert f" {words.total()}  in total\n" in table


def wait_for_end(pids: list[int]) -> None:
    """Wait until none of these processes is there any more."""
    deadline = monotonic() + 10
    for pid in pids:
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                break
            assert monotonic() < deadline, f"process {pid} is left over"
            sleep(0.01)  # not our child: its end can only be polled for


def test_the_demo_shows_and_checks_it_all(start, tmp_path):
    demo = start("demo.py", cwd=tmp_path, secret=None)
    assert demo.wait() == 0, demo.output
    lines = [(float(when), who, what) for when, who, what in LINE.findall(demo.output)]
    assert lines == sorted(lines, key=lambda line: line[0]), "not in the order of time"
    assert {who for _, who, _ in lines} == {"demo", "server", "anna", "ben", "cleo"}
    deaths = sorted((who, what.partition("monitor fired: ")[2]) for _, who, what in lines if "monitor fired" in what)
    nodes = {who: what.split()[2] for _, who, what in lines if what.startswith("is node ")}
    killed = f"anna died, ('transport_error', '{nodes['anna']}', "
    failed = "cleo died, ('die', 'ZeroDivisionError: division by zero')"
    assert [who for who, what in deaths if what.startswith(killed)] == ["ben", "cleo", "server"]
    assert [who for who, what in deaths if what == failed] == ["ben", "server"]
    assert ("server", "ben died, a normal death") in deaths
    for sample in ("say None", "[True, False]", "18446744073709551615", "-9223372036854775808", "世界", r"b'\x00\xff"):
        assert len([1 for _, _, what in lines if " say " in what and sample in what]) == 2, f"{sample} was not heard"
    assert "demo: " not in demo.output
    assert "Traceback" not in demo.output
    assert_totals(demo.output, count_words(README.read_text()))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"one two two\nthree three three\n", id="few"),
        pytest.param(b"", id="empty"),
        pytest.param(b"no newline", id="no-newline"),
        pytest.param("Élan élan ΣΊΣΥΦΟΣ naïve_x 世界\r\n".encode() * 1000, id="unicode-crlf"),
        pytest.param(b"\xff\xfe broken \x00 utf8\n" * 100, id="not-utf8"),
    ],
)
def test_the_words_of_any_file_are_counted(start, tmp_path, content):
    file = tmp_path / "some text.txt"
    file.write_bytes(content)
    demo = start("demo.py", "--input", "some text.txt", cwd=tmp_path)
    assert demo.wait() == 0, demo.output
    assert_totals(demo.output, count_words(file.read_text(encoding="utf-8", errors="replace")))


@pytest.mark.parametrize("name", ["missing", "."])
def test_an_unreadable_input_is_reported_in_one_line(start, tmp_path, name):
    demo = start("demo.py", "--input", name, cwd=tmp_path)
    assert demo.wait() == 2
    assert len(demo.output.splitlines()) == 1
    assert demo.output.startswith(f"demo: cannot read {tmp_path}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process_behind(start, number):
    demo = start("demo.py")
    demo.expect("starts cleo")
    demo.signal(number)
    assert demo.wait() == (1 if number == signal.SIGINT else -number)
    if number == signal.SIGINT:
        assert demo.output.endswith("demo: failed: interrupted\n")
    wait_for_end([int(pid) for pid in re.findall(r"starts \w+, process (\d+)", demo.output)])


def test_a_client_that_is_missing_makes_the_demo_fail(start):
    demo = start("demo.py")
    os.kill(int(demo.expect("starts ben, process ")), signal.SIGKILL)
    assert demo.wait() == 1
    assert "demo: failed: ben ended with exit code -9\n" in demo.output
    wait_for_end([int(pid) for pid in re.findall(r"starts \w+, process (\d+)", demo.output)])


def test_the_demo_runs_where_the_terminal_knows_only_ascii():
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = preloaded.run(
        [sys.executable, str(EXAMPLES / "demo.py")], env=environ, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u4e16\u754c" in done.stdout
