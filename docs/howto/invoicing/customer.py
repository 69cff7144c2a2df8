# SPDX-License-Identifier: MIT
"""A customer. Arguments: the service's node, a name, and one order each, such as pen=3,ink=1."""

import sys

from aemp_gevent import initialise_node, shutdown, shutdown_on_signal
from aemp_gevent.toolkit import RemoteQueue


def customer(port, name, orders):
    queue = RemoteQueue(port)
    for items in orders:
        queue.put((name, items))


def main():
    node, name, *texts = sys.argv[1:]
    orders = [{item: int(count) for item, count in (one.split("=") for one in text.split(","))} for text in texts]
    shutdown_on_signal()
    initialise_node("127.0.0.1:0", secret="pen and ink")
    customer(f"{node}#orders", name, orders)
    shutdown()


if __name__ == "__main__":
    main()
