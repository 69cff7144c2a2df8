# SPDX-License-Identifier: MIT
"""Global nodes dial each other."""

from __future__ import annotations

import pytest

from aemp_gevent.directory.embedded import mesh
from aemp_gevent.testing import MemoryNetwork
from tests.directory.embedded.networks import role
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode
from tests.support.seams import embedded_of


@pytest.mark.slow
def test_global_nodes_that_lost_each_other_meet_again_although_a_third_one_has_links_to_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mesh, "_MESH_SECONDS", 0.05)
    with MemoryNetwork() as network:
        names = [f"10.0.0.{number}:4040" for number in (1, 2, 3)]
        nodes = [network.node(name, name, *(names[:1] if name != names[0] else ())) for name in names]
        wait_until(lambda: all(len(node.up_nodes()) == 2 for node in nodes), within=WAIT)
        # Nothing but the loss itself makes them look for each other.
        for node in nodes:
            node.db_set("f", node.NODE())
            server = embedded_of(node)._server
            assert server is not None
            wait_until(lambda server=server: server._mesh._timer is None, within=WAIT)  # type: ignore[misc]
        assert network.cut(nodes[1], nodes[2]) == 1
        wait_until(lambda: names[2] not in nodes[1].up_nodes(), within=WAIT)
        for node in nodes:
            wait_until(lambda node=node: sorted(node.db_keys("f")) == names, within=WAIT)  # type: ignore[misc]


def test_global_nodes_find_each_other_and_keep_links(make_node: MakeNode) -> None:
    with MemoryNetwork() as network:
        first = network.node()
        others = [network.node(None, first.NODE()) for _ in range(3)]
        leaves = [network.node(None, other.NODE()) for other in others]  # make them global
        everybody = [first, *others]
        wait_until(lambda: all(role(node) == "global" for node in everybody), within=WAIT)
        for node in everybody:
            expected = {other.NODE() for other in everybody if other is not node}
            wait_until(lambda node=node, expected=expected: expected <= set(node.up_nodes()), within=WAIT)  # type: ignore[misc]
        network.cut(others[0], others[1])
        wait_until(lambda: others[1].NODE() in others[0].up_nodes(), within=WAIT)
        leaves[0].db_set("f", "k", 1)
        wait_until(lambda: leaves[2].db_family("f") == {"k": 1}, within=WAIT)
        network.crash(first)
        leaves[0].db_set("f", "k", 2)
        wait_until(lambda: leaves[2].db_family("f") == {"k": 2}, within=WAIT)
