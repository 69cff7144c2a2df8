# SPDX-License-Identifier: MIT
"""Every step of *Migrate a service* is a program that works, and prints the same."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import preloaded

ROOT = Path(__file__).parents[2]
HOWTO = ROOT / "docs" / "howto"
PROGRAMS = HOWTO / "invoicing"
PAGE = (HOWTO / "migrate-a-service.md").read_text()
OUTPUT = re.search(r"```text\n(ada owes.*?)```", PAGE, re.DOTALL).group(1)

pytestmark = pytest.mark.slow

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program; it is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, *args: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = preloaded.Popen(
            [sys.executable, PROGRAMS / program, *args], stdout=subprocess.PIPE, text=True, env=env
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("step", range(4))
def test_each_step_prints_the_same(start, step):
    process = start(f"step{step}.py")
    assert process.communicate(timeout=60)[0] == OUTPUT
    assert process.returncode == 0


@pytest.mark.parametrize("killed", [False, True])
def test_the_last_step_prints_it_too_and_survives_the_death_of_a_node(start, killed):
    pricers = [start("pricer.py") for _ in range(2)]
    service = line(start("service.py", *map(line, pricers)))
    customers = [
        start("customer.py", service, "ada", "pen=1", "ink=2"),
        start("customer.py", service, "bob", "paper=10", "pen=3,ink=1"),
    ]
    if killed:
        pricers[0].kill()
    assert [customer.wait(timeout=60) for customer in customers] == [0, 0]
    assert start("closing.py", service).communicate(timeout=60)[0] == OUTPUT


def test_the_page_shows_every_program():
    shown = set(re.findall(r"literalinclude\} invoicing/(\w+\.py)", PAGE))
    assert shown == {program.name for program in PROGRAMS.glob("*.py")}
    assert len((PROGRAMS / "step0.py").read_text().splitlines()) == 60
