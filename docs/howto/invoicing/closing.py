# SPDX-License-Identifier: MIT
"""Closes the service for today, and prints who owes what. Argument: its node."""

import sys

from aemp_gevent import call, initialise_node, shutdown, shutdown_on_signal
from aemp_gevent.toolkit import RemoteEvent, RemoteQueue


def report(done, books):
    RemoteEvent(done).wait()
    for name, total in sorted(call(books, "owed").items()):
        print(name, "owes", total)


def main():
    node = sys.argv[1]
    shutdown_on_signal()
    initialise_node("127.0.0.1:0", secret="pen and ink")
    RemoteQueue(f"{node}#orders").put(StopIteration)
    report(f"{node}#done", f"{node}#books")
    shutdown()


if __name__ == "__main__":
    main()
