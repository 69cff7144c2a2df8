# SPDX-License-Identifier: MIT
"""Sends and kills that are injected wherever other code can run: none is lost, doubled or late."""

from __future__ import annotations

import gc
import itertools
import logging
import random
import sys
from typing import Any

import greenlet
import pytest

from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from tests.support.injecting import Injector, between_bytecodes
from tests.support.seams import ports_of
from tests.support.settling import settle
from tests.support.thoroughness import sampled, tries


class Conversation:
    """Three ports of different kinds that talk to each other; the main greenlet is one of them."""

    def __init__(self, node: Any) -> None:
        self.node = node
        self.logs: dict[str, list[Any]] = {}
        self.deaths: list[Any] = []
        self.kept: list[str] = []

    def run(self, inject: Any, chosen: Any) -> Injector:
        node, snd = self.node, self.node.snd
        callback = self.callback = node.port(self.callback_body)
        body = self.body = node.port_async(self.own_greenlet)
        self.kept = [callback, body]
        for port in self.kept:
            self.logs[port] = []
            node.mon(port, lambda *reason: self.deaths.append(reason))
            node.mon(port, lambda *reason: self.deaths.append(reason))
        with node.attach() as me, Injector(lambda: inject(self), chosen) as injector:
            self.me = me
            self.logs[me] = []
            self.kept.append(me)
            snd(callback, "ping", me, 1)
            snd(body, "ping", me, 2)
            for wanted in (2, 1):
                self.take(me, "pong", wanted)
            snd(body, "tagged")
            snd(body, "ping", callback, 3)
            snd(body, "wait")
            self.logs[me].append(receive("done", timeout=5))
            sys.settrace(None)
            while (message := receive(timeout=0.0, default=None)) is not None:
                self.logs[me].append(message)
            greenlet.settrace(None)
            settle(node)
            while (message := receive(timeout=0.0, default=None)) is not None:
                self.logs[me].append(message)
        for port in (callback, body):
            node.kil(port)
        settle(node)
        return injector

    def take(self, me: str, tag: str, number: int) -> None:
        self.logs[me].append(receive([tag, number], timeout=5))

    def callback_body(self, *message: Any) -> None:
        self.logs[self.callback].append(message)
        if message[0] == "ping":
            self.node.snd(message[1], "pong", message[2])

    def own_greenlet(self) -> None:
        log = self.logs[self.body]
        me = SELF()
        while True:
            message = receive()
            log.append(message)
            if message[0] == "ping":
                self.node.snd(message[1], "pong", message[2])
            elif message[0] == "wait":
                self.node.snd(me, "last")
                log.append(receive("last", timeout=5))
                self.node.snd(self.me, "done")

    def heard(self, which: int) -> list[Any]:
        """Return what one of the ports got, but for what was injected."""
        return [message for message in self.logs[self.kept[which]] if message[0] != "injected"]

    def check(self) -> None:
        assert self.heard(0) == [("ping", self.me, 1), ("pong", 3)]
        assert [message[0] for message in self.heard(1)] == ["ping", "tagged", "ping", "wait", "last"]
        assert self.heard(2) == [("pong", 2), ("pong", 1), ("done",)]
        assert self.deaths == [(), (), (), ()]


@between_bytecodes
@pytest.mark.slow
@pytest.mark.parametrize("receiver", [0, 1, 2], ids=["callback", "own-greenlet", "attached"])
def test_a_send_injected_wherever_other_code_can_run_is_neither_lost_nor_doubled(node, receiver):
    def inject(conversation):
        if len(conversation.kept) > receiver:
            node.snd(conversation.kept[receiver], "injected")

    total = Conversation(node).run(inject, lambda _count: False).count
    assert total > 700, "the tracer sees the library"
    for point in sampled(range(1, total + 1), 120):
        conversation = Conversation(node)
        injector = conversation.run(inject, lambda count, point=point: count == point)
        try:
            conversation.check()
            assert conversation.logs[conversation.kept[receiver]].count(("injected",)) == injector.fired
        except BaseException:
            print(f"injected at point {point} of {total}: {conversation.logs}")
            raise


MOST_INJECTED = 400
"""Handling an injected message is traced as well, so that each can cause more than one: without a bound, thousands."""


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(tries(10, 60)))
def test_sends_injected_at_random_points_keep_their_order(node, seed):
    rng = random.Random(seed)
    print("seed", seed)
    conversation = Conversation(node)
    sent: dict[str, list[Any]] = {}
    numbers = itertools.count()

    def inject(conversation):
        port = rng.choice(conversation.kept)
        message = ("injected", next(numbers))
        node.snd(port, *message)
        sent.setdefault(port, []).append(message)

    share = rng.choice([0.002, 0.01, 0.05])
    conversation.run(inject, lambda _count: rng.random() < share and sum(map(len, sent.values())) < MOST_INJECTED)
    conversation.check()
    for port, messages in sent.items():
        assert [message for message in conversation.logs[port] if message[0] == "injected"] == messages


@pytest.mark.slow
def test_a_send_at_every_garbage_collection_is_neither_lost_nor_doubled(node):
    """The very points at which this interpreter collects: an allocation each, as the threshold is one object."""
    sent: dict[str, list[Any]] = {}
    numbers = itertools.count()
    busy: list[bool] = []
    conversation = Conversation(node)
    rng = random.Random(1)

    def collected(phase, _info):
        if phase == "start" and conversation.kept and not busy and len(sent.setdefault("all", [])) < 400:
            busy.append(True)
            message = ("injected", next(numbers))
            sent["all"].append(message)
            port = rng.choice(conversation.kept)
            node.snd(port, *message)
            sent.setdefault(port, []).append(message)
            busy.clear()

    thresholds = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(1, 1000, 1000)
    try:
        conversation.run(lambda _conversation: None, lambda _count: False)
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(collected)
    assert len(sent.pop("all")) > 50
    conversation.check()
    for port, messages in sent.items():
        assert [message for message in conversation.logs[port] if message[0] == "injected"] == messages


@between_bytecodes
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1], ids=["callback", "own-greenlet"])
def test_a_kill_injected_wherever_other_code_can_run_is_reported_once_and_leaves_no_port_stuck(node, victim, caplog):
    caplog.set_level(logging.CRITICAL)

    def scene(chosen):
        deaths: list[Any] = []
        ports: list[str] = []
        echo = node.port(node.snd)

        def body():
            while True:
                node.snd(*receive())

        other = node.port_async(body)
        ports += [echo, other]
        for port in ports:
            node.mon(port, lambda *reason: deaths.append(reason))
            node.mon(port, lambda *reason: deaths.append(reason))
        with node.attach() as me, Injector(lambda: node.kil(ports[victim], "injected"), chosen) as injector:
            for number in range(2):
                node.snd(echo, me, number)
                node.snd(other, me, number)
            settle(node)
            sys.settrace(None)
            greenlet.settrace(None)
            got = []
            while (message := receive(timeout=0, default=None)) is not None:
                got.append(message)
        for port in ports:
            node.kil(port, "end")
        settle(node)
        killed = ["injected"] * 2 if injector.fired else ["end"] * 2
        assert sorted(deaths) == sorted([(reason,) for reason in [*killed, "end", "end"]])
        assert ports_of(node) == {}
        return injector.count

    total = scene(lambda _count: False)
    assert total > 300, "the tracer sees the library"
    for point in sampled(range(1, total + 1), 60):
        scene(lambda count, point=point: count == point)
