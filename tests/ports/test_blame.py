# SPDX-License-Identifier: MIT
"""The log line of a crash names the function of users that was called, and where it stands."""

from __future__ import annotations

import functools
import logging
import weakref

import pytest

from aemp_gevent import Node
from aemp_gevent.ports.receive import get, receive
from tests.support.helpers import wait_until

# --- calls with the wrong arguments -----------------------------------------------------------


class Handler:
    def method(self) -> None:
        """Take nothing."""


def takes_nothing() -> None:
    """Take nothing."""


def line_of(function):
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


WRONG_CALLS = {
    "tag": (lambda node: node.snd(node.rcv(node.port(), "add", takes_nothing), "add", 1), "handler of 'add'"),
    "tag-among-patterns": (
        lambda node: node.snd(node.rcv(node.port(), "add", takes_nothing, ["x"], print), "add", 1),
        "handler of 'add'",
    ),
    "pattern": (lambda node: node.snd(node.rcv(node.port(), ["add"], takes_nothing), "add"), "handler of a pattern"),
    "default": (lambda node: node.snd(node.port(takes_nothing), "add"), "handler"),
    "partial": (lambda node: node.snd(node.port(functools.partial(takes_nothing, 1)), "add"), "handler"),
    "body": (lambda node: node.port_async(takes_nothing, 1), "function"),
    "monitor": (lambda node: node.kil(watched(node), "why"), "monitor's action"),
    "timer": (lambda node: node.after(0, takes_nothing, 1), "function"),
    "cal": (lambda node: node.cal(node.port(lambda tag, reply: node.snd(reply, 1)), "x", cb=takes_nothing), "function"),
}


def watched(node: Node) -> str:
    port = node.port()
    node.mon(port, takes_nothing)
    return port


@pytest.mark.parametrize(("call", "what"), WRONG_CALLS.values(), ids=WRONG_CALLS)
def test_call_with_wrong_arguments_names_the_function_and_its_line(call, what, caplog):
    node = Node()
    call(node)
    wait_until(lambda: caplog.messages)
    assert f"; the {what} is takes_nothing at {line_of(takes_nothing)}" in caplog.messages[0]


def test_method_is_named_by_its_line_too(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    node.snd(node.rcv(node.port(), "add", Handler().method), "add", 1)
    wait_until(lambda: caplog.messages)
    assert f"handler of 'add' is Handler.method at {line_of(Handler.method)}" in caplog.messages[0]


# --- crashes ----------------------------------------------------------------------------------


class Callable:
    """An object that can be called, and whose attributes cannot be asked for."""

    def __getattr__(self, name: str) -> object:
        if name == "__code__":  # which rcv() and port() ask for
            raise AttributeError(name)
        raise ZeroDivisionError(name)

    def __call__(self, *_message: object) -> None:
        raise LookupError


def decorated(function):
    @functools.wraps(function)
    def call(*message: object) -> None:
        function(*message)

    return call


def crash(*_message: object) -> None:
    raise LookupError


def crash_in_another() -> None:
    takes_nothing(1)  # type: ignore[call-arg]


class Shop:
    def sell(self, *_message: object) -> None:
        raise LookupError


def long_name(*_message: object) -> None:
    raise LookupError


long_name.__qualname__ = "n\n" * 500

CRASHES = {
    "function": (crash, f"crash at {line_of(crash)}"),
    "method": (Shop().sell, f"Shop.sell at {line_of(Shop.sell)}"),
    "partial": (functools.partial(crash, 1), f"crash at {line_of(crash)}"),
    "decorated": (decorated(crash), f"crash at {line_of(crash)}"),
    "object": (Callable(), f"an object of the class Callable at {line_of(Callable.__call__)}"),
    "builtin": ([].remove, "list.remove"),
    "error-deeper": (crash_in_another, f"crash_in_another at {line_of(crash_in_another)}"),
    "long-name": (long_name, "n\\n" * 75 + "… at "),
}


@pytest.mark.parametrize(("function", "named"), CRASHES.values(), ids=CRASHES)
def test_the_log_line_of_a_crash_names_the_handler_and_where_it_stands(function, named, caplog):
    node = Node()
    message = [] if function is crash_in_another else ["sell"]
    port = node.port(function)
    node.snd(port, *message)
    wait_until(lambda: caplog.messages)
    assert caplog.messages[0].startswith(f"exception in port {port}; the handler is {named}")


def test_the_log_line_of_a_crash_in_a_context_names_the_function(caplog: pytest.LogCaptureFixture) -> None:
    node = Node()
    for run in (node.peval, node.peval_async):
        run(node.port(), crash)
        wait_until(lambda: caplog.messages)
        assert f"; the function is crash at {line_of(crash)}" in caplog.messages.pop()
        caplog.clear()


@pytest.mark.usefixtures("open_scheduler")
def test_the_log_line_of_an_error_of_the_library_names_no_function(caplog, monkeypatch):
    node = Node()
    monkeypatch.setattr(node.scheduler, "discard", crash)
    node.snd(node.port())
    wait_until(lambda: [text for text in caplog.messages if text.startswith("exception")])
    assert ";" not in caplog.messages[-1]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda node: node.snd(node.rcv(node.port(), "tag", node.snd), "tag"), "snd()"),  # it takes at least a port
        (lambda node: node.port_async(receive, 5), "5 is not a pattern"),
        (lambda node: node.port_async(functools.partial(get, "tag", timeout=0)), "ReceiveTimeout"),
    ],
    ids=["snd", "receive", "get"],
)
def test_the_log_line_names_no_function_of_the_library_that_users_gave(call, error, caplog):
    node = Node()
    call(node)
    wait_until(lambda: [text for text in caplog.messages if text.startswith("exception")])
    assert error in caplog.text
    assert ";" not in caplog.messages[-1]


def test_the_message_that_a_port_crashed_of_is_not_kept(monkeypatch):
    monkeypatch.setattr(logging.getLogger("aemp_gevent"), "propagate", False)  # pytest keeps what is logged
    node = Node()

    class Load:
        pass

    load = Load()
    gone = weakref.ref(load)
    node.snd(node.port(crash), load)
    del load
    wait_until(lambda: gone() is None)
