# SPDX-License-Identifier: MIT
"""Running code: ports, the scheduler that runs them, ``receive``, timers and monitors.

The scheduler lets callbacks block without a greenlet for each port.

Ports with work stand in a run queue. A *runner* greenlet takes them one by one and
calls their handlers as plain functions, so that a message costs a call and not a
switch. When a handler blocks, its runner simply stays with that port: the hub, which
gets control then, runs the *pump*, sees that the queue still has work and starts
another runner. A greenlet that waits in ``receive`` is resumed by a runner directly,
or switches directly to the next one that is due.

Who may do what (every rule was paid for with a hang, a leak or a starved socket):

1. Work is queued, or a port stands in ``_deaths`` => ``pumped``: a pump is asked for
   or on the hub's stack. Whoever appends, and whoever goes to the hub leaving
   entries behind, sees to it.
2. A port is queued only from idle to queued. Entries that are no longer queued when
   they are popped are stale, and skipped.
3. Only the hub *starts* runners (who starts a greenlet lends it its own recursion
   depth) and only the hub *throws*. Nothing of the user's runs on the hub.
4. Idle first, then look: a port's state becomes idle before its mailbox is tested,
   because a finalizer may send between any two steps.
5. The value of a switch is never trusted: a foreign ``Timeout`` may resume anybody.
6. An exception may strike in the middle: see below. The step that counts comes last.

**Exceptions that nobody raised on purpose** strike our own code, too. At the recursion limit every call raises;
where a function begins, a call returned or a loop jumps back, the interpreter may run a signal handler, and that
raises (Ctrl-C). Nothing else lets them in: tests, loads, stores and operators do not. So:

- Who asks for the pump does that first. A pump too many does no harm, and when asking fails nothing was changed.
- A port is queued before its message is appended, and before it is marked as killed: without those two
  a queued port is served in vain. The appending, or the marking, is the last step.
- What is marked as queued, but may not be in the queue, is put there by an operator (``runq += (port,)``). What is
  taken from a queue is taken by ``[0]`` and ``del``, so that it is in a variable before anything can strike. Only the
  runners' own ``runq.popleft()`` is not (that would cost 6 % of a local round trip): when it is struck, all
  ports are looked at for those that lost their place. Jobs stand in a queue of their own, each with a
  mark in the run queue, so that none is lost with it.
- ``pumped`` is set by the caller that asks, and taken back when that fails. What the loop calls is
  no function but a suspended generator, which goes on *inside* a ``try`` (:mod:`aemp_gevent.runtime.hub_calls`).
- A runner that is struck while it serves a port has that port die, as if it had happened in the port's handler.
- :meth:`Scheduler.die` stores *dead* last and may be begun again.
- A timer of ours repeats until its call came to its end, so its call must bear to be made twice.

**Other native threads** send to local ports by the same few steps as everybody, without
a lock and without being recognised (that would cost a twentieth of a local message).
The interpreter switches threads only when a call returned, when a Python function
begins, and when a loop jumps back. So each of these is one step for all threads:
seeing that a port is not idle, finding its mailbox *and* appending to it
(``target.mailbox.append(msg)``); seeing that a port is idle *and* making it queued;
testing *and* storing a mailbox where no call stands between. Between two such steps a
thread may stop for any time, and then:

- stopped before it appends the message, it holds a port, never a mailbox: it appends to whatever is
  the port's mailbox by then (diverted, bounded, or nowhere), and in the same step it saw that the
  port is not idle, or else it queues it again;
- stopped when it has asked for the pump, that may have run in vain: it looks at everything again;
- stopped when it has queued the port, that may have been served in vain: it looks at the state again;
- a port may come to stand in the run queue twice, when this thread and the hub's each
  see it idle: rule 2 makes the second entry stale.

So nobody but the thread of the hub pops, throws, ends ports, or stores another state than
*queued*, and ``kil`` only notes the reason and stores the mailbox where messages vanish;
the rest is handed to the hub. Everything else that other threads call raises
:class:`~aemp_gevent.errors.WrongThreadError`.

This module is not about matching messages (:mod:`aemp_gevent.ports.receive`) nor about who
is told of deaths (:mod:`aemp_gevent.ports.monitors`). Prior art: Erlang's run queues and
reductions, Coro's ready queue, trio's "hand over, don't wake".
"""
