# SPDX-License-Identifier: MIT
"""The node: local ports, and links to the ports of others.

:class:`Node` ties the floors together: :class:`~aemp_gevent.node.local_node.LocalNode` has the
ports, :class:`~aemp_gevent.node.directory_calls.DirectoryNode` the directory,
:class:`~aemp_gevent.peers.network.Network` the links,
:class:`~aemp_gevent.node.requests.Requests` the node port. The package's module functions
are the bound methods of one default ``Node``, the way the ``random`` module's are of a
hidden ``Random``; several can live in one process.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic
from types import NoneType
from typing import TYPE_CHECKING, Any

import gevent
import zope.event
from gevent.hub import Hub
from greenlet import getcurrent

from aemp_gevent._version import PROVIDER
from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import ANY_HOST, DEFAULT_PORT, Endpoint, endpoints_of, is_resolved, parse_bind
from aemp_gevent.calls import answers
from aemp_gevent.calls import serve as serving
from aemp_gevent.errors import (
    AlreadyInitialisedError,
    InvalidNoderefError,
    InvalidPortError,
    InvalidSettingError,
    NodeShutDownError,
    NoPortContextError,
    PortDied,
    RefusedError,
    SpawnRefusedError,
    UsageError,
)
from aemp_gevent.node import spawning
from aemp_gevent.node.directory_calls import DirectoryNode
from aemp_gevent.node.log_tap import LogCatcher
from aemp_gevent.ports.callbacks import check_callable
from aemp_gevent.ports.context import current_port
from aemp_gevent.ports.jobs import CallJob
from aemp_gevent.ports.monitors import Monitor
from aemp_gevent.ports.patterns import Handler, Message
from aemp_gevent.ports.port import DEAD, QUEUED, REMOTE, RUNNING, Job, Port
from aemp_gevent.ports.reasons import Reason
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime import forking
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.loop_watch import LoopWatch, watch_loop
from aemp_gevent.runtime.quantities import Seconds, to_limited_seconds, to_seconds
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.wire.limits import RESOLVE_SECONDS, Limits, is_long
from aemp_gevent.wire.vocabulary import DEVNULL, G_SLAVE, KIL1, SPAWN, TIME

# What only links need is imported when the node is initialised: a program starts in less than half the time, and
# may never need it.
if TYPE_CHECKING:
    import dns.resolver
    from typing_extensions import Unpack

    from aemp_gevent.addresses.name_service import NameService
    from aemp_gevent.directory.embedded.engine import EmbeddedEngine
    from aemp_gevent.directory.engine import Engine
    from aemp_gevent.directory.etcd.engine import EtcdEngine
    from aemp_gevent.node.inspection import Inspection
    from aemp_gevent.node.requests import Requests
    from aemp_gevent.node.services import Service
    from aemp_gevent.peers.network import Network
    from aemp_gevent.peers.peer import Peer
    from aemp_gevent.settings.fields import Settings
    from aemp_gevent.settings.given import ConfigureSettings, InitialiseSettings
    from aemp_gevent.transport.connector import Connector

_ON_THE_HUB = "it was called on the hub, which must never wait: spawn a greenlet"

_QUIET_SECONDS = 0.5
"""So long nothing comes to a node that is drained: what was on its way from others has arrived."""

_LOOK_SECONDS = 0.05

_log = Log()


class NodeGuard:
    """What ``mon_nodes`` returns: ``cancel()`` ends the calls. Also a context manager."""

    __slots__ = ("_callbacks", "_scheduler")

    def __init__(self, callbacks: dict[NodeGuard, tuple[Handler, Port | None]], scheduler: Scheduler) -> None:
        self._callbacks = callbacks
        self._scheduler = scheduler

    def cancel(self) -> None:
        """Make no more calls. May be called any number of times."""
        self._scheduler.check_thread("cancel() of what mon_nodes() returned")
        self._callbacks.pop(self, None)

    def __enter__(self) -> NodeGuard:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._scheduler.leave(self.cancel)


class Node(DirectoryNode):
    """A process in a network of nodes. Private, that is local only, until it is initialised.

    Constructing one starts nothing and opens nothing.

    Args:
        carrier: How its connections are made; None: by sockets. For tests, see
            ``aemp_gevent.testing``.
    """

    def __init__(self, *, carrier: Connector | None = None) -> None:
        super().__init__()
        self._carrier = carrier

    @functools.cached_property
    def _requests(self) -> Requests:
        from aemp_gevent.node.requests import Requests  # noqa: PLC0415  # see TYPE_CHECKING

        return Requests(self)

    @property
    def inspection(self) -> Inspection:
        """What looks into this node for others."""
        return self._inspection

    @functools.cached_property
    def _inspection(self) -> Inspection:
        from aemp_gevent.node.inspection import Inspection  # noqa: PLC0415  # see TYPE_CHECKING

        return Inspection(self)

    def _begin(self) -> None:
        super()._begin()
        self._network: Network | None = None
        self._embedded: EmbeddedEngine | None = None  # the directory's engine, if that is told of links
        self._etcd: EtcdEngine | None = None  # the directory's engine, if that is it
        self._joining: Network | None = None  # of a slave that has no master yet
        self._watch: LoopWatch | None = None
        self._initialising = False
        self._ending = False
        self._former_id = self._id
        self._node_callbacks: dict[NodeGuard, tuple[Handler, Port | None]] = {}
        self.log_catcher = LogCatcher(self)
        """Who listens to this node's log."""

    def forked(self) -> None:
        """Become a fresh private node, in a forked child of the process that had this one and keeps its links."""
        self.log_catcher.abandon()
        if self._etcd is not None:
            self._etcd.abandon()
        for network in (self._network, self._joining):
            if network is not None:
                network.abandon()
        self._stop_watching()
        super().forked()

    # --- becoming a networked node ---

    def initialise_node(self, noderef: str | None = None, *seeds: str, **settings: Unpack[InitialiseSettings]) -> None:
        """Become a public node, or a slave: listen on the endpoints of ``noderef`` and dial the seeds, or attach.

        A public node blocks until it is bound. A slave listens nowhere; it has one link, to its
        master, through which others reach it: the call blocks until a master has taken it in.
        Its ID is ``slave/name@`` and the master's. When it loses the link it makes it again, with the
        same master and under the same ID.

        Settings that are not given here come from the environment and the profile file,
        as with :meth:`configure`; but ``nodeid``, ``seeds`` and ``binds`` do not: this
        call alone says where the node listens, and whom it dials.

        Args:
            noderef: Where this node listens, and so its ID: ``"host:4040"``,
                ``"127.0.0.1:0"`` (any free port), ``"4041"``, several separated by commas;
                None or ``""`` guesses from the host's name, with port 4040. ``"*:4041"`` listens on
                that port of all interfaces, ``"*"`` on port 4040; the ID is as for ``"4041"`` and
                ``""``. ``"0.0.0.0:4041"`` and ``"[::]:4041"`` listen alike, with a warning: an address of this host
                becomes the ID. ``"slave/name"``
                makes a slave, ``"slave/"`` one with a name that no other process has.
            seeds: Noderefs of nodes to link to from the start; they may be unresolved,
                and down: they are dialled in the background until they answer. For a slave, the
                masters it may have; the first that answers is it.
            settings: See :class:`~aemp_gevent.Settings`; above all ``secret``.

        Raises:
            NoSecretError: There is no ``secret`` anywhere, and no ``cert``.
            CertificateError: The certificate cannot be used.
            InvalidNoderefError: A component is malformed, or the name is reserved.
            ResolveError: A host name has no address.
            ListenError: An endpoint cannot be bound, for instance because it is in use.
            NoMasterError: None of a slave's masters took it in within ``monitor_timeout``.
            AlreadyInitialisedError: The node has its identity already.
            NodeShutDownError: It was shut down.
            UnknownSettingError, InvalidSettingError: A setting is wrong; the text says where it stands.
            ProfileError: The profile file cannot be used.

        After an error the node is as it was, and the call may be repeated. A ``gevent.Timeout`` or a kill
        that strikes in the moment after a master took the node in finds a slave: ``NODE()`` tells.
        """
        wanted = "" if noderef is None else noderef
        if isinstance(wanted, str) and wanted.partition(":")[0] == ANY_HOST:
            wanted = wanted.partition(":")[2]
            settings.setdefault("binds", [f"{ANY_HOST}:{wanted or DEFAULT_PORT}"])
        slave = _slave_name(wanted)
        if slave is None:
            ids.check_noderef(wanted)
        for name, value in settings.items():
            if name in {"nodeid", "seeds"}:
                raise InvalidSettingError(name, value, "give it by position here, or use configure()")
        self._check_uninitialised("initialise_node()")
        from aemp_gevent.settings.sources import make_settings  # noqa: PLC0415  # see TYPE_CHECKING

        given = {**settings, "seeds": seeds, "nodeid": wanted}
        checked = make_settings(given, only_given=("nodeid", "seeds", "binds"))
        if slave is not None:
            self._become_slave(checked, slave)
        else:
            self._initialise(checked, lambda: _resolve(wanted))

    def configure(self, profile: str | None = None, /, **settings: Unpack[ConfigureSettings]) -> None:
        """Become a networked node as the settings say. Blocks until bound, or taken in by a master.

        The same as :meth:`initialise_node`, for nodes that are set up by their operator,
        that have a name instead of a noderef, or that listen elsewhere than their noderef says
        (NAT, proxies): ``configure(nodeid="backend", binds=["*:4040"], seeds=["10.0.0.1:4040"])``.

        Each setting is taken from the first place that has it: this call, the environment
        variable (``AEMP_NODEID`` for ``nodeid``), the profile file, the default.

        Args:
            profile: A profile of the profile file. None: the one that the environment variable
                ``AEMP_PROFILE`` names, else one named like this host, else ``default``; none
                of the last two need exist.
            settings: See :class:`~aemp_gevent.Settings`.

        Raises:
            AempError: The same as :meth:`initialise_node`.
        """
        self._check_uninitialised("configure()")
        if not isinstance(profile, (str, NoneType)):
            # Not shown: it may be settings, and a secret among them.
            raise InvalidSettingError(
                "profile", type(profile), "it must be a name; settings are given as nodeid=…, seeds=…"
            )
        from aemp_gevent.settings.sources import make_settings  # noqa: PLC0415  # see TYPE_CHECKING

        checked = make_settings(settings, profile=profile)
        from socket import gethostname  # noqa: PLC0415  # see TYPE_CHECKING

        nodeid = ids.expand_node_id(checked.nodeid or "", gethostname(), ids.new_uniq())
        slave = _slave_name(nodeid)
        if slave is not None:
            self._become_slave(checked, slave)
            return
        try:
            name = ids.check_node_name(nodeid)
        except InvalidNoderefError:
            self._initialise(checked, lambda: _resolve(nodeid))
        else:
            self._initialise(checked, lambda: name)

    def _check_may_wait(self, call: str) -> None:
        self._scheduler.check_thread(call)
        if isinstance(getcurrent(), Hub):
            raise NoPortContextError(call, _ON_THE_HUB)

    def _check_uninitialised(self, call: str) -> None:
        self._check_may_wait(call)
        if self._is_over:
            raise NodeShutDownError(call, self._id)
        if self._network is not None or self._initialising:
            raise AlreadyInitialisedError(self._id)

    def _initialise(self, settings: Settings, resolve: Callable[[], str]) -> None:
        self._initialising = True  # resolving may switch, and another greenlet may try the same
        try:
            services = _load(settings)
            node_id = resolve()
            if settings.binds is not None and any(endpoint.port == 0 for endpoint in endpoints_of(node_id)):
                raise InvalidNoderefError(
                    node_id, "with 'binds', the node ID needs the port that others dial, and 0 is not one"
                )
            network = self._make_network(node_id, settings)
            bound = network.listen(self._binds(node_id, settings))
            if settings.binds is None:
                node_id = _with_real_ports(node_id, bound)
            node_id = network.node_id = _with_real_hosts(node_id, network)
        finally:
            self._initialising = False
        former_prefix = self._prefix
        self._network = network
        self._rename(node_id)
        self._start(services, former_prefix)

    def _become_slave(self, settings: Settings, name: str) -> None:
        if not settings.seeds:
            raise InvalidSettingError(
                "seeds", (), f"a slave needs masters: initialise_node('slave/{name}', master, …), or seeds", ""
            )
        if settings.binds is not None:
            raise InvalidSettingError("binds", settings.binds, "a slave listens nowhere", "")
        services = _load(settings)
        self._initialising = True
        former_prefix = self._prefix
        network = self._joining = self._make_network(self._id, settings)

        def taken_in(node_id: str) -> None:
            self._network = network
            self._rename(node_id)

        try:
            network.join(name, settings.seeds, taken_in)
        finally:
            self._initialising = False
            self._joining = None
            if self._network is not network:
                network.close()
            else:  # also if a foreign Timeout strikes now: others know us by our new ID, and there is no way back
                self._start(services, former_prefix)

    def _make_network(self, node_id: str, settings: Settings) -> Network:
        from aemp_gevent.peers.network import Network  # noqa: PLC0415  # see TYPE_CHECKING

        return Network(
            node_id,
            self._scheduler,
            settings,
            self._requests.handle,
            self._link_up,
            self._link_down,
            self._carrier,
        )

    def _start(self, services: Iterable[Service], former_prefix: str) -> None:
        network = self._network
        assert network is not None  # we have just been initialised
        self._open_ports()
        self.max_name_bytes = network.settings.max_name_bytes
        self._directory.start(self._make_engine(network), former_prefix, self._prefix)
        network.find = self._directory.find
        network.start()
        for service in services:
            self.start_service(service)

    def _make_engine(self, network: Network) -> Engine:
        """Return the directory's engine, not started."""
        from aemp_gevent.settings.directory_address import parse_directory  # noqa: PLC0415  # see TYPE_CHECKING

        address = parse_directory(network.settings.directory)
        if address is not None:
            # Imported only by those who want it.
            from aemp_gevent.directory.etcd.engine import EtcdEngine  # noqa: PLC0415

            timeout = network.settings.heartbeat_timeout
            self._etcd = EtcdEngine(address, network.node_id, self._scheduler, timeout, network.addresses())
            return self._etcd
        from aemp_gevent.directory.embedded.engine import EmbeddedEngine  # noqa: PLC0415  # see TYPE_CHECKING

        engine = self._embedded = EmbeddedEngine(network)
        network.tell_seeds_changed = engine.seeds_changed
        network.needs = engine.needs
        return engine

    def start_service(self, service: Service, ended: Callable[..., None] | None = None) -> str:
        """Run a service in a port of its own, which dies of the service's exceptions. Never switches.

        Args:
            service: From :func:`~aemp_gevent.node.services.load_services`.
            ended: Called with the reason when the port died.

        Returns:
            The port's ID.
        """
        name = self._new_name()
        self._spawn_here(name, service.name, service.args, lambda _name: service.function)
        port = self._prefix + name

        def died(*reason: Any) -> None:
            if reason:
                _log.error("the service %s, port %s, died: %s", service.name, port, reason)
                self._tell(self._events(PortDied(port, reason)))  # for those who subscribed to such deaths
            if ended is not None:
                ended(*reason)

        self.monitor(port, died, None)
        return port

    @staticmethod
    def _binds(node_id: str, settings: Settings) -> list[Endpoint]:
        from aemp_gevent.addresses.resolve import resolve_endpoint  # noqa: PLC0415  # see TYPE_CHECKING

        if settings.binds is not None:
            binds = map(parse_bind, settings.binds)
            return [bind if bind.host == ANY_HOST else resolve_endpoint(bind) for bind in binds]
        return list(endpoints_of(node_id)) or [Endpoint(ANY_HOST, 0)]

    def _rename(self, node_id: str) -> None:
        self._former_id = self._id
        super()._rename(node_id)

    def split_port(self, port: object) -> tuple[str, str]:
        """Return the node ID and the port name of a port ID; the name is ``""`` for a node port.

        Nodes of other programs may have names that are taken for mistakes elsewhere, with blanks for
        instance. Those that this node has met are understood.

        Raises:
            InvalidPortError: It is not a port ID.
        """
        try:
            return super().split_port(port)
        except InvalidPortError:
            node, _, name = port.partition("#") if isinstance(port, str) else ("", "", "")
            peer = self._network.peers.get(node) if self._network is not None else None
            if peer is None or not peer.was_met or is_long(name, self.max_name_bytes) or not name.isprintable():
                raise
            return node, name

    def _is_here(self, node: str) -> bool:
        return node in (self._id, self._former_id)

    def resolve_node(
        self, noderef: str, *, timeout: Seconds | None = RESOLVE_SECONDS, resolver: dns.resolver.Resolver | None = None
    ) -> str:
        """Return a noderef with every endpoint resolved to numbers; order kept, duplicates dropped. May switch.

        ========================================  =================================================
        component                                 endpoints
        ========================================  =================================================
        (empty)                                   port 4040 of this host, at an address others can
                                                  reach, or loopback, with a warning, if it has none
        ``4041``                                  that port of this host
        ``host:4041``                             the host's first address, IPv4 before IPv6
        ``host``                                  what the SRV record ``_aemp._tcp.host`` says, by
                                                  priority and weight; without one, port 4040
        ``1.2.3.4``, ``[2001:db8::1]``            port 4040
        ``1.2.3.4:5``, ``[::1]:5``, ``unix:/s``   as it is
        ========================================  =================================================

        Args:
            noderef: Components, separated by commas.
            timeout: Seconds for all look-ups together. A look-up of an SRV record takes at
                most 5 of them, and is then done without.
            resolver: A dnspython resolver that is asked for everything, for a name service of
                one's own; None: the system's.

        Raises:
            InvalidNoderefError: A component is malformed; the text names it.
            ResolveError: A host name has no address; the text names the component.
            NoPortContextError: On the hub, which must never wait.
        """
        if isinstance(getcurrent(), Hub):  # any thread's
            raise NoPortContextError("resolve_node()", _ON_THE_HUB)
        from aemp_gevent.addresses.name_service import NameService  # noqa: PLC0415  # see TYPE_CHECKING

        return _resolve(noderef, NameService(to_limited_seconds(timeout, "resolve_node()"), resolver))

    def reload(self, profile: str | None = None, /, **settings: Unpack[ConfigureSettings]) -> list[str]:
        """Read the settings again, as :meth:`configure` did, and take over those that may change while the node is up.

        These are ``secret`` and ``require_tls``, which hold for new connections, and ``allow_spawn``, ``allow_eval``,
        ``allow_relay``, ``secure`` and ``rules``, which hold at once. Services are neither started nor ended.
        (The files that ``cert`` and ``ca`` name are read again by themselves.)

        Args:
            profile: As for ``configure``.
            settings: As for ``configure``.

        Returns:
            The names of settings that are others than the node's, and need a restart.

        Raises:
            AempError: The same as for ``configure``; the node goes on as it was.
        """
        network = self._network
        if network is None:
            raise UsageError("reload() is for a node that is initialised: call configure()")
        from aemp_gevent.settings.sources import make_settings  # noqa: PLC0415  # see TYPE_CHECKING

        return network.reload(make_settings(settings, profile=profile))

    def drain(self, timeout: Seconds | None = 10.0) -> bool:
        """Take this node's entries out of the directory, and wait until its ports have done their work. Switches.

        Whoever looks for ports in groups and families finds those of other nodes from then on. To be called before
        :meth:`shutdown`, so that what was sent to ports here until then is done and not lost. The work is done when no
        port is in a handler, and no message has waited for one, for half a second.

        Args:
            timeout: Seconds to wait.

        Returns:
            Whether that came about in time.
        """
        self._check_may_wait("drain()")
        deadline = answers.deadline_of(to_seconds(timeout, "drain()"))
        self._directory.withdraw_all()
        quiet_since = monotonic()
        while True:
            now = monotonic()
            if self._is_busy:
                quiet_since = now
            if now - quiet_since >= _QUIET_SECONDS:
                return True
            left = answers.left_until(deadline)
            if left is not None and left <= 0:
                return False
            gevent.sleep(_LOOK_SECONDS)

    @property
    def _is_busy(self) -> bool:
        current = current_port()
        return any(port.state in (QUEUED, RUNNING) and port is not current for port in list(self._ports.values()))

    def shutdown(self, timeout: Seconds | None = 5.0) -> None:
        """Say goodbye to the peers, send what is queued within ``timeout`` seconds, and close all links. Switches.

        Monitors that peers have of ports here fire with ``("shutdown", node)`` as soon as they
        have heard everything that was sent before, and so do those that this node has of
        theirs. The node keeps its ports and its ID; it cannot be initialised again. Handlers and actors may
        go on sending to each other; ``snd``, ``port`` and the like raise ``NodeShutDownError`` everywhere else.
        A program that ends does this by itself, with all nodes of the main thread at the same time.

        Args:
            timeout: Seconds; peers that have not taken everything by then are logged.
        """
        self._scheduler.check_thread("shutdown()")
        seconds = to_limited_seconds(timeout, "shutdown()")
        if self._network is None:
            return
        self._check_may_wait("shutdown()")
        seconds = self._network.wait_for_names(seconds)
        self.log_catcher.stop()
        self._directory.stop()
        try:
            self._network.shut_down(seconds)
            if self._etcd is not None:
                self._etcd.stopped.wait(seconds)
        finally:
            self._close_ports()
        self._scheduler.hub.loop.run_callback(self._scheduler.end_idle_runners)

    def reset(self, timeout: Seconds | None = 1.0) -> None:
        """Kill every port here, shut down, and become a private node with a new ID. For tests. Switches.

        Ports die normally, what waits in them is dropped, and timers are stopped. Greenlets that are not the
        library's go on; one that called ``attach`` learns of its port's death in its next blocking call.

        Args:
            timeout: Seconds for the shutdown.
        """
        self._check_may_wait("reset()")
        seconds = to_limited_seconds(timeout, "reset()")
        scheduler = self._scheduler
        scheduler.end_all_timers()
        mine = [port for port in set(self._ports.values()) if port.state != REMOTE]
        for port in mine:
            scheduler.kill_now(port, ())
        while any(port.state != DEAD for port in mine):
            gevent.sleep(0)  # killed ports die when the hub gets control, at the latest
        self.shutdown(seconds)
        self._stop_watching()
        scheduler.end_all_timers()
        scheduler.hub.loop.run_callback(scheduler.end_idle_runners)
        current = getcurrent()
        if getattr(current, "aemp_port", None) in mine:
            current.aemp_port = None  # type: ignore[attr-defined]  # any greenlet can carry it
        self._begin()

    def shutdown_on_signal(self, *signals: int, timeout: Seconds | None = 5.0) -> None:
        """End the program in order on a signal: call :meth:`shutdown`, then raise ``SystemExit(128 + signal)``.

        A program that calls this in its first lines ends on Ctrl-C without a traceback. ``SystemExit`` is raised in
        the main greenlet, so that its ``finally`` blocks run. A second signal ends the program without waiting for
        peers any longer. Signals are handled when gevent's loop runs: code that never waits cannot be interrupted.

        Args:
            signals: Their numbers; none given: ``SIGINT``, which is Ctrl-C, and ``SIGTERM``.
            timeout: Seconds that the shutdown may take.
        """
        self._scheduler.check_thread("shutdown_on_signal()")
        seconds = to_limited_seconds(timeout, "shutdown_on_signal()")
        for number in signals or (signal.SIGINT, signal.SIGTERM):
            gevent.signal_handler(number, self._end_program, number, seconds)

    def _end_program(self, number: int, timeout: float) -> None:
        ending, self._ending = self._ending, True
        if not ending:
            self.shutdown(timeout)
        elif self._network is not None:
            self._network.close()
        sys.exit(128 + number)

    # --- who is there ---

    def wait_for_seeds(self, timeout: Seconds | None = 5.0) -> bool:
        """Wait for links to the seeds, and until this node and they know of each other what is in the directory.

        A node need not: it waits for what it wants to know, and others are told of it as soon as they can be.
        A web server's worker should, before it takes requests. Called again, it waits until the seeds know what was
        registered here before. Seeds that do not answer when they are dialled are not waited for. Switches.

        Args:
            timeout: Seconds for all of it.

        Returns:
            Whether that came about in time; False for a node that is not initialised.
        """
        self._check_may_wait("wait_for_seeds()")
        seconds = to_limited_seconds(timeout, "wait_for_seeds()")
        network = self._network
        if network is None:
            return False
        deadline = answers.deadline_of(seconds)
        if not network.seeds.wait(seconds):
            return False
        # A seed said what it is when the link came up, and its first answer is behind that: by then it has been sent
        # what is here. Its second answer is behind its hearing of it.
        seeds = [peer.node for peer in network.up_seeds()]
        return all(self.syncal(answers.left_until(deadline), seed, TIME) for _ in range(2) for seed in seeds)

    @property
    def seeds_down(self) -> dict[str, str]:
        """The seeds to which there is no link, and why; ``""`` if that is not known yet. Not for users."""
        return {} if self._network is None else self._network.seeds.why_down()

    def flush(self, timeout: Seconds | None = 5.0) -> bool:
        """Wait until everything that this node has sent so far has arrived at the other nodes. Switches.

        Each node to which there is a link, or one is being made, is asked the time: its answer comes after it has put
        all earlier messages into its ports' mailboxes. Whether handlers have run by then is not known.

        Args:
            timeout: Seconds for all nodes together; None waits until each has answered or its link is lost.

        Returns:
            Whether all answered in time; True if there was nobody to ask.

        Raises:
            WrongThreadError: Another native thread than the node's called this.
            NoPortContextError: On the hub, which must never wait.
        """
        self._check_may_wait("flush()")
        seconds = to_seconds(timeout, "flush()")
        if self._network is None:
            return True
        asked = [
            self._scheduler.start_greenlet(self.syncal, seconds, peer.node, TIME)
            for peer in list(self._network.peers.values())
            if peer.is_up or peer.is_waiting
        ]
        try:
            gevent.joinall(asked, seconds)
        finally:
            gevent.killall(asked, block=False)
        return all(greenlet.value for greenlet in asked)

    def up_nodes(self) -> list[str]:
        """Return the IDs of all nodes to which a link is up, this node not among them."""
        # A list, in one step: other native threads may ask, too.
        peers = list(self._network.peers.values()) if self._network is not None else []
        return [peer.node for peer in peers if peer.is_up]

    def node_is_up(self, node: object) -> bool:
        """Return whether a link to a node is up, True for this node; takes a node ID or a port of the node."""
        node_id = self.split_port(node)[0]
        return self._is_here(node_id) or node_id in self.up_nodes()

    def mon_nodes(self, callback: Handler) -> NodeGuard:
        """Call ``callback(node, True)`` when a link comes up, ``callback(node, False, *reason)`` when one goes down.

        In the order it happens, in this port's context. Links that are up already are not
        told: ask :meth:`up_nodes`. Returns a guard: ``.cancel()``, or a context manager.
        """
        self._scheduler.check_thread("mon_nodes()")
        check_callable("mon_nodes()", callback)
        guard = NodeGuard(self._node_callbacks, self._scheduler)
        self._node_callbacks[guard] = (callback, current_port())
        return guard

    def _link_up(self, peer: Peer) -> None:
        peer.complaints.log(logging.INFO, "link to %s is up", peer.node)
        if self._embedded is not None:
            self._embedded.link_up(peer)
        from aemp_gevent.events import NodeUp  # noqa: PLC0415  # see TYPE_CHECKING

        self._tell(self._news((peer.node, True), NodeUp(peer.node, self._id)))

    def _link_down(self, peer: Peer, reason: Reason, news: list[Job]) -> None:
        if self._embedded is not None:
            self._embedded.link_down(peer)
        from aemp_gevent.events import NodeDown  # noqa: PLC0415  # see TYPE_CHECKING

        if not news:
            news += self._news((peer.node, False, *reason), NodeDown(peer.node, self._id, reason))
        self._tell(news)

    def _news(self, args: Message, event: object) -> list[Job]:
        """Return the jobs that tell everybody of a link."""
        jobs: list[Job] = []
        for guard, (callback, context) in list(self._node_callbacks.items()):
            if context is not None and context.state == DEAD:
                guard.cancel()  # nobody listens any more
                continue
            jobs.append(CallJob(context, _call_if_wanted, (self._node_callbacks, guard, callback, args)))
        return jobs + self._events(event)

    @staticmethod
    def _events(event: object) -> list[Job]:
        return [CallJob(None, zope.event.notify, (event,))] if zope.event.subscribers else []

    def _tell(self, news: list[Job]) -> None:
        for job in news:
            self._scheduler.enqueue_job(job)

    def _unmonitored_death(self, port: str, reason: Reason) -> Job | None:
        return CallJob(None, zope.event.notify, (PortDied(port, reason),)) if zope.event.subscribers else None

    # --- ports of other nodes ---

    def _peer(self, node: str) -> Peer | None:
        return None if self._network is None else self._network.peer(node)

    def _send_remote(self, node: str, name: str, msg: Message, *, pausing: bool = True) -> None:
        network = self._network
        if network is None:
            super()._send_remote(node, name, msg, pausing=pausing)
        elif self._scheduler.is_foreign:
            network.send_from_afar(node, [name, *msg], pausing=pausing)
        else:
            port = network.peer(node).ports.get(name)
            (port.mailbox.append if pausing else port.append_or_refuse)(msg)

    def _kill_remote(self, node: str, name: str, reason: Reason) -> None:
        packet = ["", KIL1, name, *reason]
        if self._network is None:
            return
        if self._scheduler.is_foreign:
            self._network.handover.send(node, packet)
        else:
            self._network.peer(node).send(packet)

    def _monitor_remote(self, node: str, name: str, call: Handler, context: Port | None) -> Monitor:
        peer = self._peer(node)
        if peer is None:
            return super()._monitor_remote(node, name, call, context)
        remote = peer.ports.get(name)
        monitor = Monitor(remote, call, context, self._scheduler)
        remote.monitor(monitor)
        return monitor

    def _spawn_remote(self, node: str, name: str, function: str, args: Message) -> None:
        peer = self._peer(node)
        if peer is not None:
            peer.send(["", SPAWN, name, function, *args])
            peer.ports.get(name).spawned()

    # --- the node port ---

    def _node_request(self, msg: Message) -> None:
        self._requests.handle(None, msg)

    def _open_ports(self) -> None:
        super()._open_ports()
        if self._watch is None and not self._is_over:
            # From the first port on, not only when there are links: handlers block the loop as well.
            self._watch = watch_loop(self._scheduler.hub)
            self._end_watch = weakref.finalize(self, self._watch.release)
            self._end_watch.atexit = False

    def _close_ports(self) -> None:
        super()._close_ports()
        self._stop_watching()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._end_watch()
            self._watch = None

    def _wants_strict(self) -> bool:
        return super()._wants_strict() if self._network is None else self._network.settings.strict

    @property
    def _limits(self) -> Limits:
        return super()._limits if self._network is None else self._network.settings.limits

    @property
    def settings(self) -> Settings | None:
        """The settings this node was initialised with; None before."""
        return None if self._network is None else self._network.settings

    def find_port(self, name: str) -> Port | None:
        """Return the living local port of this name, registered or not."""
        found = self._ports.get(self._prefix + name)
        return None if found is None or found.state == REMOTE else found

    def registered(self, name: str) -> str | None:
        """Return the ID of the local port registered under a name."""
        return self._registered(name)

    def info(self) -> dict[str, Any]:
        """Return what the ``info`` request answers: who this node is, and how many ports and links it has."""
        import platform  # noqa: PLC0415  # for this alone

        return {
            "node": self._id,
            "provider": PROVIDER,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "ports": sum(port.state != REMOTE for port in self._ports.values()),
            "up_nodes": self.up_nodes(),
            "discarded": self._scheduler.discarded,
            "refusals": self.refusals,
            "directory": self.directory_role,
        }

    @property
    def directory_role(self) -> str:
        """What this node is for the directory: ``"global"``, ``"client of …"``, ``"alone"``, ``"etcd"``, ``"none"``."""
        return "etcd" if self._etcd else "none" if self._embedded is None else self._embedded.role

    @property
    def own_families(self) -> dict[str, int]:
        """How many entries this node, and clients that cannot be asked, have in each family. Not for users."""
        found = Counter() if self._embedded is None else self._embedded.families_of_others()
        found.update({family: len(entries) for family, entries in self._directory.own.items()})
        return dict(found)

    @property
    def is_on_sockets(self) -> bool:
        """Whether this node has, or may make, connections over sockets. Not for users."""
        return self._carrier is None and self._network is not None and not self._network.is_closed

    def addresses(self) -> list[str]:
        """Return where this node listens, as endpoints with the ports that the system chose.

        What was bound as ``*:0`` is an address of this host for IPv4, one for IPv6, and the real port of both:
        ``["192.0.2.7:41873", "[2001:db8::7]:41873"]``. Empty for private nodes and slaves, which listen nowhere.
        Behind NAT these are not the addresses at which others reach the node: those its node ID says.
        """
        return [] if self._network is None else self._network.listeners.bound_addresses()

    @property
    def network(self) -> Network | None:
        """The node's links; None while it is private. Not for users."""
        return self._network

    @property
    def refusals(self) -> dict[str, int]:
        """How often peers were refused something, by what it was; what never was is not there.

        Of peers: ``spawn`` (and whatever else runs code), ``kill``, ``directory`` (by rule, about other nodes, or too
        many entries), ``relay``, ``inspect``, ``monitor`` (by number), ``message`` (one that is too large, or none,
        which ends the link). Of strangers, whoever dialled: ``handshake`` (it failed, or took too long), ``tls``
        (the same, while TLS came up or because there is none; the certificate may be ours that the
        other side refuses), ``crowd`` (dropped, because there were too many).
        """
        return dict(self._network.refusals) if self._network is not None else {}

    @property
    def _directory_seconds(self) -> float:
        return super()._directory_seconds if self._network is None else self._network.settings.monitor_timeout

    def directory_request(self, peer: Peer, request: str, args: list[Any]) -> None:
        """Do what a peer asks of the directory, or take what it tells."""
        if self._embedded is not None:
            self._embedded.handle(peer, request, args)
        elif self._etcd is not None and request == G_SLAVE:
            text = "node %s wants to have its directory here, but this node's is in etcd: give all the same 'directory'"
            peer.complaints.warn(text, peer.node)
        else:
            peer.complaints.log(logging.DEBUG, "ignored %s of %s: the directory is elsewhere", request, peer.node)

    def function_for_peers(self, name: object) -> Handler:
        """Return the function of this name if peers may have it run here.

        Raises:
            SpawnRefusedError: They may not, or there is none.
        """
        settings = self.settings
        if settings is None or settings.secure:
            raise SpawnRefusedError("this node is secure, and runs nothing for others")
        return spawning.find_for_peer(name, settings.allow_spawn)

    def function_for(self, caller: str | None, name: object) -> Handler:
        """Return the function of this name if the node whose call is served may have it run here.

        Args:
            caller: That node's ID; None: it is not known, and may run nothing.
            name: As it came.

        Raises:
            SpawnRefusedError: It may not, or there is none.
        """
        if caller == self._id:  # and no former one, which a peer might take
            return self._requests.find_function(None, name)
        peer = self._network.known_peer(caller) if self._network is not None and caller is not None else None
        if peer is None:
            raise SpawnRefusedError("functions are run only for calls, which say whose they are: use call()")
        return self._requests.find_function(peer, name)

    def take_call(self, peer: Peer | None, header: Any, name: str, message: Message) -> None:
        """Give a call to the port of this name; whoever monitors one that is not there hears of that."""
        port = self.find_port(name)
        if port is not None:
            caller = None if peer is None else peer.node
            serving.take(self, port, message, serving.read_header(header, caller, self.max_name_bytes))

    def is_node_port(self, port: object) -> bool:
        """Return whether this is the ID of this node's own node port."""
        return isinstance(port, str) and self._is_here(port.removesuffix("#"))

    def reply(self, peer: Peer | None, port: Any, message: Message) -> None:
        """Send on somebody's behalf: to ports here, and to nodes whose link is up; dials nobody unless allowed."""
        node, name = self.split_port(port)
        if not name and self._is_here(node):
            # It could have an answer that is a request, and so on. Also of this node's own: a handler that answers to
            # whatever port a message named may be given this node's ID.
            self.count_refusal("relay")
            raise RefusedError("an answer cannot be a request to the node that gives it")
        if peer is not None and not self._is_here(node) and node != peer.node:
            self._check_relay(peer, name, message)
        relay = peer is None or (self.settings is not None and self.settings.allow_relay)
        if self._is_here(node) or relay:
            self.snd(port, *message)
            return
        other = self._network.peers.get(node) if self._network is not None else None
        if other is not None and not other.ports.is_closed(name):
            other.send_if_connected([name, *message])

    def _check_relay(self, peer: Peer, name: str, message: Message) -> None:
        """Refuse to pass on what a peer may not send to a third node this way."""
        if not peer.rights.relay:
            self.count_refusal("relay")
            raise RefusedError(f"the rules let {peer.node} relay nothing")
        # By whoever brings it a node port judges what may be done: whether something is about its link, and
        # who may spawn or kill. Nor are questions relayed: their answers could be such requests.
        if not name and message and message[0] not in ("", DEVNULL):
            self.count_refusal("relay")
            text = f"{quoted(message[0])} is not relayed: it would be taken for what this node itself says"
            raise RefusedError(text)

    def count_refusal(self, what: str) -> None:
        """Count that a peer was refused something."""
        if self._network is not None:
            self._network.refusals[what] += 1

    def spawn_for(self, peer: Peer | None, name: str, function: Any, args: Message) -> None:
        """Create a port of this name for a peer, and run a function in it that the peer may call."""
        warn = _log.warning if peer is None else peer.complaints.warn
        self._spawn_here(name, function, args, lambda wanted: self._requests.find_function(peer, wanted), warn)


def shut_down_all() -> None:
    """Shut down all networked nodes of this native thread, at the same time: the program ends. Switches."""
    due = [node for node in forking.nodes() if isinstance(node, Node) and node.is_here and node.is_on_sockets]
    if due:  # else this would make a hub, in a program that may have none
        gevent.joinall([gevent.spawn(node.shutdown) for node in due])


def _call_if_wanted(callbacks: dict[Any, Any], guard: NodeGuard, callback: Handler, args: Message) -> None:
    if guard in callbacks:  # not cancelled since it was queued
        callback(*args)


def _load(settings: Settings) -> list[Service]:
    from aemp_gevent.node.services import load_services  # noqa: PLC0415  # see TYPE_CHECKING

    return load_services(settings.services)


def _resolve(noderef: str, *names: NameService) -> str:
    from aemp_gevent.addresses.resolve import resolve_node  # noqa: PLC0415  # see TYPE_CHECKING

    return resolve_node(noderef, *names)


def _slave_name(noderef: object) -> str | None:
    """Return the name of the slave that a node is to be; None if it is to be another kind of node."""
    if isinstance(noderef, str) and noderef.startswith(ids.SLAVE_PREFIX):
        return ids.slave_name(noderef)
    return None


def _with_real_ports(node_id: str, bound: list[Endpoint]) -> str:
    """Return a noderef in which port 0 is replaced by what the system chose; other IDs unchanged."""
    return ",".join(map(str, bound)) if is_resolved(node_id) else node_id


def _with_real_hosts(node_id: str, network: Network) -> str:
    """Return a noderef with addresses of this host instead of 0.0.0.0 and ::, which are nobody's."""
    from aemp_gevent.peers.listeners import is_any  # noqa: PLC0415  # see TYPE_CHECKING

    endpoints = endpoints_of(node_id)
    if not any(map(is_any, endpoints)):
        return node_id
    found = ",".join(map(str, network.listeners.reachable(endpoints)))
    text = (
        "%s stands for all interfaces, and nobody can dial that: this node is %s (to say so without a warning: '*:%d')"
    )
    _log.warning(text, node_id, found, endpoints[0].port)
    return found
