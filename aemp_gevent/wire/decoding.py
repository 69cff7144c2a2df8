# SPDX-License-Identifier: MIT
"""What decodes a stream of packets, in whichever framing.

Most framings have only one way to iterate, and raise nothing but :class:`FramingError` then. msgpack's own iterator
needs more: see :mod:`~.framing_msgpack`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aemp_gevent.errors import FramingError

ERRORS: tuple[type[Exception], ...] = (FramingError,)
"""The ``errors`` of a framing whose decoder has one way to iterate."""


class Decoder:
    """Turns a stream of bytes, cut anywhere, into packets."""

    __slots__ = ()

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes; iterate to the end before reusing their buffer."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        """Yield every complete packet, in order.

        Raises the ``errors`` of its framing.
        """
        raise NotImplementedError

    def quickly(self) -> Iterable[Any]:
        """Yield the same in the quickest way, which may raise an error that :meth:`retry` can handle."""
        return iter(self)

    def retry(self, error: Exception) -> Iterator[Any]:
        """Decode in another way after an error of :meth:`quickly`; raise it where there is none."""
        try:
            raise error
        finally:
            del error  # otherwise its traceback would refer to it

    def rest(self) -> None:
        """Give memory back that only large packets need, unless one has begun."""


def translate(error: Exception) -> FramingError:
    """Return the error itself, which is of the right class already."""
    assert isinstance(error, FramingError)
    return error
