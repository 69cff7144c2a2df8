# SPDX-License-Identifier: MIT
"""``aemp bench``: how many messages a second a node handles."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import click

from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.node_queries import ask, node_id, timeout_option
from aemp_gevent.cli.output import echo, json_option, print_json
from aemp_gevent.wire.vocabulary import DEVNULL, TIME


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
        ask(node, other, TIME, timeout=timeout)
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
            ask(node, other, TIME, timeout=max(timeout, seconds))  # arrives after all of them
        passed = time.perf_counter() - began
        found = {"node": other, "messages": count, "bytes": count * size, "seconds": passed, "rate": count / passed}
        if as_json:
            print_json(found)
            return
        megabytes = count * size / passed / 1e6
        echo(f"{count:,} messages of {size} bytes in {passed:.2f} s: {count / passed:,.0f}/s, {megabytes:.1f} MB/s")


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
