# SPDX-License-Identifier: MIT
"""Nodes in processes of their own, and what a node reports about itself."""

from __future__ import annotations

import os

import pytest

from tests.node.local import VALUES
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, Deaths, Inbox, MakeNode, line_of, process

# --- real processes --------------------------------------------------------------------------

CHILD = """
import os, sys
import aemp_gevent as mp

@mp.spawnable
def echo(reply):
    mp.rcv(mp.SELF(), lambda *message: mp.snd(reply, os.getpid(), *message))

mp.initialise_node("127.0.0.1:0")
mp.reg(mp.port(lambda *message: mp.snd(*message)), "relay")
print(mp.NODE(), flush=True)
with mp.attach():
    mp.receive()
"""


def test_two_processes_talk_and_one_learns_of_the_others_sudden_death(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node = make_node()
    inbox, died, gone = Inbox(node), Deaths(), Deaths()
    with process(CHILD) as child:
        there = line_of(child)
        node.mon(there, gone)
        echo = node.spawn(there, "__main__.echo", inbox.port)
        node.mon(echo, died)
        node.snd(echo, "hello", VALUES)
        node.snd(f"{there}#relay", inbox.port, "relayed")
        wait_until(lambda: len(inbox.messages) == 2)
        assert inbox.messages == [(child.pid, "hello", VALUES), ("relayed",)]
        assert child.pid != os.getpid()
        child.kill()
        assert died.wait()[:2] == ("transport_error", there)
        assert gone.wait()[:2] == ("transport_error", there)


def test_info_reports_the_nodes_identity(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    (info,) = one.syncal(5, two.NODE(), "info")
    assert info["node"] == two.NODE()
    assert info["provider"].startswith("aemp_gevent-")
    assert info["up_nodes"] == [one.NODE()]
    assert info["ports"] == 0
    assert info["pid"] > 0
