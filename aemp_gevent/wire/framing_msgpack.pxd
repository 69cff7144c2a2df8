from aemp_gevent.wire.decoding cimport Decoder

cimport cython

cdef class MsgpackDecoder(Decoder):
    cdef object __weakref__
    cdef public object _limits, _announced, large, _pieces, _current, _counter, _unpacker, _data, _since
    cdef public Py_ssize_t _limit, _piece, _counted
    cdef public long long _fed, _begin
    cdef public bint _is_exact

    cpdef feed(self, data)
    cpdef quickly(self)
    @cython.locals(limit=Py_ssize_t, before="long long", fed="long long", end="long long")
    cpdef _take(self, piece)
