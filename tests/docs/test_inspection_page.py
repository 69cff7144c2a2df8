# SPDX-License-Identifier: MIT
"""The page about looking into nodes says everything that nodes tell, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from aemp_gevent.otp import Child, Supervisor
from aemp_gevent.runtime.logs import RECORD_KEYS
from tests.support.networking import node_factory

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "inspection.md").read_text()


def keys_of_tables() -> list[set[str]]:
    found: list[set[str]] = []
    for line in PAGE.splitlines():
        if line.startswith("| key |"):
            found.append(set())
        elif line.startswith("| `"):
            found[-1].update(re.findall(r"`(\w+)`", line.split("|")[1]))
    return found


def test_page_has_every_key() -> None:
    node_keys, link_keys, port_keys, message_keys, tree_keys, child_keys, record_keys = keys_of_tables()
    with node_factory() as make:
        one, two = make(), make()
        port = one.port()
        assert two.syncal(10, one.NODE(), "time")
        with one.attach():
            tree = Supervisor.start([Child(one.port)])
        found = two.call(one.NODE(), "inspect", ["links", "ports", "families", "metrics", "trees"])
        tree.stop()
        two.call(one.NODE(), "inspect", {"port": port, "messages": True})
        one.snd(port)
        of_port = two.call(one.NODE(), "inspect", {"port": port, "messages": True})
    assert of_port.keys() == {"node", "provider", "port", "stack", "seen", "messages"}
    assert message_keys == set(of_port["messages"][0])
    assert node_keys == {*found, "error"}
    assert link_keys == set(found["links"][0])
    assert port_keys == set(found["ports"][0])
    assert tree_keys == set(found["trees"][0])
    assert child_keys == set(found["trees"][0]["children"][0])
    assert record_keys == {*RECORD_KEYS, "left_out"}
