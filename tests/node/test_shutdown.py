# SPDX-License-Identifier: MIT
"""The shutdown of a node: peers learn of it, queued messages are sent, and no call waits forever."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from time import monotonic

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from aemp_gevent.addresses.ids import node_of
from aemp_gevent.errors import NodeShutDownError, NoPortContextError, PortDied, RemoteError
from aemp_gevent.node.node import Node
from aemp_gevent.node.services import Service, start_service
from aemp_gevent.node.spawnable_functions import spawnable
from aemp_gevent.ports.context import require_port
from aemp_gevent.ports.receive import receive
from aemp_gevent.toolkit import RemotePool, RemoteQueue
from tests.support.helpers import on_hub, turns, wait_until
from tests.support.native import threading
from tests.support.networking import (
    OUR_PROVIDER,
    ROOT,
    SECRET,
    Deaths,
    Inbox,
    MakeNode,
    RawListener,
    RawPeer,
    line_of,
    process,
    two_connections,
)
from tests.support.seams import network_of


def test_shutdown_fires_monitors_at_once(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox, died, node_died = Inbox(two), Deaths(), Deaths()
    one.mon(inbox, died)
    one.mon(two.NODE(), node_died)
    two.mon(two.port(print), died.__class__())
    wait_until(lambda: two.up_nodes() and one.up_nodes())
    two.shutdown()
    assert died.wait() == ("shutdown", two.NODE())
    assert node_died.wait() == ("shutdown", two.NODE())
    assert one.up_nodes() == two.up_nodes() == []


def test_last_messages_to_a_node_that_must_be_found_first_arrive(make_node: MakeNode) -> None:
    seed, backend, client = make_node(), make_node(None), make_node(None)
    inbox = Inbox(backend)
    backend.configure(nodeid="backend", seeds=[seed.NODE()], binds=["127.0.0.1:0"], secret=SECRET)
    backend.reg(inbox.port, "inbox")
    client.configure(nodeid="client", seeds=[seed.NODE()], binds=["127.0.0.1:0"], secret=SECRET)
    client.snd("backend#inbox", "last words")
    client.shutdown(10.0)
    wait_until(lambda: inbox.messages == [("last words",)])


@pytest.mark.slow
def test_shutdown_waits_for_a_name_only_until_its_timeout(make_node: MakeNode) -> None:
    node = make_node("127.0.0.1:0", "127.0.0.1:1")  # where no seed is
    node.snd("nobody#inbox", "in vain")
    began = monotonic()
    node.shutdown(0.3)
    assert 0.2 < monotonic() - began < 5


@pytest.mark.slow
def test_linked_peers_are_left_in_order_while_a_name_is_not_found(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node("127.0.0.1:0", "127.0.0.1:1")  # where no seed is
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        node.snd("nobody#inbox", "in vain")
        leaving = gevent.spawn(node.shutdown, 5.0)
        assert peer.packet() == ["", "bye"]
        peer.close()
        leaving.get()
    assert "these nodes had not received everything: nobody" in caplog.text


def test_shutdown_sends_what_is_queued(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    inbox = Inbox(two)
    for number in range(200):
        one.snd(inbox, number, b"x" * 10_000)
    one.shutdown()
    wait_until(lambda: len(inbox.messages) == 200)


@pytest.mark.parametrize("peer_ends", [False, True], ids=["open", "ended"])
def test_shutdown_while_a_link_is_held_and_handlers_block(make_node: MakeNode, peer_ends: bool) -> None:
    # Messages held on such a link were once handled by the caller of shutdown(): ports ran in its
    # greenlet, the first handler that blocked switched to the hub, and nothing ever resumed it.
    one, two = make_node(), make_node()
    one.mon(two.NODE(), print)
    wait_until(lambda: one.up_nodes() and two.up_nodes())
    link = network_of(one).peers[two.NODE()].link
    assert link is not None
    link.hold()
    two.snd(one.NODE(), "devnull")
    if peer_ends:
        two.shutdown(0.0)
    blocked, goes_on = Event(), Event()

    def block() -> None:
        blocked.set()
        goes_on.wait()

    one.snd(one.port(block))
    with gevent.Timeout(10):
        one.shutdown(60.0)
    assert link.closed
    with gevent.Timeout(10):
        blocked.wait()
    goes_on.set()


def test_node_that_shut_down_keeps_its_ports_and_does_not_dial(make_node: MakeNode) -> None:
    one, two = make_node(), make_node()
    ours, theirs, died = Inbox(one), Inbox(two), Deaths()
    one.shutdown()
    one.shutdown()
    one.mon(theirs, died)
    # Not here: what has no effect raises outside of ports.
    one.after(0, one.snd, ours, 1)
    one.after(0, one.snd, theirs, 2)
    assert died.wait() == ("transport_error", two.NODE(), "this node was shut down")
    wait_until(lambda: ours.messages)
    assert theirs.messages == []
    for again in (one.initialise_node, one.configure):
        with pytest.raises(NodeShutDownError, match=r"was shut down; .* make another Node\(\)"):
            again(secret=SECRET)


def test_shutdown_of_a_private_node_does_nothing(make_node: MakeNode) -> None:
    node = make_node(None)
    node.shutdown()
    node.initialise_node("127.0.0.1:0", secret=SECRET)


def test_goodbye_comes_after_everything_else_and_before_the_end(make_node: MakeNode) -> None:
    node = make_node(high_water_bytes=2**26)
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        for number in range(100):
            node.snd(f"{peer.name}#p", number, bytes(100_000))
        leaving = gevent.spawn(node.shutdown, 10)
        for number in range(100):
            assert peer.packet()[:2] == ["p", number]
        assert peer.packet() == ["", "bye"]
        with pytest.raises(EOFError):
            peer.packet()
        assert not leaving.ready(), "it must wait for us, because we may still send something"
        peer.close()
        leaving.get(timeout=5)


def test_other_programs_see_only_the_end_of_the_connection(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node).shake() as peer:
        leaving = gevent.spawn(node.shutdown, 10)
        with pytest.raises(EOFError):
            peer.packet()
        peer.close()
        leaving.get(timeout=5)


def test_connections_are_refused_after_the_shutdown(make_node: MakeNode) -> None:
    node = make_node()
    with RawPeer.dial(node).shake() as peer:
        leaving = gevent.spawn(node.shutdown, 10)
        with pytest.raises(EOFError):
            peer.packet()
        with pytest.raises(OSError, match="refused"), socket.socket() as late:
            late.connect(("127.0.0.1", int(node.NODE().rpartition(":")[2])))
        peer.close()
        leaving.get(timeout=5)


def test_messages_that_wait_for_a_link_are_sent_when_it_is_up(make_node: MakeNode) -> None:
    node = make_node()
    with RawListener() as listener:
        node.snd(f"{listener.id}#p", "hello")
        leaving = gevent.spawn(node.shutdown, 10)
        with listener.accept(extras=OUR_PROVIDER).shake() as peer:
            assert peer.take(2) == [["p", "hello"], ["", "bye"]]
        leaving.get(timeout=5)


@pytest.mark.slow
def test_shutdown_waits_for_a_peer_that_reads_nothing_only_until_its_timeout(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    with RawPeer.dial(node).shake() as peer:
        sender = gevent.spawn(node.snd, f"{peer.name}#x", bytes(30_000_000))
        wait_until(lambda: network_of(node).peers[peer.name].link.transport.buffered)
        assert not sender.ready()
        started = monotonic()
        node.shutdown(0.2)
        assert 0.15 < monotonic() - started < 5
        sender.get(timeout=5)
    assert f"these nodes had not received everything: {peer.name}" in caplog.text


def test_messages_after_the_shutdown_are_lost_and_reported(make_node: MakeNode) -> None:
    node, died, again = make_node(), Deaths(), Deaths()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        node.mon(f"{peer.name}#p", died)
        leaving = gevent.spawn(node.shutdown, 10)
        assert died.wait() == ("shutdown", node.NODE())
        node.mon(f"{peer.name}#p", again)
        node.snd(f"{peer.name}#p", "too late")
        # The former if others are still to be told of the shutdown.
        assert again.wait()[0] in {"shutdown", "transport_error"}
        assert peer.take(2) == [["", "mon1", "p"], ["", "bye"]]
        peer.close()
        leaving.get(timeout=5)


def test_last_messages_of_a_peer_are_read_although_writing_to_it_failed(make_node: MakeNode) -> None:
    """It said goodbye and reset the connection; the node notices when it writes, before it reads."""
    node, died = make_node(), Deaths()
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        node.mon(f"{peer.name}#p", died)
        assert peer.packet() == ["", "mon1", "p"]
        # All of this before the loop turns once: nothing of it was read when the flush comes.
        peer.sock.sendall(peer.encode(["", "bye"]))
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        node.snd(f"{peer.name}#p", "into the reset")
        assert died.wait() == ("shutdown", peer.name)


def test_node_that_shut_down_and_was_dropped_leaves_the_memory() -> None:
    node = Node()
    node.initialise_node("127.0.0.1:0", secret=SECRET)
    node.snd(Inbox(node), "hello")  # so that there is a runner, which waits for more
    gone = weakref.ref(node)
    node.shutdown()
    del node
    wait_until(lambda: gc.collect() >= 0 and gone() is None)


def test_dial_cut_short_by_the_shutdown_fires_monitors_at_once(make_node: MakeNode) -> None:
    """The node does not dial any more, so that all monitors fire at once."""
    node, died = make_node(high_water_bytes=1000), Deaths()
    with RawListener() as hole:
        port = f"{hole.id}#p"
        node.snd(port, "x")
        with hole.accept():  # which never greets
            node.shutdown(0.05)
        node.mon(port, died)
        assert died.wait() == ("transport_error", hole.id, "this node was shut down")

        def send() -> None:
            for _ in range(3):
                node.snd(port, bytes(800))
            sent.set()

        sent = Event()
        node.after(0, send)  # not here: outside of ports it raises
        assert sent.wait(5)

        def send_in_vain() -> None:
            with contextlib.suppress(NodeShutDownError):
                send()

        thread = threading.Thread(target=send_in_vain, daemon=True)
        thread.start()
        wait_until(lambda: not thread.is_alive())


def test_messages_after_the_goodbye_are_not_handled(make_node: MakeNode) -> None:
    """The answer could not be sent."""
    node = make_node()
    inbox = Inbox(node)
    with RawPeer.dial(node, extras=OUR_PROVIDER).shake() as peer:
        leaving = gevent.spawn(node.shutdown, 10)
        assert peer.packet() == ["", "bye"]
        peer.send([inbox.port.partition("#")[2], "too late"], ["", "snd", inbox.port, "too late"])
        peer.close()
        leaving.get(timeout=5)
        turns(3)
        assert inbox.messages == []


def test_link_that_waits_for_another_is_not_waited_for(make_node: MakeNode) -> None:
    node = make_node()
    first, second = two_connections(node)
    with first, second:
        second.send(["", "after", first.nonce])
        wait_until(lambda: network_of(node).peers[second.name]._held)
        leaving = gevent.spawn(node.shutdown, 10)
        wait_until(lambda: not node.up_nodes())
        assert not leaving.ready()
        first.close()
        second.close()
        leaving.get(timeout=5)


def test_shutdown_on_the_hub_is_refused_and_leaves_the_node_up(make_node: MakeNode) -> None:
    """The hub must never wait."""
    one, two = make_node(), make_node()
    inbox, errors = Inbox(one), []

    def shut_down() -> None:
        try:
            one.shutdown()
        except NoPortContextError as error:
            errors.append(str(error))

    on_hub(shut_down)
    assert "spawn a greenlet" in errors[0]
    two.snd(inbox, "still there")
    wait_until(lambda: inbox.messages)


class Switching(logging.Handler):
    """A log handler that waits, like one that writes to a socket, and the work that is done meanwhile."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self._meanwhile = meanwhile
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("link to"):
            self.seen.append(record.getMessage())
            gevent.sleep(0)
            self._meanwhile()
            gevent.sleep(0)


@pytest.fixture
def switching() -> Iterator[Callable[[Callable[[], object]], Switching]]:
    """A function that sets the work to do whenever the logging of a link switches."""
    logger = logging.getLogger("aemp_gevent")
    before, level = logger.handlers[:], logger.level

    def install(meanwhile: Callable[[], object]) -> Switching:
        handler = Switching(meanwhile)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        return handler

    yield install
    logger.handlers[:] = before
    logger.setLevel(level)


def test_log_handlers_may_switch_during_the_shutdown(
    make_node: MakeNode, switching: Callable[[Callable[[], object]], Switching]
) -> None:
    """Other greenlets send to new nodes meanwhile."""
    node = make_node()
    peers = [RawPeer.dial(node, f"127.0.0.1:{number}").shake() for number in (7, 8, 9)]
    wait_until(lambda: len(node.up_nodes()) == 3)
    names = itertools.count()
    handler = switching(lambda: node.snd(f"named/{next(names)}#p", "x"))
    leaving = gevent.spawn(node.shutdown, 10)
    for peer in peers:
        assert peer.closed()
        peer.close()
    leaving.get(timeout=5)
    wait_until(lambda: len(handler.seen) == 3)
    wait_until(lambda: "named/2" in network_of(node).peers)


def test_link_is_lost_once_although_log_handlers_switch(
    make_node: MakeNode, switching: Callable[[Callable[[], object]], Switching]
) -> None:
    node, died = make_node(), Deaths()
    changes: list[bool] = []
    node.mon_nodes(lambda _node, up, *_reason: changes.append(up))
    with RawPeer.dial(node).shake() as peer:
        node.mon(f"{peer.name}#p", died)
        assert peer.packet() == ["", "mon1", "p"]
        # Were it still up while that is logged, it would be lost for another reason now.
        handler = switching(lambda: (peer.close(), wait_until(lambda: not node.up_nodes())))
        gevent.spawn(network_of(node).peers[peer.name]._lose, "said the test")
        assert died.wait()[2] == "said the test"
        wait_until(lambda: handler.seen and len(changes) > 1, show=lambda: changes)
        turns(50)
        assert changes == [True, False]
        assert died.count == 1


# --- the end of a program ------------------------------------------------------------------

PROGRAM = """
import sys, time
import gevent
import aemp_gevent as mp

mp.initialise_node("127.0.0.1:0")
mp.reg(mp.port(print), "p")
print(mp.NODE(), flush=True)
try:
    {body}
finally:
    print("finally", flush=True)
"""


@pytest.mark.slow
def test_end_of_a_program_is_a_shutdown(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node, died = make_node(), Deaths()
    inbox = Inbox(node)
    # It continues when it is monitored: otherwise it may end before this process has its turn again.
    watcher = node.serve(node.port(), monitor=lambda port: bool(node.mon(port, died)))
    body = (
        f"mp.call({watcher!r}, 'monitor', mp.NODE() + '#p')\n"
        f"    for n in range(1000): mp.snd({inbox.port!r}, n, 'x' * 1000)"
    )
    with process(PROGRAM.format(body=body)) as child:
        assert died.wait()[0] == "shutdown"
        assert child.wait(10) == 0
    wait_until(lambda: len(inbox.messages) == 1000, show=lambda: len(inbox.messages))
    assert [number for number, _text in inbox.messages] == list(range(1000))


def test_end_of_a_program_is_a_shutdown_of_all_its_nodes(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node = make_node()
    body = f"""
    from gevent.event import Event
    go = Event()
    mp.reg(mp.port(go.set), "go")
    nodes = [mp.Node() for _ in range(3)]
    for node in nodes:
        node.initialise_node("127.0.0.1:0")
        node.reg(node.port(print), "p")
        print(node.NODE(), flush=True)
        node.syncal(10, {node.NODE()!r}, "time")
    go.wait(10)
    nodes[0].shutdown()
"""
    with process(PROGRAM.format(body=body)) as child:
        names = [line_of(child) for _ in range(4)]
        deaths = [Deaths() for _ in names]
        for name, died in zip(names, deaths, strict=True):
            node.mon(f"{name}#p", died)
        node.flush()  # so that the nodes know of the monitors
        node.snd(f"{names[0]}#go")
        reasons = [died.wait()[:2] for died in deaths]
        assert child.wait(10) == 0
    assert reasons == [("shutdown", name) for name in names]


@pytest.mark.parametrize("call", ["mp.port(print)", "mp.initialise_node('127.0.0.1:0', secret='s')"])
def test_program_whose_node_lives_in_another_thread_ends_in_silence(call: str) -> None:
    program = (
        f"import threading; import aemp_gevent as mp; t = threading.Thread(target=lambda: {call}); t.start(); t.join()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("signals", "number"),
    [("", signal.SIGTERM), ("", signal.SIGINT), ("signal.SIGUSR1", signal.SIGUSR1)],
)
def test_signal_ends_a_program_in_order(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, signals: str, number: signal.Signals
) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node, died = make_node(), Deaths()
    body = f"import signal; mp.shutdown_on_signal({signals}); print('ready', flush=True); gevent.sleep(60)"
    with process(PROGRAM.format(body=body)) as child:
        child_node = line_of(child)
        node.mon(child_node + "#p", died)
        assert line_of(child) == "ready"
        assert node.syncal(10, child_node, "time")  # so it has a link to us, too
        child.send_signal(number)
        assert died.wait() == ("shutdown", child_node)
        assert line_of(child) == "finally"
        assert child.wait(10) == 128 + number


def test_signal_shuts_down_the_node_that_handles_it(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only the default node, which the program's end shuts down in any case."""
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    node, died = make_node(), Deaths()
    body = (
        f"node = mp.Node(); node.initialise_node('127.0.0.1:0'); node.shutdown_on_signal();"
        f" print(node.syncal(10, {node.NODE()!r}, 'time') and node.NODE(), flush=True); gevent.sleep(60)"
    )
    with process(PROGRAM.format(body=body)) as child:
        line_of(child)  # the default node
        child_node = line_of(child)
        node.mon(child_node, died)
        child.terminate()
        assert died.wait() == ("shutdown", child_node)
        assert child.wait(10) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_second_signal_ends_a_program_at_once(make_node: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while it waits for a peer that reads nothing."""
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    with RawListener() as listener:
        body = (
            f"mp.shutdown_on_signal(timeout=60); gevent.spawn(mp.snd, {listener.id!r}, bytes(30_000_000));"
            " print('ready', flush=True); gevent.sleep(60)"
        )
        with process(PROGRAM.format(body=body)) as child:
            child_node = line_of(child)
            assert line_of(child) == "ready"
            with listener.accept().shake() as peer:
                child.terminate()
                wait_until(lambda: not accepts(child_node))
                again = monotonic()
                child.terminate()
                assert line_of(child) == "finally"
                assert child.wait(10) == 128 + signal.SIGTERM
                assert monotonic() - again < 4, "it waited for the peer at its exit"
                peer.close()


def accepts(node: str) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", int(node.rpartition(":")[2]))) == 0


AFTER_SHUTDOWN = {
    "snd": lambda node, port: node.snd(port, 1),
    "snd, far": lambda node, port: node.snd("127.0.0.1:9#port", 1),
    "snd_nowait": lambda node, port: node.snd_nowait(port, 1),
    "port": lambda node, port: node.port(),
    "port_async": lambda node, port: node.port_async(print),
    "attach": lambda node, port: node.attach(),
    "call": lambda node, port: node.call(port, "tag"),
    "call_async": lambda node, port: node.call_async("127.0.0.1:9#port", "tag"),
    "cal": lambda node, port: node.cal(port, "tag", cb=print),
    "syncal": lambda node, port: node.syncal(1, port, "tag"),
    "spawn": lambda node, port: node.spawn("127.0.0.1:9", "module.function"),
    "db_set": lambda node, port: node.db_set("family", "key"),
    "db_reg": lambda node, port: node.db_reg("family", port),
    "db_mon": lambda node, port: node.db_mon("family", print),
    "grp_reg": lambda node, port: node.grp_reg("group", port),
    "grp_get": lambda node, port: node.grp_get("group"),
    "grp_mon": lambda node, port: node.grp_mon("group", print),
    "grp_snd": lambda node, port: node.grp_snd("group", 1),
}


@pytest.mark.parametrize("call", AFTER_SHUTDOWN.values(), ids=AFTER_SHUTDOWN)
def test_calls_without_effect_after_a_shutdown_raise(make_node: MakeNode, call: Callable[[Node, str], object]) -> None:
    node = make_node()
    inbox = Inbox(node)
    node.shutdown()
    node.shutdown()  # calling it again is not a mistake
    with pytest.raises(NodeShutDownError, match=f"the node {node.NODE()} was shut down"):
        call(node, inbox.port)
    turns(2)
    assert inbox.messages == []


def test_ports_may_finish_their_work_after_the_shutdown(make_node: MakeNode) -> None:
    node = make_node()
    inbox, begin = Inbox(node), Event()

    def finish() -> None:
        begin.wait()
        node.snd(node.port(lambda *message: node.snd(inbox, *message)), "by way of another")
        node.snd("127.0.0.1:9#port", "nobody is told that this is lost, and nobody waits for it")

    node.port_async(finish)
    node.shutdown()
    begin.set()
    wait_until(lambda: inbox.messages == [("by way of another",)])


def ask_through_a_server(node: Node, port: str) -> object:
    server = node.serve(node.port(), ask=lambda: node.call(port, "tag"))
    return node.call(server, "ask")


def call_again(node: Node, port: str) -> None:
    with contextlib.suppress(PortDied):
        node.call(port, "tag")
    node.call(port, "tag")


def call_later(node: Node, port: str) -> None:
    wait_until(lambda: not node.up_nodes())
    node.call(port, "tag")


def call_in_another_greenlet(node: Node, port: str) -> None:
    node.peval_async(require_port("").id, node.call, port, "tag").join()
    receive()


@spawnable
def nap() -> None:
    gevent.sleep(100)


def call_wrapped(node: Node, port: str) -> None:
    try:
        node.call(port, "tag")
    except PortDied as error:
        raise LookupError("a service's own error") from error


WAITS = {
    "call": lambda node, port: node.call(port, "tag"),
    "call again": call_again,
    "call later": call_later,
    "call, wrapped": call_wrapped,
    "call_async": lambda node, port: node.call_async(port, "tag").get(),
    "server": ask_through_a_server,
    "remote queue": lambda node, port: RemoteQueue(port, node=node).get(),
    "pool": lambda node, port: RemotePool([node_of(port)], node=node).apply(nap),
    "other greenlet": call_in_another_greenlet,
    "db_wait": lambda node, port: node.db_wait("family", len),
}
"""How ports may wait; without ``syncal`` and ``cal``, which return nothing, so that the error is the program's own."""


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_port_whose_wait_ends_with_its_node_has_not_crashed(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, wait: Callable[[Node, str], object]
) -> None:
    caplog.set_level(logging.INFO, "aemp_gevent")
    one, two = make_node(), make_node()
    inbox, died = Inbox(two), Deaths()
    one.snd(inbox, "first")
    wait_until(lambda: inbox.messages)
    port = one.port_async(wait, one, inbox.port)
    one.mon(port, died)
    turns(5)
    one.shutdown()
    assert died.wait() == ("shutdown", one.NODE())
    turns(5)
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.WARNING] == []
    assert any(f"port {port} ended, because its node shuts down" in message for message in caplog.messages)


@pytest.mark.parametrize("is_first", [True, False], ids=["this node", "the other"])
def test_service_ends_quietly_with_its_own_node_only(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, is_first: bool
) -> None:
    caplog.set_level(logging.INFO, "aemp_gevent")
    one, two = make_node(), make_node()
    inbox, ended = Inbox(two), Event()
    start_service(one, Service("shop", lambda: one.call(inbox.port, "tag"), ()), lambda *_reason: ended.set())
    wait_until(lambda: inbox.messages)
    (one if is_first else two).shutdown()
    assert ended.wait(10)
    turns(2)
    assert any("the service shop" in message for message in caplog.messages) is not is_first
    assert any(record.exc_info for record in caplog.records) is not is_first


def fail_later(node: Node, port: str) -> None:
    with contextlib.suppress(PortDied):
        node.call(port, "tag")
    raise ValueError("a mistake")


def fail_handling_it(node: Node, port: str) -> None:
    try:
        node.call(port, "tag")
    except PortDied:
        raise ValueError("a mistake")  # noqa: B904


def fail_in_a_server(node: Node, port: str) -> None:
    node.call(node.serve(node.port(), ask=lambda: fail_later(node, port)), "ask")


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        pytest.param(fail_later, ValueError, id="later"),
        pytest.param(fail_handling_it, ValueError, id="handling it"),
        pytest.param(fail_in_a_server, RemoteError, id="in a server"),
    ],
)
def test_mistake_after_a_wait_that_ended_with_its_node_is_a_crash(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture, fail: Callable[[Node, str], object], error: type[Exception]
) -> None:
    one, two = make_node(), make_node()
    inbox, died = Inbox(two), Deaths()
    port = one.port_async(fail, one, inbox.port)
    one.mon(port, died)
    wait_until(lambda: inbox.messages)
    one.shutdown()
    kind, text = died.wait()
    assert (kind, "a mistake" in text) == ("die", True)
    (crash,) = [record for record in caplog.records if record.exc_info]
    assert (crash.levelno, crash.exc_info[0]) == (logging.ERROR, error)


def test_a_private_node_that_is_shut_down_continues() -> None:
    node = Node()
    node.shutdown()
    inbox = Inbox(node)
    node.snd(inbox, 1)
    wait_until(lambda: inbox.messages == [(1,)])
