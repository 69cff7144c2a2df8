# SPDX-License-Identifier: MIT
"""What a message costs step by step, in instructions of the processor, which differ little from run to run.

``python -m benchmarks.steps >> benchmarks/performance.jsonl`` counts with valgrind, which must be installed, and prints
one JSON line a step; with ``AEMP_PURE_PYTHON=0`` it counts the compiled modules. Each step runs twice, the second time
with twice the work, so that what happens once does not count. The scheduler never looks at sockets meanwhile: it would
by the clock, which is fifty times as fast here.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys

from aemp_gevent import is_compiled
from benchmarks import l1_local_cb, l2_local_pingpong, l3_local_recv, l4_ring, l6_kill_mon, n2_net_oneway, s2_ports
from benchmarks.bare import CHUNK
from benchmarks.peer import ROOT

N = 20_000
VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
HUGE_STACK = "--max-stackframe=137000000000"  # greenlets switch stacks


def loop(n: int) -> None:
    """A loop of Python, once round: is in all that follows."""
    for _ in range(n):
        pass


def call_anything(n: int) -> None:
    """A call of a Python function that takes any arguments, with two."""

    def take(_port: object, *_msg: object) -> None:
        """Do nothing."""

    for number in range(n):
        take("port", number)


def send_to_queued(n: int) -> None:
    """``snd`` to a port of this node that stands in the run queue: found in the table, and appended."""
    from aemp_gevent import port, rcv, snd

    target = port()
    rcv(target, lambda *_msg: None)
    for number in range(n):
        snd(target, number)


def send_and_handle(n: int) -> None:
    """The same, and its handler is called: one port in the run queue for 32 messages."""
    l1_local_cb.ours(n)


def callbacks(n: int) -> None:
    """A round trip of two ports with handlers: each message finds an idle port, which enters the run queue."""
    l2_local_pingpong.ours(n)


def hops(n: int) -> None:
    """The same one way, round a ring of a thousand ports."""
    l4_ring.ours(n)


def receives(n: int) -> None:
    """A round trip of two greenlets in ``receive``: two switches."""
    l3_local_recv.ours(n)


def to_ten_ports(n: int) -> None:
    """A message to one of 10 ports, in bursts of 1,000, and its handler is called: the ports find several at a time."""
    s2_ports.ours(n, "10")


def to_thousand_ports(n: int) -> None:
    """The same, to one of 1,000 ports: each finds one."""
    s2_ports.ours(n, "1000")


def to_many_ports(n: int) -> None:
    """The same, to one of 20,000 ports."""
    s2_ports.ours(n, str(N))


def calls(n: int) -> None:
    """``call`` to a port of this node that serves a function, and the answer."""
    from aemp_gevent import attach, call, port, serve

    server = port()
    serve(server, "add", lambda number: number + 1)
    with attach():
        for number in range(n):
            call(server, "add", number)


def creations(n: int) -> None:
    """A port made, without handlers, and kept."""
    from aemp_gevent import port

    for _ in range(n):
        port()


def deaths(n: int) -> None:
    """A port made, monitored, killed, and its monitor called."""
    l6_kill_mon.ours(n)


def encode(n: int) -> None:
    """A message for another node turned into bytes: a tag, a number, 64 characters."""
    from aemp_gevent.wire.framing_msgpack import make_encoder

    encoded = make_encoder()
    for number in range(n):
        encoded(["port", "tag", number, n2_net_oneway.TEXT])


def decode(n: int) -> None:
    """The same turned back into a list, read 64 KiB at a time."""
    from aemp_gevent.wire.framing_msgpack import MsgpackDecoder, make_encoder
    from aemp_gevent.wire.limits import Limits

    data = make_encoder()(["port", "tag", 1000, n2_net_oneway.TEXT])
    decoder, left = MsgpackDecoder(Limits(2**26)), n
    while left > 0:
        count = min(left, CHUNK // len(data))
        decoder.feed(data * count)
        for _packet in decoder:
            left -= 1


def send_remote(n: int) -> None:
    """``snd`` of it to another node, with the writes to the socket; what the other node does is not in it."""
    n2_net_oneway.ours(n)


STEPS = {
    step.__name__: step
    for step in (
        *(loop, call_anything, send_to_queued, send_and_handle, callbacks, hops, receives, to_ten_ports),
        *(to_thousand_ports, to_many_ports, calls, creations, deaths, encode, decode, send_remote),
    )
}


def child(step: str, n: int) -> None:
    """Do a step ``n`` times in this process."""
    from aemp_gevent.ports import pacing

    # CPython 3.11 specialises a function when it has begun, or jumped back without a condition, eight times. A runner's
    # loop does that with each turn. In a turn that never ends it would take twice as many instructions.
    pacing.TURN_SECONDS = 0.0
    l2_local_pingpong.ours(100)
    pacing.TURN_SECONDS = 1e9
    gc.disable()
    STEPS[step](n)
    os._exit(0)


def instructions(step: str, n: int) -> int:
    """Return the instructions of a process that does a step ``n`` times."""
    command = [*VALGRIND, HUGE_STACK, sys.executable, "-m", "benchmarks.steps", step, str(n)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=True)
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None:
        raise RuntimeError(f"valgrind did not count: {done.stderr}")
    return int(found[1].replace(",", ""))


def main() -> int:
    """Count all steps, or those named, or be the process that is counted."""
    match sys.argv[1:]:
        case [step, n] if n.isdigit():
            child(step, int(n))
        case names:
            for step in names or STEPS:
                each = (instructions(step, 2 * N) - instructions(step, N)) / N
                what = STEPS[step].__doc__
                line = {"kind": "step", "step": step, "what": what, "instructions": round(each)}
                print(json.dumps(line | {"build": "compiled" if is_compiled else "Python"}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
