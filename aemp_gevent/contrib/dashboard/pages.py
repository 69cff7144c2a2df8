# SPDX-License-Identifier: MIT
"""The dashboard as a WSGI application: its pages, its streams of events, and the rules for visitors."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qs

from gevent.queue import Empty, Queue

from aemp_gevent import default_node
from aemp_gevent.contrib.answers import is_number, short
from aemp_gevent.contrib.dashboard.one_port import look_at_port
from aemp_gevent.contrib.dashboard.survey import ASK_SECONDS, Rows, Survey, difference, is_known, look_at
from aemp_gevent.contrib.gunicorn import is_draining
from aemp_gevent.contrib.visitors import has_bearer, is_token
from aemp_gevent.errors import AempError, NodeShutDownError
from aemp_gevent.node.node import Node
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.vocabulary import LOG

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Allow: TypeAlias = "Callable[[WSGIEnvironment], bool]"

TOKEN_VARIABLE = "AEMP_DASHBOARD_TOKEN"  # noqa: S105  # its name

_COOKIE = "aemp_dashboard"
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
]
_LEVELS = ("debug", "info", "warning", "error", "critical")

_TEXTS = ("node", "level", "name", "text", "error")
"""The texts in a log record."""

_QUIET_SECONDS = 10.0
"""How often something is sent, so that a closed connection is noticed."""

_MAX_STREAMS = 64
"""Streams at the same time; each browser has one or two."""

_MAX_WAITING = 500
"""Log records that wait for a slow browser; others are left out."""

_MAX_LINE = 20_000
"""Characters of a log record's text."""

_MAX_BODY = 10_000

_log = Log()


def dashboard_app(
    *,
    token: str | None = None,
    allow: Allow | None = None,
    node: Node | None = None,
    allow_kill: bool = False,
    allow_trace: bool = False,
) -> WSGIApplication:
    """Return the dashboard as a WSGI application, such as for ``gevent.pywsgi``.

    Args:
        token: What a visitor must know: in ``Authorization: Bearer …``, in ``?token=…``, or typed into the page. None:
            the environment variable ``AEMP_DASHBOARD_TOKEN``, unless there is ``allow``.
        allow: Decides by the WSGI environment whether a visitor sees it. If ``token`` is given as well, either is
            enough.
        node: The node that asks the others; None: the default node. They answer as their rules let it look into them.
        allow_kill: Whether visitors may kill ports.
        allow_trace: Whether visitors may see which messages a port gets: their tags, and the types of what is in them.

    Raises:
        ValueError: There is neither a token nor a function that decides.
    """
    return _Pages(token, allow, default_node if node is None else node, allow_kill, allow_trace)


def dashboard(
    app: WSGIApplication,
    prefix: str = "/_aemp",
    *,
    token: str | None = None,
    allow: Allow | None = None,
    node: Node | None = None,
    allow_kill: bool = False,
    allow_trace: bool = False,
) -> WSGIApplication:
    """Return a WSGI application that shows the dashboard below one path, and passes all other requests on.

    Its streams of events need a server whose requests run in greenlets, such as gunicorn's gevent workers.

    Args:
        app: The application for all other requests.
        prefix: The path.
        token: As in :func:`dashboard_app`.
        allow: As in :func:`dashboard_app`.
        node: As in :func:`dashboard_app`.
        allow_kill: As in :func:`dashboard_app`.
        allow_trace: As in :func:`dashboard_app`.

    Raises:
        ValueError: As in :func:`dashboard_app`, or the prefix is not a path.
    """
    if not prefix.startswith("/") or prefix.endswith("/"):
        raise ValueError(f"the prefix must be a path such as '/_aemp', not {quoted(prefix)}")
    pages = dashboard_app(token=token, allow=allow, node=node, allow_kill=allow_kill, allow_trace=allow_trace)

    def with_dashboard(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path != prefix and not path.startswith(prefix + "/"):
            return app(environ, start_response)
        inner = {**environ, "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix, "PATH_INFO": path[len(prefix) :]}
        return pages(inner, start_response)

    return with_dashboard


class _Pages:
    """The pages.

    Args:
        token: As in :func:`dashboard_app`, like the others.
        allow: Decides whether a visitor sees them.
        node: Asks the others.
        allow_kill: Whether visitors may kill ports.
        allow_trace: Whether they see the messages of a port.
    """

    def __init__(self, token: str | None, allow: Allow | None, node: Node, allow_kill: bool, allow_trace: bool) -> None:
        if allow is None:
            token = token or os.environ.get(TOKEN_VARIABLE)
        if not token and allow is None:
            text = (
                "the dashboard shows what is inside of programs: give it a token=, or allow=, a function that decides "
            )
            raise ValueError(text + f"for each request; or set {TOKEN_VARIABLE}")
        self._token = token or ""
        self._allow = allow
        self._node = node
        self._allow_kill = allow_kill
        self._allow_trace = allow_trace
        self._survey = Survey(node)
        self._streams = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        respond = _Response(start_response)
        path, method = environ.get("PATH_INFO", ""), environ.get("REQUEST_METHOD", "GET")
        home = environ.get("SCRIPT_NAME", "") + "/"
        if not path:
            return respond.redirect(home)
        given = _query(environ).get("token", "")
        if path == "/login" and method == "POST":
            given = _form(environ).get("token", "")
        if given and self._is_token(given):
            return respond.redirect(home, _cookie(given, home, is_secure=environ.get("wsgi.url_scheme") == "https"))
        if not self._may_see(environ):
            return self._refuse(respond, path)
        if path == "/kill" and method == "POST":
            return self._kill(respond, environ)
        if method not in {"GET", "HEAD"}:
            return respond.text("405 Method Not Allowed", "use GET")
        found = self._get(respond, path, _query(environ))
        return [] if method == "HEAD" else found

    # --- visitors ---

    def _may_see(self, environ: WSGIEnvironment) -> bool:
        if self._allow is not None and self._allow(environ):
            return True
        if not self._token:
            return False
        return has_bearer(environ, self._token) or any(map(self._is_token, _tokens_in(environ.get("HTTP_COOKIE", ""))))

    def _is_token(self, given: str) -> bool:
        return bool(self._token) and is_token(given, self._token)

    def _refuse(self, respond: _Response, path: str) -> Iterable[bytes]:
        if path == "/page.css":
            return respond.file(path)
        if path in {"/", "/login"} and self._token:
            return respond.data("401 Unauthorized", "text/html; charset=utf-8", _read("login.html"))
        return respond.text("401 Unauthorized", "you may not see this")

    # --- what there is ---

    def _get(self, respond: _Response, path: str, query: Mapping[str, str]) -> Iterable[bytes]:
        if path in _FILES:
            return respond.file(path)
        if path == "/events":
            return self._stream(respond, self._events())
        if path not in {"/node", "/log", "/port"}:
            return respond.text("404 Not Found", "there is no such page")
        name = query.get("id", "")
        if not is_known(self._node, name):
            return respond.text("404 Not Found", "this node is not known")
        if path == "/log":
            level = query.get("level", "info")
            if level not in _LEVELS:
                return respond.text("400 Bad Request", f"the level must be one of {', '.join(_LEVELS)}")
            return self._stream(respond, self._records(name, level))
        try:
            return self._port(respond, name, query) if path == "/port" else respond.json(look_at(self._node, name))
        except (AempError, ValueError) as error:
            return respond.json({"error": str(error)})

    def _port(self, respond: _Response, name: str, query: Mapping[str, str]) -> Iterable[bytes]:
        with_messages = query.get("messages") == "1"
        if with_messages and not self._allow_trace:
            return respond.text("403 Forbidden", "tracing messages needs the option allow_trace")
        port = query.get("port", "")
        return respond.json(look_at_port(self._node, name, port, ASK_SECONDS, with_messages=with_messages))

    def _kill(self, respond: _Response, environ: WSGIEnvironment) -> Iterable[bytes]:
        # Another site's page can send a form here, but not with a header of its own.
        if not self._allow_kill or environ.get("HTTP_X_AEMP") != "kill":
            return respond.text("403 Forbidden", "killing ports needs the option allow_kill")
        port = _form(environ).get("port", "")
        try:
            self._node.kil(port, "killed", "by the dashboard")
        except (AempError, ValueError) as error:
            return respond.text("400 Bad Request", str(error))
        _log.warning("a visitor of the dashboard killed port %s", port)
        return respond.json({"killed": port})

    # --- streams ---

    def _stream(self, respond: _Response, events: Iterator[bytes]) -> Iterable[bytes]:
        if self._streams >= _MAX_STREAMS:
            return respond.text("503 Service Unavailable", "too many browsers watch already")
        respond.start("200 OK", "text/event-stream; charset=utf-8", [("X-Accel-Buffering", "no")])
        return self._counted(events)

    def _counted(self, events: Iterator[bytes]) -> Iterator[bytes]:
        self._streams += 1
        try:
            yield from events
        finally:
            self._streams -= 1

    def _events(self) -> Iterator[bytes]:
        survey = self._survey
        survey.watch()
        try:
            yield _event(
                "hello", {"node": self._node.NODE(), "may_kill": self._allow_kill, "may_trace": self._allow_trace}
            )
            nodes: Rows = {}
            links: Rows = {}
            while not (is_draining() or survey.is_over):
                now, now_links = survey.nodes, survey.links
                changes = {"nodes": difference(nodes, now), "links": difference(links, now_links)}
                nodes, links = now, now_links
                yield _event("network", changes)
                if survey.nodes is now:
                    survey.wait(_QUIET_SECONDS)
        finally:
            survey.leave()

    def _records(self, name: str, level: str) -> Iterator[bytes]:
        node = self._node
        waiting: Queue[dict[str, Any]] = Queue(_MAX_WAITING)
        left_out = 0

        def take(record: Any = None, *_more: Any) -> None:
            nonlocal left_out
            if waiting.full():
                left_out += 1
            elif isinstance(record, Mapping):
                waiting.put_nowait(_shown(record))

        port = node.port(take)
        guard = node.mon(name, lambda *reason: take({"error": f"the link is lost: {' '.join(map(str, reason[2:]))}"}))
        try:
            node.snd(name, LOG, level, port)
            yield _event("log", {"level": level})
            while not is_draining():
                try:
                    record = waiting.get(timeout=_QUIET_SECONDS)
                except Empty:
                    yield b": quiet\n\n"
                    continue
                record["left_out"] += left_out
                left_out = 0
                yield _event("log", record)
                if "error" in record:
                    return  # there will be no more; the browser asks again
        finally:
            guard.cancel()
            with contextlib.suppress(NodeShutDownError):
                node.kil(port)


class _Response:
    """The answer to one request.

    Args:
        start_response: The server's.
    """

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response = start_response

    def start(self, status: str, kind: str, more: Iterable[tuple[str, str]] = ()) -> None:
        self._start_response(status, [("Content-Type", kind), *_HEADERS, *more])

    def data(self, status: str, kind: str, data: bytes, more: Iterable[tuple[str, str]] = ()) -> Iterable[bytes]:
        self.start(status, kind, [("Content-Length", str(len(data))), *more])
        return [data]

    def text(self, status: str, text: str) -> Iterable[bytes]:
        return self.data(status, "text/plain; charset=utf-8", f"{text}\n".encode())

    def json(self, found: object) -> Iterable[bytes]:
        return self.data("200 OK", "application/json", _json(found))

    def file(self, path: str) -> Iterable[bytes]:
        name, kind = _FILES[path]
        return self.data("200 OK", kind, _read(name))

    def redirect(self, where: str, *more: tuple[str, str]) -> Iterable[bytes]:
        return self.data("303 See Other", "text/plain", b"", [("Location", where), *more])


def _read(name: str) -> bytes:
    return (files("aemp_gevent.contrib.dashboard") / name).read_bytes()


def _shown(record: Mapping[Any, Any]) -> dict[str, Any]:
    """Return what is shown of a log record, which a node sent."""
    found: dict[str, Any] = {key: short(text, _MAX_LINE) for key in _TEXTS if isinstance(text := record.get(key), str)}
    if is_number(record.get("time")):
        found["time"] = record["time"]
    more = record.get("left_out")
    found["left_out"] = more if isinstance(more, int) and is_number(more) else 0
    return found


def _json(found: object) -> bytes:
    return json.dumps(found, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


def _event(kind: str, found: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _json(found))


def _query(environ: WSGIEnvironment) -> dict[str, str]:
    return {key: values[-1] for key, values in parse_qs(environ.get("QUERY_STRING", "")).items()}


def _form(environ: WSGIEnvironment) -> dict[str, str]:
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return {}
    if not 0 <= length <= _MAX_BODY:
        return {}
    body = environ["wsgi.input"].read(length).decode("utf-8", "replace")
    return {key: values[-1] for key, values in parse_qs(body).items()}


def _tokens_in(cookies: str) -> Iterator[str]:
    """Yield the tokens in a request's cookies.

    Those of others may have any form; http.cookies gives up at the first that it does not understand.
    """
    for cookie in cookies.split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == _COOKIE:
            with contextlib.suppress(ValueError):
                yield bytes.fromhex(value.strip('"')).decode()


def _cookie(token: str, path: str, *, is_secure: bool) -> tuple[str, str]:
    secure = "; Secure" if is_secure else ""
    # Not Strict: a link in a chat to "?token=…" would lead to the login page, although the cookie was just set.
    return "Set-Cookie", f"{_COOKIE}={token.encode().hex()}; Path={path}; HttpOnly; SameSite=Lax{secure}"
