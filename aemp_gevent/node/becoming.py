# SPDX-License-Identifier: MIT
"""How a private node becomes a public node or a slave: ``initialise_node`` and ``configure``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import NoneType
from typing import TYPE_CHECKING

from gevent.hub import Hub
from greenlet import getcurrent

from aemp_gevent.addresses import ids
from aemp_gevent.addresses.endpoints import (
    ANY_HOST,
    DEFAULT_PORT,
    RESOLVE_SECONDS,
    Endpoint,
    endpoints_of,
    is_resolved,
    parse_bind,
)
from aemp_gevent.errors import (
    AlreadyInitialisedError,
    InvalidNoderefError,
    InvalidSettingError,
    NodeShutDownError,
    NoPortContextError,
    UsageError,
)
from aemp_gevent.node.linked_node import LinkedNode
from aemp_gevent.ports.context import ON_THE_HUB
from aemp_gevent.runtime.logs import Log
from aemp_gevent.runtime.quantities import Seconds, to_limited_seconds

if TYPE_CHECKING:
    import dns.resolver
    from typing_extensions import Unpack

    from aemp_gevent.addresses.name_service import NameService
    from aemp_gevent.directory.engine import Engine
    from aemp_gevent.node.services import Service
    from aemp_gevent.peers.network import Network
    from aemp_gevent.settings.fields import Settings
    from aemp_gevent.settings.given import ConfigureSettings, InitialiseSettings


_log = Log()


class Becoming(LinkedNode):
    """A node that can be initialised, once."""

    def initialise_node(self, noderef: str | None = None, *seeds: str, **settings: Unpack[InitialiseSettings]) -> None:
        """Become a public node, which listens and dials its seeds, or a slave, which attaches to a master.

        The call blocks until a public node is bound, or until a master has accepted a slave. A slave
        does not listen; it has one link, to its master, through which others reach it.
        Its ID is ``slave/name@`` and the master's ID. When it loses the link, it connects again to the
        same master and keeps its ID.

        Settings that are not given here come from the environment and the profile file,
        as with :meth:`configure`. ``nodeid``, ``seeds`` and ``binds`` do not: only this
        call determines where the node listens and which seeds it dials.

        Args:
            noderef: Where this node listens, and so its ID: ``"host:4040"``,
                ``"127.0.0.1:0"`` (any free port), ``"4041"``, several separated by commas;
                None or ``""`` guesses from the host's name, with port 4040. ``"*:4041"`` listens on
                that port of all interfaces, ``"*"`` on port 4040; the ID is as for ``"4041"`` and
                ``""``. ``"0.0.0.0:4041"`` and ``"[::]:4041"`` do the same with a warning; an address of this host
                becomes the ID. ``"slave/name"``
                makes a slave, ``"slave/"`` a slave with a unique name.
            seeds: Noderefs of nodes to link to from the start. They may be unresolved,
                and down: they are dialled in the background until they answer. For a slave: its possible
                masters; the first that answers becomes its master.
            settings: See :class:`~aemp_gevent.Settings`; above all ``secret``.

        Raises:
            NoSecretError: There is no ``secret`` anywhere, and no ``cert``.
            CertificateError: The certificate cannot be used.
            InvalidNoderefError: A component is malformed, or the name is reserved.
            ResolveError: A host name has no address.
            ListenError: An endpoint cannot be bound, for instance because it is in use.
            NoMasterError: No master accepted the slave within ``monitor_timeout``.
            AlreadyInitialisedError: The node was initialised before.
            NodeShutDownError: It was shut down.
            UnknownSettingError, InvalidSettingError: A setting is wrong; the text says where it was set.
            ProfileError: The profile file cannot be used.

        After an error the node is unchanged, and the call may be repeated. If a ``gevent.Timeout`` or a kill
        strikes just after a master accepted the node, it is a slave: check ``NODE()``.
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
        """Become a networked node according to the settings. Blocks until it is bound, or accepted by a master.

        The same as :meth:`initialise_node`, for nodes that an operator sets up,
        that have a name instead of a noderef, or that listen at other addresses than their noderef says
        (NAT, proxies): ``configure(nodeid="backend", binds=["*:4040"], seeds=["10.0.0.1:4040"])``.

        Each setting comes from the first of these places that has it: this call, the environment
        variable (``AEMP_NODEID`` for ``nodeid``), the profile file, the default.

        Args:
            profile: The name of a profile in the profile file. None: the one in the environment variable
                ``AEMP_PROFILE``, or else the one with this host's name, or else ``default``; the last two
                need not exist.
            settings: See :class:`~aemp_gevent.Settings`.

        Raises:
            AempError: The same as :meth:`initialise_node`.
        """
        self._check_uninitialised("configure()")
        if not isinstance(profile, (str, NoneType)):
            # Not shown: it may be settings that include a secret.
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

    def resolve_node(
        self, noderef: str, *, timeout: Seconds | None = RESOLVE_SECONDS, resolver: dns.resolver.Resolver | None = None
    ) -> str:
        """Return a noderef with every endpoint resolved to numbers; order kept, duplicates dropped. May switch.

        ========================================  =================================================
        component                                 endpoints
        ========================================  =================================================
        (empty)                                   port 4040 of this host, at an address others can
                                                  reach, or loopback, with a warning, if it has none
        ``4041``                                  this port of this host
        ``host:4041``                             the host's first address, IPv4 before IPv6
        ``host``                                  the targets of the SRV record ``_aemp._tcp.host``, by
                                                  priority and weight; without one, port 4040
        ``1.2.3.4``, ``[2001:db8::1]``            port 4040
        ``1.2.3.4:5``, ``[::1]:5``, ``unix:/s``   unchanged
        ========================================  =================================================

        Args:
            noderef: Components, separated by commas.
            timeout: Seconds for all look-ups together. The look-up of an SRV record is given up after
                5 seconds; then the host's address is used.
            resolver: A dnspython resolver for all look-ups, for a name service of your
                own; None: the system's.

        Raises:
            InvalidNoderefError: A component is malformed; the text names it.
            ResolveError: A host name has no address; the text names the component.
            NoPortContextError: On the hub, which must never wait.
        """
        if isinstance(getcurrent(), Hub):  # of any thread
            raise NoPortContextError("resolve_node()", ON_THE_HUB)
        from aemp_gevent.addresses.name_service import NameService  # noqa: PLC0415  # see TYPE_CHECKING

        return _resolve(noderef, NameService(to_limited_seconds(timeout, "resolve_node()"), resolver))

    def reload(self, profile: str | None = None, /, **settings: Unpack[ConfigureSettings]) -> list[str]:
        """Read the settings again, as :meth:`configure` did, and apply those that may change while the node is up.

        These are ``secret`` and ``require_tls``, which apply to new connections, and ``allow_spawn``, ``allow_eval``,
        ``allow_relay``, ``secure`` and ``rules``, which apply at once. Services are neither started nor ended.
        (The files of ``cert`` and ``ca`` are read again automatically.)

        Args:
            profile: As for ``configure``.
            settings: As for ``configure``.

        Returns:
            The names of changed settings that need a restart.

        Raises:
            AempError: The same as for ``configure``; the node is unchanged.
        """
        network = self._network
        if network is None:
            raise UsageError("reload() is for a node that is initialised: call configure()")
        from aemp_gevent.settings.sources import make_settings  # noqa: PLC0415  # see TYPE_CHECKING

        return network.reload(make_settings(settings, profile=profile))

    # --- the steps ---

    def _check_uninitialised(self, call: str) -> None:
        self._check_may_wait(call)
        if self._is_over:
            raise NodeShutDownError(call, self._id)
        if self._network is not None or self._initialising:
            raise AlreadyInitialisedError(self._id)

    def _initialise(self, settings: Settings, resolve: Callable[[], str]) -> None:
        self._initialising = True  # resolving may switch, and another greenlet may make the same call
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
            raise InvalidSettingError("binds", settings.binds, "a slave cannot listen", "")
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
            else:  # also if a foreign Timeout strikes now: other nodes know the new ID, which cannot be undone
                self._start(services, former_prefix)

    def _make_network(self, node_id: str, settings: Settings) -> Network:
        from aemp_gevent.node.node_listener import NodeListener  # noqa: PLC0415  # see TYPE_CHECKING
        from aemp_gevent.peers.network import Network  # noqa: PLC0415

        return Network(
            node_id,
            self._scheduler,
            settings,
            NodeListener(self),
            self._carrier,
        )

    def _start(self, services: Iterable[Service], former_prefix: str) -> None:
        network = self._network
        assert network is not None  # it was set before
        self._open_ports()
        self._max_name_bytes = network.settings.max_name_bytes
        self._directory.start(self._make_engine(network), former_prefix, self._prefix)
        network.start()
        _start_services(self, services)

    def _make_engine(self, network: Network) -> Engine:
        """Return the directory's engine, which is not started yet."""
        from aemp_gevent.settings.directory_address import parse_directory  # noqa: PLC0415  # see TYPE_CHECKING

        address = parse_directory(network.settings.directory)
        if address is not None:
            # Imported only if it is used.
            from aemp_gevent.directory.etcd.engine import EtcdEngine  # noqa: PLC0415

            timeout = network.settings.heartbeat_timeout
            self._etcd = EtcdEngine(address, network.node_id, self._scheduler, timeout, network.addresses())
            return self._etcd
        from aemp_gevent.directory.embedded.engine import EmbeddedEngine  # noqa: PLC0415  # see TYPE_CHECKING

        engine = self._embedded = EmbeddedEngine(network)
        return engine

    @staticmethod
    def _binds(node_id: str, settings: Settings) -> list[Endpoint]:
        from aemp_gevent.addresses.resolve import resolve_endpoint  # noqa: PLC0415  # see TYPE_CHECKING

        if settings.binds is not None:
            binds = map(parse_bind, settings.binds)
            return [bind if bind.host == ANY_HOST else resolve_endpoint(bind) for bind in binds]
        return list(endpoints_of(node_id)) or [Endpoint(ANY_HOST, 0)]


def _load(settings: Settings) -> list[Service]:
    from aemp_gevent.node.services import load_services  # noqa: PLC0415  # see TYPE_CHECKING

    return load_services(settings.services)


def _start_services(node: LinkedNode, services: Iterable[Service]) -> None:
    from aemp_gevent.node.services import start_service  # noqa: PLC0415  # see TYPE_CHECKING

    for service in services:
        start_service(node, service)


def _resolve(noderef: str, *names: NameService) -> str:
    from aemp_gevent.addresses.resolve import resolve_node  # noqa: PLC0415  # see TYPE_CHECKING

    return resolve_node(noderef, *names)


def _slave_name(noderef: object) -> str | None:
    """Return the slave's name if a noderef asks for a slave, otherwise None."""
    if isinstance(noderef, str) and noderef.startswith(ids.SLAVE_PREFIX):
        return ids.slave_name(noderef)
    return None


def _with_real_ports(node_id: str, bound: list[Endpoint]) -> str:
    """Return a noderef with the ports that the system chose instead of port 0; other IDs are unchanged."""
    return ",".join(map(str, bound)) if is_resolved(node_id) else node_id


def _with_real_hosts(node_id: str, network: Network) -> str:
    """Return a noderef with addresses of this host instead of 0.0.0.0 and ::, which cannot be dialled."""
    from aemp_gevent.peers.listeners import is_any  # noqa: PLC0415  # see TYPE_CHECKING

    endpoints = endpoints_of(node_id)
    if not any(map(is_any, endpoints)):
        return node_id
    found = ",".join(map(str, network.listeners.reachable(endpoints)))
    text = (
        "%s means all interfaces and cannot be dialled; the node ID is %s (use '*:%d' to get it without this warning)"
    )
    _log.warning(text, node_id, found, endpoints[0].port)
    return found
