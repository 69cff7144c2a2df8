# SPDX-License-Identifier: MIT
"""A seeded random model: every kind of port does everything to every other, and a checker knows the rules.

``AEMP_MODEL_SEEDS=3000`` runs that many seeds instead of the usual ones; a failure prints its seed.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import defaultdict
from time import monotonic
from typing import Any

import gevent
import pytest
from greenlet import GreenletExit

from aemp_gevent.errors import DeadPortError, PortKilled, ReceiverBusyError
from aemp_gevent.ports.context import SELF
from aemp_gevent.ports.port import DEAD
from aemp_gevent.ports.receive import get, get_cond, receive
from tests.support.seams import ports_of
from tests.support.settling import settle

SEEDS = int(os.environ.get("AEMP_MODEL_SEEDS", "60"))
OPERATIONS = 300
TAGS = ("red", "green", "blue")


class Expected(Exception):
    """Raised by the model's handlers on purpose."""


class World:
    """Ports, what they did, and what they should have done.

    Every message is ``(tag, sender, number, depth)``; ``number`` counts the messages of
    one sender to one port.
    """

    def __init__(self, node: Any, seed: int) -> None:
        self.node = node
        self.rng = random.Random(seed)
        self.ports: list[str] = []
        self.kinds: dict[str, str] = {}
        self.sent: dict[tuple[str, str], int] = defaultdict(int)
        self.handled: dict[tuple[str, str], list[tuple[str, int]]] = defaultdict(list)
        self.cuts: dict[str, dict[str, int]] = {}
        """What each sender had sent to a port when its first kill came."""
        self.reasons: dict[str, tuple[Any, ...]] = {}
        """The reason of the first kill of each port, as seen at the scheduler's two doors."""
        self.own_ends: dict[str, tuple[Any, ...]] = {}
        """How a port's own code ended it, if nothing else had before."""
        self.interrupted: set[str] = set()
        """Ports whose code was left by an exception: their backlog is dropped."""
        self.inside: dict[str, int] = defaultdict(int)
        self.monitors: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.attached: list[Any] = []
        self.errors: list[str] = []
        self.live_runners: set[Any] = set()
        self.ending = False
        self._spy()

    # --- doors of the scheduler, watched ---

    def _spy(self) -> None:
        scheduler = self.node.scheduler
        kill, die, run = scheduler.kill, scheduler.die, scheduler._run

        def spied_kill(port: Any, reason: Any) -> None:
            if port.dying is None:
                self.reasons.setdefault(port.id, reason)
                self._cut(port.id)
            kill(port, reason)

        def spied_die(port: Any, reason: Any) -> None:
            if port.state != DEAD:
                first = self.reasons.setdefault(port.id, reason)
                self._cut(port.id)
                # The reply port of a syncal is nobody's business.
                self.claim(
                    first == reason or port.id not in self.kinds,
                    f"{port.id} died of {reason}, first killed with {first}",
                )
            die(port, reason)

        def spied_run(runner: Any) -> None:
            self.live_runners.add(runner)
            try:
                run(runner)
            finally:
                self.live_runners.discard(runner)

        scheduler.kill, scheduler.die, scheduler._run = spied_kill, spied_die, spied_run

    def _cut(self, port: str) -> None:
        if port not in self.cuts:
            self.cuts[port] = {sender: count for (sender, to), count in self.sent.items() if to == port}

    def claim(self, is_true: bool, otherwise: str) -> None:
        if not is_true:
            self.errors.append(otherwise)

    # --- making ports ---

    def make_port(self) -> None:
        kind = self.rng.choice(["callback", "handlers", "greenlet", "greenlet", "attached", "converted", "bounded"])
        node = self.node
        if kind == "callback":
            port = node.port(self.handle)
        elif kind == "bounded":
            port = node.port(self.handle, limit=self.rng.choice([3, 10]))
        elif kind == "handlers":
            port = node.port(self.handle)
            node.rcv(port, "red", lambda *rest: self.handle("red", *rest))
            node.rcv(port, ["green"], self.handle)
        elif kind == "greenlet":
            port = node.port_async(self.body, self.rng.random() < 0.4)
        elif kind == "converted":
            port = node.port(self.handle)
        else:
            ready: list[str] = []
            self.attached.append(gevent.spawn(self.attached_body, ready))
            while not ready:
                gevent.sleep(0)
            port = ready[0]
        self.ports.append(port)
        self.kinds[port] = kind
        self.monitor(port, None)

    def attached_body(self, ready: list[str]) -> None:
        try:
            with self.node.attach() as port:
                ready.append(port)
                self.body(False)
                self.own_ends[port] = self.reasons.get(port, ())
        except (Expected, PortKilled):
            pass

    # --- what ports do ---

    def body(self, serves: bool) -> None:
        """Receive in every way there is, until killed."""
        me = SELF()
        if serves:
            self.node.rcv(me, "blue", lambda *rest: self.handle("blue", *rest))
        rng = random.Random(self.rng.random())
        try:
            while True:
                way = rng.randrange(8)
                timeout = rng.choice([None, 0.0, -1, 0.0005, 0.002])
                if way == 0:
                    message = receive("red", timeout=timeout or 0, default=None)
                elif way == 1:
                    message = receive(["green", str], "blue", timeout=timeout or 0, default=None)
                elif way == 2:
                    message = get_cond(lambda tag, *rest: tag != "red", timeout=0.001)
                elif way == 3:
                    message = ("red", *get("red", timeout=0.0005))
                elif way == 4:
                    message = receive(self.picky, timeout=0.001, default=None)
                elif timeout is not None and timeout <= 0:
                    message = receive(timeout=timeout, default=None) or receive()
                else:
                    message = receive(timeout=timeout, default=None)
                if message is not None and self.handle(*message) is True and not serves:
                    self.own_ends.setdefault(me or "", self.reasons.get(me or "", ()))
                    return
        except TimeoutError:
            self.body(serves)
        except BaseException:
            self.interrupted.add(me or "")
            raise

    def picky(self, *message: Any) -> bool:
        """A predicate that receives, and so changes the mailbox during the receive that called it."""
        if message[2] % 7 == 3:
            other = receive("blue", timeout=0, default=None)
            if other is not None:
                self.note(*other[:3])
        return bool(message[0] != "green")

    def note(self, tag: str, sender: str, number: int) -> None:
        me = SELF() or ""
        self.handled[sender, me].append((tag, number))
        cut = self.cuts.get(me)
        self.claim(
            cut is None or number <= cut.get(sender, 0), f"{me} handled {number} of {sender}, sent after its kill"
        )

    def handle(self, tag: str, sender: str, number: int, depth: Any) -> Any:
        me = SELF() or ""
        self.note(tag, sender, number)
        if isinstance(depth, str):  # the reply port of a cal or syncal
            self.node.snd(depth, "answer")
            depth = 0
        self.claim(
            me in ports_of(self.node) or self.kinds.get(me) == "attached",
            f"{me} handled {number} of {sender} when dead",
        )
        is_greenlet = self.kinds.get(me) in {"greenlet", "attached", None}
        self.claim(self.inside[me] == 0 or is_greenlet, f"{me} does two things at a time")
        self.inside[me] += 1
        try:
            return None if self.ending else self.act(me, depth)
        except BaseException as error:
            self.interrupted.add(me)
            is_ours = isinstance(error, Expected) or (type(error) is GreenletExit and self.kinds.get(me) != "attached")
            if is_ours:
                self.own_ends.setdefault(me, self.reasons.get(me, ("die", f"{type(error).__name__}")))
            raise
        finally:
            self.inside[me] -= 1

    def act(self, me: str, depth: int) -> Any:
        rng = self.rng
        for _ in range(rng.choice([0, 1, 1, 2]) if depth else 0):
            self.send(me, depth - 1)
        choice = rng.randrange(60)
        if choice < 6:
            gevent.sleep(rng.choice([0, 0, 0.0005, 0.002]))
        elif choice == 6:
            raise rng.choice([Expected, GreenletExit])
        elif choice == 7:
            self.node.kil(me, *rng.choice([(), ("self", me)]))
        elif choice == 8:
            self.kill_some()
        elif choice in (9, 10):
            self.monitor(rng.choice(self.ports), me)
        elif choice == 11:
            self.cancel_some()
        elif choice == 12:
            answer = self.node.syncal(rng.choice([0, 0.001]), rng.choice(self.ports), "red", "syncal", 0)
            self.claim(isinstance(answer, tuple), f"syncal answered {answer!r}")
        elif choice == 13:
            self.ask(me)
        elif choice == 14:
            self.node.mon(rng.choice(self.ports), me)
        elif choice == 15:
            self.node.mon(rng.choice(self.ports), rng.choice(self.ports))
        elif choice == 16 and self.kinds.get(me) == "converted":
            self.convert(me)
        elif choice == 17:
            self.node.after(rng.choice([0, 0.001]), lambda: None if self.ending else self.send(me, 0))
        elif choice == 18:
            self.evaluate_in_some()
        elif choice == 19:
            self.leak_a_timeout()
        elif choice == 20:
            if self.kinds.get(me) == "callback":
                self.own_ends.setdefault(me, self.reasons.get(me, ()))
                self.interrupted.add(me)  # True ends it at once, whatever still waits
            return True if self.kinds.get(me) in {"callback", "greenlet", "attached"} else None
        return None

    def leak_a_timeout(self) -> None:
        try:
            with gevent.Timeout(0.0005):
                gevent.sleep(self.rng.choice([0, 0.001]))
        except gevent.Timeout:
            pass

    # --- operations, of ports and of the driver ---

    def send(self, sender: str, depth: int) -> None:
        to = self.rng.choice(self.ports)
        self.sent[sender, to] += 1
        self.node.snd(to, self.rng.choice(TAGS), sender, self.sent[sender, to], depth)

    def kill_some(self) -> None:
        port = self.rng.choice(self.ports)
        self.node.kil(port, *self.rng.choice([(), ("killed", port), ("again",)]))
        self.claim(port in self.reasons, f"{port} was killed and no kill was seen")

    def monitor(self, port: str, by: str | None) -> None:
        alive = port in ports_of(self.node)
        entry: dict[str, Any] = {"port": port, "alive": alive, "fired": [], "cancelled": False}

        def fired(*reason: Any) -> None:
            self.claim(not entry["cancelled"], f"a cancelled monitor of {port} fired")
            self.claim(port not in ports_of(self.node), f"a monitor of {port} fired before its death")
            self.claim(SELF() == by, f"a monitor set up by {by} ran as {SELF()}")
            entry["fired"].append(reason)
            if self.rng.random() < 0.1 and not self.ending:
                gevent.sleep(0.0005)

        entry["guard"] = self.node.mon(port, fired)
        self.monitors.append(entry)

    def cancel_some(self) -> None:
        entry = self.rng.choice(self.monitors)
        entry["guard"].cancel()
        if not entry["fired"]:
            entry["cancelled"] = True

    def ask(self, _me: str) -> None:
        entry: dict[str, Any] = {"answers": []}
        self.answers.append(entry)
        self.node.cal(
            self.rng.choice(self.ports),
            "blue",
            "cal",
            0,
            cb=lambda *answer: entry["answers"].append(answer),
            timeout=0.003,
        )

    def convert(self, port: str) -> None:
        try:
            self.node.rcv_async(port, self.body, False)
            self.kinds[port] = "greenlet"
        except (DeadPortError, ReceiverBusyError):
            pass

    def evaluate_in_some(self) -> None:
        port = self.rng.choice(self.ports)

        def fails() -> None:
            self.claim(SELF() == port, "peval in the wrong context")
            self.interrupted.add(port)
            raise Expected

        with contextlib.suppress(DeadPortError):
            self.node.peval(port, fails)

    def operate(self) -> None:
        choice = self.rng.randrange(40)
        if choice < 26:
            self.send("driver", self.rng.choice([0, 1, 2, 3]))
        elif choice < 29 and len(self.ports) < 40:
            self.make_port()
        elif choice == 29:
            self.kill_some()
        elif choice in (30, 31):
            self.monitor(self.rng.choice(self.ports), None)
        elif choice == 32:
            self.cancel_some()
        elif choice == 33:
            self.convert(
                self.rng.choice([port for port in self.ports if self.kinds[port] == "converted"] or [""])
                or self.ports[0]
            )
        elif choice == 34:
            self.evaluate_in_some()
        elif choice < 38:
            gevent.sleep(self.rng.choice([0, 0, 0.0005]))

    # --- the verdict ---

    def run(self) -> None:
        for _ in range(self.rng.randrange(2, 8)):
            self.make_port()
        for _ in range(OPERATIONS):
            self.operate()
        self.ending = True
        self.rest()
        self.check_the_living()
        for port in self.ports:
            self.node.kil(port, "end")
        self.rest()
        for other in self.attached:
            other.join(5)
            self.claim(other.dead, "an attached greenlet is stuck")
        self.rest()
        self.check_the_dead()
        assert self.errors == []

    def rest(self) -> None:
        """Wait until all that blocks for a while has gone on, and nothing is due."""
        deadline = monotonic() + 5
        idle_rounds = 0
        while idle_rounds < 3:
            gevent.sleep(0.001)
            settle(self.node)
            busy = [port for port, count in self.inside.items() if count]
            timed = [port for port in ports_of(self.node).values() if port.id not in self.kinds]
            idle_rounds = 0 if busy or timed else idle_rounds + 1
            if monotonic() > deadline:
                self.claim(False, f"stuck: {busy} {timed}")
                return

    def check_the_living(self) -> None:
        for port in self.ports:
            entry = ports_of(self.node).get(port)
            if entry is None or entry.dying is not None:
                continue
            inbox = list(entry.inbox or ())
            for (sender, to), count in self.sent.items():
                if to == port:
                    waiting = [number for _tag, who, number, *_ in inbox if who == sender]
                    got = [number for _tag, number in self.handled[sender, to]]
                    self.claim(
                        sorted(got + waiting) == list(range(1, count + 1)),
                        f"{port} lost or doubled: {got} {waiting} of {count}",
                    )
            if self.kinds[port] in {"callback", "handlers", "bounded"}:
                self.claim(not inbox, f"{port} idles with {inbox}")

    def check_the_dead(self) -> None:
        for (sender, to), got in self.handled.items():
            if sender in {"syncal", "cal"}:
                continue
            numbers = [number for _tag, number in got]
            if self.kinds.get(to) in {"callback", "handlers", "bounded"}:
                self.claim(numbers == list(range(1, len(numbers) + 1)), f"{to} got {numbers} of {sender}")
                killed = self.reasons.get(to, ())[:1] in {("killed",), ("again",), ("self",), ("end",)}
                if killed and to not in self.interrupted:
                    self.claim(
                        len(numbers) == self.cuts[to].get(sender, 0),
                        f"{to} got {numbers}, cut at {self.cuts[to].get(sender)}",
                    )
            for tag in TAGS:
                of_tag = [number for other, number in got if other == tag]
                self.claim(of_tag == sorted(set(of_tag)), f"{to} got {tag} messages of {sender} as {of_tag}")
        for port, reason in self.own_ends.items():
            self.claim(
                self.reasons.get(port) == reason, f"{port} ended itself with {reason}, died of {self.reasons.get(port)}"
            )
        for entry in self.monitors:
            port = entry["port"]
            if entry["cancelled"]:
                self.claim(entry["fired"] == [], f"cancelled: {entry}")
            elif entry["alive"]:
                self.claim(entry["fired"] == [self.reasons.get(port)], f"{entry}, died of {self.reasons.get(port)}")
            else:
                self.claim([fired[0] for fired in entry["fired"]] == ["no_such_port"], f"of a dead port: {entry}")
        for entry in self.answers:
            self.claim(len(entry["answers"]) == 1, f"cal called back {entry['answers']}")
        scheduler = self.node.scheduler
        pool = scheduler._pool
        self.claim(
            len(pool) == len(set(pool)) and set(pool) == self.live_runners, f"runners {self.live_runners}, idle {pool}"
        )
        self.claim(not ports_of(self.node), f"left in the table: {ports_of(self.node)}")
        self.claim(not scheduler.table._aliases, "aliases left")


@pytest.mark.usefixtures("open_scheduler")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_ports_keep_every_promise(node, seed, caplog):
    caplog.set_level("CRITICAL")
    print(f"seed {seed}")
    World(node, seed).run()
