# SPDX-License-Identifier: MIT
"""Running code: ports, the scheduler that runs them, ``receive``, timers and monitors.

The scheduler lets callbacks block without a greenlet for each port.

Ports with work stand in a run queue. A *runner* greenlet takes them one by one and
calls their handlers as plain functions, so that a message costs a call and not a
switch. When a handler blocks, its runner stays with that port: the hub, which
gets control then, runs the *pump*, sees that the queue still has work and starts
another runner. A greenlet that waits in ``receive`` is resumed directly, by a runner
or by the greenlet that waits next.

**Rules.** Each of them was learned from a hang, a leak or a starved socket.

1. While work is queued, or a port stands in ``_deaths``, ``pumped`` is true: a pump is asked for
   or on the hub's stack. Code that appends, and code that goes to the hub and leaves
   entries behind, must ask for it.
2. A port is queued only when its state changes from idle to queued. Entries that are not in the state *queued* when
   they are popped are stale, and skipped.
3. Only the hub *starts* runners, because a greenlet begins with the recursion depth of the one that
   starts it, and only the hub *throws*. No code of users runs on the hub.
4. Idle first, then look: a port's state becomes idle before its mailbox is tested,
   because a finalizer may send between any two steps.
5. The value of a switch is never trusted: a foreign ``Timeout`` may resume any greenlet.
6. An exception may strike between two steps: see below. The step that counts comes last.

**Exceptions that no code raised on purpose** strike the library, too. At the recursion limit every call raises.
Where a function begins, a call returned or a loop jumps back, the interpreter may run a signal handler, which
raises (Ctrl-C). Tests, loads, stores and operators let no exception in. So:

- Code that needs the pump asks for it first. One pump too many does no harm, and if asking fails, nothing was changed.
- A port is queued before its message is appended, and before it is marked as killed. A port that is queued without
  them is served in vain. To append, or to mark, is the last step.
- A port that is marked as queued, but may not be in the queue, is put there by an operator (``runq += (port,)``).
  Entries are taken from a queue by ``[0]`` and ``del``, so that they are in a variable before anything can strike. The
  exception is the runners' own ``runq.popleft()``, where that would cost 6 % of a local round trip: when it is
  struck, all ports are searched for those that lost their place. Jobs stand in a queue of their own, each with a
  mark in the run queue, so that none is lost with the mark.
- ``pumped`` is set by the caller that asks, and taken back if that fails. The event loop does not call a
  function but a suspended generator, which resumes *inside* a ``try`` (:mod:`aemp_gevent.runtime.hub_calls`).
- If a runner is struck while it serves a port, the port dies, as if the exception came from its handler.
- :meth:`Scheduler.die` stores *dead* last and may be begun again.
- A timer of ours repeats until its call came to its end, so the call must tolerate being made twice.

**Other native threads** send to local ports by the same few steps as the hub's thread, without
a lock and without being recognised, which would cost 5 % of a local message.
The interpreter switches threads only when a call returned, when a Python function
begins, when a loop jumps back and, in CPython 3.10, when the test of an ``if`` or ``while`` fails. So a step that
relies on a test stands inside the ``if``, never in its ``else`` or behind it, and is one step with the test for
all threads: seeing that a port is not idle, finding its mailbox *and* appending to it
(``target.mailbox.append(msg)``); seeing that a port is idle and a pump is asked for *and* making it queued;
testing *and* storing a mailbox, or a cell, where no call stands between. Between two such steps a
thread may stop for any time:

- If it stopped before it appends the message, it holds a port, never a mailbox. It appends to whatever is
  the port's mailbox by then (diverted, bounded, or nowhere). In the same step it saw that the
  port is not idle; otherwise it queues it again.
- If it stopped after it asked for the pump, the pump may have run in vain: it looks at everything again.
- If it stopped after it queued the port, the port may have been served in vain: it looks at the state again.
- A port may come to stand in the run queue twice, when this thread and the hub's thread both
  see it idle. Rule 2 makes the second entry stale.

So only the thread of the hub pops, throws, ends ports, or stores a state other than
*queued*. ``kil`` in another thread stores the reason and the mailbox where messages vanish, which may take
a cell of the port's own, and leaves the rest to the hub. All other calls in other threads raise
:class:`~aemp_gevent.errors.WrongThreadError`.

Prior art: Erlang's run queues and reductions, Coro's ready queue, trio's "hand over, don't wake".
"""
