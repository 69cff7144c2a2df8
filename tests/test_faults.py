# SPDX-License-Identifier: MIT
"""Real processes that stop, block, fall silent in one direction, or take nothing, with the default settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import gevent
import pytest

from aemp_gevent.testing import NodeProcess, Proxy, wait_until
from tests.support.networking import Deaths, Inbox, MakeNode
from tests.support.thoroughness import THOROUGH

SCALE = 1 if THOROUGH else 0.2
"""Of the times below."""

SLACK = 0 if THOROUGH else 2.0
"""Seconds for a busy machine, where times are short."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def port_of(process: NodeProcess) -> str:
    """Return a port there that sends a message back to the port that stands last in it."""
    port: str = process.run("mp.port(lambda *message: mp.snd(message[-1], *message[:-1]))")
    return port


class Timed(Deaths):
    """When a monitor fired, counted from when it was told to."""

    def __init__(self) -> None:
        super().__init__()
        self.began = monotonic()
        self.after = 0.0

    def __call__(self, *reason: Any) -> None:
        self.after = monotonic() - self.began
        super().__call__(*reason)


@pytest.mark.slow
def test_half_open_links_are_noticed_in_time_and_a_blocked_loop_is_forgiven(
    make_node: MakeNode, stack: ExitStack
) -> None:
    """With the defaults: what stops, or is silenced in one direction, is lost after 10 to 20 s.

    Beside it a node blocks its loop for 20 s, with a peer that would have waited for 60. All of this in a
    fifth of the time, unless tests are thorough.
    """
    node, patient = make_node(heartbeat_timeout=15 * SCALE), make_node(heartbeat_timeout=60 * SCALE)
    settings = {} if SCALE == 1 else {"heartbeat_timeout": 15 * SCALE}
    stopped = stack.enter_context(NodeProcess(**settings))
    blocked = stack.enter_context(NodeProcess(**settings))
    silenced: list[tuple[Proxy, NodeProcess]] = []
    for _ in range(2):
        proxy = stack.enter_context(Proxy())
        process = stack.enter_context(NodeProcess(proxy.address, binds=["127.0.0.1:0"], **settings))
        proxy.target = process.listens[0]
        silenced.append((proxy, process))
    ports = [port_of(process) for process in (stopped, *(process for _proxy, process in silenced))]
    for port in ports:
        assert node.syncal(10, port, "hello") == ("hello",)
    # Both sides of the blocked one watch each other.
    sink = Inbox(patient)
    theirs = port_of(blocked)
    unharmed = [Timed()]
    patient.mon(theirs, unharmed[0])
    patient.snd(theirs, "before", sink.port)
    wait_until(lambda: sink.messages, within=10)
    blocked.run(f"fired = []; mp.mon({sink.port!r}, lambda *reason: fired.append(reason)); None")
    deaths = [Timed() for _ in ports]
    for port, died in zip(ports, deaths, strict=True):
        node.mon(port, died)
    blocked.post(f"import time; time.sleep({20 * SCALE})")
    unblocked_at = monotonic() + 20 * SCALE
    for died in deaths:
        died.began = monotonic()
    stopped.stop()
    silenced[0][0].blackhole("in")
    silenced[1][0].blackhole("out")
    for died in deaths:
        assert died.wait(25)[0] == "transport_error"
        assert 10 * SCALE < died.after < 20 * SCALE + SLACK
    gevent.sleep(max(0.0, unblocked_at - monotonic()))
    patient.snd(theirs, "after", sink.port)
    wait_until(lambda: len(sink.messages) == 2, within=10)
    assert unharmed[0].count == 0
    assert blocked.run("fired") == []
    assert "event loop was blocked" in blocked.output
    assert "<posted command>" in blocked.output, "what blocked it is not named"


@pytest.mark.slow
def test_flood_of_a_stopped_peer_costs_no_memory_and_nobody_else(make_node: MakeNode, stack: ExitStack) -> None:
    """2 GB in a tight loop: the sender is paused until the peer is given up; then the rest is dropped."""
    node = make_node()
    sender = stack.enter_context(NodeProcess(heartbeat_timeout=4))
    victim = stack.enter_context(NodeProcess())
    echo, sink = port_of(sender), port_of(victim)
    sender.run(
        """
        import gevent.event
        lost = gevent.event.Event()
        mp.mon(sink, lambda *reason: lost.set())
        mp.syncal(10, mp.node_of(sink), "time")
        None
        """,
        sink=sink,
    )
    before = largest = sender.rss()
    victim.stop()
    sender.post(
        """
        chunk, sent = bytes(64 * 1024), 0
        while sent < 2 * 2**30:
            mp.snd(sink, chunk)
            sent += len(chunk)
        """
    )
    inbox = Inbox(node)
    slowest = 0.0
    deadline = monotonic() + 30
    while sender.run("sent < 2 * 2**30"):
        assert monotonic() < deadline, sender.run("sent")
        largest = max(largest, sender.rss())
        began, count = monotonic(), len(inbox.messages)
        node.snd(echo, "are you there?", inbox.port)
        wait_until(lambda: len(inbox.messages) > count)  # noqa: B023
        slowest = max(slowest, monotonic() - began)
        gevent.sleep(0.05)
    assert sender.run("lost.is_set()")
    assert largest - before < 100 * 2**20, f"{(largest - before) / 2**20:.0f} MiB more"
    assert slowest < 2.0
