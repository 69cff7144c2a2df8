# SPDX-License-Identifier: MIT
"""Workers that find each other by a group, whatever nodes they live on.

AEMP_SECRET=change-me python examples/workers.py serve 127.0.0.1:4040     # the seed, and a worker
AEMP_SECRET=change-me python examples/workers.py serve 127.0.0.1:0 127.0.0.1:4040
AEMP_SECRET=change-me python examples/workers.py ask 127.0.0.1:4040

Shows ``grp_reg`` and ``db_wait``: each process knows only the seed, and finds the others by it.
"""

import argparse

import gevent

from aemp_gevent import actor, db_wait, grp_reg, initialise_node, receive, shutdown, shutdown_on_signal, snd, syncal


@actor
def worker() -> None:
    """Square whatever anybody sends."""
    grp_reg("workers")  # until this port dies
    while True:
        number, sender = receive()
        snd(sender, number * number)


def main() -> None:
    """Run a worker, or ask all workers."""
    parser = argparse.ArgumentParser(description="Let workers find each other by a group.")
    parser.add_argument("what", choices=["serve", "ask"])
    parser.add_argument("nodes", nargs="+", metavar="NODEREF", help="serve: where to listen, then seeds; ask: seeds")
    args = parser.parse_args()
    shutdown_on_signal()
    if args.what == "serve":
        initialise_node(*args.nodes)
        print("ready; Ctrl-C ends it", flush=True)
        worker()
        gevent.wait()
    initialise_node("127.0.0.1:0", *args.nodes)
    for number, port in enumerate(db_wait("workers", lambda ports: len(ports) >= 2, timeout=20)):
        print(number, *syncal(10, port, number))
    shutdown()


if __name__ == "__main__":
    main()
