from aemp_gevent.links.outgoing cimport Outgoing
from aemp_gevent.ports.c_calls cimport PURE
from aemp_gevent.ports.port cimport Receiver
from aemp_gevent.ports.scheduler cimport Scheduler
from aemp_gevent.wire.decoding cimport Decoder

cimport cython

cdef class Link(Outgoing):
    cdef public object owner, nonce
    cdef public dict _ports
    cdef public Decoder _decoder
    cdef public object _traffic, _prefix, _framing, _assembler, _held, _postponed, _turn
    cdef public bint dialled, finished, has_ended, has_sent, _has_begun, _is_deaf, _end_is_held
    cdef public long long received_packets, keep_alives

    @cython.locals(
        scheduler=Scheduler, target=Receiver, count=Py_ssize_t, now=double, turn_ends=double, calls_end=double, most_jobs=Py_ssize_t
    )
    cpdef _handle(self, packets)
    cpdef on_data(self, data)
    cpdef on_room(self)
    cpdef _take(self, data)
    cpdef _close_if_done(self)
