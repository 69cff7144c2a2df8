# SPDX-License-Identifier: MIT
"""Asks the name service for addresses of hosts, and for the hosts that serve a name (SRV records).

Waiting for an answer blocks only the calling greenlet. Addresses come
from gevent's resolver, which knows ``/etc/hosts`` and asks a thread. SRV records
come from dnspython. In a monkey-patched program its sockets and selectors are
gevent's, and it runs in the calling greenlet; in an unpatched one it would block
the whole loop, and runs in gevent's thread pool, as gevent's own resolver does.
(Asking from a pool thread in a patched program as well would make a hub in that
thread; replacing dnspython's socket factory would change it for the whole program,
and not help: it waits with ``selectors``.)
"""

from __future__ import annotations

import socket as std_socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import gevent
from gevent import monkey, socket

from aemp_gevent.addresses.endpoints import RESOLVE_SECONDS
from aemp_gevent.runtime.logs import Log

if TYPE_CHECKING:
    import dns.resolver

T = TypeVar("T")

SRV_SECONDS = 5.0
"""Seconds of this for the look-up of one SRV record: without one there is still port 4040."""

_log = Log()


class Names(Protocol):
    """A name service; tests have their own."""

    def addresses(self, host: str) -> list[str]:
        """Return addresses of a host, in any order; all its IPv4 ones, if it has any.

        Raises:
            OSError: It has none, or the name service does not answer.
        """
        ...

    def services(self, host: str) -> list[tuple[str, int]]:
        """Return the hosts and ports that serve a name, best first; ``[]`` when none are known.

        Raises:
            OSError: The name service says that there is no such service.
        """
        ...


class NameService:
    """The system's name service, or a resolver of the caller's.

    Args:
        timeout: Seconds from now in which all answers must come.
        resolver: A resolver for addresses as well as SRV records, which does not know
            ``/etc/hosts``. None: the system's.
    """

    def __init__(self, timeout: float = RESOLVE_SECONDS, resolver: dns.resolver.Resolver | None = None) -> None:
        self._timeout = timeout
        self._deadline = monotonic() + timeout
        self._resolver = resolver

    def _left(self) -> float:
        return max(self._deadline - monotonic(), 0.0)

    def _wait(self, wait: Callable[[], T]) -> T:
        # dnspython observes its lifetime by itself, but the thread pool may have no free thread to run it.
        with gevent.Timeout(self._left(), TimeoutError(f"no answer within {self._timeout:g} s")):
            return wait()

    def addresses(self, host: str) -> list[str]:
        if self._resolver is not None:
            return self._ask_addresses(self._resolver, host)
        host.encode("idna")  # Python's getaddrinfo does this first, in a thread that prints the exception
        infos = self._wait(lambda: socket.getaddrinfo(host, None, type=std_socket.SOCK_STREAM))
        return [str(info[4][0]) for info in infos]

    def _ask_addresses(self, resolver: dns.resolver.Resolver, host: str) -> list[str]:
        # Not resolve_name(), which leaves no time to try a second server.
        for kind in ("A", "AAAA"):

            def ask(kind: str = kind) -> dns.resolver.Answer:
                return resolver.resolve(host, kind, raise_on_no_answer=False, search=True, lifetime=self._left())

            from dns.exception import DNSException  # noqa: PLC0415

            try:
                records: Any = (
                    self._wait(lambda: _ask(ask)).rrset or ()
                )  # Any: the base class of records has no address
            except DNSException as error:
                raise OSError(str(error)) from error
            if records:
                return [record.address for record in records]
        return []

    def services(self, host: str) -> list[tuple[str, int]]:
        if host.rstrip(".").lower().rpartition(".")[2] == "localhost":
            return []  # RFC 6761, section 6.3: never ask others about it
        # Imported only where it asks: dnspython takes longer than the rest of this package.
        from dns.exception import DNSException  # noqa: PLC0415
        from dns.resolver import NXDOMAIN, NoAnswer, NoResolverConfiguration  # noqa: PLC0415

        try:
            answer = self._wait(lambda: _ask(lambda: self._srv(host)))
        except (NXDOMAIN, NoAnswer, NoResolverConfiguration):
            return []
        except (DNSException, OSError) as error:
            _log.info("cannot look up an SRV record of %s, using its port 4040: %s", host, error)
            return []
        assert answer.rrset is not None  # or it would have been NoAnswer
        # By priority, and by chance according to weight, as RFC 2782 says.
        records: list[Any] = answer.rrset.processing_order()  # Any: what an SRV record has, the base class has not
        found = [(record.target.to_text(omit_final_dot=True), record.port) for record in records]
        found = [(target, port) for target, port in found if target != "." and port]
        if not found:
            raise OSError("its SRV record says that it has no such service")
        return found

    def _srv(self, host: str) -> dns.resolver.Answer:
        from dns.resolver import Resolver  # noqa: PLC0415

        # A new one each time: resolv.conf may change while a program runs.
        resolver = self._resolver or Resolver()
        return resolver.resolve(f"_aemp._tcp.{host}", "SRV", search=True, lifetime=min(SRV_SECONDS, self._left()))


def _ask(ask: Callable[[], T]) -> T:
    """Return what dnspython answers, without blocking the loop."""
    if monkey.is_module_patched("socket") and monkey.is_module_patched("selectors"):
        return ask()

    from dns.exception import DNSException  # noqa: PLC0415

    def outcome() -> T | Exception:
        try:
            return ask()
        except (DNSException, OSError) as error:  # the pool would print it
            return error

    answer: T | Exception = gevent.get_hub().threadpool.apply(outcome)
    if isinstance(answer, Exception):
        raise answer
    return answer
