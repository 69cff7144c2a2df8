# SPDX-License-Identifier: MIT
"""``aemp tree`` against nodes that run."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.cli.helpers import AEMP
from tests.cli.networks import PATIENCE, Network
from tests.support import preloaded
from tests.support.helpers import wait_until

pytestmark = pytest.mark.slow

PROGRAM = """
from aemp_gevent import receive
from aemp_gevent.otp import Child, DynamicSupervisor, Supervisor

def work(fails):
    receive()
    raise ValueError("[of] no use")

def supervise():
    carts = DynamicSupervisor.start(name="carts", backoff=(600, 600))
    for number in range(3):
        carts.start_child(Child(work, False, id=f"cart-{number}", name=f"cart-{number}"))
    Supervisor.start([Child(DynamicSupervisor, id="inner"), Child(work, True, name="work")], backoff=(0.01, 600))
    receive()
"""


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    network = Network(tmp_path_factory.mktemp("trees"))
    (network.home / "trees.py").write_text(PROGRAM)
    with contextlib.ExitStack() as stack:
        stack.enter_context(network.node(network.hub, seeds=""))
        stack.enter_context(network.node("shop", "--bind", "127.0.0.1:0", "--service", "trees.supervise"))
        yield network


def test_trees_are_shown_with_what_became_of_their_children(trees: Network) -> None:
    trees.aemp("snd", "shop#work", "x")
    trees.aemp("snd", "shop#cart-1", "x")

    def lines() -> list[str]:
        return trees.aemp("tree", "shop").stdout.splitlines()

    wait_until(lambda: "restarting" in "".join(lines()) and "1 restart" in "".join(lines()), within=PATIENCE)
    found = lines()
    carts = found.index(next(line for line in found if line.startswith("DynamicSupervisor shop#")))
    assert found[carts].endswith("one_for_one, 2 of 3 running")
    assert found[carts + 1].startswith("├── cart-0  running  shop#")
    assert found[carts + 2] == "├── cart-1  restarting, last reason: die ValueError: [of] no use"
    top = found.index(next(line for line in found if line.startswith("Supervisor shop#")))
    assert found[top].endswith("one_for_one, 2 of 2 running")
    assert found[top + 1].startswith("├── inner  running  DynamicSupervisor shop#")
    assert found[top + 2].startswith("└── work  running, 1 restart, last reason: die ValueError: [of] no use  shop#")


def test_trees_of_all_nodes_for_scripts(trees: Network) -> None:
    found = json.loads(trees.aemp("tree", "--json").stdout)
    assert sorted(tree["name"] for tree in found) == ["DynamicSupervisor", "Supervisor"]
    top = next(tree for tree in found if tree["name"] == "Supervisor")
    assert top["children"][0]["supervisor"]["child_count"] == 0


def test_trees_are_shown_again_when_they_have_changed(trees: Network) -> None:
    out = trees.home / "out.txt"
    with out.open("w") as stdout:
        command = [*AEMP, "tree", "shop", "--watch", "--json"]
        process = preloaded.Popen(command, env=trees.environment(), stdout=stdout, stderr=subprocess.DEVNULL, text=True)
        try:
            wait_until(lambda: out.read_text().count("\n") == 1, within=PATIENCE, show=out.read_text)
            trees.aemp("snd", "shop#cart-2", "x")
            wait_until(lambda: out.read_text().count("\n") >= 2, within=PATIENCE, show=out.read_text)
        finally:
            process.kill()
            process.wait()
    last = json.loads(out.read_text().splitlines()[-1])
    carts = next(tree for tree in last if tree["name"] == "DynamicSupervisor")
    assert "restarting" in {child["state"] for child in carts["children"] if child["id"] == "cart-2"}
