# SPDX-License-Identifier: MIT
"""What one node sees of another that is blocked, stopped, killed or cut off: the table of the page *Blocked nodes*.

All of it happens at once, to one real process for each row, because each takes as long as its timeouts.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult
from gevent.pool import Pool

from aemp_gevent.errors import CallTimeout, PortDied
from aemp_gevent.node.node import Node
from aemp_gevent.otp import Child, Supervisor
from aemp_gevent.testing import NodeProcess, Proxy, control
from aemp_gevent.testing.waiting import NotInTimeError
from tests.support import preloaded
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, Deaths, node_factory
from tests.support.seams import network_of

pytestmark = pytest.mark.slow

HEARTBEAT_TIMEOUT = 4.0
WITHIN = 90.0
"""Seconds until a state is seen at the latest, on a machine that stands still now and then."""

PREPARE = """
import ctypes, os
import aemp_gevent.otp
from gevent import monkey
from aemp_gevent.runtime import loop_watch
loop_watch.BLOCKED_SECONDS = 1.0
released = os.path.join(folder, mp.NODE().replace("/", "_"))
nap = monkey.get_original("time", "sleep")
def sleeping():  # without calls of Python functions, so that this is always where it is
    while True:
        nap(0.1)
        try:
            os.stat(released)
        except OSError:
            continue
        return
def computing():
    while True:
        for number in range(1_000_000):
            number * number
        try:
            os.stat(released)
        except OSError:
            continue
        return
def keeping_the_gil():
    ctypes.PyDLL(None).sleep(3600)
def deadlocking():
    lock = monkey.get_original("_thread", "allocate_lock")()
    lock.acquire()
    lock.acquire()
def begin(fault):
    open(released + ".begun", "w").close()
    fault()
port = mp.port()
mp.rcv(port, "work", lambda reply: mp.snd(reply, "done"))
mp.grp_reg("workers", port)
mp.spawnable("matrix.child")(lambda: None)
port
"""

BLOCKED = {"sleeping", "computing"}
"""Those that are believed to be alive while it lasts."""

DEADLOCKED = "deadlocking"
KILLED = "kill -9"
SILENT = {"keeping_the_gil", "SIGSTOP", "blackhole both ways", "blackhole from it", "blackhole to it"}
FAULTS = [*sorted(BLOCKED), DEADLOCKED, KILLED, *sorted(SILENT)]


@dataclass
class Seen:
    """What the observer saw of one process."""

    process: NodeProcess
    node: Node
    port: str
    died: Deaths = field(default_factory=Deaths)
    states: list[str] = field(default_factory=list)
    child_states: list[str] = field(default_factory=list)
    """Of a supervisor's child there."""
    where: str = ""
    call: AsyncResult[Any] = field(default_factory=AsyncResult)
    """Of a call that was made when the fault began, and waits without a limit."""
    late_call: CallTimeout | None = None
    """What was raised by a call with a timeout, while it was blocked."""
    stayed: bool = False
    """Whether link, monitor and entry were there for longer than ``HEARTBEAT_TIMEOUT`` while it was blocked."""

    has_fired: bool = False
    stays_listed: bool = False
    """Whether the monitor fired, and the entry is in the directory, in the end."""
    child_history: list[str] = field(default_factory=list)
    """The child's states until then."""

    @property
    def state(self) -> str:
        return self.node.node_state(self.port).state

    @property
    def is_listed(self) -> bool:
        return self.port in (self.node.grp_get("workers") or [])


def look(seen: Seen) -> None:
    """Note the states of a process as they change, until it is gone."""
    while seen.states[-1:] != ["gone"]:
        state = seen.node.node_state(seen.port)
        if seen.states[-1:] != [state.state]:
            seen.states.append(state.state)
        seen.where = state.where or seen.where
        gevent.sleep(0.02)


def supervise(seen: Seen) -> None:
    """Supervise a child in a process, and note its states as they change."""
    with seen.node.attach():
        child = Child("matrix.child", node=seen.process.node, on_lost="wait", restart="permanent")
        tree = Supervisor.start([child])
        while True:
            [found] = tree.which_children()
            if seen.child_states[-1:] != [found["state"]]:
                seen.child_states.append(found["state"])
            gevent.sleep(0.1)


def strike(seen: Seen, fault: str, proxy: Proxy, folder: Path) -> None:
    """Begin what one row of the table is about."""
    seen.node.mon(seen.port, seen.died)
    if fault == "SIGSTOP":
        seen.process.stop()
    elif fault == KILLED:
        seen.process.kill()
    elif fault.startswith("blackhole"):
        direction: Any = {"blackhole both ways": "both", "blackhole from it": "in", "blackhole to it": "out"}[fault]
        proxy.blackhole(direction, nodes=seen.process.node)
    else:
        seen.process.post(f"begin({fault})")
        wait_until((folder / f"{seen.process.node}.begun").exists, within=WITHIN)
    seen.call = seen.node.call_async(seen.port, "work", timeout=None)


def try_call(seen: Seen) -> None:
    """Call a port of a blocked node, in vain."""
    wait_until(lambda: seen.state == "blocked", within=WITHIN, show=lambda: seen)
    try:
        seen.node.call(seen.port, "work", timeout=0.1)
    except CallTimeout as error:
        seen.late_call = error


def outlast(seen: Seen, folder: Path) -> None:
    """Wait for longer than a dead node would be believed, and then let it run again."""
    try_call(seen)
    link: Any = network_of(seen.node).peers[seen.process.node].link
    begin, received = monotonic(), link.received
    while monotonic() - begin < HEARTBEAT_TIMEOUT + 1.5:
        gevent.sleep(0.1)
    now: Any = network_of(seen.node).peers[seen.process.node].link
    seen.stayed = now is link and link.received == received and seen.is_listed and not seen.died.count
    (folder / seen.process.node).touch()


def settle(fault: str, each: Seen) -> None:
    """Wait until all is over, and note how it ended: later it may be found again behind a blackhole."""

    def is_over() -> bool:
        is_alive = fault in BLOCKED
        return (
            each.states[-1:] == ["up" if is_alive else "gone"]
            and (is_alive or len(each.child_states) > 1)
            and (is_alive or each.died.count > 0)
            and each.is_listed is is_alive
            and each.call.ready()
        )

    with contextlib.suppress(NotInTimeError):  # the tests say what is missing
        wait_until(is_over, within=WITHIN)
    each.has_fired, each.stays_listed = each.died.count > 0, each.is_listed
    each.child_history = list(each.child_states)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    folder = tmp_path_factory.mktemp("released")
    common: dict[str, Any] = {"heartbeat_timeout": HEARTBEAT_TIMEOUT, "heartbeat_interval": 0.5, "secret": SECRET}
    with contextlib.ExitStack() as stack:
        # Nine processes that import the library would take longer than all else on a busy machine.
        quick = SimpleNamespace(**{**vars(subprocess), "Popen": preloaded.Popen})
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(control, "subprocess", quick)
        make = stack.enter_context(node_factory())
        proxy = stack.enter_context(Proxy())
        patient = make(None)
        patient.configure(nodeid=proxy.address, binds=["127.0.0.1:0"], blocked_timeout=None, **common)
        proxy.target = str(network_of(patient).listeners.endpoints[0])
        strict = make(blocked_timeout=1.0, **common)

        def start(fault: str) -> Seen:
            node = strict if fault == DEADLOCKED else patient
            process = stack.enter_context(NodeProcess(seeds=[node.NODE()], **common))
            return Seen(process, node, process.run(PREPARE, timeout=WITHIN, folder=str(folder)))

        # Two at a time: on a busy machine, all at once would take longer than a process may take to start.
        started = dict(zip(FAULTS, Pool(2).map(start, FAULTS), strict=True))
        for each in started.values():
            wait_until(lambda: each.is_listed and each.state == "up", within=WITHIN)  # noqa: B023
            link: Any = network_of(each.node).peers[each.process.node].link
            wait_until(lambda: link.second_path.works, within=WITHIN)  # noqa: B023
            wait_until(lambda: each.process.run("len(mp.up_nodes())", timeout=WITHIN) > 0, within=WITHIN)  # noqa: B023
        watches = [gevent.spawn(watch, each) for watch in (look, supervise) for each in started.values()]
        for each in started.values():
            wait_until(lambda: each.child_states == ["running"], within=WITHIN, show=lambda: each)  # noqa: B023
        for fault, each in started.items():
            strike(each, fault, proxy, folder)
        jobs = [gevent.spawn(outlast, started[fault], folder) for fault in BLOCKED]
        jobs.append(gevent.spawn(try_call, started[DEADLOCKED]))
        jobs += [gevent.spawn(settle, fault, each) for fault, each in started.items()]
        gevent.joinall(jobs, raise_error=True)
        gevent.killall(watches)
        yield started


@pytest.mark.parametrize("fault", FAULTS)
def test_state_of_the_link(seen: dict[str, Seen], fault: str) -> None:
    expected = {DEADLOCKED: ["up", "blocked", "gone"], **{one: ["up", "blocked", "up"] for one in BLOCKED}}
    assert seen[fault].states == expected.get(fault, ["up", "gone"])
    function = fault if fault in BLOCKED or fault == DEADLOCKED else ""
    assert seen[fault].where.rpartition(" in ")[2] == function


@pytest.mark.parametrize("fault", FAULTS)
def test_monitor_fires_when_it_is_gone(seen: dict[str, Seen], fault: str) -> None:
    each = seen[fault]
    if fault in BLOCKED:
        assert each.stayed
        assert not each.has_fired
        return
    kind, node, why = each.died.wait()
    assert (kind, node) == ("transport_error", each.process.node)
    if fault == DEADLOCKED:
        assert "it is blocked for" in why
        assert "in deadlocking, and blocked_timeout is 1 s" in why
    elif fault in SILENT - {"blackhole to it"}:
        assert why.startswith("nothing received for 4.")
    else:
        assert "nothing received" not in why, "the system reported it"


@pytest.mark.parametrize("fault", FAULTS)
def test_supervisor_loses_its_child_when_it_is_gone(seen: dict[str, Seen], fault: str) -> None:
    assert seen[fault].child_history == (["running"] if fault in BLOCKED else ["running", "lost"])


@pytest.mark.parametrize("fault", FAULTS)
def test_directory_entry_follows_it(seen: dict[str, Seen], fault: str) -> None:
    assert seen[fault].stays_listed is (fault in BLOCKED)


@pytest.mark.parametrize("fault", FAULTS)
def test_call_ends(seen: dict[str, Seen], fault: str) -> None:
    each = seen[fault]
    if fault in BLOCKED:
        assert each.call.get(block=False) == "done", "it waited, and was served"
    else:
        with pytest.raises(PortDied):
            each.call.get(block=False)
    if fault in BLOCKED or fault == DEADLOCKED:
        assert each.late_call is not None
        assert each.late_call.blocked.endswith(f" in {fault}")
