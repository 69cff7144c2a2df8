# SPDX-License-Identifier: MIT
"""Objects whose str() is a port ID can be given wherever a port can."""

from __future__ import annotations

from typing import Any

from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.receive import receive
from tests.node.local import Closable, Log, deaths_of
from tests.support.settling import settle, wait_for_timers


def test_snd_takes_objects(node, log, wrap):
    node.snd(wrap(node.port(log)), "x", 1)
    settle(node)
    assert log == [("x", 1)]


def test_kil_takes_objects(node, wrap):
    port = node.port()
    deaths = deaths_of(node, port)
    node.kil(wrap(port), "why")
    settle(node)
    assert deaths == [("why",)]


def test_mon_takes_objects_in_every_place(node, log, wrap):
    watched, linked, told = node.port(), node.port(), node.port(log)
    deaths = deaths_of(node, linked)
    called = Log()
    node.mon(wrap(watched), called)
    node.mon(wrap(watched), wrap(linked))
    node.mon(wrap(watched), wrap(told), "down")
    node.kil(watched, "why")
    settle(node)
    assert called == deaths == [("why",)]
    assert log == [("down", "why")]


def test_mon_guard_takes_objects(node, wrap):
    closed: list[Any] = []
    port = node.port()
    node.mon_guard(wrap(port), Closable(closed))
    node.kil(port)
    settle(node)
    assert closed == ["close"]


def test_rcv_takes_objects_and_returns_them(node, log, wrap):
    port = node.port()
    given = wrap(port)
    assert node.rcv(given, log) is given
    assert node.rcv(given, "tag", log) is given
    node.rcv(given, "decorated")(log)
    for message in (("default",), ("tag", 1), ("decorated", 2)):
        node.snd(port, *message)
    settle(node)
    assert log == [("default",), (1,), (2,)]


def test_reg_takes_objects(node, log, wrap):
    node.reg(wrap(node.port(log)), "service")
    node.snd(f"{node.NODE()}#service", "x")
    settle(node)
    assert log == [("x",)]


def test_after_takes_objects(node, log, wrap):
    node.after(0, wrap(node.port(log)), "x")
    wait_for_timers(node, 0.002)
    assert log == [("x",)]


def test_cal_and_syncal_take_objects(node, log, wrap):
    port = node.port(lambda *msg: node.snd(msg[-1], "answer"))
    node.cal(wrap(port), "x", cb=log)
    assert node.syncal(5, wrap(port), "x") == ("answer",)
    settle(node)
    assert log == [("answer",)]


def test_answers_may_be_sent_to_an_object(node, wrap):
    port = node.port(lambda *msg: node.snd(wrap(msg[-1]), "answer"))
    assert node.syncal(5, port, "x") == ("answer",)


def test_peval_and_rcv_async_take_objects(node, wrap):
    port = node.port()
    assert node.peval(wrap(port), SELF) == port
    given = wrap(port)
    seen = []
    assert node.rcv_async(given, lambda: seen.append(SELF())) is given
    settle(node)
    assert seen == [port]


def test_spawn_takes_objects(node, wrap):
    assert node.NODE(node.spawn(wrap(node.port()), "posixpath.join")) == node.NODE()
    settle(node)


def test_an_attachment_can_be_given_as_a_port(node):
    attachment = node.attach()
    node.snd(attachment, "x")
    assert receive(timeout=5) == ("x",)
    assert str(attachment) == attachment.port == SELF()
    attachment.detach()
