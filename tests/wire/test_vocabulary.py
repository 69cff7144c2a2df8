# SPDX-License-Identifier: MIT
"""The names of requests stand in one module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import aemp_gevent
from aemp_gevent.node.requests import Requests
from aemp_gevent.wire import vocabulary

PACKAGE = Path(aemp_gevent.__file__).parent
NAMES = {key: value for key, value in vars(vocabulary).items() if key.isupper() and isinstance(value, str)}

AMBIGUOUS = {"after", "call", "can", "eval", "idle", "info", "inspect", "log", "refused", "relay", "snd", "time", "via"}
"""Words that the package also uses for other things, such as the keys of a report."""


def test_each_request_has_one_name_in_the_vocabulary():
    assert len(set(NAMES.values())) == len(NAMES)
    assert {key for key in NAMES if key.startswith("G_")} == {name.upper() for name in vocabulary.DIRECTORY}


def test_node_port_handles_what_the_vocabulary_lists():
    # which never reach the node port
    between_links = {"after", "refused", "idle", "stay", "beats", "unblocked", "via_up", "via_down", "via_state"}
    assert set(Requests._TABLE) >= set(NAMES.values()) - between_links


SENDING = {"ask", "cal", "call", "reporting", "snd", "syncal"}
"""Functions that take the name of a request."""


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Yield the names of requests that stand as literals in a module."""
    tree = ast.parse(source)
    slots = {
        each
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"
        for each in ast.walk(node.value)
    }  # which name attributes
    for node in ast.walk(tree):
        if node in slots:
            continue
        if isinstance(node, ast.List) and len(node.elts) > 1 and getattr(node.elts[0], "value", None) == "":
            name = getattr(node.elts[1], "value", None)  # ["", "time", …] is a packet
            if isinstance(name, str) and name in NAMES.values():
                yield node.lineno, name
        elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in SENDING:
            for argument in node.args[1:]:  # after the node or the port
                name = getattr(argument, "value", None)
                if isinstance(name, str) and name in AMBIGUOUS:
                    yield node.lineno, name
        elif isinstance(node, ast.Constant) and node.value in set(NAMES.values()) - AMBIGUOUS:
            yield node.lineno, node.value


@pytest.mark.no_cover
@pytest.mark.slow
def test_no_other_module_spells_requests_out():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "vocabulary.py"
        for line, name in literals(path.read_text("utf-8"))
    ]
    assert found == []


def test_literals_are_found_in_packets_calls_and_comparisons():
    source = 'peer.send(["", "time", port])\nif request == "mon1":\n    report["time"] = 1\nnode.call(other, "eval")\n'
    assert sorted(literals(source)) == [(1, "time"), (2, "mon1"), (4, "eval")]
