# SPDX-License-Identifier: MIT
"""The table of ports: one owner of their IDs and aliases."""

from __future__ import annotations

from typing import Any

import pytest

from aemp_gevent.errors import PortExistsError
from aemp_gevent.ports.port import REMOTE, Port
from aemp_gevent.ports.port_table import PortTable
from aemp_gevent.ports.scheduler import Scheduler


def entered(table: PortTable, *ids: str) -> list[Any]:
    """Make ports that do nothing, and add them."""
    blank = Scheduler().blank
    ports = [Port(port_id, blank, print) for port_id in ids]
    for port in ports:
        table.add(port)
    return ports


def test_a_port_is_found_by_its_id_until_it_is_removed() -> None:
    table = PortTable()
    (port,) = entered(table, "node#a")
    assert table.find("node#a") is port and dict(table.by_id) == {"node#a": port}
    for _ in range(2):
        table.remove(port)
        assert table.find("node#a") is None and not table.by_id


def test_a_port_of_another_node_is_read_but_not_found() -> None:
    table = PortTable()
    (port,) = entered(table, "other#a")
    port.state = REMOTE
    assert table.by_id["other#a"] is port and table.find("other#a") is None


def test_a_registered_name_reaches_its_port_and_goes_with_it() -> None:
    table = PortTable()
    (port,) = entered(table, "node#a")
    table.register(port, "node#name")
    assert table.find("node#name") is port and table.registered("node#name") == "node#a"
    assert table.names_of(port) == ("node#a", "node#name")
    table.remove(port)
    assert not table.by_id and table.names_of(port) == ("node#a",)


def test_a_port_has_one_name_and_a_name_one_port() -> None:
    table = PortTable()
    first, second = entered(table, "node#a", "node#b")
    table.register(first, "node#former")
    table.register(first, "node#name")
    assert table.find("node#former") is None
    table.register(second, "node#name")
    assert table.find("node#name") is second and table.names_of(first) == ("node#a",)
    table.remove(first)
    assert table.find("node#name") is second


def test_the_id_of_a_port_is_not_registered_for_another() -> None:
    table = PortTable()
    first, second = entered(table, "node#a", "node#b")
    with pytest.raises(PortExistsError):
        table.register(first, second.id)
    assert table.registered(second.id) is None and table.find(second.id) is second


def test_ids_and_names_under_a_former_node_id_still_reach_their_ports() -> None:
    table = PortTable()
    port, other = entered(table, "former#a", "else#b")
    table.register(port, "former#name")
    table.rename("former#", "node#")
    assert port.id == "node#a" and other.id == "else#b"
    for port_id in ("node#a", "node#name", "former#a", "former#name"):
        assert table.find(port_id) is port
    table.register(port, "node#next")
    assert table.find("node#name") is None and table.find("former#a") is port
    table.remove(port)
    assert set(table.by_id) == {"else#b"}
