# SPDX-License-Identifier: MIT
"""Clients introduce global seeds to each other."""

from __future__ import annotations

from aemp_gevent.testing import MemoryNetwork
from tests.support.directories import QUICK
from tests.support.helpers import wait_until
from tests.support.seams import embedded_of


def test_seeds_that_do_not_know_each_other_meet_through_their_clients() -> None:
    with MemoryNetwork(latency=0.001) as network:
        one, two = (network.node(f"10.9.0.{number}:4040", **QUICK) for number in (1, 2))
        lists = [(one, two), (two, one), (one,), (two,)]
        clients = [
            network.node(f"10.8.0.{number}:4040", *(seed.NODE() for seed in seeds), **QUICK)
            for number, seeds in enumerate(lists, 1)
        ]
        nodes = [one, two, *clients]
        for node in nodes:
            node.db_set("family", node.NODE())
        everybody = sorted(node.NODE() for node in nodes)
        for node in nodes:
            wait_until(lambda node=node: sorted(node.db_keys("family")) == everybody, within=20)
        # A seed that is gone is looked for by nobody who was merely told of it.
        network.crash(two)
        wait_until(lambda: "10.9.0.2:4040" not in embedded_of(one)._server._merged.families["'g"], within=20)
