# SPDX-License-Identifier: MIT
"""``aemp dump``: what two nodes say to each other, shown by a proxy between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aemp_gevent.cli.output import told_by_callback

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
    help="host:port, or a port of this host, to be dialled instead (any free port).",
)
@click.option("--connections", type=click.IntRange(min=1), metavar="N", help="End after this many connections.")
def dump(target: Endpoint, listen: Endpoint, connections: int | None) -> None:
    """Show the messages between two nodes.

    Start it in front of the node that listens at TARGET (host:port, or a port of this host), and have the other one
    dial it instead, as the first line tells.

    A line is printed for each line of the handshake and for each packet: seconds, direction (> is towards the
    target), and what was said. Packets are Python literals, behind the name of their framing. Tokens, which are made
    of the secret, are not shown. Inside of TLS it cannot look, and says so. Only the first node dials through it: one
    that learns the target's own address dials that.
    """
    from aemp_gevent.cli.wire_dump import Dump  # noqa: PLC0415

    def say(line: str) -> None:
        with told_by_callback():
            click.echo(line)

    try:
        proxy = Dump(target, listen, say)
    except OSError as error:
        raise click.UsageError(f"cannot listen at {listen}: {error.strerror or error}") from None
    click.echo(f"dial {proxy.endpoint} instead of {target}", err=True)
    proxy.serve(connections)
