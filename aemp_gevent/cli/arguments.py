# SPDX-License-Identifier: MIT
"""What users write to mean a value: JSON where it looks like JSON, else text."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import Any

import click

from aemp_gevent.runtime.quoting import quoted

_LITERAL = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null")


def parse_value(text: str) -> Any:  # whatever JSON can say
    """Return the value that a text means.

    Numbers, ``true``, ``false``, ``null`` and everything that begins with ``[``, ``{`` or
    ``"`` are JSON; all else is text as it stands.

    Raises:
        ValueError: It begins like JSON, but is not valid.
    """
    if text.startswith(("[", "{", '"')):
        try:
            return json.loads(text)
        except ValueError as error:
            as_text = shlex.quote(json.dumps(text, ensure_ascii=False))
            wanted = f"{quoted(text)} begins like JSON, but is not valid ({error}); to mean the text, write {as_text}"
            raise ValueError(wanted) from None
    return json.loads(text) if _LITERAL.fullmatch(text) else text


class Seconds(click.FloatRange):
    """A number of seconds, as the ``type`` of a parameter; ``nan`` and ``inf`` are refused."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is not a number of seconds.", param, ctx)
        return seconds


def value(text: str) -> Any:  # as above
    """Return what a text means: the ``type`` of such a parameter; see :func:`parse_value`."""
    try:
        return parse_value(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
