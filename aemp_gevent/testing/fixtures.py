# SPDX-License-Identifier: MIT
"""Fixtures and a plugin for pytest.

In the ``conftest.py`` of the tests' top folder::

    pytest_plugins = ["aemp_gevent.testing.fixtures"]

Everything that a test creates with these fixtures is removed after it, however it ends.

A test fails if an unmonitored port of this process dies of an exception, or if a callback outside of any port raises
one; otherwise only the log would show it. ``@pytest.mark.aemp_crashes`` allows such crashes.

Nodes are strict in these tests, as with the setting ``strict``: values that could not be sent to another
node raise an error within one process, too. ``AEMP_STRICT=0`` in the environment switches that off.

This is the only module of the package that needs pytest.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import aemp_gevent
from aemp_gevent import Node
from aemp_gevent.runtime.quoting import quoted
from aemp_gevent.testing.crashes import crashes
from aemp_gevent.testing.memory_network import MemoryNetwork
from aemp_gevent.testing.processes import NodeProcess
from aemp_gevent.testing.proxy import Proxy
from aemp_gevent.testing.virtual_time import VirtualTime

if TYPE_CHECKING:
    import pluggy

MARKER = "aemp_crashes"

SEED_VARIABLE = "AEMP_FAULT_SEED"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the seed."""
    parser.getgroup("aemp_gevent").addoption(
        "--aemp-fault-seed",
        type=int,
        help=f"seed of random faults, as printed by a failed test (default: ${SEED_VARIABLE}, or a new one per test)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker, and make nodes strict, those in other processes as well."""
    config.addinivalue_line("markers", f"{MARKER}: ports and callbacks may crash in this test without a monitor")
    os.environ["AEMP_STRICT"] = os.environ.get("AEMP_STRICT") or "1"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, pluggy.Result[None], None]:
    """Fail a test in which something crashed without a monitor."""
    if item.get_closest_marker(MARKER) is not None:
        yield
        return
    with crashes() as seen:
        outcome = yield
    if seen and outcome.excinfo is None:
        text = "\n".join(["these crashes in this test were not monitored (the log has the tracebacks):", *seen])
        advice = (
            "monitor the port with mon(), or let the callback catch its exceptions; "
            f"if the crash is meant, mark the test with @pytest.mark.{MARKER}"
        )
        outcome.force_exception(pytest.fail.Exception(f"{text}\n{advice}", pytrace=False))


@pytest.fixture
def default_node() -> Iterator[Node]:
    """Return the default node, which the module functions use: private and without ports before and after the test.

    Afterwards its ports are killed, its timers stopped, and its links closed, so that each test may call
    ``initialise_node`` again.
    """
    aemp_gevent.default_node.reset()
    yield aemp_gevent.default_node
    aemp_gevent.default_node.reset()


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of random faults: ``--aemp-fault-seed``, ``AEMP_FAULT_SEED``, or a new number for each test.

    It is printed, so pytest shows it for a failed test.
    """
    given = request.config.getoption("--aemp-fault-seed")
    if given is None:
        text = os.environ.get(SEED_VARIABLE)
        try:
            given = int(text) if text else None
        except ValueError:
            raise pytest.UsageError(f"{SEED_VARIABLE} must be a whole number, not {quoted(text)}") from None
    seed = secrets.randbits(32) if given is None else int(given)
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201  # pytest shows it with the failure
    return seed


@pytest.fixture
def node_process() -> Iterator[Callable[..., NodeProcess]]:
    """Start nodes in processes of their own: ``node_process(...)`` has the arguments of ``NodeProcess``."""
    with ExitStack() as stack:

        def start(*args: Any, **settings: Any) -> NodeProcess:
            return stack.enter_context(NodeProcess(*args, **settings))

        yield start


@pytest.fixture
def tcp_proxy(fault_seed: int) -> Iterator[Callable[..., Proxy]]:
    """Start proxies: ``tcp_proxy(target)`` has the arguments of ``Proxy``; the seed depends on ``fault_seed``."""
    with ExitStack() as stack:
        count = 0

        def start(target: str | None = None, **options: Any) -> Proxy:
            nonlocal count
            # Not the same faults at the same bytes in each.
            options.setdefault("seed", f"{fault_seed}/{count}")
            count += 1
            return stack.enter_context(Proxy(target, **options))

        yield start


@pytest.fixture
def virtual_time(fault_seed: int) -> Iterator[VirtualTime]:
    """Run the test in virtual time: timers expire as soon as nothing else can run. The seed is ``fault_seed``."""
    with VirtualTime(fault_seed) as virtual:
        yield virtual


@pytest.fixture
def virtual_network(fault_seed: int) -> Iterator[MemoryNetwork]:
    """Return a simulated network in virtual time, without delays. The seed is ``fault_seed``."""
    with MemoryNetwork(fault_seed, time="virtual") as network:
        yield network
