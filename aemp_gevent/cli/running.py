# SPDX-License-Identifier: MIT
"""``aemp run``: a node with its services, for a supervisor to start."""

from __future__ import annotations

from typing import Any

import click

from aemp_gevent.cli.connecting import given_settings, log_to_stderr, setting_options


@click.command()
@setting_options
def run(
    profile: str | None,
    nodeid: str | None,
    seeds: tuple[str, ...],
    secret: str | None,
    secret_file: Any,
    cert: str | None,
    ca: str | None,
) -> None:
    """Run a node with its services."""
    import gevent  # noqa: PLC0415

    from aemp_gevent import default_node as node  # noqa: PLC0415

    log_to_stderr()
    node.configure(profile, **given_settings(nodeid, seeds, secret, secret_file, cert, ca))
    node.shutdown_on_signal()
    click.echo(node.NODE())
    gevent.wait()
