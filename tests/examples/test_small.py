# SPDX-License-Identifier: MIT
"""The examples that run by themselves and end: hello, the ring, the workers, the file writer; and every ``--help``."""

from __future__ import annotations

import re
import signal

import pytest

from tests.support.networking import free_address

from .conftest import EXAMPLES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "demo_node.py"))
def test_every_example_explains_itself(start, name):
    program = start(name, "--help")
    assert program.wait() == 0
    assert program.output.startswith(f"usage: {name}")
    assert re.search(r"^options:", program.output, re.MULTILINE)


@pytest.mark.parametrize(
    ("args", "names"),
    [pytest.param([], ["world", "gevent"], id="default"), pytest.param(["Ada", "Zoë"], ["Ada", "Zoë"], id="names")],
)
def test_hello_greets_and_tells_the_greeters_death(start, args, names):
    hello = start("hello.py", *args, secret=None)
    assert hello.wait() == 0
    assert hello.output.splitlines() == [
        *(f"Hello, {name}!" for name in names),
        "The greeter died: nobody left to greet",
    ]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_the_token_makes_every_hop_of_the_ring(start, tmp_path, processes):
    ring = start("ring.py", "--ports", "50", "--rounds", "4", "--processes", str(processes), secret=None, cwd=tmp_path)
    assert ring.wait() == 0, ring.output
    where = "one process" if processes == 1 else f"{processes} processes"
    assert f"50 ports in {where}, 4 rounds:" in ring.output
    assert re.search(r"^200 hops in [0-9.]+ s, [0-9]+ a second$", ring.output, re.MULTILINE)
    assert "Traceback" not in ring.output


def test_an_impossible_ring_is_refused(start):
    ring = start("ring.py", "--ports", "0")
    assert ring.wait() == 2
    assert "numbers from 1 on" in ring.output


def test_workers_are_found_by_their_group(start):
    address = free_address()
    start("workers.py", "serve", address)
    start("workers.py", "serve", "127.0.0.1:0", address)
    asking = start("workers.py", "ask", address)
    assert asking.wait() == 0
    assert asking.output.splitlines() == ["0 0", "1 1"]


def test_worker_ends_on_ctrl_c_without_a_traceback(start):
    worker = start("workers.py", "serve", "127.0.0.1:0")
    worker.expect("ready")
    worker.signal(signal.SIGINT)
    assert worker.wait() == 128 + signal.SIGINT
    assert worker.output.splitlines() == ["ready; Ctrl-C ends it"]


def test_the_file_writer_finishes_each_file_before_it_opens_the_next(start, tmp_path):
    folder = tmp_path / "new" / "folder"
    writer = start("file_writer.py", str(folder), secret=None)
    assert writer.wait() == 0
    for name in ("anna", "ben", "cleo"):
        lines = [f"{name}'s line {number}" for number in ("one", "two", "three")]
        assert (folder / f"{name}.txt").read_text().splitlines() == lines
    assert writer.output.splitlines() == [
        "anna.txt is opened",
        "anna.txt is closed: 3 lines",
        "ben.txt is opened",
        "ben.txt is closed: 3 lines, then its client died (broke the pencil)",
        "cleo.txt is opened",
        "cleo.txt is closed: 3 lines",
        f"All files are in {folder}",
    ]
