# SPDX-License-Identifier: MIT
"""The fixtures, as somebody else's test suite uses them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aemp_gevent.testing import Proxy
from tests.support import preloaded

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

SUITE = """
import os
import pytest

pids = []

def test_seed(fault_seed):
    assert 0, "to see what is shown"

def test_proxies_differ(tcp_proxy, fault_seed):
    one, two = tcp_proxy("127.0.0.1:1"), tcp_proxy(seed=5)
    assert (one.seed, two.seed) == (f"{fault_seed}/0", 5)
    assert tcp_proxy().seed == f"{fault_seed}/2"
    assert one.address != two.address

def test_process(node_process):
    process = node_process(high_water_bytes=12345)
    pids.append(process.pid)
    assert process.run("mp.default_node.settings.high_water_bytes") == 12345
    assert 0

def test_nothing_is_left_of_it():
    (pid,) = pids
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
"""

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["aemp_gevent.testing.fixtures"]\n')
    (tmp_path / "test_suite.py").write_text(SUITE)

    def run_suite(*args: str, **env: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **env}
        return preloaded.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60).stdout

    return run_suite


def seed_in(output: str) -> int:
    found = re.search(r"^AEMP_FAULT_SEED=(\d+)$", output, re.MULTILINE)
    assert found, output
    return int(found[1])


def test_failure_shows_a_seed_that_can_be_given_again(run: Run) -> None:
    first = seed_in(run("-k", "test_seed"))
    assert seed_in(run("-k", "test_seed", "--aemp-fault-seed=7", AEMP_FAULT_SEED="8")) == 7
    assert seed_in(run("-k", "test_seed", AEMP_FAULT_SEED="8")) == 8
    assert first not in {7, 8}, "not drawn"


def test_seed_that_is_not_a_number_is_reported(run: Run) -> None:
    assert "AEMP_FAULT_SEED must be a whole number, not 'x'" in run("-k", "test_seed", AEMP_FAULT_SEED="x")


def test_factories_end_what_they_made_when_the_test_fails(run: Run) -> None:
    output = run("-k", "not test_seed")
    assert "1 failed, 2 passed" in output, output


CRASHES = """
import gevent
import pytest
from aemp_gevent import NODE, SELF, after, attach, default_node as node, initialise_node, mon, port, port_async, snd
from aemp_gevent import serve, call, RemoteError, receive

def crash(*message):
    raise ValueError(f"crash with {message}")

def test_actor_crashes():
    port_async(crash)

def test_handler_crashes():
    snd(port(crash), "tag")

def test_callback_crashes():
    after(0, crash)

def test_failure_says_more():
    port_async(crash)
    gevent.sleep(0)
    assert 0, "this"

@pytest.mark.aemp_crashes
def test_marked():
    port_async(crash)

def test_monitored():
    with attach() as me:
        mon(port_async(crash), me, "died")
        assert receive("died", timeout=5)[1] == "die"

def test_answered():
    with pytest.raises(RemoteError):
        call(serve(port(), crash=crash), "crash")

def test_killed():
    port_async(receive)

def test_strict():
    with pytest.raises(TypeError, match="travel|carry"):
        snd(port(), object())

schedulers, ids = [], []

@pytest.mark.parametrize("turn", [1, 2])
def test_default_node_is_fresh(default_node, turn):
    assert default_node is node
    assert SELF() is None and not node.scheduler.ports
    ids.append(NODE())
    initialise_node("127.0.0.1:0", secret="x")
    attach()
    port_async(receive)
    after(60, print)
    schedulers.append(node.scheduler)

def test_nothing_is_left_of_it():
    assert NODE().startswith("anon/") and not node.scheduler.ports and SELF() is None
    assert len(schedulers) == 2 and not any(scheduler.timers for scheduler in schedulers)
    assert len({*ids, NODE()}) == 3
"""


def test_crash_that_nobody_monitors_fails_its_test(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(CRASHES)
    output = run("-rA", AEMP_STRICT="")
    for name in ("actor", "handler", "callback"):
        assert f"FAILED test_suite.py::test_{name}_crashes" in output, output
    assert "FAILED test_suite.py::test_failure_says_more - AssertionError: this" in output
    assert "4 failed, 8 passed" in output, output
    assert "ValueError: crash with ('tag',)" in output
    assert re.search(r"a callback outside any port; the function is crash at .*: ValueError: crash with \(\)", output)
    assert "@pytest.mark.aemp_crashes" in output


def test_proxy_of_the_factory_is_started(tcp_proxy: Callable[..., Proxy], fault_seed: int) -> None:
    proxy = tcp_proxy()
    assert proxy.address
    assert str(fault_seed) in str(proxy.seed)
