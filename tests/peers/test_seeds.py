# SPDX-License-Identifier: MIT
"""Seeds: nodes that always have a link, also where names stand for nodes that come and go."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import dns.resolver
import pytest

import aemp_gevent.addresses.resolve
import aemp_gevent.peers.redialling
import aemp_gevent.peers.seed
from aemp_gevent.addresses.endpoints import Endpoint, endpoints_of
from aemp_gevent.addresses.name_service import NameService
from aemp_gevent.addresses.resolve import resolve_all
from aemp_gevent.errors import ResolveError
from aemp_gevent.node.access import seeds_down
from aemp_gevent.node.node import Node
from aemp_gevent.peers.network import Network
from aemp_gevent.peers.seed import LINKS_A_NAME, Seed
from aemp_gevent.settings.fields import Settings
from aemp_gevent.testing.memory_network import MemoryNetwork
from tests.support.helpers import turns, wait_until
from tests.support.networking import SECRET, MakeNode, line_of, process
from tests.support.seams import network_of

SERVER = Path(__file__).parents[1] / "support" / "dns_server.py"
NAME = "seeds.test:4040"
QUICK = {"seed_poll_interval": 0.05}


class Names:
    """What stands behind the name, until a test says otherwise."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0

    def set(self, *nodes: Node | str) -> None:
        self.addresses = [node.NODE() if isinstance(node, Node) else node for node in nodes]

    def resolve_all(self, name: str) -> list[Endpoint]:
        assert name == NAME
        self.asked += 1
        if not self.addresses:
            raise ResolveError(name, "nobody knows it")
        return [endpoint for address in self.addresses for endpoint in endpoints_of(address)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.peers.seed, "_FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(aemp_gevent.peers.seed, "_LAST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(aemp_gevent.peers.seed, "_HEDGE_SECONDS", 20)  # longer than a busy machine takes


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(aemp_gevent.peers.seed, "resolve_all", names.resolve_all)
    return names


@pytest.fixture
def network() -> Iterator[MemoryNetwork]:
    with MemoryNetwork(seed=4) as network:
        yield network


def links(node: Node) -> Network:
    return network_of(node)


def up(node: Node) -> list[str]:
    return sorted(node.up_nodes())


def up_seeds(node: Node) -> list[str]:
    return [peer.node for peer in links(node).up_seeds()]


def ids_of(*nodes: Node) -> list[str]:
    return [node.NODE() for node in nodes]


# --- names -------------------------------------------------------------------------------


def test_of_the_nodes_behind_a_name_the_first_two_are_linked_to(network: MemoryNetwork, names: Names) -> None:
    seeds = [network.node(f"10.0.0.{number}:4040") for number in (9, 10, 100, 101)]
    names.set(*reversed(seeds))
    nodes = [network.node(None, NAME, **QUICK) for _ in range(5)]
    for node in nodes:
        wait_until(lambda: up_seeds(node) == sorted(ids_of(*seeds[:2])))  # noqa: B023
    asked = names.asked
    wait_until(lambda: names.asked > asked + 10)
    for node in nodes:
        assert up(node) == sorted(ids_of(*seeds[:2]))


@pytest.mark.no_cover
@pytest.mark.slow
def test_links_grow_with_what_a_node_needs_and_not_with_the_network(network: MemoryNetwork, names: Names) -> None:
    addresses = [f"10.0.1.{number}:4040" for number in range(1, 61)]
    names.set(*addresses)
    nodes = [network.node(address, NAME, seed_poll_interval=1) for address in network.dice.sample(addresses, 60)]
    nodes.sort(key=lambda node: endpoints_of(node.NODE())[0].host.rpartition(".")[2].zfill(3))

    def counts() -> list[int]:
        return [len(links(node).up_seeds()) for node in nodes]

    wait_until(lambda: set(counts()) == {LINKS_A_NAME}, within=20, show=counts)
    # All dial while all come up, so early ones have links to the nodes that were there; but never many.
    dialled = [sum(peer.link is not None and peer.link.dialled for peer in links(n).peers.values()) for n in nodes]
    assert max(dialled) <= 2 * LINKS_A_NAME, dialled


@pytest.mark.slow
def test_address_that_is_gone_costs_no_link_and_a_new_one_is_taken_when_one_is_needed(
    network: MemoryNetwork, names: Names
) -> None:
    old = [network.node(f"10.0.0.{number}:4040") for number in (5, 6)]
    names.set(*old)
    node = network.node(None, NAME, **QUICK)
    wait_until(lambda: up(node) == ids_of(*old))
    new = [network.node(f"10.0.0.{number}:4040") for number in (3, 4)]
    names.set(*new)
    asked = names.asked
    wait_until(lambda: names.asked > asked + 5)
    assert up(node) == ids_of(*old)
    network.crash(old[0])
    wait_until(lambda: up(node) == ids_of(new[0], old[1]))
    network.crash(old[1])
    wait_until(lambda: up(node) == ids_of(*new))


def test_node_that_is_back_takes_nobodys_place(network: MemoryNetwork, names: Names) -> None:
    seeds = [network.node(f"10.0.0.{number}:4040") for number in (5, 6, 7)]
    names.set(*seeds)
    node = network.node(None, NAME, **QUICK)
    wait_until(lambda: up_seeds(node) == ids_of(*seeds[:2]))
    network.crash(seeds[0])
    wait_until(lambda: up_seeds(node) == ids_of(*seeds[1:]))
    network.node(seeds[0].NODE()).snd(node.NODE(), "devnull")
    wait_until(lambda: up(node) == sorted(ids_of(*seeds)))
    asked = names.asked
    wait_until(lambda: names.asked > asked + 2)
    assert up_seeds(node) == ids_of(*seeds[1:])


@pytest.mark.parametrize("by_name", [False, True])
def test_seed_that_was_lost_is_not_dialled_by_all_at_once(
    network: MemoryNetwork, names: Names, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.seed, "_FIRST_PAUSE_SECONDS", 1000)
    monkeypatch.setattr(aemp_gevent.peers.seed, "_LAST_PAUSE_SECONDS", 1000)
    seed = network.node()
    names.set(seed)
    nodes = [network.node(None, NAME if by_name else seed.NODE()) for _ in range(2)]
    candidates: list[Any] = []
    tried: list[float] = []
    for node in nodes:
        wait_until(lambda: up_seeds(node) == ids_of(seed))  # noqa: B023
        candidates += links(node).seeds._seeds[0].candidates.values()
        candidates[-1].due = 0.0
        tried.append(candidates[-1].tried)
        network.cut(node, seed)
    wait_until(lambda: all(candidate.due > monotonic() + 900 for candidate in candidates))
    assert candidates[0].due != candidates[1].due
    assert [candidate.tried for candidate in candidates] == tried


def test_address_that_comes_later_is_taken_in_its_order(network: MemoryNetwork, names: Names) -> None:
    seeds = {number: network.node(f"10.0.0.{number}:4040") for number in (9, 30, 20, 10)}
    names.set(seeds[9], seeds[30])
    node = network.node(None, NAME, **QUICK)
    for number, count in ((20, 3), (10, 4)):
        wait_until(lambda: len(up(node)) == 2)
        names.set(*names.addresses, seeds[number])
        wait_until(lambda: len(links(node).seeds._seeds[0].candidates) == count)  # noqa: B023
    network.crash(seeds[9])
    wait_until(lambda: up(node) == sorted(ids_of(seeds[10], seeds[30])))


def test_node_finds_itself_behind_the_name(network: MemoryNetwork, names: Names) -> None:
    addresses = [f"10.0.0.{number}:4040" for number in (1, 2, 3)]
    names.set(*addresses)
    nodes = [network.node(address, NAME, **QUICK) for address in addresses]
    for node in nodes:
        wait_until(lambda: len(up(node)) == 2)  # noqa: B023
        (own,) = [c for (e,), c in links(node).seeds._seeds[0].candidates.items() if str(e) == node.NODE()]
        assert own.is_own
        assert not own.tried


@pytest.mark.slow
def test_dead_addresses_delay_nobody_for_long_and_are_forgotten(
    network: MemoryNetwork, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.seed, "_HEDGE_SECONDS", 0.02)
    monkeypatch.setattr(aemp_gevent.peers.seed, "_FORGET_SECONDS", 0.2)
    lost = [network.node(f"10.0.0.{number}:4040") for number in range(1, 8)]
    living = [network.node(f"10.0.0.{number}:4040") for number in (10, 11)]
    for node in lost:
        network.crash(node, silent=True)  # dials are not even refused
    names.set(*[f"10.0.0.{number}:4040" for number in range(1, 8)], *living)
    node = network.node(None, NAME, handshake_timeout=0.4, **QUICK)
    wait_until(lambda: up(node) == ids_of(*living))
    seed = links(node).seeds._seeds[0]
    assert len(seed.candidates) == 9
    names.set(*living)
    wait_until(lambda: len(seed.candidates) == 2)
    names.set("10.0.0.1:4040")  # and those that work are not
    asked = names.asked
    wait_until(lambda: names.asked > asked + 10)
    assert set(ids_of(*living)) < {str(endpoint) for (endpoint,) in seed.candidates}


@pytest.mark.slow
def test_name_that_nobody_knows_yet_is_asked_for_again(network: MemoryNetwork, names: Names) -> None:
    node, seed = network.node(None, NAME, seed_poll_interval=1000), network.node()
    wait_until(lambda: names.asked > 3)
    names.set(seed)
    wait_until(lambda: up(node) == ids_of(seed))


@pytest.mark.slow
def test_name_that_nobody_knows_any_more_costs_nothing(network: MemoryNetwork, names: Names) -> None:
    seed = network.node()
    names.set(seed)
    node = network.node(None, NAME, **QUICK)
    wait_until(lambda: up(node) == ids_of(seed))
    names.set()
    asked = names.asked
    wait_until(lambda: names.asked > asked + 5)
    network.cut(node, seed)
    wait_until(lambda: up(node) == [])
    wait_until(lambda: up(node) == ids_of(seed))


def test_only_so_many_addresses_are_looked_at(network: MemoryNetwork, names: Names) -> None:
    names.set(*[f"10.{number // 200}.{number % 200}.1:4040" for number in range(3000)])
    node = network.node(None, NAME, **QUICK)
    wait_until(lambda: names.asked > 2)
    assert len(links(node).seeds._seeds[0].candidates) == aemp_gevent.peers.seed.MAX_CANDIDATES


class Counts:
    """How often candidates were parsed and compared, and how often it was asked whether a node is up."""

    def __init__(self) -> None:
        self.parsed = self.compared = self.looked_up = 0


class CrowdedHost:
    """A :class:`~aemp_gevent.peers.seed.SeedsHost` in which the first so many nodes behind the name are up."""

    def __init__(self, counts: Counts) -> None:
        self.node_id, self.incarnation, self.settings = "10.9.9.9:4040", "i", Settings(secret="s")
        self.up: set[str] = set()
        self.peers = self
        self._counts = counts

    def get(self, node: str) -> Any:
        self._counts.looked_up += 1
        return SimpleNamespace(is_up=node in self.up, redialling=SimpleNamespace(refused_until=0.0))

    def addresses(self) -> list[str]:
        return [self.node_id]


@pytest.mark.parametrize("count", [30, 900])
def test_look_at_the_seeds_costs_the_same_however_many_there_are(
    names: Names, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    counts, order = Counts(), aemp_gevent.peers.seed._order

    class Compared(tuple[Any, ...]):
        __slots__ = ()

        def __lt__(self, other: Any) -> bool:
            counts.compared += 1
            return super().__lt__(other)

    def counted(endpoints: tuple[Endpoint, ...]) -> tuple[Any, ...]:
        counts.parsed += 1
        return Compared(order(endpoints))

    monkeypatch.setattr(aemp_gevent.peers.seed, "_order", counted)
    host: Any = CrowdedHost(counts)
    seed = Seed(NAME, host, lambda: None, is_name=True)
    addresses = [f"10.0.{number // 200}.{number % 200}:4040" for number in range(count)]
    names.set(*random.Random(1).sample(addresses, count))
    seed._ask()
    assert [str(endpoint) for (endpoint,) in seed.candidates] == addresses
    assert counts.parsed == count
    for address, candidate in zip(addresses, seed.candidates.values(), strict=True):
        candidate.node = address
    host.up = set(addresses)
    counts.__init__()  # type: ignore[misc]
    looks = 100
    for number in range(looks):  # one node goes, and another one comes
        host.up.discard(addresses[number % 5])
        host.up.add(addresses[(number + 3) % 5])
        seed._choose()
        seed._try_more()
        assert len(seed.chosen) == LINKS_A_NAME
        assert seed.is_settled
        assert not seed.is_own
    assert (counts.parsed, counts.compared) == (0, 0)
    assert counts.looked_up < 20 * looks
    seed._ask()  # nothing new
    names.set(*names.addresses, "10.0.0.100:4041")
    seed._ask()
    assert counts.parsed == 1
    assert len(seed.candidates) == count + 1


# --- all seeds -----------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
def test_loss_of_all_seeds_is_survived_and_healed(network: MemoryNetwork, names: Names, by_name: bool) -> None:
    addresses = ["10.0.0.1:4040", "10.0.0.2:4040"]
    names.set(*addresses)
    seeds = [network.node(address) for address in addresses]
    nodes = [network.node(None, *([NAME] if by_name else addresses), **QUICK) for _ in range(3)]
    changes: list[list[str]] = []
    links(nodes[0]).listener.seeds_changed = lambda: changes.append(up_seeds(nodes[0]))
    for _ in range(2):
        for node in nodes:
            wait_until(lambda: up_seeds(node) == addresses)  # noqa: B023
        changes.clear()
        for seed in seeds:
            network.crash(seed)
        for node in nodes:
            wait_until(lambda: up(node) == [])  # noqa: B023
        wait_until(lambda: changes and changes[-1] == [])
        changes.clear()
        seeds = [network.node(address) for address in addresses]
    for node in nodes:
        wait_until(lambda: up_seeds(node) == addresses)  # noqa: B023
    wait_until(lambda: changes and changes[-1] == addresses)


def test_order_of_the_seeds_that_are_up_is_the_same_on_all_nodes(network: MemoryNetwork) -> None:
    seeds = ids_of(*[network.node() for _ in range(4)])
    nodes = [network.node(None, *network.dice.sample(seeds, 4)) for _ in range(4)]
    for node in nodes:
        wait_until(lambda: up_seeds(node) == sorted(seeds))  # noqa: B023


@pytest.mark.slow
def test_links_to_seeds_are_never_idle(network: MemoryNetwork) -> None:
    seed = network.node(idle_timeout=0.1)
    node = network.node(None, seed.NODE(), idle_timeout=0.1)
    wait_until(lambda: up_seeds(node) == [seed.NODE()])
    changes: list[Any] = []
    node.mon_nodes(lambda *change: changes.append(change))
    link = links(node).peer(seed.NODE()).link
    assert link is not None
    pulse = links(node).pulse
    wait_until(lambda: pulse.idle_seconds(link) > 0.5)
    assert changes == []


@pytest.mark.slow
def test_seed_that_refuses_this_node_is_dialled_less_and_less_often_and_that_is_reported_once(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(aemp_gevent.peers.redialling, "_FIRST_REFUSED_RETRY_SECONDS", 1000)
    monkeypatch.setattr(aemp_gevent.peers.redialling, "_LAST_REFUSED_RETRY_SECONDS", 3000)
    seed, first, second = make_node(), make_node(None), make_node(None)
    settings = {"nodeid": "twin", "seeds": [seed.NODE()], "secret": SECRET}
    first.configure(**settings)
    wait_until(lambda: up(first) == ids_of(seed))
    second.configure(**settings)
    wait_until(lambda: links(second).seeds._seeds[0].candidates)
    (candidate,) = links(second).seeds._seeds[0].candidates.values()
    for pause in (1000, 2000, 3000, 3000):
        wait_until(lambda: pause <= candidate.due - monotonic() + 100 < 1.6 * pause)  # noqa: B023
        assert up(second) == []
        assert links(second).seeds.are_settled
        assert "refuses this node: another node twin is connected" in seeds_down(second)[seed.NODE()]
        candidate.due = 0.0
        links(second).changed()
    (line,) = [line for line in errors(caplog) if "refuses this node" in line]
    assert "give one of the two another nodeid" in line
    wait_until(lambda: candidate.due > monotonic())
    first.shutdown(0.5)
    candidate.due = 0.0
    links(second).changed()
    wait_until(lambda: up(second) == ids_of(seed))
    wait_until(lambda: links(second).peer(seed.NODE()).redialling.refused_until == 0.0)
    assert seeds_down(second) == {}


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


# --- other nodes ------------------------------------------------------------------------------


def test_link_that_is_to_be_kept_is_made_and_made_again(network: MemoryNetwork) -> None:
    address = "10.0.0.9:4040"
    node = network.node(idle_timeout=0.1)
    links(node).keep(address)
    links(node).keep(address)
    links(node).keep(node.NODE())
    for _ in range(2):
        turns(10)
        other = network.node(address, idle_timeout=0.1)
        wait_until(lambda: up(node) == [address])
        network.crash(other)
        wait_until(lambda: up(node) == [])
    network.node(address, idle_timeout=0.1)
    wait_until(lambda: up(node) == [address])
    links(node).unkeep(address)
    links(node).unkeep(address)
    wait_until(lambda: up(node) == [])


# --- with a name service, and sockets ----------------------------------------------------------


@contextlib.contextmanager
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a function that sets the zone in which all names are looked up."""
    with process(SERVER.read_text()) as child:
        assert child.stdin is not None

        def set_zone(zone: str) -> None:
            assert child.stdin is not None
            child.stdin.write(zone + "%%\n")
            child.stdin.flush()

        set_zone("empty.test. 0 A 127.0.0.1\n")
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = int(line_of(child))
        monkeypatch.setattr(aemp_gevent.addresses.resolve, "NameService", lambda: NameService(resolver=resolver))
        yield set_zone


def is_known(name: str) -> bool:
    try:
        return bool(resolve_all(name))
    except ResolveError:
        return False


def test_all_that_a_name_stands_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with name_server(monkeypatch) as set_zone:
        set_zone(
            """$TTL 0
            both.test. A 10.0.0.2
            both.test. A 10.0.0.1
            six.test. AAAA 2001:db8::1
            six.test. AAAA 2001:db8::2
            _aemp._tcp.service.test. SRV 0 0 5001 both.test.
            _aemp._tcp.service.test. SRV 1 0 5002 six.test.
            _aemp._tcp.service.test. SRV 1 0 5003 nowhere.test.
            _aemp._tcp.none.test. SRV 0 0 0 .
            _aemp._tcp.lost.test. SRV 0 0 5001 nowhere.test.
            """.replace("            ", "")
        )

        def found(name: str) -> set[str]:
            return set(map(str, resolve_all(name)))

        wait_until(lambda: is_known("both.test:1"))
        assert found("both.test:1") == {"10.0.0.1:1", "10.0.0.2:1"}
        assert found("both.test") == {"10.0.0.1:4040", "10.0.0.2:4040"}
        assert found("six.test") == {"[2001:db8::1]:4040", "[2001:db8::2]:4040"}
        assert found("service.test") == {
            "10.0.0.1:5001",
            "10.0.0.2:5001",
            "[2001:db8::1]:5002",
            "[2001:db8::2]:5002",
        }
        for name in ("nowhere.test", "nowhere.test:1", "none.test", "lost.test"):
            with pytest.raises(ResolveError, match=name):
                resolve_all(name)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs all of 127.0.0.0/8, as on Linux")
@pytest.mark.parametrize("with_srv", [False, True])
def test_headless_service_whose_pods_come_and_go(
    make_node: MakeNode, monkeypatch: pytest.MonkeyPatch, with_srv: bool
) -> None:
    pods = [make_node("127.0.0.2:0")]
    port = int(pods[0].NODE().rpartition(":")[2])
    pods += [make_node(f"127.0.0.{number}:{port}") for number in (3, 4)]
    with name_server(monkeypatch) as set_zone:

        def announce(*nodes: Node) -> None:
            records = "$TTL 0\n"
            for number, node in enumerate(nodes):
                host = node.NODE().partition(":")[0]
                if with_srv:
                    records += (
                        f"_aemp._tcp.service.test. SRV 0 0 {port} pod{number}.test.\npod{number}.test. A {host}\n"
                    )
                else:
                    records += f"service.test. A {host}\n"
            set_zone(records)

        announce(pods[1])
        node = make_node("127.0.0.1:0", "service.test" if with_srv else f"service.test:{port}", **QUICK)
        wait_until(lambda: up(node) == ids_of(pods[1]), within=10)
        announce(*pods)
        wait_until(lambda: up(node) == ids_of(*pods[:2]), within=10)
        announce(pods[2])
        seed = links(node).seeds._seeds[0]
        wait_until(lambda: len(seed.candidates) == 3, within=10)
        assert up(node) == ids_of(*pods[:2])
        pods[1].shutdown(0.5)
        wait_until(lambda: up(node) == ids_of(pods[0], pods[2]), within=10)
        node.shutdown(0.5)
