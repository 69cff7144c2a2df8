# SPDX-License-Identifier: MIT
"""Makes links on connections: with this node's greeting, its secrets and its certificate."""

from __future__ import annotations

import secrets
import weakref
from collections import Counter
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from aemp_gevent._version import PROVIDER
from aemp_gevent.errors import InvalidSettingError
from aemp_gevent.links.link import Link, LinkOwner
from aemp_gevent.links.traffic import Traffic
from aemp_gevent.ports.scheduler import Scheduler
from aemp_gevent.runtime.logs import Log
from aemp_gevent.settings.fields import Settings
from aemp_gevent.transport.transport import Transport
from aemp_gevent.wire import auth
from aemp_gevent.wire.framing import FRAMINGS
from aemp_gevent.wire.greeting import (
    CALLS,
    FRAGMENTS,
    FRAGMENTS_VERSION,
    SECOND_PATH,
    SECOND_PATH_VERSION,
    SHORT_CALLS,
    TRACES,
    TRACES_VERSION,
    Greeting,
)
from aemp_gevent.wire.handshake import Handshake, is_name_of
from aemp_gevent.wire.limits import Announced

if TYPE_CHECKING:
    from aemp_gevent.transport.certificates import Certificate
    from aemp_gevent.wire.credentials import Credentials
    from aemp_gevent.wire.tls import Tls

_NONCE_BYTES = 66
"""As in Perl; 32 would do."""

_log = Log()


class LinkMakerHost(Protocol):
    """The node that greets."""

    @property
    def node_id(self) -> str: ...
    @property
    def incarnation(self) -> str: ...
    @property
    def scheduler(self) -> Scheduler: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def refusals(self) -> Counter[str]: ...


class LinkMaker:
    """Makes all links of one node.

    Args:
        host: The node.

    Raises:
        CertificateError: The certificate of the settings cannot be used.
        InvalidSettingError: Other settings need a certificate, and there is none.
    """

    def __init__(self, host: LinkMakerHost) -> None:
        settings = host.settings
        self._host = host
        self.certificate = _read_certificate(settings)
        self._checked: Credentials | None = None  # those whose names were compared with the node's; None: not yet
        self._auth_methods = (
            *((auth.TLS_METHOD,) if self.certificate is not None else ()),
            *((auth.HMAC_METHOD,) if settings.secrets_bytes else ()),
        )
        self.announced = Announced(clock=monotonic)
        """What all peers together have announced of messages that are not complete."""
        self.links: weakref.WeakSet[Link] = weakref.WeakSet()
        """All open links, no matter who owns them."""
        self.traffic = Traffic(self.links)
        """What all links have carried, including those that ended."""

    def make(self, transport: Transport, owner: LinkOwner, *, dialled: bool) -> Link:
        """Return a link on a connection, whose handshake is not started."""
        host, settings = self._host, self._host.settings
        nonce = secrets.token_urlsafe(_NONCE_BYTES)
        greeting = Greeting(
            node=host.node_id,
            auth_methods=self._auth_methods,
            framings=tuple(FRAMINGS),
            extras=(
                ("provider", PROVIDER),
                ("peeraddr", transport.peer_address),
                ("mproto", "1"),
                ("gproto", "1"),
                ("uniq", host.incarnation),
                (CALLS, SHORT_CALLS),
                (FRAGMENTS, FRAGMENTS_VERSION),
                (TRACES, TRACES_VERSION),
                ("heartbeat", f"{settings.heartbeat_timeout:g}"),
                (SECOND_PATH, SECOND_PATH_VERSION),
                *((("tls", "1.0"),) if self.certificate is not None else ()),
            ),
        )
        shared = settings.secrets_bytes
        link = Link(
            transport,
            Handshake(
                greeting,
                nonce,
                shared[0] if shared else None,
                also_accepted=shared[1:],
                require_tls=settings.require_tls,
            ),
            owner,
            host.scheduler,
            prefix=host.node_id + "#",
            nonce=nonce,
            dialled=dialled,
            limits=settings.limits._replace(announced=self.announced),
            make_tls=self._make_tls,
            refusals=host.refusals,
            traffic=self.traffic,
        )
        self.links.add(link)
        return link

    def check_own_name(self) -> None:
        """Log an error if the certificate, if there is one, is for other nodes than this one."""
        if self.certificate is not None:
            self._check_names(self.certificate.current())

    def _check_names(self, mine: Credentials) -> None:
        self._checked = mine
        node = self._host.node_id
        if not mine.is_shared and not any(is_name_of(name, node) for name in mine.names):
            text = "this node is %s, and its certificate is for %s: peers that have a certificate will refuse it"
            _log.error(text, node, ", ".join(mine.names) or "no node at all")

    def _make_tls(self, is_client: bool) -> Tls:
        assert self.certificate is not None  # or we would not have offered it
        mine = self.certificate.current()
        if self._checked not in (None, mine):
            self._check_names(mine)
        return mine.connect(is_client=is_client)


def _read_certificate(settings: Settings) -> Certificate | None:
    """Return the node's certificate, if it has one.

    Raises:
        CertificateError: It cannot be used.
        InvalidSettingError: There is none, and other settings make sense only with one.
    """
    if not settings.cert:
        for name in ("require_tls", "ca"):
            value = getattr(settings, name)
            if value:
                raise InvalidSettingError(name, value, "it needs a certificate: set 'cert'", "the settings")
        return None
    # Imported only where there is a certificate: OpenSSL takes longer than all the rest.
    from aemp_gevent.transport.certificates import Certificate  # noqa: PLC0415

    return Certificate(settings.cert, settings.ca)
