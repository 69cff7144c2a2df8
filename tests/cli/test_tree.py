# SPDX-License-Identifier: MIT
"""``aemp tree`` against nodes that run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import pytest

from aemp_gevent.cli.tree import forest_of
from tests.cli.helpers import AEMP
from tests.cli.networks import PATIENCE, Network
from tests.support import preloaded
from tests.support.helpers import wait_until

pytestmark = pytest.mark.slow

tree_module = sys.modules["aemp_gevent.cli.tree"]  # the package has the command under this name

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
    assert sorted(tree["name"] for tree in found) == ["DynamicSupervisor", "Services", "Supervisor"]
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


# --- without a network ---


def row(port: str, *children: str) -> dict[str, Any]:
    figures = {"state": "running", "restarts": 0, "messages": 0, "reason": None}
    found = [{"id": each, "port": each, **figures} for each in children]
    return {"port": port, "name": "S", "strategy": "one_for_one", "child_count": 1, "active": 1, "children": found}


@pytest.mark.parametrize("order", [1, -1])
def test_trees_of_any_depth_are_shown_in_pieces(order: int) -> None:
    rows = [row(f"{number}", f"{number + 1}") for number in range(1200)][::order]
    found = forest_of(rows)
    assert len(found) == 1200 / tree_module.MAX_DEPTH
    assert len(json.dumps(found)) > 1200


def test_circles_of_supervisors_are_shown_once() -> None:
    found = forest_of([row("a", "b"), row("b", "c"), row("c", "a", "c", "b")])
    assert [each["port"] for each in found] == ["a"]
    assert found[0]["children"][0]["supervisor"]["children"][0]["supervisor"]["port"] == "c"


def test_a_watch_goes_past_times_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [click.ClickException("no answer"), click.ClickException("no answer"), [row("b")]]
    complaints: list[str] = []
    shown: list[Any] = []

    def ask() -> Any:
        answer = answers.pop(0) if answers else KeyboardInterrupt()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(tree_module, "complain", complaints.append)
    monkeypatch.setattr(tree_module, "_print", lambda found, **_options: shown.append(found))
    monkeypatch.setattr(tree_module, "WATCH_SECONDS", 0.001)
    with pytest.raises(KeyboardInterrupt):
        tree_module._watch(ask, [row("a")], as_json=True)
    assert (complaints, shown) == (["no answer"], [[row("b")]])
