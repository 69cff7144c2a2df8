# SPDX-License-Identifier: MIT
"""Exceptions that strike in the middle of our own code, at the recursion limit and from signal handlers: over links.

Each call either has its whole effect or none, and everything continues afterwards; or a link that was struck is lost,
and the monitors across it know.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
import zope.event

from aemp_gevent.errors import CallTimeout, PortDied, RemoteError
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import LastAction
from aemp_gevent.settings.fields import Settings
from tests.support.helpers import wait_until
from tests.support.injecting import SCHEDULER, Injector, strike_points
from tests.support.networking import Deaths, Inbox, MakeNode, node_factory, settled_tables, tables
from tests.support.seams import network_of
from tests.support.settling import settle
from tests.support.striking import DEPTHS, STRIKES, at_every_depth, from_afar, nothing, strike_in_turn

# Coverage traces, too, and would be struck as well.
pytestmark = [pytest.mark.usefixtures("quiet_hub"), pytest.mark.no_cover]


LINKS = (
    *("node/sending.py", "runtime/hub_calls.py"),
    *("peers/outbox.py", "peers/peer.py", "peers/link_choice.py", "peers/sending.py", "peers/thread_handover.py"),
    *("peers/remote_port.py", "peers/remote_ports.py", "peers/peer_monitors.py"),
    *("links/link.py", "links/outgoing.py", "links/backlog_transport.py", "wire/fragments.py"),
    *("links/handshaking.py", "links/flow_control.py"),
    *("transport/transport.py", "transport/tls_transport.py"),
    *SCHEDULER,
)


class Linked:
    """Two nodes, one of which sends to and calls ports of the other."""

    def __init__(self, make_node: MakeNode, **settings: Any) -> None:
        self.node, self.other = make_node(**settings), make_node(**settings)
        self.inbox = Inbox(self.other)
        self.server = self.serve()
        self.lost: list[tuple[object, ...]] = []
        self.node.mon(self.inbox.port, lambda *reason: self.lost.append(reason))
        self.echo()
        self.sent: list[object] = []

    def serve(self) -> str:
        port = self.other.port()
        self.other.serve(port, echo=lambda value: value)
        return port

    def send(self, value: object, *load: object) -> None:
        self.node.snd(self.inbox.port, value, *load)
        self.sent.append(value)

    def echo(self) -> None:
        assert self.node.call(self.server, "echo", 1, timeout=5) == 1

    def monitor(self) -> None:
        port = self.other.port()
        died: list[tuple[object, ...]] = []
        self.node.mon(port, lambda *reason: died.append(reason))
        self.node.kil(port, "killed")
        wait_until(lambda: died, within=5)

    def steps(self) -> Iterator[Callable[[], object]]:
        yield lambda: [self.send(number) for number in range(3)]
        yield self.echo
        yield self.monitor
        yield lambda: self.send("large", "x" * 300_000)
        yield lambda: from_afar(self.node.snd, self.inbox.port, "from afar")
        yield self.echo

    def check(self) -> None:
        """Check that everything accepted arrived in order or was reported lost, and that the nodes still work."""

        def arrived() -> list[object]:
            return [message[0] for message in self.inbox.messages if message[0] in self.sent]

        wait_until(lambda: self.lost or arrived() == self.sent, within=5, show=lambda: (self.sent, arrived()))
        assert arrived() == self.sent[: len(arrived())]

        def works() -> bool:
            with contextlib.suppress(PortDied):
                self.server = self.serve()  # the former may have died of what struck
                self.echo()
                self.monitor()
                return True
            return False

        wait_until(works, within=5)
        for node in (self.node, self.other):
            settle(node)


def play_linked(make_node: MakeNode, error: type[BaseException] | None, chosen: Callable[[int], bool]) -> int:
    """As :func:`play`, with two nodes."""
    scene = Linked(make_node)

    def strike() -> None:
        if error is not None:
            raise error

    with Injector(strike, chosen, strike_points, LINKS) as injector:
        for step in scene.steps():
            with contextlib.suppress(KeyboardInterrupt, MemoryError, CallTimeout, PortDied, RemoteError):
                step()
    for _ in range(3):
        with contextlib.suppress(KeyboardInterrupt):
            gevent.sleep(0.002)
    scene.check()
    return injector.count


@pytest.mark.slow
@pytest.mark.parametrize("error", STRIKES)
def test_an_interrupt_anywhere_in_a_link_loses_nothing_in_silence(make_node, error):
    count = play_linked(make_node, None, lambda _: False)
    assert count > 300
    strike_in_turn(lambda point: play_linked(make_node, error, lambda seen: seen == point), count, 150)


LOSSES = (
    *("node/node.py", "node/linked_node.py", "node/local_node.py", "node/sending.py", "node/node_monitors.py"),
    *("peers/network.py", "peers/peer.py", "peers/link_choice.py", "peers/direct_peer.py", "peers/sending.py"),
    *("peers/remote_port.py", "peers/remote_ports.py", "peers/peer_monitors.py"),
    *("links/link.py", "links/outgoing.py", "links/handshaking.py"),
    "ports/monitors.py",
    *SCHEDULER,
)


def lose_struck(
    make_node: MakeNode, subscribers: list[Any], error: type[BaseException], chosen: Callable[[int], bool]
) -> int:
    """Lose a link, struck at the chosen points; return how many there are."""
    node, other = make_node(), make_node()
    inbox = Inbox(other)
    died: list[int] = []
    ports = [inbox.port, other.port()]
    for number in range(4):
        node.mon(ports[number % 2], lambda *_, number=number: died.append(number))
    node.mon(other.NODE(), lambda *_: died.append(4))
    node.flush()
    links: list[object] = []
    for number in range(2):
        node.mon_nodes(lambda *change, number=number: links.append((number, *change[:2])))
    subscribers.append(lambda event: links.append(event.node) if event.by == node.NODE() else None)
    link = network_of(node).peer(other.NODE()).link

    def strike() -> None:
        raise error

    with Injector(strike, chosen, strike_points, LOSSES, lambda: link.why) as injector:  # type: ignore[union-attr]
        with contextlib.suppress(KeyboardInterrupt, MemoryError):
            link.fail("cut by the test")  # type: ignore[union-attr]
        with contextlib.suppress(KeyboardInterrupt, MemoryError):
            node.port()
    wait_until(lambda: sorted(set(died)) == list(range(5)), within=3, show=lambda: died)
    assert len(died) == 5
    node.scheduler.enqueue_job(CallJob(None, links.append, ("end",)))
    wait_until(lambda: "end" in links, within=3)
    assert links == [(0, other.NODE(), False), (1, other.NODE(), False), other.NODE(), "end"]
    subscribers.clear()
    node.mon(inbox.port, nothing)
    node.snd(inbox.port, "afterwards")
    wait_until(lambda: inbox.messages == [("afterwards",)], within=3, show=lambda: inbox.messages)
    return injector.count


@pytest.mark.slow
@pytest.mark.parametrize("error", STRIKES)
def test_monitors_fire_though_an_interrupt_strikes_while_the_link_is_lost(monkeypatch, error):
    """And listeners to links get the news once."""
    subscribers: list[Any] = []
    monkeypatch.setattr(zope.event, "subscribers", subscribers)
    with node_factory() as make_node:
        count = lose_struck(make_node, subscribers, error, lambda _: False)
    assert count > 50

    def lose(point: int) -> None:
        with node_factory() as make_node:
            subscribers.clear()
            lose_struck(make_node, subscribers, error, lambda seen: seen == point)

    strike_in_turn(lose, count)


@pytest.mark.usefixtures("open_scheduler")
@pytest.mark.parametrize("loss", ["of-the-link", "of-the-port"])
@pytest.mark.parametrize("strikes", [1, 2])
def test_a_port_can_be_reached_though_the_report_of_its_loss_was_struck_when_all_monitors_had_fired(
    make_node, monkeypatch, loss, strikes
):
    """The last step was missing, which opens the port again: who monitored it then never heard of anything."""
    node, other = make_node(), make_node()
    inbox, died, again = Inbox(other), Deaths(), Deaths()
    node.mon(inbox.port, died)
    node.flush()
    peer = network_of(node).peer(other.NODE())
    enqueue, struck = node.scheduler.enqueue_job, []

    def be_struck(job: Any) -> None:
        if isinstance(job, LastAction) and len(struck) < strikes:
            struck.append(job)
            raise KeyboardInterrupt
        enqueue(job)

    monkeypatch.setattr(node.scheduler, "enqueue_job", be_struck)
    if loss == "of-the-port":
        other.kil(inbox.port, "killed")
    else:
        with contextlib.suppress(KeyboardInterrupt):
            peer.link.fail("cut by the test")
    with contextlib.suppress(KeyboardInterrupt):
        assert died.wait()[0] == ("killed" if loss == "of-the-port" else "transport_error")
    wait_until(lambda: len(struck) == strikes, within=5)
    node.mon(inbox.port, again)
    if loss == "of-the-port":
        again.wait()
    else:
        node.snd(inbox.port, "afterwards")
        wait_until(lambda: inbox.messages == [("afterwards",)], within=5, show=lambda: inbox.messages)
        assert again.count == 0
    assert died.count == 1


@pytest.mark.usefixtures("open_scheduler")
def test_late_monitors_fire_though_the_end_of_a_loss_is_struck(make_node, monkeypatch):
    node, other = make_node(), make_node()
    inbox, late = Inbox(other), Deaths()
    node.mon(inbox.port, lambda *_: node.mon(inbox.port, late))
    node.mon(inbox.port, nothing)
    node.flush()
    enqueue, struck = node.scheduler.enqueue_first, []

    def be_struck(jobs: Any) -> None:
        if jobs and not struck:
            struck.append(jobs)
            raise KeyboardInterrupt
        enqueue(jobs)

    monkeypatch.setattr(node.scheduler, "enqueue_first", be_struck)
    network_of(node).peer(other.NODE()).link.fail("cut by the test")
    with contextlib.suppress(KeyboardInterrupt):
        late.wait()
    assert late.wait() == ("transport_error", other.NODE(), "cut by the test")
    assert struck


def report_struck(make_node: MakeNode, error: type[BaseException], chosen: Callable[[int], bool]) -> int:
    """Report the loss of a port, struck at the chosen points; return how many there are."""
    node, other = make_node(), make_node()
    inbox, died, late = Inbox(other), Deaths(), Deaths()
    node.mon(inbox.port, died)
    node.flush()
    network_of(node).peer(other.NODE()).link.fail("cut by the test")  # type: ignore[union-attr]
    node.mon(inbox.port, late)

    def strike() -> None:
        raise error

    with Injector(strike, chosen, strike_points, ("peers/remote_ports.py", "ports/jobs.py")) as injector:
        wait_until_all_ran(node)
    assert late.wait() == ("transport_error", other.NODE(), "cut by the test")
    wait_until_all_ran(node)
    assert died.count == late.count == 1
    node.mon(inbox.port, nothing)
    node.snd(inbox.port, "afterwards")
    wait_until(lambda: inbox.messages == [("afterwards",)], within=3, show=lambda: inbox.messages)
    return injector.count


def wait_until_all_ran(node: LocalNode) -> None:
    while node.scheduler.jobs:
        with contextlib.suppress(KeyboardInterrupt):
            gevent.sleep(0)


@pytest.mark.slow
@pytest.mark.parametrize("error", STRIKES)
def test_late_monitors_fire_and_the_port_is_open_wherever_the_report_of_its_loss_is_struck(error):
    def report(chosen: Callable[[int], bool]) -> int:
        with node_factory() as make_node:
            return report_struck(make_node, error, chosen)

    count = report(lambda _: False)
    assert count > 10
    strike_in_turn(lambda point: report(lambda seen: seen == point), count)


def test_a_loss_that_is_struck_is_made_again_though_another_attempt_failed_in_the_middle(make_node, monkeypatch):
    node, other = make_node(), make_node()
    inbox, died, changes = Inbox(other), Deaths(), []
    node.mon(inbox.port, died)
    node.flush()
    node.mon_nodes(lambda name, is_up, *_why: changes.append((name, is_up)))
    network = network_of(node)
    link_down, struck = network.link_down, []

    def fail_and_be_struck(peer: Any, *args: Any) -> None:
        if not struck:
            struck.append(peer)
            peer.attempt_failed("there is no way")
            raise KeyboardInterrupt
        link_down(peer, *args)

    monkeypatch.setattr(network, "link_down", fail_and_be_struck)
    with contextlib.suppress(KeyboardInterrupt):
        network.peer(other.NODE()).link.fail("cut by the test")
    with contextlib.suppress(KeyboardInterrupt):
        died.wait()
    wait_until(lambda: changes, within=5)
    assert struck
    assert changes == [(other.NODE(), False)]
    assert died.wait() == ("transport_error", other.NODE(), "cut by the test")
    assert died.count == 1


def test_a_loss_that_only_the_hub_can_complete_is_reported_though_something_is_sent_before(make_node, monkeypatch):
    """Nobody can dial a slave, so the attempt fails at once, between the beginning of the loss and its end."""
    node = make_node()
    slave = make_node("slave/", node.NODE())
    inbox, died, changes = Inbox(slave), Deaths(), []
    node.mon(inbox.port, died)
    node.flush()
    node.mon_nodes(lambda name, is_up, *_why: changes.append((name, is_up)))
    network = network_of(node)
    link_down, struck = network.link_down, []

    def be_struck(*args: Any) -> None:
        if len(struck) < 2:
            struck.append(args)
            raise RecursionError
        link_down(*args)

    monkeypatch.setattr(network, "link_down", be_struck)
    with pytest.raises(RecursionError):
        network.peer(slave.NODE())._lose("cut by the test")
    node.snd(slave.port(), "lost")  # not to the port that is monitored, which is closed
    wait_until(lambda: changes, within=5)
    assert len(struck) == 2
    assert changes[0] == (slave.NODE(), False)
    assert died.wait() == ("transport_error", slave.NODE(), "cut by the test")
    assert died.count == 1


@pytest.mark.usefixtures("open_scheduler")
@pytest.mark.parametrize("is_up", [False, True], ids=["next-link-is-made", "next-link-is-up"])
def test_a_loss_that_is_struck_and_begun_again_does_not_end_the_next_link(make_node, monkeypatch, is_up):
    """The strike comes when the hub was asked to see the loss through, which it does late: after it was begun again."""
    node, other = make_node(), make_node()
    inbox, died, again = Inbox(other), Deaths(), Deaths()
    node.mon(inbox.port, died)
    node.flush()
    asked: list[Callable[[], object]] = []

    def ask_and_be_struck(call: Callable[..., object], *args: object) -> None:
        if asked:
            ask(call, *args)
        else:
            asked.append(call)
            raise KeyboardInterrupt

    ask = node.scheduler.call_on_hub

    monkeypatch.setattr(node.scheduler, "call_on_hub", ask_and_be_struck)
    with contextlib.suppress(KeyboardInterrupt):
        network_of(node).peer(other.NODE()).link.fail("cut by the test")
    assert died.wait() == ("transport_error", other.NODE(), "cut by the test")
    node.mon(inbox.port, again)
    node.snd(inbox.port, "first")
    if is_up:
        wait_until(lambda: inbox.messages, within=5)
    asked[0]()
    node.snd(inbox.port, "second")
    wait_until(lambda: len(inbox.messages) == 2, within=5, show=lambda: inbox.messages)
    assert inbox.messages == [("first",), ("second",)]
    assert again.count == 0


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 100_000], ids=["small", "in-fragments"])
def test_snd_over_a_link_at_the_recursion_limit_sends_or_does_not(make_node, size):
    scene = Linked(make_node)
    failed = 0
    send, load = scene.node.snd, "x" * size
    for number, error in enumerate(at_every_depth(lambda number: send(scene.inbox.port, number, load))):
        scene.echo()
        send(scene.inbox.port, "behind")
        wait_until(lambda: ("behind",) in scene.inbox.messages)
        assert [message[0] for message in scene.inbox.messages] == ([] if error else [number]) + ["behind"]
        scene.inbox.messages.clear()
        failed += error is not None
    assert failed > 5  # it is deeper than its own first step
    scene.check()


@pytest.mark.slow
def test_what_another_thread_sent_is_kept_though_who_passes_it_on_is_at_the_recursion_limit(make_node):
    scene = Linked(make_node)

    def send(number: int) -> None:
        scene.node.snd(scene.inbox.port, number, "mine")

    for number, error in enumerate(
        at_every_depth(send, lambda number: from_afar(scene.node.snd, scene.inbox.port, number))
    ):
        scene.echo()
        assert scene.inbox.messages == [(number,), *([] if error else [(number, "mine")])]
        scene.inbox.messages.clear()
    scene.check()


REMOTE_CALLS: dict[str, Callable[[LocalNode, str, Callable[..., object]], object]] = {
    "mon": lambda node, port, died: node.mon(port, died),
    "mon-more": lambda node, port, died: (node.mon(port, nothing), node.mon(port, died)),
    "mon_guard": lambda node, port, died: node.mon_guard(port, Closing(died)),
    "cal": lambda node, port, died: node.cal(port, "x", cb=died),
    "call_async": lambda node, port, died: node.call_async(port, "x", timeout=None).rawlink(died),
}


class Closing:
    """What calls a function when it is closed."""

    def __init__(self, close: Callable[..., object]) -> None:
        self.close = close


@pytest.mark.slow
@pytest.mark.parametrize("name", REMOTE_CALLS)
def test_who_watches_over_a_link_hears_of_the_death_though_a_call_before_was_at_the_recursion_limit(make_node, name):
    """The call is whole, or it left nothing behind; and the next one to watch the port does hear of its death."""
    scene = Linked(make_node)
    node, other = scene.node, scene.other
    call = REMOTE_CALLS[name]
    # Two calls of each port: what is looked up only the first time goes deeper than what is tested here.
    ports = [other.port(nothing) for _ in range(DEPTHS)]
    for port in ports:
        node.mon(port, nothing).cancel()
    before = settled_tables(node, other)
    died: list[int] = []
    for number, error in enumerate(
        at_every_depth(lambda number: call(node, ports[number], lambda *_: died.append(number)))
    ):
        if error:
            node.flush()
            assert tables(node, other) == before
            call(node, ports[number], lambda *_, number=number: died.append(number))
        other.kil(ports[number], "end")
        wait_until(lambda: number in died, within=5, show=lambda: (number, died))  # noqa: B023
        before[1] = (before[1][0] - 1, *before[1][1:])
        wait_until(lambda: tables(node, other) == before, within=5, show=lambda: (tables(node, other), before))
    assert sorted(died) == list(range(DEPTHS))
    scene.check()


@pytest.mark.slow
@pytest.mark.parametrize("call", ["kil", "spawn"])
def test_what_changes_another_node_at_the_recursion_limit_does_it_or_does_not(make_node, call):
    node, other = make_node(), make_node(allow_spawn=["tests.support.striking.*"])
    ports = [other.port() for _ in range(DEPTHS)]
    for port in ports:
        node.mon(port, nothing)
    node.flush()

    def make(number: int) -> None:
        if call == "kil":
            node.kil(ports[number])
        else:
            node.spawn(other.NODE(), "tests.support.striking.nothing")

    there = tables(other)[0][0]
    for error in at_every_depth(make):
        node.flush()
        there += 0 if error else (-1 if call == "kil" else 1)
        assert tables(other)[0][0] == there


@pytest.mark.slow
def test_a_link_that_is_at_its_hard_limit_at_the_recursion_limit_is_kept_or_its_loss_is_reported(
    make_node, monkeypatch
):
    scene = Linked(make_node)
    node, other = scene.node, scene.other
    ports = [other.port() for _ in range(DEPTHS)]
    limit = 2**30
    monkeypatch.setattr(Settings, "hard_limit_bytes", property(lambda _: limit))
    died: list[int] = []

    def kill(number: int) -> None:
        node.kil(ports[number], "x" * 1000)

    def before(number: int) -> None:
        nonlocal limit
        for port in (ports[number], scene.inbox.port):
            node.mon(port, lambda *_: died.append(number))
        node.flush()
        limit = 500  # less than what is about to be sent

    def answers() -> bool:
        with contextlib.suppress(PortDied):  # the other side may not have noticed that the link is gone
            scene.echo()
            return True
        return False

    def is_settled(number: int) -> bool:
        return died.count(number) == 2 or (died.count(number) == 1 and (number,) in scene.inbox.messages)

    lost = 0
    for number, error in enumerate(at_every_depth(kill, before)):
        limit = 2**30
        node.snd(scene.inbox.port, number)
        if error:
            kill(number)
        wait_until(lambda: is_settled(number), within=3, show=lambda: (died, scene.inbox.messages))  # noqa: B023
        lost += died.count(number) == 2
        wait_until(answers, within=5)
    assert lost > 20


UNREACHED: dict[str, Callable[[LocalNode, str, Callable[..., object]], object]] = {
    **REMOTE_CALLS,
    "mon-node": lambda node, port, died: node.mon(node.node_of(port), died),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", UNREACHED)
def test_a_node_is_dialled_though_the_call_that_wanted_it_was_at_the_recursion_limit(make_node, name):
    """The monitors of the next call fire, as there is nobody at that address."""
    node = make_node()
    node.mon("unix:/nowhere/first#port", nothing)  # what is imported, and looked up, once
    call = UNREACHED[name]
    died: list[int] = []

    def port(number: int) -> str:
        return f"unix:/nowhere/{number}#port"

    failed = 0
    for number, error in enumerate(
        at_every_depth(lambda number: call(node, port(number), lambda *_: died.append(number)))
    ):
        if error:
            failed += 1
            call(node, port(number), lambda *_, number=number: died.append(number))
        wait_until(lambda: number in died, within=3, show=lambda: (number, died))  # noqa: B023
    assert failed > 5
    assert sorted(died) == list(range(DEPTHS))
    assert tables(node)[0][:2] == (0, 0)


@pytest.mark.slow
def test_a_port_can_be_monitored_though_a_call_before_a_dial_was_at_the_recursion_limit(make_node):
    """In the pause after a dial that failed, the call fails at once. No link is lost later that would open the port."""
    node = make_node()
    node.mon("unix:/nowhere#first", nothing)
    peer = network_of(node).peer("unix:/nowhere")
    wait_until(lambda: not peer.redialling.may_dial, within=5)
    died: list[int] = []
    failed = 0

    def pause(_number: int) -> None:
        peer.redialling.at = time.monotonic() + 600

    for number, error in enumerate(
        at_every_depth(lambda number: node.mon(f"unix:/nowhere#{number}", lambda *_: died.append(number)), pause)
    ):
        settle(node)
        if error:
            failed += 1
            node.mon(f"unix:/nowhere#{number}", lambda *_, number=number: died.append(number))
        wait_until(lambda: number in died, within=3, show=lambda: (number, died))  # noqa: B023
    assert failed > 5
    assert sorted(died) == list(range(DEPTHS))


@pytest.mark.slow
def test_who_watches_a_family_hears_of_it_though_a_call_before_was_at_the_recursion_limit(make_node):
    node = make_node()
    other = make_node("127.0.0.1:0", node.NODE())
    assert other.wait_for_seeds(5)
    other.db_mon("first", nothing)  # what is looked up once
    heard: list[int] = []
    failed = 0
    for number, error in enumerate(
        at_every_depth(lambda number: other.db_mon(f"{number}", lambda *_: heard.append(number)))
    ):
        if error:
            failed += 1
            other.db_mon(f"{number}", lambda *_, number=number: heard.append(number))
        wait_until(lambda: number in heard, within=3, show=lambda: (number, heard))  # noqa: B023
    assert failed > 5
    assert sorted(heard) == list(range(DEPTHS))


@pytest.mark.slow
@pytest.mark.parametrize("call", ["db_set", "db_del"])
def test_an_entry_is_published_as_it_is_kept_though_the_call_was_at_the_recursion_limit(make_node, call):
    node = make_node()
    other = make_node("127.0.0.1:0", node.NODE())
    assert other.wait_for_seeds(5)
    copies: dict[str, dict[str, Any]] = {}
    for name in ("first", *map(str, range(DEPTHS))):
        other.db_mon(name, lambda entries, *_, name=name: copies.update({name: dict(entries)}))
    for name in ("first", *(map(str, range(DEPTHS)) if call == "db_del" else ())):
        other.db_set(name, "key", 1)
    other.db_del("first", "key")  # what is looked up once
    assert other.flush()

    def change(number: int) -> None:
        if call == "db_set":
            other.db_set(f"{number}", "key", 1)
        else:
            other.db_del(f"{number}", "key")

    def agree(number: int) -> bool:
        kept = dict(other._directory.own.get(f"{number}", {}))
        return node.db_family(f"{number}") == copies.get(f"{number}") == kept

    failed = 0
    for number, error in enumerate(at_every_depth(change)):
        wait_until(lambda: agree(number), within=3, show=lambda: (number, copies))  # noqa: B023
        if error:
            failed += 1
            change(number)  # the same value: an entry that is kept and was not published would stay so
        wait_until(lambda: agree(number), within=3, show=lambda: (number, copies))  # noqa: B023
        assert copies[f"{number}"] == ({"key": 1} if call == "db_set" else {})
    assert failed > 5
