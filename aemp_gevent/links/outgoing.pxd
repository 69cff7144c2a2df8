from aemp_gevent.links.handshaking cimport Handshaking

cimport cython

cdef class Outgoing(Handshaking):
    cdef public object send_framing, _limits, _encode
    cdef public Py_ssize_t _unchecked, _usually_unchecked
    cdef public bint _sends_fragments
    cdef public long long _sent_packets

    @cython.locals(size=Py_ssize_t)
    cpdef send(self, packet)
