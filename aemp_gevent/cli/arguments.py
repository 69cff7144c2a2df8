# SPDX-License-Identifier: MIT
"""Values on the command line: JSON if they look like JSON, otherwise text."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import Any

import click

from aemp_gevent.runtime.quoting import quoted

_LITERAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null")


def parse_value(text: str) -> Any:  # any JSON value
    """Return the value of an argument.

    Numbers, ``true``, ``false``, ``null`` and everything that begins with ``[``, ``{`` or
    ``"`` are parsed as JSON; everything else is text.

    Raises:
        ValueError: The argument begins like JSON, but is not valid.
    """
    if text.startswith(("[", "{", '"')):
        try:
            return json.loads(text)
        except ValueError as error:
            as_text = shlex.quote(json.dumps(text, ensure_ascii=False))
            wanted = f"{quoted(text)} begins like JSON, but is not valid ({error}); to give a text, write {as_text}"
            raise ValueError(wanted) from None
    return json.loads(text) if _LITERAL.fullmatch(text) else text


class Seconds(click.FloatRange):
    """A parameter's ``type`` for a number of seconds; ``nan`` and ``inf`` are refused."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


def value(text: str) -> Any:  # as above
    """Return the value of an argument, as a parameter's ``type``; see :func:`parse_value`."""
    try:
        return parse_value(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
