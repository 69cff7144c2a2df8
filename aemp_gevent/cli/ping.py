# SPDX-License-Identifier: MIT
"""``aemp ping`` and ``aemp bench``: round trips to a node, and how many messages it handles."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import click

from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import ask, node_id, timeout_option, unreachable
from aemp_gevent.cli.output import json_option, print_json, printable
from aemp_gevent.wire.vocabulary import DEVNULL


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
        ask(node, other, "time", timeout=timeout)  # makes the link, so that this is not measured
        seconds: list[float] = []
        sent = 0
        try:
            while count is None or sent < count:
                if sent:
                    gevent.sleep(interval)
                sent += 1
                began = time.perf_counter()
                try:
                    node.call(other, "time", timeout=timeout)
                except CallTimeout:
                    said = f"no answer within {timeout:g} s"
                except PortDied as error:
                    said = unreachable(other, error.reason).format_message()
                else:
                    seconds.append(time.perf_counter() - began)
                    said = f"time={seconds[-1] * 1000:.3f} ms"
                if not as_json:
                    click.echo(printable(f"{other}: seq={sent} {said}"))
        except KeyboardInterrupt:
            pass  # the usual end
        found = statistics_of(sent, seconds)
        if as_json:
            print_json({"node": other, **found})
        else:
            click.echo(_summary(other, found))
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


@click.command()
@click.argument("node_name", metavar="NODE")
@click.option(
    "--seconds",
    type=Seconds(min=0.1, max=60),
    default=3.0,
    show_default=True,
    help="How long to send.",
)
@click.option(
    "--size",
    metavar="BYTES",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="The size of each message.",
)
@timeout_option
@json_option
@node_options
def bench(options: NodeOptions, node_name: str, seconds: float, size: int, timeout: float, as_json: bool) -> None:
    """Measure how many messages a second a node handles from this host, over one link.

    The messages go to its node port, which drops them. The node is busy meanwhile, so avoid this in production.
    """
    with connected(options) as node:
        import gevent  # noqa: PLC0415

        other = node_id(node, node_name)
        ask(node, other, "time", timeout=timeout)
        payload = b"x" * size
        began = time.perf_counter()
        count, passed = 0, 0.0
        with _progress(seconds, shown=not as_json) as show:
            while passed < seconds:
                for _ in range(200):
                    node.snd(other, DEVNULL, payload)
                count += 200
                gevent.sleep(0)
                passed = time.perf_counter() - began
                show(min(passed, seconds), f"{count / passed:,.0f}/s")
            ask(node, other, "time", timeout=max(timeout, seconds))  # arrives after all of them
        passed = time.perf_counter() - began
        found = {"node": other, "messages": count, "bytes": count * size, "seconds": passed, "rate": count / passed}
        if as_json:
            print_json(found)
            return
        megabytes = count * size / passed / 1e6
        click.echo(
            f"{count:,} messages of {size} bytes in {passed:.2f} s: {count / passed:,.0f}/s, {megabytes:.1f} MB/s"
        )


@contextmanager
def _progress(total: float, *, shown: bool) -> Generator[Callable[[float, str], None], None, None]:
    """Show a progress bar on standard error, if that is a terminal; yield a function that moves it."""
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    from aemp_gevent.cli.output import console  # noqa: PLC0415

    out = console(stderr=True)
    if not shown or not out.is_terminal:
        yield lambda _done, _text: None
        return
    columns = (TextColumn("sending"), BarColumn(), TextColumn("{task.fields[rate]}"))
    # Without a refreshing thread, because this program runs one event loop.
    with Progress(*columns, console=out, auto_refresh=False, transient=True) as progress:
        task = progress.add_task("", total=total, rate="")
        last = 0.0

        def show(done: float, rate: str) -> None:
            nonlocal last
            if done - last > 0.1 or done >= total:
                last = done
                progress.update(task, completed=done, rate=rate, refresh=True)

        yield show
