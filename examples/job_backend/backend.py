# SPDX-License-Identifier: MIT
"""A backend: a node without web server, whose ports each do one job at a time. Any number may be started and killed."""

from __future__ import annotations

import os

import gevent

from aemp_gevent import NODE, grp_reg, port, rcv, shutdown_on_signal, snd
from aemp_gevent.contrib import join_host

PORTS = 8


def work(number: int, seconds: float, reply: str) -> None:
    """Find the factors of a number, and take some time for it."""
    gevent.sleep(seconds)
    factors: list[int] = []
    divisor = 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    snd(reply, os.getpid(), [*factors, number] if number > 1 else factors)


if __name__ == "__main__":
    join_host("jobs")
    shutdown_on_signal()
    for _ in range(PORTS):
        worker = port()
        rcv(worker, "factor", work)
        grp_reg("workers", worker)
    print("backend", NODE(), flush=True)
    gevent.wait()
