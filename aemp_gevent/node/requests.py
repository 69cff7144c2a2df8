# SPDX-License-Identifier: MIT
"""The requests that the node port understands, one row of a table for each.

Those about a link or a connection do not come here; :mod:`aemp_gevent.peers.link_requests` says where each is handled.
Requests come from peers, and from this node itself (``snd(NODE(), "time", …)``). A row
is a method of :class:`Requests`. Its arguments are checked by the
call itself, because every mistake of a peer must end here, with a log line.

Nothing here switches; user code runs in jobs that are queued.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NoReturn

from aemp_gevent.addresses.ids import MAX_NAME
from aemp_gevent.calls.serve import FAILED
from aemp_gevent.errors import AempError, RefusedError, SpawnRefusedError, UnencodableMessageError
from aemp_gevent.node.inspection import Inspection
from aemp_gevent.node.metrics import Metrics
from aemp_gevent.node.port_view import PortViews
from aemp_gevent.node.request_host import RequestHost
from aemp_gevent.node.request_names import first_long_name
from aemp_gevent.peers.link_requests import ABOUT_LINKS, too_long
from aemp_gevent.peers.peer import Peer
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.patterns import Message
from aemp_gevent.ports.reasons import describe
from aemp_gevent.runtime.hints import ONCE, kind_of, nearest
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.runtime.tracing import TRACING, trace_in
from aemp_gevent.wire.framing import name_of_port
from aemp_gevent.wire.framing_msgpack import make_resting_encoder
from aemp_gevent.wire.vocabulary import (
    BYE,
    CALL,
    CAN,
    DEVNULL,
    DIRECTORY,
    EVAL,
    G_CHG1,
    G_DB_FAMILY,
    G_DB_KEYS,
    G_DB_VALUES,
    G_FIND,
    G_FOUND,
    G_GLOBAL,
    G_MON1,
    G_REPLY,
    G_SET,
    G_SLAVE,
    G_UPD,
    INFO,
    INSPECT,
    KIL1,
    LOG,
    LOOKUP,
    NOT_DONE,
    RELAY,
    SND,
    SPAWN,
    TIME,
)

PERL_UP_NODES = "AnyEvent::MP::Kernel::up_nodes"
"""The code that Perl's ``aemp trace`` sends to be evaluated (AnyEvent::MP 2.02). It is answered without running it."""

_READS: dict[str, Callable[[], Any]] = {
    G_DB_FAMILY: dict,
    G_DB_KEYS: list,
    G_DB_VALUES: list,
    G_FIND: lambda: None,
    G_MON1: lambda: None,
}
"""Requests that read the directory, and the answers for peers without that right, to which it looks empty."""

_WRITES = {G_SLAVE, G_UPD, G_SET, G_GLOBAL}
"""Requests that write to the directory. ``g_global`` announces that a peer will write all of it."""


MAX_REPLY_BYTES = 4096
"""The most that a peer may put before each record of the log, which this node keeps."""

_ANSWERED = frozenset({LOOKUP, TIME, INFO, INSPECT, LOG, CAN, SND, RELAY, EVAL})
"""Requests that have an answer: in a call of one, the last argument is the port that waits for it."""

_ENCODE = make_resting_encoder()

_TAKES_MORE = 0x04
"""The flag of a function's code that takes any number of arguments."""

_RELAYS = (SND, RELAY)

MAX_DETOURS = 4
"""How often one request may ask this node to send a message to its own node port. Once is useful, behind a relay; a
message of 64 MiB has room for a million times, and each would look at all that follow."""


_MAX_WHY = 500
"""The characters that are sent of a reason why a request was refused."""


_ADVICE = "; a message to a node ID is a request to the node itself, and the ID of a port has a '#'"


def _is_answered(request: Any) -> bool:
    return type(request) is str and request in _ANSWERED


def _advice_on(request: Any) -> str:
    """Return what to add to the refusal of a request that may have been meant for a port."""
    return "" if _is_answered(request) else _ADVICE


def _arguments_of(method: Callable[..., None]) -> str:
    """Return the arguments that a row of the table takes from a request, such as ``(what, port, *reply)``."""
    code = method.__code__
    names = list(code.co_varnames[2 : code.co_argcount])
    if code.co_flags & _TAKES_MORE:
        names.append(f"*{code.co_varnames[code.co_argcount]}")
    return f"({', '.join(names)})"


def _for_directory(request: str) -> Callable[..., None]:
    """Return the row of a request of the directory's protocol."""

    def row(requests: Requests, peer: Peer | None, *args: Any) -> None:
        if peer is not None:  # this node does not use requests for its own directory
            requests.directory(peer, request, list(args))

    return row


def _about_links(request: str) -> Callable[..., None]:
    """Return the row of a request about a link: it comes here if a peer asked this node to send it to itself."""

    def row(_requests: Requests, peer: Peer | None, *args: Any) -> None:
        if peer is not None:
            peer.take_request([request, *args])

    return row


class Requests:
    """The node port of one node."""

    def __init__(self, host: RequestHost) -> None:
        self._host = host
        self._inspection = Inspection(host)

    @property
    def metrics(self) -> Metrics:
        """The figures for systems that monitor the node."""
        return self._inspection.metrics

    @property
    def views(self) -> PortViews:
        """Single ports, for those who look at them."""
        return self._inspection.views

    def handle(self, peer: Peer | None, message: Message | list[Any]) -> None:
        """Carry out a message to the node port. Raises only errors that a request cannot cause.

        Args:
            peer: The node that asks; None for this node itself.
            message: The request's name and its arguments.
        """
        request: Any = SND  # for errors in the detours
        method: Callable[..., None] | None = None
        args: list[Any] = []
        try:
            begin = self._end_of_detours(message)
            request, *args = (message[begin:] if begin else message) or ("",)
            method = self._TABLE.get(request) if isinstance(request, str) else None
            name = first_long_name(request, args, self._host.max_name_bytes, is_known=method is not None)
            if name is not None:
                self._refuse("name", too_long(name, self._host.max_name_bytes))
            if method is not None:
                method(self, peer, *args)
            else:
                self._call(peer, request, *args)
        except (MemoryError, RecursionError):
            raise  # not caused by the arguments: it may strike anywhere, and the caller cannot continue
        # Exception: the arguments are the peer's, and any call with them may raise anything.
        except Exception as error:  # noqa: BLE001
            is_miscalled = isinstance(error, TypeError) and error.__traceback__ and not error.__traceback__.tb_next
            if method is not None and is_miscalled:
                error = TypeError(f"its arguments must be {_arguments_of(method)}")
            self._host.report(peer, request, error)
            if _is_answered(request):
                self._tell(peer, request, str(error) if isinstance(error, AempError) else describe(error), args)

    def _end_of_detours(self, message: Message | list[Any]) -> int:
        """Return the index at which the real request begins, behind requests to send it to this same node port.

        Nothing else passes a request on to this node port: answers to it are refused (``RequestHost.reply``).
        """
        begin = 0
        while len(message) > begin + 1 and message[begin] in _RELAYS and self._host.is_node_port(message[begin + 1]):
            begin += 2
            if begin > 2 * MAX_DETOURS:
                self._refuse("relay", f"it is sent on to this node's own node port more than {MAX_DETOURS} times")
        return begin

    def _devnull(self, peer: Peer | None, *args: Any) -> None:
        """Do nothing."""

    def _lookup(self, peer: Peer | None, name: str, port: Any, *reply: Any) -> None:
        self._host.reply(peer, port, (*reply, self._host.registered(name_of_port(name))))

    def _time(self, peer: Peer | None, port: Any, *reply: Any) -> None:
        self._host.reply(peer, port, (*reply, time.time()))

    def _info(self, peer: Peer | None, port: Any, *reply: Any) -> None:
        if self._may_inspect(peer, INFO, port, reply):
            self._host.reply(peer, port, (*reply, self._host.info()))

    def _inspect(self, peer: Peer | None, what: Any, port: Any, *reply: Any) -> None:
        if not self._may_inspect(peer, INSPECT, port, reply):
            return

        def answered(found: dict[str, Any]) -> None:
            with self._host.reporting(peer, INSPECT):
                self._host.reply(peer, port, (*reply, found))

        self._inspection.ask(peer, what, answered)

    def _log(self, peer: Peer | None, level: Any, port: Any, *reply: Any) -> None:
        if not self._may_inspect(peer, LOG, port, reply):
            return
        if peer is not None and len(_ENCODE(reply)) > MAX_REPLY_BYTES:
            self._refuse("name", f"a peer may put at most {MAX_REPLY_BYTES} bytes before each record of the log")
        self._host.log_feed.ask(peer, level, port, reply)

    def _may_inspect(
        self,
        peer: Peer | None,
        request: str,
        port: Any,
        reply: Message,
        *,
        in_words: Callable[[str], Any] | None = None,
    ) -> bool:
        """Refuse a peer that may not look into this node, with an answer, because the peer waits for one."""
        if peer is None or peer.rights.inspect:
            return True
        text = f"the rules do not let {peer.node} inspect this node"
        self._host.reply(peer, port, (*reply, (in_words or self._inspection.refusal)(text)))
        self._host.count_refusal("inspect")
        self._host.report(peer, request, RefusedError(text))
        return False

    def _can(self, peer: Peer | None, request: str, port: Any, *reply: Any) -> None:
        self._host.reply(peer, port, (*reply, 1 if request in self._TABLE else ""))

    def _snd(self, peer: Peer | None, port: Any, *message: Any) -> None:
        self._host.reply(peer, port, message)

    def _kil1(self, peer: Peer | None, name: Any, *reason: Any) -> None:
        if peer is not None:
            peer.take_request([KIL1, name, *reason])
            return
        port = self._host.find_port(name_of_port(name))
        if port is not None:
            self._host.scheduler.kill(port, reason)

    def _take_call(self, peer: Peer | None, *args: Any) -> None:
        greeting = None if peer is None else peer.greeting
        if greeting is not None and greeting.is_of_another:
            self._call(peer, CALL, *args)  # in that program it is the name of a function
        else:
            header, name, tag, *rest = args
            self._host.take_call(peer, header, name_of_port(name), (tag, *rest))

    def _spawn(self, peer: Peer | None, name: Any, function: Any, *args: Any) -> None:
        name = name_of_port(name)
        if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
            raise SpawnRefusedError(f"{quoted(name)} is not a port name")
        tracer, trace = TRACING.tracer, None
        if isinstance(function, dict) and len(function) == 1:
            ((function, headers),) = function.items()
            trace = trace_in(headers) if isinstance(headers, dict) else None
        with contextlib.nullcontext() if tracer is None or trace is None else tracer.arriving(trace):
            self._host.spawn_for(peer, name, function, args)
        if peer is not None and not peer.rights.kill:
            port = self._host.find_port(name)
            if port is not None:
                peer.peer_monitors.mark_spawned(port)

    def _bye(self, peer: Peer | None, *args: Any) -> None:
        if peer is not None and peer.greeting is not None and peer.greeting.is_of_another:
            self._call(peer, BYE, *args)  # in that program it is the name of a function
        elif peer is not None:
            peer.take_request([BYE, *args])

    def _eval(self, peer: Peer | None, text: str, *reply: Any) -> None:
        if text == PERL_UP_NODES and reply:
            self._tell_up_nodes(peer, *reply)
            return
        settings = self._host.settings
        if settings is not None and (settings.secure or not settings.allow_eval):
            self._refuse("spawn", "eval is off here: set allow_eval=True on this node to allow it")
        if peer is not None and not peer.rights.spawn:
            self._refuse("spawn", f"the rules do not let {peer.node} run code here")

        def run() -> None:
            error, results = _evaluate(text)
            if not reply:
                return
            with self._host.reporting(peer, EVAL):
                try:
                    self._host.reply(peer, reply[0], (*reply[1:], error, *results))
                except UnencodableMessageError as cannot:
                    self._host.reply(peer, reply[0], (*reply[1:], f"the result cannot travel: {cannot}"))

        self._host.scheduler.enqueue_job(CallJob(None, run, ()))

    def _tell_up_nodes(self, peer: Peer | None, port: Any, *reply: Any) -> None:
        """Answer with the linked nodes, in the form of an evaluation's results, if the peer may look into this node."""
        if self._may_inspect(peer, EVAL, port, reply, in_words=str):
            self._host.reply(peer, port, (*reply, "", *self._host.up_nodes()))

    def directory(self, peer: Peer, request: str, args: list[Any]) -> None:
        """Hand a request of the directory's protocol to the node, if the peer may make it."""
        if request in _READS and not peer.rights.may_read:
            self._answer_emptily(peer, request, args)
        elif request not in _WRITES or peer.rights.may_write:
            self._host.directory_request(peer, request, args)
            return
        elif request == G_SLAVE and peer.rights.may_read:
            # It needs a master to ask, even if it may only read.
            self._host.directory_request(peer, request, [])
        self._refuse("directory", f"the rules allow {peer.node} only {quoted(peer.rights.directory)} in the directory")

    @staticmethod
    def _answer_emptily(peer: Peer, request: str, args: list[Any]) -> None:
        """Answer as if the directory were empty: the peer waits, and the protocol has no refusals."""
        nothing = _READS[request]()
        if request in (G_FIND, G_MON1):
            (name,) = args[:1]
            peer.send_if_connected(["", G_FOUND if request == G_FIND else G_CHG1, name, nothing])
        else:
            _family, number = args[:2]
            peer.send_if_connected(["", G_REPLY, number, nothing])

    def _refuse(self, what: str, text: str) -> NoReturn:
        """Refuse a request: count it here; it is logged where the request ends."""
        self._host.count_refusal(what)
        raise (SpawnRefusedError if what == "spawn" else RefusedError)(text)

    def _call(self, peer: Peer | None, name: Any, *args: Any) -> None:
        """Call the function that an unknown request names."""

        def run() -> None:  # not on the hub: finding the function may import its module
            try:
                function = self._host.find_function(peer, name)
            except AempError as error:
                if peer is None:
                    self._hint(self._host.scheduler.log, self._host.NODE(), name, str(error))
                else:
                    self._host.report(peer, name, error)
                self._tell(peer, name, str(error), args)
                return
            failure = None
            try:
                function(*args)
            except Exception as error:
                if peer is None:
                    raise
                failure = error
            if failure is not None and peer is not None:
                text = "exception in %s, which node %s called"
                peer.complaints.log(logging.ERROR, text, quoted(name), peer.node, exc_info=failure)
                failure = None  # its traceback has this frame: a cycle, which would keep the arguments

        self._host.scheduler.enqueue_job(CallJob(None, run, ()))

    def _tell(self, peer: Peer | None, name: Any, why: str, args: Sequence[Any]) -> None:
        """Report a refused request to the peer: its log is read where the mistake was made, and its call fails.

        Of a request with an answer only if it seems to be a call. Others are messages, whose mistakes are logged here.
        """
        last: Any = args[-1] if args else None
        asker = self._host.NODE() if peer is None else peer.node
        # Not isinstance(), which asks proxies in this node's own requests for their class: they may raise there.
        reply = last if issubclass(type(last), str) and last.startswith(asker + "#") else ""
        if peer is None:
            self._fail_call(asker, name, why, reply)
        elif (reply or not _is_answered(name)) and peer.greeting is not None and peer.greeting.is_ours:
            is_short = isinstance(name, (int, float)) or (isinstance(name, str) and len(name) <= MAX_NAME)
            what = name if is_short else quoted(name)
            peer.send_if_connected(["", NOT_DONE, what, why[:_MAX_WHY], reply[:MAX_NAME]])

    def _not_done(self, peer: Peer | None, request: str | float, why: str, reply: str) -> None:
        """Handle a peer's report that it refused a request of this node."""
        if peer is None or not (peer.greeting is not None and peer.greeting.is_ours):
            return
        self._hint(peer.complaints.log, peer.node, request, why[:_MAX_WHY])
        self._fail_call(peer.node, request, why, reply)

    def _fail_call(self, node: str, request: Any, why: str, reply: str) -> None:
        """Fail the call that waits for the answer to a request. Only a port that waits for this node is touched."""
        port = self._host.find_port(reply.partition("#")[2])
        if port is not None and port.asked == node:
            text = f"request {quoted(request)} refused: {why[:_MAX_WHY]}{_advice_on(request)}"
            self._host.scheduler.kill(port, (FAILED, text))

    def _hint(self, log: Callable[..., None], node: str, request: Any, why: str) -> None:
        level = logging.WARNING if self._host.hints.is_due("request", node, kind_of(request)) else logging.DEBUG
        text = "node %s refused the request %s: %s%s%s %s"
        # Comparing takes a millisecond; peers can cause that only as often as warnings are logged.
        is_unknown = level == logging.WARNING and not _is_answered(request)
        known = nearest(request, filter(None, self._TABLE)) if is_unknown else ""
        log(level, text, node, quoted(request), why, known, _advice_on(request), ONCE)

    _TABLE: ClassVar[dict[str, Callable[..., None]]] = {
        "": _devnull,
        DEVNULL: _devnull,
        LOOKUP: _lookup,
        TIME: _time,
        INFO: _info,
        INSPECT: _inspect,
        LOG: _log,
        CAN: _can,
        SND: _snd,
        RELAY: _snd,
        **{request: _about_links(request) for request in ABOUT_LINKS},
        KIL1: _kil1,
        BYE: _bye,
        NOT_DONE: _not_done,
        CALL: _take_call,
        EVAL: _eval,
        SPAWN: _spawn,
        **{request: _for_directory(request) for request in DIRECTORY},
    }


def _evaluate(text: str) -> tuple[str, Message]:
    """Run Python code; return its error text (empty: none) and its results."""
    names: dict[str, Any] = {}
    try:
        try:
            code = compile(text, "<eval request>", "eval")
        except SyntaxError:
            exec(compile(text, "<eval request>", "exec"), names)  # noqa: S102  # the setting allow_eval permits it
            return "", ()
        return "", (eval(code, names),)  # noqa: S307
    except Exception as error:  # noqa: BLE001  # it is the answer
        return describe(error), ()
