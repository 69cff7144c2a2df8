# SPDX-License-Identifier: MIT
"""Exceptions whose classes redefine the attributes that Python gives each: they end a port like all others."""

from __future__ import annotations

import pytest

from aemp_gevent.errors import RemoteError
from aemp_gevent.node.local_node import LocalNode
from aemp_gevent.node.node import Node
from tests.support.helpers import wait_until
from tests.support.settling import settle


class Numbered(Exception):
    __cause__ = 5  # type: ignore[assignment]


class Raising(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise LookupError("no cause")

    __context__ = __cause__  # type: ignore[assignment]


class Placeless(Exception):
    __traceback__ = 5  # type: ignore[assignment]


class Traceless(Exception):
    @property
    def __traceback__(self) -> None:  # type: ignore[override]
        raise LookupError("no traceback")


ODD = pytest.mark.parametrize("odd", [Numbered, Raising, Placeless, Traceless])


@ODD
def test_a_port_dies_of_an_exception_whose_class_redefines_its_attributes(
    node: LocalNode, caplog: pytest.LogCaptureFixture, odd: type[Exception]
) -> None:
    def crash() -> None:
        raise odd("boom")

    port = node.port(crash)
    died: list[tuple[object, ...]] = []
    node.mon(port, lambda *reason: died.append(reason))
    node.snd(port)
    settle(node)
    assert died == [("die", f"{odd.__name__}: boom")]
    wait_until(lambda: caplog.records)
    [record] = caplog.records
    assert record.exc_text is not None
    assert 'raise odd("boom")' in record.exc_text and record.exc_text.endswith(f"\n{odd.__name__}: boom")


@ODD
def test_a_caller_gets_an_exception_whose_class_redefines_its_attributes(odd: type[Exception]) -> None:
    def crash() -> None:
        raise odd("boom")

    node = Node()
    server = node.serve(node.port(), crash=crash)
    with pytest.raises(RemoteError, match="boom") as raised:
        node.call(server, "crash", timeout=5)
    assert 'raise odd("boom")' in raised.value.traceback
