# SPDX-License-Identifier: MIT
"""What ``aemp log`` makes of the records that it gets."""

from __future__ import annotations

import json
import logging
from typing import Any

import gevent
import pytest

from aemp_gevent.cli.log import _Stream
from aemp_gevent.cli.node_queries import known_nodes
from tests.cli.helpers import Liar
from tests.support.helpers import wait_until
from tests.support.networking import WAIT, MakeNode, free_address
from tests.support.seams import log_feed_of

RECORD = {"time": 0, "node": "x", "level": "INFO", "name": "some", "text": "something"}


@pytest.mark.parametrize(
    "record",
    [
        pytest.param({"time": "now"}, id="time"),
        pytest.param({"time": float("inf")}, id="endless"),
        pytest.param({"level": None}, id="level"),
        pytest.param({"text": 5}, id="text"),
        pytest.param({"left_out": "\x1b[2J"}, id="left_out"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_invalid_record_is_left_out(capsys: pytest.CaptureFixture[str], record: dict[str, Any], as_json: bool) -> None:
    stream = _Stream(Liar(None), "info", as_json=as_json)  # type: ignore[arg-type]
    stream._heard("x", {**RECORD, **record})
    stream._heard("x", RECORD)
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert "something" in printed.out
    assert printed.err == "aemp: x sent an invalid log record: does it run another version?\n"


def test_records_name_the_node_that_sent_them(capsys: pytest.CaptureFixture[str]) -> None:
    _Stream(Liar(None), "info", as_json=True)._heard("y", RECORD)  # type: ignore[arg-type]
    assert json.loads(capsys.readouterr().out) == {**RECORD, "node": "y"}


def test_command_that_ends_while_it_looks_for_nodes_does_not_complain(
    make_node: MakeNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its question to the directory gets no answer then."""
    node = make_node(None)
    node.configure(seeds=[free_address()], secret="s")  # nobody answers there
    looking = gevent.spawn(known_nodes, node, WAIT)
    gevent.idle()
    node.shutdown(timeout=0)
    assert looking.get(timeout=WAIT) == []
    assert capsys.readouterr().err == ""


def test_command_that_ends_slowly_looks_for_nobody(
    make_node: MakeNode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is slow to take the last messages keeps it for some seconds."""
    monkeypatch.setattr("aemp_gevent.cli.log._LOOK_AGAIN_SECONDS", 0.001)
    far, node = make_node(), make_node()
    node.mon(far.NODE(), lambda *_reason: None)
    wait_until(node.up_nodes)
    stream = _Stream(node, "info", as_json=True)
    level = logging.getLogger("aemp_gevent").level
    following = gevent.spawn(stream.follow, [])
    try:
        wait_until(lambda: log_feed_of(far).listeners)
        node.shutdown()
        for _ in range(10):  # it looks again as often: its timers are due first
            gevent.sleep(0.001)
        assert not following.dead
        assert capsys.readouterr().err == ""
    finally:
        following.kill()
        logging.getLogger("aemp_gevent").setLevel(level)
