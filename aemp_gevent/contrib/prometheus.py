# SPDX-License-Identifier: MIT
"""Figures for Prometheus: of one node, of all workers on a host, or of a network. Needs the extra ``prometheus``.

One page shows all workers of a gunicorn, whichever of them answers: it asks the others over their links. There is
no folder of files for several processes, and no process's figures are left over when it has ended::

    from aemp_gevent.contrib.prometheus import metrics

    app.wsgi_app = metrics(app.wsgi_app)  # http://…/metrics

The page *Metrics* has all figures.
"""

from __future__ import annotations

import socket as std_socket
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from socket import gethostname
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import gevent
from gevent import socket
from gevent.pywsgi import WSGIServer

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeHistogramMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )
    from prometheus_client.core import Metric as Family
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector as BaseCollector
except ImportError as error:
    text = "aemp_gevent.contrib.prometheus needs prometheus_client: pip install 'aemp_gevent[prometheus]'"
    raise ImportError(text) from error

from aemp_gevent import default_node
from aemp_gevent.addresses.ids import COMMAND_PREFIX
from aemp_gevent.contrib.heirs import estate_of, near_nodes
from aemp_gevent.contrib.reported_figures import Answer, asked, figures_of_all, processes_in
from aemp_gevent.contrib.visitors import MAX_CONNECTIONS, ImpatientHandler, has_bearer
from aemp_gevent.errors import DirectoryUnavailableError
from aemp_gevent.node.access import known_nodes, network_of, request_host_of
from aemp_gevent.node.figures import METRICS, LabelSets, Metric, Rows, Value
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.quantities import to_seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.totals import Labels

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["Collector", "metrics", "metrics_app", "serve_metrics"]

Scope = Literal["process", "host", "network"]

_SCOPES = ("process", "host", "network")

MISSING = "aemp_scrape_missing_nodes"
"""The only figure that is the collector's own."""

MISSING_TEXT = "Nodes that did not answer in time; of some of them, totals that they reported before are shown."

MAX_HOSTS = 1000
"""Hosts that have labels of their own."""

_Found: TypeAlias = "tuple[dict[str, Rows], int]"

_Families: TypeAlias = "dict[str, Any]"  # Any: each kind of family has its own add_metric()


class Collector(BaseCollector):
    """Collects the figures of nodes for a registry of prometheus_client.

    Collecting asks other nodes, so it switches greenlets, and works only in the native thread of the node: not behind
    ``prometheus_client.start_http_server``, which has threads of its own. Use :func:`serve_metrics` or
    :func:`metrics` instead.

    Args:
        scope: ``"process"``: this node. ``"host"``: this node and those on its host that it is linked to, added up.
            ``"network"``: all nodes of the network, added up for each host, with a label ``host``.
        node: The node; None: the default node, which the module functions use.
        timeout: Seconds to wait for other nodes. Without those that do not answer, the page has a smaller
            ``aemp_nodes``, and their totals as they were known before.

    Raises:
        ValueError: There is no such scope.
    """

    def __init__(self, scope: Scope = "process", *, node: Node | None = None, timeout: float = 2.0) -> None:
        if scope not in _SCOPES:
            raise ValueError(f"scope must be one of {_SCOPES}, not {quoted(scope)}")
        self._scope = scope
        self._node = default_node if node is None else node
        self._timeout = to_seconds(timeout, "Collector()") or 2.0
        self._complaints = BoundedLog(self._node.scheduler.log, "scrapes")
        self._labels = LabelSets()
        self._hosts = Labels(MAX_HOSTS)
        self._looking: gevent.Greenlet[[], _Found] | None = None
        if scope != "process":
            estate_of(self._node)  # so that its totals are handed over, even if nobody asks this collector

    def describe(self) -> Iterable[Family]:
        """Return the figures without values, which does not switch."""
        return self._families().values()

    def collect(self) -> Iterator[Family]:
        """Return the figures. Switches.

        Raises:
            WrongThreadError: This is another native thread than the node's.
        """
        self._node.scheduler.check_thread("collecting metrics")
        if not self._looking:
            self._looking = gevent.spawn(self._look)
        found, missing = self._looking.get()  # of those who ask at the same time, one look is enough
        families = self._families()
        for host, rows in found.items():
            _add(families, rows, (host,) if self._scope == "network" else ())
        families[MISSING].add_metric((), missing)
        return iter(families.values())

    def _look(self) -> _Found:
        """Return the figures by host, and how many nodes did not answer."""
        answers, silent = self._ask()
        estate = estate_of(self._node) if self._scope != "process" else None
        remembered: list[Answer] = []
        if estate is not None:
            estate.settle(answers)
            estate.remember(answers)
            remembered = estate.remembered
            somewhere = processes_in(answers)
            silent |= {answer.node for answer in estate.unsettled if answer.process not in somewhere}
        hosts: dict[str, list[Answer]] = {gethostname(): []}
        self._hosts.see(answer.host for answer in answers)
        for answer in answers:
            hosts.setdefault(self._hosts.of(answer.host), []).append(answer)
        found = {
            host: self._labels.fitted(figures_of_all(several, remembered if host == gethostname() else ()))
            for host, several in sorted(hosts.items())
        }
        return {host: rows for host, rows in found.items() if rows}, len(silent)

    def _families(self) -> _Families:
        more = ("host",) if self._scope == "network" else ()
        families: _Families = {name: _family(name, metric, more) for name, metric in METRICS.items()}
        families[MISSING] = GaugeMetricFamily(MISSING, MISSING_TEXT, labels=())
        return families

    def _ask(self) -> tuple[list[Answer], set[str]]:
        """Return the nodes' answers, and the nodes that did not answer."""
        node = self._node
        answers, silent = asked(node, [node.NODE(), *self._others()], self._timeout)
        somewhere = processes_in(answers)
        # A node may have handed over its totals to another one while the other's answer was under way already.
        late = {answer.heir for answer in answers if answer.heir and answer.process not in somewhere}
        if late:
            again, _ = asked(node, late & {answer.node for answer in answers}, self._timeout)
            by_node = {answer.node: answer for answer in (*answers, *again)}
            answers = list(by_node.values())
        if self._scope != "network":
            answers = [answer for answer in answers if answer.host == gethostname()]
        for name, why in silent.items():
            self._complaints.warn("no figures from node %s: %s", name, why)
        return answers, set(silent)

    def _others(self) -> list[str]:
        if self._scope == "process":
            return []
        if self._scope == "host":
            return near_nodes(self._node)
        network = network_of(self._node)
        others = [] if network is None else [peer.node for peer in network.up_peers()]
        try:
            others += known_nodes(self._node, self._timeout)
        except DirectoryUnavailableError as error:
            self._complaints.warn("figures of nodes without a link may be missing: %s", error)
        return [other for other in others if not other.startswith(COMMAND_PREFIX)]


def _family(name: str, metric: Metric, more: Sequence[str]) -> Any:
    kinds: dict[str, Any] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
        "gaugehistogram": GaugeHistogramMetricFamily,
    }
    return kinds[metric.kind](name, metric.text, labels=(*metric.labels, *more))


def _add(families: _Families, rows: Rows, more: tuple[str, ...]) -> None:
    for (name, *labels), value in sorted(rows.items()):
        metric = METRICS[name]
        if metric.buckets:
            _add_histogram(families[name], metric, (*labels, *more), value)
        else:
            families[name].add_metric((*labels, *more), value)


def _add_histogram(family: Any, metric: Metric, labels: tuple[str, ...], value: Value) -> None:
    assert isinstance(value, list)  # of a histogram it is
    bounds = [*(f"{float(bound):g}" for bound in metric.buckets), "+Inf"]
    family.add_metric(labels, list(zip(bounds, accumulate(value[1:]), strict=True)), value[0])


# --- pages ---


def metrics_app(
    scope: Scope = "host",
    *,
    node: Node | None = None,
    token: str | None = None,
    registry: CollectorRegistry | None = None,
) -> WSGIApplication:
    """Return a WSGI application that answers every request with the figures.

    Args:
        scope: As in :class:`Collector`.
        node: As in :class:`Collector`.
        token: What requests must have in ``Authorization: Bearer …``; None: anybody may see the figures.
        registry: Other figures to show as well, such as ``prometheus_client.REGISTRY``: those of the process
            that answers. None: none.
    """
    own = CollectorRegistry()
    own.register(Collector(scope, node=node))
    shown = _Registries([own] if registry is None else [own, registry])

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if token is not None and not has_bearer(environ, token):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Length", "0")])
            return []
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        body = encode(cast("CollectorRegistry", shown))
        start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
        return [body]

    return app


class _Registries:
    """Several registries as one, as far as a page needs it."""

    def __init__(self, several: Sequence[CollectorRegistry]) -> None:
        self._several = several

    def collect(self) -> Iterator[Family]:
        return chain.from_iterable(each.collect() for each in self._several)


def metrics(
    app: WSGIApplication,
    path: str = "/metrics",
    *,
    scope: Scope = "host",
    node: Node | None = None,
    token: str | None = None,
    registry: CollectorRegistry | None = None,
) -> WSGIApplication:
    """Return a WSGI application that shows the figures at one path, and passes all other requests on.

    Args:
        app: The application for all other requests.
        path: Where to show the figures.
        scope: As in :class:`Collector`. With ``"host"`` any worker answers for all.
        node: As in :class:`Collector`.
        token: As in :func:`metrics_app`. Without one, everybody who reaches the application can see the figures.
        registry: As in :func:`metrics_app`.
    """
    page = metrics_app(scope, node=node, token=token, registry=registry)

    def with_metrics(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "") == path:
            return page(environ, start_response)
        return app(environ, start_response)

    return with_metrics


def serve_metrics(
    address: str, scope: Scope = "process", *, node: Node | None = None, token: str | None = None
) -> WSGIServer:
    """Serve the figures over HTTP at an address of their own, and return the server. Never switches.

    With the scopes ``"host"`` and ``"network"`` several processes may serve at the same address: the system chooses
    one of them for each request. So with gunicorn, one line in ``gunicorn.conf.py`` gives all workers together one
    page::

        on_join(lambda: serve_metrics(":9100", "host"))

    Args:
        address: ``host:port`` or ``:port``, which means all interfaces. Port 0 is any free port, which is the
            ``server_port`` of the server.
        scope: As in :class:`Collector`.
        node: As in :class:`Collector`.
        token: As in :func:`metrics_app`.

    Raises:
        ValueError: The address has another form.
        OSError: It cannot be used.
    """
    # Until the node shuts down, so that the system does not choose a process that is about to end.
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or not int(port) < 2**16:
        raise ValueError(f"the address must be HOST:PORT or :PORT, not {quoted(address)}")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if scope != "process" and hasattr(std_socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, std_socket.SO_REUSEPORT, 1)
        listener.bind((host, int(port)))
        listener.listen()
    except OSError:
        listener.close()
        raise
    app = metrics_app(scope, node=node, token=token)
    server = WSGIServer(listener, app, log=None, spawn=MAX_CONNECTIONS, handler_class=ImpatientHandler)
    server.start()
    request_host_of(default_node if node is None else node).last_calls.append(server.close)
    return server
