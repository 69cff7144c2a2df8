# SPDX-License-Identifier: MIT
"""What the name service says, and how long anybody waits for it. With a DNS server in a process of its own."""

from __future__ import annotations

import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import dns.exception
import dns.nameserver
import dns.resolver
import gevent
import pytest

import aemp_gevent.addresses.name_service
from aemp_gevent.addresses.name_service import NameService
from aemp_gevent.addresses.resolve import resolve_node
from aemp_gevent.errors import ResolveError
from aemp_gevent.node.node import Node
from tests.support import native
from tests.support.native import threading
from tests.support.networking import line_of, process

SERVER = Path(__file__).parents[1] / "support" / "dns_server.py"

ZONE = """
$TTL 60
v4.test.                    A    10.0.0.4
v6.test.                    AAAA 2001:db8::6
both.test.                  AAAA 2001:db8::7
both.test.                  A    10.0.0.7
text.test.                  TXT  "nothing else"
plain.test.                 A    10.0.0.8
ranked.test.                A    10.0.0.9
_aemp._tcp.ranked.test.     SRV  20 0 5003 v6.test.
_aemp._tcp.ranked.test.     SRV  10 0 5001 both.test.
_aemp._tcp.ranked.test.     SRV  15 9 5002 v4.test.
_aemp._tcp.equal.test.      SRV  0 1 5001 v4.test.
_aemp._tcp.equal.test.      SRV  0 1 5002 v4.test.
_aemp._tcp.heavy.test.      SRV  0 1 5001 v4.test.
_aemp._tcp.heavy.test.      SRV  0 999 5002 v4.test.
_aemp._tcp.gone.test.       SRV  0 0 0 .
gone.test.                  A    10.0.0.10
_aemp._tcp.dangling.test.   SRV  0 0 5001 nowhere.test.
_aemp._tcp.large.test.      SRV  0 0 5001 v4.test.
_aemp._tcp.empty.test.      TXT  "no SRV"
empty.test.                 A    10.0.0.11
broken.test.                A    10.0.0.12
"""


class Server:
    """The process, and a resolver that asks it."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdin is not None
        self.child = child
        child.stdin.write(ZONE)
        child.stdin.close()
        child.stdin = None  # or communicate() would flush it
        self.port = int(line_of(child))

    @property
    def resolver(self) -> dns.resolver.Resolver:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self.port
        return resolver

    def resolve(self, noderef: str, timeout: float = 10.0) -> str:
        return Node().resolve_node(noderef, timeout=timeout, resolver=self.resolver)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with process(SERVER.read_text()) as child:
        yield Server(child)


@pytest.mark.parametrize(
    ("noderef", "resolved"),
    [
        pytest.param("v4.test:1", "10.0.0.4:1", id="A"),
        pytest.param("v6.test:1", "[2001:db8::6]:1", id="AAAA"),
        pytest.param("both.test:1", "10.0.0.7:1", id="both-v4-first"),
        pytest.param("ranked.test:1", "10.0.0.9:1", id="port-given-no-SRV"),
        pytest.param(
            "ranked.test",
            "10.0.0.7:5001,10.0.0.4:5002,[2001:db8::6]:5003",
            id="by-priority-whatever-weight",
        ),
        pytest.param("plain.test", "10.0.0.8:4040", id="NXDOMAIN-means-4040"),
        pytest.param("empty.test", "10.0.0.11:4040", id="NoAnswer-means-4040"),
        pytest.param("large.test", "10.0.0.4:5001", id="truncated-over-UDP-whole-over-TCP"),
        pytest.param("plain.test.", "10.0.0.8:4040", id="trailing-dot"),
        pytest.param("plain.test,ranked.test", None, id="several"),
    ],
)
def test_dns_server_is_asked(server: Server, noderef: str, resolved: str | None) -> None:
    if resolved is None:
        resolved = "10.0.0.8:4040,10.0.0.7:5001,10.0.0.4:5002,[2001:db8::6]:5003"
    assert server.resolve(noderef) == resolved


@pytest.mark.slow
def test_equal_weights_come_in_either_order(server: Server) -> None:
    """Sixty times the same one first happens by chance once in 10**18."""
    seen = Counter(server.resolve("equal.test") for _ in range(60))
    assert set(seen) == {"10.0.0.4:5001,10.0.0.4:5002", "10.0.0.4:5002,10.0.0.4:5001"}


def test_heavier_one_comes_first_nearly_always(server: Server) -> None:
    """Of 1000 one does not; that 10 of 40 do not happens by chance once in 10**21."""
    seen = Counter(server.resolve("heavy.test").startswith("10.0.0.4:5002") for _ in range(40))
    assert seen[True] > 30


@pytest.mark.parametrize(
    ("noderef", "why"),
    [
        pytest.param("nowhere.test:1", "not exist", id="NXDOMAIN"),
        pytest.param("text.test:1", "no address", id="no-address"),
        pytest.param("gone.test", "no such service", id="SRV-root-means-no-service"),
        pytest.param("dangling.test", "none of the hosts .*nowhere.test", id="SRV-without-address"),
    ],
)
def test_name_that_leads_nowhere_is_named(server: Server, noderef: str, why: str) -> None:
    with pytest.raises(ResolveError, match=why) as caught:
        server.resolve(f"v4.test:1,{noderef}")
    assert caught.value.component == noderef


def test_server_failure_means_port_4040_and_a_log_line(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "aemp_gevent")
    service = NameService(5, server.resolver)
    assert service.services("broken.test") == []
    assert "broken.test" in caplog.text


def test_absence_of_a_record_is_not_worth_a_line(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "aemp_gevent")
    assert server.resolve("plain.test,empty.test") == "10.0.0.8:4040,10.0.0.11:4040"
    assert not [record for record in caplog.records if record.name == "aemp_gevent"]


@pytest.mark.slow
@pytest.mark.parametrize("noderef", ["silent.test", "silent.test:1"])
def test_server_that_does_not_answer_is_not_waited_for_beyond_the_timeout(server: Server, noderef: str) -> None:
    started = monotonic()
    with pytest.raises(ResolveError) as caught:
        server.resolve(f"{noderef},v4.test:1", timeout=0.4)
    assert caught.value.component == noderef
    assert 0.3 < monotonic() - started < 3


@pytest.mark.slow
def test_second_server_is_asked_when_the_first_is_dead(server: Server) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead:
        dead.bind(("127.0.0.1", 0))
        resolver = server.resolver
        resolver.timeout = 0.2
        ports = (dead.getsockname()[1], server.port)
        resolver.nameservers = [dns.nameserver.Do53Nameserver("127.0.0.1", port) for port in ports]
        assert Node().resolve_node("v6.test:1,plain.test", resolver=resolver) == "[2001:db8::6]:1,10.0.0.8:4040"


@pytest.mark.slow
def test_srv_look_up_leaves_time_for_the_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.addresses.name_service, "SRV_SECONDS", 0.3)
    service = NameService(60, server.resolver)
    started = monotonic()
    assert service.services("silent.test") == []
    assert service.addresses("v4.test") == ["10.0.0.4"]
    assert monotonic() - started < 10


@pytest.mark.slow
def test_other_greenlets_run_while_dns_is_waited_for(server: Server) -> None:
    ticks: list[float] = []

    def tick() -> None:
        while True:
            ticks.append(monotonic())
            gevent.sleep(0.01)

    ticker = gevent.spawn(tick)
    try:
        with pytest.raises(ResolveError):
            server.resolve("silent.test:1", timeout=0.5)
    finally:
        ticker.kill()
    assert len(ticks) > 5  # a loop that is blocked makes one


PATCHED = """
import sys
from gevent import monkey
monkey.patch_all()
import threading
import gevent
from time import monotonic
import dns.resolver
from aemp_gevent.errors import ResolveError
from aemp_gevent import resolve_node
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers = ["127.0.0.1"]
resolver.port = int(sys.argv[1])
print(resolve_node("ranked.test,large.test", resolver=resolver))
ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)
gevent.spawn(tick)
try:
    resolve_node("silent.test:1", timeout=0.5, resolver=resolver)
except ResolveError:
    print("timed out;", "cooperative" if len(ticks) > 5 else f"blocking: {len(ticks)}")
print("no thread" if gevent.get_hub().threadpool.size == 0 else "a thread")
"""


@pytest.mark.slow
def test_patched_program_asks_without_threads_and_without_blocking(server: Server) -> None:
    with process(PATCHED, str(server.port)) as child:
        assert line_of(child) == "10.0.0.7:5001,10.0.0.4:5002,[2001:db8::6]:5003,10.0.0.4:5001"
        assert line_of(child) == "timed out; cooperative"
        assert line_of(child) == "no thread"


# --- the system's name service -------------------------------------------------------------


def no_dns(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("DNS was asked")


def test_localhost_is_known_without_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns.resolver, "Resolver", no_dns)
    assert resolve_node("localhost:1") == "127.0.0.1:1"
    assert resolve_node("localhost") == "127.0.0.1:4040"
    assert NameService().services("a.LocalHost.") == []


@pytest.mark.parametrize(
    "failure",
    [
        dns.resolver.NoResolverConfiguration("cannot open /etc/resolv.conf"),
        dns.resolver.NoNameservers("all of them are broken"),
        dns.resolver.LifetimeTimeout(timeout=5, errors=[]),
        dns.exception.FormError(),
        OSError("network is unreachable"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_host_without_dns_means_port_4040(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail() -> Any:
        raise failure

    monkeypatch.setattr(dns.resolver, "Resolver", fail)
    assert NameService().services("somewhere") == []


def test_missing_resolv_conf_is_not_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = dns.resolver.Resolver
    monkeypatch.setattr(dns.resolver, "Resolver", lambda: made(str(tmp_path / "resolv.conf")))
    assert NameService().services("somewhere") == []


def test_system_is_asked_for_addresses_no_longer_than_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's own resolver may take minutes: several servers, several tries, several search domains."""
    monkeypatch.setattr(
        aemp_gevent.addresses.name_service.socket, "getaddrinfo", lambda *args, **kwargs: gevent.sleep(60)
    )
    started = monotonic()
    with pytest.raises(ResolveError, match=r"'somewhere:1': no answer within 0\.2 s"):
        resolve_node("somewhere:1", NameService(0.2))
    assert monotonic() - started < 5


@pytest.mark.slow
def test_busy_thread_pool_is_not_waited_for_beyond_the_timeout(server: Server) -> None:
    pool = gevent.get_hub().threadpool
    done = threading.Event()
    try:
        for _ in range(pool.maxsize):
            pool.spawn(done.wait, 30)
        # A patched program asks dnspython without threads.
        for resolver in (None,) if native.PATCHED else (server.resolver, None):
            started = monotonic()
            with pytest.raises(ResolveError, match=r"no answer within 0\.2 s"):
                Node().resolve_node("v4.test", timeout=0.2, resolver=resolver)
            assert monotonic() - started < 10
    finally:
        done.set()
        pool.join()


def test_timeout_of_the_caller_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        aemp_gevent.addresses.name_service.socket, "getaddrinfo", lambda *args, **kwargs: gevent.sleep(60)
    )
    patience = gevent.Timeout(0.1)
    with pytest.raises(gevent.Timeout) as caught, patience:
        resolve_node("somewhere:1")
    assert caught.value is patience


def test_system_is_asked_cooperatively() -> None:
    assert aemp_gevent.addresses.name_service.socket.getaddrinfo.__module__.startswith("gevent")


@pytest.mark.parametrize("name", ["a" * 70, "a..b", ".a"])
@pytest.mark.parametrize("port", ["", ":1"])
def test_name_that_resolvers_refuse_is_named_in_the_error(name: str, port: str) -> None:
    """Python's own encoder of host names raises a UnicodeError, before any resolver is asked."""
    with pytest.raises(ResolveError) as caught:
        resolve_node(f"{name}{port}")
    assert caught.value.component == f"{name}{port}"


def test_failures_in_the_pool_are_not_printed(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ResolveError):
        server.resolve("nowhere.test:1")
    assert capfd.readouterr().err == ""
