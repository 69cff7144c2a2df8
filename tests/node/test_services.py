# SPDX-License-Identifier: MIT
"""Services: functions that start with a node, and errors of those that cannot."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zope.event

from aemp_gevent.errors import InvalidSettingError, PortDied
from aemp_gevent.node.services import load_services
from tests.support import node_functions
from tests.support.helpers import wait_until
from tests.support.networking import SECRET, MakeNode, free_address, node_factory

MODULES = {
    "shop/__init__.py": "from shop.both import both\n",
    "shop/both.py": "def both(): ...\n",
    "shop/plain.py": "def work(*args): ...\nclass Worker: ...\nNUMBER = 5\n",
    "shop/acting.py": """
from aemp_gevent import actor, receive
from tests.support.node_functions import note

@actor
def wait_for_one():
    note()
    note(*receive())
""",
    "shop/broken.py": "import no_such_module_at_all\n",
    "shop/raising.py": "raise RuntimeError('not today')\n",
    "shop/garbled.py": "def (\n",
}


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package to find services in."""
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.fixture
def make_node() -> Iterator[MakeNode]:
    node_functions.called.clear()  # of what tests elsewhere left there
    with node_factory() as make:
        yield make
    node_functions.called.clear()


# --- finding them -------------------------------------------------------------------------


def test_module_is_imported_and_nothing_of_it_run() -> None:
    assert load_services([("shop.plain",)]) == []
    assert "shop.plain" in sys.modules


def test_function_is_found_with_its_arguments() -> None:
    (service,) = load_services([("shop.plain.work", 1, "x")])
    assert service == ("shop.plain.work", sys.modules["shop.plain"].work, (1, "x"))


def test_class_is_a_function() -> None:
    (service,) = load_services([("shop.plain.Worker",)])
    assert service.function is sys.modules["shop.plain"].Worker


def test_name_of_a_function_and_a_module_means_the_function() -> None:
    (service,) = load_services([("shop.both",)])
    assert callable(service.function)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (("shop.plane",), "no such function or module"),
        (("shop.plain.wrok",), "no such function or module"),
        (("nowhere",), "no such function or module"),
        (("shop.plain.NUMBER",), "no such function or module"),
        (("shop..plain",), "no such function or module"),
        ((".plain",), "full name|importing it failed"),
        (("shop.broken",), "importing it failed: ModuleNotFoundError: .*no_such_module_at_all"),
        (("shop.broken.work",), "importing it failed: ModuleNotFoundError: .*no_such_module_at_all"),
        (("shop.raising",), "importing it failed: RuntimeError: not today"),
        (("shop.garbled",), "importing it failed: SyntaxError"),
        (("shop.plain", 1), "a module is imported, and takes no arguments"),
    ],
)
def test_service_that_cannot_be_found_is_refused_with_its_name(wanted: tuple[Any, ...], why: str) -> None:
    with pytest.raises(InvalidSettingError, match=f"setting 'services' cannot be '{wanted[0]}': .*{why}"):
        load_services([wanted])


# --- running them -------------------------------------------------------------------------


def test_service_runs_in_a_port_of_its_own_once_the_node_is_up(make_node: MakeNode) -> None:
    node = make_node(services=[["tests.support.node_functions.note", "a", 1], "tests.support.node_functions.note"])
    wait_until(lambda: len(node_functions.called) == 2)
    (first, *first_args), (second, *second_args) = node_functions.called
    assert (first_args, second_args) == (["a", 1], [])
    assert first != second
    for port in (first, second):
        assert port.startswith(node.NODE() + "#"), "the node has its ID already"
        assert node.scheduler.table.find(port), "returning is not the port's death"


def test_actor_can_be_a_service(make_node: MakeNode) -> None:
    node = make_node(services=["shop.acting.wait_for_one"])
    ((port,),) = wait_until(lambda: node_functions.called)
    node.snd(port, "hello")
    wait_until(lambda: (port, "hello") in node_functions.called)


def test_service_that_cannot_be_found_fails_the_call_before_anything_is_bound(make_node: MakeNode) -> None:
    node = make_node(None)
    address = free_address()
    with pytest.raises(InvalidSettingError, match=r"shop\.plane"):
        node.initialise_node(address, secret=SECRET, services=["shop.plain.work", "shop.plane"])
    host, _, port = address.partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), 5)
    node.initialise_node(address, secret=SECRET)
    assert node.NODE() == address


def test_exception_kills_the_services_port_alone_and_is_logged(
    make_node: MakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    deaths: list[PortDied] = []

    def note(event: object) -> None:
        if isinstance(event, PortDied):
            deaths.append(event)

    zope.event.subscribers.append(note)
    try:
        node = make_node(
            services=[["tests.support.node_functions.fail", "on purpose"], "tests.support.node_functions.note"]
        )
        wait_until(lambda: deaths and node_functions.called)
    finally:
        zope.event.subscribers.remove(note)
    (text,) = [record.getMessage() for record in caplog.records if "the service" in record.getMessage()]
    assert "tests.support.node_functions.fail" in text
    assert "on purpose" in text
    assert deaths[0].port in text
    assert node.scheduler.table.find(node_functions.called[0][0]), "the other service lives on"


def test_normal_death_of_a_service_is_not_logged(make_node: MakeNode, caplog: pytest.LogCaptureFixture) -> None:
    node = make_node(services=["tests.support.node_functions.note"])
    ((port,),) = wait_until(lambda: node_functions.called)
    node.kil(port)
    wait_until(lambda: node.scheduler.table.find(port) is None)
    wait_until(lambda: not node.scheduler.runq)
    assert "the service" not in caplog.text
