# SPDX-License-Identifier: MIT
"""Answers that a function which serves a call gives later, such as from another greenlet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """The answer to a call that is given later. A function that returns it has not answered yet.

    The first answer counts; others are discarded. If the server dies before that, the caller gets ``PortDied``.

    Args:
        send: Sends a value to the caller.
        fail: Reports an exception to the caller.
    """

    def __init__(self, send: Callable[[Any], None], fail: Callable[[BaseException], None]) -> None:
        self._send = send
        self._fail = fail

    def send(self, value: T) -> None:
        """Answer the call. Any greenlet and any native thread may do that, once; never switches.

        Raises:
            UnencodableMessageError, MessageTooLargeError: As in ``snd``. You can still answer with something else.
        """
        self._send(value)

    def fail(self, error: BaseException) -> None:
        """Make the call raise ``RemoteError`` with the text and the traceback of an exception. Never switches."""
        self._fail(error)
