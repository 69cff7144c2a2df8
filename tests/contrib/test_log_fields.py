# SPDX-License-Identifier: MIT
"""Log lines name the port whose code wrote them, and the trace that it works for."""

from __future__ import annotations

import json
import logging
import sys
from types import ModuleType
from typing import Any

import pytest

from aemp_gevent import Node
from aemp_gevent.contrib.log_fields import EcsFormatter, FieldsFilter, add_fields
from aemp_gevent.testing import wait_until


def record(**more: Any) -> logging.LogRecord:
    return logging.LogRecord("shop", logging.WARNING, __file__, 1, "%d left", (3,), more.get("exc_info"))


def in_port(function: Any) -> tuple[str, Any]:
    node = Node()
    found: list[Any] = []
    port = node.port(lambda: found.append(function()))
    node.snd(port)
    wait_until(lambda: found)
    return port, found[0]


def test_filter_adds_the_port_and_its_node() -> None:
    line = logging.Formatter("%(aemp_port)s|%(aemp_node)s|%(trace_id)s|%(message)s")

    def write() -> str:
        made = record()
        assert FieldsFilter().filter(made)
        return line.format(made)

    assert write() == "|||3 left"
    port, written = in_port(write)
    assert written == f"{port}|{port.partition('#')[0]}||3 left"


def test_filter_keeps_what_is_there() -> None:
    made = record()
    made.trace_id = "given"
    FieldsFilter().filter(made)
    assert made.trace_id == "given"


def test_formatter_writes_lines_of_json_with_ecs_names() -> None:
    port, written = in_port(lambda: json.loads(EcsFormatter().format(record())))
    assert written["message"] == "3 left"
    assert written["log.level"] == "warning"
    assert written["log.logger"] == "shop"
    assert written["aemp.port"] == port
    assert "trace.id" not in written
    try:
        raise ValueError("on purpose")
    except ValueError as error:
        made = record(exc_info=(ValueError, error, error.__traceback__))
    found = json.loads(EcsFormatter().format(made))
    assert found["error.type"] == "ValueError"
    assert "on purpose" in found["error.stack_trace"]
    assert "aemp.port" not in found


def test_processor_for_structlog_adds_what_there_is() -> None:
    assert add_fields(None, "info", {"event": "x"}) == {"event": "x"}
    port, event = in_port(lambda: dict(add_fields(None, "info", {"event": "x", "aemp_node": "mine"})))
    assert event == {"event": "x", "aemp_port": port, "aemp_node": "mine"}


def test_trace_is_left_out_while_opentelemetry_is_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))
    made = record()
    assert FieldsFilter().filter(made)
    assert made.trace_id == ""  # type: ignore[attr-defined]


def test_trace_is_in_the_fields() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="OpenTelemetry's SDK is not installed")
    with sdk.TracerProvider().get_tracer("x").start_as_current_span("y") as span:
        made = record()
        FieldsFilter().filter(made)
    assert (made.trace_id, made.span_id) == (
        format(span.get_span_context().trace_id, "032x"),
        format(span.get_span_context().span_id, "016x"),
    )
