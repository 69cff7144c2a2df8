# SPDX-License-Identifier: MIT
"""The service itself. Arguments: the nodes that price."""

import sys

import gevent

from aemp_gevent import NODE, initialise_node, port, reg, serve, shutdown_on_signal
from aemp_gevent.toolkit import PortEvent, PortQueue, RemotePool


class Invoicing:
    def __init__(self, nodes):
        self.orders = PortQueue(maxsize=100)
        self.pool = RemotePool(nodes, workers=3)
        self.done = PortEvent()
        self.owed = {}
        self.books = serve(port(), owed=lambda: self.owed)

    def run(self):
        for customer, total in self.pool.imap_unordered("pricer.price", self.orders):
            self.owed[customer] = self.owed.get(customer, 0) + total
        self.done.set()

    def close(self):
        """Take no more orders; those in the queue are still priced."""
        self.orders.put(StopIteration)


def main():
    shutdown_on_signal()
    initialise_node("127.0.0.1:0", secret="pen and ink")
    service = Invoicing(sys.argv[1:])
    reg(service.orders, "orders")
    reg(service.done, "done")
    reg(service.books, "books")
    print(NODE(), flush=True)
    service.run()
    service.pool.close()
    gevent.sleep(3600)


if __name__ == "__main__":
    main()
