# SPDX-License-Identifier: MIT
"""A node that prices orders."""

import gevent

from aemp_gevent import NODE, attach, initialise_node, receive, shutdown_on_signal, spawnable

PRICES = {"pen": 2, "ink": 5, "paper": 3}


@spawnable
def price(order):
    customer, items = order
    gevent.sleep(0.01)  # asks somebody else for the prices
    return customer, sum(PRICES[item] * count for item, count in items.items())


if __name__ == "__main__":
    shutdown_on_signal()
    initialise_node("127.0.0.1:0", secret="pen and ink")
    print(NODE(), flush=True)
    with attach():
        receive()
