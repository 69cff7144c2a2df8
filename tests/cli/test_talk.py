# SPDX-License-Identifier: MIT
"""``aemp snd``, ``cal``, ``mon``, ``eval`` and ``spawn`` against nodes that run."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cli.helpers import AEMP
from tests.cli.networks import Network
from tests.support import preloaded
from tests.support.helpers import wait_until

pytestmark = pytest.mark.slow


# --- snd -------------------------------------------------------------------------------------


def test_snd_returns_when_the_message_has_arrived(network: Network) -> None:
    with network.node("writer", "--bind", "127.0.0.1:0", "--service", "shop.orders", "--set", "allow_eval=true"):
        done = network.aemp("snd", "writer#orders", "note", "text", "12", '["a", null]', '"12"', "--", "-5")
        assert (done.stdout, done.stderr) == ("", "")
        found = network.aemp("eval", "writer", "__import__('shop').noted").stdout
        assert json.loads(found) == [["text", 12, ["a", None], "12", -5]]


@pytest.mark.parametrize(
    ("port", "says"),
    [
        pytest.param(
            "backend#nobody", r"aemp: port backend#nobody does not exist; see 'aemp ports backend'$", id="port"
        ),
        pytest.param("127.0.0.1:1#x", "aemp: 127.0.0.1:1 cannot be reached: ", id="address"),
    ],
)
@pytest.mark.parametrize("command", ["snd", "cal"])
def test_message_to_nobody_fails(network: Network, command: str, port: str, says: str) -> None:
    said = network.refused(command, port, "hello")
    assert re.match(says, said.replace(port, port.partition("#")[0] if "does not exist" not in said else port)), said


def test_message_to_a_node_that_is_not_there_fails(network: Network) -> None:
    """Each command looks for the node for five seconds: all at once."""
    commands = [("snd", "nowhere#x", "hello"), ("cal", "nowhere#x", "hello"), ("mon", "nowhere#x", "--timeout", "0.2")]
    with ThreadPoolExecutor() as pool:
        sent, called, monitored = pool.map(lambda args: network.refused(*args), commands)
    # It depends on whether we or the node give up first: both wait for five seconds.
    for said in (sent, called):
        assert re.match(r"aemp: (node nowhere does not exist|nowhere(#x)? cannot be reached: )", said), said
    assert monitored.startswith("aemp: node nowhere does not exist or cannot be reached"), "not that it lives"


def test_node_that_is_given_as_an_address_is_found(network: Network) -> None:
    address = network.hub.replace("127.0.0.1", "localhost")
    network.aemp("snd", f"{address}#stock", "x")
    assert network.aemp("eval", address, "6*7").stdout == "42\n"


# --- cal -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["price", "3"], "15\n"),
        (["add", '["nuts", 5]'], '["nuts", 5]\n'),
        (["add", '{"ü": null}'], '{"ü": null}\n'),
        (["text"], "some text\n"),
        (["text", "--json"], '"some text"\n'),
        (["add", "null"], "null\n"),
    ],
)
def test_cal_prints_the_answer(network: Network, args: list[str], shown: str) -> None:
    done = network.aemp("cal", "backend#orders", *args)
    assert (done.stdout, done.stderr) == (shown, "")


def test_cal_tells_that_the_port_answered_with_an_error(network: Network) -> None:
    said = network.refused("cal", "backend#orders", "broken")
    assert said == "aemp: backend#orders answered with an error: ZeroDivisionError: division by zero"


def test_cal_gives_up_after_the_timeout(network: Network) -> None:
    said = network.refused("cal", f"{network.hub}#stock", "work", "--timeout", "0.3")
    assert said == f"aemp: no answer from {network.hub}#stock within 0.3 s; it may still handle the request"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["cal", "backend#orders"], "aemp cal: "),
        (["snd", "#orders", "x"], "aemp snd: the node's name is missing in '#orders'"),
        (["ping", ""], "aemp ping: the node's name is missing"),
        (["trace", "--svg", "/nowhere/x.svg"], "aemp: Could not open file '/nowhere/x.svg'"),
        (["snd"], "aemp snd: "),
        (["snd", "backend#orders", "[1"], "begins like JSON"),
        (["cal", "backend#orders", "x", "--timeout", "0"], "--timeout"),
        (["eval", "backend#orders", "1"], "is the ID of a port; give the node's ID, backend"),
        (["snd", "bad node#x"], "bad node"),
        (["cal", "backend#orders", "x", "--timeuot", "1"], "did you mean '--timeout'?"),
    ],
)
def test_wrong_usage_is_reported_in_a_line(network: Network, args: list[str], says: str) -> None:
    assert says in network.refused(*args, code=2)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["snd", "backend", "5"], "aemp: node backend refused the request 5: 5 is not the name of a function: "),
        (["snd", "backend", "hello"], "aemp: node backend refused the request 'hello': 'hello' is not allowed here: "),
        (["cal", "backend", "tiem"], "aemp: backend answered with an error: request 'tiem' refused: 'tiem' is not "),
        (["snd", "127.0.0.1:99999#x"], "aemp: '127.0.0.1:99999' cannot be (part of) a noderef: the port number 99999 "),
    ],
)
def test_mistakes_are_reported_in_one_clean_line(network: Network, args: list[str], says: str) -> None:
    said = network.refused(*args, code=2 if "noderef" in says else 1)
    assert said.startswith(says)
    assert "logged once" not in said


# --- mon -------------------------------------------------------------------------------------


def mon(network: Network, *args: str) -> subprocess.Popen[str]:
    return preloaded.Popen(
        [*AEMP, "mon", *args],
        env=network.environment(),
        cwd=network.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def monitors_of(network: Network, name: str) -> int:
    rows = json.loads(network.aemp("ports", "victim", "--json").stdout)
    (count,) = (row["monitors"] for row in rows if name in row["names"])
    return int(count)


@pytest.mark.parametrize(
    ("reason", "args", "shown", "code"),
    [
        pytest.param([], [], "normal\n", 0, id="normal"),
        pytest.param([], ["--json"], "[]\n", 0, id="normal-json"),
        pytest.param(["bad", "[1, 2]"], [], "bad [1, 2]\n", 1, id="reason"),
        pytest.param(["bad", "3"], ["--json"], '["bad", 3]\n', 1, id="reason-json"),
    ],
)
def test_mon_waits_and_tells_how_it_died(
    network: Network, reason: list[str], args: list[str], shown: str, code: int
) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(network.node("victim", "--bind", "127.0.0.1:0", "--service", "shop.orders"))
        before = monitors_of(network, "orders")  # its group has one, and who starts it again another
        waiting = stack.enter_context(mon(network, "victim#orders", *args))
        try:
            wait_until(lambda: monitors_of(network, "orders") > before, within=30)
            assert waiting.poll() is None
            network.aemp("snd", "victim#orders", "end", *reason)
            out, err = waiting.communicate(timeout=30)
        finally:
            waiting.kill()
    assert (out, err, waiting.returncode) == (shown, "", code)


def test_mon_of_a_node_hears_of_its_end(network: Network) -> None:
    with network.node("victim", "--bind", "127.0.0.1:0") as victim, mon(network, "victim") as waiting:
        try:
            log = network.home / "victim.log"
            wait_until(lambda: is_linked(network, "victim"), within=30, show=log.read_text)
            victim.terminate()
            out, _err = waiting.communicate(timeout=30)
        finally:
            waiting.kill()
    assert (out, waiting.returncode) == ("shutdown victim\n", 1)


def is_linked(network: Network, node: str) -> bool:
    """Whether the command that waits has a link: this one's own is another."""
    figures = [row for row in json.loads(network.aemp("nodes", "--json").stdout) if row["node"] == node]
    return bool(figures) and figures[0]["link_count"] >= 3


def test_mon_gives_up(network: Network) -> None:
    assert (
        network.refused("mon", "backend#orders", "--timeout", "0.2")
        == "aemp: backend#orders is still alive after 0.2 s"
    )


def test_mon_of_nobody_fails_at_once(network: Network) -> None:
    done = network.aemp("mon", "backend#nobody", code=1)
    assert done.stdout.startswith("no_such_port ")


# --- eval and spawn ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "shown"),
    [("6*7", "42\n"), ("[1, None]", "[1, null]\n"), ("'text'", "text\n"), ("x = 1", ""), ("None", "")],
)
def test_eval_prints_the_value(network: Network, code: str, shown: str) -> None:
    done = network.aemp("eval", network.hub, code)
    assert (done.stdout, done.stderr) == (shown, "")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("object()", "the result cannot travel"),
        ("def f(", "SyntaxError"),
    ],
)
def test_eval_tells_what_was_raised(network: Network, code: str, says: str) -> None:
    said = network.refused("eval", network.hub, code)
    assert said.startswith(f"aemp: {network.hub}: ")
    assert says in said


def test_eval_where_it_is_not_allowed_says_so_at_once(network: Network) -> None:
    said = network.refused("eval", "backend", "1")
    assert said.startswith("aemp: backend does not evaluate code for this node: run it with allow_eval")


def test_spawn_prints_the_port_which_lives_on(network: Network) -> None:
    port = network.aemp("spawn", "backend", "shop.count", "nuts", "12").stdout.strip()
    assert port.startswith("backend#")
    rows = json.loads(network.aemp("ports", "backend", "--json").stdout)
    (row,) = [row for row in rows if row["port"] == port]
    assert row["names"] == ["nuts-12"]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        pytest.param("os.getcwd", "'os.getcwd' is not allowed here", id="refused"),
        pytest.param("shop.fail", "ValueError: of no use", id="raises"),
    ],
)
def test_spawn_that_fails_says_why(network: Network, function: str, says: str) -> None:
    said = network.refused("spawn", "backend", function)
    assert said.startswith(f"aemp: {function} did not start on backend: ")
    assert says in said


def test_commands_leave_no_node_behind(network: Network) -> None:
    threads = [threading.Thread(target=network.aemp, args=("nodes",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = json.loads(network.aemp("trace", "--json").stdout)
    assert {row["node"] for row in found["nodes"]} == set(network.nodes)
    # Of all links of the seed only this last command's is one more than the network's.
    figures = json.loads(network.aemp("nodes", "--json").stdout)
    wait_until(lambda: json.loads(network.aemp("nodes", "--json").stdout)[0]["link_count"] == 3, within=30)
    assert {row["node"] for row in figures} == set(network.nodes)


def test_network_that_is_not_there_is_said_in_a_line(network: Network) -> None:
    said = network.refused("nodes", "--seed", "127.0.0.1:1", "--connect-timeout", "0.5")
    why = "127.0.0.1:1: Connection refused"
    assert said == f"aemp: no link to the network (--seed names another node to dial): {why}"
