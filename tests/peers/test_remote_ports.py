# SPDX-License-Identifier: MIT
"""Ports that were reported dead stay dead, until they are monitored again or their node is another process."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
from gevent.event import Event

import aemp_gevent.peers.redialling
import aemp_gevent.peers.remote_port
import aemp_gevent.peers.remote_ports
from aemp_gevent.node.node import Node
from aemp_gevent.ports.monitors import LastAction
from tests.support.helpers import on_hub, wait_until
from tests.support.networking import (
    OUR_PROVIDER,
    UNIQUE,
    WAIT,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    reset,
)
from tests.support.seams import end_kept_watches, network_of, ports_of, request_host_of
from tests.support.settling import settle

PEER = "127.0.0.1:9"


SAME = (*OUR_PROVIDER, ("uniq", "one process"))


OTHER = (*OUR_PROVIDER, ("uniq", "another process"))


PERL = (("provider", "AE-2.02"),)


def test_dead_stays_dead_until_it_is_monitored_again(make_node: MakeNode) -> None:
    node = make_node()
    died, again = Deaths(), Deaths()
    with RawListener() as listener:
        port, other = f"{listener.id}#{UNIQUE}", f"{listener.id}#other"
        node.mon(port, died)
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.packet() == ["", "mon1", UNIQUE]
        died.wait()
        for number in range(3):  # it does not even dial for it
            node.snd(port, "shunned", number)
        assert node.up_nodes() == []
        node.snd(other, "not shunned")
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.packet() == ["other", "not shunned"]
            node.snd(port, "shunned")
            node.mon(port, again)
            node.snd(port, "alive")
            assert peer.take(2) == [["", "mon1", UNIQUE], [UNIQUE, "alive"]]
    again.wait()


def test_cancelled_monitor_does_not_fire_and_its_port_is_not_shunned(make_node: MakeNode) -> None:
    node, cancelled, died = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        port = f"{listener.id}#p"
        with node.mon(port, cancelled):
            pass
        node.mon(f"{listener.id}#q", died)
        listener.accept().shake().close()
        died.wait()
        node.snd(port, "hello")
        with listener.accept().shake() as peer:
            assert peer.packet() == ["p", "hello"]
    assert cancelled.count == 0


def test_ports_monitored_in_great_numbers_cost_the_same_each(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking through all of them for each new one, once there are many, would take minutes."""
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_REMOTE_PORTS", 100)
    node = make_node()
    with RawPeer.dial(node).shake():
        (peer,) = network_of(node).peers.values()
        peer.ports._sweep_at = 100
        looks = 0
        can_forget = peer.ports._can_forget

        def look(port: aemp_gevent.peers.remote_port.RemotePort) -> bool:
            nonlocal looks
            looks += 1
            return can_forget(port)

        monkeypatch.setattr(peer.ports, "_can_forget", look)
        guards = [node.mon(f"{PEER}#{number}", print) for number in range(3000)]
        assert looks < 10_000
        for guard in guards:
            guard.cancel()
        for number in range(10_000):
            node.snd(f"{PEER}#other{number}", 1)
        assert len(peer.ports._ports) < 7000, "those that nobody needs are forgotten"


def spawned(node: Node, peer: RawPeer) -> str:
    """Spawn a port at the peer, which notes it, and return its name."""
    name = node.spawn(peer.name, "some.function", 1).partition("#")[2]
    assert peer.take(2) == [["", "AnyEvent::MP::_spawn", name, "some.function", 1], ["", "mon1", name]]
    return name


def test_orphans_are_killed_before_anything_else_when_the_link_returns(make_node: MakeNode) -> None:
    node, down = make_node(), Deaths()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        names = [spawned(node, peer) for _ in range(3)]
        node.mon(PEER, down)
        peer.send(["", "kil0", names[1], "died meanwhile"])
        assert peer.answers()
    down.wait()
    for name in names:
        node.snd(f"{PEER}#{name}", "to the dead")
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        orphans = (names[0], names[2])
        assert [packet[:4] for packet in peer.take(2)] == [["", "kil1", name, "transport_error"] for name in orphans]
        assert peer.take(2) == [["", "mon1", name] for name in orphans]
        for name in orphans:
            peer.send(["", "kil0", name, "killed"])
        assert peer.answers()
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        assert peer.answers(), "killed once more, and its end had been heard of"


def test_orphans_are_killed_again_when_the_link_is_lost_before_their_end_was_heard_of(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        name = spawned(node, peer)
    wait_until(lambda: not node.up_nodes())
    for _ in range(3):
        with RawPeer.dial(node, extras=SAME).shake() as peer:
            assert [packet[:3] for packet in peer.take(2)] == [["", "kil1", name], ["", "mon1", name]]
        wait_until(lambda: not node.up_nodes())


def test_orphan_that_was_monitored_meanwhile_dies_and_its_monitor_fires(make_node: MakeNode) -> None:
    node, died, lost = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        node.mon(listener.id, lost)
        with listener.accept(extras=SAME).shake() as peer:
            name = spawned(node, peer)
        lost.wait()
        settle(node)  # the loss of the port was reported, too
        node.mon(f"{listener.id}#{name}", died)
        with listener.accept(extras=SAME).shake() as peer:
            assert [packet[:3] for packet in peer.take(2)] == [["", "kil1", name], ["", "mon1", name]]
            peer.send(["", "kil0", name, "killed"])
            assert died.wait() == ("killed",)
            assert peer.answers(), "watched twice"


def test_other_process_of_the_node_has_no_orphans_of_ours(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        name = spawned(node, peer)
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=OTHER).shake() as peer:
        assert peer.answers()
        node.snd(f"{PEER}#{name}", "hello")
        assert peer.packet() == [name, "hello"]
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=OTHER).shake() as peer:
        assert peer.answers()


def test_spawn_that_never_left_leaves_nothing_behind(make_node: MakeNode) -> None:
    """Neither an orphan to kill, nor a port to shun: a loop of spawns at a dead node must not fill the memory."""
    node = make_node()
    with RawPeer.dial(node, extras=SAME).shake():
        pass
    wait_until(lambda: not node.up_nodes())
    deaths = [Deaths() for _ in range(100)]
    for died in deaths:
        node.mon(node.spawn(PEER, "some.function"), died)
    for died in deaths:
        assert died.wait()[0] == "transport_error"
    peer = network_of(node).peers[PEER]
    assert peer.ports._ports == {}


def test_orphans_really_die(make_node: MakeNode) -> None:
    """On a real node: the link breaks, the port lives on; it returns, and the port is gone."""
    one, two = make_node(), make_node(allow_spawn=["tests.support.node_functions.*"])
    from tests.support import node_functions

    node_functions.node = two
    answers, died = Inbox(one), Deaths()
    port = one.spawn(two.NODE(), "tests.support.node_functions.echo", answers.port)
    one.snd(port, "alive")
    wait_until(lambda: answers.messages)
    two.mon(port, died)
    name = port.partition("#")[2]
    (link,) = (peer.link for peer in network_of(one).peers.values())
    assert link is not None
    link.fail("broken by the test")
    wait_until(lambda: not two.up_nodes())
    assert request_host_of(two).find_port(name) is not None
    assert died.count == 0
    one.snd(two.NODE(), "devnull")
    assert died.wait()[0] == "transport_error"
    assert request_host_of(two).find_port(name) is None


def test_past_the_bound_the_whole_node_is_shunned_port_by_port(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_SHUNNED_PORTS", 100)
    node, down = make_node(), Deaths()
    node.mon(PEER, down)  # in vain: it does not listen
    down.wait()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        deaths = [Deaths() for _ in range(101)]
        for number, died in enumerate(deaths):
            node.mon(f"{PEER}#{UNIQUE}{number}", died)
        node.snd(f"{PEER}#{UNIQUE}abc", "hello")
        peer.take(102)
    for died in deaths:
        died.wait()
    settle(node)
    assert caplog.text.count("are shunned until they are monitored again") == 1
    ports = network_of(node).peers[PEER].ports
    assert len(ports._ports) <= 1, "each is remembered"
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        for name in ("7", "abc", "def"):
            node.snd(f"{PEER}#{UNIQUE}{name}", "to the dead")
        with node.mon(f"{PEER}#{UNIQUE}8", print):
            node.snd(f"{PEER}#{UNIQUE}8", "alive")
            assert peer.take(2) == [["", "mon1", f"{UNIQUE}8"], [f"{UNIQUE}8", "alive"]]
        end_kept_watches(node)
        assert peer.packet() == ["", "mon0", f"{UNIQUE}8"]
        ports._forget_unneeded()
        node.snd(f"{PEER}#{UNIQUE}8", "still alive")
        assert peer.packet() == [f"{UNIQUE}8", "still alive"]
    wait_until(lambda: not node.up_nodes())
    with RawPeer.dial(node, extras=OTHER).shake() as peer:
        node.snd(f"{PEER}#{UNIQUE}7", "alive")
        assert peer.packet() == [f"{UNIQUE}7", "alive"]


def test_dropped_messages_are_logged_once_for_each_port_and_loss(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    node = make_node()
    ports = f"{PEER}#{UNIQUE}1", f"{PEER}#{UNIQUE}2"
    for loss in (1, 2):
        deaths = Deaths(), Deaths()
        with RawPeer.dial(node, extras=SAME).shake() as peer:
            wait_until(node.up_nodes)
            for port, died in zip(ports, deaths, strict=True):
                node.mon(port, died)
            peer.take(2)
        for died in deaths:
            died.wait()
        for number in range(3):
            for port in ports:
                node.snd(port, "card number", number)
                node.snd_nowait(port, "card number", number)
        node.snd(port, "marker")
        dropped = f"message 7 to {ports[1]} dropped"
        wait_until(lambda: sum(dropped in text for text in caplog.messages) == loss)  # noqa: B023  # run at once
        warned = [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and "dropped" in r.getMessage()]
        assert len(warned) == 2 * loss
        for port in ports:
            assert sum(port in text and "monitor it again" in text for text in warned) == loss
    assert "card number" not in caplog.text


@pytest.mark.parametrize("extras", [SAME, OTHER, PERL, ()], ids=["same", "restarted", "perl", "another-program"])
def test_port_with_a_given_name_is_reached_again_once_its_loss_was_reported(
    make_node: MakeNode, extras: tuple[tuple[str, str], ...]
) -> None:
    """A name is the address of its present holder; nothing reported that it will never answer again."""
    node = make_node()
    first = SAME if extras == OTHER else extras
    for name in ("echo", "distributed", "10", "Some::Service.1"):
        with RawListener() as listener:
            port, died = f"{listener.id}#{name}", Deaths()
            node.mon(port, died)
            with listener.accept(extras=first).shake() as peer:
                assert peer.packet() == ["", "mon1", name]
            assert died.wait()[0] == "transport_error"
            node.snd(port, "hello")  # and has it dialled
            with listener.accept(extras=extras).shake() as peer:
                assert peer.packet() == [name, "hello"]


def test_port_monitored_in_vain_is_shunned_also_after_a_connection_that_broke_early(make_node: MakeNode) -> None:
    """The node was known, and the process behind it: it must not be forgotten as a stranger would be."""
    node, died = make_node(), Deaths()
    with RawListener() as listener:
        port = f"{listener.id}#{UNIQUE}"
        with RawPeer.dial(node, listener.id, extras=SAME).shake():
            wait_until(node.up_nodes)
        wait_until(lambda: not node.up_nodes())
        with RawPeer.dial(node, listener.id, extras=SAME) as peer:
            peer.greet()
            links = network_of(node).peers[listener.id]._links
            wait_until(lambda: links)
            reset(peer)
        wait_until(lambda: not links)
        node.mon(port, died)
        reset(listener.accept())
        assert died.wait()[0] == "transport_error"
        network_of(node).peers[listener.id].redialling.succeeded()  # or nothing would be sent for a while
        node.snd(port, "to the dead")
        with RawPeer.dial(node, listener.id, extras=SAME).shake() as peer:
            assert peer.answers()


@pytest.mark.parametrize("extras", [PERL, ()], ids=["perl", "another-program"])
def test_peer_that_tells_no_incarnation_is_not_shunned(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, extras: tuple[tuple[str, str], ...]
) -> None:
    """Not even ports with names like ours, however many: but those that this node spawned are killed first."""
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_SHUNNED_PORTS", 3)
    node = make_node()
    deaths = [Deaths() for _ in range(5)]
    with RawPeer.dial(node, extras=extras).shake() as peer:
        for number, died in enumerate(deaths):
            node.mon(f"{PEER}#{UNIQUE}{number}", died)
        peer.take(5)
        orphan = spawned(node, peer)
    for died in deaths:
        died.wait()
    with RawPeer.dial(node, extras=extras).shake() as peer:
        assert [packet[:3] for packet in peer.take(2)] == [["", "kil1", orphan], ["", "mon1", orphan]]
        node.snd(f"{PEER}#{orphan}", "to the dead")
        for number in range(5):
            node.snd(f"{PEER}#{UNIQUE}{number}", "hello")
            assert peer.packet() == [f"{UNIQUE}{number}", "hello"]


@pytest.mark.parametrize("how", ["unreachable", "JSON"])
def test_what_is_sent_between_a_loss_and_its_report_is_lost_too(make_node: MakeNode, how: str) -> None:
    """The monitor's action is queued; others who run before it must not send behind the hole."""
    node = make_node()
    events: list[Any] = []
    with RawListener() as listener:
        port = f"{listener.id}#p"
        node.mon(port, lambda *reason: events.append("reported"))
        peer = network_of(node).peers[listener.id]
        node.snd(port, b"lost")

        def lose() -> None:
            node.snd(eager, "go")  # stands in the run queue before the report does
            if how == "unreachable":
                peer._unreachable("said the test")
            else:
                peer.ports.missed("p", ("transport_error", "said the test"))

        def send() -> None:
            events.append("sent")
            node.snd(port, "behind the hole")

        eager = node.port(lambda _go: send())
        on_hub(lose)
        wait_until(lambda: len(events) == 2)
        assert events == ["sent", "reported"]
        settle(node)
        node.snd(port, "after the report")
        with listener.accept().shake() as other:
            queued = [] if how == "unreachable" else [["", "mon1", "p"], ["p", b"lost"], ["", "mon0", "p"]]
            expected = [*queued, ["p", "after the report"]]
            assert other.take(len(expected)) == expected


@pytest.mark.parametrize("what", ["another monitor", "another incarnation"])
def test_nothing_opens_a_port_again_before_a_loss_was_reported(make_node: MakeNode, what: str) -> None:
    node = make_node()
    events: list[Any] = []
    port = f"{PEER}#p"

    def send() -> None:
        if what == "another monitor":
            node.mon(port, lambda *reason: events.append(("second heard", reason[0])))
        node.snd(port, "behind the hole")
        events.append(("waits for a link", peer.is_waiting))

    with RawPeer.dial(node, extras=SAME).shake() as first:
        node.mon(port, lambda *reason: events.append(("first heard", reason[0])))
        assert first.packet() == ["", "mon1", "p"]
        peer = network_of(node).peers[PEER]
        eager = node.port(lambda _go: send())

        def lose() -> None:
            node.snd(eager, "go")  # stands in the run queue before the report does
            peer._lose("said the test")
            if what == "another incarnation":
                peer.ports.reincarnated()

        on_hub(lose)
        second = [("second heard", "transport_error")] if what == "another monitor" else []
        wait_until(lambda: len(events) == 2 + len(second))
        assert events == [("waits for a link", False), ("first heard", "transport_error"), *second]
    with RawPeer.dial(node, extras=OTHER).shake() as other:
        assert other.answers()
        node.snd(port, "after the report")
        assert other.packet() == ["p", "after the report"]


def linked_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> RawPeer:
    """Report more ports dead than are remembered one by one; return the same process, which has come back."""
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_SHUNNED_PORTS", 3)
    deaths = [Deaths() for _ in range(5)]
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        for number, died in enumerate(deaths):
            node.mon(f"{PEER}#{UNIQUE}{number}", died)
        peer.take(5)
    for died in deaths:
        died.wait()
    peer = RawPeer.dial(node, extras=SAME).shake()
    assert peer.answers()
    return peer


def test_port_spawned_on_a_wholly_shunned_node_is_reached(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node()
    with linked_again(node, monkeypatch) as peer:
        name = spawned(node, peer)
        node.snd(f"{PEER}#{name}", "hello")
        node.snd(f"{PEER}#{UNIQUE}", "to the dead")
        assert peer.packet() == [name, "hello"]
        assert peer.answers()


def test_ports_monitored_for_a_moment_are_forgotten_on_a_wholly_shunned_node(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_REMOTE_PORTS", 20)
    monkeypatch.setattr(aemp_gevent.peers.remote_ports, "MAX_KEPT", 10)
    node = make_node()
    with linked_again(node, monkeypatch) as peer:
        for number in range(200):
            node.mon(f"{PEER}#{UNIQUE}f{number}", print).cancel()
        assert len(network_of(node).peers[PEER].ports._ports) < 60
        peer.take(390)


@pytest.mark.parametrize("how", ["in vain", "until the link is up"])
def test_monitor_that_was_cancelled_before_the_link_is_up_opens_no_port(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.redialling, "_FIRST_RETRY_SECONDS", 0.02)
    node, died = make_node(), Deaths()
    with RawListener() as listener:
        port, other = f"{listener.id}#{UNIQUE}", f"{listener.id}#other"
        node.mon(port, died)
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.packet() == ["", "mon1", UNIQUE]
        died.wait()
        if how == "in vain":
            listener.close()
        with node.mon(port, print):
            pass
        if how == "in vain":
            wait_until(lambda: network_of(node).peers[listener.id].is_quiet)
            again = RawPeer.dial(node, listener.id, extras=SAME)
        else:
            again = listener.accept(extras=SAME)
        with again.shake():
            if how != "in vain":
                assert again.take(2) == [["", "mon1", UNIQUE], ["", "mon0", UNIQUE]]
            node.snd(port, "to the dead")
            node.snd(other, "alive")
            assert again.packet() == ["other", "alive"]


def test_orphan_that_was_monitored_for_a_moment_is_seen_to_die(make_node: MakeNode) -> None:
    """While the link is made; what stops that watch must not stop ours."""
    node, lost = make_node(), Deaths()
    with RawListener() as listener:
        node.mon(listener.id, lost)
        with listener.accept(extras=SAME).shake() as peer:
            name = spawned(node, peer)
        lost.wait()
        settle(node)  # the loss of the port was reported, too
        node.mon(f"{listener.id}#{name}", print).cancel()
        with listener.accept(extras=SAME).shake() as peer:
            packets = [packet[:3] for packet in peer.take(4)]
            assert packets == [["", verb, name] for verb in ("kil1", "mon1", "mon0", "mon1")]
            peer.send(["", "kil0", name, "killed"])
            ports = network_of(node).peers[listener.id].ports._ports
            wait_until(lambda: name not in ports)


def test_port_is_watched_again_after_a_message_that_json_could_not_carry(make_node: MakeNode) -> None:
    node, died, again = make_node(), Deaths(), Deaths()
    with RawListener() as listener:
        port = f"{listener.id}#p"
        node.mon(port, died)
        node.snd(port, b"lost")
        with listener.accept(framing="json").shake() as peer:
            assert peer.take(2) == [["", "mon1", "p"], ["", "mon0", "p"]]
            died.wait()
            node.mon(port, again)
            assert peer.packet() == ["", "mon1", "p"]
            peer.send(["", "kil0", "p", "once"])
            assert again.wait() == ("once",)


def test_replies_do_not_reach_a_port_that_was_reported_dead(make_node: MakeNode) -> None:
    node, died = make_node(), Deaths()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        node.mon(f"{PEER}#{UNIQUE}", died)
        assert peer.packet() == ["", "mon1", UNIQUE]
    died.wait()
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        for reply_to in (UNIQUE, "q"):
            peer.send(["", "time", f"{PEER}#{reply_to}", "now"])
        assert peer.packet()[:2] == ["q", "now"]


def test_late_monitor_hears_of_a_loss_before_anything_is_sent_again(make_node: MakeNode) -> None:
    """Set while the loss was being reported: what was sent since is lost, and nothing may arrive behind that."""
    node = make_node()
    events: list[Any] = []
    port = f"{PEER}#p"

    def monitor_again(*reason: Any) -> None:
        events.append("first heard")
        node.mon(port, lambda *reason: events.append("late one heard"))
        node.snd(port, "into the hole")
        node.snd(eager, "go")  # stands in the run queue before anything that comes now

    def send() -> None:
        events.append("sent")
        node.snd(port, "after the hole")

    eager = node.port(lambda _go: send())
    with RawPeer.dial(node, extras=SAME).shake() as peer:
        node.mon(port, monitor_again)
        node.mon(port, lambda *_reason: events.append("last heard"))
        assert peer.packet() == ["", "mon1", "p"]
    wait_until(lambda: len(events) == 4)
    assert events == ["first heard", "last heard", "late one heard", "sent"]


def end_the_turn(node: Node, credit: int = 0) -> None:
    """End the turn of the ports, after ``credit`` more jobs."""
    node.scheduler.credit = credit
    node.scheduler._turn_started -= 1


def send_when_woken(node: Node, peer: RawPeer, port: str, woken: Event, events: list[str], last: str) -> None:
    """Report a port dead, send to it as soon as a monitor wakes this greenlet, and again after the last one ran.

    What is sent before the last one ran is lost: the peer gets what came next.
    """
    assert peer.packet() == ["", "mon1", "p"]
    peer.send(["", "kil0", "p", "killed"])
    assert woken.wait(WAIT)
    events.append("sent")
    node.snd(port, "after the hole")
    wait_until(lambda: last in events)
    node.snd(port, "after the report")
    was_told = events.index(last) < events.index("sent")
    assert peer.packet() == ["p", "after the hole" if was_told else "after the report"]


def test_late_monitor_hears_before_anything_is_sent_although_a_turn_ends(make_node: MakeNode) -> None:
    """Sent by another greenlet that the last action wakes, when the turn of the ports is over."""
    node, events, woken = make_node(), [], Event()
    port = f"{PEER}#p"

    def monitor_again(*_reason: Any) -> None:
        node.mon(port, lambda *_reason: events.append("late one"))
        node.snd(port, "into the hole")

    with RawPeer.dial(node, extras=SAME).shake() as peer:
        node.mon(port, monitor_again)
        node.mon(port, lambda *_reason: (woken.set(), end_the_turn(node, credit=1)))
        send_when_woken(node, peer, port, woken, events, "late one")


def test_monitor_of_the_last_action_hears_before_anything_is_sent_again(make_node: MakeNode) -> None:
    """Although another monitor came before it while the loss was being reported, and the turn of the ports ends."""
    node, events, woken = make_node(), [], Event()
    port = f"{PEER}#p"

    def wake(*_reason: Any) -> None:
        events.append("first late one")
        woken.set()
        end_the_turn(node)

    def monitor_again(*_reason: Any) -> None:
        node.mon(port, lambda *_reason: events.append("late one of the last"))
        node.snd(port, "into the hole")

    with RawPeer.dial(node, extras=SAME).shake() as peer:
        node.mon(port, lambda *_reason: node.mon(port, wake))
        node.mon(port, monitor_again)
        send_when_woken(node, peer, port, woken, events, "late one of the last")


@pytest.mark.parametrize("how", ["in the action", "elsewhere"])
def test_who_heard_of_a_loss_last_can_monitor_and_send_at_once(make_node: MakeNode, how: str) -> None:
    """Also in another greenlet that its action wakes: between the two, no turn of the event loop may come."""
    node, again, heard = make_node(), Deaths(), Event()
    with RawListener() as listener:
        port = f"{listener.id}#p"

        def react(*_reason: Any) -> None:
            if how == "in the action":
                proceed()
            heard.set()
            end_the_turn(node)

        def proceed() -> None:
            node.mon(port, again)
            node.snd(port, "hello")

        node.mon(port, lambda *_reason: None)
        node.mon(port, react)
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.packet() == ["", "mon1", "p"]
        heard.wait(WAIT)
        if how == "elsewhere":
            proceed()
        with listener.accept(extras=SAME).shake() as peer:
            assert peer.take(2) == [["", "mon1", "p"], ["p", "hello"]]
            assert again.count == 0


def test_late_monitor_hears_of_the_death_that_is_being_reported_and_the_next_one_asks_again(
    make_node: MakeNode,
) -> None:
    """Messages sent meanwhile are dropped, also if another port has the name by now: so a monitor must fire."""
    node = make_node()
    first, late, last = Deaths(), Deaths(), Deaths()
    port = f"{PEER}#p"

    def monitor_again(*reason: Any) -> None:
        first(*reason)
        node.mon(port, late)
        node.snd(port, "dropped")

    with RawPeer.dial(node, extras=SAME).shake() as peer:
        node.mon(port, monitor_again)
        node.mon(port, lambda *_reason: None)
        assert peer.packet() == ["", "mon1", "p"]
        peer.send(["", "kil0", "p", "killed"])
        assert late.wait() == first.wait() == ("killed",)
        assert port not in ports_of(node), "everybody has heard of it"
        node.mon(port, last)
        assert peer.packet() == ["", "mon1", "p"]
        peer.send(["", "kil0", "p", "killed again"])
        assert last.wait() == ("killed again",)
        assert peer.answers()
    assert (first.count, late.count, last.count) == (1, 1, 1)


@pytest.mark.usefixtures("open_scheduler")
def test_a_loss_that_was_struck_while_it_was_reported_ends_no_earlier_than_the_next_one(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The strike comes when all is done: it is done twice, and a monitor loses the port again between the two ends."""
    node, losses = make_node(), []
    port = f"{PEER}#{UNIQUE}"
    monkeypatch.setattr(network_of(node).dialling, "dial", lambda *_args: None)
    node.mon(port, lambda *_: None)
    ports = network_of(node).peer(PEER).ports
    enqueue, struck = node.scheduler.enqueue_job, []

    def enqueue_and_be_struck(job: Any) -> None:
        enqueue(job)
        if isinstance(job, LastAction) and not struck:
            struck.append(job)
            raise KeyboardInterrupt

    def lose_again(*_reason: object) -> None:
        node.mon(port, lambda *_: losses.append(ports.get(UNIQUE).loss))
        node.mon(port, lambda *_: None)  # the last, before which the port is opened
        ports.all_lost(("second",), shun=True, was_up=False)

    monkeypatch.setattr(node.scheduler, "enqueue_job", enqueue_and_be_struck)
    with contextlib.suppress(KeyboardInterrupt):
        ports.all_lost(("first",), shun=True, was_up=False)
    node.mon(port, lose_again)  # late: it is about to hear of the first
    wait_until(lambda: losses, within=5)
    assert struck
    assert losses == [("second",)]
