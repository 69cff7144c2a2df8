# SPDX-License-Identifier: MIT
"""``aemp top``: its figures, and what is on the screen of a terminal."""

from __future__ import annotations

import json
import os
import signal
import termios

import pytest

from aemp_gevent.cli.top import Sample, draw, rate
from tests.cli.networks import PATIENCE, Network
from tests.cli.screens import LINES, terminal
from tests.support.helpers import wait_until

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("now", "before", "passed", "wanted"),
    [
        pytest.param(30, 10, 2.0, 10.0, id="more"),
        pytest.param(10, 10, 2.0, 0.0, id="none"),
        pytest.param(6, 100, 2.0, 3.0, id="begun-again"),
        pytest.param(6, None, 2.0, None, id="first-look"),
        pytest.param(None, 5, 2.0, None, id="not-counted"),
        pytest.param(6, 5, 0.0, None, id="no-time"),
    ],
)
def test_rates(now: int | None, before: int | None, passed: float, wanted: float | None) -> None:
    assert rate(now, before, passed) == wanted


def node_row(name: str, **others: object) -> dict[str, object]:
    row = dict.fromkeys(("in_rate", "out_rate", "lag", "worst_lag", "cpu_rate", "memory"), None)
    return {"node": name, "error": "", **row, "links": 1, "unsent": 0, "ports": 1, "messages": 0, "deepest": 0} | {
        "blocked": 0,
        "seconds": 61,
        **others,
    }


def shown(sample: Sample, view: str, height: int | None = None) -> list[str]:
    from rich.console import Console

    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(draw(sample, view, height))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_table_has_no_more_rows_than_have_room_and_shows_no_tricks() -> None:
    sample = Sample(nodes=[node_row(f"n{number}\x1b[2J", in_rate=1234.5) for number in range(50)])
    lines = shown(sample, "nodes", 10)
    assert len(lines) == 10
    assert lines[1].split()[:3] == ["n0\\x1b[2J", "1", "1,234"]
    assert lines[1].split()[-2:] == ["1m", "1s"]


def test_nodes_that_tell_nothing_are_shown_with_the_reason() -> None:
    sample = Sample(nodes=[node_row("a"), {"node": "b", "error": "does not answer"}])
    assert shown(sample, "nodes")[2] == "b: does not answer"


def test_busiest_links_come_first() -> None:
    links = [
        {"node": str(number), "peer": "x", "in_rate": rate, "out_rate": 0.0, "unsent": 0, "round_trip": 0.001}
        for number, rate in enumerate((5.0, None, 70.0))
    ]
    assert [line.split()[0] for line in shown(Sample(links=links), "links")] == ["node", "2", "0", "1"]


@slow
def test_one_look_is_printed_without_a_terminal(network: Network) -> None:
    lines = network.aemp("top", "--interval", "0.2").stdout.splitlines()
    assert " ".join(lines[0].split()) == "node links in/s out/s unsent ports mailboxes deepest lag ms cpu % mem MB up"
    assert {line.split()[0] for line in lines[1:]} == set(network.nodes)
    ports = network.aemp("top", "--once", "--interval", "0.2", "--view", "ports").stdout
    assert " orders " in ports
    found = json.loads(network.aemp("top", "--interval", "0.2", "--json").stdout)
    assert {row["node"] for row in found["nodes"]} == set(network.nodes)
    assert all(row["in_rate"] is not None for row in found["nodes"])
    assert {row["peer"] for row in found["links"] if row["node"] == network.hub} == {"backend", network.slave}


@slow
def test_rates_are_those_of_the_messages_that_pass(network: Network) -> None:
    """Ten a second from one node to another, told by both."""
    network.aemp(
        "eval",
        network.hub,
        "import gevent, aemp_gevent as mp\n"
        "def send():\n    while True:\n        gevent.sleep(0.1); mp.snd('backend#orders', 'nothing')\n"
        "import builtins; builtins.sender = gevent.spawn(send)",
    )
    try:
        found = json.loads(network.aemp("top", "--interval", "2", "--json").stdout)
    finally:
        network.aemp("eval", network.hub, "import builtins; builtins.sender.kill()")
    rates = {(row["node"], row["peer"]): row for row in found["links"]}
    assert 0 < rates[network.hub, "backend"]["out_rate"] <= 11
    assert 0 < rates["backend", network.hub]["in_rate"] <= 11
    assert rates["backend", network.hub]["out_rate"] < 3


@slow
def test_screen_shows_nodes_links_and_ports_until_q(network: Network) -> None:
    with terminal(network, "top", "--interval", "0.3") as screen:
        before = termios.tcgetattr(screen.child.child_fd)
        wait_until(lambda: "aemp top" in screen.text, within=PATIENCE, show=screen.lines)
        wait_until(lambda: all(node in screen.text for node in network.nodes), within=PATIENCE, show=screen.lines)
        assert "3 nodes, " in screen.lines()[0]
        assert screen.lines()[1] == "[n] nodes  [l] links  [p] ports  [q] quit"
        wait_until(lambda: "messages/s" in screen.lines()[0], within=PATIENCE, show=screen.lines)
        screen.child.send("l")
        wait_until(lambda: "linked to" in screen.text, within=PATIENCE, show=screen.lines)
        screen.child.send("p")
        wait_until(lambda: " orders " in screen.text, within=PATIENCE, show=screen.lines)
        screen.child.send("n")
        wait_until(lambda: "mailboxes" in screen.text, within=PATIENCE, show=screen.lines)
        first = screen.lines()[0]
        wait_until(lambda: screen.lines()[0] != first, within=PATIENCE, show=screen.lines)  # the clock advances
        screen.child.send("q")
        wait_until(lambda: not screen.child.isalive(), within=PATIENCE, show=screen.lines)
        assert screen.child.exitstatus == 0
        assert before[3] & termios.ECHO


@slow
def test_screen_grows_smaller_with_its_terminal_and_ctrl_c_ends_it(network: Network) -> None:
    with terminal(network, "top", "--interval", "0.2", "--view", "ports") as screen:
        wait_until(lambda: " orders " in screen.text, within=PATIENCE, show=screen.lines)
        assert len([line for line in screen.lines() if line]) <= LINES
        screen.child.setwinsize(5, 60)
        os.kill(screen.child.pid, signal.SIGWINCH)
        wait_until(lambda: screen.lines() and True, within=PATIENCE)
        screen.child.sendintr()
        wait_until(lambda: not screen.child.isalive(), within=PATIENCE, show=screen.lines)
        assert screen.child.exitstatus == 0
