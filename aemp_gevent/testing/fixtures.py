# SPDX-License-Identifier: MIT
"""The fault kit for pytest.

In the ``conftest.py`` of the tests' top folder::

    pytest_plugins = ["aemp_gevent.testing.fixtures"]

Everything that a test makes with these fixtures is gone after it, however it ends.
The only module here that needs pytest.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from aemp_gevent.quoting import quoted
from aemp_gevent.testing.processes import NodeProcess
from aemp_gevent.testing.proxy import Proxy

SEED_VARIABLE = "AEMP_FAULT_SEED"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the seed."""
    parser.getgroup("aemp_gevent").addoption(
        "--aemp-fault-seed",
        type=int,
        help=f"seed of random faults, as a failed test printed it (else ${SEED_VARIABLE}, else a new one a test)",
    )


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest) -> int:
    """What random faults are made of: ``--aemp-fault-seed``, or ``AEMP_FAULT_SEED``, or a new number for each test.

    It is printed, so pytest shows it with a test that fails.
    """
    given = request.config.getoption("--aemp-fault-seed")
    if given is None:
        text = os.environ.get(SEED_VARIABLE)
        try:
            given = int(text) if text else None
        except ValueError:
            raise pytest.UsageError(f"{SEED_VARIABLE} is a whole number, not {quoted(text)}") from None
    seed = secrets.randbits(32) if given is None else int(given)
    print(f"{SEED_VARIABLE}={seed}")  # noqa: T201  # for whoever reads the failure
    return seed


@pytest.fixture
def node_process() -> Iterator[Callable[..., NodeProcess]]:
    """Start nodes in processes of their own: ``node_process(...)`` takes what ``NodeProcess`` takes."""
    with ExitStack() as stack:

        def start(*args: Any, **settings: Any) -> NodeProcess:
            return stack.enter_context(NodeProcess(*args, **settings))

        yield start


@pytest.fixture
def tcp_proxy(fault_seed: int) -> Iterator[Callable[..., Proxy]]:
    """Start proxies: ``tcp_proxy(target)`` takes what ``Proxy`` takes; the seed is made of ``fault_seed``."""
    with ExitStack() as stack:
        count = 0

        def start(target: str | None = None, **options: Any) -> Proxy:
            nonlocal count
            # Not the same faults at the same bytes in each.
            options.setdefault("seed", f"{fault_seed}/{count}")
            count += 1
            return stack.enter_context(Proxy(target, **options))

        yield start
