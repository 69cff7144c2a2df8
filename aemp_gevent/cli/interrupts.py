# SPDX-License-Identifier: MIT
"""Ctrl-C in a command that waits in the loop: it ends the command at once, quietly, wherever it strikes."""

from __future__ import annotations

import signal
import threading
from typing import Any


def take_interrupts() -> None:
    """Hand SIGINT to the loop: the main greenlet gets ``KeyboardInterrupt``, and no callback is cut short.

    Python's own handler would raise it in any code that is running, and kill a callback or a link. And it would not be
    called at all if the signal came just before the loop begins to wait, as long as nothing else wakes the loop.
    """
    import gevent  # noqa: PLC0415

    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        print_no_interrupts()
        gevent.signal_handler(signal.SIGINT, _interrupt)


def print_no_interrupts() -> None:
    """Keep the hub, which raises ``KeyboardInterrupt`` in the main greenlet, from printing it as well."""
    import gevent  # noqa: PLC0415

    hub: Any = gevent.get_hub()  # its stubs lack NOT_ERROR
    if KeyboardInterrupt not in hub.NOT_ERROR:
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt
