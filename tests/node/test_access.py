# SPDX-License-Identifier: MIT
"""The insides of a node, as the folders above reach them, and that they are not on the node."""

from __future__ import annotations

from inspect import isbuiltin, ismethod

import aemp_gevent
from aemp_gevent import Node
from aemp_gevent.node import access
from tests.support.networking import MakeNode

FOR_OPERATORS = {"addresses", "drain", "info", "refusals", "reload", "reset", "settings", "wait_for_seeds"}


def test_node_has_no_public_names_but_the_functions_of_the_package_and_those_for_operators(make_node: MakeNode) -> None:
    """``scheduler`` is the one that other folders use; the docstring of ``aemp_gevent.node.node`` says why."""
    networked = make_node()
    names = {name for name in {*dir(Node), *vars(Node()), *vars(networked)} if not name.startswith("_")}
    methods = {name: getattr(aemp_gevent, name) for name in aemp_gevent.__all__}
    functions = {name for name, method in methods.items() if ismethod(method) or isbuiltin(method)}  # compiled
    assert len(functions) > 40
    assert names - functions == {*FOR_OPERATORS, "scheduler"}


def test_private_node_has_no_network_and_no_seeds() -> None:
    node = Node()
    assert access.network_of(node) is None
    assert access.seeds_down(node) == access.unheard_nodes(node) == {}


def test_nodes_in_the_directory_are_known(make_node: MakeNode) -> None:
    node = make_node()
    network = access.network_of(node)
    assert network is not None and network.node_id == node.NODE()
    assert access.known_nodes(node, 5.0) == [node.NODE()]


def test_reset_node_has_another_host_for_its_ports() -> None:
    node = Node()
    before = access.ports_host_of(node)
    node.reset()
    after = access.ports_host_of(node)
    assert after is not before and after.scheduler is node.scheduler
