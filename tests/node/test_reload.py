# SPDX-License-Identifier: MIT
"""Reading the settings again while the node is up."""

from __future__ import annotations

import pytest

from aemp_gevent.errors import InvalidSettingError, UsageError
from tests.support.authority import shared_certificate
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, WAIT, Deaths, MakeNode


@pytest.mark.slow
def test_new_secret_applies_to_new_links_and_others_stay_up(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    friend = make_node("127.0.0.1:0", node.NODE())
    wait_until(lambda: node.up_nodes() == [friend.NODE()])
    assert node.reload(nodeid="127.0.0.1:0", seeds=[], secret=["another", SECRET]) == []
    newcomer = make_node("127.0.0.1:0", node.NODE(), secret="another")
    wait_until(lambda: newcomer.up_nodes() == [node.NODE()], within=WAIT)
    node.reload(nodeid="127.0.0.1:0", seeds=[], secret="third")
    late = make_node("127.0.0.1:0", node.NODE(), secret="another")
    assert late.wait_for_seeds(WAIT)
    assert late.up_nodes() == []
    assert sorted(node.up_nodes()) == sorted([friend.NODE(), newcomer.NODE()])


def test_new_rules_apply_to_linked_peers(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    friend = make_node("127.0.0.1:0", node.NODE())
    one, two = node.port(), node.port()
    died, lived = Deaths(), Deaths()
    friend.mon(one, died)
    friend.mon(two, lived)
    friend.kil(one, "first")
    assert died.wait() == ("first",)
    given = {"nodeid": "127.0.0.1:0", "seeds": [], "secret": SECRET}
    assert node.reload(**given, rules=[{"peer": "*", "kill": False}]) == []
    friend.kil(two, "second")
    wait_until(lambda: node.refusals.get("kill") == 1, within=WAIT)
    node.reload(**given)
    friend.kil(two, "third")
    assert lived.wait() == ("third",)


def test_new_rules_apply_to_slaves_and_their_masters(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    master = make_node("127.0.0.1:0", node.NODE())
    slave = make_node("slave/s", master.NODE())
    port = node.port()
    assert slave.syncal(WAIT, node.NODE(), "time")
    node.reload(nodeid="127.0.0.1:0", seeds=[], secret=SECRET, rules=[{"peer": master.NODE(), "kill": False}])
    slave.kil(port, "by way of my master")
    wait_until(lambda: node.refusals.get("kill") == 1, within=WAIT)


def test_settings_that_need_a_restart_are_returned_and_stay(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    fixed = node.reload(
        nodeid="elsewhere", seeds=["127.0.0.1:9"], secret=SECRET, monitor_timeout=3, secure=True, services=["x"]
    )
    assert fixed == ["nodeid", "seeds", "monitor_timeout"]
    assert node.settings is not None
    assert (node.settings.monitor_timeout, node.settings.secure, node.settings.seeds) == (30.0, True, ())


def test_whether_there_is_a_secret_at_all_cannot_change(make_node: MakeNode) -> None:
    given = {"nodeid": "127.0.0.1:0", "seeds": [], "cert": shared_certificate().pem()}
    node = make_node("127.0.0.1:0", secret=SECRET, cert=given["cert"])
    assert node.reload(**given) == ["secret"], "greetings say by which methods peers may prove themselves"
    assert node.settings is not None
    assert node.settings.secret == SECRET


def test_error_changes_nothing(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0")
    before = node.settings
    with pytest.raises(InvalidSettingError, match="monitor_timeout"):
        node.reload(secret="another", monitor_timeout="x")
    assert node.settings is before


def test_node_that_is_not_initialised_has_nothing_to_reload(make_node: MakeNode) -> None:
    with pytest.raises(UsageError, match="initialised"):
        make_node(None).reload(secret=SECRET)
