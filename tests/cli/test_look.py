# SPDX-License-Identifier: MIT
"""``aemp nodes``, ``ports``, ``groups``, ``trace``, ``ping``, ``bench`` and ``log`` against nodes that run."""

from __future__ import annotations

import contextlib
import json
import re
import select
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.helpers import AEMP
from tests.cli.networks import PATIENCE, Network
from tests.cli.screens import terminal
from tests.support import preloaded
from tests.support.helpers import wait_until

slow = pytest.mark.slow


@contextmanager
def following(network: Network, *args: str) -> Iterator[tuple[subprocess.Popen[str], Path, Path]]:
    """A command that keeps running; its output and its errors are in files."""
    out, err = network.home / "out.txt", network.home / "err.txt"
    with out.open("w") as stdout, err.open("w") as stderr:
        process = preloaded.Popen(
            [*AEMP, *args], env=network.environment(), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, text=True
        )
        try:
            yield process, out, err
        finally:
            process.kill()
            process.wait()


def seen_in(path: Path, text: str) -> None:
    wait_until(lambda: text in path.read_text(), within=PATIENCE, show=path.read_text)


def rows(network: Network, *args: str) -> Any:
    return json.loads(network.aemp(*args, "--json").stdout)


# --- nodes and ports -----------------------------------------------------------------------------


@slow
def test_nodes_are_listed_with_how_they_are(network: Network) -> None:
    lines = network.aemp("nodes").stdout.splitlines()
    assert " ".join(lines[0].split()) == "node roles links ports messages lag ms memory mb up note"
    found = {line.split()[0]: line for line in lines[1:]}
    assert set(found) == set(network.nodes)
    assert "public global" in found[network.hub]
    assert " named " in found["backend"]
    assert " slave " in found[network.slave]


@slow
def test_nodes_for_scripts_have_all_figures(network: Network) -> None:
    found = {row["node"]: row for row in rows(network, "nodes")}
    assert set(found) == set(network.nodes)
    assert found[network.hub]["roles"] == ["public", "global"]
    assert found[network.slave]["master"] == network.hub
    assert all(row["memory"] > 2**20 and row["rights"]["spawn"] for row in found.values())


@slow
def test_node_that_tells_nothing_is_listed_with_the_reason(network: Network) -> None:
    rules = json.dumps([{"peer": "*", "inspect": False}])
    with network.node("closed", "--bind", "127.0.0.1:0", "--set", f"rules={rules}"):
        (row,) = (row for row in rows(network, "nodes") if row["node"] == "closed")
        assert row["note"].startswith("refuses to be inspected: the rules do not let aemp/")
        said = network.refused("ports", "closed")
        assert said.startswith("aemp: closed refuses to be inspected: the rules do not let aemp/")
        assert said.endswith("inspect this node")
        assert "closed refuses to be inspected" in network.aemp("ports").stderr


@slow
def test_ports_of_all_nodes_or_of_one(network: Network) -> None:
    names = {name for row in rows(network, "ports") for name in row["names"]}
    assert {"orders", "stock"} <= names
    (row,) = (row for row in rows(network, "ports", network.hub) if row["names"] == ["stock"])
    assert (row["kind"], row["state"], row["tags"]) == ("callback", "idle", ["work"])
    lines = network.aemp("ports", "backend").stdout.splitlines()
    assert lines[0].split() == ["port", "names", "kind", "state", "messages", "monitors", "where"]
    assert any(" orders " in line and "price" in line for line in lines[1:])


@slow
def test_blocked_port_says_where_it_waits_and_comes_first(network: Network) -> None:
    network.aemp("snd", f"{network.hub}#stock", "work")
    network.aemp("snd", f"{network.hub}#stock", "more")
    (line,) = network.aemp("ports", network.hub, "--limit", "1").stdout.splitlines()[1:]
    assert re.search(r" stock +callback +blocked +1 .* shop\.py:\d+ in <lambda>", line)


@slow
def test_ports_that_are_left_out_are_counted(network: Network) -> None:
    for number in range(2):
        network.aemp("spawn", "backend", "shop.count", "left", str(number))
    done = network.aemp("ports", "backend", "--limit", "1")
    assert len(done.stdout.splitlines()) == 2
    assert re.fullmatch(r"aemp: [2-9] more ports are not listed\n", done.stderr)


@slow
def test_slave_without_ports_says_so(network: Network) -> None:
    assert network.aemp("ports", network.slave).stdout == "There are no ports.\n"
    assert rows(network, "ports", network.slave) == []


# --- groups --------------------------------------------------------------------------------------


@slow
def test_families_and_their_entries(network: Network) -> None:
    assert rows(network, "groups") == [
        {"family": "colours", "entries": 1, "nodes": 1},
        {"family": "workers", "entries": 2, "nodes": 2},
    ]
    assert network.aemp("groups", "colours").stdout.split() == ["key", "value", "red", "1"]
    assert [row["key"].partition("#")[0] for row in rows(network, "groups", "workers")] == [network.hub, "backend"]
    assert network.aemp("groups", "nothing").stdout == "The family 'nothing' is empty.\n"


@slow
def test_groups_are_watched(network: Network) -> None:
    with following(network, "groups", "workers", "--watch") as (process, out, _err):
        wait_until(lambda: out.read_text().count("+ ") == 2, within=PATIENCE, show=out.read_text)
        with network.node("extra", "--bind", "127.0.0.1:0", "--service", "shop.orders"):
            seen_in(out, "+ extra#")
        seen_in(out, "- extra#")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130


@slow
def test_watching_needs_a_family(network: Network) -> None:
    assert network.refused("groups", "--watch", code=2) == "aemp groups: --watch needs a FAMILY"


# --- trace ---------------------------------------------------------------------------------------


@slow
def test_trace_draws_a_tree(network: Network) -> None:
    done = network.aemp("trace", "backend")
    first, *others = done.stdout.splitlines()
    assert first == "backend  named"
    assert re.fullmatch(rf"└── {network.hub}  public global, [\d.]+ ms", others[0])
    assert re.fullmatch(rf"    └── {network.slave}  slave, [\d.]+ ms", others[1])
    assert len(others) == 2


@slow
def test_trace_for_scripts_and_pictures(network: Network) -> None:
    found = rows(network, "trace", network.hub)
    assert found["nodes"][0] == {
        "node": network.hub,
        "met_by": None,
        "provider": found["nodes"][0]["provider"],
        "roles": ["public", "global"],
        "error": "",
    }
    assert {frozenset(link["nodes"]) for link in found["links"]} == {
        frozenset((network.hub, "backend")),
        frozenset((network.hub, network.slave)),
    }
    dot = network.aemp("trace", "--dot").stdout
    assert dot.startswith("graph aemp {\n")
    assert f'"backend" -- "{network.hub}"' in dot
    picture = network.home / "network.svg"
    network.aemp("trace", "--svg", str(picture))
    texts = [text.text for text in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert set(network.nodes) <= set(texts)


@slow
def test_trace_from_nowhere_fails(network: Network) -> None:
    assert network.refused("trace", "127.0.0.1:1").startswith("aemp: 127.0.0.1:1 cannot be reached: ")
    assert "give only one" in network.refused("trace", "--dot", "--json", code=2)


# --- ping and bench ------------------------------------------------------------------------------


@slow
def test_ping_tells_each_round_trip_and_sums_up(network: Network) -> None:
    lines = network.aemp("ping", "backend", "-c", "3", "-i", "0.05").stdout.splitlines()
    assert [re.fullmatch(r"backend: seq=(\d) time=[\d.]+ ms", line)[1] for line in lines[:3]] == ["1", "2", "3"]
    assert lines[3] == "--- backend: 3 sent, 3 answered, 0% lost"
    assert re.fullmatch(r"round trip min/avg/max/mdev = [\d.]+/[\d.]+/[\d.]+/[\d.]+ ms", lines[4])
    found = rows(network, "ping", network.slave, "-c", "2", "-i", "0")
    assert (found["node"], found["sent"], found["answered"]) == (network.slave, 2, 2)
    assert 0 < found["min"] <= found["avg"] <= found["max"] < 10


@slow
def test_ping_continues_until_interrupted_and_reports_what_was_lost(network: Network) -> None:
    with network.node("mute", "--bind", "127.0.0.1:0") as node:
        args = ("ping", "mute", "-i", "0.1", "--timeout", "0.3")
        with following(network, *args) as (process, out, _err):
            seen_in(out, "seq=2 time=")
            node.send_signal(signal.SIGSTOP)
            seen_in(out, "no answer within 0.3 s")
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
            seen_in(out, "% lost\nround trip min")
            node.send_signal(signal.SIGCONT)


@slow
def test_ping_of_nobody_fails(network: Network) -> None:
    assert network.refused("ping", "127.0.0.1:1").startswith("aemp: 127.0.0.1:1 cannot be reached: ")


@slow
def test_bench_tells_how_many_messages_a_second(network: Network) -> None:
    said = network.aemp("bench", "backend", "--seconds", "0.2", "--size", "10").stdout
    assert re.fullmatch(r"[\d,]+ messages of 10 bytes in [\d.]+ s: [\d,]+/s, [\d.]+ MB/s\n", said)
    found = rows(network, "bench", "backend", "--seconds", "0.2")
    assert found["messages"] > 100
    assert found["bytes"] == 100 * found["messages"]
    assert found["rate"] == pytest.approx(found["messages"] / found["seconds"])


# --- log -----------------------------------------------------------------------------------------

CALL = "__import__('logging').getLogger('the.program').{level}({text!r})"


@slow
def test_logs_of_all_nodes_come_in_one_stream(network: Network) -> None:
    with following(network, "log") as (process, out, err):

        def is_shown() -> bool:  # it may not listen yet
            network.aemp("eval", network.hub, CALL.format(level="error", text="two\nlines\x1b[2J"))
            return f"{network.hub} ERROR the.program: two\n    lines\\x1b[2J\n" in out.read_text()

        wait_until(is_shown, within=PATIENCE, show=out.read_text)
        network.aemp("snd", "backend#orders", "nothing")
        seen_in(out, " backend INFO aemp_gevent: link to aemp/")
        assert " DEBUG aemp_gevent: " not in out.read_text()
        with network.node("late", "--bind", "127.0.0.1:0"):

            def late_is_shown() -> bool:
                network.aemp("ping", "late", "-c", "1")  # it logs that there is a link
                return " late INFO aemp_gevent: " in out.read_text()

            wait_until(late_is_shown, within=PATIENCE, show=out.read_text)
        seen_in(err, "aemp: late is gone: ")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        (line,) = err.read_text().split("\n\n")[0].splitlines()
        assert line.startswith("aemp: late is gone: ")


@slow
def test_log_of_one_node_for_scripts(network: Network) -> None:
    with following(network, "log", "backend", "--level", "debug", "--json") as (process, out, _err):

        def told() -> list[dict[str, Any]]:
            network.aemp("snd", "backend#orders", "nothing")
            return [json.loads(line) for line in out.read_text().splitlines()]

        wait_until(lambda: any("discarded" in row["text"] for row in told()), within=PATIENCE, show=out.read_text)
        assert {row["node"] for row in told()} == {"backend"}
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


@slow
def test_log_says_who_refuses_and_who_is_back(network: Network) -> None:
    rules = json.dumps([{"peer": "*", "inspect": False}])
    with contextlib.ExitStack() as stack:
        with network.node("other", "--bind", "127.0.0.1:0", "--set", f"rules={rules}"):
            process, _out, err = stack.enter_context(following(network, "log", "other"))
            seen_in(err, "aemp: other refuses to send its log: the rules do not let aemp/")
        seen_in(err, "aemp: other is gone: ")
        with network.node("other", "--bind", "127.0.0.1:0"):
            seen_in(err, "aemp: other is back")
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


@slow
def test_log_of_a_node_that_is_not_there_ends(network: Network) -> None:
    assert network.refused("log", "127.0.0.1:1").startswith("aemp: 127.0.0.1:1 cannot be reached: ")


@slow
def test_log_that_is_terminated_does_not_say_that_living_nodes_are_gone(network: Network) -> None:
    with following(network, "log", "--level", "debug") as (process, out, err):

        def is_shown() -> bool:
            network.aemp("eval", network.hub, CALL.format(level="error", text="hello"))
            return "hello" in out.read_text()

        wait_until(is_shown, within=PATIENCE, show=out.read_text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        assert err.read_text() == ""


# --- the end ---------------------------------------------------------------------------------------


@slow
def test_command_that_is_terminated_takes_leave(network: Network) -> None:
    log = network.home / f"{network.hub}.log"
    with following(network, "groups", "workers", "--watch", "--nodeid", "aemp/leaver") as (process, out, _err):
        seen_in(out, "+ backend#")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    seen_in(log, "INFO link to aemp/leaver lost: it shuts down")


@slow
@pytest.mark.parametrize(
    "args", [("groups", "workers", "--watch"), ("log", "--json", "--level", "debug"), ("ping", "backend", "-i", "0.2")]
)
def test_command_ends_when_nobody_reads_any_more(network: Network, args: tuple[str, ...]) -> None:
    with preloaded.Popen(
        [*AEMP, *args], env=network.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None

            def have_something_told() -> None:
                port = network.aemp("spawn", "backend", "shop.work").stdout.strip()
                network.aemp("snd", port, "end")

            def has_told() -> bool:
                have_something_told()
                return bool(select.select([process.stdout], [], [], 0)[0])

            def has_ended() -> bool:
                have_something_told()
                return process.poll() is not None

            wait_until(has_told, within=PATIENCE)
            process.stdout.close()
            wait_until(has_ended, within=PATIENCE)
            said = process.stderr.read()
            assert process.returncode == 1
            assert "BrokenPipeError" not in said, said  # that its loop was late it may say
        finally:
            process.kill()


@slow
def test_bench_shows_its_progress_on_a_terminal(network: Network) -> None:
    with terminal(network, "bench", "backend", "--seconds", "1", "--timeout", "60") as screen:
        screen.child.expect(r"sending")
        screen.child.expect(r" messages of 100 bytes in ")


# --- answers of other nodes ----------------------------------------------------------------------


@slow
def test_what_others_say_does_nothing_to_the_terminal(network: Network) -> None:
    said = network.refused("eval", network.hub, "raise ValueError('\\x1b[2J')")
    assert said == rf"aemp: {network.hub}: ValueError: \x1b[2J"
    with terminal(network, "cal", "backend#orders", "add", '"\\u001b[2J"') as screen:
        screen.child.expect_exact(r"\x1b[2J")
    assert network.aemp("cal", "backend#orders", "add", '"\\u001b[2J"').stdout == "\x1b[2J\n"
