# SPDX-License-Identifier: MIT
"""Prices orders and keeps what customers owe: a gevent service in one process."""

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.queue import Queue

PRICES = {"pen": 2, "ink": 5, "paper": 3}


def price(order):
    customer, items = order
    gevent.sleep(0.01)  # asks somebody else for the prices
    return customer, sum(PRICES[item] * count for item, count in items.items())


class Invoicing:
    def __init__(self):
        self.orders = Queue(maxsize=100)
        self.pool = Pool(3)
        self.done = Event()
        self.owed = {}

    def run(self):
        for customer, total in self.pool.imap_unordered(price, self.orders):
            self.owed[customer] = self.owed.get(customer, 0) + total
        self.done.set()

    def close(self):
        """Take no more orders; those in the queue are still priced."""
        self.orders.put(StopIteration)


def customer(service, name, orders):
    for items in orders:
        service.orders.put((name, items))


def report(service):
    service.done.wait()
    for name, total in sorted(service.owed.items()):
        print(name, "owes", total)


def main():
    service = Invoicing()
    gevent.spawn(service.run)
    reporter = gevent.spawn(report, service)
    customers = [
        gevent.spawn(customer, service, "ada", [{"pen": 1}, {"ink": 2}]),
        gevent.spawn(customer, service, "bob", [{"paper": 10}, {"pen": 3, "ink": 1}]),
    ]
    gevent.joinall(customers)
    service.close()
    reporter.join()


if __name__ == "__main__":
    main()
