# SPDX-License-Identifier: MIT
"""``aemp dashboard``: the network as a live page for browsers."""

from __future__ import annotations

import secrets

import click

from aemp_gevent.cli.command_node import NodeOptions, connected, node_options
from aemp_gevent.cli.output import echo
from aemp_gevent.runtime.quoting import quoted


@click.command()
@click.option(
    "--listen",
    metavar="[HOST]:PORT",
    default="127.0.0.1:8040",
    show_default=True,
    help="Where to serve the page; without a host, on all interfaces.",
)
@click.option(
    "--token",
    metavar="TEXT",
    envvar="AEMP_DASHBOARD_TOKEN",
    help="What visitors must know; other users of this host can see it here, but not in AEMP_DASHBOARD_TOKEN. "
    "Without it, one is made up.",
)
@click.option("--allow-kill", is_flag=True, help="Let visitors kill ports.")
@click.option(
    "--allow-trace", is_flag=True, help="Let visitors see which messages a port gets, without their contents."
)
@node_options
def dashboard(options: NodeOptions, listen: str, token: str | None, allow_kill: bool, allow_trace: bool) -> None:
    """Show the network in a browser: nodes, links, ports, logs, and what hangs.

    Prints the address of the page, and serves it until Ctrl-C. The nodes answer as their rules let this command look
    into them. The page comes over HTTP, so from another host use a tunnel, or a proxy with TLS.
    """
    # Imported only when it runs, because gevent's loop takes long to import.
    from gevent.pywsgi import WSGIServer  # noqa: PLC0415

    from aemp_gevent.contrib.dashboard import dashboard_app  # noqa: PLC0415
    from aemp_gevent.contrib.visitors import MAX_CONNECTIONS, ImpatientHandler  # noqa: PLC0415

    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdecimal() or not int(port) < 2**16:
        raise click.UsageError(f"--listen must be HOST:PORT or :PORT, not {quoted(listen)}")
    token = token or secrets.token_urlsafe(16)
    with connected(options) as node:
        app = dashboard_app(token=token, node=node, allow_kill=allow_kill, allow_trace=allow_trace)
        address = (host.removeprefix("[").removesuffix("]"), int(port))
        server = WSGIServer(address, app, log=None, spawn=MAX_CONNECTIONS, handler_class=ImpatientHandler)
        try:
            server.start()
        except OSError as error:
            raise click.ClickException(f"cannot listen on {listen}: {error.strerror or error}") from error
        shown = host if host and host != "0.0.0.0" else "127.0.0.1"  # noqa: S104  # it is not bound here
        echo(f"http://{shown}:{server.server_port}/?token={token}")
        try:
            server.serve_forever()
        finally:
            server.stop(timeout=1)
