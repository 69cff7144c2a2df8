# SPDX-License-Identifier: MIT
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, nonecheck=False
"""What ``receive.py`` does, for the compiled modules: a test compares what the two say of each function.

Functions that are not bound like those of Python are called directly by the interpreter, which leaves less on the
stack that switches copy, too.
"""

cimport cython

from aemp_gevent.ports.c_calls cimport getcurrent, popleft
from aemp_gevent.ports.port cimport Cell, Port
from aemp_gevent.ports.receiving cimport receive_for
from aemp_gevent.ports.runner cimport Runner
from aemp_gevent.ports.scheduler cimport Scheduler

from aemp_gevent.errors import ReceiveTimeout
from aemp_gevent.ports.context import require_port
from aemp_gevent.ports.patterns import match_any_of
from aemp_gevent.ports.port import RUNNING as _RUNNING
from aemp_gevent.runtime.quantities import to_seconds

cdef int RUNNING = _RUNNING

_RAISE = str(b"raise ReceiveTimeout", "ascii")
cdef object NOTHING = _RAISE


# The first pattern has a name of its own, because the interpreter makes a tuple for functions without such an argument,
# and calls them less directly. So the signature is written in the docstring.
@cython.embedsignature(False)
def receive(pattern=NOTHING, /, *others, timeout=None, default=NOTHING):
    """receive(*patterns, timeout=None, default=_RAISE)\n--\n\n\
    Return the first queued message that matches any pattern, as a tuple; wait for one if none does.

    Messages that do not match stay queued, in order. On a port with a greenlet of its
    own, its tag handlers and patterns are served here, in order; what they leave is
    what this sees. May switch greenlets, also while it looks through a long mailbox, except
    with ``timeout=0``: a loop that only polls starves everybody else. A predicate may receive
    itself; it is asked once about each message.

    Args:
        patterns: Alternatives, each for a whole message: a tag (str), a list of elements as in ``rcv``, a type (of the
            first element), or a predicate called with ``*msg``. None given: any message.
            What a predicate raises is raised here; an element that cannot be compared does not match.
        timeout: Seconds to wait; None waits forever, 0 polls: it looks at what is queued when it is called.
        default: Returned instead of raising ``ReceiveTimeout``.

    Raises:
        ReceiveTimeout: Nothing matched in time.
        PortKilled: The port was killed; let it pass. Every later call raises it again.
        NoPortContextError: Not in a port; see ``port_async`` and ``attach``.
        ReceiverBusyError: Another greenlet receives for this port.
        EndlessWaitError: Nothing is left that could send, and no timeout is given.
        TypeError: One of the patterns is not a pattern, or the timeout is not a number.
    """
    cdef Port port
    cdef Cell cell
    cdef Scheduler scheduler
    current = getcurrent()
    if type(current) is Runner:
        port = (<Runner>current).aemp_port
    else:
        port = getattr(current, "aemp_port", None)
    if port is not None and pattern is NOTHING and timeout is None:
        cell = port.cell
        if cell.handlers is None and cell.runner is current and port.state == RUNNING:
            scheduler = cell.scheduler
            while cell.dying is None:
                if cell.inbox:
                    scheduler.credit -= 1
                    if scheduler.credit <= 0 and scheduler.turn_is_over():
                        scheduler.visit_hub(port, current)
                        continue
                    scheduler.scan = None
                    return popleft(cell.inbox)
                scheduler.wait(port, current, 0)
    patterns = () if pattern is NOTHING else (pattern, *others)
    limit = to_seconds(timeout, "receive()")
    try:
        return receive_for(port or require_port("receive()"), match_any_of(patterns), limit)
    except ReceiveTimeout:
        if default is NOTHING:
            raise
        return default


def get(tag, timeout=None):
    """Wait for the first message with this tag, and return it without the tag.

    Otherwise like :func:`receive`, with the same errors.

    Source:
        Coro::MP, ``get``.
    """
    return receive_for(require_port("get()"), match_any_of((tag,)), to_seconds(timeout, "get()"))[1:]


def get_cond(predicate, timeout=None):
    """Wait for the first message for which ``predicate(*msg)`` is true, and return all of it.

    Otherwise like :func:`receive`, with the same errors.

    Source:
        Coro::MP, ``get_cond``.
    """
    return receive_for(require_port("get_cond()"), match_any_of((predicate,)), to_seconds(timeout, "get_cond()"))
