# SPDX-License-Identifier: MIT
"""The work of ``aemp run``: it starts a node, reloads it, drains it and shuts it down."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Any

import click
import gevent
from gevent.event import AsyncResult
from gevent.lock import RLock
from gevent.pywsgi import WSGIServer

from aemp_gevent import default_node
from aemp_gevent.cli.command_node import reasons
from aemp_gevent.cli.output import echo
from aemp_gevent.cli.readiness import HealthPort, Readiness, ReadyFile, ServiceManager
from aemp_gevent.cli.supervisor import ServiceSupervisor
from aemp_gevent.errors import AempError
from aemp_gevent.node.access import seeds_down
from aemp_gevent.node.services import load_services
from aemp_gevent.runtime.logs import Log
from aemp_gevent.settings.sources import make_settings

SHUTDOWN_SECONDS = 5.0

JOIN_SECONDS = 5.0
"""How long a node waits for a seed and its directory. It is ready afterwards in any case: it may be the first node."""

_LOOK_SECONDS = 0.1

_log = Log()


def _without_services(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without services, which the supervisor starts instead of the node."""
    return {**settings, "services": ()}


def _serve_metrics(address: str) -> WSGIServer:
    """Serve the figures of the default node for Prometheus.

    Raises:
        click.ClickException: The address cannot be used, or the extra is not installed.
    """
    try:
        from aemp_gevent.contrib.prometheus import serve_metrics  # noqa: PLC0415  # prometheus_client is an extra

        page = serve_metrics(address)
    except ImportError as error:
        raise click.ClickException(f"--metrics: {error}") from error
    except ValueError as error:
        raise click.UsageError(f"--metrics: {error}") from error
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address} for --metrics: {error.strerror or error}") from error
    _log.info("metrics are served on port %d", page.server_port)
    return page


class NodeRunner:
    """The default node and its services, as ``aemp run`` runs them.

    Args:
        profile: The profile.
        given: Returns the settings of the command line; called again for each reload, because some are read from files.
        drain_seconds: How long to finish the work that was begun.
    """

    def __init__(self, profile: str | None, given: Callable[[], dict[str, Any]], drain_seconds: float) -> None:
        self._profile = profile
        self._given = given
        self._drain_seconds = drain_seconds
        self._manager = ServiceManager()
        self._readiness: Readiness | None = None
        self._supervisor = ServiceSupervisor(default_node, self._changed)
        self._told_to_end: AsyncResult[int] = AsyncResult()
        self._has_joined = False
        self._is_ending = False
        self._reloading = RLock()
        self._has_terminal = os.isatty(0)

    def watch_signals(self, ending: Iterable[int], reloading: int) -> None:
        """Shut down in order on SIGTERM and SIGINT, and reload on SIGHUP."""
        for number in ending:
            gevent.signal_handler(number, self._end, number)
        gevent.signal_handler(reloading, self._reload)

    def run(self, health_port: str | None, ready_file: Path | None, metrics: str | None = None) -> None:
        """Run the node until it is asked to end. Blocks.

        Args:
            health_port: Where to answer HTTP probes; None: nowhere.
            ready_file: A file that exists while the node is ready; None: none.
            metrics: Where to serve figures for Prometheus; None: nowhere.

        Raises:
            AempError: It cannot be started.
            click.ClickException: Its readiness or its figures cannot be reported as requested.
        """
        readiness = self._readiness = Readiness(self._manager, ReadyFile(ready_file) if ready_file else None)
        health = HealthPort(health_port, readiness) if health_port is not None else None
        if health is not None:
            health.start()
            _log.info("probes are answered on port %d", health.port)
        page: WSGIServer | None = None
        try:
            page = None if metrics is None else _serve_metrics(metrics)
            self._manager.start_watchdog()
            self._start()
            joining = gevent.spawn(self._join)
            number = self._told_to_end.get()
            _log.info("signal %d: ending", number)
            joining.kill()
            self._finish()
        finally:
            self._manager.stop()
            with contextlib.suppress(click.ClickException):
                readiness.now("ended", default_node.NODE())
            if health is not None:
                health.stop()
            if page is not None:
                page.stop(timeout=1)

    def _start(self) -> None:
        given = self._given()
        # Before binding, so that the node does not start if a service cannot be imported.
        services = load_services(make_settings(given, profile=self._profile).services)
        default_node.configure(self._profile, **_without_services(given))
        echo(default_node.NODE())
        _log.info("node %s is up", default_node.NODE())
        self._supervisor.become(services)

    def _join(self) -> None:
        deadline = monotonic() + JOIN_SECONDS
        knows = default_node.wait_for_seeds(JOIN_SECONDS)
        # wait_for_seeds() does not wait for seeds that are down, but they may be starting, like this node.
        while self._is_alone and monotonic() < deadline:
            gevent.sleep(_LOOK_SECONDS)
            knows = default_node.wait_for_seeds(max(deadline - monotonic(), 0.0))
        if self._is_alone:
            text = "no link to any seed within %g s, continuing without: %s"
            _log.warning(text, JOIN_SECONDS, reasons(seeds_down(default_node)))
        elif not knows:
            _log.warning("no directory from the seeds within %g s; continuing without", JOIN_SECONDS)
        self._has_joined = True
        self._changed()

    @property
    def _is_alone(self) -> bool:
        """Whether the node has seeds, but no link to any of them."""
        settings = default_node.settings
        return bool(settings and settings.seeds) and default_node.info()["directory"] == "alone"

    def _changed(self) -> None:
        """Report the node's current state."""
        if self._readiness is None:
            return
        down = self._supervisor.down
        if self._is_ending:
            why = "ending"
        elif down:
            why = f"crashed, waiting for a restart: {', '.join(down)}"
        else:
            why = "" if self._has_joined else "joining the network"
        try:
            self._readiness.now(why, default_node.NODE())
        except click.ClickException as error:
            _log.error("%s", error)

    # --- SIGHUP ---

    def _reload(self) -> None:
        if self._has_terminal and not os.isatty(0):
            self._end(signal.SIGHUP)  # the terminal is gone, which ends a program
            return
        with self._reloading:
            if self._is_ending or default_node.settings is None:
                return
            self._manager.reloading()
            try:
                given = self._given()
                services = load_services(make_settings(given, profile=self._profile).services)
                fixed = default_node.reload(self._profile, **_without_services(given))
            except (AempError, click.ClickException) as error:
                _log.error("reloading failed, nothing was changed: %s", error)
            else:
                self._supervisor.become(services)
                if fixed:
                    _log.warning("these settings change only after a restart: %s", ", ".join(fixed))
                _log.info("reloaded")
            assert self._readiness is not None  # it is set before signals are handled
            self._readiness.repeat()

    # --- SIGTERM ---

    def _end(self, number: int) -> None:
        if self._told_to_end.ready():
            _log.warning("second signal (%d): ending without waiting any longer", number)
            os._exit(128 + number)
        self._told_to_end.set(number)

    def _finish(self) -> None:
        self._is_ending = True
        self._manager.tell("STOPPING=1")
        self._supervisor.let_be()
        self._changed()
        if self._drain_seconds and not default_node.drain(self._drain_seconds):
            _log.warning("some ports were still working after %g s", self._drain_seconds)
        default_node.shutdown(SHUTDOWN_SECONDS)
        _log.info("ended")
