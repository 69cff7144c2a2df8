# SPDX-License-Identifier: MIT
"""Shared by the decoders that have only one way to iterate, and raise nothing but :class:`FramingError` then.

msgpack's own iterator needs more: see :mod:`~.framing_msgpack`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aemp_gevent.errors import FramingError

ERRORS: tuple[type[Exception], ...] = (FramingError,)
"""The ``errors`` of such a framing."""


class OneWayDecoder:
    """The part of a :class:`~aemp_gevent.wire.framing.Decoder` that is the same for all of these decoders."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError

    def quickly(self) -> Iterable[Any]:
        """Iterate as usual."""
        return iter(self)

    def retry(self, error: Exception) -> Iterator[Any]:
        """Raise the error, as there is no other way to decode."""
        try:
            raise error
        finally:
            del error  # otherwise its traceback would refer to it

    def rest(self) -> None:
        """Do nothing: all memory is given back after each packet."""


def translate(error: Exception) -> FramingError:
    """Return the error itself, which is of the right class already."""
    assert isinstance(error, FramingError)
    return error
