# SPDX-License-Identifier: MIT
"""Slave nodes: everybody reaches their ports, and whatever is promised of a link is promised of the way to them."""

from __future__ import annotations

import itertools
import tracemalloc

import gevent
import pytest

from aemp_gevent import Node
from aemp_gevent.peers.remote_ports import MAX_VIRTUAL_PORTS
from aemp_gevent.testing import MemoryNetwork, NodeProcess
from tests.peers.slave_nodes import QUICK, Place
from tests.support import node_functions
from tests.support.helpers import wait_until
from tests.support.native import threading
from tests.support.networking import (
    SECRET,
    Deaths,
    Inbox,
    MakeNode,
)
from tests.support.seams import network_of, ports_of

WAYS = [
    ("public", "s1"),
    ("s1", "public"),
    ("m1", "s1"),
    ("s1", "m1"),
    ("m2", "s1"),
    ("s1", "m2"),
    ("s1", "s2"),
    ("s2", "s1"),
    ("s1", "s3"),
]
FAR_WAYS = [way for way in WAYS if "m1" not in way]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "way" in metafunc.fixturenames:
        ways = FAR_WAYS if "far" in metafunc.function.__name__ else WAYS
        metafunc.parametrize("way", ways, ids=["-to-".join(way) for way in ways])


def both(place: Place, way: tuple[str, str]) -> tuple[Node, Node]:
    return getattr(place, way[0]), getattr(place, way[1])


def test_slave_is_called_after_its_master(place: Place) -> None:
    assert place.s1.NODE() == f"slave/one@{place.m1.NODE()}"
    assert place.s3.NODE().endswith(f"@{place.m1.NODE()}")
    assert place.s1.up_nodes() == [place.m1.NODE()]
    assert place.m1.node_is_up(place.s1.NODE())


def test_master_with_several_endpoints_is_part_of_an_id(slave_network: MemoryNetwork) -> None:
    master = slave_network.node("10.1.0.1:4040,10.1.0.2:4040", **QUICK)
    slave = slave_network.node("slave/one", master.NODE(), **QUICK)
    assert slave.NODE() == "slave/one@10.1.0.1:4040!10.1.0.2:4040"
    inbox = Inbox(slave)
    slave_network.node(**QUICK).snd(inbox, "hello")
    wait_until(lambda: inbox.messages == [("hello",)])


def test_messages_arrive_in_order(place: Place, way: tuple[str, str]) -> None:
    here, there = both(place, way)
    inbox = Inbox(there)
    for number in range(500):
        here.snd(inbox, number, {"x": [b"bytes", None, 1.5]})
    wait_until(lambda: len(inbox.messages) == 500)
    assert [message[0] for message in inbox.messages] == list(range(500))
    assert inbox.messages[0][1] == {"x": [b"bytes", None, 1.5]}


def test_few_ports_of_a_node_behind_others_are_remembered(place: Place) -> None:
    """One link can carry thousands of such nodes."""
    here, there = place.s1, place.s3
    for number in range(10 * MAX_VIRTUAL_PORTS):
        here.snd(f"{there.NODE()}#port-{number}", 1)
    assert len(network_of(here).peer(there.NODE()).ports._ports) <= 2 * MAX_VIRTUAL_PORTS


def test_kill_and_death_pass(place: Place, way: tuple[str, str]) -> None:
    here, there = both(place, way)
    port, deaths = there.port(), Deaths()
    here.mon(port, deaths)
    here.kil(port, "enough", 5)
    assert deaths.wait() == ("enough", 5)


def test_port_that_never_was_is_reported(place: Place, way: tuple[str, str]) -> None:
    here, there = both(place, way)
    deaths = Deaths()
    here.mon(f"{there.NODE()}#nobody", deaths)
    assert deaths.wait()[0] == "no_such_port"


def test_spawn(place: Place, way: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = both(place, way)
    network_of(there).settings.__dict__["allow_spawn"] = ("tests.support.node_functions.*",)
    monkeypatch.setattr(node_functions, "node", there)
    inbox = Inbox(here)
    echo = here.spawn(there.NODE(), "tests.support.node_functions.echo", str(inbox))
    here.snd(echo, "echoed")
    wait_until(lambda: inbox.messages == [("echoed",)])
    assert echo.startswith(there.NODE() + "#")


def test_blocking_call(place: Place, way: tuple[str, str]) -> None:
    here, there = both(place, way)
    port = there.port(lambda question, reply: there.snd(reply, question + 1))
    assert here.syncal(10, port, 41) == (42,)


def test_other_native_thread_sends(place: Place) -> None:
    inbox = Inbox(place.s2)

    def send() -> None:
        for number in range(200):
            place.s1.snd(inbox, number)

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: len(inbox.messages) == 200)
    thread.join()
    assert [message[0] for message in inbox.messages] == list(range(200))


@pytest.mark.parametrize("is_other", [False, True], ids=["own-thread", "other-thread"])
def test_memory_for_large_messages_is_given_back(place: Place, is_other: bool) -> None:
    inbox, text, is_over = Inbox(place.s1), "x" * 3_000_000, threading.Event()

    def send_from_afar() -> None:
        place.public.snd(inbox, text)
        is_over.wait(60)

    thread = threading.Thread(target=send_from_afar)
    place.public.snd(inbox, "the link is up")
    wait_until(lambda: inbox.messages)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        if is_other:
            thread.start()
        else:
            place.public.snd(inbox, text)
        wait_until(lambda: len(inbox.messages) == 2)
        inbox.messages.clear()
        wait_until(lambda: tracemalloc.get_traced_memory()[0] - before < len(text))
    finally:
        tracemalloc.stop()
        is_over.set()
    if is_other:
        thread.join()


def linked(here: Node, there: Node) -> tuple[Inbox, Deaths, Deaths]:
    """Monitor a port there from here, and one here from there; the link is up."""
    inbox, deaths, back = Inbox(there), Deaths(), Deaths()
    here.mon(inbox, deaths)
    there.mon(here.port(), back)
    here.snd(inbox, "first")
    wait_until(lambda: inbox.messages == [("first",)])
    return inbox, deaths, back


@pytest.mark.slow
def test_cut_of_any_hop_is_noticed_at_both_far_ends_and_heals(place: Place, way: tuple[str, str]) -> None:
    here, there = both(place, way)
    masters = {"s1": place.m1, "s3": place.m1, "s2": place.m2}
    nodes = [here, masters.get(way[0]), masters.get(way[1]), there]
    hops = list(dict.fromkeys(node.NODE() for node in nodes if node is not None))
    for one, other in itertools.pairwise(hops):
        inbox, deaths, back = linked(here, there)
        place.network.cut(one, other)
        assert deaths.wait()[:2] == ("transport_error", there.NODE())
        assert back.wait()[:2] == ("transport_error", here.NODE())
        here.snd(inbox, "dropped, as it is believed dead")
        again = Deaths()
        wait_until(lambda: revived(here, inbox, again), within=20.0)  # noqa: B023
        assert ("dropped, as it is believed dead",) not in inbox.messages


def revived(here: Node, inbox: Inbox, deaths: Deaths) -> bool:
    """Monitor again and send; return whether something arrived."""
    guard = here.mon(inbox, deaths)
    here.snd(inbox, "again")
    gevent.sleep(0.05)
    guard.cancel()
    return ("again",) in inbox.messages


def test_masters_death_is_noticed_at_both_far_ends(place: Place) -> None:
    _, one, two = linked(place.public, place.s1)
    _, three, four = linked(place.s2, place.s1)
    _, other, _ = linked(place.public, place.s2)
    place.network.crash(place.m1)
    for deaths in (one, two, three, four):
        assert deaths.wait()[0] == "transport_error"
    assert other.count == 0


@pytest.mark.slow
def test_silent_loss_of_the_slave_is_noticed(place: Place) -> None:
    _, deaths, _ = linked(place.public, place.s1)
    _, others, _ = linked(place.s2, place.s1)
    place.network.crash(place.s1, silent=True)
    assert deaths.wait()[:2] == ("transport_error", f"slave/one@{place.m1.NODE()}")
    assert others.wait()[0] == "transport_error"


@pytest.mark.slow
def test_slave_returns_to_its_master_under_its_id_and_shuns_and_kills_orphans(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    s1, public = place.s1, place.public
    network_of(s1).settings.__dict__["allow_spawn"] = ("tests.support.node_functions.*",)
    monkeypatch.setattr(node_functions, "node", s1)
    inbox, deaths, _ = linked(public, s1)
    orphan, lost = public.spawn(s1.NODE(), "tests.support.node_functions.echo", str(inbox)), Deaths()
    public.mon(orphan, lost)
    public.snd(orphan, "alive")
    wait_until(lambda: ("alive",) in inbox.messages)
    assert orphan in ports_of(s1)
    node_id = s1.NODE()
    place.network.cut(s1, place.m1)
    assert deaths.wait()[0] == lost.wait()[0] == "transport_error"
    wait_until(lambda: place.m1.node_is_up(node_id))
    assert orphan in ports_of(s1)
    again = Deaths()
    wait_until(lambda: revived(public, inbox, again))
    wait_until(lambda: orphan not in ports_of(s1))
    assert s1.NODE() == node_id


def test_restarted_slave_is_another_incarnation(place: Place) -> None:
    name = place.s1.NODE()
    place.s1.reg(place.s1.port(), "service")
    deaths = Deaths()
    place.public.mon(f"{name}#service", deaths)
    wait_until(lambda: place.public.node_is_up(name))
    place.network.crash(place.s1)
    assert deaths.wait()[0] == "transport_error"
    returned = place.network.node("slave/one", place.m1.NODE(), **QUICK)
    assert returned.NODE() == name
    inbox = Inbox(returned)
    returned.reg(str(inbox), "service")

    def answers() -> bool:
        place.public.snd(name, "devnull")  # a port believed dead makes no link
        place.public.snd(f"{name}#service", "unmonitored")  # it is no longer a shunned port
        gevent.sleep(0.05)
        return bool(inbox.messages)

    wait_until(answers, within=20.0)


def test_shutdown_of_a_slave_is_a_goodbye_to_all(place: Place) -> None:
    inbox, deaths, _ = linked(place.public, place.s1)
    _, others, _ = linked(place.s2, place.s1)
    from_slave = Inbox(place.public)
    place.s1.snd(from_slave, "last words")
    node_id = place.s1.NODE()
    place.s1.shutdown()
    assert deaths.wait() == ("shutdown", node_id)
    assert others.wait() == ("shutdown", node_id)
    assert from_slave.messages == [("last words",)]


def test_what_is_sent_right_before_the_shutdown_arrives(place: Place) -> None:
    inbox = Inbox(place.s2)
    place.s1.snd(inbox, "only word")  # the link is not even begun
    place.s1.shutdown()
    wait_until(lambda: inbox.messages == [("only word",)])


def test_shutdown_of_a_public_node_reaches_slaves(place: Place) -> None:
    inbox, deaths, _ = linked(place.s1, place.public)
    place.public.shutdown()
    assert deaths.wait() == ("shutdown", place.public.NODE())


def test_slave_that_is_not_there_is_reported(place: Place) -> None:
    for here in (place.public, place.m1, place.s2):
        deaths = Deaths()
        here.mon(f"slave/nobody@{place.m1.NODE()}#x", deaths)
        assert deaths.wait()[0] == "transport_error"


@pytest.mark.slow
def test_slave_that_does_not_answer_is_reported(place: Place) -> None:
    network_of(place.s1).routes._take = lambda *args: None  # type: ignore[union-attr, method-assign]
    deaths = Deaths()
    place.public.mon(Inbox(place.s1), deaths)
    reason = deaths.wait()
    assert reason[:2] == ("transport_error", place.s1.NODE()) and "no answer" in reason[2]


def test_unreachable_master_is_reported_at_once(slave_network: MemoryNetwork) -> None:
    """Not only when nobody has answered for long."""
    here, deaths = slave_network.node(**{**QUICK, "monitor_timeout": 60.0}), Deaths()
    here.mon("slave/nobody@10.9.9.9:4040#x", deaths)
    assert "10.9.9.9:4040, through which it is reached" in deaths.wait()[2]


def test_unreachable_node_is_reported_to_a_slave(place: Place) -> None:
    deaths = Deaths()
    place.s1.mon("10.9.9.9:4040#x", deaths)
    assert deaths.wait()[:2] == ("transport_error", "10.9.9.9:4040")


def test_senders_to_a_slave_are_paused_at_the_first_hop(place: Place) -> None:
    settings = {**QUICK, "heartbeat_timeout": 60.0, "high_water_bytes": 20_000}
    master = place.network.node(**settings)
    slave = place.network.node("slave/x", master.NODE(), **settings)
    there = Inbox(master)
    far = Inbox(place.public)
    slave.snd(far, "up")
    wait_until(lambda: far.messages == [("up",)])
    place.network.block(slave, master)

    def send() -> None:
        for _ in range(600):
            slave.snd(far, b"x" * 1000)
        slave.snd(there, "done")

    sender = gevent.spawn(send)
    try:
        peer = network_of(slave).peer(place.public.NODE())
        wait_until(lambda: peer.unsent > 20_000)
        assert not sender.ready()
        assert peer.unsent < 100_000
        place.network.heal()
        wait_until(lambda: there.messages == [("done",)], within=20.0)
    finally:
        sender.kill()


@pytest.mark.slow
def test_what_paused_senders_sent_does_not_drop_the_carrying_link(place: Place) -> None:
    settings = {**QUICK, "heartbeat_timeout": 60.0, "high_water_bytes": 20_000, "max_message_bytes": 2 * 2**20}
    master = place.network.node(**settings)
    slave = place.network.node("slave/x", master.NODE(), **settings)
    public = place.network.node(**settings)
    far, beside, deaths = Inbox(public), Inbox(place.public), Deaths()
    for inbox in (far, beside):
        slave.mon(inbox, deaths)
        slave.snd(inbox, "up")
    wait_until(lambda: far.messages == beside.messages == [("up",)])
    place.network.block(slave, master)
    senders = [gevent.spawn(slave.snd, far, b"x" * 2**20) for _ in range(24)]
    try:
        peer = network_of(slave).peer(public.NODE())
        wait_until(lambda: peer.unsent > 23 * 2**20)
        assert peer.unsent > network_of(slave).settings.hard_limit_bytes
        slave.kil(f"{public.NODE()}#nobody")
        slave.kil(f"{place.public.NODE()}#nobody")
        slave.kil(f"{master.NODE()}#nobody")
        place.network.heal()
        wait_until(lambda: len(far.messages) == 25, within=20.0)
    finally:
        gevent.killall(senders)
    assert deaths.count == 0


@pytest.mark.slow
def test_slave_that_does_not_read_is_dropped_by_its_master_at_the_hard_limit(place: Place) -> None:
    settings = {**QUICK, "heartbeat_timeout": 60.0, "high_water_bytes": 20_000, "max_message_bytes": 2**20}
    master = place.network.node(**settings)
    slave = place.network.node("slave/x", master.NODE(), **settings)
    public = place.network.node(**settings)
    far, deaths, others = Inbox(slave), Deaths(), Deaths()
    public.mon(far, deaths)
    public.mon(master.NODE(), others)
    public.snd(far, "up")
    wait_until(lambda: far.messages == [("up",)])
    place.network.block(master, slave)

    def send() -> None:
        while deaths.count == 0:
            public.snd(far, b"x" * 2**19)
            gevent.sleep(0)  # what is sent between the loss and its report is dropped without a pause

    sender = gevent.spawn(send)
    try:
        reason = deaths.wait(20.0)
        assert reason[:2] == ("transport_error", slave.NODE()) and "hard limit" in reason[2]
        assert others.count == 0
    finally:
        sender.kill()


def test_message_too_large_for_the_way_raises_and_one_that_just_fits_arrives(place: Place) -> None:
    from aemp_gevent import MessageTooLargeError

    settings = {**QUICK, "max_message_bytes": 5000}
    master = place.network.node(**settings)
    slave = place.network.node("slave/x", master.NODE(), **settings)
    here = place.network.node(**settings)
    inbox = Inbox(slave)
    size = 5000
    for _ in range(2):  # while the link is made, and when it is up
        while True:
            try:
                here.snd(inbox, b"x" * size)
            except MessageTooLargeError:
                size -= 1
            else:
                break
        assert 4800 < size < 5000
        wait_until(lambda: inbox.messages and len(inbox.messages[-1][0]) == size)  # noqa: B023
        size = 5000


# --- processes ------------------------------------------------------------------------


@pytest.mark.slow
def test_slaves_as_processes(make_node: MakeNode) -> None:
    """Real sockets: two masters, a slave of one as a process that is killed, and a slave of the other here."""
    m1, m2 = make_node(), make_node()
    here = make_node("slave/here", m2.NODE())
    with NodeProcess("slave/there", seeds=[m1.NODE()], secret=SECRET) as child:
        inbox, deaths = Inbox(here), Deaths()
        assert child.node == f"slave/there@{m1.NODE()}"
        here.mon(child.node, deaths)
        here.snd(child.node, "time", str(inbox), "now")
        wait_until(lambda: inbox.messages)
        assert inbox.messages[0][0] == "now"
        child.kill()
        assert deaths.wait()[:2] == ("transport_error", child.node)
        child.restart()
        assert child.node == f"slave/there@{m1.NODE()}"

        def answers() -> bool:
            here.snd(child.node, "time", str(inbox), "again")
            gevent.sleep(0.05)
            return inbox.messages[-1][0] == "again"

        wait_until(answers, within=20.0)


def test_slave_never_keeps_the_directory(slave_network: MemoryNetwork) -> None:
    """It cannot have links to the other global nodes, and would see but a part."""
    seeds = ("10.9.0.1:4040", "10.9.0.2:4040")
    master, other = (slave_network.node(seed, *seeds, **QUICK) for seed in seeds)
    slave = slave_network.node("slave/one", master.NODE(), **QUICK)
    wait_until(lambda: slave.info()["directory"] == f"client of {master.NODE()}")
    inbox = Inbox(slave)
    for node in (master, other):
        node.snd(slave.NODE(), "g_slave", {"family": {"key": "forged"}})
        node.snd(inbox)
    wait_until(lambda: len(inbox.messages) == 2)
    assert slave.info()["directory"] == f"client of {master.NODE()}"
    other.db_set("family", "key", "value")
    slave.db_set("family", "mine", 1)
    for node in (master, other, slave):
        wait_until(lambda node=node: node.db_family("family") == {"key": "value", "mine": 1})
