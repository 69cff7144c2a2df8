# SPDX-License-Identifier: MIT
"""``aemp ping``: round trips to a node."""

from __future__ import annotations

import math
import time
from typing import Any

import click

from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import ask, node_id, timeout_option, unreachable
from aemp_gevent.cli.output import echo, json_option, print_json
from aemp_gevent.wire.vocabulary import TIME


@click.command()
@click.argument("node_name", metavar="NODE")
@click.option(
    "-c", "--count", metavar="N", type=click.IntRange(min=1), help="Stop after N pings (default: until Ctrl-C)."
)
@click.option(
    "-i",
    "--interval",
    metavar="SECONDS",
    type=Seconds(min=0),
    default=1.0,
    show_default=True,
    help="Time between two pings.",
)
@timeout_option
@json_option
@node_options
def ping(
    options: NodeOptions, node_name: str, count: int | None, interval: float, timeout: float, as_json: bool
) -> None:
    """Measure round trips to a node: requests to its node port, which waits its turn among all ports of the node.

    Exit code 1: no request was answered.
    """
    with connected(options) as node:
        import gevent  # noqa: PLC0415

        from aemp_gevent.errors import CallTimeout, PortDied  # noqa: PLC0415

        other = node_id(node, node_name)
        ask(node, other, TIME, timeout=timeout)  # makes the link, so that this is not measured
        seconds: list[float] = []
        sent = 0
        try:
            while count is None or sent < count:
                if sent:
                    gevent.sleep(interval)
                sent += 1
                began = time.perf_counter()
                try:
                    node.call(other, TIME, timeout=timeout)
                except CallTimeout:
                    said = f"no answer within {timeout:g} s"
                except PortDied as error:
                    said = unreachable(other, error.reason).format_message()
                else:
                    seconds.append(time.perf_counter() - began)
                    said = f"time={seconds[-1] * 1000:.3f} ms"
                if not as_json:
                    echo(f"{other}: seq={sent} {said}")
        except KeyboardInterrupt:
            pass  # the usual end
        found = statistics_of(sent, seconds)
        if as_json:
            print_json({"node": other, **found})
        else:
            echo(_summary(other, found), "\n")
        click.get_current_context().exit(0 if seconds else 1)


def statistics_of(sent: int, seconds: list[float]) -> dict[str, Any]:
    """Return ping's summary: counts, and the round trips' minimum, maximum, mean and mean deviation in seconds."""
    found: dict[str, Any] = {"sent": sent, "answered": len(seconds)}
    if not seconds:
        return {**found, "min": None, "avg": None, "max": None, "mdev": None}
    mean = sum(seconds) / len(seconds)
    # As ping does: the root of the mean square, less the square of the mean.
    variance = max(sum(value * value for value in seconds) / len(seconds) - mean * mean, 0.0)
    return {**found, "min": min(seconds), "avg": mean, "max": max(seconds), "mdev": math.sqrt(variance)}


def _summary(other: str, found: dict[str, Any]) -> str:
    lost = 100 * (found["sent"] - found["answered"]) // max(found["sent"], 1)
    text = f"--- {other}: {found['sent']} sent, {found['answered']} answered, {lost}% lost"
    if not found["answered"]:
        return text
    figures = "/".join(f"{found[name] * 1000:.3f}" for name in ("min", "avg", "max", "mdev"))
    return f"{text}\nround trip min/avg/max/mdev = {figures} ms"
