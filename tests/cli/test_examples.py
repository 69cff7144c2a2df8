# SPDX-License-Identifier: MIT
"""All examples of commands that talk to nodes, or look at them, typed against nodes that run."""

from __future__ import annotations

import json
import re
import shlex

import pexpect
import pytest

from aemp_command.examples import EXAMPLES
from aemp_command.table import SECTIONS
from tests.cli.networks import PATIENCE, Network
from tests.cli.screens import terminal
from tests.support.helpers import wait_until
from tests.support.networking import free_address

pytestmark = pytest.mark.slow

COMMANDS = [*SECTIONS["Talk"], *SECTIONS["Look"]]

SHOWN_UNTIL_ENDED = {
    "aemp mon backend#orders": None,
    "aemp mon backend#orders --timeout 60 --json": None,
    "aemp shell": r"Ctrl-D quits.",
    "aemp shell 127.0.0.1:4040": r"Each statement runs separately on ",
    "aemp tree backend --watch": r"Services backend#\S+  one_for_one, 1 of 1 running",
    "aemp groups workers --watch": r"\+ backend#",
    "aemp top": r"\[q\] quit",
    "aemp dashboard": r"http://127.0.0.1:8040/\?token=\S+",
    "aemp dashboard --listen :8040 --allow-kill": r"http://127.0.0.1:\d+/\?token=\S+",
    "aemp log": None,
    "aemp log backend --level debug": None,
    "aemp dump 127.0.0.1:4040 --listen 127.0.0.1:5050": r"dial 127.0.0.1:\d+ instead of 127.0.0.1:\d+",
}
"""Examples that run until somebody ends them, and what they show by themselves."""

EXAMPLES_THAT_END = [line for name in COMMANDS for line in EXAMPLES.get(name, ()) if line not in SHOWN_UNTIL_ENDED]

SHOWS = {
    "aemp snd backend#orders note 'three pieces'": r"",
    "aemp cal backend#orders price 3": r"15\n",
    """aemp cal backend#orders add '["nuts", 5]' --json""": r'\["nuts", 5\]\n',
    "aemp spawn backend shop.count nuts 12": r"backend#\w+\n",
    "aemp eval 127.0.0.1:4040 6*7": r"42\n",
    "aemp nodes": r"node +roles .*\n(?s:.*)\bbackend\b(?s:.*)",
    "aemp nodes --json": r"\[\{.*\}\]\n",
    "aemp ports": r"port +names (?s:.*) orders (?s:.*)",
    "aemp ports backend --limit 10": r"port +names (?s:.*) orders (?s:.*)",
    "aemp tree": r"(?s).*Services backend#\S+  one_for_one, 1 of 1 running\n└── shop\.orders  running  backend#.*",
    "aemp groups": r"family +entries +nodes\n(?s:.*)workers +2 +2\n",
    "aemp groups workers": r"key(?s:.*)backend#(?s:.*)",
    "aemp trace": r"\S+  .*\n(?s:.*)── (?s:.*)",
    "aemp trace backend --dot": r"graph aemp \{\n(?s:.*)\}\n",
    "aemp trace --svg network.svg": r"",
    "aemp top --once --view links": r"node +linked to (?s:.*)",
    "aemp ping backend -c 3 -i 0.2": r"(?s:.*)3 sent, 3 answered, 0% lost\n(?s:.*)",
    "aemp bench backend --seconds 1 --size 1000": r".* messages of 1000 bytes in .*\n",
}


def words_of(line: str, network: Network) -> list[str]:
    own = line.replace(" :8040", " :0").replace("127.0.0.1:5050", free_address()).replace("127.0.0.1:4040", network.hub)
    return shlex.split(own)[1:]


def test_every_command_has_an_example_and_each_is_tried() -> None:
    assert all(EXAMPLES.get(name) for name in COMMANDS)
    assert set(EXAMPLES_THAT_END) == set(SHOWS)
    assert set(SHOWN_UNTIL_ENDED) <= {line for lines in EXAMPLES.values() for line in lines}


@pytest.mark.parametrize("line", EXAMPLES_THAT_END)
def test_example_shows_what_it_is_to_show(network: Network, line: str) -> None:
    done = network.aemp(*words_of(line, network))
    assert re.fullmatch(SHOWS[line], done.stdout), done.stdout
    if "--svg" in line:
        assert (network.home / "network.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize("line", SHOWN_UNTIL_ENDED)
def test_example_continues_until_it_is_ended(network: Network, line: str) -> None:
    words = words_of(line, network)
    if words[0] == "shell":
        words.append("--plain")
    before = monitors_of_orders(network)
    with terminal(network, *words) as screen:
        child = screen.child
        shown = SHOWN_UNTIL_ENDED[line]
        if shown is not None:
            child.expect(shown)
        elif words[0] == "log":
            wait_until(lambda: speaks(network, screen), within=PATIENCE, show=screen.lines)
        else:
            wait_until(lambda: monitors_of_orders(network) > before, within=PATIENCE, show=screen.lines)
            child.expect(pexpect.TIMEOUT, timeout=0.2)  # nothing, as the port lives
        assert child.isalive()
        if words[0] == "shell":
            child.expect_exact(">>> ")
            child.sendeof()
        else:
            child.sendintr()
        wait_until(lambda: not screen.lines() or not child.isalive(), within=PATIENCE, show=screen.lines)
        assert child.exitstatus == (0 if words[0] in {"shell", "top"} else 130)


def monitors_of_orders(network: Network) -> int:
    rows = json.loads(network.aemp("ports", "backend", "--json").stdout)
    (count,) = (row["monitors"] for row in rows if "orders" in row["names"])
    return int(count)


def speaks(network: Network, screen: object) -> bool:
    """Make a node log something, and check whether that is shown."""
    network.aemp("ping", "backend", "-c", "1")
    return "backend INFO aemp_gevent: " in screen.text  # type: ignore[attr-defined]
