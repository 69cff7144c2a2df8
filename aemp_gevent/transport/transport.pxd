from aemp_gevent.transport.system_calls cimport HAS_CALLS, receive, send

cimport cython


cdef class Sink:
    cpdef on_data(self, data)
    cpdef on_room(self)


cdef class SocketTransport:
    cdef object __weakref__
    cdef public Py_ssize_t buffered, _batch_bytes, _batch_limit, _sent_ahead
    cdef public long long sent, sent_writes
    cdef public object _socket, _hub, _loop, _view, _batches, _sending, _receive_into, _send_some, _flush, _read
    cdef public object _peer_address, _reader, _writer, _send_error
    cdef public Sink _sink
    cdef public list _chunks
    cdef public bytearray _buffer
    cdef public int _descriptor
    cdef public set _filling
    cdef public bint _flush_asked, _has_descriptor, _is_filling, _awaits_room, _is_sending, _finishing, _closed, _is_over

    cpdef _readable(self)
    cpdef _send_answers(self)
    @cython.locals(size=Py_ssize_t)
    cpdef write(self, data)
    cpdef _end_batch(self)
    @cython.locals(sent=Py_ssize_t)
    cpdef _send_ahead(self)
    @cython.locals(sent=Py_ssize_t, ahead=Py_ssize_t)
    cpdef _send_next(self)
    cpdef _await_room(self)
    cpdef _fill_no_more(self)
    cpdef list _next_batch(self)
