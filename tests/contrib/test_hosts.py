# SPDX-License-Identifier: MIT
"""Processes of one host that belong together: one call each, and nobody else gets in."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import gethostname
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import aemp_gevent.contrib.hosts
import aemp_gevent.peers.seed
from aemp_gevent import InvalidSettingError, Node, PortDied, RemoteError
from aemp_gevent.contrib import join_host
from aemp_gevent.errors import AlreadyInitialisedError, NoSecretError
from aemp_gevent.transport.tls_transport import TlsTransport
from tests.support.authority import authority
from tests.support.helpers import turns, wait_until
from tests.support.networking import SECRET, WAIT, MakeNode, line_of, process
from tests.support.seams import network_of

Join = Callable[..., Node]

MEMBER = """
import sys
import gevent
from aemp_gevent import *
from aemp_gevent.contrib import join_host
join_host("app", folder=sys.argv[1])
grp_reg("members", port())
default_node.wait_for_seeds(10)
print(len(db_keys("members")), flush=True)
gevent.wait()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that is not there yet, with a path that is short enough for sockets."""
    with TemporaryDirectory() as path:
        yield Path(path, "own")


@pytest.fixture
def join(make_node: MakeNode, folder: Path) -> Join:
    def join_as(name: str = "app", *seeds: str, **settings: Any) -> Node:
        node = make_node(None)
        join_host(name, *seeds, node=node, **{"folder": folder, **settings})
        return node

    return join_as


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_those_of_one_name_share_groups_and_others_do_not(join: Join, folder: Path) -> None:
    nodes = [join("app") for _ in range(3)]
    other = join("other")
    assert {len(node.up_nodes()) for node in nodes} == {2}
    assert other.up_nodes() == []
    for node in nodes:
        assert node.NODE().startswith(f"app/{gethostname()}/")
        node.grp_reg("members", node.port())
    assert all(node.wait_for_seeds(WAIT) for node in nodes)
    assert [len(node.db_keys("members")) for node in nodes] == [3, 3, 3]
    assert other.db_keys("members") == []


def test_nothing_is_open_to_others(join: Join, folder: Path) -> None:
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        node = join()
    finally:
        os.umask(before)
    assert mode(folder) == mode(folder / "app") == 0o700
    assert mode(folder / "app.secret") == 0o600
    assert [str(endpoint)[:5] for endpoint in network_of(node).listeners.endpoints] == ["unix:"], "it listens on TCP"


def test_secret_is_made_up_once_and_kept(join: Join, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aemp_gevent.contrib.hosts, "_LOOK_SECONDS", 0.01)
    first, second = join(), join()
    file = folder / "app.secret"
    secret = file.read_text()
    assert len(secret) >= 40
    assert first.settings is not None
    assert second.settings is not None
    assert first.settings.secret == second.settings.secret == secret
    os.utime(file, (0, 0))
    wait_until(lambda: file.stat().st_mtime > 1, within=WAIT)
    file.unlink()  # as what tidies up /tmp does
    wait_until(file.exists, within=WAIT)
    assert file.read_text() == secret
    assert mode(file) == 0o600
    assert [path.name for path in sorted(folder.iterdir())] == ["app", "app.secret"]
    assert join().up_nodes()


@pytest.mark.parametrize("what", ["the secret", "the folder"])
@pytest.mark.slow
def test_those_who_came_before_and_after_the_secret_was_removed_meet_again(
    join: Join, folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    nodes = [join(), join()]
    file = folder / "app.secret"
    former = file.read_text()
    if what == "the secret":
        file.unlink()
    else:
        shutil.rmtree(folder)
    monkeypatch.setattr(aemp_gevent.peers.seed, "_LAST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(aemp_gevent.contrib.hosts, "_LOOK_SECONDS", 0.01)
    nodes += [join()]  # before the others look at the file again
    assert file.read_text() != former
    for node in nodes[:2]:  # as in two seconds
        aemp_gevent.contrib.hosts._Keeper(node, file, former).look()
    for node in nodes:
        wait_until(lambda: len(node.up_nodes()) == 2, within=WAIT)  # noqa: B023  # run at once
    assert len({node.settings.secrets_bytes[0] for node in nodes if node.settings}) == 1


def test_secret_of_somebody_else_is_not_taken_over(
    join: Join, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another user may have made the folder after ours was removed, and can write there."""
    monkeypatch.setattr(aemp_gevent.contrib.hosts, "_LOOK_SECONDS", 0.001)
    node = join()
    secret = (folder / "app.secret").read_text()
    folder.chmod(0o777)
    (folder / "app.secret").write_text("of another user")
    wait_until(lambda: "secret's file" in caplog.text)
    turns(50)
    assert caplog.text.count("secret's file") == 1
    assert node.settings is not None
    assert node.settings.secret == secret


@pytest.mark.slow
def test_loop_of_a_program_that_has_shut_down_comes_to_its_end(folder: Path) -> None:
    program = """
import sys
import gevent
from aemp_gevent import shutdown
from aemp_gevent.contrib import join_host
join_host("app", folder=sys.argv[1])
shutdown()
print(gevent.wait(timeout=10))
"""
    with process(program, str(folder)) as child:
        assert line_of(child) == "True"


@pytest.mark.slow
def test_forked_child_that_joins_others_looks_only_at_their_secret(folder: Path) -> None:
    program = """
import os, sys
from gevent.event import Event
from aemp_gevent.contrib import hosts, join_host

seen, enough, read = [], Event(), hosts._Keeper._read

def noted(self):
    seen.append(self._path.name)
    if seen.count("others.secret") == 5:
        enough.set()
    return read(self)

hosts._Keeper._read, hosts._LOOK_SECONDS = noted, 0.01
join_host("app", folder=sys.argv[1])
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    seen.clear()
    join_host("others", folder=sys.argv[1])
    print(enough.wait(10), *sorted(set(seen)), flush=True)
"""
    with process(program, str(folder)) as child:
        assert line_of(child) == "True others.secret"


@pytest.mark.slow
def test_certificates_and_rules_count_on_a_host_as_between_hosts(join: Join, folder: Path) -> None:
    ca = authority()
    cert = ca.issue("aemp:app/*").pem(ca)
    rules = [{"peer": "app/*", "spawn": False, "directory": "read"}]
    first, second = join(cert=cert, require_tls=True), join(cert=cert, require_tls=True, rules=rules)
    assert [path.name for path in folder.iterdir()] == ["app"], "a secret was made up that nobody needs"
    port = second.serve(second.port(), double=lambda n: 2 * n)
    assert first.call(port, "double", 4, timeout=WAIT) == 8
    (peer,) = network_of(first).peers.values()
    assert isinstance(peer.link.transport, TlsTransport)  # type: ignore[union-attr]
    with pytest.raises(PortDied, match="spawn_refused"):
        first.call(first.spawn(second.NODE(), "os.getpid"), "x", timeout=WAIT)
    with pytest.raises(RemoteError, match="no handler"):
        second.call(first.port(), "x", timeout=WAIT)

    impostor = join(cert=ca.issue("aemp:web/*").pem(ca), nodeid="app/impostor")
    assert impostor.up_nodes() == []
    assert {*first.up_nodes(), *second.up_nodes()} == {first.NODE(), second.NODE()}


def test_secret_that_is_given_counts_and_is_written_nowhere(join: Join, folder: Path) -> None:
    assert join(secret=SECRET).settings.secret == SECRET  # type: ignore[union-attr]
    assert not (folder / "app.secret").exists()


def test_nodes_of_a_host_and_of_others_are_one_network(make_node: MakeNode, join: Join) -> None:
    elsewhere = make_node("127.0.0.1:0")
    elsewhere.grp_reg("members", elsewhere.port())
    # Two hosts, which know nothing of each other's folders.
    with TemporaryDirectory() as other_host:
        nodes = [join("app", elsewhere.NODE(), secret=SECRET) for _ in range(2)]
        nodes += [join("app", elsewhere.NODE(), secret=SECRET, folder=Path(other_host, "own")) for _ in range(2)]
        inboxes: list[Any] = []
        for node in nodes:
            node.grp_reg("members", node.port(inboxes.append))
        for node in [elsewhere, *nodes]:
            node.db_wait("members", lambda members: len(members) == 5, timeout=WAIT)
        for port in nodes[0].db_keys("members"):
            nodes[0].snd(port, "hello")
        wait_until(lambda: inboxes == ["hello"] * 4, within=WAIT, show=lambda: inboxes)


@pytest.mark.usefixtures("folder")
def test_other_hosts_need_a_secret_that_is_given(join: Join, folder: Path) -> None:
    with pytest.raises(NoSecretError):
        join("app", "127.0.0.1:1")
    join("app")  # the node is as it was, and so is the folder


def test_settings_come_from_the_environment_as_well(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    monkeypatch.setenv("AEMP_NODEID", "mine/%u")
    monkeypatch.setenv("AEMP_SEEDS", "127.0.0.1:1")
    monkeypatch.setenv("AEMP_BINDS", "127.0.0.1:0")
    node = join()
    assert node.NODE().startswith("mine/")
    assert [address.partition(":")[0] for address in network_of(node).addresses()] == ["unix", "127.0.0.1"]
    assert node.settings is not None
    assert node.settings.seeds[1:] == ("127.0.0.1:1",)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("a/b", id="slash"),
        pytest.param("..", id="dots"),
        pytest.param("a b", id="blank"),
        pytest.param("x" * 41, id="long"),
        pytest.param(None, id="none"),
    ],
)
def test_name_that_cannot_be_one_is_refused(join: Join, name: Any, folder: Path) -> None:
    with pytest.raises(InvalidSettingError, match="1 to 40 letters"):
        join(name)
    assert not folder.exists()


def test_folder_that_others_may_enter_is_refused(join: Join, folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o750)
    with pytest.raises(InvalidSettingError, match="chmod 700"):
        join()
    folder.chmod(0o700)
    join()


def test_folder_of_another_user_is_refused(join: Join, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(InvalidSettingError, match="belong to this user"):
        join()


def test_link_that_somebody_laid_in_place_of_the_folder_is_refused(join: Join, folder: Path) -> None:
    elsewhere = folder.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with pytest.raises(InvalidSettingError, match="belong to this user"):
        join()


def test_folder_that_cannot_be_made_is_an_error(join: Join, folder: Path) -> None:
    with pytest.raises(InvalidSettingError, match="No such file or directory"):
        join(folder=folder / "deeper")


def test_folder_is_the_users_own_in_the_systems_for_temporary_files(
    make_node: MakeNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aemp_gevent.contrib.hosts.tempfile, "gettempdir", lambda: str(folder.parent))
    join_host("app", node=make_node(None))
    assert [path.name for path in folder.parent.iterdir()] == [f"aemp-{os.geteuid()}"]


def test_one_node_joins_once(join: Join, folder: Path) -> None:
    node = join()
    with pytest.raises(AlreadyInitialisedError):
        join_host("app", node=node, folder=folder)


@pytest.mark.slow
def test_processes_that_start_at_once_all_meet_and_survive_the_death_of_any(join: Join, folder: Path) -> None:
    here = join()
    programs = [process(MEMBER, str(folder)) for _ in range(4)]
    children = [program.__enter__() for program in programs]
    try:
        counts = [int(line_of(child)) for child in children]
        # Each saw what was there when it came, and itself.
        assert max(counts) == 4, counts
        here.db_wait("members", lambda members: len(members) == 4, timeout=WAIT)
        for left, child in zip((3, 2, 1, 0), children, strict=True):
            child.kill()
            here.db_wait("members", lambda members: len(members) == left, timeout=WAIT)  # noqa: B023
        wait_until(lambda: len(list((folder / "app").iterdir())) == 1, within=WAIT)
    finally:
        for program in programs:
            program.__exit__(None, None, None)


JOINING = """
import sys
from aemp_gevent.contrib import join_host
before = set(sys.modules)
join_host("app", folder=sys.argv[1])
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.slow
def test_joining_imports_little_that_a_process_which_forks_could_have_shared(folder: Path) -> None:
    """Counted, and not timed: what was imported before a fork takes no worker any time, nor memory."""
    done = printed_by(JOINING, str(folder))
    ours = [name for name in done.split() if name.startswith("aemp_gevent")]
    assert len(ours) <= 8, ours


def printed_by(program: str, *args: str) -> str:
    """Run a program in a new process, not in a copy of one that has imported the library; return what it printed."""
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout
