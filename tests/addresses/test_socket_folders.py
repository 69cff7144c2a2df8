# SPDX-License-Identifier: MIT
"""Folders of Unix sockets: who lives there is found, without being disturbed, and what the dead left is removed."""

from __future__ import annotations

import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import pytest

import aemp_gevent.addresses.socket_folders
import aemp_gevent.peers.seed
from aemp_gevent.addresses.endpoints import Endpoint
from aemp_gevent.addresses.socket_folders import MAX_PATH_BYTES, new_socket_in, sockets_in
from aemp_gevent.errors import ListenError
from aemp_gevent.node.node import Node
from aemp_gevent.peers.seed import LINKS_A_FOLDER
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, WAIT, MakeNode, line_of, process
from tests.support.seams import network_of

MEMBER = """
import sys
import gevent
from aemp_gevent import *
folder, secret = sys.argv[1:]
configure(nodeid="member/%u", binds=[folder], seeds=[folder], secret=secret)
grp_reg("members", port())
print(NODE(), default_node.wait_for_seeds(10), len(db_keys("members")), flush=True)
gevent.wait()
"""


@pytest.fixture
def folder() -> Iterator[str]:
    """The path of a folder that is not there yet; short enough for sockets, which pytest's own may not be."""
    with TemporaryDirectory() as path:
        yield f"{path}/meet/"


def listening(path: str, kind: int = socket.SOCK_STREAM, *, backlog: int = 5) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    if kind == socket.SOCK_STREAM and backlog:
        sock.listen(backlog)
    return sock


def files(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def test_new_socket_gets_a_path_that_sorts_by_age_in_a_folder_that_is_its_owners_alone(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([1_700_000_000.0, 1_700_000_000.5, 4_000_000_000.0, 10_000_000_000.0])
    monkeypatch.setattr(aemp_gevent.addresses.socket_folders, "time", lambda: next(times))
    paths = [new_socket_in(folder) for _ in range(4)]
    assert paths == sorted(paths)
    assert len(set(paths)) == 4
    assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700


def test_living_nodes_are_found_oldest_first_and_files_of_dead_ones_are_removed(folder: str) -> None:
    first, dead, unready, last = (new_socket_in(folder) + str(number) for number in range(4))
    sockets = [listening(last), listening(unready, backlog=0), listening(first)]
    listening(dead).close()
    Path(folder, "note").write_text("of somebody else's")
    Path(folder, "inner").mkdir()
    listening(folder + "datagrams", socket.SOCK_DGRAM).close()
    try:
        # A socket that is bound already, but does not listen yet, must not be taken for dead.
        assert sockets_in(folder) == [Endpoint("", 0, path) for path in sorted([first, unready, last])]
        assert files(folder) == sorted([*(Path(path).name for path in (first, unready, last)), "note", "inner"])
    finally:
        for sock in sockets:
            sock.close()
    assert sockets_in(folder) == []
    assert files(folder) == ["inner", "note"]


def test_looking_into_a_folder_is_not_noticed_by_its_nodes(folder: str) -> None:
    sock = listening(new_socket_in(folder), backlog=1)
    sock.setblocking(False)
    for _ in range(100):
        assert len(sockets_in(folder)) == 1
    with pytest.raises(BlockingIOError):
        sock.accept()
    sock.close()


def test_error_about_a_long_path_says_how_much_is_too_much(make_node: MakeNode, folder: str) -> None:
    Path(folder).mkdir()
    longest = folder + (MAX_PATH_BYTES - len(folder) - len("12345678901-1234567890") - 1) * "x" + "/"
    assert len(new_socket_in(longest)) == MAX_PATH_BYTES
    with pytest.raises(ListenError, match=r"at most 10\d bytes: choose a folder that is 1 shorter"):
        make_node(f"unix:{longest[:-1]}x/")


def test_folder_that_cannot_be_made_is_an_error(make_node: MakeNode, folder: str) -> None:
    with pytest.raises(ListenError, match="No such file or directory"):
        make_node(f"unix:{folder}deeper/")


def test_node_bound_in_a_folder_has_a_socket_of_its_own_until_it_ends(make_node: MakeNode, folder: str) -> None:
    nodes = [make_node(f"unix:{folder}") for _ in range(3)]
    assert sorted(node.NODE() for node in nodes) == [f"unix:{endpoint.path}" for endpoint in sockets_in(folder)]
    assert not any(node.up_nodes() for node in nodes)
    nodes[0].shutdown(1)
    assert len(files(folder)) == 2


def wait_for_links(nodes: list[Node]) -> None:
    everybody = {node.NODE() for node in nodes}
    for node in nodes:
        wait_until(lambda: {*node.up_nodes(), node.NODE()} == everybody, within=WAIT)  # noqa: B023


@pytest.mark.parametrize("named", [False, True], ids=["by-path", "named"])
def test_nodes_in_a_folder_find_each_other_and_newcomers_find_them(
    make_node: MakeNode, folder: str, named: bool
) -> None:
    seed = f"unix:{folder}"

    def enter() -> Node:
        node = make_node(None if named else seed, *[] if named else [seed])
        if named:
            node.configure(nodeid="member/%u", binds=[seed], seeds=[seed], secret=SECRET)
        return node

    nodes = [enter() for _ in range(3)]
    wait_for_links(nodes)
    nodes.append(enter())
    wait_for_links(nodes)
    assert {node.info()["directory"] for node in nodes} == {"global"}
    # Nobody dials himself to find out who that is.
    assert all(node.NODE() not in network_of(node).peers for node in nodes)


@pytest.mark.slow
def test_links_do_not_grow_with_the_folder(make_node: MakeNode, folder: str) -> None:
    seed = f"unix:{folder}"
    count = LINKS_A_FOLDER + 4
    nodes = [make_node(seed, seed) for _ in range(count)]
    assert all(node.wait_for_seeds(WAIT) for node in nodes)
    for node in nodes:
        # Those that came first look into the folder once a second, and may not have seen all the others yet.
        (seed_of_node,) = network_of(node).seeds._seeds
        wait_until(lambda: len(seed_of_node.chosen) == LINKS_A_FOLDER, show=lambda: seed_of_node.chosen)  # noqa: B023
        node.grp_reg("members", node.port())
    for node in nodes:
        assert len(node.db_wait("members", lambda members: len(members) == count, timeout=WAIT)) == count


def test_node_that_waited_for_its_seeds_knows_their_entries_and_they_know_the_node(
    make_node: MakeNode, folder: str
) -> None:
    seed = f"unix:{folder}"
    nodes: list[Node] = []
    for count in range(1, 5):
        node = make_node(seed, seed)
        nodes.append(node)
        node.grp_reg("members", node.port())
        assert node.wait_for_seeds(WAIT)
        assert [len(each.db_keys("members")) for each in nodes] == [count] * count


def test_waiting_for_seeds_that_are_down_ends(make_node: MakeNode, folder: str) -> None:
    assert not make_node(None).wait_for_seeds(WAIT)
    assert make_node("127.0.0.1:0").wait_for_seeds(WAIT)
    seed = f"unix:{folder}"
    began = monotonic()
    assert make_node(seed, seed, "127.0.0.1:1").wait_for_seeds(WAIT)
    assert monotonic() - began < WAIT / 2
    silent = listening(new_socket_in(folder))
    assert not make_node(seed, seed).wait_for_seeds(0.2)
    silent.close()


@pytest.mark.slow
def test_nodes_find_each_other_after_the_oldest_were_killed_and_their_sockets_are_removed(
    make_node: MakeNode, folder: str
) -> None:
    Path(folder).mkdir()
    seed = f"unix:{folder}"
    here = make_node(None)
    here.configure(nodeid="member/%u", binds=[seed], seeds=[seed], secret=SECRET)
    with process(MEMBER, seed, SECRET) as first, process(MEMBER, seed, SECRET) as second:
        members = [line_of(child) for child in (first, second)]
        assert all(member.split()[1] == "True" for member in members)
        here.db_wait("members", lambda found: len(found) == 2, timeout=WAIT)
        first.kill()
        here.db_wait("members", lambda found: len(found) == 1, timeout=WAIT)
        wait_until(lambda: len(files(folder)) == 2, within=WAIT, show=lambda: files(folder))
        with process(MEMBER, seed, SECRET) as third:
            assert line_of(third).endswith(" True 2")
            second.kill()
            third.send_signal(signal.SIGSTOP)
            here.db_wait("members", lambda found: len(found) == 1, timeout=WAIT)
            third.send_signal(signal.SIGCONT)
            wait_until(lambda: len(files(folder)) == 2, within=WAIT, show=lambda: files(folder))
    here.db_wait("members", lambda found: not found, timeout=WAIT)


def test_members_death_takes_nothing_of_the_others_from_the_directory(
    make_node: MakeNode, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = f"unix:{folder}"
    nodes = [make_node(seed, seed) for _ in range(4)]
    for node in nodes:
        node.grp_reg("members", node.port())
    assert all(node.wait_for_seeds(WAIT) for node in nodes)
    seen: list[int] = []
    with nodes[-1].grp_mon("members", lambda ports, *_changes: seen.append(len(ports))):
        wait_until(lambda: seen == [4])
        nodes[0].shutdown(1)
        wait_until(lambda: seen[-1] == 3, show=lambda: seen)
        wait_for_links(nodes[1:])
    assert seen == [4, 3]
