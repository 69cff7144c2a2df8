# SPDX-License-Identifier: MIT
"""A ring of ports, round which a token runs: the classic of message passing.

    python examples/ring.py --ports 10000
    python examples/ring.py --processes 2

With several processes each port of the ring lives in another one than its neighbours, so
that every hop crosses a link. Each port monitors the next one: if any dies, the whole
ring does, and the script hears of it.
"""

import argparse
import os
import secrets
import sys
from contextlib import ExitStack
from time import perf_counter

from gevent.socket import wait_read
from gevent.subprocess import PIPE, Popen

from aemp_gevent import (
    NODE,
    SELF,
    attach,
    get,
    initialise_node,
    mon,
    rcv,
    shutdown,
    shutdown_on_signal,
    snd,
    spawn,
    spawnable,
)


@spawnable
def pass_on(starter: str) -> None:
    """Run one port of the ring: pass each token on to the next port, one hop older."""

    def follow(following: str) -> None:
        mon(following)
        rcv(SELF(), token=lambda hops: snd(following, "token", hops + 1))
        snd(starter, "ready")

    rcv(SELF(), follow=follow)
    snd(starter, "ready")


def host_ports() -> None:
    """Run one of several processes: a node on which the main process spawns. Ends with it."""
    initialise_node("127.0.0.1:0")  # any free port; the secret comes from the environment
    print(NODE(), flush=True)
    wait_read(0)
    shutdown()


def start_process() -> Popen[bytes]:
    """Start another process of this program, to host ports."""
    return Popen([sys.executable, __file__, "--host-ports"], stdin=PIPE, stdout=PIPE)


def read_line(process: Popen[bytes]) -> str:
    """Return the next line that a process prints: the ID of its node."""
    assert process.stdout is not None
    line: bytes = process.stdout.readline()
    return line.decode().strip()


def wait_for(ring: list[str]) -> None:
    """Wait until each port has sent that it is ready."""
    for _ in ring:
        get("ready")


def run_ring(nodes: list[str], ports: int, rounds: int) -> tuple[int, float]:
    """Make a ring of ports, on each node in turn, and return the token's hops and the seconds they took."""
    with attach() as me:
        ring = [spawn(nodes[number % len(nodes)], "ring.pass_on", me) for number in range(ports)]
        wait_for(ring)  # before another process hears of a port, it must be there
        for port, following in zip(ring, [*ring[1:], me], strict=True):
            snd(port, "follow", following)
        wait_for(ring)
        first = ring[0]
        mon(first)  # should the ring die, get() raises
        snd(first, "token", 0)
        get("token")  # one round for nothing, when messages still wait for links

        start = perf_counter()
        hops = 0
        for _ in range(rounds):
            snd(first, "token", hops)
            (hops,) = get("token")
        return hops, perf_counter() - start


def main() -> None:
    """Make the ring that the command line asks for, and time it."""
    parser = argparse.ArgumentParser(description="Pass a token round a ring of ports.")
    parser.add_argument("--ports", type=int, default=1000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="default: %(default)s")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--host-ports", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    shutdown_on_signal()
    if min(args.ports, args.rounds, args.processes) < 1:
        parser.error("ports, rounds and processes are numbers from 1 on")
    if args.host_ports:
        host_ports()
        return

    with ExitStack() as stack:
        nodes = [NODE()]
        if args.processes > 1:
            os.environ["AEMP_SECRET"] = secrets.token_urlsafe()
            initialise_node("127.0.0.1:0")
            others = [stack.enter_context(start_process()) for _ in range(args.processes - 1)]
            nodes = [NODE(), *(read_line(other) for other in others)]
        hops, seconds = run_ring(nodes, args.ports, args.rounds)
        shutdown()

    processes = "one process" if args.processes == 1 else f"{args.processes} processes"
    print(f"{args.ports} ports in {processes}, {args.rounds} rounds:")
    print(f"{hops} hops in {seconds:.3f} s, {hops / seconds:.0f} a second")


if __name__ == "__main__":
    main()
