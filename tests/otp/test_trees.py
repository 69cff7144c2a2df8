# SPDX-License-Identifier: MIT
"""What ``inspect`` reports about supervisors, and how ``aemp tree`` puts it together."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from aemp_gevent import Node
from aemp_gevent.cli.tree import forest_of
from aemp_gevent.otp import Child, DynamicSupervisor, Server, Supervisor, cast
from aemp_gevent.testing.waiting import wait_until
from tests.otp.carts import Cart
from tests.support.networking import WAIT


class Busy(Server):
    @cast
    def block(self) -> None:
        gevent.sleep(WAIT)


class Shop(Supervisor):
    """Has a supervisor as its child."""

    def children(self) -> list[Child]:
        return [Child(DynamicSupervisor, id="carts"), Child(Busy)]


def trees(node: Node, limit: int = 1000) -> list[dict[str, Any]]:
    found: dict[str, Any] = node.call(node.NODE(), "inspect", {"trees": limit})
    return list(found["trees"])


def test_a_node_reports_its_supervisors_with_their_children(node):
    shop = Shop.start()
    [carts, busy] = shop.which_children()
    for _ in range(3):
        Busy.at(busy["port"]).block()
    node.kil(carts["port"], "why", 5)
    wait_until(lambda: shop.count()["active"] == 2 and shop.which_children()[0]["restarts"], within=WAIT)
    [carts, busy] = shop.which_children()
    top, inner = trees(node)
    assert {key: top[key] for key in ("port", "name", "strategy", "child_count", "active")} == {
        "port": shop,
        "name": "Shop",
        "strategy": "one_for_one",
        "child_count": 2,
        "active": 2,
    }
    assert top["children"] == [
        {
            "id": "carts",
            "state": "running",
            "port": carts["port"],
            "kind": "supervisor",
            "restart": "permanent",
            "restarts": 1,
            "reason": "why 5",
            "messages": 0,
        },
        {
            "id": "Busy",
            "state": "running",
            "port": busy["port"],
            "kind": "server",
            "restart": "permanent",
            "restarts": 0,
            "reason": None,
            "messages": 2,
        },
    ]
    assert (inner["name"], inner["port"]) == ("DynamicSupervisor", carts["port"])
    node.kil(busy["port"])
    shop.stop()
    assert trees(node) == []


def test_only_a_number_of_children_is_reported_and_those_that_do_not_run_come_first(node):
    carts = DynamicSupervisor.start(backoff=(30, 30))
    ports = [carts.start_child(Child(Cart, "ada", id=str(number))) for number in range(20)]
    node.kil(ports[15], "why")
    wait_until(lambda: carts.count()["active"] == 19, within=WAIT)
    [tree] = trees(node, 6)
    assert [child["id"] for child in tree["children"]] == ["15", "0", "1", "2", "3"]
    assert tree["child_count"] == 20
    assert trees(node, 0) == []


def test_a_node_without_supervisors_reports_none(make_node):
    one, two = make_node(), make_node()
    assert one.call(two.NODE(), "inspect", ["trees"])["trees"] == []


# --- forests ---


def supervisor(port: str, *children: str | None) -> dict[str, Any]:
    return {"port": port, "children": [{"id": str(child), "port": child} for child in children]}


def shape(trees: list[dict[str, Any]]) -> list[object]:
    return [
        (row["port"], shape([child["supervisor"] for child in row["children"] if "supervisor" in child]))
        for row in trees
    ]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", "b", "x"), ("b",)], [("a", [("b", [])])]),
        ([("b",), ("a", "b")], [("a", [("b", [])])]),
        ([("a", None), ("b",)], [("a", []), ("b", [])]),
        ([("a", "a")], [("a", [])]),
        ([("a", "b"), ("b", "a")], [("a", [("b", [])])]),
        ([("a", "b"), ("b", "c"), ("c", "a")], [("a", [("b", [("c", [])])])]),
        ([("a", "c"), ("b", "c"), ("c",)], [("a", [("c", [])]), ("b", [])]),
    ],
    ids=["child", "later", "stopped", "own", "circle", "longer circle", "two parents"],
)
def test_supervisors_become_trees(rows, expected):
    assert shape(forest_of(supervisor(*row) for row in rows)) == expected
