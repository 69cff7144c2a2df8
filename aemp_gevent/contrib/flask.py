# SPDX-License-Identifier: MIT
"""A Flask extension: processes that serve become nodes, requests have ports, and ``/healthz`` says how the node is.

::

    app = Flask(__name__)
    aemp = Aemp(app)


    @app.get("/weather")
    def weather():
        grp_snd("stations", "report", aemp.port)  # the port of this request
        return {"degrees": receive("degrees", timeout=2)[1]}
"""

from __future__ import annotations

import flask

from aemp_gevent import Node, default_node
from aemp_gevent.contrib.gunicorn import is_draining
from aemp_gevent.contrib.joining import MeshURL, parse_url
from aemp_gevent.errors import AempError
from aemp_gevent.node.access import is_shut_down, network_of, seeds_down
from aemp_gevent.ports.attachment import Attachment
from aemp_gevent.runtime.bounded_log import BoundedLog
from aemp_gevent.runtime.logs import Log

__all__ = ["Aemp"]

_NAME = "aemp"
_ATTACHMENT = "_aemp_gevent_attachment"
"""Where a request keeps its port in ``flask.g``, in which applications choose names as well."""
_URL = "AEMP_URL"
_HEALTHZ = "AEMP_HEALTHZ"
_PROBE = "aemp_healthz"


class Aemp:
    """Makes Flask's processes nodes, and gives requests ports.

    Configuration of the application, which is read by :meth:`init_app`:

    - ``AEMP_URL``, ``"aemp://"`` by default: which nodes to join, as in
      :class:`~aemp_gevent.contrib.socketio.AempManager`. With a name, such as ``"aemp://shop"``, a process joins them
      before its first request, if its server runs gevent's loop. Without, it joins by itself, with gunicorn's hooks for
      example.
    - ``AEMP_HEALTHZ``, ``"/healthz"`` by default: the path that answers probes; None: there is no such path.

    Everything else is a setting of the node, from the environment or the profile file.

    Args:
        app: The application; None: call :meth:`init_app` later.
        node: The node; None: the default node.
    """

    def __init__(self, app: flask.Flask | None = None, *, node: Node | None = None) -> None:
        self._node = default_node if node is None else node
        self._complaints = BoundedLog(Log().log, "joining for Flask")
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Register with an application. Starts nothing: the process may fork afterwards.

        Raises:
            InvalidSettingError: ``AEMP_URL`` is invalid.
        """
        url = parse_url(app.config.setdefault(_URL, "aemp://"))
        path = app.config.setdefault(_HEALTHZ, "/healthz")
        app.extensions[_NAME] = self
        if url.name:
            app.before_request(lambda: self._join(url))
        app.teardown_appcontext(_detach)
        if path is not None:
            app.add_url_rule(path, _PROBE, self._healthz)

    def _join(self, url: MeshURL) -> None:
        try:
            url.join_in_request(_URL, self._node)
        except AempError as error:
            if flask.request.endpoint != _PROBE:
                raise
            self._complaints.warn("%s answers that this process has not joined: %s", flask.request.path, error)

    @property
    def port(self) -> str:
        """The ID of this request's port, in whose context the request runs from now on, so it can ``receive``.

        The port is created when it is first asked for, and dies when the request's context ends. That is after the
        answer, or, with ``stream_with_context``, after the last piece of the stream.

        Raises:
            RuntimeError: There is no request.
        """
        if not flask.has_app_context():
            raise RuntimeError("Aemp.port is the port of a request, and there is no request here; call attach()")
        attachment: Attachment | None = flask.g.get(_ATTACHMENT)
        if attachment is None:
            attachment = self._node.attach()
            setattr(flask.g, _ATTACHMENT, attachment)
        return attachment.port

    def status(self) -> str:
        """Return ``"ok"``, or why this process should get no requests.

        That is ``"private"`` while it has not joined, ``"cut off"`` while it has no link to any of its seeds on other
        hosts, ``"draining"`` while gunicorn's worker ends, and ``"shut down"`` in the end.
        """
        if is_shut_down(self._node):
            return "shut down"
        network = network_of(self._node)
        if network is None:
            return "private"
        if is_draining():
            return "draining"
        # A folder of sockets is empty when this is the first process.
        seeds = {seed for seed in network.settings.seeds if not seed.startswith("unix:")}
        if seeds and not network.seeds.are_own and seeds <= set(seeds_down(self._node)):
            return "cut off"
        return "ok"

    def _healthz(self) -> tuple[dict[str, str], int]:
        status = self.status()
        return {"status": status, "node": self._node.NODE()}, 200 if status == "ok" else 503


def _detach(_error: BaseException | None) -> None:
    attachment: Attachment | None = flask.g.pop(_ATTACHMENT, None)
    if attachment is not None:
        attachment.detach()
