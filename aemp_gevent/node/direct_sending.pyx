# SPDX-License-Identifier: MIT
# cython: binding=False, embedsignature=True, embedsignature.format=clinic, nonecheck=False
"""What ``direct_sending.py`` does, for the compiled modules: a test compares what the two say of ``snd``.

A method of a C class that is not bound like one of Python is called directly by the interpreter, which saves a tenth.
"""

from aemp_gevent.peers.remote_port cimport RemotePort
from aemp_gevent.ports.c_calls cimport PyObject, append, find, untrack
from aemp_gevent.ports.port cimport Receiver


cdef class DirectSending:
    def __init__(self, scheduler, direct):
        self._scheduler = scheduler
        self._direct = direct

    def snd(self, port, *msg):
        """Send a message to a port: queue it and return. ``snd(*msg_with_port_first)`` works as well.

        A local port gets the message by reference: do not change it afterwards. For another node it
        is copied now. The call never fails because a node is unreachable (monitor the port to
        learn of that). It switches greenlets only when it leaves a link's buffer
        above its high-water mark. Messages from one node to one port arrive in order.
        Any native thread may call it; where a greenlet would be paused, the whole thread blocks.

        Raises:
            InvalidPortError: It is not a port ID, and the call does not come from a port's code. In a port's code,
                where it most likely came with a message, the message is dropped and a warning names the line.
            UnencodableMessageError: An element cannot travel to another node. A strict node checks all messages.
            MessageTooLargeError: It is larger than ``max_message_bytes``.
            NodeShutDownError: The node was shut down, and the call does not come from a port's code.
        """
        # There is no switch point for other threads between seeing the state and appending.
        cdef PyObject *found = find(self._direct, port)
        cdef Receiver target
        if found is NULL:
            self._send_elsewhere(port, msg)
            return
        target = <Receiver>found
        while not target.state:
            self._scheduler.enqueue(target)
        untrack(msg)
        mailbox = target.mailbox
        if type(mailbox) is RemotePort:
            (<RemotePort>mailbox).append(msg)
        else:
            append(mailbox, msg)

    def _send_elsewhere(self, port, msg):
        """Send a message to a port that :meth:`snd` did not find."""
        raise NotImplementedError
