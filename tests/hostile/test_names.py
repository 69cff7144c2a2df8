# SPDX-License-Identifier: MIT
"""Names that peers choose: none is kept that is longer than the setting says, whatever it names."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from time import thread_time
from typing import Any

import pytest

from aemp_gevent.addresses import ids
from aemp_gevent.calls import header
from aemp_gevent.errors import InvalidEntryError, InvalidPortError
from aemp_gevent.node.node import Node
from aemp_gevent.node.requests import MAX_REPLY_BYTES
from aemp_gevent.wire.limits import MAX_NAME_BYTES, is_long
from tests.support.helpers import wait_until
from tests.support.networking import OUR_PROVIDER, ROOT, Inbox, MakeNode, RawPeer
from tests.support.seams import log_feed_of, network_of, ports_of

PEER = "127.0.0.1:9"
OURS = (*OUR_PROVIDER, ("uniq", "once"), ("gproto", "1"))
SPAWN = "AnyEvent::MP::_spawn"
LONG = "n" * (MAX_NAME_BYTES + 1)
BLANKS = "\u00a0" * (MAX_NAME_BYTES // 2 + 1)
"""Too long in bytes, and not printable, so that quoting it takes long."""


@pytest.fixture
def node(make_node: MakeNode) -> Node:
    return make_node(allow_eval=True, allow_spawn=["*"])


@pytest.fixture
def peer(node: Node) -> Iterator[RawPeer]:
    with RawPeer.dial(node, PEER, extras=OURS).shake() as peer:
        assert peer.answers()
        yield peer


REQUESTS: list[tuple[str, Callable[[str, str], list[Any]]]] = [
    ("function", lambda _me, name: [name]),
    ("lookup", lambda _me, name: ["lookup", name, f"{PEER}#r"]),
    ("can", lambda _me, name: ["can", name, f"{PEER}#r"]),
    ("not_done", lambda _me, name: ["not_done", name, "why", ""]),
    ("mon1", lambda _me, name: ["mon1", name]),
    ("mon0", lambda _me, name: ["mon0", name]),
    ("kil0", lambda _me, name: ["kil0", name, "die"]),
    ("kil1", lambda _me, name: ["kil1", name, "die"]),
    ("spawn-name", lambda _me, name: [SPAWN, name, "tests.support.node_functions.note"]),
    ("spawn-function", lambda _me, name: [SPAWN, "p", name]),
    ("call-port", lambda _me, name: ["call", {"reply": f"{PEER}#r"}, name, "tag"]),
    (
        "via-origin",
        lambda me, name: ["via", f"slave/{name}@{PEER}", me, ["", "via_up", f"slave/{name}@{PEER}", "u", "w", ""]],
    ),
    ("via-destination", lambda _me, name: ["via", f"slave/s@{PEER}", name, []]),
    ("g_find", lambda _me, name: ["g_find", name]),
    ("g_found", lambda _me, name: ["g_found", name, []]),
    ("g_mon1", lambda _me, name: ["g_mon1", name]),
    ("g_mon0", lambda _me, name: ["g_mon0", name]),
    ("g_db_family", lambda _me, name: ["g_db_family", name, "1"]),
    ("g_db_family-number", lambda _me, name: ["g_db_keys", "f", name]),
    ("g_reply", lambda _me, name: ["g_reply", name, []]),
    ("g_slave-family", lambda _me, name: ["g_slave", {name: {"k": 1}}]),
    ("g_slave-key", lambda _me, name: ["g_slave", {"f": {name: 1}}]),
    ("g_set-key", lambda _me, name: ["g_set", {"f": {name: 1}}]),
    ("g_set-owner", lambda _me, name: ["g_set", {"f": {"k": 1}}, name]),
    ("g_upd-family", lambda _me, name: ["g_upd", name, {"k": 1}, []]),
    ("g_upd-key", lambda _me, name: ["g_upd", "f", {name: 1}, []]),
    ("g_upd-gone", lambda _me, name: ["g_upd", "f", {}, [name]]),
    ("g_upd-owner", lambda _me, name: ["g_upd", "f", {"k": 1}, [], name]),
    ("g_chg1-family", lambda _me, name: ["g_chg1", name, {}]),
    ("g_chg1-key", lambda _me, name: ["g_chg1", "f", {name: 1}]),
    ("g_chg2-gone", lambda _me, name: ["g_chg2", "f", {}, [name]]),
]


@pytest.mark.parametrize("name", [LONG, BLANKS], ids=["characters", "bytes"])
@pytest.mark.parametrize("request_of", [row[1] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
def test_a_request_with_a_name_that_is_too_long_is_refused(
    node: Node, peer: RawPeer, request_of: Callable[[str, str], list[Any]], name: str
) -> None:
    peer.send(["", "g_slave", {}], ["", "g_global"], ["", *request_of(node.NODE(), name)])
    wait_until(lambda: node.refusals.get("name") == 1, show=lambda: node.refusals)
    peer.send(["", "time", f"{PEER}#pong"])
    while peer.packet()[0] != "pong":
        pass


HUGE = "\xad" * 4_000_000
"""Writing it with repr() takes many times as long as looking at it."""


def seconds_of(call: Callable[[], object]) -> float:
    before = thread_time()
    call()
    return thread_time() - before


@pytest.mark.slow
@pytest.mark.parametrize("request_of", [row[1] for row in REQUESTS], ids=[row[0] for row in REQUESTS])
def test_a_huge_name_takes_no_time(node: Node, peer: RawPeer, request_of: Callable[[str, str], list[Any]]) -> None:
    """Only what is kept of it is quoted."""
    request, port = request_of(node.NODE(), HUGE), f"{PEER}#{HUGE}"

    def handle() -> None:
        network_of(node).peers[PEER].take_request(request)
        with pytest.raises(InvalidPortError):
            node.snd(port, "hello")

    # The processor's caches are others' as well: the quickest of a few counts.
    assert min(seconds_of(handle) for _ in range(3)) < max(seconds_of(lambda: repr(HUGE)) for _ in range(2)) / 2


FLOATS = [number / 7e300 for number in range(1, 300_000)]
"""Writing it with str() takes half a second."""


@pytest.mark.parametrize(
    "request_",
    [
        *([request, FLOATS, f"{PEER}#r"] for request in ("lookup", "can", "mon1", "kil1", "log", "inspect", "eval")),
        *([request, FLOATS] for request in ("time", "snd", "info", "g_find")),
        ["log", "debug", FLOATS],
        ["inspect", [FLOATS], f"{PEER}#r"],
        ["inspect", {"ports": FLOATS}, f"{PEER}#r"],
        [SPAWN, "p", FLOATS],
        ["call", {"reply": f"{PEER}#r"}, FLOATS, "tag"],
        ["via", f"slave/s@{PEER}", FLOATS, []],
    ],
    ids=lambda request: " ".join(word if isinstance(word, str) else type(word).__name__ for word in request),
)
def test_a_long_list_in_place_of_a_text_takes_no_time(node: Node, peer: RawPeer, request_: list[Any]) -> None:
    before = thread_time()
    network_of(node).peers[PEER].take_request(request_)
    peer.send(["", "time", f"{PEER}#pong"])
    while peer.packet()[0] != "pong":
        pass
    assert thread_time() - before < 0.2


def test_a_virtual_link_with_a_long_name_is_refused_with_an_answer(node: Node, peer: RawPeer) -> None:
    slave = f"slave/{LONG}@{PEER}"
    peer.send(["", "via", slave, node.NODE(), ["", "via_up", slave, "u", "w", ""]])
    assert peer.packet()[:4] == ["", "via", node.NODE(), slave]
    assert list(network_of(node).peers) == [PEER]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda port: ["snd", port, 1],
        lambda port: ["time", port],
        lambda port: ["log", "error", port],
        lambda port: ["call", {"reply": port}, "p", "tag"],
        lambda port: ["call", {"reply": f"{PEER}#r", "chain": [port]}, "p", "tag"],
    ],
    ids=["snd", "time", "log", "call-reply", "call-chain"],
)
@pytest.mark.parametrize("port", [f"{PEER}#{2 * LONG}", f"{2 * LONG}#r"], ids=["port", "node"])
def test_a_request_with_a_port_id_that_is_too_long_leaves_nothing_behind(
    node: Node, peer: RawPeer, request_of: Callable[[str], list[Any]], port: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.reg(node.port(lambda *_message: None), "p")
    before = set(ports_of(node))
    peer.send(["", *request_of(port)])
    wait_until(lambda: "bytes" in caplog.text)
    assert peer.answers()
    assert {port for port in set(ports_of(node)) - before if len(port) > 100} == set()


def test_an_answer_to_a_port_id_that_is_too_long_leaves_nothing_behind(node: Node, peer: RawPeer) -> None:
    """In a message, only the code that sends to it knows that it is one."""
    ports = network_of(node).peers[PEER].ports
    before = dict(ports._ports)
    for port in (f"{PEER}#{LONG}", f"{LONG}#p"):
        with pytest.raises(InvalidPortError, match="have at most 1024 bytes each"):
            node.snd(port, "hello")
    assert ports._ports == before
    assert list(network_of(node).peers) == [PEER]


def test_the_limit_is_a_setting(make_node: MakeNode) -> None:
    node = make_node(max_name_bytes=2000)
    inbox = Inbox(node)
    node.reg(inbox.port, LONG)
    with RawPeer.dial(node, PEER, extras=OURS).shake() as peer:
        peer.send([LONG, 1], ["", "lookup", LONG, f"{PEER}#{LONG}", "it"], ["", "lookup", "n" * 2001, f"{PEER}#r"])
        assert peer.packet() == [LONG, "it", inbox.port]
        assert peer.answers()
    assert node.refusals == {"name": 1}
    wait_until(lambda: inbox.messages == [(1,)])


def test_a_greeting_with_a_long_node_id_is_refused(node: Node) -> None:
    with RawPeer.dial(node, LONG) as peer:
        peer.greet()
        assert peer.closed()
    assert node.refusals == {"handshake": 1}


@pytest.mark.parametrize(("family", "key"), [("f", LONG), (LONG, "k"), (BLANKS, "k")], ids=["key", "family", "bytes"])
def test_own_entries_have_short_names_too(node: Node, family: str, key: str) -> None:
    with pytest.raises(InvalidEntryError, match="names have at most 1024 bytes"):
        node.db_set(family, key)


def test_what_each_record_of_the_log_begins_with_is_bounded(node: Node, peer: RawPeer) -> None:
    peer.send(["", "log", "error", f"{PEER}#r", "x" * MAX_REPLY_BYTES])
    wait_until(lambda: node.refusals.get("name") == 1)
    assert log_feed_of(node).listeners == 0


def test_a_call_tells_only_of_the_last_ports_that_wait() -> None:
    chain = [f"{PEER}#{number}" for number in range(header.MAX_CHAIN + 5)]
    for form in ({"reply": f"{PEER}#r", "chain": chain}, ["#r", None, *chain]):
        assert header.read(form, PEER, MAX_NAME_BYTES).chain == tuple(chain[5:])


@pytest.mark.parametrize("text", ["n" * 300, "ü" * 300])
def test_nothing_long_is_cached(text: str) -> None:
    ids._known_fault.cache_clear()
    assert ids.is_node_id("n" * 200)
    ids.is_node_id(text)
    with pytest.raises(InvalidPortError):
        ids.split_port(f"{text},#p")
    assert ids._known_fault.cache_info().currsize == 1


CONTAINERS = {"dict", "list", "set", "deque", "defaultdict", "OrderedDict", "Counter"}
CONTAINERS |= {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet"}

CACHED_HERE = {
    "dispatching": "one call without arguments",
    "gunicorn": "classes of this process",
    "ids": "bounded; see above",
}
"""Modules with a cache of functions' results, and why no peer can fill it."""

FILLED_HERE = {
    "KINDS": "kinds of shared state that modules of the library add",
    "_aemp_marks": "marked methods of classes of this process",
    "_aemp_types": "their types",
    "_drains": "functions of this process that end its nodes",
    "_joins": "functions of this process that begin them",
    "_kept": "what a forked child has of its parent",
    "_nodes": "the nodes of this process",
    "_spawnable": "functions of this process that are marked",
    "_told_of_true": "the code of handlers of this process",
    "_watches": "the hubs of this process",
    "requests": "functions of this process that its agents serve",
}
"""Containers of the process that are filled while it runs, and why no peer can do that."""


@pytest.mark.no_cover
@pytest.mark.slow
def test_there_are_no_other_caches() -> None:
    """A cache that peers can feed keeps what they sent when they are gone. Bound its keys, and list it here.

    What belongs to a module or a class outlives links and nodes. So each container there that is empty at first is
    named with the reason why nothing of a peer's gets into it.
    """
    found: list[str] = []
    for path in sorted((ROOT / "aemp_gevent").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("cache", "lru_cache"):
                found += [path.stem] * (isinstance(node.value, ast.Name) and node.value.id == "functools")
            elif isinstance(node, ast.ImportFrom) and node.module == "functools":
                assert not {"cache", "lru_cache"} & {name.name for name in node.names}, "write functools.cache"
            elif isinstance(node, (ast.Module, ast.ClassDef)):
                found += [ast.unparse(target) for target in filled_later(node)]
    assert sorted(found) == sorted([*CACHED_HERE, *FILLED_HERE])


def filled_later(scope: ast.Module | ast.ClassDef) -> Iterator[ast.expr]:
    """Yield the targets that a module or a class sets to an empty container without a bound of its own."""
    for node in scope.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            text = ast.unparse(node.value)
            if text in ("{}", "[]") or text.removesuffix("()").rpartition(".")[2] in CONTAINERS:
                yield node.targets[0] if isinstance(node, ast.Assign) else node.target


@pytest.mark.parametrize(
    ("name", "limit", "wanted"),
    [("", 0, False), ("ab", 2, False), ("abc", 2, True), ("ü", 2, False), ("üa", 2, True), ("\ud800", 2, True)],
)
def test_names_are_measured_in_bytes(name: str, limit: int, wanted: bool) -> None:
    assert is_long(name, limit) is wanted
