# SPDX-License-Identifier: MIT
"""Groups of ports, with every engine."""

from __future__ import annotations

from tests.support.directories import WAIT, MakeNodes
from tests.support.helpers import wait_until


def test_group_has_its_ports_until_they_die(directory_nodes: MakeNodes) -> None:
    one, other = directory_nodes(2)
    told: list[tuple[list[str], list[str], list[str]]] = []
    other.grp_mon("group", lambda ports, added, deleted: told.append((sorted(ports), sorted(added), sorted(deleted))))
    wait_until(lambda: told == [([], [], [])], within=WAIT, show=lambda: told)
    assert other.grp_get("group") is None
    first, second = one.port(), other.port()
    one.grp_reg("group", first)
    wait_until(lambda: other.grp_get("group") == [first], within=WAIT)
    with other.grp_reg("group", second):
        both = sorted([first, second])
        wait_until(lambda: sorted(one.grp_get("group") or []) == both, within=WAIT)
        one.db_reg("group", first, "a value is not a change of the group")
        one.kil(first)
        wait_until(lambda: one.grp_get("group") == other.grp_get("group") == [second], within=WAIT)
    wait_until(lambda: one.grp_get("group") is None and other.grp_get("group") is None, within=WAIT)
    wait_until(lambda: told[-1] == ([], [], [second]), within=WAIT, show=lambda: told)
    assert told == [
        ([], [], []),
        ([first], [first], []),
        (both, [second], []),
        ([second], [], [first]),
        ([], [], [second]),
    ]
