# SPDX-License-Identifier: MIT
"""Errors of a :class:`~aemp_gevent.testing.NodeProcess`.

They are separate from the library's other errors because only tests can see them.
"""

from __future__ import annotations

from aemp_gevent.errors import AempError


class NodeProcessError(AempError):
    """The process of a node did not start, or has ended. The text contains its last output."""

    _keep = "\n\t"


class NodeProcessTimeout(NodeProcessError, TimeoutError):
    """The process did not answer or end in time. It may still carry out the command."""


class RemoteCodeError(NodeProcessError):
    """Code that was run in the process of a node raised an exception.

    Attributes:
        kind: The name of the exception's class.
        text: Its message.
        traceback: Its traceback over there.
    """

    def __init__(self, where: str, kind: str, text: str, traceback: str) -> None:
        super().__init__(f"{kind}: {text}\n--- traceback in {where}:\n{traceback}")
        self.kind = kind
        self.text = text
        self.traceback = traceback
