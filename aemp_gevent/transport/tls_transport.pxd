from aemp_gevent.transport.transport cimport Sink

cimport cython


cdef class TlsTransport(Sink):
    cdef object __weakref__
    cdef public Py_ssize_t buffered, _leaving, _goodbye
    cdef public long long sent, sent_writes, arrived
    cdef public object _inner, _tls, _hub, _secured, _chunks, _flush
    cdef public Sink _sink
    cdef public bint has_failed, was_cut, _flush_asked, _finishing, _finished, _closed

    cpdef on_data(self, data)
    cpdef _hand_on(self, plain)
    cpdef on_room(self)
    @cython.locals(size=Py_ssize_t)
    cpdef write(self, data)
    cpdef _flush_soon(self)
    cpdef _encrypt_next(self)
    @cython.locals(batch=list, size=Py_ssize_t)
    cpdef _next_batch(self)
