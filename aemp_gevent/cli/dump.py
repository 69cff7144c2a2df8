# SPDX-License-Identifier: MIT
"""``aemp dump``: the messages between two nodes, shown by a proxy between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aemp_gevent.cli.interrupts import take_interrupts
from aemp_gevent.cli.output import echo, printing_in_callback

if TYPE_CHECKING:
    from aemp_gevent.addresses.endpoints import Endpoint


def _endpoint(_ctx: click.Context, _param: click.Parameter, text: str) -> Endpoint:
    from aemp_gevent.addresses.endpoints import parse_endpoint  # noqa: PLC0415
    from aemp_gevent.errors import AempError  # noqa: PLC0415

    try:
        found = parse_endpoint(f"127.0.0.1:{text}" if text.isdigit() else text)
    except AempError as error:
        raise click.BadParameter(str(error)) from None
    if found.path:
        raise click.BadParameter("Unix sockets cannot be dumped: give host:port")
    return found


@click.command()
@click.argument("target", callback=_endpoint)
@click.option(
    "--listen",
    metavar="ENDPOINT",
    callback=_endpoint,
    default="127.0.0.1:0",
    help="The proxy's address: host:port, or a port of this host (default: any free port).",
)
@click.option("--connections", type=click.IntRange(min=1), metavar="N", help="Stop after N connections.")
def dump(target: Endpoint, listen: Endpoint, connections: int | None) -> None:
    """Show the messages between two nodes.

    This starts a proxy in front of the node that listens at TARGET (host:port, or a port of this host). Make the other
    node dial the proxy's address, which the first line shows, instead of TARGET.

    Each line of the handshake and each packet is printed on a line: seconds, direction (> is towards the target), and
    content. Packets are shown as Python literals after the name of their framing. Tokens, which are derived from the
    secret, are hidden. Traffic inside TLS cannot be shown. A node that learns TARGET's real address may dial that
    and bypass the proxy.
    """
    from aemp_gevent.cli.wire_dump import Dump  # noqa: PLC0415

    def say(line: str) -> None:
        with printing_in_callback():
            echo(line)

    try:
        proxy = Dump(target, listen, say)
    except OSError as error:
        raise click.UsageError(f"cannot listen at {listen}: {error.strerror or error}") from None
    take_interrupts()
    echo(f"dial {proxy.endpoint} instead of {target}", err=True)
    proxy.serve(connections)
