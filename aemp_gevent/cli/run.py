# SPDX-License-Identifier: MIT
"""``aemp run``: run a node with its services under a supervisor such as systemd or Kubernetes.

The node is ready when it is linked to those seeds that answer, and its services run. SIGHUP reloads the
settings. SIGTERM and SIGINT end it in order: the node is no longer ready, leaves the directory, finishes the work that
was begun, says goodbye to its peers, and exits with code 0. A second signal ends it at once.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from aemp_gevent.cli.arguments import Seconds
from aemp_gevent.cli.command_node import SettingOptions, setting_options
from aemp_gevent.cli.completion import profile_names
from aemp_gevent.runtime.quoting import quoted

_LEVELS = ("debug", "info", "warning", "error")

DRAIN_SECONDS = 10.0


@click.command()
@click.argument("profile", required=False, shell_complete=profile_names)
@setting_options
@click.option("--bind", "binds", metavar="HOST:PORT", multiple=True, help="An address to listen on; repeatable.")
@click.option("--service", "services", metavar="NAME", multiple=True, help="A module or function to start; repeatable.")
@click.option("--set", "others", metavar="NAME=VALUE", multiple=True, help="Any other setting; repeatable.")
@click.option(
    "--metrics", metavar="[HOST]:PORT", help="Serve figures for Prometheus: /metrics. Needs the extra 'prometheus'."
)
@click.option("--health-port", metavar="[HOST:]PORT", help="Answer HTTP probes: /livez and /readyz.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A file that exists while the node is ready.",
)
@click.option(
    "--drain",
    "drain_seconds",
    metavar="SECONDS",
    type=Seconds(min=0),
    default=DRAIN_SECONDS,
    show_default=True,
    help="How long to wait for work in progress when the node is asked to end.",
)
@click.option(
    "--log-level", type=click.Choice(_LEVELS), default="info", show_default=True, help="The lowest level to log."
)
def run(
    profile: str | None,
    options: SettingOptions,
    binds: tuple[str, ...],
    services: tuple[str, ...],
    others: tuple[str, ...],
    metrics: str | None,
    health_port: str | None,
    ready_file: Path | None,
    drain_seconds: float,
    log_level: str,
) -> None:
    """Run a node with its services, until it is asked to end.

    The settings come from the options, the environment and PROFILE, in this order of precedence. Modules are searched
    on Python's path and in the current folder. The first line on standard output is the node's ID; the log goes to
    standard error.

    A service that crashes is restarted after 1, 2, 4, … 60 seconds. SIGHUP reloads the settings, and starts and
    ends services accordingly. SIGTERM or Ctrl-C drains the node: it leaves the directory, finishes the work that was
    begun, says goodbye to its peers, and exits with code 0.
    """
    logging.basicConfig(stream=sys.stderr, level=log_level.upper(), format=_log_format())
    if os.getcwd() not in sys.path:  # noqa: PTH109  # as the import system compares it
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    # Imported only when it runs, because gevent's loop takes long to import.
    from aemp_gevent.cli.node_runner import NodeRunner  # noqa: PLC0415

    extra: dict[str, Any] = {}
    if binds:
        extra["binds"] = [part for bind in binds for part in bind.split(",") if part]
    if services:
        extra["services"] = [service_of(text) for text in services]
    extra.update(setting_of(text) for text in others)
    runner = NodeRunner(profile, lambda: {**options.given(), **extra}, drain_seconds)
    runner.watch_signals((signal.SIGTERM, signal.SIGINT), signal.SIGHUP)
    runner.run(health_port, ready_file, metrics)


def service_of(text: str) -> Any:
    """Return a service for the settings: a name, or a JSON list of a name and arguments."""
    from aemp_gevent.cli.arguments import value  # noqa: PLC0415

    return value(text) if text.startswith("[") else text


def setting_of(text: str) -> tuple[str, Any]:
    """Return the name and the value in ``NAME=VALUE``."""
    from aemp_gevent.settings.sources import read_setting  # noqa: PLC0415

    name, equals, rest = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set must be NAME=VALUE, not {quoted(text)}")
    return name, read_setting(name, rest, "--set")


def _log_format() -> str:
    """Return the format of log lines, without the time for systemd's journal, which adds it."""
    return "%(levelname)s %(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(levelname)s %(message)s"
