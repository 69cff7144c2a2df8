# SPDX-License-Identifier: MIT
"""Fields for log lines: the port and the node whose code logs, and the trace that it works for.

For the standard library's logging: a filter that adds the fields to records, and a formatter that writes each
record as one line of JSON, with the names of the Elastic Common Schema. For structlog: a processor.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import datetime, timezone
from typing import Any

from aemp_gevent.ports.context import SELF

__all__ = ["EcsFormatter", "FieldsFilter", "add_fields"]

_FIELDS = {"trace_id": "trace.id", "span_id": "span.id", "aemp_port": "aemp.port", "aemp_node": "aemp.node"}
"""The attributes of records, and their names in the Elastic Common Schema."""


class FieldsFilter(logging.Filter):
    """Adds ``aemp_port``, ``aemp_node``, ``trace_id`` and ``span_id`` to each record; ``""`` where there is none.

    Add it to handlers, because filters of loggers do not see the records of loggers below them::

        handler.addFilter(FieldsFilter())
        handler.setFormatter(logging.Formatter("%(levelname)s %(aemp_port)s %(trace_id)s %(message)s"))
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields that are not there yet, and let the record pass."""
        for name, value in fields().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class EcsFormatter(logging.Formatter):
    """Writes each record as a line of JSON with the names of the Elastic Common Schema. It needs no filter."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        known = fields()
        found: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "log.logger": record.name,
            "process.pid": record.process,
            "ecs.version": "8.11",
        }
        for name, field in _FIELDS.items():
            value = getattr(record, name, known[name])
            if value:
                found[field] = value
        if record.exc_info and record.exc_info[0] is not None:
            found["error.type"] = record.exc_info[0].__name__
            found["error.stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(found, default=str)


def add_fields(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add the fields that are not empty to an event: a processor for structlog."""
    for name, value in fields().items():
        if value:
            event.setdefault(name, value)
    return event


def fields() -> dict[str, str]:
    """Return the fields of the running code."""
    port = SELF() or ""
    found = {"aemp_port": port, "aemp_node": port.partition("#")[0], "trace_id": "", "span_id": ""}
    tracing = sys.modules.get("opentelemetry.trace")  # if nobody imported it, there is no trace
    find = getattr(tracing, "get_current_span", None)  # another greenlet may be importing it
    if find is not None:
        span = find().get_span_context()
        if span.is_valid:
            found["trace_id"], found["span_id"] = format(span.trace_id, "032x"), format(span.span_id, "016x")
    return found
