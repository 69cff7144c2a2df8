# SPDX-License-Identifier: MIT
"""Ends of Locust's masters and workers, in a process that Locust has not patched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aemp_gevent.contrib.locust_rpc import MasterEnd, WorkerEnd
from aemp_gevent.peers import seed
from aemp_gevent.testing import Proxy
from tests.support.networking import SECRET

Message = Callable[..., Any]


@pytest.fixture(scope="session")
def locust() -> Any:
    """Locust's package, whose import patches nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")
        module = pytest.importorskip("locust", reason="Locust is not installed: pip install 'aemp_gevent[locust]'")
        pytest.importorskip("locust.rpc")
    return module


@pytest.fixture(autouse=True)
def in_a_hurry(locust: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the ends a secret, and short pauses between attempts to make a link."""
    monkeypatch.setenv("AEMP_SECRET", SECRET)
    monkeypatch.setattr(seed, "_FIRST_PAUSE_SECONDS", 0.02)


@pytest.fixture
def make_end() -> Iterator[Callable[..., Any]]:
    """A function that makes an end, which is closed afterwards."""
    ends: list[Any] = []

    def make(kind: Callable[..., Any], *args: Any) -> Any:
        end = kind(*args)
        ends.append(end)
        return end

    yield make
    for end in reversed(ends):
        end.close()


@pytest.fixture
def server(make_end: Callable[..., MasterEnd]) -> MasterEnd:
    return make_end(MasterEnd, "127.0.0.1", 0)


@pytest.fixture
def proxy(server: MasterEnd) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with Proxy(f"127.0.0.1:{server.port}") as proxy:
        yield proxy


@pytest.fixture
def client(make_end: Callable[..., WorkerEnd], proxy: Proxy) -> WorkerEnd:
    """A worker's end, behind the proxy."""
    return make_end(WorkerEnd, "127.0.0.1", int(proxy.address.rpartition(":")[2]), "w1")
